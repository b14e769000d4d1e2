"""The hash partition: what follows from the root hash, and that the last bytes of a file system are proven too."""

import io
from dataclasses import replace
from uuid import UUID

import pytest

from blockwright.build.definition import Definition, PartitionDefinition, RootOptions
from blockwright.build.run import build
from blockwright.build.verity import UNKNOWN, partition_guids, plan_verity
from blockwright.device.file import open_path
from blockwright.device.window import Window
from blockwright.source import open_source
from blockwright.units import KiB, MiB
from blockwright.verity.check import check
from blockwright.verity.format import read_area
from tests.support.tarmaker import archive, member

ELF = b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\x3e\0"
SMALL = RootOptions(block_size=1024)


def test_the_halves_of_the_root_hash_are_the_identities():
    root_hash = bytes(range(32))
    assert partition_guids(root_hash) == (
        UUID("00010203-0405-0607-0809-0a0b0c0d0e0f"),
        UUID("10111213-1415-1617-1819-1a1b1c1d1e1f"),
    )
    assert partition_guids(UNKNOWN)[0] != partition_guids(UNKNOWN)[1]


def test_a_part_of_a_block_at_the_end_is_proven():
    assert plan_verity(4096, b"", None).parameters.data_blocks == 1
    assert plan_verity(4097, b"", None).parameters.data_blocks == 2


def test_what_is_told_before_and_after_the_hash_is_known():
    plan = plan_verity(1 << 20, b"seed", None)
    assert plan.summary.root_hash is None
    known = plan_verity(1 << 20, b"seed", bytes(32))
    assert known.summary == plan.summary._replace(root_hash="00" * 32)
    assert (plan.kind, plan.tree_start, plan.size) == ("verity", 4096, 4096 + 2 * 4096 + 4096)
    assert known.segments().end == 512


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "definition",
    [
        Definition(root=SMALL),
        Definition(root=RootOptions(block_size=1024, size=2049 * KiB)),
        Definition(root=SMALL, size=8 * MiB + 512),
        Definition(root=SMALL, size=8 * MiB + 512 * 5),
        Definition(partitions=(PartitionDefinition(mount="/", block_size=1024, size=2049 * KiB),)),
        Definition(partitions=(PartitionDefinition(mount="/", block_size=1024, minimum=2051 * KiB),)),
        Definition(partitions=(PartitionDefinition(mount="/", block_size=1024, rest=True),), size=8 * MiB + 512 * 3),
    ],
)
def test_what_is_hashed_lies_within_its_partition(tmp_path, definition, streamed):
    """Partitions that end on any sector, and file systems that end within a block of what is hashed."""
    data = archive(member(b"bin/sh", ELF), member(b"b", b"x" * 700_000))
    (tmp_path / "a.tar").write_bytes(data)
    definition = replace(definition, verity=True, alignment=512)
    with open_source("-", stdin=io.BytesIO(data)) if streamed else open_source(tmp_path / "a.tar") as source:
        plan = build(source, str(tmp_path / "disk"), definition).plan
    root, area = plan.part("root"), plan.part("verity")
    assert area.file_system.parameters.data_size <= root.partition.size
    with open_path(str(tmp_path / "disk")) as disk:
        hashes = Window(disk, area.start, area.partition.size, owns=False)
        found = read_area(hashes)
        held = Window(disk, root.start, root.partition.size, owns=False)
        assert check(held, hashes, found.parameters, area.file_system.root_hash, start=found.tree_start).clean
