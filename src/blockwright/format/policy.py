"""Which other files an image may make us open: those that the caller allows, and no others.

An image names files: a backing file, an external data file. Whoever made the image chose these names, so following
them unasked would show him, or the guest, any file of the host that we can read. The default refuses every name.
Names of other protocols (``json:``, ``nbd:``) are never followed.

Knows: names, folders, links. Refuses to know: formats.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from dataclasses import dataclass

from blockwright.device.file import FileDevice
from blockwright.errors import Corrupt, NotAllowed, NotFound, Unsupported

MAX_DEPTH = 64
"""Files in one chain of backing files."""

_DESCRIPTORS = "/proc/self/fd"
"""Where Linux tells at which path an open file lies, and opens it once more."""

_PROTOCOL = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class Policy:
    """``allowed`` are folders of the host in which the files that an image names may lie; by default none."""

    allowed: tuple[str, ...] = ()

    def resolve(self, name: bytes, image: str | None, what: str) -> str:
        """Return the real path of the file that the image at path ``image`` names as its ``what``.

        A relative name counts from the image's folder. Raises NotAllowed where the file is outside of every allowed
        folder, and tells the name only; Unsupported for the name of a protocol; NotFound.
        """
        shown = os.fsdecode(name[:200])
        owner = image or "image"
        if not name or b"\0" in name:
            raise Corrupt(f"{what}: expected the name of a file, found {shown!r}", source=image)
        if _PROTOCOL.match(name):
            raise Unsupported(f"{what} {shown!r}: expected a file, found the name of a protocol", source=image)
        if not self.allowed:
            raise NotAllowed(
                f"{owner}: {what} {shown!r}: is not opened unasked: allow its folder (--allow-backing DIR)"
            )
        folder = os.path.dirname(os.path.realpath(image)) if image else os.getcwd()
        path = os.path.realpath(os.path.join(folder, os.fsdecode(name)))
        if not any(_within(path, os.path.realpath(each)) for each in self.allowed):
            raise NotAllowed(
                f"{owner}: {what} {shown!r}: expected a file in {' or '.join(self.allowed)}, found one elsewhere"
            )
        if not os.path.isfile(path):
            raise NotFound(f"{owner}: {what} {shown!r}: no such file")
        return path

    def open(self, path: str, *, writable: bool = False) -> FileDevice:
        """Return the regular file at a path that ``resolve`` gave. Raises OSError, InUse.

        Raises NotAllowed where a link has come to lie on the way since, which would lead elsewhere.
        """
        if sys.platform != "linux" or not os.path.isdir(_DESCRIPTORS):
            return FileDevice(path, writable=writable)
        found = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            there = f"{_DESCRIPTORS}/{found}"
            if os.readlink(there) != path or not stat.S_ISREG(os.fstat(found).st_mode):
                raise NotAllowed(f"{path}: expected the file that was there when it was allowed, found another")
            return FileDevice(there, writable=writable, name=path)
        except OSError as error:
            raise OSError(error.errno, os.strerror(error.errno or 0), path) from None
        finally:
            os.close(found)


def _within(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


REFUSE = Policy()
"""Opens none of the files that an image names."""
