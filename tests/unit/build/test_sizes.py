"""Sizes of a disk's partitions: what is asked for is what is there, or is refused."""

import pytest

from blockwright.build.definition import Definition, NamedContent, PartitionDefinition, Table
from blockwright.build.plan import plan_disk
from blockwright.errors import NoSpace, UsageError
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File
from blockwright.units import MiB

IMAGE = NamedContent("image", BytesContent(bytes(3 * MiB)))


def tree() -> Directory:
    return Directory(entries={b"body": File(content=BytesContent(b"x" * (3 * MiB)))})


@pytest.mark.parametrize("table", [Table.GPT, Table.MBR, Table.NONE])
@pytest.mark.parametrize(
    "asked",
    [
        {"mount": "/"},
        {"mount": "/", "rest": True},
        {"mount": "/", "file_system": "fat"},
        {"image": IMAGE},
    ],
)
def test_an_automatic_size_keeps_to_its_maximum(table, asked):
    if table is Table.NONE and asked.get("rest"):
        return
    for maximum, fits in ((2 * MiB, False), (64 * MiB, True)):
        definition = Definition(table=table, partitions=(PartitionDefinition(**asked, maximum=maximum),))
        definition.check()
        if fits:
            assert plan_disk(tree(), definition, b"seed").parts[0].file_system.size <= maximum
        else:
            with pytest.raises(NoSpace, match=r"partition .*: expected a maximum of at least the \d+ bytes that it"):
                plan_disk(tree(), definition, b"seed")


def outside(*starts: int, table: Table = Table.GPT) -> Definition:
    """A disk of 16 MiB with images of 4 KiB that no table tells of."""
    small = NamedContent("small", BytesContent(b"s" * 4096))
    listed = [PartitionDefinition(start=start, image=small, in_table=False) for start in starts]
    definition = Definition(table=table, size=16 * MiB, partitions=(PartitionDefinition(mount="/"), *listed))
    definition.check()
    return definition


@pytest.mark.parametrize(
    ("table", "starts"),
    [
        (Table.GPT, (33 * 512,)),  # over the table
        (Table.GPT, (40 * 512, 40 * 512 + 4095)),  # over one another
        (Table.GPT, (40 * 512 + 4095, 40 * 512)),
        (Table.MBR, (511,)),
    ],
)
def test_what_no_table_tells_of_is_over_nothing_else(table, starts):
    with pytest.raises(NoSpace, match=r"expected bytes \d+ to \d+ to be free, found them taken"):
        plan_disk(tree(), outside(*starts, table=table), b"seed")


@pytest.mark.parametrize(
    ("table", "start", "room"),
    [
        (Table.GPT, 16 * MiB - 4096 - 33 * 512 + 1, 16 * MiB - 33 * 512),  # over the backup of the table
        (Table.MBR, 16 * MiB - 4095, 16 * MiB),
        (Table.MBR, 64 * MiB, 16 * MiB),
    ],
)
def test_what_no_table_tells_of_lies_on_the_disk(table, start, room):
    said = f"expected bytes {start} to {start + 4096} to lie on the disk, found room up to byte {room}$"
    with pytest.raises(NoSpace, match=said):
        plan_disk(tree(), outside(start, table=table), b"seed")


@pytest.mark.parametrize(
    ("table", "starts"),
    [
        (Table.GPT, (34 * 512, 34 * 512 + 4096, 16 * MiB - 4096 - 33 * 512)),
        (Table.MBR, (512, 512 + 4096, 16 * MiB - 4096)),
    ],
)
def test_what_no_table_tells_of_may_touch_all_else(table, starts):
    plan = plan_disk(tree(), outside(*starts, table=table), b"seed")
    with plan.device() as device:
        for start in starts:
            assert device.read(start, 4096) == b"s" * 4096


def test_each_fat_says_where_it_begins():
    parts = (
        PartitionDefinition(mount="/", file_system="fat"),
        PartitionDefinition(directories=("/a",), file_system="fat"),
    )
    for sector in (512, 4096):
        plan = plan_disk(tree(), Definition(partitions=parts, sector_size=sector), b"seed")
        with plan.device() as device:
            for part in plan.parts:
                hidden = int.from_bytes(device.read(part.start + 0x1C, 4), "little")
                assert hidden * sector == part.start > 0


def test_no_two_file_systems_of_a_disk_have_one_identity():
    parts = tuple(PartitionDefinition(directories=("/a",)) for _ in range(2))
    root = PartitionDefinition(mount="/")
    plan = plan_disk(Directory(), Definition(partitions=(root, *parts)), b"seed")
    assert len({part.file_system.summary.uuid for part in plan.parts}) == 3


def test_what_grub_needs_has_a_size_where_nothing_starts():
    for asked in ({"size": MiB}, {"rest": True}, {"minimum": MiB}, {"image": IMAGE}):
        parts = (PartitionDefinition(type="bios-boot", **asked),)
        assert (
            plan_disk(Directory(), Definition(size=16 * MiB, partitions=parts), b"seed").parts[0].role == "bios-boot"
        )
    with pytest.raises(UsageError, match="expected boot by grub on a GPT, an image, or a size"):
        plan_disk(Directory(), Definition(partitions=(PartitionDefinition(type="bios-boot"),)), b"seed")
