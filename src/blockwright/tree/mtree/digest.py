"""Digests of a content, as manifests name them: those of ``hashlib``, and POSIX's cksum.

Knows: how each is computed. Refuses to know: manifests.

Source: POSIX.1-2017, cksum.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Final, Protocol

from blockwright.tree.content import Content
from blockwright.units import MiB

NAMES: Final = ("cksum", "md5", "ripemd160", "sha1", "sha256", "sha384", "sha512")
_REVERSED: Final = bytes(int(f"{each:08b}"[::-1], 2) for each in range(256))


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class Cksum:
    """POSIX's cksum. It takes the highest bit of a byte first and zlib the lowest, so each byte is turned around."""

    def __init__(self) -> None:
        self._state = 0xFFFFFFFF  # zlib turns it over, and cksum begins with zero
        self._size = 0

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more bytes."""
        self._state = zlib.crc32(bytes(data).translate(_REVERSED), self._state)
        self._size += len(data)

    def hexdigest(self) -> str:
        """Return the sum over the bytes and their number, in decimal as cksum writes it."""
        size = self._size.to_bytes(-(-self._size.bit_length() // 8), "little")
        state = ~zlib.crc32(size.translate(_REVERSED), self._state) & 0xFFFFFFFF
        return str(~int(f"{state:032b}"[::-1], 2) & 0xFFFFFFFF)


class Digester:
    """Several digests of the same bytes. Raises ValueError for a name that this Python cannot compute."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._hashes: dict[str, _Hash] = {
            name: Cksum() if name == "cksum" else hashlib.new(name, usedforsecurity=False) for name in names
        }

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more bytes."""
        for each in self._hashes.values():
            each.update(data)

    def zeros(self, count: int) -> None:
        """Take that many zeros: a hole."""
        zeros = bytes(min(count, MiB))
        while count:
            part = min(count, len(zeros))
            self.update(zeros[:part] if part < len(zeros) else zeros)
            count -= part

    def result(self) -> dict[str, str]:
        """Return each digest by its name."""
        return {name: each.hexdigest() for name, each in self._hashes.items()}


def digests(content: Content, names: tuple[str, ...]) -> dict[str, str]:
    """Return digests of a content, holes and all. Raises what reading raises, ValueError as ``Digester``."""
    digester = Digester(names)
    buffer = memoryview(bytearray(min(content.size, MiB)))
    position = 0
    for start, length in content.runs():
        digester.zeros(start - position)
        position, end = start, start + length
        while position < end:
            part = buffer[: min(len(buffer), end - position)]
            content.read_into(position, part)
            digester.update(part)
            position += len(part)
    digester.zeros(content.size - position)
    return digester.result()
