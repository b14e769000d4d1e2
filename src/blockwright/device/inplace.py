"""A device that exists already as an output: written in place.

Knows: when that needs to be asked for. Refuses to know: what is written, and where the device is.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from blockwright.device.base import BlockDevice
from blockwright.device.extent import ZERO
from blockwright.errors import NoSpace, UsageError
from blockwright.units import MiB, align_down

LOOKED_AT: Final = MiB
"""Bytes at either end of a device that must be zeros, or it is not written over unasked."""


class DeviceOutput:
    """A context manager over ``device``, which it owns: flushed and closed where the body ends without an exception.

    ``target_is_zero`` says whether all of the device is known to read as zeros. Raises UsageError where either end
    holds data, unless ``force``; NoSpace where ``size`` is over the device's. The device is closed then too.
    """

    def __init__(self, device: BlockDevice, name: str, *, size: int | None = None, force: bool = False) -> None:
        self.device = device
        try:
            if size is not None and size > device.size:
                raise NoSpace(f"{name}: expected at least {size} bytes, found {device.size}")
            self.target_is_zero = all(extent.flags & ZERO for extent in device.extents())
            if not force and not self.target_is_zero:
                check_blank(device, name)
        except BaseException:
            device.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()

    def commit(self) -> None:
        """Make all durable and close the device."""
        try:
            self.device.flush()
        finally:
            self.device.close()

    def discard(self) -> None:
        """Close the device, which holds what was written until now. Idempotent."""
        self.device.close()


def check_blank(device: BlockDevice, name: str) -> None:
    """Raise UsageError where the device holds something at its beginning or its end."""
    block = device.traits.minimum_block
    part = min(device.size, max(LOOKED_AT, block))
    tail = align_down(device.size - part, block)
    if any(device.read(0, part)) or any(device.read(tail, device.size - tail)):
        raise UsageError(f"{name}: holds data already; --force overwrites it")
