"""Reads the entries of one directory: short names, and the long names that stand before them.

A long name counts where its parts are complete, in order, and carry the short name's checksum; otherwise the short
name stands alone, as every reader has it.

Knows: the bytes of a directory. Refuses to know: where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from blockwright.fs.fat import layout
from blockwright.fs.fat.names import short_text

_SIZE: Final = layout.ENTRY_SIZE


class Listed(NamedTuple):
    """An entry: its name in UTF-8, the same by its short name, where it lies in the directory, and its 32 bytes.

    ``start`` is where the parts of its long name begin; ``offset`` where it has none.
    """

    name: bytes
    short: bytes
    offset: int
    raw: bytes
    start: int


def scan(data: bytes) -> Iterator[Listed]:
    """Yield everything in a directory's bytes that is in use, ``.``, ``..`` and volume labels included."""
    parts: list[bytes] = []
    for offset in range(0, len(data) - _SIZE + 1, _SIZE):
        first, attributes = data[offset], data[offset + 11]
        if first == 0:
            return
        if first == layout.DELETED:
            parts = []
            continue
        raw = data[offset : offset + _SIZE]
        if attributes == layout.LONG_NAME:
            if first & layout.LAST_LONG:
                parts = []
            parts.append(raw)
            continue
        short = short_text(raw[:11], raw[12]).encode()
        name = _long_name(parts, raw[:11]) if parts else None
        start = offset - len(parts) * _SIZE if name else offset
        parts = []
        yield Listed(name or short, short, offset, raw, start)


def _long_name(parts: list[bytes], short: bytes) -> bytes | None:
    """Return the name in UTF-8, or None where the parts do not make one. Lone surrogates stay, as three bytes."""
    count = len(parts)
    checksum = layout.short_checksum(bytes(short))
    if count > layout.MAX_LONG_ENTRIES or parts[0][0] != count | layout.LAST_LONG:
        return None
    for index, part in enumerate(parts):
        if part[0] & 0x3F != count - index or part[13] != checksum:
            return None
    units = b"".join([layout.long_units(part) for part in reversed(parts)])
    text = units.decode("utf-16-le", "surrogatepass").partition("\0")[0]
    if not text or "/" in text or text in (".", ".."):
        return None
    return text.encode("utf-8", "surrogatepass")
