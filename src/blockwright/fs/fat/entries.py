"""Makes the short entries of a directory.

Knows: how a time and a cluster are said in 32 bytes. Refuses to know: names, and where an entry goes.
"""

from __future__ import annotations

import struct
from typing import Final

from blockwright.fs.fat import layout

DOT: Final = b".".ljust(11)
DOT_DOT: Final = b"..".ljust(11)
_pack = struct.Struct("<11sBBBHHHHHHHI").pack


def short_entry(name: bytes, case: int, attributes: int, mtime_ns: int, cluster: int, size: int) -> bytes:
    """Return a short entry's bytes; every time is the modification time."""
    seconds = mtime_ns // 10**9
    date, time = layout.encode_time(seconds)
    tenths = 0
    if layout.EPOCH_S <= seconds <= layout.END_S:
        tenths = (seconds & 1) * 100 + mtime_ns % 10**9 // 10**7
    return _pack(name, attributes, case, tenths, time, date, date, cluster >> 16, time, date, cluster & 0xFFFF, size)


def file_attributes(permissions: int) -> int:
    """Return the attributes of a file with these permissions: read-only where nobody may write."""
    return layout.ARCHIVE if permissions & 0o222 else layout.ARCHIVE | layout.READ_ONLY
