import struct
import zlib
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, FormatError, NoSpace, NotThisFormat, UsageError
from blockwright.table.device import open_disk
from blockwright.table.gpt import check, edit, layout, names, read, repair
from blockwright.table.gpt.change import room
from blockwright.table.gpt.plan import Request, plan, segments
from blockwright.units import MiB
from tests.support.disks import memory

LINUX, ESP = names.TYPES["linux-generic"], names.TYPES["esp"]


def example(sector_size=512, size=16 * MiB, **options):
    requests = [
        Request(ESP, 2 * MiB, "EFI system"),
        Request(LINUX, MiB, "root \U0001f427", remaining=True, attributes=1 << 59),
    ]
    return plan(requests, seed=b"test", size=size, sector_size=sector_size, **options)


def disk(table):
    return memory(open_disk(table.size, segments(table), []))


def rules(device):
    return [finding.rule for finding in check.check(device)]


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("entry_count", [4, 128, 512])
def test_what_was_planned_is_read(sector_size, entry_count):
    table = example(sector_size, entry_count=entry_count)
    device = disk(table)
    assert read.read(device) == table
    assert check.check(device) == []
    assert read.probe(device)


def test_bytes_of_the_header_are_the_specifications():
    device = disk(example())
    sector = device.read(512, 512)
    assert sector[:16] == b"EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00"
    crc = struct.unpack_from("<I", sector, 16)[0]
    assert zlib.crc32(sector[:16] + bytes(4) + sector[20:92]) == crc
    mine, other, first, last = struct.unpack_from("<4Q", sector, 24)
    assert (mine, other, first, last) == (1, 32767, 34, 32734)
    entry = device.read(1024, 128)
    assert entry[:16].hex() == "28732ac11ff8d211ba4b00a0c93ec93b"
    assert struct.unpack_from("<3Q", entry, 32) == (2048, 6143, 0)
    assert entry[56:80] == "EFI system".encode("utf-16-le") + bytes(4)
    assert device.read(446, 16).hex(" ") == "00 00 02 00 ee 0a 08 02 01 00 00 00 ff 7f 00 00"


def test_same_seed_gives_the_same_bytes_and_another_does_not():
    assert disk(example()).read(0, 1 << 16) == disk(example()).read(0, 1 << 16)
    other = plan([Request(LINUX, MiB)], seed=b"other")
    assert other.disk_guid != example().disk_guid


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize(
    ("offset", "rule"),
    [(0, "signature"), (16, "header-crc"), (24, "header-crc"), (60, "header-crc"), (88, "header-crc")],
)
def test_backup_serves_where_the_primary_is_broken(sector_size, offset, rule):
    table = example(sector_size)
    device = disk(table)
    device.write(sector_size + offset, b"\xa5")
    reading = read.load(device)
    assert reading.table == table
    assert reading.source == "backup"
    assert [finding.rule for finding in reading.findings] == [f"gpt.primary.{rule}"]
    assert all(finding.repairable for finding in check.check(device))
    assert repair.repair(device)
    assert check.check(device) == []
    assert read.load(device).source == "primary"


def test_broken_entries_are_told_and_mended():
    table = example()
    device = disk(table)
    device.write(1024 + 41, b"\xff")
    assert "gpt.primary.entries-crc" in rules(device)
    repair.repair(device)
    assert read.load(device) == read.Reading(table, "primary", ())


def test_broken_backup_is_told_and_mended():
    table = example()
    device = disk(table)
    device.zero(device.size - 512, 512)
    assert rules(device) == ["gpt.backup.signature"]
    repair.repair(device)
    assert rules(device) == []
    assert read.read(device) == table


def test_both_broken_is_corrupt():
    device = disk(example())
    device.write(512 + 30, b"\xff")
    device.write(device.size - 512 + 30, b"\xff")
    with pytest.raises(Corrupt, match="no copy is valid"):
        read.read(device)
    with pytest.raises(Corrupt):
        repair.repair(device)


def test_protective_mbr_is_told_and_mended_and_boot_code_stays():
    device = disk(example())
    device.write(0, b"\xeb\x3c boot")
    device.write(440, b"\x11\x22\x33\x44")
    for offset, data, rule in [(510, b"\0", "signature"), (450, b"\x83", "protective"), (454, b"\2", "start")]:
        device.write(offset, data)
        assert rules(device) == [f"gpt.mbr.{rule}"]
        repair.repair(device)
        assert rules(device) == []
    assert device.read(0, 7) == b"\xeb\x3c boot"
    assert device.read(440, 4) == b"\x11\x22\x33\x44"


def test_growth_moves_the_backup():
    table = example()
    device = disk(table)
    device.resize(32 * MiB)
    assert rules(device) == ["gpt.backup.not-at-end"]
    assert read.read(device).partitions == table.partitions
    moved = edit.move_backup(device)
    assert rules(device) == []
    assert moved == read.read(device)
    assert moved.usable_end == 32 * MiB - 33 * 512
    assert moved.partitions == table.partitions


def test_growth_without_a_primary_is_found_by_nobody():
    device = disk(example())
    device.resize(32 * MiB)
    device.zero(512, 512)
    with pytest.raises(NotThisFormat):
        read.read(device)


def test_shrunk_disk_is_refused_or_fitted():
    table = plan([Request(LINUX, MiB)], seed=b"", size=16 * MiB)
    assert edit.fit(table, 4 * MiB).usable_end == 4 * MiB - 33 * 512
    with pytest.raises(NoSpace, match=str(2 * MiB)):
        edit.fit(table, 2 * MiB)
    device = disk(example())
    device.resize(8 * MiB)
    with pytest.raises(Corrupt, match="usable LBAs"):
        read.read(device)


def test_a_table_that_was_moved_stays_where_it_is():
    table = replace(example(), entries_start=64 * 512, usable_start=2048 * 512)
    device = disk(table)
    assert read.read(device) == table
    device.write(2 * 512, b"loader" * 100)
    edit.write(device, replace(table, partitions=table.partitions[:1]))
    assert device.read(2 * 512, 600) == b"loader" * 100
    assert rules(device) == []


def test_writing_leaves_partitions_alone():
    device = MemoryDevice(16 * MiB, b"\x5a" * (16 * MiB))
    edit.write(device, example())
    assert rules(device) == []
    kept = device.read(34 * 512, 16 * MiB - 67 * 512)
    assert kept == b"\x5a" * len(kept)


def test_hybrid_mbr_stays():
    device = disk(example())
    entry = layout.MbrEntry(os_type=0x0C, starting_lba=2048, size_in_lba=4096)
    device.write(446, layout.MbrEntry(os_type=0xEE, starting_lba=1, size_in_lba=2047).pack() + entry.pack())
    assert rules(device) == []
    before = device.read(0, 512)
    edit.write(device, example())
    assert device.read(0, 512) == before
    device.write(446 + 28, struct.pack("<I", 4095))
    assert rules(device) == ["gpt.mbr.stranger"]
    device.write(446 + 28, struct.pack("<I", 4096))
    device.write(446 + 12, struct.pack("<I", 9999))
    assert rules(device) == ["gpt.mbr.overlap"]


def crafted(change, entry_change=lambda entries: entries):
    """A device whose two copies are valid by their checksums and lie as told."""
    table = example()
    device = disk(table)
    for lba in (1, 32767):
        header = layout.Header.parse(device.read(lba * 512, 512))
        entries = entry_change(bytearray(device.read(header.partition_entry_lba * 512, 16384)))
        device.write(header.partition_entry_lba * 512, entries)
        header.partition_entry_array_crc32 = zlib.crc32(entries)
        device.write(lba * 512, header.replace(**change).seal())
    return device


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"number_of_partition_entries": 1 << 31}, "gpt.primary.entry-count"),
        ({"number_of_partition_entries": 0}, "gpt.primary.entry-count"),
        ({"size_of_partition_entry": 0}, "gpt.primary.entry-size"),
        ({"size_of_partition_entry": 129}, "gpt.primary.entry-size"),
        ({"size_of_partition_entry": 384}, "gpt.primary.entry-size"),
        ({"size_of_partition_entry": 1 << 31}, "gpt.primary.entry-size"),
        ({"partition_entry_lba": (1 << 64) - 1}, "gpt.primary.entries-lba"),
        ({"partition_entry_lba": 0}, "gpt.primary.entries-lba"),
        ({"my_lba": 7}, "gpt.primary.my-lba"),
        ({"header_size": 93}, "gpt.primary.header-crc"),
        ({"header_size": 1 << 30}, "gpt.primary.header-size"),
        ({"last_usable_lba": 1 << 60}, "gpt.primary.usable"),
        ({"first_usable_lba": 0}, "gpt.primary.usable"),
        ({"revision": 0x20000}, "gpt.primary.revision"),
    ],
)
def test_hostile_headers_are_refused(change, rule):
    device = crafted(change)
    with pytest.raises(Corrupt):
        read.read(device)
    assert rule in rules(device)


def entries_with(**changes):
    def change(entries):
        for key, value in changes.items():
            struct.pack_into("<Q", entries, int(key[1:]), value)
        return entries

    return change


@pytest.mark.parametrize(
    ("entry_change", "rule"),
    [
        (entries_with(_40=2000), "gpt.partition.order"),
        (entries_with(_168=1 << 62), "gpt.partition.beyond-disk"),
        (entries_with(_168=32760), "gpt.partition.beyond-usable"),
        (entries_with(_32=33), "gpt.partition.beyond-usable"),
        (entries_with(_40=6144), "gpt.partition.overlap"),
    ],
)
def test_impossible_partitions_are_refused(entry_change, rule):
    device = crafted({}, entry_change)
    assert rules(device) == [rule]
    with pytest.raises(Corrupt, match="partition"):
        read.read(device)
    with pytest.raises(Corrupt, match="cannot be mended"):
        repair.repair(device)


def test_duplicate_guids_are_told():
    def change(entries):
        entries[144:160] = entries[16:32]
        return entries

    assert rules(crafted({}, change)) == ["gpt.partition.duplicate-guid"]


def test_any_name_on_disk_is_written_back():
    def change(entries):
        entries[56:60] = b"\x00\xd8A\x00"
        return entries

    device = crafted({}, change)
    table = read.read(device)
    edit.write(device, table)
    assert read.read(device) == table


@pytest.mark.parametrize(
    ("requests", "what"),
    [
        ([Request(LINUX, MiB, "x" * 37)], "36 UTF-16 units"),
        ([Request(LINUX, MiB, "\U0001f427" * 19)], "36 UTF-16 units"),
        ([Request(LINUX, MiB, "a\0b")], "NUL"),
        ([Request(UUID(int=0), MiB)], "type"),
        ([Request(LINUX, MiB, guid=ESP)] * 2, "GUID of its own"),
        ([Request(LINUX, MiB, attributes=1 << 64)], "64 bits"),
        ([Request(LINUX, 1)] * 129, "at most 128"),
    ],
)
def test_what_no_table_can_say_is_a_usage_error(requests, what):
    with pytest.raises(UsageError, match=what):
        plan(requests, seed=b"")


def test_a_table_for_another_disk_is_not_written():
    with pytest.raises(UsageError, match="found one for"):
        edit.write(MemoryDevice(8 * MiB), example())


def test_no_table_is_not_this_format():
    for device in (MemoryDevice(0), MemoryDevice(100), MemoryDevice(1 * MiB)):
        assert not read.probe(device)
        with pytest.raises(NotThisFormat):
            read.read(device)


def test_names_of_types_and_attributes():
    assert names.parse_type("ESP") == ESP
    assert names.parse_type("linux") == LINUX
    assert names.type_name(names.parse_type(str(ESP))) == "esp"
    assert names.type_name(UUID(int=5)) == str(UUID(int=5))
    assert names.attribute_names(names.parse_attributes(["required", "growfs", "bit-7"])) == [
        "required",
        "bit-7",
        "growfs",
    ]
    for bad in ("", "esq", "bit-64"):
        with pytest.raises(UsageError):
            names.parse_type(bad)
        with pytest.raises(UsageError):
            names.parse_attributes([bad])


def test_composed_disk_reads_as_its_parts():
    table = example()
    content = MemoryDevice(2 * MiB, b"\xeb" * (2 * MiB))
    whole = open_disk(table.size, segments(table), [(table.partitions[0].start, content)])
    assert whole.read(MiB, 2 * MiB) == b"\xeb" * (2 * MiB)
    assert read.read(whole) == table
    assert whole.read(3 * MiB, 100) == bytes(100)
    whole.close()
    assert content.closed


def test_gaps():
    table = example(size=None)
    assert room(table) == [(34 * 512, MiB), (4 * MiB, 5 * MiB - 33 * 512)]


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1]), st.integers(0, 16895), st.binary(min_size=1, max_size=8)), max_size=4
    ),
    st.booleans(),
)
def test_any_damage_ends_in_a_table_or_a_format_error(changes, resealed):
    device = disk(example())
    for where, offset, data in changes:
        base = 0 if where == 0 else device.size - 33 * 512
        device.write(base + min(offset, 33 * 512 - len(data)), data)
    if resealed:
        for lba in (1, 32767):
            device.write(lba * 512, layout.Header.parse(device.read(lba * 512, 512)).seal())
    try:
        findings = check.check(device)
        table = read.read(device)
    except FormatError:
        return
    assert table.size == device.size
    try:
        repair.repair(device)
    except FormatError:
        assert findings
    else:
        assert check.check(device) == []


class Failing(ForwardingDevice):
    """Fails every write from the k-th on, and leaves anything in the range of that one, as the contract allows."""

    def __init__(self, inner, k):
        super().__init__(inner, owns=False)
        self.left = k

    def _write(self, offset, buffers, *, durable):
        data = b"".join(buffers)
        if self.left == 0:
            self._inner.write(offset, b"\xa5" * len(data))
        self.left -= 1
        if self.left < 0:
            raise OSError(5, "power cut")
        self._inner.write(offset, data)


def damaged_primary(device):
    device.write(512 + 60, b"\xff\xff")


def damaged_backup(device):
    device.write(device.size - 512 + 60, b"\xff\xff")


@pytest.mark.parametrize(
    ("prepare", "act"),
    [
        (damaged_primary, repair.repair),
        (damaged_backup, repair.repair),
        (lambda device: device.resize(20 * MiB), edit.move_backup),
        (lambda device: None, lambda device: edit.write(device, replace(example(), partitions=()))),
    ],
)
def test_a_power_cut_at_any_write_leaves_a_table(prepare, act):
    for k in range(20):
        device = disk(example())
        prepare(device)
        before = read.read(device).partitions
        try:
            act(Failing(device, k))
        except OSError:
            assert read.read(device).partitions in (before, ())
        else:
            assert check.check(device) == []
            assert k > 2
            return
    raise AssertionError("never came to an end")


@pytest.mark.parametrize("stale", [512, 4096])
def test_a_stale_header_of_another_sector_size_does_not_hide_a_valid_table(stale):
    valid = 4608 - stale
    device = disk(example(sector_size=valid))
    device.write(stale, layout.SIGNATURE + b"\xff" * 40 if stale == 4096 else layout.SIGNATURE)
    if stale == 4096:  # within the entries of the primary copy, so the backup serves
        assert read.load(device).source == "backup"
    assert read.read(device).sector_size == valid
