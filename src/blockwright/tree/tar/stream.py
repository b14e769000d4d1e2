"""Where an archive's bytes come from: a device that can be read anywhere, or a stream that passes once.

Knows: reading ahead, skipping, and the position. Refuses to know: what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from blockwright.device.base import BlockDevice
from blockwright.tree.rules import Budget
from blockwright.units import KiB, MiB

MAX_TRAILER: Final = 64 * MiB
"""Bytes that are read behind the end of an archive; writers pad to 10 KiB, and to 1 MiB at the most."""

_WINDOW: Final = 16 * KiB
_CHUNK: Final = 4 * MiB
"""What decoders hand over at once: to ask for less would copy it once more."""


class Reader(Protocol):
    """An archive, read forwards. ``position`` is the byte of the archive that comes next."""

    position: int

    def read(self, length: int) -> bytes:
        """Return so many bytes, and fewer only at the archive's end."""

    def skip(self, length: int) -> int:
        """Pass over so many bytes, and return how many there were."""


class DeviceReader:
    """Reads a device through a small window, so that the headers of small members cost one read for several.

    ``budget``, where given, is looked at with each window.
    """

    def __init__(self, device: BlockDevice, budget: Budget | None = None) -> None:
        self.position = 0
        self._device = device
        self._budget = budget
        self._window = b""
        self._start = 0

    def read(self, length: int) -> bytes:
        """Return bytes from the window, or read them."""
        at = self.position - self._start
        if not 0 <= at <= len(self._window) - length:
            if self._budget is not None:
                self._budget.check(self.position, self.position)
            wanted = min(max(length, _WINDOW), self._device.size - self.position)
            self._window = self._device.read(self.position, wanted)
            self._start, at = self.position, 0
        data = self._window[at : at + length]
        self.position += len(data)
        return data

    def skip(self, length: int) -> int:
        """Move the position, at most to the end."""
        length = min(length, self._device.size - self.position)
        self.position += length
        return length


class StreamReader:
    """Reads a stream by chunks. ``read(n)`` returns up to n bytes, and none at the end, as binary files do."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.position = 0
        self._source = read
        self._chunk = b""
        self._view = memoryview(b"")  # of the chunk: a slice of it copies nothing
        self._at = 0  # in the chunk

    # Each method is called for each member, which mostly lies in one chunk: that comes first, and calls nothing.

    def read(self, length: int) -> bytes:
        """Return bytes from the chunk at hand, and from the next ones as far as it takes."""
        at = self._at
        end = at + length
        if end <= len(self._chunk):
            self._at = end
            self.position += length
            return self._chunk[at:end]
        buffer = bytearray(length)
        return bytes(buffer[: self.read_into(memoryview(buffer))])

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer, and return how many bytes there were."""
        at, length = self._at, len(buffer)
        end = at + length
        if end <= len(self._chunk):
            buffer[:] = self._view[at:end]
            self._at = end
            self.position += length
            return length
        done = 0
        while done < length and (left := self._more()):
            part = min(left, length - done)
            buffer[done : done + part] = self._view[self._at : self._at + part]
            self._at += part
            done += part
        self.position += done
        return done

    def skip(self, length: int) -> int:
        """Read and forget."""
        end = self._at + length
        if end <= len(self._chunk):
            self._at = end
            self.position += length
            return length
        done = 0
        while done < length and (left := self._more()):
            part = min(left, length - done)
            self._at += part
            done += part
        self.position += done
        return done

    def drain(self) -> None:
        """Read the stream to its end, so that its writer can finish and a decoder sees its checksum.

        Not for ever: a disk or a device of zeros goes on behind an archive, and what does is not the archive's.
        """
        left = MAX_TRAILER
        while left > 0 and (part := self._more()):
            self.position += part
            self._at += part
            left -= part

    def _more(self) -> int:
        """Return how many bytes of a chunk are at hand, of the next one where this is used up; 0 at the end."""
        if self._at == len(self._chunk):
            self._chunk = self._source(_CHUNK)
            self._view = memoryview(self._chunk)
            self._at = 0
        return len(self._chunk) - self._at
