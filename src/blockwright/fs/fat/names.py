"""FAT names: which are legal, which need a long name, and the short alias that stands beside it.

Source: fatgen103, "FAT Directory Structure", "Name Limits and Character Sets", "The Basis-Name Generation
Algorithm"; reserved device names: Microsoft, "Naming Files, Paths, and Namespaces".

Knows: text. Refuses to know: where entries lie.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from blockwright.errors import UsageError
from blockwright.fs.fat import layout

_LONG_FORBIDDEN: Final = frozenset('"*/:<>?\\|') | {chr(code) for code in range(32)} | {"\x7f"}
_SHORT_ALLOWED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~")
RESERVED: Final = frozenset(
    ["CON", "PRN", "AUX", "NUL"] + [f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10)]
)
"""Names of devices, which Windows and DOS open in every directory, whatever the extension."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name as it is stored: 11 bytes of short name, case bits, and a long name's UTF-16LE or nothing."""

    short: bytes
    case: int
    long: bytes

    @property
    def entries(self) -> int:
        """Directory entries that it takes."""
        return 1 + -(-len(self.long) // (2 * layout.LONG_UNITS))


def fold(name: str) -> str:
    """Return the form in which names that are the same to FAT are equal: upper case, character by character.

    No character changes its length or becomes ASCII: ``ß`` is not ``SS``.
    """
    if name.isascii():
        return name.upper()
    return "".join(
        [upper if len(upper := each.upper()) == 1 and upper.isascii() == each.isascii() else each for each in name]
    )


def check_name(name: bytes, path: bytes) -> str:
    """Return the name as text. Raises UsageError naming ``path`` for one that FAT cannot hold."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        raise _refused(path, "expected a name in UTF-8") from None
    if not _LONG_FORBIDDEN.isdisjoint(text):
        bad = next(each for each in text if each in _LONG_FORBIDDEN)
        raise _refused(path, f"FAT has no {bad!r} in names")
    if not text or text[-1] in ". ":
        raise _refused(path, "FAT has no names that end in a dot or a space")
    if len(text) > layout.MAX_LONG_UNITS // 2 and len(text.encode("utf-16-le")) > 2 * layout.MAX_LONG_UNITS:
        raise _refused(path, f"FAT has no names of more than {layout.MAX_LONG_UNITS} UTF-16 units")
    if len(text.partition(".")[0].rstrip(" ")) in (3, 4) and fold(text.partition(".")[0].rstrip(" ")) in RESERVED:
        raise _refused(path, "this name stands for a device on FAT")
    return text


def _refused(path: bytes, reason: str) -> UsageError:
    shown = ascii(path.decode("utf-8", "surrogateescape"))[1:-1][:200]
    return UsageError(f"{shown}: {reason}")


def exact_short(name: str) -> tuple[bytes, int] | None:
    """Return the short name and case bits that say ``name`` exactly, or None where it needs a long name."""
    base, dot, extension = name.partition(".")
    if not 0 < len(base) <= 8 or len(extension) > 3 or (dot and not extension) or not name.isascii():
        return None
    upper_base, upper_extension = base.upper(), extension.upper()
    if not (_SHORT_ALLOWED.issuperset(upper_base) and _SHORT_ALLOWED.issuperset(upper_extension)):
        return None
    case = 0
    if base != upper_base:
        if base != base.lower():
            return None
        case = layout.LOWER_BASE
    if extension != upper_extension:
        if extension != extension.lower():
            return None
        case |= layout.LOWER_EXTENSION
    return upper_base.encode("ascii").ljust(8) + upper_extension.encode("ascii").ljust(3), case


@dataclass(slots=True)
class ShortNames:
    """The short names of one directory, each used once. Names of 8.3 must all be added before aliases are made."""

    taken: set[bytes] = field(default_factory=set)
    _next: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def add(self, short: bytes) -> None:
        """Say that a name of 8.3 is used as it is."""
        self.taken.add(short)

    def alias(self, name: str) -> bytes:
        """Return a short name for a long one: its own letters where they fit, else ``BASE~N.EXT``.

        ``N`` counts on where the last alias of the same letters stopped, so that many like names cost no search.
        """
        base, extension, lossy = _basis(name)
        if not lossy and len(base) <= 8:
            short = base.encode().ljust(8) + extension.encode().ljust(3)
            if short not in self.taken:
                self.taken.add(short)
                return short
        for _ in range(2):
            found = self._numbered(base, extension)
            if found is not None:
                return found
            self._next.clear()  # those that were given up since may be used again
        raise AssertionError("a directory of 65536 entries cannot use up a million aliases")

    def _numbered(self, base: str, extension: str) -> bytes | None:
        for digits in range(1, 7):
            key = (base[: 7 - digits], extension, digits)
            number = self._next.get(key, 10 ** (digits - 1))
            while number < 10**digits:
                short = f"{key[0]}~{number}".encode().ljust(8) + extension.encode().ljust(3)
                number += 1
                if short not in self.taken:
                    self._next[key] = number
                    self.taken.add(short)
                    return short
            self._next[key] = number
        return None


def _basis(name: str) -> tuple[str, str, bool]:
    """Return base and extension in the characters of short names, and whether anything was lost on the way."""
    stripped = name.replace(" ", "").lstrip(".")
    stem, dot, tail = stripped.rpartition(".")
    if not dot:
        stem, tail = stripped, ""
    lossy = stripped != name or "." in stem or len(tail) > 3 or len(stem) > 8
    base, changed_base = _to_short(stem.replace(".", ""))
    extension, changed_extension = _to_short(tail[:3])
    return base or "_", extension, lossy or changed_base or changed_extension or not base


def _to_short(text: str) -> tuple[str, bool]:
    upper = fold(text)
    result = "".join([each if each in _SHORT_ALLOWED else "_" for each in upper])
    return result, result != upper


def encode_long(name: str) -> bytes:
    """Return the name as UTF-16LE."""
    return name.encode("utf-16-le")


def long_entries(name: Name) -> bytes:
    """Return the long-name entries that lie before the short one, last part first."""
    if not name.long:
        return b""
    width = 2 * layout.LONG_UNITS
    count = -(-len(name.long) // width)
    padded = name.long + b"\0\0" if len(name.long) % width else name.long
    padded = padded.ljust(count * width, b"\xff")
    checksum = layout.short_checksum(name.short)
    parts = []
    for order in range(count, 0, -1):
        unit = padded[(order - 1) * width : order * width]
        flag = layout.LAST_LONG if order == count else 0
        parts.append(
            bytes((order | flag,))
            + unit[:10]
            + bytes((layout.LONG_NAME, 0, checksum))
            + unit[10:22]
            + b"\0\0"
            + unit[22:]
        )
    return b"".join(parts)


def short_text(short: bytes, case: int) -> str:
    """Return a short name as text, bytes above ASCII in code page 437, case bits applied.

    ``/`` and NUL, which no path can hold, become ``_``.
    """
    if short[0] == layout.KANJI_E5:
        short = b"\xe5" + short[1:]
    base = short[:8].rstrip(b" ").decode("cp437")
    extension = short[8:].rstrip(b" ").decode("cp437")
    if case & layout.LOWER_BASE:
        base = base.lower()
    if case & layout.LOWER_EXTENSION:
        extension = extension.lower()
    text = f"{base}.{extension}" if extension else base
    return text.replace("/", "_").replace("\0", "_")
