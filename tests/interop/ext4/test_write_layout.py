"""What a plan says before anything is written is what dumpe2fs and debugfs find afterwards."""

import re
import stat
from pathlib import Path
from uuid import UUID

import pytest

from blockwright.fs.ext4.layout import GroupFlag
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import Ext4Plan, plan
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Node, Special, Symlink
from blockwright.units import GiB, MiB
from tests.support.e2fs import UUID as FIXED_UUID
from tests.support.e2fs import debugfs, mke2fs
from tests.support.everything import SECOND, everything
from tests.support.ext4 import DumpedGroup, dumpe2fs, e2fsck, write_plan
from tests.support.tools import run, tool
from tests.support.trees import PatternContent, acl

FLAGS = {
    GroupFlag.inode_uninit: "INODE_UNINIT",
    GroupFlag.block_uninit: "BLOCK_UNINIT",
    GroupFlag.inode_zeroed: "ITABLE_ZEROED",
}
HEADER = {
    "label": "Filesystem volume name",
    "uuid": "Filesystem UUID",
    "block_size": "Block size",
    "blocks": "Block count",
    "reserved_blocks": "Reserved block count",
    "overhead_blocks": "Overhead clusters",
    "free_blocks": "Free blocks",
    "inodes": "Inode count",
    "free_inodes": "Free inodes",
    "first_block": "First block",
    "blocks_per_group": "Blocks per group",
    "inodes_per_group": "Inodes per group",
    "inode_table_blocks": "Inode blocks per group",
    "reserved_descriptor_blocks": "Reserved GDT blocks",
    "journal_blocks": "Total journal blocks",
    "hash_seed": "Directory Hash Seed",
}
"""Fields of a summary, and what dumpe2fs calls them."""


def ragged() -> Directory:
    """A tree whose largest file is cut by several groups' superblocks."""
    return Directory(
        mtime_ns=1_700_000_000 * SECOND,
        entries={b"large": File(content=PatternContent(40 * MiB)), b"small": File(content=BytesContent(b"x"))},
    )


def free_zones(planned: Ext4Plan) -> list[tuple[int, int]]:
    """The runs of blocks that nothing of the plan uses, ascending."""
    found, position = [], planned.geometry.first_block
    for start, end in (*planned.usage.zones, (planned.geometry.blocks, planned.geometry.blocks)):
        if start > position:
            found.append((position, start))
        position = max(position, end)
    return found


def expected_groups(planned: Ext4Plan) -> list[DumpedGroup]:
    """The plan's groups in dumpe2fs's terms."""
    free = free_zones(planned)
    found = []
    summary = planned.summary
    for group in planned.groups():
        base = group.superblock
        descriptors = reserved = None
        if base is not None:
            end = base + summary.descriptor_blocks
            descriptors = base + 1, end
            if summary.reserved_descriptor_blocks:
                reserved = end + 1, end + summary.reserved_descriptor_blocks
        runs = [(max(a, group.first_block), min(b, group.end_block) - 1) for a, b in free]
        found.append(
            DumpedGroup(
                group.number,
                (group.first_block, group.end_block - 1),
                frozenset(name for flag, name in FLAGS.items() if group.flags & flag),
                base,
                descriptors,
                reserved,
                group.block_bitmap,
                group.inode_bitmap,
                (group.inode_table, group.inode_table + summary.inode_table_blocks - 1),
                group.free_blocks,
                group.free_inodes,
                group.directories,
                group.unused_inodes,
                [run for run in runs if run[0] <= run[1]],
            )
        )
    return found


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize("size", [None, 200 * MiB, 5 * GiB + 4321])
@pytest.mark.parametrize("free", [0.0, 0.3])
def test_the_plan_is_what_dumpe2fs_shows(tmp_path, block_size, size, free):
    options = Ext4Options(block_size=block_size, size=size, free=free, label="planned", seed=b"layout")
    planned = plan(ragged(), options)
    path = write_plan(planned, tmp_path / "image")
    values, groups = dumpe2fs(path)
    summary = planned.summary._asdict()
    shown = {name: values.get(title, "0").split(" ")[0] for name, title in HEADER.items()}
    assert shown == {name: str(summary[name]) for name in HEADER}
    assert tuple(values["Filesystem features"].split()) == planned.summary.features
    assert int(values["Checksum"], 16) == planned.summary.checksum
    assert groups == expected_groups(planned)


@pytest.mark.parametrize("block_size", [1024, 2048, 4096])
@pytest.mark.parametrize("size", ["30M", "512M", "3G"])
def test_the_superblock_is_that_of_mke2fs(tmp_path, block_size, size):
    mke2fs(tmp_path / "theirs", size, "-t", "ext4", "-b", str(block_size), "-i", "16384", "-L", "same")
    theirs, _ = dumpe2fs(tmp_path / "theirs")
    uuid = UUID(FIXED_UUID)
    options = Ext4Options(
        block_size=block_size,
        size=int(size[:-1]) * (GiB if size[-1] == "G" else MiB),
        uuid=uuid,
        hash_seed=uuid,
        label="same",
        time_ns=1_700_000_000 * SECOND,
    )
    ours, _ = dumpe2fs(write_plan(plan(Directory(), options), tmp_path / "ours"))
    differing = {name for name in theirs if theirs[name] != ours.get(name)}
    assert differing <= {"Lifetime writes", "Checksum", "Free blocks"}, [
        (n, theirs[n], ours.get(n)) for n in differing
    ]
    assert theirs.keys() == ours.keys()


def test_debugfs_finds_what_the_tree_says(tmp_path):
    path = write_plan(plan(everything(), Ext4Options(seed=b"debugfs")), tmp_path / "image")
    small = debugfs(path, "stat /small")
    for part in ("Type: regular", "Mode:  04755", "User:     1", "Group:     2", "Size: 6", "Links: 1"):
        assert part in small
    assert re.search(r"mtime: 0x6553f100:ee6b27fc", small), "999,999,999 ns above the two epoch bits"
    assert "Links: 2" in debugfs(path, "stat /first")
    numbers = [re.findall(r"Inode: (\d+)", debugfs(path, f"stat /{name}")) for name in ("first", "second")]
    assert numbers[0] == numbers[1]
    assert "Fast link dest" in debugfs(path, 'stat "/short link"')
    assert "EXTENTS" in debugfs(path, 'stat "/long link"')
    assert "major/minor number: 01:03" in debugfs(path, "stat /null")
    assert "259:70000" in debugfs(path, "stat /disk")
    assert "Type: FIFO" in debugfs(path, "stat /pipe")
    assert "Type: socket" in debugfs(path, "stat /socket")
    listed = debugfs(path, "ea_list /attributes")
    for part in ("user.a (0)", 'user.small (1) = "v"', "user.large (", "trusted.t (100)"):
        assert part in listed
    assert "system.posix_acl_access (" in debugfs(path, "ea_list /shared")


def test_debugfs_dumps_the_contents(tmp_path):
    tree = everything()
    path = write_plan(plan(tree, Ext4Options()), tmp_path / "image")
    for name in (b"megabytes", b"islands", b"block", b"hole"):
        node = tree.entries[name]
        assert isinstance(node, File)
        out = tmp_path / "dumped"
        run([tool("debugfs"), "-R", f"dump /{name.decode()} {out}", path])
        buffer = bytearray(node.content.size)
        node.content.read_into(0, memoryview(buffer))
        assert out.read_bytes() == buffer


def debugfs_blocks(path: Path, name: str) -> int:
    return int(re.findall(r"Blockcount: (\d+)", debugfs(path, f"stat {name}"))[0])


def test_blocks_count_everything_an_inode_holds(tmp_path):
    entries: dict[bytes, Node] = {
        b"plain": File(content=PatternContent(4097)),
        b"tree": File(content=PatternContent(10 * 8192, [(8192 * i, 4096) for i in range(10)])),
        b"xattr": File(content=PatternContent(1), xattrs={b"user.x": bytes(500)}),
        b"link": Symlink(b"l" * 60, xattrs={b"trusted.x": bytes(500)}),
        b"fast": Symlink(b"l", xattrs={b"trusted.x": bytes(500)}),
        b"pipe": Special(stat.S_IFIFO, xattrs={b"trusted.x": bytes(500)}),
    }
    path = write_plan(plan(Directory(entries=entries), Ext4Options()), tmp_path / "image")
    e2fsck(path)
    found = {name.decode(): debugfs_blocks(path, f"/{name.decode()}") // 8 for name in entries}
    assert found == {"plain": 2, "tree": 11, "xattr": 2, "link": 2, "fast": 1, "pipe": 1}


# 92 bytes for entries and values beside the end; an entry takes 16 and the name, padded to 4, and the value.
@pytest.mark.parametrize("size", [0, 1, 56, 64, 65, 68, 69, 500, 3968, 3970, 4024, 4028, 4029, 4032])
def test_attribute_sizes_at_each_boundary(tmp_path, size):
    value = bytes(i % 251 + 1 for i in range(size))
    nodes: dict[bytes, Node] = {
        b"one": File(xattrs={b"user.name": value}),
        b"two": File(xattrs={b"user.name": value, b"user.x": b"y" * 16}),
    }
    if size > 4028:
        del nodes[b"two"]
    tree = Directory(entries=nodes)
    if 16 + 4 + size > 4096 - 32 - 4:
        with pytest.raises(ValueError, match=r"/one: extended attributes: expected at most one block"):
            plan(tree, Ext4Options())
        return
    path = write_plan(plan(tree, Ext4Options()), tmp_path / "image")
    e2fsck(path)
    run([tool("debugfs"), "-R", f"ea_get -f {tmp_path / 'value'} /one user.name", path])
    assert (tmp_path / "value").read_bytes() == value


def test_equal_attribute_blocks_are_shared(tmp_path):
    value = {b"user.same": bytes(range(200))}
    nodes: dict[bytes, Node] = {b"%04d" % i: File(xattrs=value) for i in range(2050)}
    path = write_plan(plan(Directory(entries=nodes), Ext4Options()), tmp_path / "image")
    e2fsck(path)
    shown = debugfs(path, *[f"stat /{i:04d}" for i in (0, 1023, 1024, 2047, 2048, 2049)])
    blocks = [int(number) for number in re.findall(r"File ACL: (\d+)", shown)]
    assert [block - blocks[0] for block in blocks] == [0, 0, 1, 1, 2, 2], "1024 inodes share one block"


def test_an_access_control_list_keeps_its_meaning(tmp_path):
    value = acl((1000, 6), (70_000, 4))
    path = write_plan(
        plan(Directory(entries={b"f": File(0o674, xattrs={b"system.posix_acl_access": value})}), Ext4Options()),
        tmp_path / "image",
    )
    e2fsck(path)
    shown = debugfs(path, "ea_get -x /f system.posix_acl_access")
    unnamed = value.replace(b"\xff\xff\xff\xff", bytes(4))  # debugfs knows no "nobody"
    assert unnamed.hex() in shown.replace(" ", "")


def test_attribute_names_and_values_of_any_bytes(tmp_path):
    xattrs = {b"user." + bytes([200 + i, 255]): bytes([255, 254, 253]) * 100 for i in range(10)}
    path = write_plan(plan(Directory(entries={b"f": File(xattrs=xattrs)}), Ext4Options()), tmp_path / "image")
    e2fsck(path)
