"""What one partition holds, planned: each option of a file system is there, and sizes are whole blocks within."""

from uuid import UUID

import pytest

from blockwright.build.definition import NamedContent
from blockwright.build.holding import Holding, check_maximum
from blockwright.build.partition import PartitionDefinition
from blockwright.errors import NoSpace, UsageError
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File
from blockwright.units import KiB, MiB

ID = UUID("11111111-2222-3333-4444-555555555555")


def plan(within: int | None = None, *, sector: int = 512, body: int = 0, **fields):
    tree = Directory(entries={b"body": File(content=BytesContent(b"x" * body))})
    return Holding(PartitionDefinition(**fields), tree, b"s" * 32, 10**9, sector).plan(within)


def test_options_of_ext4() -> None:
    plain = plan(64 * MiB, mount="/").summary
    assert (plain.block_size, plain.label, plain.time_s, plain.blocks) == (4096, "", 1, 16384)
    made = plan(
        64 * MiB, mount="/", block_size=1024, label="x", file_system_uuid=ID, inodes=5000, reserved=0.25
    ).summary
    assert (made.block_size, made.label, made.uuid, made.blocks) == (1024, "x", str(ID), 65536)
    assert plain.inodes != 5000 <= made.inodes < 5200
    assert made.reserved_blocks == made.blocks // 4
    assert plain.journal_blocks > 0 == plan(64 * MiB, mount="/", journal=0).summary.journal_blocks
    assert plan(64 * MiB, mount="/", journal=8 * MiB).summary.journal_blocks == 2048
    old = plan(64 * MiB, mount="/", file_system="ext2").summary
    assert "extent" in plain.features
    assert not {"extent", "has_journal"} & set(old.features)
    small = plan(64 * MiB, mount="/", inode_size=128).summary
    assert small.inode_table_blocks * 2 == plain.inode_table_blocks
    assert plan(64 * MiB, mount="/").summary == plain


@pytest.mark.parametrize("kind", ["ext4", "fat"])
def test_a_share_that_stays_free(kind: str) -> None:
    """It is of what is as small as can be, and of nothing that has its size."""
    least = plan(mount="/", file_system=kind, body=3 * MiB).size
    assert plan(mount="/", file_system=kind, body=3 * MiB, free=0.5).size > least + 2 * MiB
    assert plan(64 * MiB, mount="/", file_system=kind, free=0.5).size == 64 * MiB


@pytest.mark.parametrize(("kind", "step"), [("ext4", 4096), ("fat", 512)])
def test_sizes_are_whole_blocks(kind: str, step: int) -> None:
    least = plan(mount="/", file_system=kind).size
    for minimum, size in (
        (least - step, least),
        (least, least),
        (4 * MiB, 4 * MiB),
        (4 * MiB + 1, 4 * MiB + step),
        (4 * MiB - 1, 4 * MiB),
    ):
        assert plan(mount="/", file_system=kind, minimum=minimum).size == size
    for within, size in ((4 * MiB, 4 * MiB), (4 * MiB + step - 1, 4 * MiB), (4 * MiB - 1, 4 * MiB - step)):
        assert plan(within, mount="/", file_system=kind).size == size
    assert plan(4 * MiB + 4095, sector=4096, mount="/", file_system=kind).size == 4 * MiB


def test_options_of_fat() -> None:
    made = plan(64 * MiB, mount="/", file_system="fat16", label="LABEL", block_size=4096).summary
    assert (made.label, made.cluster_size, made.sector_size) == ("LABEL", 4096, 512)
    for size in (8 * MiB, 64 * MiB):
        entries = [plan(size, mount="/", file_system=kind).summary.root_entries for kind in ("fat12", "fat16")]
        assert entries == [512, 512]
        clusters = [plan(size, mount="/", file_system=kind).summary.clusters for kind in ("fat12", "fat16")]
        assert clusters[0] < 4085 <= clusters[1] < 65525
    assert plan(64 * MiB, mount="/", file_system="fat32").summary.root_entries == 0
    assert plan(64 * MiB, sector=4096, mount="/", file_system="fat").summary.sector_size == 4096


def test_swap() -> None:
    made = plan(MiB, file_system="swap", rest=True, label="pages", file_system_uuid=ID).summary
    assert (made.label, made.uuid, made.pages) == ("pages", str(ID), 256)
    assert plan(MiB + 4095, file_system="swap", rest=True).summary.pages == 256
    made = plan(file_system="swap", minimum=64 * KiB + 1).summary
    assert (made.label, made.pages) == ("", 16)
    assert made.uuid not in (str(ID), str(UUID(int=0)))
    with pytest.raises(
        UsageError, match=r"^expected a size of the disk, or a minimum, for swap that takes the rest$"
    ):
        plan(file_system="swap", rest=True)


def test_an_image_has_its_size() -> None:
    image = NamedContent("blob", BytesContent(b"x" * 5000))
    for within in (None, 5000, 8192):
        assert plan(within, image=image).size == 5000
    with pytest.raises(NoSpace, match=r"^blob: expected room for its 5000 bytes, found 4999$"):
        plan(4999, image=image)
    assert (plan(MiB, size=MiB).kind, plan(MiB, size=MiB).size) == ("empty", 0)
    assert plan(MiB, image=image).segments().lengths


def test_a_maximum_is_what_may_be_reached() -> None:
    image = NamedContent("blob", BytesContent(b"x" * 5000))
    check_maximum(PartitionDefinition(image=image, maximum=5000), plan(image=image))
    with pytest.raises(NoSpace, match=r"expected a maximum of at least the 5000 bytes that it takes, found 4999$"):
        check_maximum(PartitionDefinition(image=image, maximum=4999), plan(image=image))
