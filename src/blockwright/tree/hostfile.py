"""A regular file of the host as a content that is never of two versions.

Each read opens the file by name, reads, and then compares what the open file is with what was seen when the tree
was made: device, inode, size, modification and change time. Linux moves the change time forward with every write
and every change of metadata, so a read that ends with the times that were planned from saw no other version.

Knows: opening, reading and comparing one file. Refuses to know: trees, and where the bytes go.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from blockwright.device.base import Backing, FileRun
from blockwright.errors import SourceChanged
from blockwright.tree.content import Content, Runs

if sys.platform == "win32":
    _OPEN_FLAGS: Final = os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT

    def _read(fd: int, buffer: memoryview) -> int:
        data = os.read(fd, len(buffer))
        buffer[: len(data)] = data
        return len(data)
else:
    # Not to follow a link, and not to wait for a writer, where the file was replaced by a link or a FIFO.
    _OPEN_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

    def _read(fd: int, buffer: memoryview) -> int:
        return os.readv(fd, [buffer])


class HostFile(Content):
    """The bytes of the host's file ``name`` in ``directory``, as they were when ``status`` was taken.

    Any read raises SourceChanged, which names the file, when it is not what it was: written to, cut off, replaced,
    removed, or no longer readable. Nothing stays open between reads, and any number of threads may read.
    """

    __slots__ = ("_ctime_ns", "_device", "_directory", "_inode", "_mtime_ns", "_name")

    def __init__(self, directory: bytes, name: bytes, status: os.stat_result, mtime_ns: int) -> None:
        """Take the identity from ``status``; ``mtime_ns`` is its time, given so that a tree holds it once."""
        self.size = status.st_size
        self._directory = directory
        self._name = name
        self._device = status.st_dev
        self._inode = status.st_ino
        self._mtime_ns = mtime_ns
        self._ctime_ns = status.st_ctime_ns

    @property
    def path(self) -> bytes:
        """Where the file is opened."""
        return os.path.join(self._directory, self._name)

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Fill ``buffer`` from ``offset`` on. Raises SourceChanged."""
        # Once for each file of a tree, so nothing here is called that can be written out.
        try:
            fd = os.open(self._directory + b"/" + self._name, _OPEN_FLAGS)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            if offset:
                os.lseek(fd, offset, os.SEEK_SET)
            count = _read(fd, buffer)
            while count < len(buffer):
                part = _read(fd, buffer[count:])
                if not part:
                    break
                count += part
            self.verify(fd)
            if count < len(buffer):
                raise self._changed(f"size: expected {self.size}, found {offset + count}")
        except OSError as error:
            raise self._unreadable(error) from error
        finally:
            os.close(fd)

    def backing(self, offset: int, length: int, /) -> Backing:
        """Return a context manager over the file run that holds the range; it checks before and after.

        What was copied inside is of one version when it ends without an exception; else it raises SourceChanged.
        """
        return _OpenRun(self, offset, length)

    def open(self) -> int:
        """Return a file descriptor that reads the file, which the caller closes. Raises SourceChanged."""
        try:
            return os.open(self.path, _OPEN_FLAGS)
        except OSError as error:
            raise self._unreadable(error) from error

    def verify(self, fd: int) -> None:
        """Raise SourceChanged unless the open file is, and holds, what the tree was made from."""
        found = os.fstat(fd)
        if (
            found.st_ctime_ns == self._ctime_ns
            and found.st_mtime_ns == self._mtime_ns
            and found.st_size == self.size
            and found.st_ino == self._inode
            and found.st_dev == self._device
        ):
            return
        if found.st_ino != self._inode or found.st_dev != self._device:
            raise self._changed(f"inode: expected {self._inode}, found {found.st_ino}")
        if found.st_size != self.size:
            raise self._changed(f"size: expected {self.size}, found {found.st_size}")
        if found.st_mtime_ns != self._mtime_ns:
            raise self._changed(f"modification time: expected {self._mtime_ns} ns, found {found.st_mtime_ns} ns")
        raise self._changed(f"change time: expected {self._ctime_ns} ns, found {found.st_ctime_ns} ns")

    def _changed(self, how: str) -> SourceChanged:
        return SourceChanged(f"{os.fsdecode(self.path)}: changed since it was looked at: {how}")

    def _unreadable(self, error: OSError) -> SourceChanged:
        how = "vanished since it was looked at" if isinstance(error, FileNotFoundError) else "cannot be read"
        return SourceChanged(f"{os.fsdecode(self.path)}: {how}: {error.strerror}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, {self.size})"


class SparseHostFile(HostFile):
    """A host file with holes."""

    __slots__ = ("_runs",)

    def __init__(self, directory: bytes, name: bytes, status: os.stat_result, mtime_ns: int) -> None:
        """Find the holes. Raises SourceChanged when the file is not what ``status`` says."""
        super().__init__(directory, name, status, mtime_ns)
        fd = self.open()
        try:
            self._runs = data_runs(fd, self.size)
            self.verify(fd)
        except OSError as error:
            raise self._unreadable(error) from error
        finally:
            os.close(fd)

    def runs(self) -> Runs:
        """Return the runs of data that the host's file system told."""
        return self._runs


class _OpenRun:
    """A range of a host file, open and verified."""

    __slots__ = ("_fd", "_file", "_length", "_offset")

    def __init__(self, file: HostFile, offset: int, length: int) -> None:
        self._file = file
        self._offset = offset
        self._length = length

    def __enter__(self) -> Sequence[FileRun]:
        self._fd = self._file.open()
        try:
            self._file.verify(self._fd)
        except BaseException:
            os.close(self._fd)
            raise
        return (FileRun(self._fd, self._offset, self._length),)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.verify(self._fd)
        finally:
            os.close(self._fd)


if sys.platform == "win32":

    def data_runs(fd: int, size: int) -> Runs:  # noqa: ARG001 - as below
        """Return one run of everything: holes are not looked for here."""
        return ((0, size),) if size else ()
else:

    def data_runs(fd: int, size: int) -> Runs:
        """Return the ascending runs of data in the first ``size`` bytes of an open file, as SEEK_DATA tells them.

        Everything is one run where the host cannot tell. Moves the file's position.
        """
        runs: list[tuple[int, int]] = []
        position = 0
        while position < size:
            try:
                start = os.lseek(fd, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no data behind the position
                    break
                if error.errno in (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY):
                    return ((0, size),)
                raise
            if start >= size:
                break
            position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            runs.append((start, position - start))
        return tuple(runs)
