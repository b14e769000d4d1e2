"""CRC32, CRC32C and CRC16, each behind one function, with the conventions each format needs.

Knows: which library computes what. Refuses to know: what is being summed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import google_crc32c

_extend: Final[Callable[[int, bytes], int]] = google_crc32c.extend
_ALL: Final = 0xFFFFFFFF


def crc32(data: bytes | bytearray | memoryview, value: int = 0) -> int:
    """Return the CRC-32 of ISO-HDLC (GPT, gzip), continued from ``value``."""
    return zlib.crc32(data, value)


def crc32c(data: bytes, value: int = 0) -> int:
    """Return the standard CRC-32C (iSCSI, RFC 3720 B.4), pre- and post-inverted, continued from ``value``."""
    return _extend(value, data)


def crc32c_raw(value: int, data: bytes) -> int:
    """Return CRC-32C continued from register ``value`` without the final inversion, as ext4 and jbd2 keep it.

    ``crc32c_raw(0xFFFFFFFF, data)`` starts a sum; the result seeds the next one.
    """
    return _extend(value ^ _ALL, data) ^ _ALL


def _crc16_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        register = byte
        for _ in range(8):
            register = register >> 1 ^ (0xA001 if register & 1 else 0)
        table.append(register)
    return tuple(table)


_CRC16: Final = _crc16_table()


def crc16(value: int, data: bytes | bytearray | memoryview) -> int:
    """Return CRC-16/ARC (ext4 group descriptors without metadata_csum), continued from ``value``."""
    table = _CRC16
    for byte in bytes(data):
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value
