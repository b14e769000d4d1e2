"""What a regular file holds, and how it can be read.

Addressable contents (bytes, a range of a device, a host file) can be read anywhere, at any time, from several
threads; a planner places them and refers to them. A body that streams past once is handed to a ``Place`` as it
arrives, which puts it somewhere and answers with the content that stands for it from then on; when that place is
the output itself, the content is a ``PlacedContent``, and the planner only refers to its blocks.

Knows: sizes, runs of data, reading. Refuses to know: names, owners, file systems.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Final, NamedTuple

from blockwright.device.base import Backing, BlockDevice, FileRun
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

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` on. Raises as ``read_into``."""
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)


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


Verify = Callable[[], None]
"""Raises SourceChanged when a device is not what a tree was made from."""


class DeviceRange(Content):
    """A file whose ``size`` bytes lie in a device that outlives it, one behind the other from byte ``start`` on.

    ``verify``, where given, is called behind each read, and before and behind what the kernel copies.
    """

    __slots__ = ("_device", "_start", "_verify")

    def __init__(self, device: BlockDevice, size: int, start: int, verify: Verify | None = None) -> None:
        self.size = size
        self._device = device
        self._start = start
        self._verify = verify

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Read from the device."""
        self._device.read_into(self._start + offset, buffer)
        if self._verify is not None:
            self._verify()

    def backing(self, offset: int, length: int, /) -> Backing:
        """Answer as the device does."""
        return _verified(self._device.backing(self._start + offset, length), self._verify)


class ScatteredContent(Content):
    """A file with holes whose runs lie here and there in something larger, which implementers read.

    ``starts`` holds, for each run of ``data_runs``, the byte of the whole where it begins.
    """

    __slots__ = ("_data_runs", "_starts")

    def __init__(self, size: int, data_runs: Runs, starts: Sequence[int]) -> None:
        self.size = size
        self._data_runs = data_runs
        self._starts = starts

    @abstractmethod
    def _read_whole(self, at: int, buffer: memoryview, /) -> None:
        """Fill ``buffer`` from byte ``at`` of the whole on."""

    @abstractmethod
    def _back_whole(self, at: int, length: int, /) -> Backing:
        """Answer as the whole does."""

    def runs(self) -> Runs:
        """Return the runs that were given."""
        return self._data_runs

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Read from the whole; holes read as zeros."""
        end = offset + len(buffer)
        position = offset
        runs = self._data_runs
        for index in range(max(0, bisect_right(runs, (offset, self.size)) - 1), len(runs)):
            (start, length), at = runs[index], self._starts[index]
            if start >= end:
                break
            low, high = max(start, position), min(start + length, end)
            if low >= high:
                continue
            if low > position:
                buffer[position - offset : low - offset] = bytes(low - position)
            self._read_whole(at + low - start, buffer[low - offset : high - offset])
            position = high
        if position < end:
            buffer[position - offset :] = bytes(end - position)

    def backing(self, offset: int, length: int, /) -> Backing:
        """Answer as the whole does, for a range within one run."""
        index = bisect_right(self._data_runs, (offset, self.size)) - 1
        if index >= 0:
            start, run_length = self._data_runs[index]
            if offset + length <= start + run_length:
                return self._back_whole(self._starts[index] + offset - start, length)
        return nullcontext(None)


class DeviceContent(ScatteredContent):
    """A file with holes whose data lies in a device that outlives it: a tar archive, or a file of another image.

    ``verify`` is called as by ``DeviceRange``.
    """

    __slots__ = ("_device", "_verify")

    def __init__(
        self,
        device: BlockDevice,
        size: int,
        data_runs: Runs,
        starts: Sequence[int],
        verify: Verify | None = None,
    ) -> None:
        super().__init__(size, data_runs, starts)
        self._device = device
        self._verify = verify

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Read from the device; holes read as zeros."""
        super().read_into(offset, buffer)
        if self._verify is not None:
            self._verify()

    def _read_whole(self, at: int, buffer: memoryview, /) -> None:
        self._device.read_into(at, buffer)

    def _back_whole(self, at: int, length: int, /) -> Backing:
        return _verified(self._device.backing(at, length), self._verify)


def _verified(backing: Backing, verify: Verify | None) -> Backing:
    return backing if verify is None else _Verified(backing, verify)


class _Verified:
    """File runs of a device that is verified before they are used, and when they were."""

    __slots__ = ("_backing", "_verify")

    def __init__(self, backing: Backing, verify: Verify) -> None:
        self._backing = backing
        self._verify = verify

    def __enter__(self) -> Sequence[FileRun] | None:
        self._verify()
        return self._backing.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._verify()
        finally:
            self._backing.__exit__(kind, error, trace)


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
