"""From what a user names to a tree: a directory, a tar archive, a compressed one, or standard input.

What a source is, its content tells, never its name. A source whose contents can be read anywhere (a directory, a
plain archive in a file) is *addressable*: reading it costs its metadata only. Any other is streamed: it is read
once, and each body goes where the reader wants it as it arrives.

Knows: every kind of source, and how to tell them apart. Refuses to know: what the tree becomes.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import BinaryIO, Self

from blockwright.device.base import BlockDevice
from blockwright.device.file import FileDevice
from blockwright.errors import Closed, NotFound, NotThisFormat, UsageError
from blockwright.tree.content import Place
from blockwright.tree.decompress import DecodedStream, compression_of
from blockwright.tree.host import read_directory
from blockwright.tree.node import Directory
from blockwright.tree.tar import looks_like_tar, read_tar, read_tar_stream

_EXPECTED = "expected a directory or a tar archive, plain or compressed with gzip, zstd, xz or bzip2"
_HEAD = 512


class Source(ABC):
    """A tree that can be read. ``kind`` is ``directory`` or ``tar``, ``name`` what messages call it.

    ``addressable`` says that contents can be read anywhere, as long as the source is open.
    """

    kind: str
    name: str
    addressable: bool

    @abstractmethod
    def read(self, place: Place | None = None) -> Directory:
        """Return the tree.

        A source that is not addressable hands each body to ``place`` as it arrives, and can be read once.
        Raises UsageError where a place is needed and missing; what ``read_directory`` and ``read_tar`` raise.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of what contents are read from. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class DirectorySource(Source):
    """A directory of the host."""

    kind = "directory"
    addressable = True

    def __init__(self, path: str | bytes | os.PathLike[str], *, one_file_system: bool = False) -> None:
        self.name = os.fsdecode(path)
        self._one_file_system = one_file_system

    def read(self, place: Place | None = None) -> Directory:
        """Return what the directory holds now; contents are read from it."""
        return read_directory(self.name, one_file_system=self._one_file_system)

    def close(self) -> None:
        """Do nothing: files are open only while they are read."""


class TarSource(Source):
    """A plain tar archive that a device holds. The source owns the device."""

    kind = "tar"
    addressable = True

    def __init__(self, device: BlockDevice, name: str) -> None:
        self.name = name
        self._device = device

    def read(self, place: Place | None = None) -> Directory:
        """Return the archive's tree; contents are read from the device."""
        return read_tar(self._device, source=self.name)

    def close(self) -> None:
        """Close the device."""
        self._device.close()


class StreamedTarSource(Source):
    """A tar archive, compressed or not, that passes once. The source owns the stream."""

    kind = "tar"
    addressable = False

    def __init__(self, stream: DecodedStream, name: str) -> None:
        self.name = name
        self._stream = stream
        self._read = False

    @property
    def compression(self) -> str | None:
        """``gzip``, ``zstd``, ``xz``, ``bzip2``, or None for a plain stream."""
        return self._stream.compression

    @property
    def consumed(self) -> int:
        """Bytes taken from the stream so far, compressed as they are: for showing progress."""
        return self._stream.consumed

    def read(self, place: Place | None = None) -> Directory:
        """Return the archive's tree; bodies went to ``place``."""
        if place is None:
            raise UsageError(f"{self.name}: passes once: expected a place for what its files hold, found none")
        if self._read:
            raise UsageError(f"{self.name}: passes once, and has been read")
        self._read = True
        return read_tar_stream(self._stream.read, place, source=self.name)

    def close(self) -> None:
        """Stop decoding and close the input."""
        self._stream.close()


def open_source(text: str | os.PathLike[str], *, stdin: BinaryIO | None = None) -> Source:
    """Return the source that ``text`` names: a path, or ``-`` for standard input (``stdin`` where given).

    A directory and a plain archive in a regular file are addressable; compressed archives, pipes and devices are
    streamed. Raises NotFound; NotThisFormat for what is neither directory nor archive; OSError from the host.
    """
    name = os.fsdecode(text)
    if name == "-":
        return _open_stdin(stdin)
    try:
        status = os.stat(name)
        if stat.S_ISDIR(status.st_mode):
            return DirectorySource(name)
        if stat.S_ISREG(status.st_mode):
            return _open_file(name)
        return _open_stream(name)
    except FileNotFoundError as error:
        raise NotFound(f"{name}: no such file or directory") from error


def _open_stdin(stdin: BinaryIO | None) -> Source:
    name = "standard input"
    if stdin is not None:
        return StreamedTarSource(DecodedStream(stdin.read, source=name), name)
    if sys.stdin is None:
        raise Closed(f"{name}: is closed")
    # By descriptor: a thread that waits in a buffered file would hold its lock when the program ends.
    return StreamedTarSource(DecodedStream(functools.partial(os.read, sys.stdin.fileno()), source=name), name)


def _open_file(name: str) -> Source:
    with open(name, "rb", buffering=0) as file:
        head = file.read(_HEAD)
    if compression_of(head) is not None:
        return _open_stream(name)
    if looks_like_tar(head):
        return TarSource(FileDevice(name), name)
    found = "an empty file" if not head else "another format"
    raise NotThisFormat(f"{_EXPECTED}, found {found}", source=name)


def _open_stream(name: str) -> Source:
    file = open(name, "rb", buffering=0)  # noqa: SIM115 - the stream closes it
    read: Callable[[int], bytes] = file.read
    try:
        return StreamedTarSource(DecodedStream(read, source=name, close=file.close), name)
    except BaseException:
        file.close()
        raise
