"""What a device must hold: a bytearray, and which of its bytes are unspecified.

Knows: what each operation makes of the content. Refuses to know: devices that are not in memory.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from blockwright.device.base import BlockDevice
from blockwright.device.extent import DATA, HOLE, ZERO


class Violation(AssertionError):
    """A device broke its contract."""


class Stuck(Violation):
    """Calls of a device did not return; it is left open, because closing would wait for them."""


class Model:
    """The content that a device must have; ``unspecified`` has a 1 for each byte that may be anything."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.unspecified = bytearray(len(content))

    def __len__(self) -> int:
        return len(self.content)

    def write(self, offset: int, data: bytes) -> None:
        """Hold ``data`` at ``offset``."""
        self.content[offset : offset + len(data)] = data
        self.unspecified[offset : offset + len(data)] = bytes(len(data))

    def zero(self, offset: int, length: int) -> None:
        """Hold zeros."""
        self.write(offset, bytes(length))

    def discard(self, offset: int, length: int) -> None:
        """Hold anything."""
        self.unspecified[offset : offset + length] = b"\1" * length

    def check(self, offset: int, data: bytes, doing: str) -> None:
        """Raise Violation where ``data``, read at ``offset``, is not what the model holds."""
        expected = self.content[offset : offset + len(data)]
        if data == expected:
            return
        loose = self.unspecified[offset : offset + len(data)]
        for index, (want, got, free) in enumerate(zip(expected, data, loose, strict=True)):
            if want != got and not free:
                raise Violation(f"{doing}: expected {want:#04x}, found {got:#04x} (byte {offset + index})")

    def check_device(self, device: BlockDevice, doing: str) -> None:
        """Raise Violation where the device differs, or tells extents that break their rules."""
        if device.size != len(self):
            raise Violation(f"{doing}: expected a size of {len(self)} bytes, found {device.size}")
        self.check(0, device.read(0, device.size), doing)
        check_extents(device, 0, device.size, doing)


def check_extents(device: BlockDevice, offset: int, length: int, doing: str) -> None:
    """Raise Violation unless the extents are ascending, contiguous, merged, cover the range, and ZERO is true."""
    position, before = offset, None
    for extent in device.extents(offset, length):
        if extent.offset != position:
            raise Violation(f"{doing}: extents: expected one at byte {position}, found one at {extent.offset}")
        if extent.length <= 0:
            raise Violation(f"{doing}: extents: expected a length over 0, found {extent.length} (byte {position})")
        if extent.flags not in (DATA, HOLE, ZERO, HOLE | ZERO):
            raise Violation(f"{doing}: extents: flags {extent.flags} are not known (byte {position})")
        if extent.flags == before:
            raise Violation(f"{doing}: extents: neighbours of flags {extent.flags} are not joined (byte {position})")
        if extent.flags & ZERO and any(device.read(extent.offset, extent.length)):
            raise Violation(f"{doing}: extents: ZERO is told of bytes that are not zeros (byte {position})")
        position, before = extent.end, extent.flags
    if position != offset + length:
        raise Violation(f"{doing}: extents: expected an end at byte {offset + length}, found {position}")


@dataclass(frozen=True, slots=True)
class Trial:
    """One device under one check: its model, where chance comes from, and about how many operations to do."""

    device: BlockDevice
    model: Model
    chance: random.Random
    operations: int
