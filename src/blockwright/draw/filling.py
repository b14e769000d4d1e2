"""What fills a file system, as a treemap in SVG: directories in one another, and files.

Knows: one treemap. Refuses to know: the page around it.
"""

from __future__ import annotations

from typing import Final

from blockwright.draw.markup import Markup, joined, percent, tag
from blockwright.draw.picture import Contents, Folder
from blockwright.draw.treemap import Box, squarify
from blockwright.draw.words import clipped, number
from blockwright.units import format_size

WIDTH: Final = 960
HEIGHT: Final = 380
_DRAWN: Final = 0.95
"""How much of WIDTH a treemap is drawn at least, where there is a sheet or a full page for it."""
_HEAD: Final = 20
_LEVELS: Final = 2
_LEAST: Final = 3.0
"""Pixels below which a box is not drawn apart."""

STYLE: Final = """
.folder{fill:var(--folder);stroke:var(--page);stroke-width:2}.inner{fill:var(--inner);stroke:var(--line)}
.file{fill:var(--file);stroke:var(--line)}.label{fill:var(--on-part);font-size:12px}
.heading{fill:var(--on-part);font-size:13px;font-weight:600}
"""


def treemap(contents: Contents, prefix: str = "", *, height: int = HEIGHT) -> Markup:
    """Return a treemap of WIDTH by ``height``; with a prefix, what lies at the top links to ``#PREFIX-N``."""
    whole = Box(0, 0, WIDTH, height)
    children = contents.root.children
    drawn = []
    for index, (child, box) in enumerate(
        zip(children, squarify([each.size for each in children], whole), strict=True)
    ):
        if min(box.width, box.height) >= _LEAST:
            one = _one(child, box, whole, 0)
            linked = tag("a", one, href=f"#{prefix}-{index}", aria_label=told(child)) if prefix else one
            drawn.append(linked)
    return joined(drawn)


def _one(folder: Folder, box: Box, within: Box, level: int) -> Markup:
    shape = ("inner" if level else "folder") if folder.is_directory else "file"
    inner = [tag("title", told(folder)), tag("rect", width="100%", height="100%", class_=shape)]
    inner += _label(folder, box, "heading" if folder.is_directory and not level else "label")
    if level < _LEVELS and box.height > 2 * _HEAD + 8 and box.width > 40:
        own = Box(0, 0, box.width, box.height)
        places = squarify([each.size for each in folder.children], own.inner(_HEAD, 4))
        for child, place in zip(folder.children, places, strict=True):
            if min(place.width, place.height) >= _LEAST:
                inner.append(_one(child, place, own, level + 1))
    return _framed(inner, box, within)


def _framed(inner: list[Markup], box: Box, within: Box) -> Markup:
    """Return a viewport of its own, in percent of the one around it, at whose edge text ends."""
    return tag(
        "svg",
        inner,
        x=percent(100 * box.x / within.width),
        y=percent(100 * box.y / within.height),
        width=percent(100 * box.width / within.width),
        height=percent(100 * box.height / within.height),
    )


def _label(folder: Folder, box: Box, class_: str) -> list[Markup]:
    if box.width < 34 or box.height < 18:
        return []
    name = folder.name + ("/" if folder.is_directory and not folder.name.endswith("/") else "")
    whole, heading, room = f"{name}  {format_size(folder.size)}", class_ == "heading", box.width * _DRAWN - 8
    size = 13 if heading else 12
    text = whole if clipped(whole, room, size=size, bold=heading) == whole else name
    return [tag("text", clipped(text, room, size=size, bold=heading), x=5, y=15, class_=class_)]


def told(folder: Folder) -> str:
    """Return a directory or file in a few words."""
    if folder.is_directory:
        return f"{folder.name}: directory, {format_size(folder.size)}, {number(folder.entries, 'entry', 'entries')}"
    kind = "file, " if folder.is_file else f"{number(folder.entries, 'entry', 'entries')}, " if folder.entries else ""
    return f"{folder.name}: {kind}{format_size(folder.size)}"
