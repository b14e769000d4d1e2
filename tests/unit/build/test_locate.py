"""What a byte of a planned disk is told to be: each structure, found where the disk's own bytes have it."""

import struct

import pytest

from blockwright.build.definition import Definition, PartitionDefinition, RootOptions, Table
from blockwright.build.locate import locate
from blockwright.build.plan import DiskPlan, plan_disk
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File
from blockwright.units import KiB, MiB

WORDS = b"what this file says, and no other place of the disk does"
TREE = Directory(entries={b"etc": Directory(entries={b"words": File(content=BytesContent(WORDS * 100))})})


def planned(table: Table, system: str, *, size: int = 64 * MiB, **options: int | None) -> tuple[DiskPlan, bytes]:
    first = PartitionDefinition(mount="/", file_system=system, size=24 * MiB, **options)
    second = PartitionDefinition(directories=("/var",), file_system="ext4", size=8 * MiB)
    definition = Definition(table=table, size=size, partitions=(first, second))
    definition.check()
    plan = plan_disk(TREE, definition, b"seed")
    with plan.device() as device:
        return plan, device.read(0, device.size)


def at(plan: DiskPlan, offset: int) -> str:
    return locate(plan, offset).removeprefix("root (partition 1): ")


@pytest.mark.parametrize("table", [Table.GPT, Table.MBR])
def test_what_no_partition_has(table: Table) -> None:
    plan, disk = planned(table, "ext4")
    first, second = plan.parts
    assert at(plan, 0) == at(plan, 511) == "boot code or partition table"
    assert at(plan, 512) == ("partition table" if table is Table.GPT else "before the first partition")
    assert at(plan, first.start - 1) == "before the first partition"
    assert at(plan, first.start) == "boot sector"
    assert second.partition is not None
    end = second.start + second.partition.size
    assert at(plan, end) == "behind the last partition"
    assert at(plan, len(disk) - 1) == ("partition table" if table is Table.GPT else "behind the last partition")
    assert at(plan, len(disk)) == "behind the end"
    backup = len(disk) - 33 * 512
    assert at(plan, backup - 1) == "behind the last partition"
    assert (at(plan, backup) == "partition table") is (table is Table.GPT)


def test_between_partitions() -> None:
    parts = (
        PartitionDefinition(mount="/", file_system="ext4", start=MiB, size=4 * MiB),
        PartitionDefinition(directories=("/var",), file_system="ext4", start=8 * MiB, size=4 * MiB),
    )
    definition = Definition(table=Table.GPT, size=64 * MiB, partitions=parts)
    definition.check()
    plan = plan_disk(TREE, definition, b"seed")
    assert {locate(plan, offset) for offset in (5 * MiB, 8 * MiB - 1)} == {"between partitions"}


def test_records_of_logical_partitions_are_of_the_table() -> None:
    parts = (
        PartitionDefinition(mount="/", file_system="ext4", size=4 * MiB),
        *(PartitionDefinition(directories=(f"/{name}",), file_system="ext4", size=2 * MiB) for name in "abcde"),
    )
    definition = Definition(table=Table.MBR, size=64 * MiB, partitions=parts)
    definition.check()
    plan = plan_disk(TREE, definition, b"seed")
    with plan.device() as device:
        disk = device.read(0, device.size)
    told = {
        at: locate(plan, at)
        for at in range(512, len(disk), 512)
        if disk[at + 510 : at + 512] == b"\x55\xaa" and "partition 1)" not in locate(plan, at)
    }
    assert len(told) >= 3
    assert set(told.values()) == {"partition table"}
    first = min(told)
    assert locate(plan, first + 511) == "partition table"
    assert locate(plan, first + 512) == "between partitions"


@pytest.mark.parametrize("block", [1 * KiB, 4 * KiB])
def test_ext4(block: int) -> None:
    plan, disk = planned(Table.GPT, "ext4", block_size=block)
    start = plan.parts[0].start
    assert at(plan, start + 1023) == "boot sector"
    assert at(plan, start + 1024) == at(plan, start + 2047) == "superblock"
    descriptors = (2 if block == KiB else 1) * block
    assert at(plan, start + descriptors) == "group descriptors in group 0"
    blocks, nodes, table = struct.unpack_from("<III", disk, start + descriptors)  # bg_block_bitmap and two behind it
    assert at(plan, start + blocks * block) == "block bitmap of group 0"
    assert at(plan, start + nodes * block) == "inode bitmap of group 0"
    inodes = start + table * block
    assert at(plan, inodes + 256) == "inode 2 (/)"
    assert at(plan, inodes + 256 - 1) == "inode 1"
    words = disk.index(WORDS)
    assert at(plan, words + 17) == "/etc/words, byte 17"
    assert at(plan, words + 100 * len(WORDS)) == "behind the end of /etc/words"
    name = disk.index(b"words", inodes)
    assert at(plan, name).startswith("a directory, ")


def test_ext4_in_later_groups() -> None:
    plan, disk = planned(Table.GPT, "ext4", block_size=KiB)
    start = plan.parts[0].start
    copy = 8192 * KiB + KiB  # group 1 begins behind the boot block
    assert disk[start + copy + 56 : start + copy + 58] == b"\x53\xef"
    assert at(plan, start + copy) == "superblock's copy in group 1"
    assert at(plan, start + copy + KiB) == "group descriptors in group 1"
    told = {at(plan, start + copy + number * KiB) for number in range(2, 400)}
    assert {"blocks kept for group descriptors in group 1", "block bitmap of group 1"} & told


def test_fat() -> None:
    plan, disk = planned(Table.MBR, "fat")
    start = plan.parts[0].start
    reserved, copies, entries = (
        int.from_bytes(disk[start + place : start + place + length], "little")
        for place, length in ((14, 2), (16, 1), (17, 2))
    )
    per_table = int.from_bytes(disk[start + 22 : start + 24], "little")
    assert at(plan, start + reserved * 512 - 1) == "boot sector, or a sector kept beside it"
    assert [at(plan, start + (reserved + number * per_table) * 512) for number in range(copies)] == [
        "allocation table 1",
        "allocation table 2",
    ]
    root = start + (reserved + copies * per_table) * 512
    assert {at(plan, root), at(plan, root + entries * 32 - 1)} == {"root directory"}
    words = disk.index(WORDS)
    assert at(plan, words + 17) == "/etc/words, byte 17"
    assert at(plan, disk.index(b"WORDS ", root + entries * 32)) == "a directory, or free clusters"


def test_verity_and_swap() -> None:
    swap = PartitionDefinition(file_system="swap", size=MiB)
    definition = Definition(
        partitions=(PartitionDefinition(mount="/", file_system="ext4"), swap), verity=True, size=64 * MiB
    )
    definition.check()
    program = Directory(entries={b"sh": File(content=BytesContent(b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\x3e\0"))})
    plan = plan_disk(Directory(entries={b"bin": program}), definition, b"seed")
    area = plan.part("verity")
    assert area.partition is not None
    assert locate(plan, area.start) == f"verity (partition {area.partition.number}): superblock"
    assert locate(plan, area.start + 4096) == f"verity (partition {area.partition.number}): hash tree"
    [other] = [each for each in plan.parts if each.file_system.kind == "swap"]
    assert locate(plan, other.start).endswith(": swap")


def test_a_bare_file_system() -> None:
    definition = Definition(table=Table.NONE, root=RootOptions(size=8 * MiB), size=None)
    definition.check()
    plan = plan_disk(TREE, definition, b"seed")
    assert locate(plan, 1024).endswith("superblock")
    assert locate(plan, plan.size) == "behind the end"
