"""Tables and status of device-mapper: every target both ways, lines as kernels write them."""

import random

import pytest

from blockwright.errors import UsageError
from blockwright.system.linux.dm import status, tables
from blockwright.system.linux.dm.device import Mapper
from blockwright.system.linux.dm.layout import Flag, Line
from blockwright.system.linux.dm.tables import (
    Crypt,
    Error,
    Linear,
    Other,
    Snapshot,
    SnapshotMerge,
    SnapshotOrigin,
    Striped,
    Thin,
    ThinPool,
    Verity,
    Zero,
)
from blockwright.units import KiB, MiB

TARGETS = [
    (Linear(MiB, "7:0", 512), "linear", "7:0 1"),
    (Striped(MiB, 64 * KiB, (("7:0", 0), ("7:1", MiB))), "striped", "2 128 7:0 0 7:1 2048"),
    (Zero(MiB), "zero", ""),
    (Error(MiB), "error", ""),
    (SnapshotOrigin(MiB, "7:0"), "snapshot-origin", "7:0"),
    (Snapshot(MiB, "7:0", "7:1", 4096), "snapshot", "7:0 7:1 P 8"),
    (Snapshot(MiB, "7:0", "7:1", 4096, overflow=True), "snapshot", "7:0 7:1 PO 8"),
    (
        Snapshot(MiB, "7:0", "7:1", 4096, persistent=False, options=("discard_zeroes_cow",)),
        "snapshot",
        "7:0 7:1 N 8 1 discard_zeroes_cow",
    ),
    (SnapshotMerge(MiB, "7:0", "7:1", 4096), "snapshot-merge", "7:0 7:1 P 8"),
    (ThinPool(MiB, "7:0", "7:1", 64 * KiB, error_if_full=False), "thin-pool", "7:0 7:1 128 0 0"),
    (
        ThinPool(MiB, "7:0", "7:1", MiB, 5, zero=False, discard=False, passdown=False, read_only=True),
        "thin-pool",
        "7:0 7:1 2048 5 5 skip_block_zeroing ignore_discard no_discard_passdown read_only error_if_no_space",
    ),
    (Thin(MiB, "254:0", 7), "thin", "254:0 7"),
    (Thin(MiB, "254:0", 7, "7:3"), "thin", "254:0 7 7:3"),
    (
        Verity(MiB, "7:0", "7:1", b"\xab" * 32, b"\x01\x02", hash_start_blocks=1, options=("ignore_zero_blocks",)),
        "verity",
        f"1 7:0 7:1 4096 4096 256 1 sha256 {'ab' * 32} 0102 1 ignore_zero_blocks",
    ),
    (Verity(MiB, "7:0", "7:1", b"\xab" * 32), "verity", f"1 7:0 7:1 4096 4096 256 0 sha256 {'ab' * 32} -"),
    (
        Crypt(MiB, "aes-xts-plain64", "00ff", "7:0", 4096, 8, ("allow_discards",)),
        "crypt",
        "aes-xts-plain64 00ff 8 7:0 8 1 allow_discards",
    ),
    (Other(MiB, "flakey", "7:0 0 1 2"), "flakey", "7:0 0 1 2"),
]


@pytest.mark.parametrize(("target", "kind", "text"), TARGETS, ids=lambda each: str(each)[:40])
def test_every_target_both_ways(target, kind, text):
    [line] = tables.lines([target])
    assert line == Line(0, 2048, kind, text)
    assert tables.parse(line) == target


def test_targets_follow_each_other():
    lines = tables.lines([Zero(MiB), Linear(512, "/dev/x"), Error(1024)], number=lambda device: f"<{device}>")
    assert [(line.start_sector, line.length_sectors, line.text) for line in lines] == [
        (0, 2048, ""),
        (2048, 1, "</dev/x> 0"),
        (2049, 2, ""),
    ]
    assert tables.size_of([Zero(MiB), Error(512)]) == MiB + 512


def test_what_no_kernel_could_take_is_refused():
    for table, message in (
        ([], "found none"),
        ([Zero(0)], "zero: expected a length of a sector or more"),
        ([Zero(100)], "found 100"),
        ([Linear(512, "7:0", 5)], "found 5"),
        ([Verity(512, "7:0", "7:1", b"")], "verity: expected a multiple of 4096 bytes, found 512"),
    ):
        with pytest.raises(UsageError, match=message):
            tables.lines(table)


def test_lines_that_are_not_as_documented_are_kept_as_they_are():
    for kind in {line for _, line, _ in TARGETS}:
        for text in (
            "x",
            "1 2 3 4 5 6 7 8 9",
            "7:0",
            "- - - -",
            "2 128 7:0 0 7:1",
            "7:0 7:1 Q 8",
            "7:0 7:1 128 0 9 x",
        ):
            found = tables.parse(Line(0, 8, kind, text))
            assert [found] == [found]
            if isinstance(found, Other):
                assert found == Other(4096, kind, text)


def test_a_key_is_not_shown():
    assert "c0ffee" not in repr(Crypt(MiB, "aes", "c0ffee", "7:0"))


def test_the_kernel_wipes_what_carried_a_key():
    asked = []

    class Control:
        def request(self, command, name, *, flags, **given):
            asked.append(flags)

    mapper = Mapper.__new__(Mapper)
    mapper._control = Control()
    crypt, integrity = Crypt(MiB, "aes", "c0ffee", "7:0"), Other(MiB, "integrity", "7:0 0 4 J 0")
    for table in ([Zero(MiB)], [Zero(MiB), crypt], [integrity], [Other(MiB, "crypt", "aes c0ffee")]):
        mapper.load("x", table)
    assert asked == [Flag(0), Flag.SECURE_DATA, Flag.SECURE_DATA, Flag.SECURE_DATA]


POOL = "1 417/4161 1/131072 - rw discard_passdown queue_if_no_space - 1024 "


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("linear", "", {"type": "linear", "text": ""}),
        ("striped", "2 7:0 7:1 1 AD", {"devices": ("7:0", "7:1"), "alive": (True, False)}),
        ("snapshot", "16/2048 16", {"used": 8192, "total": MiB, "metadata": 8192, "merged": True, "problem": ""}),
        ("snapshot", "Invalid", {"problem": "Invalid", "merged": False}),
        ("snapshot", "Overflow", {"problem": "Overflow"}),
        ("snapshot-merge", "Merge failed", {"problem": "Merge failed", "merged": False}),
        (
            "thin-pool",
            POOL,
            {
                "transaction": 1,
                "metadata_used_blocks": 417,
                "metadata_total_blocks": 4161,
                "data_used_blocks": 1,
                "data_total_blocks": 131072,
                "held_root": None,
                "mode": "rw",
                "discard": True,
                "passdown": True,
                "error_if_full": False,
                "needs_check": False,
                "healthy": True,
                "metadata_low_water_blocks": 1024,
            },
        ),
        (
            "thin-pool",
            "7 32/32 20/20 12 ro no_discard_passdown error_if_no_space needs_check 4 ",
            {
                "mode": "ro",
                "needs_check": True,
                "healthy": False,
                "takes_messages": False,
                "held_root": 12,
                "passdown": False,
            },
        ),
        (
            "thin-pool",
            "7 32/32 20/20 - out_of_data_space ignore_discard error_if_no_space ",
            {
                "mode": "out_of_data_space",
                "discard": False,
                "healthy": False,
                "takes_messages": True,
                "metadata_low_water_blocks": None,
            },
        ),
        ("thin-pool", "Fail", {"mode": "Fail", "healthy": False}),
        ("thin", "128 127", {"mapped": 65536, "highest": 65535, "failed": False}),
        ("thin", "0 -", {"mapped": 0, "highest": None}),
        ("thin", "Fail", {"failed": True}),
        ("verity", "V", {"verified": True}),
        ("verity", "C 0", {"verified": False}),
    ],
)
def test_status_lines(kind, text, expected):
    found = status.parse(Line(0, 8, kind, text))
    assert {name: getattr(found, name) for name in expected} == expected


def test_any_status_is_a_value():
    words = ["rw", "-", "1/2", "5", "A", "V", "Fail", "needs_check", "9" * 30, "x/y", ""]
    for seed in range(2000):
        source = random.Random(seed)
        text = " ".join(source.choices(words, k=source.randrange(9)))
        for kind in ("striped", "snapshot", "thin-pool", "thin", "verity", "nonsense"):
            assert status.parse(Line(0, 8, kind, text)).type == kind
