"""What a tree needs, counted before the size of its file system is known.

Knows: how many blocks each kind of node takes. Refuses to know: where any of them will lie.

Source: Linux 6.1, Documentation/filesystems/ext4 (inodes, ifork, attributes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from blockwright.errors import UsageError
from blockwright.fs.ext4.layout import MAX_EXTENT_BLOCKS
from blockwright.fs.ext4.plan_extents import ExtentRun, count_extents, split, tree_blocks
from blockwright.fs.ext4.plan_geometry import Zone
from blockwright.fs.ext4.plan_tree import Inventory
from blockwright.fs.ext4.plan_xattr import MAX_SHARED, Packed, pack_xattrs
from blockwright.tree.content import Content, PlacedContent
from blockwright.tree.node import File, Node, Symlink

FAST_LINK: Final = 60
"""Bytes from which on a link's target needs a block."""
MAX_TARGET: Final = 4095
MAX_BLOCKS: Final = 0xFFFFFFFF
"""Blocks that a file's last byte may lie within, counted from 1."""

BlockRuns = list[tuple[int, int]]
"""Ascending (first logical block, blocks) of data that neither touch nor overlap."""


@dataclass(slots=True)
class Measured:
    """What a tree needs beside its inodes. ``runs`` and ``attributes`` hold what is not plain, by inode number.

    ``sensitive``: a file is so long, or in so many runs, that cutting it may make its extent tree grow. ``bodies``
    are the extents of those that lie in the output already, by inode number.
    """

    blocks: int = 0
    sensitive: bool = False
    bodies: dict[int, list[ExtentRun]] = field(default_factory=dict)
    newest_ns: int = 0
    runs: dict[int, BlockRuns] = field(default_factory=dict)
    attributes: dict[int, Packed] = field(default_factory=dict)

    @property
    def placed(self) -> list[Zone]:
        """The blocks of all bodies that lie in the output already."""
        return [(run.physical, run.physical + run.blocks) for runs in self.bodies.values() for run in runs]


def block_runs(content: Content, block_size: int) -> BlockRuns:
    """Return the blocks that hold a content's data. Raises UsageError for runs that are not as promised."""
    found: BlockRuns = []
    end = 0
    for offset, length in content.runs():
        if offset < end or length <= 0 or offset + length > content.size:
            raise UsageError(
                f"content: expected ascending runs within {content.size} bytes, found {length} at {offset}"
            )
        end = offset + length
        first, last = offset // block_size, -(-end // block_size)
        if found and first <= found[-1][0] + found[-1][1]:
            found[-1] = found[-1][0], last - found[-1][0]
        else:
            found.append((first, last - first))
    return found


def measure(inventory: Inventory, block_size: int) -> Measured:
    """Return what the tree needs. Raises UsageError, naming the path, for what ext4 cannot store."""
    measured = Measured()
    times = []
    longest = min(MAX_EXTENT_BLOCKS, 16 * block_size) * block_size  # one extent, and no more than two groups
    blocks = _directory_blocks(inventory, measured, block_size)
    for number, node in enumerate(inventory.nodes):
        if node is None:
            continue
        times.append(node.mtime_ns)
        if node.xattrs:
            measured.attributes[number] = _pack_attributes(inventory, node, block_size)
        if isinstance(node, File):
            content = node.content
            size = content.size
            if not size:
                continue
            if size <= longest:  # as nearly all are
                if type(content) is PlacedContent:
                    placed = measured.bodies[number] = placed_runs(content, block_size)
                    if len(placed) == 1:
                        continue
                elif len(runs := content.runs()) == 1 and runs[0] == (0, size):
                    blocks += -(-size // block_size)
                    continue
            blocks += _odd_file_blocks(inventory, measured, number, node, block_size)
        elif isinstance(node, Symlink):
            blocks += _link_blocks(inventory, node, block_size)
    measured.newest_ns = max(times)
    measured.blocks = blocks + _attribute_blocks(measured.attributes)
    return measured


def _directory_blocks(inventory: Inventory, measured: Measured, block_size: int) -> int:
    blocks = 0
    for image in inventory.directories.values():
        blocks += image.blocks
        if image.blocks > MAX_EXTENT_BLOCKS:
            blocks += tree_blocks(-(-image.blocks // MAX_EXTENT_BLOCKS), block_size)
            measured.sensitive = True
    return blocks


def _odd_file_blocks(inventory: Inventory, measured: Measured, number: int, node: File, block_size: int) -> int:
    """Count the blocks of a file that is long, or has holes, or lies in place already."""
    content, most = node.content, MAX_BLOCKS * block_size
    if content.size > most:
        raise UsageError(f"{inventory.path_of(node)}: expected at most {most} bytes, found {content.size}")
    if isinstance(content, PlacedContent):
        measured.bodies[number] = placed = placed_runs(content, block_size)
        if len(placed) == 1 and placed[0].blocks <= MAX_EXTENT_BLOCKS:
            return 0
        return tree_blocks(len(split(placed)), block_size)
    try:
        measured.runs[number] = found = block_runs(content, block_size)
    except UsageError as error:
        raise UsageError(f"{inventory.path_of(node)}: {error}") from None
    extents = count_extents(found)
    measured.sensitive = True
    return sum(count for _, count in found) + tree_blocks(extents, block_size)


def _link_blocks(inventory: Inventory, node: Symlink, block_size: int) -> int:
    longest = min(MAX_TARGET, block_size - 1)
    if not 0 < len(node.target) <= longest or b"\0" in node.target:
        raise UsageError(
            f"{inventory.path_of(node)}: expected a target of 1 to {longest} bytes without NUL, "
            f"found {len(node.target)}"
        )
    return int(len(node.target) >= FAST_LINK)


def _pack_attributes(inventory: Inventory, node: Node, block_size: int) -> Packed:
    try:
        return pack_xattrs(node.xattrs, block_size)
    except UsageError as error:
        raise UsageError(f"{inventory.path_of(node)}: {error}") from None


def _attribute_blocks(attributes: dict[int, Packed]) -> int:
    """Return how many blocks the attributes take, equal ones being shared."""
    counts: dict[bytes, int] = {}
    for packed in attributes.values():
        if packed.block is not None:
            counts[packed.block] = counts.get(packed.block, 0) + 1
    return sum(-(-count // MAX_SHARED) for count in counts.values())


def placed_runs(content: PlacedContent, block_size: int) -> list[ExtentRun]:
    """Return the extents of a body that lies in place already, in blocks."""
    found: list[ExtentRun] = []
    for offset, length, position in content.placed:
        assert not (offset | position) & (block_size - 1), "a placed run starts with a block"
        logical, physical, count = offset // block_size, position // block_size, -(-length // block_size)
        last = found[-1] if found else None
        if last and last.logical + last.blocks == logical and last.physical + last.blocks == physical:
            found[-1] = last._replace(blocks=last.blocks + count)
        else:
            found.append(ExtentRun(logical, physical, count))
    return found
