"""Makes a device of what is nearly one: an object with read-at and write-at, or a binary file object.

Knows: the spellings that such objects use. Refuses to know: what is behind them.
"""

from __future__ import annotations

import io
import operator
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final

from blockwright.codec.record import Buffer
from blockwright.device.base import BlockDevice, Traits
from blockwright.errors import SourceChanged, UsageError
from blockwright.units import MAX_SIZE, KiB

READ_INTO: Final = ("readinto_at", "read_into_at", "pread_into")
"""``f(offset, buffer)`` fills the buffer and returns the bytes, or None for all of them."""

READ: Final = ("read_at", "readat")
"""``f(offset, length)`` returns bytes."""

POSITIONED_READ: Final = ("pread",)
"""``f(length, offset)`` returns bytes, in the order of os.pread."""

WRITE: Final = ("write_at", "writeat")
"""``f(offset, data)`` writes and returns the bytes, or None for all of them."""

POSITIONED_WRITE: Final = ("pwrite",)
"""``f(data, offset)`` writes and returns the bytes, or None for all of them, in the order of os.pwrite."""

SIZE: Final = ("size", "get_size", "length", "__len__")
"""The size in bytes, a value or a method."""

SYNC: Final = ("sync", "fsync", "flush")
"""Makes durable what was written. Optional."""

CLOSE: Final = ("close",)
"""Optional."""


class ObjectDevice(BlockDevice):
    """A device over any object that reads at an offset; writable where it writes at one too.

    The first name of each tuple in this module that the object has is used. Where the object is not safe for
    several threads ``parallelism`` is 1, and calls are serialised here. ``size`` overrides what the object says.
    A short transfer is continued; one of no bytes raises SourceChanged. Raises UsageError for what cannot be read,
    or has no size that a device can have.
    """

    def __init__(
        self,
        subject: Any,
        *,
        size: int | None = None,
        writable: bool | None = None,
        parallelism: int = 1,
        minimum_block: int = 1,
        owns: bool = True,
    ) -> None:
        self._fill = _reader(subject)
        self._put = _writer(subject)
        if writable and self._put is None:
            raise UsageError(f"adapter: {type(subject).__name__} has none of {', '.join(WRITE + POSITIONED_WRITE)}")
        self._sync = _method(subject, SYNC)
        self._end = _method(subject, CLOSE) if owns else None
        self._one = threading.Lock() if parallelism == 1 else None
        can_write = self._put is not None if writable is None else writable
        super().__init__(
            _checked(_told_by(subject) if size is None else size),
            Traits(
                writable=can_write,
                parallelism=parallelism,
                minimum_block=minimum_block,
                preferred_block=max(4 * KiB, minimum_block),
            ),
        )

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        for buffer in buffers:
            self._transfer(self._fill, offset, buffer)
            offset += len(buffer)

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        assert self._put is not None, "a device without it is read-only"
        for buffer in buffers:
            self._transfer(self._put, offset, buffer)
            offset += len(buffer)
        if durable:
            self._flush()

    def _transfer(self, move: Callable[[int, memoryview], int], offset: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            if self._one is None:
                count = move(offset + done, buffer[done:])
            else:
                with self._one:
                    count = move(offset + done, buffer[done:])
            if not 0 < count <= len(buffer) - done:
                raise SourceChanged(
                    f"adapter: expected 1 to {len(buffer) - done} bytes, found {count} (byte {offset + done})"
                )
            done += count

    def _flush(self) -> None:
        if self._sync is None or not self._traits.writable:
            return
        if self._one is None:
            self._sync()
        else:
            with self._one:
                self._sync()

    def _close(self) -> None:
        if self._end is not None:
            self._end()


class BinaryFileDevice(BlockDevice):
    """A device over a seekable binary file object, whose one cursor a lock guards. Its size is taken once.

    Writable where the file says so, unless ``writable`` is False. Raises UsageError for a file that cannot seek.
    """

    def __init__(self, file: BinaryIO, *, writable: bool | None = None, owns: bool = True) -> None:
        if not file.seekable():
            raise UsageError("adapter: expected a file that can seek, found one that cannot")
        can_write = file.writable() if writable is None else writable
        super().__init__(file.seek(0, os.SEEK_END), Traits(writable=can_write))
        self._file = file
        self._owns = owns
        self._cursor = threading.Lock()

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        readinto: Callable[[memoryview], int | None] | None = getattr(self._file, "readinto", None)
        with self._cursor:
            self._file.seek(offset)
            for buffer in buffers:
                done = 0
                while done < len(buffer):
                    if readinto is not None:
                        count = readinto(buffer[done:]) or 0
                    else:
                        data = self._file.read(len(buffer) - done)
                        count = len(data)
                        buffer[done : done + count] = data
                    if not count:
                        raise SourceChanged(
                            f"adapter: ends early: expected {self._size} bytes, found an end at {offset + done}"
                        )
                    done += count
                offset += done

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        with self._cursor:
            self._file.seek(offset)
            for buffer in buffers:
                done = 0
                while done < len(buffer):  # an unbuffered file may write less than it is given
                    count = self._file.write(buffer[done:])
                    if not count:
                        raise SourceChanged(
                            f"adapter: expected 1 to {len(buffer) - done} bytes to be written, found {count}"
                            f" (byte {offset + done})"
                        )
                    done += count
                offset += done
        if durable:
            self._flush()

    def _flush(self) -> None:
        """Write out what the file object buffers, and sync where there is a file of the host behind it."""
        if not self._traits.writable:
            return
        with self._cursor:
            self._file.flush()
            try:
                number = self._file.fileno()
            except (OSError, AttributeError, io.UnsupportedOperation):
                return
            os.fsync(number)

    def _close(self) -> None:
        if self._owns:
            self._file.close()


def _method(subject: Any, names: Sequence[str]) -> Callable[..., Any] | None:
    for name in names:
        found = getattr(subject, name, None)
        if callable(found):
            method: Callable[..., Any] = found
            return method
    return None


def _reader(subject: Any) -> Callable[[int, memoryview], int]:
    if (into := _method(subject, READ_INTO)) is not None:

        def fill(offset: int, buffer: memoryview) -> int:
            count = into(offset, buffer)
            return len(buffer) if count is None else int(count)

        return fill
    if (read := _method(subject, READ)) is not None:
        return lambda offset, buffer: _keep(read(offset, len(buffer)), buffer)
    if (pread := _method(subject, POSITIONED_READ)) is not None:
        return lambda offset, buffer: _keep(pread(len(buffer), offset), buffer)
    raise UsageError(f"adapter: {type(subject).__name__} has none of {', '.join(READ_INTO + READ + POSITIONED_READ)}")


def _keep(data: Buffer, buffer: memoryview) -> int:
    count = len(data)
    if count <= len(buffer):
        buffer[:count] = data
    return count


def _writer(subject: Any) -> Callable[[int, memoryview], int] | None:
    if (write := _method(subject, WRITE)) is not None:
        return lambda offset, data: _written(write(offset, data), data)
    if (pwrite := _method(subject, POSITIONED_WRITE)) is not None:
        return lambda offset, data: _written(pwrite(data, offset), data)
    return None


def _written(count: Any, data: memoryview) -> int:
    return len(data) if count is None else int(count)


def _told_by(subject: Any) -> Any:
    for name in SIZE:
        found = getattr(subject, name, None)
        if found is not None:
            return found() if callable(found) else found
    raise UsageError(f"adapter: {type(subject).__name__} has none of {', '.join(SIZE)}")


def _checked(size: Any) -> int:
    """Return the size, which is a number of bytes that a device can have. Raises UsageError."""
    try:
        number = operator.index(size)
    except TypeError:
        number = -1
    if not 0 <= number <= MAX_SIZE:
        raise UsageError(f"adapter: expected a size of 0 to {MAX_SIZE} bytes, found {size!r:.64}")
    return number
