"""Remembers what was changed on the device it wraps since each of its checkpoints: what a backup must copy.

A range is marked before the write, the zeros, the discard or the growth begins, so whatever fails on the way, no
change goes unmarked. A checkpoint that is made while calls are under way has their ranges marked when they end.

Knows: which calls change what, and the life of checkpoints. Refuses to know: maps, and how they lie in a file.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from blockwright.device.base import BlockDevice, FileRun, ResizableDevice
from blockwright.device.checkpoint import BLOCK, Checkpoint
from blockwright.device.descriptor import Path
from blockwright.device.dirtyfile import WITNESS, load, save
from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.vector import total
from blockwright.errors import NotFound, UsageError

MAX_CHECKPOINTS: Final = 16
"""Checkpoints of one device at once: each costs every write a look."""


class DirtyDevice(ForwardingDevice):
    """Is the inner device, and remembers what changes through it. Made by ``track``.

    ``inner`` must not be written past this, except while it is closed: see ``keep``.
    """

    def __init__(self, inner: BlockDevice, *, owns: bool = True) -> None:
        super().__init__(inner, owns=owns)
        self._unchecked = inner.unchecked()
        self._changing = threading.Lock()
        self._checkpoints: tuple[Checkpoint, ...] = ()
        self._files: dict[str, Path] = {}

    @property
    def inner(self) -> BlockDevice:
        """The device that changes."""
        return self._inner

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The checkpoints, oldest first."""
        return self._checkpoints

    def checkpoint(self, name: str, *, block: int = BLOCK) -> Checkpoint:
        """Return a new checkpoint, since which nothing has changed yet, in blocks of ``block`` bytes.

        Raises UsageError for a name that is taken, for one too many, and as ``Checkpoint`` does.
        """
        with self._changing:
            return self._add(Checkpoint(name, self._size, block=block))

    def keep(self, name: str, path: Path, *, block: int = BLOCK) -> Checkpoint:
        """Return a checkpoint that is kept in a file across ``close``: the one in the file, or a new one.

        All is told as changed where the device was not closed before its process ended, or where it has another
        size, or is a file that somebody else wrote since. Raises UsageError as ``checkpoint`` does, FormatError for
        a file that is none of ours, OSError where it cannot be written.
        """
        with self._changing:
            found = load(path, name, self._size, _witness(self._inner))
            added = self._add(found or Checkpoint(name, self._size, block=block))
            try:
                # Until this device is closed, the file says that anything may have changed.
                save(path, added, self._size, _witness(self._inner), clean=not self._traits.writable)
            except BaseException:
                self._checkpoints = tuple(each for each in self._checkpoints if each is not added)
                raise
            self._files[name] = path
            return added

    def forget(self, name: str) -> None:
        """Remember no longer what changed since the checkpoint, and remove its file. Raises NotFound."""
        with self._changing:
            left = tuple(each for each in self._checkpoints if each.name != name)
            if len(left) == len(self._checkpoints):
                raise NotFound(f"checkpoint {name!r}: there is none")
            self._checkpoints = left
            path = self._files.pop(name, None)
            if path is not None:
                with suppress(FileNotFoundError):
                    os.unlink(path)

    def _add(self, checkpoint: Checkpoint) -> Checkpoint:
        if any(each.name == checkpoint.name for each in self._checkpoints):
            raise UsageError(f"checkpoint {checkpoint.name!r}: is there already")
        if len(self._checkpoints) == MAX_CHECKPOINTS:
            raise UsageError(
                f"checkpoint {checkpoint.name!r}: expected at most {MAX_CHECKPOINTS} of them, found more"
            )
        self._checkpoints += (checkpoint,)
        return checkpoint

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        return self._unchecked.read_ready(offset, buffers)

    # -- what changes the device -------------------------------------------------------------------------------
    # Each marks, does it, and marks for checkpoints that were made meanwhile: the change may have come after them.

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        length = len(buffers[0]) if len(buffers) == 1 else total(buffers)
        known = self._checkpoints
        for each in known:
            each.mark(offset, length)
        try:
            self._unchecked.write(offset, buffers, durable=durable)  # checked for this device, which has its size
        finally:
            if self._checkpoints is not known:
                self._mark(offset, length)

    def _current_size(self) -> int:
        return self._size  # what others add past this cannot be told as changed

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        with self._marked(offset, length):
            self._inner.zero(offset, length, may_unmap=may_unmap, fast_only=fast_only, durable=durable)

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        with self._marked(offset, length):
            self._inner.discard(offset, length, durable=durable)

    @contextmanager
    def _marked(self, offset: int, length: int) -> Iterator[None]:
        known = self._mark(offset, length)
        try:
            yield
        finally:
            if self._checkpoints is not known:
                self._mark(offset, length)

    def _mark(self, offset: int, length: int) -> tuple[Checkpoint, ...]:
        known = self._checkpoints
        for each in known:
            each.mark(offset, length)
        return known

    # -- the rest ----------------------------------------------------------------------------------------------

    @contextmanager
    def _backing(self, offset: int, length: int) -> Iterator[Sequence[FileRun] | None]:
        """Answer for reading only: what the kernel writes is not seen here."""
        with self._inner.backing(offset, length) as runs:
            yield None if runs is None else [run._replace(writable=False) for run in runs]

    def _close(self) -> None:
        try:
            for each in self._checkpoints:
                path = self._files.get(each.name)
                if path is not None and self._traits.writable:
                    save(path, each, self._size, _witness(self._inner), clean=True)
        finally:
            super()._close()


class ResizableDirtyDevice(DirtyDevice, ResizableDevice):
    """One that can grow and shrink: what growth adds has changed."""

    def _resize(self, size: int) -> None:
        assert isinstance(self._inner, ResizableDevice), "made by track"
        with self._changing:
            for each in self._checkpoints:
                each.make_room(size)
                each.mark(self._size, max(0, size - self._size))
            self._inner.resize(size)


def track(inner: BlockDevice, *, owns: bool = True) -> DirtyDevice:
    """Return the device with its changes tracked: resizable if it is."""
    return (ResizableDirtyDevice if isinstance(inner, ResizableDevice) else DirtyDevice)(inner, owns=owns)


def _witness(device: BlockDevice) -> bytes:
    """Return what differs when somebody else has written the file that the device is; zeros where nothing tells."""
    while isinstance(device, ForwardingDevice):
        device = device._inner  # noqa: SLF001 - of the class that this one derives from
    if not isinstance(device, FileDevice):
        return bytes(WITNESS)
    try:
        status = os.stat(device.name)
    except OSError:  # it was moved away
        return bytes(WITNESS)
    return struct.pack("<QQQ", status.st_ino, status.st_size, status.st_mtime_ns & (1 << 64) - 1).ljust(
        WITNESS, b"\0"
    )
