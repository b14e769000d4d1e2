"""The one abstraction: a fixed-size, addressable run of bytes.

``BlockDevice`` is a sandwich. Its public methods are final: they check range, state and capability and then call
one primitive. Implementers override primitives (``_read_into`` and the like), and only ``_read_into`` is required.

Knows: the contract. Refuses to know: where bytes live.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, Self, final

from blockwright.codec.record import Buffer
from blockwright.device.extent import DATA, Extent, clip, merge
from blockwright.errors import Closed, Misaligned, NotSupported, OutOfRange, ReadOnly
from blockwright.units import KiB, MiB

_ZEROS = memoryview(bytes(MiB))
EXTENTS_SLICE = 256 * MiB
"""Bytes that the first call of ``_extents`` is asked for, so that a lazy walk stays lazy."""
_FEW_EXTENTS = 256
"""A slice that holds fewer is followed by one twice its size, so that a walk over exbibytes of nothing is short."""
_MANY_EXTENTS = 16384
"""A slice that holds more is followed by one of half its size."""


class Waits(IntEnum):
    """Whether calls wait for a medium or a peer. A wrapper waits as much as the worst of what it stands on."""

    NEVER = 0
    """Memory: no call waits."""
    SOMETIMES = 1
    """A file that the host caches: ``read_ready`` tells of reads, and writes that need not be durable do not wait."""
    ALWAYS = 2
    PEER = 3
    """Another machine or process does the work: many calls in flight at once pay."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What a device can do. Data, not types, so that wrappers can intersect capabilities.

    ``writable``: takes ``write`` and ``zero``. ``discard``: ``discard`` gives space back. ``fast_zero``: ``zero`` is
    faster than writing zeros. ``fua``: a ``durable`` write costs less than a write and a flush.
    ``parallelism``: calls in flight that help; 1 means that the caller must serialise.
    Blocks are in bytes and powers of two: every offset and length must be a multiple of ``minimum_block``;
    ``preferred_block`` avoids read-modify-write; up to ``maximum_block`` one read or write helps, and a longer one
    is cut where the bytes live. ``waits``: whether a thread that has other things to do may call at all.
    ``known_extents``: ``extents`` costs no system call.
    """

    writable: bool = False
    discard: bool = False
    fast_zero: bool = False
    fua: bool = False
    parallelism: int = 1
    minimum_block: int = 1
    preferred_block: int = 4 * KiB
    maximum_block: int = 1 << 62
    waits: Waits = Waits.ALWAYS
    known_extents: bool = False


class FileRun(NamedTuple):
    """``length`` bytes of a device lie in the open file ``fd`` from ``offset`` on.

    ``writable`` says that what is written there is written to the device, as ``write`` would.
    """

    fd: int
    offset: int
    length: int
    writable: bool = False


class Unchecked(NamedTuple):
    """Two primitives of a device, for a caller that has done what its public methods do first."""

    read_ready: Callable[[int, Sequence[memoryview]], bool]
    write: WritePrimitive


class WritePrimitive(Protocol):
    """``BlockDevice._write``."""

    def __call__(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        """Write the buffers at ``offset``."""


_FINAL: set[str] = set()
"""The public names that no subclass may override."""

Backing = AbstractContextManager[Sequence[FileRun] | None]


class BlockDevice(ABC):
    """A fixed-size run of bytes. Thread-safe as far as ``traits.parallelism`` says.

    Offsets and lengths are in bytes. No cursor and no short transfers: a call does all or raises.
    Public methods are final; ``__init_subclass__`` refuses a subclass that overrides one.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name in _FINAL:
                raise TypeError(f"{cls.__name__}.{name}: is final; override _{name} instead")

    def __init__(self, size: int, traits: Traits) -> None:
        """Set the size in bytes and the capabilities; subclasses call this before any other use."""
        self._size = size
        self._traits = traits
        self._closed = False
        self._calls: deque[None] = deque()
        self._idle = threading.Event()
        self._close_lock = threading.Lock()
        self._resize_lock = threading.Lock()

    # -- public and final ------------------------------------------------------------------------------------

    @property
    @final
    def size(self) -> int:
        """The size in bytes."""
        return self._size

    @property
    @final
    def traits(self) -> Traits:
        """The capabilities, which do not change while the device is open."""
        return self._traits

    @property
    @final
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    @final
    def read_into(self, offset: int, *buffers: Buffer) -> None:
        """Fill every buffer, one behind the other, with the bytes from ``offset`` on, or raise.

        Raises OutOfRange, Misaligned, Closed; FormatError or OSError from where the bytes live. After a failure
        the buffers hold anything.
        """
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        self._check(offset, sum(map(len, views)))
        self._enter()
        try:
            self._read_into(offset, views)
        finally:
            self._leave()

    @final
    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` on; ``read_into`` is faster for large ranges."""
        self._check(offset, length)
        buffer = bytearray(length)
        self._enter()
        try:
            self._read_into(offset, [memoryview(buffer)])
        finally:
            self._leave()
        return bytes(buffer)

    @final
    def read_ready(self, offset: int, *buffers: Buffer) -> bool:
        """Fill every buffer as ``read_into`` does if that can be done without waiting, and say whether it was.

        After False the buffers hold anything. Raises as ``read_into`` does.
        """
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        self._check(offset, sum(map(len, views)))
        self._enter()
        try:
            return self._read_ready(offset, views)
        finally:
            self._leave()

    @final
    def unchecked(self) -> Unchecked:
        """Return ``read_ready`` and ``write`` without their checks, for loops in which these are the larger cost.

        Their caller passes byte views and a range that fits, writes only to a writable device, and lets nobody close
        it meanwhile.
        """
        return Unchecked(self._read_ready, self._write)

    @final
    def write(self, offset: int, *buffers: Buffer, durable: bool = False) -> None:
        """Put the buffers, one behind the other, at ``offset``, or raise.

        With ``durable`` the bytes survive a power cut when the call returns. After a failure the range is
        unspecified and every byte outside it is untouched. Raises ReadOnly, OutOfRange, Misaligned, Closed.
        """
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        self._check_write(offset, sum(map(len, views)))
        self._enter()
        try:
            self._write(offset, views, durable=durable)
        finally:
            self._leave()

    @final
    def zero(
        self,
        offset: int,
        length: int,
        *,
        may_unmap: bool = True,
        fast_only: bool = False,
        durable: bool = False,
    ) -> None:
        """Make the range read back as zeros.

        ``may_unmap`` allows a hole. ``fast_only`` raises NotSupported at once, with nothing changed, where this
        would not be faster than writing. Raises as ``write`` does.
        """
        self._check_write(offset, length)
        if fast_only and not self._traits.fast_zero:
            raise NotSupported("zero: no faster way than writing zeros")
        self._enter()
        try:
            self._zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)
        finally:
            self._leave()

    @final
    def discard(self, offset: int, length: int, *, durable: bool = False) -> None:
        """Say that the range is not needed; its content is unspecified afterwards. May do nothing."""
        self._check_write(offset, length)
        self._enter()
        try:
            self._discard(offset, length, durable=durable)
        finally:
            self._leave()

    @final
    def flush(self) -> None:
        """Make durable all that was written before the call."""
        self._enter()
        try:
            self._flush()
        finally:
            self._leave()

    @final
    def begin_flush(self) -> None:
        """Have what was written before the call be on its way to the medium, so that a later ``flush`` waits less.

        May do nothing, and may wait as ``flush`` does.
        """
        self._enter()
        try:
            self._begin_flush()
        finally:
            self._leave()

    @final
    def extents(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """Yield the extents of the range: lazy, ascending, contiguous, with equal neighbours merged.

        They cover [offset, offset + length) exactly. DATA is always a legal answer; ZERO is never wrong.
        A range written to during the walk may be told as it was before or after.
        """
        length = self._size - offset if length is None else length
        self._check(offset, length)
        return merge(self._walk_extents(offset, offset + length))

    @final
    def prefetch(self, offset: int, length: int) -> None:
        """Hint that the range will be read soon; returns without waiting for it."""
        self._check(offset, length)
        self._enter()
        try:
            self._prefetch(offset, length)
        finally:
            self._leave()

    @final
    def cancel(self) -> None:
        """Make the calls in flight that wait for somebody else fail soon; from any thread, and it may do nothing.

        Later calls are not affected. What stands on the device, or beside it on the same one, is cancelled too.
        """
        self._cancel()

    @final
    def backing(self, offset: int, length: int) -> Backing:
        """Return a context manager over the file runs that hold the range, in order, or over None.

        The runs may end before the range does: then they hold the leading part of it, and the caller asks again
        behind them. Inside the context they stay valid, ``close`` waits, and reading them gives what ``read_into``
        gives: the kernel may move the bytes. A device that observes, computes, delays or holds newer data
        answers None.
        """
        self._check(offset, length)
        return self._held_backing(offset, length)

    @final
    def refresh(self) -> int:
        """Take note of what others have added at the end where the bytes live, and return the size in bytes.

        A device never becomes smaller by this: who was told of its size may count on it.
        """
        self._enter()
        try:
            with self._resize_lock:  # what was asked before another size was set must not be told behind it
                self._size = max(self._size, self._current_size())
        finally:
            self._leave()
        return self._size

    @final
    def close(self) -> None:
        """Wait for the calls in flight and free what the device holds. Idempotent; does not flush."""
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
            while self._calls:
                self._idle.wait(1.0)
                self._idle.clear()
            self._close()

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- primitives ------------------------------------------------------------------------------------------
    # Ranges are checked, not empty unless a caller asked for nothing, and the device is open.

    @abstractmethod
    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill the buffers, which are writable byte views."""

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        """Read where no call ever waits, and say that it would wait otherwise."""
        if self._traits.waits is not Waits.NEVER:
            return False
        self._read_into(offset, buffers)
        return True

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        """Write the buffers, which are borrowed for the call. Required where ``traits.writable``."""
        raise ReadOnly("write: the device takes no writes")

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        """Write zeros, 1 MiB at a time: the slow answer that is always right."""
        while length > 0:
            part = min(length, len(_ZEROS))
            self._write(offset, [_ZEROS[:part]], durable=durable)
            offset += part
            length -= part

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        """Do nothing, which is allowed."""

    def _flush(self) -> None:
        """Do nothing: for devices that keep nothing back."""

    def _begin_flush(self) -> None:
        """Flush."""
        self._flush()

    def _extents(self, offset: int, length: int) -> Iterable[Extent]:
        """Say DATA. Overriders may answer beyond the range; what lies outside is cut off."""
        return (Extent(offset, length, DATA),)

    def _prefetch(self, offset: int, length: int) -> None:
        """Do nothing."""

    def _cancel(self) -> None:
        """Do nothing: for devices that wait for nobody."""

    def _current_size(self) -> int:
        """Answer with the size that is known: for devices that nobody else can resize."""
        return self._size

    def _backing(self, offset: int, length: int) -> Backing:
        """Answer that no file holds the bytes. The device is not closed inside the context."""
        return nullcontext(None)

    def _close(self) -> None:
        """Free nothing."""

    # -- checks ----------------------------------------------------------------------------------------------

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._size:
            raise OutOfRange(f"range: expected to lie in {self._size} bytes, found {length} bytes at {offset}")
        traits = self._traits
        if (offset | length) & (traits.minimum_block - 1):
            raise Misaligned(
                f"range: expected multiples of {traits.minimum_block} bytes, found {length} bytes at {offset}"
            )

    def _check_write(self, offset: int, length: int) -> None:
        if not self._traits.writable:
            raise ReadOnly("write: the device is read-only")
        self._check(offset, length)

    # A deque's append and pop are atomic, and cheaper than a lock. A call announces itself before it looks at
    # ``_closed``, and ``close`` sets that before it looks for calls, so one of the two always sees the other.

    def _enter(self) -> None:
        self._calls.append(None)
        if self._closed:
            self._leave()
            raise Closed("device: is closed")

    def _leave(self) -> None:
        self._calls.pop()
        if self._closed:
            self._idle.set()

    @contextmanager
    def _held_backing(self, offset: int, length: int) -> Iterator[Sequence[FileRun] | None]:
        self._enter()
        try:
            with self._backing(offset, length) if length else nullcontext(None) as runs:
                yield runs
        finally:
            self._leave()

    def _walk_extents(self, offset: int, end: int) -> Iterator[Extent]:
        asked = EXTENTS_SLICE
        while offset < end:
            part_end = min(end, offset + asked)
            self._enter()
            try:
                found = list(clip(self._extents(offset, part_end - offset), offset, part_end))
            finally:
                self._leave()
            yield from found
            offset = part_end
            if len(found) < _FEW_EXTENTS:
                asked *= 2
            elif len(found) > _MANY_EXTENTS:
                asked = max(EXTENTS_SLICE, asked // 2)


def _final_names(cls: type) -> set[str]:
    members = {name: getattr(value, "fget", value) for name, value in vars(cls).items()}
    return {name for name, value in members.items() if getattr(value, "__final__", False)}


_FINAL.update(_final_names(BlockDevice))


class ResizableDevice(BlockDevice):
    """A device that can grow and shrink. Only what really can is one; format writers ask for it by type."""

    @final
    def resize(self, size: int) -> None:
        """Set the size in bytes; what is added reads as zeros. Raises ReadOnly, OutOfRange, Closed."""
        if not self._traits.writable:
            raise ReadOnly("resize: the device is read-only")
        if size < 0:
            raise OutOfRange(f"resize: expected a size of at least 0 bytes, found {size}")
        self._enter()
        try:
            with self._resize_lock:  # of two at once the later one's size must be the one that is told
                self._resize(size)
                self._size = size
        finally:
            self._leave()

    @abstractmethod
    def _resize(self, size: int) -> None:
        """Set the size where the bytes live."""


_FINAL.update(_final_names(ResizableDevice))


class Context(Protocol):
    """What is told of a device's ranges beside its extents."""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Yield extents that cover the range, as ``BlockDevice.extents`` does; flags are the context's own."""


class TellingDevice(BlockDevice):
    """A device that keeps such things with its bytes."""

    @property
    @abstractmethod
    def contexts(self) -> Mapping[str, Context]:
        """What is told, by the names that clients ask for. Raises FormatError, OSError."""


class PlacingDevice(BlockDevice):
    """A device over a file to which bytes can be copied before it says that they are its own. Few are.

    ``places`` says whether ``placing`` ever answers with anything.
    """

    @property
    @abstractmethod
    def places(self) -> bool:
        """Whether asking is worth it."""

    @final
    @contextmanager
    def placing(self, offset: int, length: int) -> Iterator[Sequence[FileRun] | None]:
        """Give file runs to be filled by the caller, for the leading part of the range, or None.

        When the context ends, the device reads as what was put there; after an exception nothing has changed. Within
        it the caller writes nothing to the device.
        """
        self._check_write(offset, length)
        self._enter()
        try:
            with self._placing(offset, length) if length else nullcontext(None) as runs:
                yield runs
        finally:
            self._leave()

    @abstractmethod
    def _placing(self, offset: int, length: int) -> Backing:
        """Give the runs, all of them writable."""


_FINAL.update(_final_names(PlacingDevice))
