"""The loop driver's numbers and structures (linux/loop.h).

Knows: fields and requests. Refuses to know: when they are used.
"""

from __future__ import annotations

from typing import Final

from blockwright.codec.record import Record, raw, u32, u64

CONTROL: Final = "/dev/loop-control"
MAJOR: Final = 7

SET_FD: Final = 0x4C00
CLR_FD: Final = 0x4C01
SET_STATUS64: Final = 0x4C04
GET_STATUS64: Final = 0x4C05
SET_CAPACITY: Final = 0x4C07
SET_DIRECT_IO: Final = 0x4C08
SET_BLOCK_SIZE: Final = 0x4C09
CONFIGURE: Final = 0x4C0A
CTL_ADD: Final = 0x4C80
CTL_GET_FREE: Final = 0x4C82

NAME_SIZE: Final = 64
"""Bytes of the name that the driver keeps, the last of them a NUL."""
MIN_BLOCK_SIZE: Final = 512
MAX_BLOCK_SIZE: Final = 65536
"""Linux before 6.14 takes no more than a page."""


class Flag:
    """What a loop device is told to be (LO_FLAGS_*). Bare numbers: an enumeration's cost more than the ioctls do."""

    READ_ONLY: Final = 1
    AUTOCLEAR: Final = 4
    PARTSCAN: Final = 8
    DIRECT_IO: Final = 16


class Info(Record, size=232, byte_order="="):
    """struct loop_info64: ``lo_device`` and ``lo_inode`` are the backing file's, offset and limit in bytes."""

    lo_device: int = u64(0)
    lo_inode: int = u64(8)
    lo_rdevice: int = u64(16)
    lo_offset: int = u64(24)
    lo_sizelimit: int = u64(32)
    lo_number: int = u32(40)
    lo_flags: int = u32(52)
    lo_file_name: bytes = raw(56, NAME_SIZE)


class Config(Record, size=304, byte_order="="):
    """struct loop_config, whose ``info`` is a packed Info; what no field names is reserved and zero."""

    fd: int = u32(0)
    block_size: int = u32(4)
    info: bytes = raw(8, Info.SIZE)
