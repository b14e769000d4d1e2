"""Sizes of a disk's partitions: what is asked for is what is there, or is refused."""

import pytest

from blockwright.build.definition import Definition, NamedContent, PartitionDefinition, Table
from blockwright.build.plan import plan_disk
from blockwright.errors import NoSpace
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
