"""Hybrid master boot records: what they tell of, and what they cannot."""

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import NotFound, UsageError
from blockwright.table import edit
from blockwright.table import read as tables
from blockwright.table.gpt import layout
from blockwright.table.gpt.hybrid import Shown, with_hybrid
from blockwright.table.gpt.names import TYPES
from blockwright.table.gpt.plan import Request, plan, segments
from blockwright.table.mbr.layout import PROTECTIVE, chs
from blockwright.units import MiB, TiB


def gpt(*sizes, size=None):
    return plan([Request(TYPES["linux-generic"], each) for each in sizes], seed=b"x", size=size)


def test_the_protective_entry_ends_before_the_first_that_is_shown():
    table = gpt(MiB, 2 * MiB, MiB)
    sector = with_hybrid(
        b"code".ljust(440, b"c") + b"\1\2\3\4" + bytes(68), table, [Shown(2, 0x0C, active=True), Shown(1, 0x83)]
    )
    entries = layout.mbr_entries(sector)
    found = [(each.os_type, each.starting_lba, each.size_in_lba, each.boot_indicator) for each in entries]
    assert found == [(PROTECTIVE, 1, 2047, 0), (0x83, 2048, 2048, 0), (0x0C, 4096, 4096, 0x80), (0, 0, 0, 0)]
    assert sector[:4] == b"code"
    assert sector[440:444] == b"\1\2\3\4"
    assert entries[0].starting_chs == chs(1)


def test_it_is_written_over_a_gpt_and_taken_away_again():
    table = gpt(MiB, MiB)
    device = MemoryDevice(table.size)
    for start, source in zip(segments(table).starts, segments(table).sources, strict=True):
        device.write(start, bytes(source))
    before = device.read(0, table.size)
    edit.write_hybrid(device, table, [Shown(1, 0x0C)])
    assert tables.read(device) == table
    assert device.read(512, table.size - 512) == before[512:]
    edit.write_hybrid(device, table, [])
    assert device.read(0, table.size) == before


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ([Shown(number, 0x83) for number in (1, 2, 3, 4)], "at most 3"),
        ([Shown(1, 0x83), Shown(1, 0x0C)], "each partition once"),
        ([Shown(1, 0xEE)], "a type of its own"),
        ([Shown(1, 0x05)], "a type of its own"),
        ([Shown(1, 0x83, active=True), Shown(2, 0x83, active=True)], "one active"),
    ],
)
def test_what_cannot_be_told_is_refused(shown, said):
    with pytest.raises(UsageError, match=said):
        with_hybrid(bytes(512), gpt(MiB, MiB, MiB, MiB), shown)


def test_what_lies_beyond_two_tebibytes_is_named():
    with pytest.raises(UsageError, match="partition 2: expected a start and a size of at most 4294967295 sectors"):
        with_hybrid(bytes(512), gpt(3 * TiB, MiB), [Shown(2, 0x83)])
    with pytest.raises(NotFound):
        with_hybrid(bytes(512), gpt(MiB), [Shown(7, 0x83)])
