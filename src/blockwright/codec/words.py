"""Tables of unsigned numbers: an array of the machine's own order, and its bytes in the order that a format has.

Knows: widths and byte order. Refuses to know: what the numbers mean.
"""

from __future__ import annotations

import sys
from array import array
from typing import Literal

from blockwright.codec.record import Buffer

ByteOrder = Literal["little", "big"]


def unpack_words(data: Buffer, code: str, order: ByteOrder) -> array[int]:
    """Return the numbers, of array's type ``code``, that ``data`` holds: whole ones."""
    found = array(code)
    found.frombytes(data)
    if sys.byteorder != order:
        found.byteswap()
    return found


def pack_words(values: array[int], order: ByteOrder) -> bytes:
    """Return the numbers' bytes; the array stays as it is."""
    if sys.byteorder != order:
        values = values[:]
        values.byteswap()
    return values.tobytes()
