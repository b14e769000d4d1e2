"""What regular files and block devices of the host have in common as devices: an open, claimed descriptor.

Knows: transfers, syncing, who may write. Refuses to know: holes, sizes, how each kind is discarded.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final

from blockwright.device import darwin, fallocate, holders, hostfile, locks
from blockwright.device.base import Backing, BlockDevice, FileRun, Traits, Waits
from blockwright.device.vector import total, zeros
from blockwright.errors import InUse, NotSupported, SourceChanged, UsageError
from blockwright.units import MiB

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""What the host says where a disk, or what one may have of it, is full."""
PARALLELISM: Final = 16
"""Calls in flight on one file that help; more only queue in the host."""


class HostDevice(BlockDevice):
    """A device over an open file, which it owns. ``name`` is what messages call it."""

    def __init__(self, fd: int, name: str, size: int, traits: Traits) -> None:
        super().__init__(size, traits)
        self._fd = fd
        self._name = name

    @property
    def name(self) -> str:
        """The path it was opened by, for messages."""
        return self._name

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        try:
            done = hostfile.read_full(self._fd, offset, buffers)
        except OSError as error:
            raise named_error(error, self._name) from None
        if done != total(buffers):
            raise SourceChanged(
                f"{self._name}: ends early: expected {self._size} bytes, found an end at {offset + done}"
            )

    def _read_ready(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        if self._traits.waits is Waits.NEVER:
            return super()._read_ready(offset, buffers)
        return hostfile.read_cached(self._fd, offset, buffers)

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        try:
            hostfile.write_full(self._fd, offset, buffers, durable=durable)
        except OSError as error:
            raise named_error(error, self._name) from None

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        """Punch a hole, or let the host zero the range, or write zeros: the first that is allowed and works."""
        try:
            if length and not (self._zero_fast(offset, length, may_unmap=may_unmap)):
                if fast_only:
                    raise NotSupported(f"{self._name}: zero: no faster way than writing zeros")
                self._write_zeros(offset, length)
            if durable:
                hostfile.sync_data(self._fd)
        except OSError as error:
            raise named_error(error, self._name) from None

    def _zero_fast(self, offset: int, length: int, *, may_unmap: bool) -> bool:
        if not self._traits.fast_zero:
            return False
        if may_unmap and fallocate.punch_hole(self._fd, offset, length):
            return True
        return fallocate.zero_range(self._fd, offset, length)

    def _write_zeros(self, offset: int, length: int) -> None:
        while length > 0:
            part = min(length, 16 * MiB)
            self._write(offset, zeros(part), durable=False)
            offset += part
            length -= part

    def _flush(self) -> None:
        if self._traits.writable:
            try:
                hostfile.sync_data(self._fd)
            except OSError as error:
                raise named_error(error, self._name) from None

    def _begin_flush(self) -> None:
        if self._traits.writable and not hostfile.begin_sync(self._fd):
            self._flush()

    def _prefetch(self, offset: int, length: int) -> None:
        if sys.platform == "linux":
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_WILLNEED)

    def _current_size(self) -> int:
        try:
            return hostfile.end_of(self._fd)
        except OSError as error:  # /proc has files without an end
            raise named_error(error, self._name) from None

    def _backing(self, offset: int, length: int) -> Backing:
        if sys.platform == "win32":
            return nullcontext(None)
        return nullcontext((FileRun(self._fd, offset, length, self._traits.writable),))

    def _close(self) -> None:
        os.close(self._fd)


def named_error(error: OSError, name: str) -> OSError:
    """Return the host's error with the file's name in it, so that its message says which file."""
    if error.errno is None or error.filename is not None:
        return error
    return OSError(error.errno, os.strerror(error.errno), name)


def name_full(error: BaseException | None, name: str) -> None:
    """Have an error of a full disk that names no file say which disk that is: the one where ``name`` is."""
    if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
        error.filename = name


@contextmanager
def naming_full(name: str) -> Iterator[None]:
    """A context in which ``name`` is written to: where its disk is full, the error says so."""
    try:
        yield
    except OSError as error:
        name_full(error, name)
        raise


def open_descriptor(
    path: Path,
    *,
    writable: bool,
    create: bool = False,
    mode: int = 0o666,
    exclusive: bool = False,
    direct: bool = False,
) -> int:
    """Return an open descriptor, of a file past the host's cache with ``direct``, where the system can.

    Raises UsageError before opening what could block: a pipe, a terminal.
    """
    if not create and not stat.S_ISREG(kind := os.stat(path).st_mode) and not is_disk(path, kind):
        raise UsageError(f"{os.fsdecode(path)}: expected a file or a block device, found a {kind_of(kind)}")
    flags = os.O_RDWR if writable else os.O_RDONLY
    if create:
        flags |= os.O_CREAT | os.O_EXCL
    if exclusive:
        flags |= os.O_EXCL
    if direct:
        flags |= getattr(os, "O_DIRECT", 0)
    if sys.platform == "win32":
        flags |= os.O_BINARY
    return os.open(path, flags, mode)


def claim(fd: int, status: os.stat_result, name: str, *, writable: bool, alone: bool = False) -> None:
    """Lock the file, or raise InUse where anybody else's use contradicts ours; the message names the holder.

    With ``alone`` nobody else may even read: who serves a file read-only says to clients that it does not change.
    """
    if writable and stat.S_ISREG(status.st_mode) and (loops := holders.loop_devices(status)):
        raise InUse(f"{name}: is in use: attached to {holders.named(loops)}")
    uses, shares = (locks.WRITING, locks.SHARED_BY_WRITER) if writable else (locks.READING, locks.ALL)
    conflict = locks.lock(fd, uses, locks.NOTHING if alone else shares)
    if conflict is not None:
        kind = str(conflict.name).lower().replace("_", " ")
        raise InUse(f"{name}: is in use: {_holder(status)} holds a lock on it ({kind})")


def check_unwritten(fd: int, status: os.stat_result, name: str) -> None:
    """Raise InUse where somebody else writes to the file, or may; our own locks are gone then."""
    if locks.written(fd):
        locks.unlock(fd)  # so that we are not named
        raise InUse(f"{name}: is in use: {_holder(status)} writes to it, and half of a change would be read")


def _holder(status: os.stat_result) -> str:
    return holders.named(holders.processes(status)) or "another program"


def block_size(size: int) -> int:
    """Return the power of two from 512 to 1 MiB that is nearest below what the host prefers."""
    return 1 << max(9, min(20, size.bit_length() - 1))


def is_disk(path: Path, mode: int) -> bool:
    """Whether the file at a path, of this ``st_mode``, is a disk of the host: a block device, or macOS's raw one."""
    return stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and darwin.is_raw(os.fsdecode(path)))


def kind_of(mode: int) -> str:
    """Return what a file of this ``st_mode`` is called."""
    kinds = (
        (stat.S_ISREG, "regular file"),
        (stat.S_ISDIR, "directory"),
        (stat.S_ISBLK, "block device"),
        (stat.S_ISCHR, "character device"),
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISSOCK, "socket"),
    )
    return next((text for test, text in kinds if test(mode)), "special file")
