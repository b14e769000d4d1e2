"""What a tree needs, counted before the size of its file system is known.

Knows: how many blocks each kind of node takes. Refuses to know: where any of them will lie.

Source: Linux 6.1, Documentation/filesystems/ext4 (inodes, ifork, attributes).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Final

from blockwright.errors import UsageError
from blockwright.fs.ext4.form import Form
from blockwright.fs.ext4.plan_extents import ExtentRun
from blockwright.fs.ext4.plan_geometry import Zone
from blockwright.fs.ext4.plan_maps import Maps
from blockwright.fs.ext4.plan_tree import Inventory
from blockwright.fs.ext4.plan_xattr import MAX_SHARED, Packed, pack_xattrs
from blockwright.tree.content import Content, PlacedContent
from blockwright.tree.node import File, Node, Symlink

FAST_LINK: Final = 60
"""Bytes from which on a link's target needs a block."""
MAX_TARGET: Final = 4095
MAX_SECTORS: Final = 0xFFFFFFFF
"""Sectors of 512 bytes that a file's blocks may be without huge_file."""

BlockRuns = list[tuple[int, int]]
"""Ascending (first logical block, blocks) of data that neither touch nor overlap."""


@dataclass(slots=True)
class Measured:
    """What a tree needs beside its inodes. ``runs`` and ``attributes`` hold what is not plain, by inode number.

    ``sensitive``: a file is so long, or in so many runs, that cutting it may make its extent tree grow. ``bodies``
    are the extents of those that lie in the output already, by inode number, but for files in one short piece.
    ``occupied`` has the first block of each of their pieces and its blocks behind it.
    """

    blocks: int = 0
    sensitive: bool = False
    bodies: dict[int, list[ExtentRun]] = field(default_factory=dict)
    occupied: array[int] = field(default_factory=lambda: array("Q"))
    newest_ns: int = 0
    runs: dict[int, BlockRuns] = field(default_factory=dict)
    attributes: dict[int, Packed] = field(default_factory=dict)

    @property
    def placed(self) -> list[Zone]:
        """The blocks of all bodies that lie in the output already, merged and ascending."""
        zones: list[Zone] = []
        # Single numbers, since a million tuples take their room.
        pieces = [start << 32 | blocks for start, blocks in zip(self.occupied[::2], self.occupied[1::2], strict=True)]
        pieces.sort()
        for piece in pieces:
            start, blocks = piece >> 32, piece & 0xFFFFFFFF
            if zones and zones[-1][1] == start:
                zones[-1] = zones[-1][0], start + blocks
            else:
                zones.append((start, start + blocks))
        return zones


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


def measure(inventory: Inventory, form: Form, maps: Maps) -> Measured:
    """Return what the tree needs. Raises UsageError, naming the path, for what ext4 cannot store."""
    measured = Measured()
    times = []
    block_size = form.block_size
    longest = maps.plain * block_size
    counter = _Counter(inventory, measured, form, maps)
    blocks = counter.directories()
    for number, node in enumerate(inventory.nodes):
        if node is None:
            continue
        times.append(node.mtime_ns)
        if node.xattrs:
            measured.attributes[number] = _pack_attributes(inventory, node, form)
        if isinstance(node, File):
            content = node.content
            size = content.size
            if not size:
                continue
            if size <= longest:  # as nearly all are
                if type(content) is PlacedContent:
                    if len(content.placed) == 1 and content.placed[0].offset == 0:
                        _, length, position = content.placed[0]
                        measured.occupied.extend((position // block_size, -(-length // block_size)))
                        continue
                elif len(runs := content.runs()) == 1 and runs[0] == (0, size):
                    blocks += -(-size // block_size)
                    continue
            blocks += counter.odd_file(number, node)
        elif isinstance(node, Symlink):
            blocks += _link_blocks(inventory, node, block_size)
    measured.newest_ns = max(times)
    measured.blocks = blocks + _attribute_blocks(measured.attributes)
    return measured


class _Counter:
    """Counts what is not plain, and keeps what was found on the way."""

    def __init__(self, inventory: Inventory, measured: Measured, form: Form, maps: Maps) -> None:
        self._inventory = inventory
        self._measured = measured
        self._block_size = form.block_size
        self._maps = maps
        self._most_blocks = MAX_SECTORS if form.huge_file else MAX_SECTORS * 512 // form.block_size

    def directories(self) -> int:
        """Return the blocks of all directories."""
        blocks, plain = 0, self._maps.plain
        for image in self._inventory.directories.values():
            blocks += image.blocks
            if image.blocks > plain:
                blocks += self._maps.count([(0, image.blocks)])
                self._measured.sensitive |= self._maps.growth
        return blocks

    def odd_file(self, number: int, node: File) -> int:
        """Return the blocks of a file that is long, or has holes, or lies in place already."""
        inventory, measured, maps = self._inventory, self._measured, self._maps
        content, most = node.content, maps.most_blocks * self._block_size
        if content.size > most:
            raise UsageError(f"{inventory.path_of(node)}: expected at most {most} bytes, found {content.size}")
        if isinstance(content, PlacedContent):
            measured.bodies[number] = placed = placed_runs(content, self._block_size)
            for run in placed:
                measured.occupied.extend((run.physical, run.blocks))
            return maps.needed(placed)
        try:
            measured.runs[number] = found = block_runs(content, self._block_size)
        except UsageError as error:
            raise UsageError(f"{inventory.path_of(node)}: {error}") from None
        measured.sensitive |= maps.growth
        blocks = sum(count for _, count in found) + maps.count(found)
        if blocks > self._most_blocks:
            raise UsageError(
                f"{inventory.path_of(node)}: expected at most {self._most_blocks} blocks without huge_file, "
                f"found {blocks}"
            )
        return blocks


def _link_blocks(inventory: Inventory, node: Symlink, block_size: int) -> int:
    longest = min(MAX_TARGET, block_size - 1)
    if not 0 < len(node.target) <= longest or b"\0" in node.target:
        raise UsageError(
            f"{inventory.path_of(node)}: expected a target of 1 to {longest} bytes without NUL, "
            f"found {len(node.target)}"
        )
    return int(len(node.target) >= FAST_LINK)


def _pack_attributes(inventory: Inventory, node: Node, form: Form) -> Packed:
    try:
        return pack_xattrs(node.xattrs, form.block_size, form.attribute_room)
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
