"""Where the blocks of a hash tree lie: sizes and positions, as values.

A level holds the digests of the one below it, level 0 those of the data. On disk the highest level comes first, and
is one block, whose digest is the root hash; data of a single block has no levels, and its digest is the root hash.

Knows: arithmetic. Refuses to know: hashes and devices.

Source: Linux Documentation/admin-guide/device-mapper/verity.rst, "Hash Tree"; drivers/md/dm-verity-target.c for the
order on disk.
"""

from __future__ import annotations

from typing import NamedTuple

from blockwright.errors import Misaligned
from blockwright.units import align_up, ceil_div
from blockwright.verity.layout import Parameters, Superblock


class Level(NamedTuple):
    """``blocks`` hash blocks from byte ``start`` of the tree on, ``digests`` of those of the level below."""

    start: int
    blocks: int
    digests: int


class TreePlan(NamedTuple):
    """The levels of a tree, level 0 first, and its size in bytes."""

    levels: tuple[Level, ...]
    size: int


def plan_tree(parameters: Parameters) -> TreePlan:
    """Return where each level lies, from the beginning of the tree on."""
    counts = []
    below = parameters.data_blocks
    while below > 1:
        counts.append((ceil_div(below, parameters.slots), below))
        below = counts[-1][0]
    levels, position = [], 0
    for blocks, digests in reversed(counts):
        levels.append(Level(position, blocks, digests))
        position += blocks * parameters.hash_block
    return TreePlan(tuple(reversed(levels)), position)


def tree_start(parameters: Parameters, hash_offset: int, *, superblock: bool) -> int:
    """Return the byte of the hash device at which the tree begins: a hash block's, behind the superblock's 512.

    Raises Misaligned where no superblock or tree can begin at ``hash_offset``.
    """
    step = Superblock.SIZE if superblock else parameters.hash_block
    if hash_offset % step or hash_offset < 0:
        raise Misaligned(f"verity: hash offset: expected a multiple of {step} bytes, found {hash_offset}")
    return align_up(hash_offset + (Superblock.SIZE if superblock else 0), parameters.hash_block)


def area_end(parameters: Parameters, hash_offset: int, *, superblock: bool) -> int:
    """Return the first byte of the hash device behind the tree. Raises as ``tree_start`` does."""
    return tree_start(parameters, hash_offset, superblock=superblock) + plan_tree(parameters).size
