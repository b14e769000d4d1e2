"""Text files that say what is to be changed: read from the host, within limits, and told by file and line.

Knows: how such a file is opened, and how a message names a line. Refuses to know: what any of them says.
"""

from __future__ import annotations

from typing import Final

from blockwright.errors import Corrupt, LimitExceeded, NotFound, Unsupported, UsageError
from blockwright.units import MiB

MAX_TEXT: Final = 512 * MiB
"""Bytes of a manifest: a million entries with digests are about 200 MiB."""
MAX_LINE: Final = 64 * 1024


def read_host(path: str, limit: int = MAX_TEXT) -> bytes:
    """Return a file of the host. Raises NotFound, UsageError for a directory, LimitExceeded, OSError."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: expected a file, found a directory") from None
    if len(data) > limit:
        raise LimitExceeded(f"expected at most {limit} bytes, found more", source=path)
    return data


class Line:
    """A line of a file, for messages."""

    __slots__ = ("number", "source")

    def __init__(self, source: str, number: int) -> None:
        self.source = source
        self.number = number

    def corrupt(self, message: str) -> Corrupt:
        """Return the error for a line that breaks the format's rules."""
        return Corrupt(message, source=str(self))

    def unsupported(self, message: str) -> Unsupported:
        """Return the error for a line that is sound and asks for what there is not."""
        return Unsupported(message, source=str(self))

    def usage(self, message: str) -> UsageError:
        """Return the error for a line that does not fit the tree."""
        return UsageError(f"{self}: {message}")

    def __str__(self) -> str:
        return f"{self.source}: line {self.number}"


def shown(data: bytes) -> str:
    """Return bytes of an input for a message."""
    return ascii(data[:64].decode("utf-8", "surrogateescape"))
