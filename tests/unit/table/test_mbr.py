"""Reading master boot records: numbers and places as Linux has them, and every way a chain can be wrong."""

import pytest

from blockwright.check import check as check_image
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import Corrupt, LimitExceeded, NotFound, NotThisFormat
from blockwright.inspect import inspect
from blockwright.resolve import Known, identify, open_file_system
from blockwright.table import read as tables
from blockwright.table.gpt import names
from blockwright.table.gpt.edit import write
from blockwright.table.gpt.plan import Request, plan
from blockwright.table.mbr import check, layout, read
from blockwright.table.mbr.names import type_name
from blockwright.table.partition import Extended
from tests.support.mbr import CHAINED, disk, record


def device(records, **options):
    return MemoryDevice(content=bytes(disk(records, **options)))


def test_primary_and_logical_partitions():
    table = read.read(device(CHAINED))
    assert (table.kind, table.identity, table.sector_size, table.size) == ("mbr", "cafef00d", 512, 4096 * 512)
    found = [
        (each.number, each.start // 512, each.size // 512, each.os_type, each.active) for each in table.partitions
    ]
    assert found == [
        (1, 8, 8, 0x83, False),
        (2, 16, 16, 0x0C, True),
        (5, 72, 32, 0x83, False),
        (6, 200, 16, 0x82, False),
        (7, 336, 100, 0x83, False),
    ]
    assert table.extended == (Extended(3, 64 * 512, 1024 * 512, 0x0F),)
    assert [each.record // 512 for each in table.partitions] == [0, 0, 64, 192, 320]
    assert [each.identity for each in table.partitions][-1] == "cafef00d-07"
    assert table.partition(5).end == 104 * 512
    with pytest.raises(NotFound, match="partition 3: is not in the table; those that are: 1, 2, 5, 6, 7"):
        table.partition(3)
    assert check.check(device(CHAINED)) == []


def test_an_entry_that_is_left_out_keeps_the_numbers_of_others():
    table = read.read(device({0: record([(0, 0, 0), (0x83, 8, 8), (0, 0, 0), (0x83, 16, 8)])}))
    assert [each.number for each in table.partitions] == [2, 4]


def test_sectors_of_4096_bytes():
    data = device(CHAINED, sector_size=4096)
    table = read.read(data, sector_size=4096)
    assert table.partition(7).start == 336 * 4096
    assert tables.read(data, sector_size=4096) == table


def test_an_extended_partition_that_never_had_a_partition_is_empty():
    table = read.read(device({0: record([(0x83, 8, 8), (0x05, 64, 100)])}))
    assert [each.number for each in table.partitions] == [1]


def chained(**changes):
    records = dict(CHAINED)
    records.update({int(key[1:]): value for key, value in changes.items()})
    return device(records)


@pytest.mark.parametrize(
    ("disk_", "rule", "message"),
    [
        (
            device({0: record([(0x83, 4000, 97)])}),
            "mbr.partition.beyond-disk",
            "partition 1: expected to lie in sectors 1 to 4095, found 4000 to 4096",
        ),
        (
            device({0: record([(0x83, 0, 97)])}),
            "mbr.partition.beyond-disk",
            "partition 1: expected to lie in sectors 1 to 4095, found 0 to 96",
        ),
        (
            device({0: record([(0x83, 8, 20), (0x83, 20, 20)])}),
            "mbr.partition.overlap",
            "partition 2: starts at sector 20, within partition 1, which ends at 27",
        ),
        (
            device({0: record([(0x83, 8, 80), (0x05, 64, 100)])}),
            "mbr.partition.overlap",
            "the extended partition: starts at sector 64, within partition 1, which ends at 87",
        ),
        (
            chained(s192=record([(0x82, 8, 16), (0x05, 128, 64)])),
            "mbr.logical.loop",
            "extended partition: expected a record that was not read yet, found sector 192 again",
        ),
        (
            chained(s192=record([(0x82, 8, 16), (0x05, 0, 64)])),
            "mbr.logical.loop",
            "extended partition: expected a record that was not read yet, found sector 64 again",
        ),
        (
            chained(s192=record([(0x82, 8, 16), (0x05, 1024, 64)])),
            "mbr.logical.chain",
            "extended partition: expected the next record before sector 1088, found 1088",
        ),
        (
            chained(s192=bytes(512)),
            "mbr.logical.signature",
            "extended partition: expected the signature 55 aa, found 00 00",
        ),
        (
            chained(s320=record([(0x83, 16, 1000)])),
            "mbr.logical.outside",
            "partition 7: expected to lie in sectors 65 to 1087, found 336 to 1335",
        ),
        (
            chained(s320=record([(0x83, 0, 10)])),
            None,
            None,
        ),
        (
            chained(s192=record([(0x82, 140, 16), (0x05, 256, 64)])),
            "mbr.partition.overlap",
            "partition 7: starts at sector 336, within partition 6, which ends at 347",
        ),
    ],
)
def test_what_is_wrong_is_found_and_refused(disk_, rule, message):
    if rule is None:  # a record within its own partition is odd, and harms nothing
        assert check.check(disk_) == []
        return
    [finding] = check.check(disk_)
    assert (finding.rule, finding.message) == (rule, message)
    with pytest.raises(Corrupt, match=r"mbr: ") as caught:
        read.read(disk_)
    assert caught.value.offset == finding.offset


def test_a_boot_indicator_that_is_none_is_found():
    data = disk(CHAINED)
    data[446] = 0x12
    [finding] = check.check(MemoryDevice(content=bytes(data)))
    assert finding.rule == "mbr.partition.boot-indicator"
    assert "expected 0x00 or 0x80, found 0x12" in finding.message


def test_a_chain_without_end_is_limited():
    records = {0: record([(0x05, 8, 4000)])}
    for at in range(8, 1500, 4):
        records[at] = record([(0x83, 1, 1), (0x05, at + 4 - 8, 4)])
    with pytest.raises(LimitExceeded, match="at most 252 logical partitions"):
        read.read(device(records))


def test_what_is_no_table():
    for content, message in ((bytes(100), "512 bytes or more, found 100"), (bytes(2048), "found 00 00")):
        with pytest.raises(NotThisFormat, match=message):
            read.read(MemoryDevice(content=content))
        assert not read.probe(MemoryDevice(content=content))


def test_a_boot_sector_of_a_file_system_is_no_table():
    sector = bytearray(record([(0x83, 8, 8)]))
    assert read.probe(device({0: bytes(sector)}))
    sector[3:11] = b"NTFS    "
    assert not read.probe(device({0: bytes(sector)}))
    assert not read.probe(device({0: record([(0, 0, 0)])}))
    assert not read.probe(device({0: record([(0x83, 5000, 1)])}))
    assert not read.probe(device({0: record([(0x83, 8, 8), (0x83, 0, 1)])}))
    cut_short = device({0: record([(0x83, 8, 8), (0x83, 5000, 1)])})
    assert read.probe(cut_short)
    with pytest.raises(Corrupt, match="partition 2: expected to lie in"):
        read.read(cut_short)
    sector = bytearray(record([(0x83, 8, 8)]))
    sector[446] = 0x33
    assert not read.probe(device({0: bytes(sector)}))


def test_which_table_counts():
    kinds = [Request(names.TYPES["linux-generic"], 1 << 16, "one")]
    gpt = MemoryDevice(1 << 20)
    write(gpt, plan(kinds, seed=b"", size=1 << 20, alignment=4096))
    assert tables.read(gpt).kind == "gpt"
    assert identify(gpt) is Known.GPT
    gpt.write(0, record([(0x83, 64, 100)]))  # partitioned anew by a tool that leaves the copy at the end
    gpt.zero(512, 33 * 512)
    assert tables.read(gpt).kind == "mbr"
    assert identify(gpt) is Known.MBR
    gpt.write(0, record([(layout.PROTECTIVE, 1, 2047)]))
    assert tables.read(gpt).kind == "gpt"
    assert tables.probe(gpt)
    assert not tables.probe(MemoryDevice(1 << 20))


def test_an_image_of_that_kind_is_inspected_and_checked():
    whole = device(CHAINED)
    report = inspect(whole, source="disk.img")
    assert report.table is not None
    assert [region.partition.number for region in report.regions if region.partition] == [1, 2, 5, 6, 7]
    assert [(place.kind, place.findings) for place in check_image(whole, source="disk.img")] == [("mbr", ())]
    with pytest.raises(NotThisFormat, match=r"its partitions are x:1, x:2, x:5, x:6, x:7"):
        open_file_system(Window(whole, 0, whole.size, owns=False), source="x")
    broken = chained(s320=record([(0x83, 16, 1000)]))
    [place] = check_image(broken, source="disk.img")
    assert [finding.rule for finding in place.findings] == ["mbr.logical.outside"]


def test_names_of_types():
    assert (type_name(0x83), type_name(0xEF), type_name(0x99)) == ("linux", "esp", "0x99")
