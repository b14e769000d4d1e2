"""Devices and files that tests of tables and file systems share."""

import os

from blockwright.device.base import BlockDevice
from blockwright.device.memory import MemoryDevice


def memory(device: BlockDevice) -> MemoryDevice:
    """A writable copy of a device, sparse."""
    copy = MemoryDevice(device.size)
    spill(device, copy.write)
    return copy


def save(device: BlockDevice, path: str | os.PathLike[str]) -> None:
    """Write a device to a sparse file that programs can open."""
    with open(path, "wb") as file:
        file.truncate(device.size)
        spill(device, lambda offset, data: os.pwrite(file.fileno(), data, offset))


def spill(device: BlockDevice, write) -> None:
    """Give `write(offset, data)` every run of data."""
    for offset, length, flags in device.extents():
        position = offset
        while not flags and position < offset + length:
            part = min(1 << 20, offset + length - position)
            write(position, device.read(position, part))
            position += part
