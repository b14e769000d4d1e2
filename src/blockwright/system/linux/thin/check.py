"""A thin pool's metadata, verified: every tree, what the devices' details say of their mappings, and every count.

What refers to a block is counted anew, once for each node that does, however many devices share that; the space maps
must say the same. A block that is counted too often is lost space; one that is counted less often than it is used
would be handed out a second time.

Knows: what must agree with what. Refuses to know: the kernel, and how to repair.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotThisFormat
from blockwright.finding import Finding
from blockwright.system.linux.thin.layout import (
    BLOCK,
    DETAILS,
    MAX_BLOCKS,
    MAX_DEPTH,
    MAX_IDENTITY,
    Details,
    Node,
    SpaceMapRoot,
    Superblock,
    parse_node,
    parse_superblock,
)
from blockwright.system.linux.thin.spaces import (
    INDEX_ENTRY,
    MANY,
    PER_BITMAP,
    PER_INDEX,
    IndexEntry,
    parse_bitmap,
    parse_index,
)
from blockwright.units import ceil_div

MAX_FINDINGS: Final = 100
"""Faults that are told; the check ends behind them."""
MAX_DATA_BLOCKS: Final = 1 << 30
"""Blocks of data that are counted, a byte each: 64 TiB of the smallest."""
_ANY_KEY: Final = 1 << 64
_TIME_BITS: Final = 24
_TIME: Final = (1 << _TIME_BITS) - 1
_AS_BITS: Final = bytes(min(each, MANY) for each in range(256))
"""How a bitmap says a count."""


def check_metadata(device: BlockDevice, *, live: bool = False) -> list[Finding]:
    """Return what is wrong with the metadata on ``device``, at most ``MAX_FINDINGS``; nothing is written.

    ``live`` looks at no more than the metadata snapshot that is reserved, since everything else changes while the
    pool runs. Each block is read once, memory is linear in what the metadata takes. Raises OSError alone.
    """
    audit = _Audit(device)
    try:
        audit.run(live=live)
    except _EnoughError:
        pass
    except FormatError as error:
        audit.found.append(_of(error, "thin.metadata.superblock"))
    return audit.found[:MAX_FINDINGS]


_HARMLESS: Final = (".leaked", ".map.free", ".map.used")


def is_harmless(finding: Finding) -> bool:
    """Whether a pool can go on with this: space is lost, or counted wrong where the kernel counts again."""
    return finding.rule.endswith(_HARMLESS)


def _of(error: FormatError, rule: str) -> Finding:
    return Finding(rule, str(error.args[0]), error.offset)


class _EnoughError(Exception):
    """There are as many findings as are told."""


@dataclass(frozen=True, slots=True)
class _Subtree:
    """What is under a node: ``entries`` of its leaves, their first and last key (0 and -1 where there are none)."""

    kind: str
    height: int
    entries: int
    first: int
    last: int


class _Counts:
    """How often each of ``size`` blocks was referred to: a byte each, and a dictionary for more than fits."""

    def __init__(self, size: int) -> None:
        self.low = bytearray(size)
        self._high: dict[int, int] = {}

    def add(self, block: int) -> None:
        try:
            self.low[block] += 1
        except ValueError:
            self._high[block] = self._high.get(block, 255) + 1

    def of(self, block: int) -> int:
        return self._high.get(block, self.low[block])


class _Audit:
    """One check. Raises _EnoughError within."""

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self.found: list[Finding] = []
        self._blocks = 0
        self._data_blocks = 0
        self._time = 0
        self._whole = True
        """Whether every tree could be read to its end; otherwise counts mean nothing."""
        self._seen: dict[int, _Subtree | None] = {}
        """What is under each node that was visited, None while it is."""
        self._used = _Counts(0)
        self._data = _Counts(0)

    # -- the order -------------------------------------------------------------------------------------------

    def run(self, *, live: bool) -> None:
        top = self._superblock(0)
        self._blocks = min(self._device.size // BLOCK, MAX_BLOCKS) if live else top.metadata.blocks
        if not live and not 1 < self._blocks <= min(self._device.size // BLOCK, MAX_BLOCKS):
            here = self._device.size // BLOCK
            raise Corrupt(f"thin pool: metadata: expected 2 to {here} blocks, found {self._blocks}", offset=192)
        self._data_blocks = top.data.blocks
        if self._data_blocks > MAX_DATA_BLOCKS:
            raise LimitExceeded(f"thin pool: expected {MAX_DATA_BLOCKS} blocks of data or fewer, found {top.data}")
        self._used = _Counts(self._blocks)
        self._used.add(0)
        data_map = None if live else self._data_map(top.data)
        # Now the bitmaps are there, so that what is allocated for them is in proportion.
        self._data = _Counts(self._data_blocks if data_map is None else data_map.room)
        if not live:
            self._devices(top)
        if top.held_root and self._refer(top.held_root, "superblock"):
            try:
                self._devices(self._superblock(top.held_root))
            except FormatError as error:
                self._broken(_of(error, "thin.metadata.held"))
        elif live:
            self._tell("thin.metadata.held", "expected a metadata snapshot, found none", 56)
        if data_map is None:
            return
        metadata_map = self._metadata_map(top.metadata)
        if self._whole:
            self._compare("data", data_map, self._data, self._data_blocks)
            self._compare("metadata", metadata_map, self._used, self._blocks)

    def _superblock(self, block: int) -> Superblock:
        if self._device.size < BLOCK * (block + 1):
            raise NotThisFormat(f"thin pool: expected a superblock at block {block}, found the end")
        found = parse_superblock(self._device.read(block * BLOCK, BLOCK), block)
        self._time = found.time
        return found

    def _devices(self, top: Superblock) -> None:
        """Visit the devices of a superblock, and compare what is said of them with what is mapped."""
        details: dict[int, Details] = {}
        mapped: dict[int, int] = {}

        def detail(node: Node, _block: int) -> None:
            for key, values in zip(node.keys, DETAILS.iter_unpack(node.values), strict=True):
                details[key] = Details(key, *values)

        def device(node: Node, _block: int) -> None:
            for key, root in zip(node.keys, node.children(), strict=True):
                tree = self._visit(root, "mapping", 8, 0, _ANY_KEY, 1, self._mappings)
                if tree is not None:
                    mapped[key] = tree.entries

        self._visit(top.details_root, "details", DETAILS.size, 0, MAX_IDENTITY + 1, 1, detail)
        self._visit(top.mapping_root, "devices", 8, 0, MAX_IDENTITY + 1, 1, device)
        if not self._whole:
            return
        for number in sorted(details.keys() ^ mapped.keys()):
            what = "mappings" if number in details else "details"
            self._tell("thin.device", f"device {number}: expected {what}, found none")
        for number, each in details.items():
            if each.mapped_blocks != mapped.get(number, each.mapped_blocks):
                text = f"device {number}: expected {mapped[number]} blocks mapped, found {each.mapped_blocks}"
                self._tell("thin.device.mapped", text)
            if max(each.created, each.snapshotted) > top.time or each.transaction > top.transaction:
                text = f"device {number}: expected times up to {top.time}, transactions up to {top.transaction}"
                self._tell("thin.device.time", text)

    def _mappings(self, node: Node, block: int) -> None:
        """Count the blocks of data that a leaf refers to."""
        values = struct.unpack(f"<{len(node.keys)}Q", node.values)
        if values and max(values) >> _TIME_BITS >= self._data_blocks:
            text = f"expected a block of data below {self._data_blocks}, found {max(values) >> _TIME_BITS}"
            self._broken(Finding("thin.mapping", text, block * BLOCK))
            return
        if max(map(_TIME.__and__, values), default=0) > self._time:
            self._tell("thin.mapping.time", f"expected a time up to {self._time}, found a later one", block * BLOCK)
        low, add = self._data.low, self._data.add
        if len(low) < self._data_blocks:  # live, or the maps are damaged
            return
        for value in values:
            at = value >> _TIME_BITS
            if low[at] < 255:
                low[at] += 1
            else:
                add(at)

    # -- trees -----------------------------------------------------------------------------------------------

    def _refer(self, block: int, what: str) -> bool:
        """Count a reference to a block of metadata; False where there is no such block."""
        if not 0 < block < self._blocks:
            text = f"{what}: expected a block from 1 to {self._blocks - 1}, found {block}"
            self._broken(Finding("thin.metadata.tree", text))
            return False
        self._used.add(block)
        return True

    def _visit(
        self,
        block: int,
        kind: str,
        width: int,
        low: int,
        high: int,
        depth: int,
        leaf: Callable[[Node, int], None],
    ) -> _Subtree | None:
        """Visit the tree under a node, whose keys must be from ``low`` on and below ``high``; None for damage.

        A node that was visited is not read again, only its range and its kind are looked at.
        """
        if not self._refer(block, kind):
            return None
        if block in self._seen:
            found = self._seen[block]
            if found is not None:
                return self._fits(found, block, kind, low, high)
            self._broken(Finding("thin.metadata.tree", f"{kind}: node leads back to itself", block * BLOCK))
            return None
        self._seen[block] = None
        try:
            node = parse_node(self._device.read(block * BLOCK, BLOCK), block, width)
            self._shape(node, block, depth, width)
        except FormatError as error:
            self._broken(_of(error, "thin.metadata.node"))
            return None
        except OSError as error:
            self._broken(Finding("thin.metadata.node", f"{kind}: cannot be read: {error}", block * BLOCK))
            return None
        if node.leaf:
            leaf(node, block)
            first, last = (node.keys[0], node.keys[-1]) if node.keys else (0, -1)
            found = _Subtree(kind, 1, len(node.keys), first, last)
        else:
            below = self._below(node, block, kind, width, high, depth, leaf)
            if below is None:
                return None
            found = below
        self._seen[block] = found
        return self._fits(found, block, kind, low, high)

    def _below(
        self,
        node: Node,
        block: int,
        kind: str,
        width: int,
        high: int,
        depth: int,
        leaf: Callable[[Node, int], None],
    ) -> _Subtree | None:
        ends = (*node.keys[1:], high)
        children = [
            self._visit(child, kind, width, start, end, depth + 1, leaf)
            for child, start, end in zip(node.children(), node.keys, ends, strict=True)
        ]
        whole = [each for each in children if each is not None]
        if len(whole) < len(children):
            return None
        if len({each.height for each in whole}) > 1:
            self._broken(Finding("thin.metadata.tree", f"{kind}: expected leaves at one depth", block * BLOCK))
            return None
        return _Subtree(kind, whole[0].height + 1, sum(each.entries for each in whole), node.keys[0], whole[-1].last)

    def _shape(self, node: Node, block: int, depth: int, width: int) -> None:
        """Raise Corrupt for what no kernel makes, LimitExceeded."""
        if node.room % 3:
            raise Corrupt(
                f"thin pool: node: expected room for a multiple of 3, found {node.room}", offset=block * BLOCK
            )
        if not node.keys and (depth > 1 or not node.leaf):
            raise Corrupt("thin pool: node: expected entries, found none", offset=block * BLOCK + 16)
        if depth > 1 and len(node.keys) < node.room // 3:
            least = node.room // 3
            raise Corrupt(f"thin pool: node: expected {least} entries, found {len(node.keys)}", offset=block * BLOCK)
        if not node.leaf and depth == MAX_DEPTH:
            raise LimitExceeded(f"thin pool: expected a tree of {MAX_DEPTH} levels or fewer", offset=block * BLOCK)

    def _fits(self, found: _Subtree, block: int, kind: str, low: int, high: int) -> _Subtree | None:
        if found.kind != kind:
            self._broken(Finding("thin.metadata.tree", f"{kind}: node is of {found.kind}, too", block * BLOCK))
            return None
        if found.entries and not low <= found.first <= found.last < high:
            text = f"{kind}: expected keys from {low} to {high - 1}, found {found.first} to {found.last}"
            self._broken(Finding("thin.metadata.tree", text, block * BLOCK))
            return None
        return found

    # -- space maps ------------------------------------------------------------------------------------------

    def _data_map(self, root: SpaceMapRoot) -> _Map:
        entries: list[IndexEntry] = []

        def part(node: Node, block: int) -> None:
            if node.keys != tuple(range(len(entries), len(entries) + len(node.keys))):
                self._broken(Finding("thin.data.map", "index: expected keys without a gap", block * BLOCK))
            entries.extend(IndexEntry(*each) for each in INDEX_ENTRY.iter_unpack(node.values))

        self._visit(root.bitmap_root, "index of data", INDEX_ENTRY.size, 0, _ANY_KEY, 1, part)
        return self._map("data", root, entries)

    def _metadata_map(self, root: SpaceMapRoot) -> _Map:
        entries: list[IndexEntry] = []
        if self._refer(root.bitmap_root, "index of metadata"):
            try:
                entries = parse_index(self._device.read(root.bitmap_root * BLOCK, BLOCK), root.bitmap_root)
            except FormatError as error:
                self._broken(_of(error, "thin.metadata.map"))
        wanted = ceil_div(root.blocks, PER_BITMAP)
        if wanted > PER_INDEX:
            raise LimitExceeded(f"thin pool: expected {PER_INDEX} bitmaps of metadata or fewer, found {wanted}")
        return self._map("metadata", root, entries[:wanted])

    def _map(self, what: str, root: SpaceMapRoot, entries: list[IndexEntry]) -> _Map:
        """Refer to all that a space map consists of, and return it."""
        counts: dict[int, int] = {}
        wanted = ceil_div(root.blocks, PER_BITMAP)
        if len(entries) != wanted:
            self._broken(Finding(f"thin.{what}.map", f"expected {wanted} bitmaps, found {len(entries)}"))
        for each in entries:
            if self._refer(each.block, f"bitmap of {what}") and self._seen.setdefault(each.block, _BITMAP) is _BITMAP:
                if self._used.of(each.block) == 1:
                    continue
                self._broken(Finding(f"thin.{what}.map", "a bitmap is there twice", each.block * BLOCK))

        def many(node: Node, _block: int) -> None:
            counts.update(zip(node.keys, struct.unpack(f"<{len(node.keys)}I", node.values), strict=True))

        self._visit(root.count_root, f"counts of {what}", 4, 0, _ANY_KEY, 1, many)
        room = root.blocks if self._whole else 0
        return _Map(root, entries, counts, room)

    def _compare(self, what: str, of: _Map, counted: _Counts, blocks: int) -> None:
        """Compare what was counted with what a space map says."""
        used, whole = 0, True
        for number, entry in enumerate(of.entries):
            start, end = number * PER_BITMAP, min(blocks, (number + 1) * PER_BITMAP)
            try:
                told = parse_bitmap(self._device.read(entry.block * BLOCK, BLOCK), entry.block)[: end - start]
            except FormatError as error:
                self._add(_of(error, f"thin.{what}.map"))
                whole = False
                continue
            free = told.count(0)
            used += end - start - free
            beyond = PER_BITMAP - (end - start)  # a kernel counts these as free, thin_restore does not
            if what == "data" and entry.free not in (free, free + beyond):
                text = f"expected {free} blocks free in bitmap {number}, found {entry.free}"
                self._tell(f"thin.{what}.map.free", text, entry.block * BLOCK, repairable=True)
            expected = bytes(counted.low[start:end]).translate(_AS_BITS)
            if expected != told:
                for at in _differing(expected, told):
                    block = start + at
                    found = of.counts.get(block, MANY) if told[at] == MANY else told[at]
                    self._count(what, block, counted.of(block), found)
            for at in _all_of(told, MANY):
                block = start + at
                if block not in of.counts:
                    self._tell(f"thin.{what}.count", f"block {block}: expected a count in the tree, found none")
                elif of.counts[block] != counted.of(block) and expected[at] == MANY:
                    self._count(what, block, counted.of(block), of.counts[block])
        # Of the metadata neither says how much of itself it used while it was written.
        if what == "data" and whole and used != of.root.used_blocks:
            text = f"expected {used} blocks used, found {of.root.used_blocks}"
            self._tell(f"thin.{what}.map.used", text, repairable=True)

    def _count(self, what: str, block: int, expected: int, found: int) -> None:
        rule = "leaked" if found > expected else "count"
        text = f"block {block}: expected a count of {expected}, found {found}"
        self._tell(f"thin.{what}.{rule}", text, repairable=True)

    # -- findings --------------------------------------------------------------------------------------------

    def _broken(self, finding: Finding) -> None:
        self._whole = False
        self._add(finding)

    def _tell(self, rule: str, message: str, offset: int | None = None, *, repairable: bool = False) -> None:
        self._add(Finding(rule, message, offset, repairable))

    def _add(self, finding: Finding) -> None:
        self.found.append(finding)
        if len(self.found) >= MAX_FINDINGS:
            raise _EnoughError


_BITMAP: Final = _Subtree("bitmap", 0, 0, 0, -1)


@dataclass(frozen=True, slots=True)
class _Map:
    """A space map: its root, where its bitmaps are, counts of ``MANY`` and more, and the blocks to count."""

    root: SpaceMapRoot
    entries: list[IndexEntry]
    counts: Mapping[int, int]
    room: int


def _differing(left: bytes, right: bytes) -> Iterator[int]:
    return (at for at, (one, other) in enumerate(zip(left, right, strict=True)) if one != other)


def _all_of(data: bytes, value: int) -> Iterator[int]:
    at = data.find(value)
    while at >= 0:
        yield at
        at = data.find(value, at + 1)
