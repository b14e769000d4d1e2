"""What a regular file holds, and how it can be read.

Addressable contents (bytes, a range of a device, a host file) can be read anywhere, at any time, from several
threads; a planner places them and refers to them. A body that streams past once is handed to a ``Place`` as it
arrives, which puts it somewhere and answers with the content that stands for it from then on; when that place is
the output itself, the content is a ``PlacedContent``, and the planner only refers to its blocks.

Knows: sizes, runs of data, reading. Refuses to know: names, owners, file systems.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Final, NamedTuple

from blockwright.device.base import Backing, BlockDevice
from blockwright.errors import SourceChanged

Runs = Sequence[tuple[int, int]]
"""Ascending (offset, length) runs of data in bytes that do not touch; everything else in the file is a hole."""


class Content(ABC):
    """A regular file's bytes: ``size`` of them, with data in ``runs()`` and holes elsewhere."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def runs(self) -> Runs:
        """Return where data lies. The default is one run of everything."""
        return ((0, self.size),) if self.size else ()

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Fill ``buffer`` from ``offset`` on, which lies within the size. Raises SourceChanged or OSError."""


class BytesContent(Content):
    """Content that is in memory."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        super().__init__(len(data))
        self.data = data

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Copy from memory."""
        buffer[:] = self.data[offset : offset + len(buffer)]


EMPTY: Final = BytesContent(b"")
"""The content of an empty file."""


class DeviceContent(Content):
    """A file whose data lies in a device that outlives it: a tar archive, or a file of another image.

    ``starts`` holds, for each run of ``data_runs``, the byte of the device where it begins. ``verify``, where
    given, is called before each read and raises SourceChanged when the device is not what was planned from.
    """

    __slots__ = ("_data_runs", "_device", "_starts", "_verify")

    def __init__(
        self,
        device: BlockDevice,
        size: int,
        data_runs: Runs,
        starts: Sequence[int],
        verify: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(size)
        self._device = device
        self._data_runs = data_runs
        self._starts = starts
        self._verify = verify

    def runs(self) -> Runs:
        """Return the runs that were given."""
        return self._data_runs

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Read from the device; holes read as zeros."""
        if self._verify is not None:
            self._verify()
        end = offset + len(buffer)
        position = offset
        for (start, length), at in zip(self._data_runs, self._starts, strict=True):
            low, high = max(start, position), min(start + length, end)
            if low >= high:
                continue
            if low > position:
                buffer[position - offset : low - offset] = bytes(low - position)
            self._device.read_into(at + low - start, buffer[low - offset : high - offset])
            position = high
        if position < end:
            buffer[position - offset :] = bytes(end - position)

    def backing(self, offset: int, length: int, /) -> Backing:
        """Answer as the device does, for a range within one run."""
        for (start, run_length), at in zip(self._data_runs, self._starts, strict=True):
            if start <= offset and offset + length <= start + run_length:
                if self._verify is not None:
                    self._verify()
                return self._device.backing(at + offset - start, length)
        return nullcontext(None)


class PlacedRun(NamedTuple):
    """``length`` bytes of a file, from ``offset`` on, already lie at ``position`` of the file system."""

    offset: int
    length: int
    position: int


class PlacedContent(Content):
    """A body that already lies at its final place in the output; positions are relative to the file system."""

    __slots__ = ("placed",)

    def __init__(self, size: int, placed: Sequence[PlacedRun]) -> None:
        super().__init__(size)
        self.placed = placed

    def runs(self) -> Runs:
        """Return the runs that were placed."""
        return tuple((run.offset, run.length) for run in self.placed)

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Refuse: whoever placed the body holds it."""
        raise SourceChanged("placed content: is in the output already and cannot be read from its source again")


Fill = Callable[[memoryview], None]
"""Fills the whole of a buffer with the next bytes of a body that streams past once."""

Place = Callable[[int, Runs, Fill], Content]
"""``place(size, runs, fill)`` consumes a body's data, run behind run, and answers its content."""
