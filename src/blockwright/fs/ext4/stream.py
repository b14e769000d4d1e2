"""Bodies that stream past once get their final blocks in the output as they arrive.

``StreamPlacer.place`` writes a body and answers with the content that stands for it; ``finish`` plans everything
else when the tree is known. Small bodies are gathered and written together.

Knows: the output device, and the order of arrival. Refuses to know: where bodies come from, and how the metadata
that is planned in the end is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import NoSpace, UsageError
from blockwright.fs.ext4.layout import Incompat
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import Draft, Ext4Plan
from blockwright.fs.ext4.plan_allocate import Allocator, Pieces
from blockwright.fs.ext4.plan_floating import body_zones, most_groups, size_behind_bodies
from blockwright.fs.ext4.plan_geometry import Placement, last_flex_fits, place_at_flex_heads
from blockwright.fs.ext4.plan_measure import block_runs
from blockwright.fs.ext4.plan_sizing import Demand, Sized, given_geometries, journal_of, mapped
from blockwright.tree.content import Content, Fill, PlacedContent, PlacedRun, Runs
from blockwright.tree.node import Directory
from blockwright.units import MiB

BATCH: Final = 4 * MiB
"""Bytes gathered before they are written."""


class StreamPlacer:
    """Places bodies in ``device``, which reads as zeros where the file system is going to lie, from its byte 0 on.

    ``options`` say how large the file system becomes; with a given size a body that does not fit raises NoSpace at
    once; without flex_bg there has to be one, or UsageError is raised. Not for use from several threads.
    """

    def __init__(self, device: BlockDevice, options: Ext4Options) -> None:
        self._options = options
        self._block_size = options.block_size
        self._output = _Gathered(device)
        self._given: tuple[Sized, Placement] | None = None
        size = options.block_size
        if options.size is None and not options.features.incompat & Incompat.flex_bg:
            raise UsageError(
                "ext4: without flex_bg, metadata has fixed places among a stream's bodies: expected a given size, or "
                "a directory or plain archive"
            )
        if options.size is None:
            end = min(most_groups(size) * 8 * size, device.size // size)
            self._allocator = Allocator(body_zones(size), 0, end)
            self._room = self._allocator.remaining()
        else:
            geometry = next(given_geometries(Demand(0, 0), options, options.size // size))
            if not last_flex_fits(geometry):
                raise NoSpace(f"ext4: expected room for a file system, found {options.size} bytes")
            sized = Sized(geometry, journal_of(geometry.blocks, options))
            placement = place_at_flex_heads(geometry)
            self._given = sized, placement
            self._allocator = Allocator(placement.zones, geometry.first_block, geometry.blocks)
            self._room = self._allocator.remaining() - mapped(sized.journal_blocks, options)

    def place(self, size: int, runs: Runs, fill: Fill, /) -> Content:
        """Write a body to its final blocks; return the content that stands for it.

        ``runs`` are its data in bytes, and ``fill`` gives that data, run behind run. Raises NoSpace when it does not
        fit; what ``fill`` and the device raise.
        """
        block_size = self._block_size
        if len(runs) == 1 and runs[0] == (0, size):
            pieces = self._take(-(-size // block_size))
            if len(pieces) == 1:
                position = pieces[0][0] * block_size
                self._output.put(position, size, fill)
                return PlacedContent(size, (PlacedRun(0, size, position),))
            placed = _along(pieces, 0, size, block_size)
        else:
            placed = []
            for first, count in block_runs(PlacedContent(size, [PlacedRun(*run, 0) for run in runs]), block_size):
                placed += _along(self._take(count), first, size, block_size)
        self._write(runs, placed, fill)
        return PlacedContent(size, placed)

    def settle(self) -> None:
        """Have every body that was placed in the output, where it can be read from now on; no other may follow."""
        self._output.finish()

    def finish(self, root: Directory, options: Ext4Options) -> Ext4Plan:
        """Return the plan of the file system that holds ``root``; its segments are everything but the bodies.

        Bodies are written out; those that are not in the tree become free blocks. ``options`` may differ from the
        first ones in identities and times. ``Ext4Plan.segments`` says how to write the superblock last.
        Raises as ``plan`` does.
        """
        ours = self._options
        if (options.block_size, options.size, options.features) != (ours.block_size, ours.size, ours.features):
            raise UsageError("ext4: expected the block size, size and features that the stream began with")
        self.settle()
        draft = Draft.of(root, options)
        demand = draft.demand
        if self._given is None:
            bodies = sum(draft.measured.occupied[1::2])
            found = size_behind_bodies(demand, options, self._allocator.cursor, bodies)
            return draft.finish(found.sized, found.placement, found.allocator)
        sized, placement = self._given
        if demand.inodes > sized.geometry.inodes:
            raise NoSpace(
                f"ext4: the inodes do not fit the size: needs {demand.inodes}, given {sized.geometry.inodes}; "
                "ask for more inodes"
            )
        if demand.blocks > self._room:
            raise self._no_space(demand.blocks)
        return draft.finish(sized, placement, self._allocator)

    def _take(self, count: int) -> Pieces:
        self._room -= count
        if self._room < 0:
            self._room += count
            raise self._no_space(count)
        return self._allocator.take(count)

    def _no_space(self, count: int) -> NoSpace:
        size = self._options.block_size
        return NoSpace(
            f"ext4: the content does not fit the size: needs {count * size} more bytes, has {self._room * size}"
        )

    def _write(self, runs: Runs, placed: Sequence[PlacedRun], fill: Fill) -> None:
        """Bring each run's bytes to where its blocks lie."""
        pieces = iter(placed)
        piece = next(pieces, None)
        for offset, length in runs:
            end = offset + length
            while offset < end:
                while piece is not None and piece.offset + piece.length <= offset:
                    piece = next(pieces, None)
                assert piece is not None, "every byte of data has a block"
                part = min(end, piece.offset + piece.length) - offset
                self._output.put(piece.position + offset - piece.offset, part, fill)
                offset += part  # noqa: PLW2901  # the rest of the run


def _along(pieces: Pieces, first: int, size: int, block_size: int) -> list[PlacedRun]:
    """Return where the blocks from ``first`` on lie, up to the content's ``size``."""
    found = []
    for start, count in pieces:
        offset = first * block_size
        found.append(PlacedRun(offset, min(count * block_size, size - offset), start * block_size))
        first += count
    return found


class _Gathered:
    """Writes that follow one another, within the zeros that fill a block, leave together.

    They leave in a thread of their own, while the next ones are gathered in the other of two buffers. What a write
    raises is raised by the call behind it.
    """

    __slots__ = ("_device", "_end", "_other", "_pending", "_start", "_thread", "_view")

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self._view = memoryview(bytearray(BATCH))
        self._other = memoryview(bytearray(BATCH))
        self._start = 0
        self._end = 0
        self._thread = ThreadPoolExecutor(1, "ext4-stream")
        self._pending: Future[None] | None = None

    def put(self, position: int, length: int, fill: Fill) -> None:
        """Fill ``length`` bytes that belong at ``position``."""
        while length:
            if position != self._end and not self._pad(position):
                self._send()
                self._start = self._end = position
            used = position - self._start
            part = min(length, BATCH - used)
            fill(self._view[used : used + part])
            self._end = position = position + part
            length -= part
            if self._end - self._start == BATCH:
                self._send()

    def _pad(self, position: int) -> bool:
        """Put zeros up to ``position`` if that is less than a block ahead and within the buffer."""
        gap = position - self._end
        if not 0 < gap < 4096 or self._start == self._end or position - self._start >= BATCH:
            return False
        used = self._end - self._start
        self._view[used : used + gap] = bytes(gap)
        self._end = position
        return True

    def _send(self) -> None:
        """Let what was gathered be written, when what was sent before it has been."""
        self._wait()
        if self._end > self._start:
            data = self._view[: self._end - self._start]
            self._pending = self._thread.submit(self._device.write, self._start, data)
            self._view, self._other = self._other, self._view
        self._start = self._end

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def finish(self) -> None:
        """Write everything, and end the thread."""
        self._send()
        self._wait()
        self._thread.shutdown()
