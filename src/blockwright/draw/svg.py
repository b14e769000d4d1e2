"""A disk's picture as one SVG document, light or dark as its reader is, which refers to nothing outside of itself.

Knows: where everything goes on the sheet. Refuses to know: what is drawn there (``strip``, ``filling``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from blockwright.draw import filling
from blockwright.draw.facts import NUMBERS, boot_lines, columns, findings_summary, headline, legend, summary
from blockwright.draw.markup import Markup, joined, tag
from blockwright.draw.palette import css
from blockwright.draw.picture import Part, Picture
from blockwright.draw.strip import STYLE as STRIP_STYLE
from blockwright.draw.strip import patterns, strip, strip_height
from blockwright.draw.words import cells, fit, number

WIDTH: Final = 960
_MARGIN: Final = 24
_INNER: Final = WIDTH - 2 * _MARGIN
_LINE: Final = 19
_CHARACTER: Final = 6.9
"""Pixels that a character takes at 12 pixels, at the most that common fonts need."""
_MAPS: Final = 4
_LEAST_MAP: Final = 96
"""Pixels of a treemap's height at least; the fullest file system's is the highest."""
_FINDINGS: Final = 12
_ROWS: Final = 24

_STYLE: Final = """
svg{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
.sheet{fill:var(--page)}.title{fill:var(--ink);font-size:20px;font-weight:600}
.text{fill:var(--ink);font-size:12px}.quiet{fill:var(--quiet);font-size:12px}
.section{fill:var(--ink);font-size:14px;font-weight:600}.bad{fill:var(--bad);font-size:12px}
.good{fill:var(--good);font-size:12px}.rule{stroke:var(--line);stroke-width:0.5}
"""


def document(picture: Picture) -> str:
    """Return the whole document; the same picture gives the same text."""
    sheet = _Sheet()
    sheet.text("title", picture.source, step=24, at=30)
    sheet.text("quiet", summary(picture), step=26)
    high = strip_height(picture)
    sheet.place(tag("svg", strip(picture), x=_MARGIN, y=sheet.y, width=_INNER, height=high), high + 6)
    sheet.items(_legend(picture))
    for text in (text for class_, text in legend(picture) if not class_):
        sheet.text("quiet", text)
    for letter, line in boot_lines(picture):
        sheet.text("text", f"{letter}  {line}")
    sheet.skip(12)
    _partitions(sheet, picture)
    _maps(sheet, picture)
    _findings(sheet, picture)
    height = sheet.y + _MARGIN - 8
    style = tag("style", Markup(css() + _STYLE + STRIP_STYLE + filling.STYLE))
    body = [
        tag("title", headline(picture), id="title"),
        tag("desc", f"{summary(picture)}. {findings_summary(picture)}", id="desc"),
        style,
        patterns(),
        tag("rect", width=WIDTH, height=height, class_="sheet"),
        *sheet.drawn,
    ]
    return (
        tag(
            "svg",
            body,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {WIDTH} {height}",
            width=WIDTH,
            height=height,
            role="img",
            aria_labelledby="title desc",
        )
        + "\n"
    )


class _Sheet:
    """What was drawn so far, and where the next thing goes."""

    def __init__(self) -> None:
        self.y = 8
        self.drawn: list[Markup] = []

    def skip(self, pixels: int) -> None:
        self.y += pixels

    def place(self, drawn: Markup, height: int) -> None:
        self.drawn.append(drawn)
        self.y += height

    def text(self, class_: str, text: str, *, step: int = _LINE, at: int = 13) -> None:
        """Write a line, cut off where the sheet ends."""
        size = 1.7 if class_ == "title" else 1.2 if class_ == "section" else 1.0
        shown = fit(text, int(_INNER / (_CHARACTER * size))).rstrip()
        self.place(tag("text", shown, x=_MARGIN, y=self.y + at, class_=class_), step + (at - 13))

    def items(self, items: list[tuple[Markup, str]]) -> None:
        """Write a legend: small drawings, each with a word behind it."""
        x = _MARGIN
        for drawn, text in items:
            width = 24 + round(cells(text) * _CHARACTER) + 12
            if x + width > WIDTH - _MARGIN:
                x, self.y = _MARGIN, self.y + _LINE
            self.drawn.append(tag("svg", drawn, x=x, y=self.y + 3, width=18, height=12))
            self.drawn.append(tag("text", text, x=x + 24, y=self.y + 13, class_="quiet"))
            x += width
        self.y += _LINE + 6


def _legend(picture: Picture) -> list[tuple[Markup, str]]:
    return [(joined(swatch(class_)), text) for class_, text in legend(picture) if class_]


def swatch(class_: str) -> Iterator[Markup]:
    """Yield the small drawing that stands for a kind of thing in a legend; it is 18 by 12 pixels."""
    if class_ == "boot":
        yield tag("path", d="M9 1L14 11L4 11Z", class_=class_)
        return
    yield tag("rect", x=0.5, y=0.5, width=17, height=11, class_=class_)
    if class_ in ("data", "zero", "holes"):
        yield tag("rect", x=0.5, y=0.5, width=17, height=11, class_="frame")


def _partitions(sheet: _Sheet, picture: Picture) -> None:
    names, rows = columns(picture)
    shown = rows[:_ROWS]
    widths = [max(cells(row[column]) for row in [names, *shown]) for column in range(len(names))]
    widths = [min(each, 26) + (column in NUMBERS) for column, each in enumerate(widths)]
    spare = _INNER / _CHARACTER - sum(widths) - 2 * len(widths)
    if spare < 0:
        widths[-1] = max(8, widths[-1] + int(spare))
    edges = [_MARGIN + _CHARACTER * (sum(widths[:index]) + 2 * index) for index in range(len(widths))]
    for class_, row in [("quiet", names), *(("text", row) for row in shown)]:
        drawn = [
            _cell(fit(cell, width).rstrip(), edge, width, sheet.y + 13, class_, right=column in NUMBERS)
            for column, (cell, edge, width) in enumerate(zip(row, edges, widths, strict=True))
        ]
        sheet.place(joined(drawn), _LINE)
        if class_ == "quiet":
            y = sheet.y
            sheet.place(tag("line", x1=_MARGIN, x2=WIDTH - _MARGIN, y1=y, y2=y, class_="rule"), 3)
    if len(rows) > _ROWS:
        sheet.text("quiet", f"and {len(rows) - _ROWS} more")
    sheet.skip(14)


def _cell(text: str, x: float, width: int, y: int, class_: str, *, right: bool) -> Markup:
    if right:
        return tag("text", text, x=round(x + width * _CHARACTER, 1), y=y, class_=class_, text_anchor="end")
    return tag("text", text, x=round(x, 1), y=y, class_=class_)


def _maps(sheet: _Sheet, picture: Picture) -> None:
    parts = [part for part in picture.parts if part.contents and part.contents.root.children]
    largest = max((part.contents.root.size for part in parts if part.contents), default=1)
    for part in parts[:_MAPS]:
        assert part.contents is not None
        sheet.text("section", f"What fills {_called(part)}", step=22)
        height = max(_LEAST_MAP, filling.HEIGHT * part.contents.root.size // largest)
        drawn = tag(
            "svg", filling.treemap(part.contents, height=height), x=_MARGIN, y=sheet.y, width=_INNER, height=height
        )
        sheet.place(drawn, height + 8)
        sheet.text("quiet", counted(part), step=30)


def _called(part: Part) -> str:
    return f"partition {part.number} ({part.type})" if part.number else "it"


def counted(part: Part) -> str:
    """Return how much of a file system was looked at, in one sentence."""
    contents = part.contents
    assert contents is not None
    told = f"{number(contents.files, 'file')} in {number(contents.directories, 'directory', 'directories')}"
    if contents.problem:
        return f"{told}; some could not be read: {contents.problem}"
    return told if contents.complete else f"{told} were counted; there are more, which were not looked at"


def _findings(sheet: _Sheet, picture: Picture) -> None:
    if picture.findings is None:
        return
    sheet.text("section", "Findings", step=22)
    sheet.text("good" if not picture.findings else "bad", findings_summary(picture))
    for each in picture.findings[:_FINDINGS]:
        sheet.text("text", f"{each.place}: {each.rule}: {each.message}")
