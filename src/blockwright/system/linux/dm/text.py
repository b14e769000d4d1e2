"""Tables of device-mapper as text, one target a line as the kernel has it: START LENGTH TYPE PARAMETERS, in sectors.

As in the kernel's Documentation/admin-guide/device-mapper; blank lines and those that begin with ``#`` say nothing.

Knows: such lines both ways, and which parameters are keys. Refuses to know: the kernel.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

from blockwright.errors import UsageError
from blockwright.system.linux.dm import tables
from blockwright.system.linux.dm.layout import SECTOR, TYPE_SIZE, Line, bytes_of
from blockwright.system.linux.dm.tables import Other, Target

MAX_SECTORS: Final = (1 << 63) // SECTOR - 1
"""The largest device a kernel has: its bytes are counted in 63 bits."""
_BLANK: Final = " \t\r\v\f"
_BLANKS: Final = re.compile(f"[{_BLANK}]+")
_KEYED_OPTION: Final = re.compile(r"((?:internal_hash|journal_crypt|journal_mac):[^: ]*:)([^ ]+)")


def parse_table(text: str, name: str = "table") -> list[Target]:
    """Return the targets of a table; ``name`` is told in errors.

    A target is typed where its parameters are those of a type that is known, and else ``Other``, with the text as it
    stands, for the kernel to judge. Raises UsageError for what no table can be: no target, lines without numbers,
    gaps. No message has parameters, which may be keys.
    """
    found: list[Target] = []
    end = 0
    for number, raw in enumerate(text.split("\n"), 1):
        row = raw.strip(_BLANK)
        if row and not row.startswith("#"):
            line = _line(row, end, f"{name}: line {number}")
            found.append(_target(line))
            end += line.length_sectors
    if not found:
        raise UsageError(f"{name}: expected a table of one target or more, found none")
    return found


def _line(row: str, end: int, where: str) -> Line:
    words = [*_BLANKS.split(row, maxsplit=3), "", "", ""]
    start, length = (_sectors(word, what, where) for word, what in zip(words, ("start", "length"), strict=False))
    kind, parameters = words[2], words[3]
    if start != end:
        raise UsageError(f"{where}: expected it to start at sector {end}, where the line before ends, found {start}")
    if not 0 < length <= MAX_SECTORS - end:
        raise UsageError(f"{where}: expected a length of 1 to {MAX_SECTORS - end} sectors, found {length}")
    if not 0 < len(bytes_of(kind)) < TYPE_SIZE:
        raise UsageError(f"{where}: expected a type of 1 to {TYPE_SIZE - 1} bytes, found {kind[:TYPE_SIZE]!r}")
    if "\0" in row:
        raise UsageError(f"{where}: expected text, found a NUL")
    return Line(start, length, kind, parameters)


def _sectors(word: str, what: str, where: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", word):
        raise UsageError(f"{where}: expected a {what} in sectors, found {word[:20]!r}")
    return int(word)


def _target(line: Line) -> Target:
    """Return the target typed, where that says to the kernel what the text does."""
    if "\\" not in line.text:  # which keeps a blank within a word
        line = line._replace(text=_BLANKS.sub(" ", line.text))
        with suppress(UsageError):
            target = tables.parse(line)
            if target.parameters() == line.text:
                return target
    return Other(line.length_sectors * SECTOR, line.type, line.text)


def format_line(line: Line) -> str:
    """Return the line as ``parse_table`` takes it."""
    return f"{line.start_sector} {line.length_sectors} {line.type} {line.text}".rstrip(_BLANK)


def without_keys(line: Line) -> Line:
    """Return the line with zeros for each key that it has; what names a key of the kernel's keyrings stays."""
    if line.type == "crypt":
        cipher, blank, rest = line.text.partition(" ")
        key, *others = rest.split(" ", 1)
        return line._replace(text=" ".join([f"{cipher}{blank}{_zeros(key)}", *others]))
    if line.type == "integrity":
        return line._replace(text=_KEYED_OPTION.sub(lambda found: found[1] + _zeros(found[2]), line.text))
    return line


def _zeros(key: str) -> str:
    return key if key.startswith(":") else "0" * len(key)
