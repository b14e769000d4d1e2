"""A stream that passes once becomes a device: in a file of its own, without a name, where zeros take no room.

Knows: that it must be read to its end first. Refuses to know: what it holds.
"""

from __future__ import annotations

import os
import select
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from blockwright.device.descriptor import FULL
from blockwright.device.file import FileDevice
from blockwright.errors import NoSpace
from blockwright.units import MiB

PIECE: Final = MiB
_STEP: Final = 64 * 1024
_NOTHING: Final = bytes(_STEP)


def spool(stream: BinaryIO, name: str) -> FileDevice:
    """Return what is left of ``stream``, which stays its owner's; messages call it ``name``.

    A regular file that nobody has read from yet is taken as it lies. Anything else is read to its end into a file in
    the folder for temporary ones, which is gone when the device is closed. Raises OSError, and NoSpace that names it.
    """
    found = _regular(stream)
    if found is not None:
        return FileDevice.adopt(found, name, writable=False)
    with kept_meanwhile(name):
        return _kept(stream, name)


def _kept(stream: BinaryIO, name: str) -> FileDevice:
    scratch = scratch_device(name)
    try:
        size = 0
        while data := read_some(stream, PIECE):
            scratch.resize(size + len(data))
            view = memoryview(data)
            for start in range(0, len(view), _STEP):
                part = view[start : start + _STEP]
                if part != _NOTHING[: len(part)]:
                    scratch.write(size + start, part)
            size += len(data)
    except BaseException:
        scratch.close()
        raise
    return scratch


@contextmanager
def kept_meanwhile(name: str) -> Iterator[None]:
    """A context in which ``name`` is kept in the folder for temporary files: where that is full, NoSpace names both.

    An error that names a file is another disk's.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or error.filename not in (None, name):
            raise
        room = tempfile.gettempdir()
        raise NoSpace(f"{name}: no space left in {room} (TMPDIR), where it is kept meanwhile") from None


def read_some(stream: BinaryIO | int, length: int) -> bytes:
    """Return up to so many of the next bytes, none at the end; what does not block is waited for.

    ``stream`` may be a descriptor: a thread that waits in a buffered file would hold its lock when the program ends.
    """
    while True:
        try:
            data: bytes | None = os.read(stream, length) if isinstance(stream, int) else stream.read(length)
        except BlockingIOError:
            data = None
        if data is not None:
            return data
        select.select([stream], [], [])


def read_up_to(stream: BinaryIO | int, length: int) -> bytes:
    """Return so many of the next bytes, fewer only where the stream is at its end; as ``read_some`` waits."""
    parts, left = [], length
    while left and (part := read_some(stream, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def scratch_device(name: str) -> FileDevice:
    """Return a new, empty file without a name, in the folder for temporary ones."""
    with tempfile.TemporaryFile(buffering=0) as file:
        return FileDevice.adopt(os.dup(file.fileno()), name, writable=True)


def _regular(stream: BinaryIO) -> int | None:
    """Return a descriptor of the regular file behind a stream that stands at its beginning, else None."""
    try:
        fd = stream.fileno()
        if stat.S_ISREG(os.fstat(fd).st_mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0:
            return os.dup(fd)
    except OSError:  # no descriptor at all, or none that can be asked
        return None
    return None
