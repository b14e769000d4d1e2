"""What a device is taken for where marks of several kinds are on it."""

import struct
from zlib import crc32

import pytest

from blockwright.check import check
from blockwright.device.memory import MemoryDevice
from blockwright.device.planned import PlannedDevice
from blockwright.errors import Corrupt, NotThisFormat
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan as plan_ext4
from blockwright.inspect import inspect
from blockwright.resolve import Known, identify, open_file_system
from blockwright.table.gpt import plan as gpt
from blockwright.table.gpt.names import TYPES
from blockwright.tree.node import Directory
from blockwright.units import MiB
from tests.support.disks import memory
from tests.support.fatvolumes import planned

SIZE = 8 * MiB


def disk(name: str = "data") -> MemoryDevice:
    table = gpt.plan([gpt.Request(type_guid=TYPES["linux-generic"], size=MiB, name=name)], seed=b"", size=SIZE)
    return memory(PlannedDevice(table.size, gpt.segments(table)))


def ext4() -> MemoryDevice:
    plan = plan_ext4(Directory(), Ext4Options(seed=b"", size=SIZE))
    return memory(PlannedDevice(plan.size, plan.segments()))


def kinds(device: MemoryDevice) -> list[str]:
    return [place.kind for place in check(device, source="x")]


def test_a_file_system_over_a_disk_that_was_partitioned_is_one_everywhere() -> None:
    device = ext4()
    device.write(SIZE - 33 * 512, disk().read(SIZE - 33 * 512, 33 * 512))  # the backup that mkfs leaves behind
    assert identify(device) is Known.EXT4
    report = inspect(device, source="x")
    assert report.table is None
    assert report.regions[0].file_system is not None
    assert kinds(device) == ["ext4"]
    assert open_file_system(device, source="x").kind == "ext4"


def test_a_name_of_a_partition_makes_no_file_system_of_a_disk() -> None:
    device = disk("\uef53")  # the magic of ext4, where ext4 has it
    assert device.read(1024 + 56, 2) == b"\x53\xef"
    assert identify(device) is Known.GPT
    assert inspect(device, source="x").table is not None
    assert kinds(device) == ["gpt"]
    with pytest.raises(NotThisFormat, match="partitioned disk"):
        open_file_system(device, source="x")


def test_a_table_that_is_left_at_the_end_only_is_still_one() -> None:
    device = disk()
    device.zero(0, MiB)
    assert identify(device) is Known.GPT
    assert inspect(device, source="x").table is not None


def test_a_table_that_holds_in_no_copy_is_damage_and_no_failure() -> None:
    device = disk()
    cut = MemoryDevice(content=device.read(0, SIZE - MiB))
    (place,) = check(cut, source="x")
    assert place.kind == "gpt"
    assert {each.rule.split(".")[1] for each in place.findings} >= {"primary", "backup"}


def test_partitions_that_overlap_are_damage_and_no_failure() -> None:
    requests = [gpt.Request(type_guid=TYPES["linux-generic"], size=MiB, name=name) for name in "ab"]
    table = gpt.plan(requests, seed=b"", size=SIZE)
    device = memory(PlannedDevice(SIZE, gpt.segments(table)))
    for header, entries in ((512, 1024), (SIZE - 512, SIZE - 33 * 512)):  # both copies, whose checksums hold
        device.write(entries + 128 + 32, struct.pack("<Q", table.partitions[0].start // 512 + 8))
        device.write(header + 88, struct.pack("<I", crc32(device.read(entries, 128 * 128))))
        device.write(header + 16, bytes(4))
        device.write(header + 16, struct.pack("<I", crc32(device.read(header, 92))))
    (place,) = check(device, source="x")
    assert [each.rule for each in place.findings] == ["gpt.partition.overlap"]


def test_a_file_system_that_cannot_be_read_is_a_finding_and_a_problem() -> None:
    device = ext4()
    device.write(1024 + 24, struct.pack("<I", 99))  # s_log_block_size
    (place,) = check(device, source="x")
    assert place.kind == "ext4"
    assert place.findings
    (region,) = inspect(device, source="x").regions
    assert region.file_system is None
    assert region.problem


def test_what_is_allocated_is_what_is_no_hole() -> None:
    device = MemoryDevice(SIZE)
    device.write(MiB, b"x")
    report = inspect(device, source="x")
    assert 0 < report.allocated == report.regions[0].allocated < MiB


def test_a_boot_sector_that_contradicts_itself_is_a_finding() -> None:
    device = planned(bits=16)
    device.write(17, bytes(2))  # no entries in the root directory
    (place,) = check(device, source="x")
    assert place.kind == "fat"
    assert place.findings
    (region,) = inspect(device, source="x").regions
    assert region.problem


def test_what_a_verifier_cannot_read_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_device: MemoryDevice) -> None:
        raise Corrupt("boot sector: expected sense, found none", offset=11)

    monkeypatch.setattr("blockwright.check.check_fat", refuse)
    (place,) = check(planned(bits=16), source="x")
    assert [(each.rule, each.offset) for each in place.findings] == [("unreadable", 11)]
