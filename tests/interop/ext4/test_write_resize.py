"""resize2fs grows and shrinks what we wrote; the reserved descriptor blocks are where it looks for them."""

import os
import re

import pytest

from blockwright.device.file import open_path
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.read import open as open_ext4
from blockwright.tree.compare import compare_trees
from blockwright.tree.node import Directory
from blockwright.units import GiB, MiB
from tests.support.e2fs import debugfs
from tests.support.everything import everything
from tests.support.ext4 import dumpe2fs, e2fsck, write_plan
from tests.support.tools import run, tool


@pytest.mark.parametrize(
    ("block_size", "size", "grown"),
    [
        (4096, GiB, 100 * GiB),
        (4096, None, 3 * GiB),
        (1024, 300 * MiB, 5 * GiB),
        (1024, None, 2 * GiB),
        (2048, GiB, 9 * GiB),
    ],
)
def test_resize2fs_grows_it(tmp_path, block_size, size, grown):
    tree = everything()
    if block_size < 4096:
        del tree.entries[b"longest link"], tree.entries[b"attributes"]
    image = write_plan(plan(tree, Ext4Options(block_size=block_size, size=size)), tmp_path / "image")
    os.truncate(image, grown)
    run([tool("resize2fs"), image], timeout=120)
    e2fsck(image)
    values, groups = dumpe2fs(image)
    assert int(values["Block count"]) * block_size == grown
    with open_ext4(open_path(image)) as system:
        found = system.tree()
        del found.entries[b"lost+found"]
        assert not compare_trees(tree, found, contents=True)
    # Descriptors went to where the reserved blocks were: nothing had to move for them.
    assert groups[0].inode_table == write_layout(tree, block_size, size)


def write_layout(tree: Directory, block_size: int, size: int | None) -> tuple[int, int]:
    """Where the plan put the first inode table."""
    planned = plan(tree, Ext4Options(block_size=block_size, size=size))
    start = planned.placement.inode_tables[0]
    return start, start + planned.geometry.inode_table_blocks - 1


def test_resize2fs_shrinks_it(tmp_path):
    image = write_plan(plan(everything(), Ext4Options(size=2 * GiB)), tmp_path / "image")
    e2fsck(image)
    run([tool("resize2fs"), "-f", image, "200M"], timeout=120)
    e2fsck(image)


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize("size", [30 * MiB, GiB])
def test_the_resize_inode_maps_every_reserved_block_and_its_copies(tmp_path, block_size, size):
    planned = plan(Directory(), Ext4Options(block_size=block_size, size=size))
    image = write_plan(planned, tmp_path / "image")
    shown = debugfs(image, "stat <7>")
    mapped = {int(block) for block in re.findall(r"\((?:IND|\d+)\):(\d+)", shown)}
    summary = planned.summary
    wanted = set()
    for group in planned.groups():
        if group.superblock is not None:
            first = group.superblock + 1 + summary.descriptor_blocks
            wanted |= set(range(first, first + summary.reserved_descriptor_blocks))
    assert summary.reserved_descriptor_blocks > 0
    assert mapped == wanted
