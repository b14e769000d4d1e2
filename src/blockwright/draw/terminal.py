"""A disk's picture in characters, for terminals of any width, with colour or without, in ASCII where need be.

Every colour stands beside a character of its own, so nothing is lost without them.

Knows: characters and ANSI colours. Refuses to know: terminals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Final

from blockwright.draw.picture import Bin, Boot, Kind, Part, Picture
from blockwright.draw.scale import resample, whole_shares
from blockwright.draw.words import cells, fit
from blockwright.units import format_size

MIN_WIDTH: Final = 40
MAX_WIDTH: Final = 240
_SIDE: Final = 10
"""Cells of the rows' names."""
_LEAST: Final = 2
_SPEAKING: Final = 5
"""Cells in which a word can be told."""
_MARKS: Final = "abcdefghijklmnopqrstuvwxyz"
_CODES: Final = {"part": "1;34", "used": "36", "data": "34", "zero": "33", "boot": "35", "quiet": "2", "bad": "1;31"}


@dataclass(frozen=True, slots=True)
class Style:
    """What a terminal shows: cells in a line, whether it has colours, and whether more than ASCII."""

    width: int = 80
    color: bool = False
    unicode: bool = True


@dataclass(frozen=True, slots=True)
class _Glyphs:
    corners: str  # left upper, right upper, left lower, right lower
    joints: str  # upper, lower
    across: str
    down: str
    used: str
    free: str
    levels: str  # of data, from none to all
    zero: str
    hole: str
    unknown: str
    table: str
    cut: str


_UNICODE: Final = _Glyphs("┌┐└┘", "┬┴", "─", "│", "█", "░", "▁▂▃▄▅▆▇█", "○", "·", "?", "▒", "…")
_ASCII: Final = _Glyphs("++++", "++", "-", "|", "#", "-", "::++%%##", "o", ".", "?", "=", "~")


def draw(picture: Picture, style: Style) -> list[str]:
    """Return the picture as lines that fit the style's width, from MIN_WIDTH to MAX_WIDTH cells."""
    lines = _Drawing(picture, style).lines()
    return lines if style.unicode else [_ascii(line) for line in lines]


def _ascii(line: str) -> str:
    """Return a line of the same width in ASCII: names may have characters that no other charset has."""
    return line if line.isascii() else "".join(each if each.isascii() else "?" * cells(each) for each in line)


class _Drawing:
    def __init__(self, picture: Picture, style: Style) -> None:
        self._picture = picture
        self._glyphs = _UNICODE if style.unicode else _ASCII
        self._color = style.color
        room = min(max(style.width, MIN_WIDTH), MAX_WIDTH) - _SIDE
        parts = [part for part in picture.parts if part.shown]
        # Each part has a line to its left, and one ends the row; narrow disks of many parts lose their gaps.
        if len(parts) * (_LEAST + 1) >= room:
            parts = [part for part in parts if part.kind is not Kind.FREE]
        self._left_out = len(parts) - min(len(parts), (room - 1) // (_LEAST + 1))
        self._parts = parts[: len(parts) - self._left_out]
        sizes = [part.shown for part in self._parts]
        self._widths = _exactly(whole_shares(sizes, room - 1 - len(sizes), _LEAST), room - 1 - len(sizes))

    def lines(self) -> list[str]:
        """Return the whole drawing."""
        if not self._parts:
            return []
        found = [self._edge(upper=True), self._row("partition", self._titles), self._row("holds", self._holds)]
        if any(part.file_system for part in self._parts):
            found.append(self._row("in use", self._used))
        found += [self._row("on disk", self._stored), *self._boot_row(), self._edge(upper=False), self._axis(), ""]
        found += [*self._legend(), *self._boot_lines()]
        if self._left_out:
            found.append(self._in("quiet", f"{self._left_out} more partitions are in the table only"))
        return found

    # -- rows ------------------------------------------------------------------------------------------------

    def _row(self, name: str, fill: Callable[[Part, int], str]) -> str:
        bar = self._in("quiet", self._glyphs.down)
        inner = bar.join(fill(part, width) for part, width in zip(self._parts, self._widths, strict=True))
        return f"{fit(name, _SIDE)}{bar}{inner}{bar}"

    def _edge(self, *, upper: bool) -> str:
        glyphs = self._glyphs
        first, last = glyphs.corners[0 if upper else 2], glyphs.corners[1 if upper else 3]
        joint = glyphs.joints[0 if upper else 1]
        line = first + joint.join(glyphs.across * width for width in self._widths) + last
        return " " * _SIDE + self._in("quiet", line)

    def _titles(self, part: Part, width: int) -> str:
        cut = self._glyphs.cut
        if part.kind is Kind.PARTITION:
            title = part.title if width >= _SPEAKING else str(part.number)
            return self._in("part", fit(title, width, cut))
        if part.kind is Kind.TABLE:
            return self._in("quiet", self._glyphs.table * width)
        text = "all of it" if part.kind is Kind.WHOLE else "free" if width >= _SPEAKING else ""
        return self._in("quiet", fit(text, width, cut))

    def _holds(self, part: Part, width: int) -> str:
        system, cut = part.file_system, self._glyphs.cut
        if width < _SPEAKING:
            return self._in("bad", fit("!" if part.problem else "", width, cut))
        if part.problem:
            return self._in("bad", fit("unreadable", width, cut))
        size = format_size(part.size)
        told = f"{system.kind} {system.label}".strip() if system else part.foreign
        if not told:
            return self._in("quiet", fit(size, width, cut))
        return fit(f"{told} {size}" if cells(f"{told} {size}") <= width else told, width, cut)

    def _used(self, part: Part, width: int) -> str:
        system = part.file_system
        if not system or not system.size:
            return " " * width
        filled = min(width, -(-system.used * width // system.size))
        return self._in("used", self._glyphs.used * filled) + self._in("quiet", self._glyphs.free * (width - filled))

    def _stored(self, part: Part, width: int) -> str:
        runs = groupby((self._level(each) for each in resample(part.bins, width)), key=itemgetter(0))
        return "".join(self._in(color, "".join(glyph for _, glyph in run)) for color, run in runs)

    def _level(self, each: Bin) -> tuple[str, str]:
        glyphs = self._glyphs
        if not each.size or each.hole == each.size:
            return "quiet", glyphs.hole
        if not each.data:
            return ("zero", glyphs.zero) if each.zero > each.unknown else ("quiet", glyphs.unknown)
        step = min(len(glyphs.levels) - 1, each.data * len(glyphs.levels) // each.size)
        return "data", glyphs.levels[step]

    def _boot_row(self) -> list[str]:
        if not self._picture.boot:
            return []
        marks: dict[tuple[int, int], str] = {}
        for boot, letter in self._lettered():
            found = self._cell(boot.start)
            if found is not None:
                marks[found] = letter if found not in marks else "*"

        def fill(part: Part, width: int) -> str:
            index = self._parts.index(part)
            return "".join(
                self._in("boot", marks[index, cell]) if (index, cell) in marks else " " for cell in range(width)
            )

        return [self._row("boot", fill)]

    def _cell(self, offset: int) -> tuple[int, int] | None:
        """Return the part and the cell of it where a byte of the disk lies."""
        for index, (part, width) in enumerate(zip(self._parts, self._widths, strict=True)):
            start = part.start + part.size - part.shown
            if start <= offset < start + part.shown:
                return index, min(width - 1, (offset - start) * width // part.shown)
        return None

    def _axis(self) -> str:
        """Return the line of offsets: 0, where partitions begin and there is room to say so, and the end."""
        total = sum(self._widths) + len(self._widths) + 1
        end = format_size(self._picture.size)
        line = fit("0", total - cells(end)) + end
        at = 0
        for part, width in zip(self._parts, self._widths, strict=True):
            text = format_size(part.start)
            room = line[at : at + cells(text) + 1]
            if at and room.isspace() and line[at - 1] == " " and at + cells(text) + 1 < total - cells(end):
                line = line[:at] + text + line[at + cells(text) :]
            at += width + 1
        return " " * _SIDE + self._in("quiet", line)

    # -- what it means ---------------------------------------------------------------------------------------

    def _legend(self) -> list[str]:
        glyphs, bins = self._glyphs, [each for part in self._parts for each in part.bins]
        told = []
        if any(part.file_system for part in self._parts):
            told += [f"{self._in('used', glyphs.used)} used", f"{self._in('quiet', glyphs.free)} free"]
        told.append(f"{self._in('data', glyphs.levels[0] + glyphs.levels[3] + glyphs.levels[7])} data (some to all)")
        if any(each.zero for each in bins):
            told.append(f"{self._in('zero', glyphs.zero)} zeros")
        if any(each.hole for each in bins):
            told.append(f"{self._in('quiet', glyphs.hole)} hole")
        if any(each.unknown for each in bins):
            told.append(f"{self._in('quiet', glyphs.unknown)} not looked at")
        if any(part.kind is Kind.TABLE for part in self._parts):
            told.append(f"{self._in('quiet', glyphs.table)} partition table")
        exact = _is_exact(self._parts, self._widths)
        return [*self._wrapped(told), *([] if exact else [" " * _SIDE + self._in("quiet", _WIDER)])]

    def _wrapped(self, told: Sequence[str]) -> list[str]:
        """Return words of the legend in lines that fit; what colours take is no width."""
        lines, room = [""], sum(self._widths) + len(self._widths) + 1
        for each in told:
            longer = f"{lines[-1]}   {each}" if lines[-1] else each
            if cells(_ESCAPE.sub("", longer)) > room and lines[-1]:
                lines.append(each)
            else:
                lines[-1] = longer
        return [" " * _SIDE + line for line in lines]

    def _boot_lines(self) -> list[str]:
        return [
            f"{' ' * _SIDE}{self._in('boot', letter)} {boot.what}: {format_size(boot.size)} at byte {boot.start}"
            for boot, letter in self._lettered()
        ]

    def _lettered(self) -> list[tuple[Boot, str]]:
        return list(zip(self._picture.boot, _MARKS, strict=False))

    def _in(self, color: str, text: str) -> str:
        return f"\x1b[{_CODES[color]}m{text}\x1b[0m" if self._color and text else text


_ESCAPE: Final = re.compile("\x1b\\[[0-9;]*m")
_WIDER: Final = "narrow parts are drawn wider than they are"


def _exactly(widths: list[int], total: int) -> list[int]:
    """Return widths that add up to ``total``: the widest gives, or takes."""
    if widths:
        widest = max(range(len(widths)), key=widths.__getitem__)
        widths[widest] += total - sum(widths)
    return widths


def _is_exact(parts: Sequence[Part], widths: Sequence[int]) -> bool:
    size, total = sum(part.shown for part in parts), sum(widths)
    return all(abs(width - part.shown * total / size) <= 1 for part, width in zip(parts, widths, strict=True))
