"""Maps of a file's blocks as they are written: an extent tree, or the pointers of ext2 and ext3.

Both answer how many blocks a map takes beside the file's own, and what is in them and in the inode.

Knows: the two forms. Refuses to know: files, and who hands out the blocks.

Source: Linux 6.1, Documentation/filesystems/ext4/ifork.rst ("Direct/Indirect Block Addressing", "Extent Tree").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final

from blockwright.fs.ext4.form import Form
from blockwright.fs.ext4.layout import MAX_EXTENT_BLOCKS, InodeFlag, inode_seed
from blockwright.fs.ext4.plan_extents import (
    EMPTY_TREE,
    ExtentRun,
    build_tree,
    count_extents,
    single_extent,
    split,
    tree_blocks,
)

MAX_BLOCKS: Final = 0xFFFFFFFF
"""Blocks that a file's last byte may lie within, counted from 1, where there are extents."""
DIRECT: Final = 12
"""Blocks that an inode points to itself."""
_ROOT: Final = Struct("<15I")


class ExtentMaps:
    """Extent trees. ``seed`` starts every checksum, None where blocks of the tree have none.

    ``flag`` is what an inode with such a map has set, ``empty`` its i_block when it has no blocks. A file without
    holes of at most ``plain`` blocks needs none for its map, and no more when it is cut in two; one that is cut more
    often may need more where there is ``growth``.
    """

    flag: Final = InodeFlag.extents.value
    empty: Final = EMPTY_TREE
    growth: Final = True
    most_blocks: Final = MAX_BLOCKS

    def __init__(self, block_size: int, seed: int | None) -> None:
        self._block_size = block_size
        self._seed = seed
        self.plain = min(MAX_EXTENT_BLOCKS, 16 * block_size)  # one extent, and no more than two groups

    def single(self, start: int, count: int) -> bytes | None:
        """Return i_block of ``count`` blocks in one piece, None where that takes more than the inode."""
        return single_extent(start, count) if count <= MAX_EXTENT_BLOCKS else None

    def count(self, runs: Iterable[tuple[int, int]]) -> int:
        """Return how many blocks the map of ascending (logical block, blocks) takes, each run being in one piece."""
        return tree_blocks(count_extents(runs), self._block_size)

    def needed(self, runs: Sequence[ExtentRun]) -> int:
        """Return how many places ``build`` takes for ascending runs."""
        return self.count([(run.logical, run.blocks) for run in runs])

    def build(self, number: int, runs: Sequence[ExtentRun], places: Sequence[int]) -> tuple[bytes, list[bytes]]:
        """Return i_block of inode ``number``, and what is to be written to each of ``places``."""
        seed = None if self._seed is None else inode_seed(self._seed, number, 0)
        return build_tree(split(runs), places, seed, self._block_size)


class IndirectMaps:
    """Block pointers: twelve in the inode, and three trees of blocks of them, one to three levels deep.

    Attributes and methods are those of ``ExtentMaps``.
    """

    flag: Final = 0
    empty: Final = bytes(60)
    growth: Final = False
    plain: Final = DIRECT

    def __init__(self, block_size: int) -> None:
        self._fan_out = block_size // 4
        self._node = Struct(f"<{self._fan_out}I")
        fan_out = self._fan_out
        self.most_blocks = DIRECT + fan_out + fan_out**2 + fan_out**3

    def single(self, start: int, count: int) -> bytes | None:
        """Return i_block of at most twelve blocks in one piece, None for more."""
        return _ROOT.pack(*range(start, start + count), *(0,) * (15 - count)) if count <= DIRECT else None

    def count(self, runs: Iterable[tuple[int, int]]) -> int:
        """Return how many blocks of pointers ascending runs of (logical block, blocks) need, however they are cut."""
        leaves = middles = 0
        last_leaf = last_middle = -1
        double = False
        for logical, count in runs:
            end = logical + count
            if end <= DIRECT:
                continue
            first = max(last_leaf + 1, (max(logical, DIRECT) - DIRECT) // self._fan_out)
            last = (end - 1 - DIRECT) // self._fan_out
            if last < first:
                continue
            leaves += last - first + 1
            last_leaf = last
            double = double or (first <= self._fan_out and last >= 1)
            if last > self._fan_out:
                low = max(last_middle + 1, (max(first - 1, self._fan_out) - self._fan_out) // self._fan_out)
                last_middle = (last - 1 - self._fan_out) // self._fan_out
                middles += last_middle - low + 1
        return leaves + double + middles + (middles > 0)

    def needed(self, runs: Sequence[ExtentRun]) -> int:
        """Return how many places ``build`` takes for ascending runs."""
        return self.count((run.logical, run.blocks) for run in runs)

    def build(self, number: int, runs: Sequence[ExtentRun], places: Sequence[int]) -> tuple[bytes, list[bytes]]:
        """Return i_block, and what is to be written to each of ``places``, in a reader's order."""
        del number
        root, leaves = [0] * 15, self._leaves(runs)
        for run in runs:
            for logical in range(run.logical, min(run.logical + run.blocks, DIRECT)):
                root[logical] = run.physical + logical - run.logical
        free = iter(places)
        nodes: dict[int, list[int]] = {}

        def below(parent: list[int], index: int) -> list[int]:
            """Return the node that ``parent`` points to at ``index``, made where there is none yet."""
            if not parent[index]:
                parent[index] = next(free)
                nodes[parent[index]] = [0] * self._fan_out
            return nodes[parent[index]]

        fan_out = self._fan_out
        for leaf, pointers in leaves.items():
            if leaf == 0:
                parent, index = root, DIRECT
            elif leaf <= fan_out:
                parent, index = below(root, DIRECT + 1), leaf - 1
            else:
                middle, index = divmod(leaf - 1 - fan_out, fan_out)
                parent = below(below(root, DIRECT + 2), middle)
            parent[index] = place = next(free)
            nodes[place] = pointers
        assert len(nodes) == len(places), f"planner bug: {len(places)} places for {len(nodes)} blocks of pointers"
        return _ROOT.pack(*root), [self._node.pack(*nodes[place]) for place in places]

    def _leaves(self, runs: Sequence[ExtentRun]) -> dict[int, list[int]]:
        """Return the blocks that point to data, by their order in the file."""
        fan_out, leaves = self._fan_out, dict[int, list[int]]()
        for logical, physical, count in runs:
            position, end = max(logical, DIRECT), logical + count
            while position < end:
                leaf, start = divmod(position - DIRECT, fan_out)
                part = min(end - position, fan_out - start)
                at = physical + position - logical
                leaves.setdefault(leaf, [0] * fan_out)[start : start + part] = range(at, at + part)
                position += part
        return leaves


Maps = ExtentMaps | IndirectMaps


def maps_of(form: Form, seed: int) -> Maps:
    """Return the kind of maps that the features ask for."""
    if form.extents:
        return ExtentMaps(form.block_size, seed if form.metadata_csum else None)
    return IndirectMaps(form.block_size)
