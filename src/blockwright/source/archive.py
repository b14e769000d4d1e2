"""Tar archives as sources: plain ones in a file are addressable, all others stream past once.

Knows: how an archive is opened. Refuses to know: what is in it.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import BinaryIO

from blockwright.device.base import BlockDevice
from blockwright.device.file import FileDevice
from blockwright.device.spool import kept_meanwhile, read_some
from blockwright.errors import ArchiveRejected, Closed, FormatError, NotThisFormat, Rejection, UsageError
from blockwright.oci.choice import ONLY, Choice, begins_like_image, has_marks
from blockwright.source.base import Source
from blockwright.tree.content import Place
from blockwright.tree.decompress import DecodedStream, compression_of
from blockwright.tree.node import Directory
from blockwright.tree.rules import ArchiveRules, Remarks
from blockwright.tree.tar import looks_like_tar, read_tar, read_tar_stream
from blockwright.units import MiB

_EXPECTED = (
    "expected a directory or a tar archive, plain or compressed with gzip, zstd, xz or bzip2, or a file system"
)
HEAD = 512
"""Bytes by which formats are told apart."""


class TarSource(Source):
    """A plain tar archive that a device holds. The source owns the device."""

    kind = "tar"
    addressable = True

    def __init__(
        self, device: BlockDevice, name: str, rules: ArchiveRules, known: tuple[Directory, Remarks] | None = None
    ) -> None:
        """Take the archive on ``device``; ``known`` is its tree where it was read already."""
        self.name = name
        self.remarks = Remarks()
        self._rules = rules
        self._known = known
        self._device = device

    def read(self, place: Place | None = None) -> Directory:
        """Return the archive's tree; contents are read from the device."""
        if self._known is not None:
            (tree, self.remarks), self._known = self._known, None
            return tree
        self.remarks = Remarks()
        return read_tar(self._device, source=self.name, rules=self._rules, remarks=self.remarks)

    def close(self) -> None:
        """Close the device."""
        self._device.close()


class StreamedTarSource(Source):
    """A tar archive, compressed or not, that passes once. The source owns the stream.

    ``size`` is how many bytes the input has, compressed as they are, 0 where that is not known.
    """

    kind = "tar"
    addressable = False

    def __init__(self, stream: DecodedStream, name: str, rules: ArchiveRules, size: int = 0) -> None:
        self.name = name
        self.remarks = Remarks()
        self._rules = rules
        self._stream = stream
        self._size = size
        self._read = False

    @property
    def compression(self) -> str | None:
        """``gzip``, ``zstd``, ``xz``, ``bzip2``, or None for a plain stream."""
        return self._stream.compression

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes taken from the input so far, compressed as they are, and its size."""
        return self._stream.consumed, self._size

    def read(self, place: Place | None = None) -> Directory:
        """Return the archive's tree; bodies went to ``place``."""
        if place is None:
            raise UsageError(f"{self.name}: passes once: expected a place for what its files hold, found none")
        if self._read:
            raise UsageError(f"{self.name}: passes once, and has been read")
        self._read = True
        tree = read_tar_stream(self._stream.read, place, source=self.name, rules=self._rules, remarks=self.remarks)
        if has_marks(tree):
            raise UsageError(
                f"{self.name}: is a container image that passes once and begins like none: expected it in a file, and"
                " decompressed"
            )
        return tree

    def close(self) -> None:
        """Stop decoding and close the input."""
        self._stream.close()


def open_stdin(stdin: BinaryIO | None, rules: ArchiveRules, choice: Choice = ONLY) -> Source:
    """Return standard input as a source; ``stdin`` in its place where given. A container image is kept in a file."""
    name = "standard input"
    if stdin is not None:
        read = functools.partial(read_some, stdin)
        return passing(DecodedStream(read, source=name, rules=rules), name, rules, choice)
    if sys.stdin is None:
        raise Closed(f"{name}: is closed")
    read = functools.partial(read_some, sys.stdin.fileno())
    return passing(DecodedStream(read, source=name, rules=rules), name, rules, choice)


def passing(stream: DecodedStream, name: str, rules: ArchiveRules, choice: Choice, size: int = 0) -> Source:
    """Return an archive that passes once as such; one that begins like a container image is kept in a file."""
    try:
        head = stream.peek(HEAD)
        if not (looks_like_tar(head) and begins_like_image(head)):
            return StreamedTarSource(stream, name, rules, size)
    except BaseException:
        stream.close()
        raise
    with ExitStack() as stack:
        with stream:
            device = stack.enter_context(keep(stream, name, rules))
        return _of_tar(device, name, rules, choice, stack)


def keep(stream: DecodedStream, name: str, rules: ArchiveRules) -> FileDevice:
    """Return all of a stream as a temporary file, decoded. Raises ArchiveRejected where it is too large, NoSpace."""
    import tempfile

    with kept_meanwhile(name), tempfile.TemporaryFile() as file:
        kept = 0
        while data := stream.read(MiB):
            kept += len(data)
            if kept > rules.spool:
                raise ArchiveRejected(
                    Rejection.BYTES,
                    f"spool: expected a container image of at most {rules.spool} bytes to keep, found more",
                    source=name,
                )
            file.write(data)
        file.flush()
        return FileDevice.adopt(os.dup(file.fileno()), f"{name}, kept", writable=False)


def open_file(path: str, rules: ArchiveRules, choice: Choice, name: str = "") -> Source:
    """Return the archive or file system in a regular file, addressable where it is plain. Raises NotThisFormat.

    Messages call it ``name``, by its path where that is empty.
    """
    name = name or path
    with open(path, "rb", buffering=0) as file:
        head = file.read(HEAD)
    if compression_of(head) is not None:
        return open_stream(path, rules, choice, name)
    if head == bytes(HEAD) or not looks_like_tar(head):
        image = _image(path)
        if image is not None:
            return image
    if looks_like_tar(head):
        return _open_tar(path, rules, choice, name)
    found = "an empty file" if not head else "another format"
    raise NotThisFormat(f"{_EXPECTED}, found {found}", source=name)


def _open_tar(path: str, rules: ArchiveRules, choice: Choice, name: str) -> Source:
    """Return the plain archive in a file, or the container image that it is."""
    with ExitStack() as stack:
        return _of_tar(stack.enter_context(FileDevice(path)), name, rules, choice, stack)


def _of_tar(device: FileDevice, name: str, rules: ArchiveRules, choice: Choice, owned: ExitStack) -> Source:
    """Return what a plain archive is, as a source that then owns what ``owned`` does: the device."""
    remarks = Remarks()
    try:
        tree = read_tar(device, source=name, rules=rules, remarks=remarks)
    except FormatError:  # which the source's reader meets again
        owned.pop_all()
        return TarSource(device, name, rules)
    if has_marks(tree):
        from blockwright.source.layered import image_source

        found = image_source(tree, name, rules, choice, owned)
        if found is not None:
            return found
    owned.pop_all()
    return TarSource(device, name, rules, (tree, remarks))


def _image(name: str) -> Source | None:
    """Return the file system in a file; None where there is neither one nor a partition table."""
    from blockwright.resolve import identify, open_device
    from blockwright.source.image import open_image

    with open_device(name) as device:
        if identify(device) is None:
            return None
    return open_image(name)


def open_stream(path: str, rules: ArchiveRules, choice: Choice = ONLY, name: str = "") -> Source:
    """Return the archive that is read once from a pipe, a device, or a compressed file; an image is kept."""
    name = name or path
    file = open(path, "rb", buffering=0)  # noqa: SIM115 - the stream closes it
    read: Callable[[int], bytes] = file.read
    try:
        size = os.fstat(file.fileno()).st_size  # asked first: a short input is read and closed by then
        stream = DecodedStream(read, source=name, close=file.close, rules=rules)
    except BaseException:
        file.close()
        raise
    return passing(stream, name, rules, choice, size)
