"""Verifies data and its hash tree against a root hash, and tells damaged data from a damaged tree.

The tree is computed anew from the data. Where its root is the given one, the data is whole, and what differs in the
stored tree is damage there. Otherwise the stored tree is walked from the root hash down, as the kernel does: a hash
block is believed where the block above has its digest, and a data block where a believed hash block has.

Knows: what proves what. Refuses to know: superblocks, and where devices come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.device.window import Window
from blockwright.errors import Corrupt, IntegrityError
from blockwright.finding import Finding
from blockwright.verity.format import HashArea, read_bytes
from blockwright.verity.layout import Parameters
from blockwright.verity.plan import TreePlan, plan_tree
from blockwright.verity.tree import Hasher, Progress, hashed_blocks, write_tree

MAX_FINDINGS: Final = 100
"""Findings that are told of; it is counted on no further."""

DATA: Final = "verity.data"
TREE: Final = "verity.tree"
ROOT: Final = "verity.root"
UNPROVEN: Final = "verity.unproven"


class Report(NamedTuple):
    """What was found, in the order of bytes; ``root`` is the root hash that the data has.

    A finding of the rule ``verity.data`` has its offset in the data, one of ``verity.tree`` in the hash device.
    ``verity.unproven`` is data below a damaged block of the tree, which may be whole or not. ``cut`` says that there
    is more than was looked for.
    """

    findings: tuple[Finding, ...]
    root: bytes
    cut: bool

    @property
    def clean(self) -> bool:
        """Whether the data is whole and its tree proves it."""
        return not self.findings


def check(
    data: BlockDevice,
    hashes: BlockDevice,
    parameters: Parameters,
    root: bytes,
    *,
    start: int,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Return what is wrong with the data and with the tree that begins at byte ``start`` of ``hashes``.

    Reads both once, and twice where the data is damaged. Raises Corrupt where either device is too small for what
    ``parameters`` say, and what the devices raise.
    """
    plan = plan_tree(parameters)
    for name, device, end in (("data", data, parameters.data_size), ("hash", hashes, start + plan.size)):
        if device.size < end:
            raise Corrupt(f"verity: {name} device: expected at least {end} bytes, found {device.size}")
    with Window(hashes, start, plan.size, owns=False) as tree:
        differing = _Differing(tree, parameters)
        computed = write_tree(data, parameters, differing.compare, threads=threads, progress=progress)
        if computed == root:
            found: Iterator[Finding] = iter([_damaged(plan, parameters, start, block) for block in differing.blocks])
        elif not differing.blocks:
            text = f"expected {root.hex()}, found {computed.hex()}: data and tree agree on another root hash"
            found = iter([Finding(ROOT, text)])
        else:
            found = _Walk(data, tree, parameters, plan, start).findings(root, threads)
        first = tuple(islice(found, MAX_FINDINGS + 1))
    return Report(first[:MAX_FINDINGS], computed, cut=len(first) > MAX_FINDINGS)


def proves_root(hashes: BlockDevice, area: HashArea, root: bytes) -> None:
    """Return where the tree's highest block has the root hash, so that the tree may prove something.

    Raises IntegrityError otherwise, Corrupt where the device ends before the tree. Data of one block has no tree.
    """
    plan, parameters = plan_tree(area.parameters), area.parameters
    if hashes.size < area.tree_start + plan.size:
        raise Corrupt(
            f"verity: hash device: expected at least {area.tree_start + plan.size} bytes, found {hashes.size}"
        )
    if plan.levels:
        content = read_bytes(hashes, area.tree_start + plan.levels[-1].start, parameters.hash_block)
        found = Hasher(parameters).digest(content)
        if found != root:
            raise IntegrityError(
                f"verity: the tree is not the one of the root hash: expected {root.hex()}, found {found.hex()}"
            )


def _damaged(plan: TreePlan, parameters: Parameters, start: int, position: int) -> Finding:
    """Return the finding for a block of the tree whose data is whole."""
    number, level = next(
        (number, level)
        for number, level in enumerate(plan.levels)
        if level.start <= position < level.start + level.blocks * parameters.hash_block
    )
    block = (position - level.start) // parameters.hash_block
    text = f"block {block} of level {number} is not what the data gives; the data is whole"
    return Finding(TREE, text, start + position, repairable=True)


class _Differing:
    """Notes which stored hash blocks differ from computed ones."""

    def __init__(self, tree: BlockDevice, parameters: Parameters) -> None:
        self._tree = tree
        self._block = parameters.hash_block
        self._found: list[int] = []

    @property
    def blocks(self) -> list[int]:
        """The offsets of the first blocks that differ, ascending."""
        return sorted(self._found)

    def compare(self, offset: int, blocks: memoryview) -> None:
        """Look at the stored blocks where computed ones belong."""
        stored = self._tree.read(offset, len(blocks))
        if stored == blocks:
            return
        for start in range(0, len(stored), self._block):
            if len(self._found) > MAX_FINDINGS:
                return
            if stored[start : start + self._block] != blocks[start : start + self._block]:
                self._found.append(offset + start)


class _Walk:
    """Goes through the data with the hash blocks above it at hand: one for each level, believed or not."""

    def __init__(
        self, data: BlockDevice, tree: BlockDevice, parameters: Parameters, plan: TreePlan, start: int
    ) -> None:
        self._data = data
        self._tree = tree
        self._parameters = parameters
        self._plan = plan
        self._start = start
        self._hasher = Hasher(parameters)
        self._numbers = [-1] * len(plan.levels)
        self._blocks: list[bytes | None] = [None] * len(plan.levels)

    def findings(self, root: bytes, threads: int | None) -> Iterator[Finding]:
        """Yield what is not proven, in the order of the data."""
        size, slots = self._parameters.slot_size, self._parameters.slots
        for each in hashed_blocks(self._data, self._parameters, self._hasher, threads=threads):
            number, end = each.first, each.first + each.blocks
            while number < end:
                # As far as one block of level 0 reaches.
                stop = min(end, (number // slots + 1) * slots) if self._plan.levels else end
                yield from self._above(number // slots, root)
                expected = self._expected(number, stop, root)
                if expected is not None:
                    within = (number - each.first) * size
                    found = (
                        self._hasher.zero_slot * (stop - number)
                        if each.slots is None
                        else each.slots[within : within + (stop - number) * size]
                    )
                    yield from self._differing(number, expected, found)
                number = stop

    def _expected(self, number: int, stop: int, root: bytes) -> bytes | None:
        """Return the slots that the data blocks should have, None where nothing tells."""
        size = self._parameters.slot_size
        if not self._plan.levels:
            return root.ljust(size, b"\0")
        block = self._blocks[0]
        at = number % self._parameters.slots * size
        return None if block is None else block[at : at + (stop - number) * size]

    def _differing(self, number: int, expected: bytes, found: bytes) -> Iterator[Finding]:
        size, digest, block = self._parameters.slot_size, self._parameters.digest_size, self._parameters.data_block
        if expected == found:
            return
        for at in range(0, len(found), size):
            wanted, actual = expected[at : at + digest], found[at : at + digest]
            if wanted != actual:
                index = number + at // size
                text = f"data block {index}: expected the digest {wanted.hex()}, found {actual.hex()}"
                yield Finding(DATA, text, index * block)

    def _above(self, leaf: int, root: bytes) -> Iterator[Finding]:
        """Have the hash blocks above block ``leaf`` of level 0 at hand, from the highest level down."""
        slots, size = self._parameters.slots, self._parameters.slot_size
        path = [leaf]
        for _ in self._plan.levels[1:]:
            path.append(path[-1] // slots)
        for number in reversed(range(len(self._plan.levels))):
            if self._numbers[number] == path[number]:
                continue
            self._numbers[number] = path[number]
            self._blocks[number] = None
            if number + 1 == len(self._plan.levels):
                wanted: bytes | None = root
            else:
                above, at = self._blocks[number + 1], path[number] % slots * size
                wanted = None if above is None else above[at : at + self._parameters.digest_size]
            if wanted is not None:
                yield from self._believe(number, path[number], wanted)

    def _believe(self, number: int, block: int, wanted: bytes) -> Iterator[Finding]:
        """Take a hash block where it has the digest that the one above it says."""
        parameters = self._parameters
        position = self._plan.levels[number].start + block * parameters.hash_block
        content = self._tree.read(position, parameters.hash_block)
        found = self._hasher.digest(content)
        if found == wanted:
            self._blocks[number] = content
            return
        text = f"block {block} of level {number}: expected the digest {wanted.hex()}, found {found.hex()}"
        yield Finding(TREE, text, self._start + position)
        width = parameters.slots ** (number + 1)
        first, stop = block * width, min((block + 1) * width, parameters.data_blocks)
        text = f"data blocks {first} to {stop - 1} are below it, and may be whole or not"
        yield Finding(UNPROVEN, text, first * parameters.data_block)
