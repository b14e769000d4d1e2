r"""Names in mtree's text: any bytes, what is not plain escaped as vis(3) does.

Written is ``\ooo`` alone, which every reader knows. Read are also C's escapes, ``\s`` for a space, ``\#``, and the
caret and meta notation (``\^C``, ``\M-C``, ``\M^C``).

Knows: that. Refuses to know: what a name stands for.
"""

from __future__ import annotations

import re
from typing import Final

_C: Final = {
    ord("n"): 10,
    ord("r"): 13,
    ord("b"): 8,
    ord("a"): 7,
    ord("v"): 11,
    ord("t"): 9,
    ord("f"): 12,
    ord("s"): 32,
    ord("E"): 27,
}
_ESCAPED: Final = re.compile(
    rb"\\(?:([0-3][0-7]{2}|[0-7]{1,2})|(M-.|M\^.|\^.)|(.)|$)",
    re.DOTALL,
)
_PLAIN: Final = frozenset(range(0x21, 0x7F)) - frozenset(b'\\#="*?[')
"""Bytes that are written as they are: what no reader takes for a comment, a pattern or an equals sign."""
_WRITTEN: Final = [bytes([each]) if each in _PLAIN else b"\\%03o" % each for each in range(256)]
_ALL_PLAIN: Final = re.compile(b"[" + b"".join(b"\\x%02x" % each for each in sorted(_PLAIN)) + b"]*")


def escape(name: bytes) -> bytes:
    """Return a name as text without white space."""
    if _ALL_PLAIN.fullmatch(name):
        return name
    return b"".join([_WRITTEN[each] for each in name])


def unescape(text: bytes) -> bytes:
    """Return the name that a text stands for. Raises ValueError for a backslash that begins nothing."""
    return _ESCAPED.sub(_one, text) if b"\\" in text else text


def _one(match: re.Match[bytes]) -> bytes:
    octal, marked, char = match.groups()
    if octal is not None:
        return bytes([int(octal, 8)])
    if marked is not None:
        meta = 0x80 if marked.startswith(b"M") else 0
        value: int = marked[-1]
        if b"^" in marked[:-1]:
            value = 127 if value == ord("?") else value & 31
        return bytes([value | meta])
    if char is None:
        raise ValueError("backslash")
    value = char[0]
    if value in _C:
        return bytes([_C[value]])
    if chr(value).isalnum():
        raise ValueError("backslash")
    return bytes([value])
