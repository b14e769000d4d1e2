"""The disk as a strip, in SVG: what lies where, how full it is, what of it is stored, what starts it.

Widths are percentages, heights are pixels: the same strip fits a phone and a wide screen, and its text keeps its
size. Text is as short as its part wants it on a sheet of NOMINAL pixels, and cut off at the edge where it has less.

Knows: one strip. Refuses to know: the page around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from blockwright.draw.markup import Markup, joined, percent, tag
from blockwright.draw.picture import Bin, Kind, Part, Picture
from blockwright.draw.scale import Scale, resample
from blockwright.draw.words import clipped
from blockwright.units import format_size

LEAST: Final = 1.2
"""Percent that a part takes at least."""
NOMINAL: Final = 912
"""Pixels that the strip is taken to be wide when it is settled which words have room."""
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_COLUMNS: Final = 240
"""Columns of the whole strip in which extents are shown."""

STYLE: Final = """
.part{fill:var(--part);stroke:var(--line)}.part-table{fill:url(#hatch);stroke:var(--line)}
.part-free{fill:none;stroke:var(--line);stroke-dasharray:3 3}.part-bad{stroke:var(--bad);stroke-width:3}
.name{fill:var(--on-part);font-weight:600;font-size:13px}.detail{fill:var(--on-part);font-size:12px}
.caption,.tick{fill:var(--quiet);font-size:12px}.bar{fill:none;stroke:var(--line)}.used{fill:var(--data)}
.data{fill:var(--data)}.zero{fill:var(--zero)}.unknown{fill:url(#hatch)}.frame{fill:none;stroke:var(--line)}
.boot{fill:var(--boot)}.letter{fill:var(--boot);font-size:12px;font-weight:600}.ticks{stroke:var(--line)}
.hatching{stroke:var(--line)}.dotted{fill:var(--line)}.holes{fill:url(#dots)}
"""


def patterns() -> Markup:
    """Return the patterns that fills refer to; they stand once in a document."""
    hatch = tag("path", d="M0 6L6 0", class_="hatching", stroke_width=1)
    return tag(
        "defs",
        tag("pattern", hatch, id="hatch", width=6, height=6, patternUnits="userSpaceOnUse"),
        tag(
            "pattern",
            tag("circle", cx=3, cy=3, r=0.8, class_="dotted"),
            id="dots",
            width=6,
            height=6,
            patternUnits="userSpaceOnUse",
        ),
    )


def scale_of(picture: Picture) -> Scale:
    """Return where each part lies, in percent of the strip."""
    return Scale.of(picture.parts, 100.0, LEAST)


def strip_height(picture: Picture) -> int:
    """Return how many pixels high the strip is."""
    return 214 if picture.boot else 186


def strip(picture: Picture, *, linked: bool = False) -> Markup:
    """Return the strip's rows; where ``linked``, partitions are links to ``#part-N``."""
    scale = scale_of(picture)
    return joined(
        [
            _caption(12, "Layout"),
            *_parts(scale, 18, linked=linked),
            _caption(86, "In use, as the file systems count"),
            *_usage(scale, 92),
            _caption(124, "Stored on disk: data, zeros, holes"),
            *_extents(scale, 130),
            *_boot(picture, scale, 164),
            *_axis(picture, scale, strip_height(picture) - 24),
        ]
    )


def _caption(y: int, text: str) -> Markup:
    return tag("text", text, x=0, y=y, class_="caption")


def _spans(scale: Scale) -> Iterator[tuple[int, Part, float, float]]:
    for index, (part, low, high) in enumerate(zip(scale.parts, scale.edges, scale.edges[1:], strict=False)):
        if high > low:
            yield index, part, low, high - low


def _parts(scale: Scale, y: int, *, linked: bool) -> Iterator[Markup]:
    for index, part, low, width in _spans(scale):
        kind = {Kind.TABLE: "part-table", Kind.FREE: "part-free"}.get(part.kind, "part")
        inner = [
            tag("title", describe(part)),
            tag("rect", width="100%", height="100%", class_=kind + (" part-bad" if part.problem else "")),
        ]
        if part.kind in (Kind.PARTITION, Kind.WHOLE):
            inner += [_text(6, 20, "name", _short(part, width)), _text(6, 38, "detail", _detail(part, width))]
        elif width > 8:
            inner.append(_text(6, 20, "detail", part.kind.value))
        drawn = tag("svg", inner, x=percent(low), y=y, width=percent(width), height=48, role="img", focusable="false")
        if linked and part.kind in (Kind.PARTITION, Kind.WHOLE):
            drawn = tag("a", drawn, href=f"#part-{index}", aria_label=describe(part))
        yield drawn


def _text(x: int, y: int, class_: str, text: str) -> Markup:
    return tag("text", text, x=x, y=y, class_=class_)


def _room(width: float) -> float:
    return width / 100 * NOMINAL - 7


def _short(part: Part, width: float) -> str:
    if part.kind is Kind.WHOLE:
        return clipped("the whole device", _room(width), size=13, bold=True)
    shown = (clipped(each, _room(width), size=13, bold=True) for each in (part.title, str(part.number)))
    return next(filter(None, shown), "")


def _detail(part: Part, width: float) -> str:
    """What a part holds, in as many words as have room; its size stays longest."""
    size, system = format_size(part.size), part.file_system
    if part.problem:
        told = ["unreadable"]
    elif system:
        label = f"{system.kind} {system.label} {size}" if system.label else ""
        told = [label, f"{system.kind} {size}", size]
    else:
        told = [f"{part.foreign} {size}" if part.foreign else "", size]
    return next((each for each in told if each and clipped(each, _room(width)) == each), "")


def describe(part: Part) -> str:
    """Return a part in one sentence, for those who hear it and for whoever points at it."""
    told = [f"partition {part.number}, type {part.type}" if part.kind is Kind.PARTITION else part.kind.value]
    told.append(f"{format_size(part.size)} from byte {part.start}")
    system = part.file_system
    if system:
        label = f" labelled {system.label}" if system.label else ""
        told.append(f"{system.kind}{label}, {usage(part)} in use")
    if part.foreign:
        told.append(f"{part.foreign}, which is not read")
    if part.problem:
        told.append(f"unreadable: {part.problem}")
    told.append(f"{format_size(part.allocated)} stored")
    return "; ".join(told)


def usage(part: Part) -> str:
    """Return how full a part's file system is, in words; empty where there is none."""
    system = part.file_system
    if system is None or not system.size:
        return ""
    return f"{format_size(system.used)} of {format_size(system.size)} ({system.used / system.size:.0%})"


def _usage(scale: Scale, y: int) -> Iterator[Markup]:
    for _, part, low, width in _spans(scale):
        system = part.file_system
        if system and system.size:
            share = min(1.0, system.used / system.size)
            yield tag("rect", x=percent(low), y=y, width=percent(width * share), height=14, class_="used")
            yield tag("rect", x=percent(low), y=y, width=percent(width), height=14, class_="bar")


def _extents(scale: Scale, y: int) -> Iterator[Markup]:
    height = 22
    for _, part, low, width in _spans(scale):
        yield tag("rect", x=percent(low), y=y, width=percent(width), height=height, class_="holes")
        count = max(2, round(width * _COLUMNS / 100))
        step = width / count
        for first, length, each in _runs(resample(part.bins, count)):
            x, drawn = low + first * step, length * step
            bottom = float(y + height)
            for name, value in (("data", each.data), ("zero", each.zero), ("unknown", each.unknown)):
                # A little is shown as a little, and never as nothing.
                tall = max(2.0, height * value / each.size) if value else 0.0
                if tall:
                    bottom = max(float(y), bottom - tall)
                    yield tag(
                        "rect",
                        x=percent(x),
                        y=round(bottom, 1),
                        width=percent(drawn),
                        height=round(tall, 1),
                        class_=name,
                    )
        yield tag("rect", x=percent(low), y=y, width=percent(width), height=height, class_="frame")


def _runs(bins: Sequence[Bin]) -> Iterator[tuple[int, int, Bin]]:
    """Yield the first bin of each run of bins that look alike, with its place and their number."""
    first = 0
    for index in range(1, len(bins) + 1):
        if index == len(bins) or _look(bins[index]) != _look(bins[first]):
            yield first, index - first, bins[first]
            first = index


def _look(each: Bin) -> tuple[int, ...]:
    return (*(-(-value * 11 // each.size) if each.size else 0 for value in each[:2]), int(each.unknown > 0))


def _boot(picture: Picture, scale: Scale, y: int) -> Iterator[Markup]:
    after = -1.0
    for boot, letter in zip(picture.boot, LETTERS, strict=False):
        x = max(scale.place(boot.start), after)
        after = x + 1.6
        mark = tag("path", d="M0 0L4 7L-4 7Z", class_="boot")
        inner = [tag("title", boot.what), mark, tag("text", letter, x=0, y=19, class_="letter", text_anchor="middle")]
        yield tag(
            "svg", inner, x=percent(min(x, 98.5)), y=y - 8, overflow="visible", class_="mark", width=1, height=20
        )


def _axis(picture: Picture, scale: Scale, y: int) -> Iterator[Markup]:
    yield tag("line", x1=0, x2="100%", y1=y, y2=y, class_="ticks")
    last = -20.0
    for quarter in range(5):
        offset = picture.size * quarter // 4
        x = 100.0 if quarter == 4 else scale.place(offset)
        yield tag("line", x1=percent(x), x2=percent(x), y1=y, y2=y + 5, class_="ticks")
        if x - last < 14 or (quarter < 4 and x > 84):
            continue
        last = x
        anchor = "start" if quarter == 0 else "end" if quarter == 4 else "middle"
        yield tag("text", format_size(offset), x=percent(x), y=y + 18, class_="tick", text_anchor=anchor)
