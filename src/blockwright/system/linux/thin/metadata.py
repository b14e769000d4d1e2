"""A thin pool's metadata, read: which devices there are, from the device that holds it or a copy of that.

While the pool runs, what its device holds changes under whoever reads it, but for a metadata snapshot:
``Pool.reserved`` has one.

Knows: the way from the superblock to the details of devices. Refuses to know: the kernel, and how to repair.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, LimitExceeded, NotFound, NotThisFormat
from blockwright.system.linux.thin.layout import (
    BLOCK,
    DETAILS,
    MAX_BLOCKS,
    MAX_DEPTH,
    MAX_IDENTITY,
    Details,
    Node,
    Superblock,
    parse_node,
    parse_superblock,
)

_ROOT: Final = 0
MAX_KEY: Final = (1 << 64) - 1


class Metadata:
    """The metadata on ``device`` as the superblock at ``block`` tells it: the first, or that of a metadata snapshot.

    Raises NotThisFormat, Corrupt, Unsupported.
    """

    def __init__(self, device: BlockDevice, block: int = _ROOT) -> None:
        self._device = device
        if device.size < BLOCK * (block + 1):
            kind = NotThisFormat if block == _ROOT else Corrupt
            raise kind(f"thin pool: expected {BLOCK * (block + 1)} bytes of metadata or more, found {device.size}")
        self.superblock: Superblock = parse_superblock(device.read(block * BLOCK, BLOCK), block)

    @property
    def device(self) -> BlockDevice:
        """What the metadata is on."""
        return self._device

    def snapshot(self) -> Metadata:
        """Return the metadata as it was when the snapshot was reserved. Raises NotFound where none is, Corrupt."""
        if not self.superblock.held_root:
            raise NotFound("thin pool: no metadata snapshot is reserved")
        try:
            return Metadata(self._device, self.superblock.held_root)
        except NotThisFormat as error:
            raise Corrupt(str(error)) from None

    def devices(self) -> Iterator[Details]:
        """Yield every thin device, identities ascending, each once.

        Memory is bounded by the depth of the tree. Each block of it is read once at each depth, whatever the bytes
        are, since every node must have keys of its own. Raises Corrupt, LimitExceeded.
        """
        return self._walk(self.superblock.details_root, 0, MAX_IDENTITY + 1, 1)

    def _walk(self, block: int, low: int, high: int, depth: int) -> Iterator[Details]:
        """Yield the devices of the node at ``block``, whose keys must be from ``low`` on and below ``high``."""
        node = self._node(block)
        if not node.keys:
            if depth > 1 or not node.leaf:
                raise Corrupt("thin pool: node: expected entries, found none", offset=block * BLOCK + 16)
            return
        if node.keys[0] < low or node.keys[-1] >= high:
            found = f"{node.keys[0]} to {node.keys[-1]}"
            raise Corrupt(
                f"thin pool: node: expected keys from {low} to {high - 1}, found {found}", offset=block * BLOCK
            )
        if node.leaf:
            for key, values in zip(node.keys, DETAILS.iter_unpack(node.values), strict=True):
                yield Details(key, *values)
            return
        if depth == MAX_DEPTH:
            raise LimitExceeded(f"thin pool: expected a tree of {MAX_DEPTH} levels or fewer", offset=block * BLOCK)
        for child, start, end in zip(node.children(), node.keys, (*node.keys[1:], high), strict=True):
            yield from self._walk(child, start, end, depth + 1)

    def mapped_end(self, identity: int) -> int:
        """Return the byte behind the last block of a thin device that is mapped, 0 where none is.

        It is the least that the device's size can be, as far as that can be told. Raises Corrupt, LimitExceeded.
        """
        top = self._down(self.superblock.mapping_root, identity)
        at = bisect_right(top.keys, identity) - 1
        if at < 0 or top.keys[at] != identity:
            return 0
        last = self._down(top.children()[at], MAX_KEY)
        return (last.keys[-1] + 1) * self.superblock.data_block if last.keys else 0

    def _down(self, block: int, key: int) -> Node:
        """Return the leaf of a tree of numbers in which a key is, if it is in any."""
        for _ in range(MAX_DEPTH):
            node = self._node(block, 8)
            if node.leaf:
                return node
            if not node.keys:
                raise Corrupt("thin pool: node: expected entries, found none", offset=block * BLOCK + 16)
            block = node.children()[max(0, bisect_right(node.keys, key) - 1)]
        raise LimitExceeded(f"thin pool: expected a tree of {MAX_DEPTH} levels or fewer", offset=block * BLOCK)

    def _node(self, block: int, value_size: int = DETAILS.size) -> Node:
        last = min(MAX_BLOCKS, self._device.size // BLOCK) - 1  # the superblock keeps the number from before it grew
        if not 0 < block <= last:
            raise Corrupt(f"thin pool: tree: expected a block from 1 to {last}, found {block}")
        return parse_node(self._device.read(block * BLOCK, BLOCK), block, value_size)
