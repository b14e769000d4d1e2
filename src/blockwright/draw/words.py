"""Text that may be shown: printable whatever it was made of, and as wide as it says.

Knows: characters and the cells they take. Refuses to know: where text comes from and goes to.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_SHOWN: Final = 200
"""Characters that are shown of one name."""
CUT: Final = "…"
_WIDE: Final = frozenset("mwMW@%…")
_BOLD: Final = 1.14
_LEAST_SHOWN: Final = 4
"""Characters of a text that was cut off, below which it says nothing."""


def plain(text: str | bytes, most: int = MAX_SHOWN) -> str:
    """Return text of at most ``most`` characters, all of them printable, whatever a name is made of.

    Control characters, marks that turn the direction of text, line ends, code points without a character and bytes
    that are not UTF-8 are escaped as Python writes them. What was cut off is told by an ellipsis.
    """
    if isinstance(text, bytes):
        text = text[: 4 * most + 4].decode("utf-8", "surrogateescape")
    if len(text) > most:
        text = text[: most - 1] + CUT
    if not text.isprintable():
        text = "".join(each if each.isprintable() else _escaped(each) for each in text)
    return text if len(text) <= most else text[: most - 1] + CUT


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as surrogateescape keeps it
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def number(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def cells(text: str) -> int:
    """Return how many cells of a terminal printable text takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(_cells(each) for each in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clipped(text: str, pixels: float, *, size: int = 12, bold: bool = False) -> str:
    """Return printable text in no more than so many pixels of common fonts, or nothing where that tells nothing."""
    room = pixels / (size * (_BOLD if bold else 1.0))
    if sum(map(_width, text)) <= room:
        return text
    room, kept = room - _width(CUT), 0
    for each in text:
        room -= _width(each)
        if room < 0:
            break
        kept += 1
    return text[:kept] + CUT if kept + 1 >= _LEAST_SHOWN else ""


def _width(character: str) -> float:
    """What a character is wide at the most that common fonts need, where the size of the font is 1."""
    if character in _WIDE or _cells(character) == 2:
        return 1.0
    return 0.75 if character.isupper() else 0.62 * _cells(character)


def fit(text: str, width: int, cut: str = CUT) -> str:
    """Return printable text in exactly ``width`` cells: cut off, which ``cut`` tells, or padded with spaces."""
    if cells(text) > width:
        room, kept = max(0, width - cells(cut)), ""
        for each in text:
            if cells(kept) + _cells(each) > room:
                break
            kept += each
        text = kept + cut[: width - cells(kept)]
    return text + " " * (width - cells(text))
