"""Markup that is whole by construction: text is escaped unless it is markup already. HTML that is XML too, and SVG.

Knows: elements and escaping. Refuses to know: what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_VOID: Final = frozenset({"br", "circle", "ellipse", "hr", "line", "link", "meta", "path", "polygon", "rect", "use"})


class Markup(str):
    """Text that was escaped."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """Return text as markup; it may stand in an element or in an attribute between quotes."""
    if isinstance(text, Markup):
        return text
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        text = text.replace(character, entity)
    return Markup(text)


def joined(parts: Iterable[str], by: str = "") -> Markup:
    """Return all parts, escaped where they are not, one behind the other."""
    return Markup(by.join(escaped(part) for part in parts))


def tag(name: str, /, *children: str | Iterable[str], **attributes: str | float | None) -> Markup:
    """Return an element. An attribute of None is left out; ``class_`` is class, ``aria_label`` is aria-label."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(_value(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{told}/>")
    inner = joined(each if isinstance(each, str) else joined(each) for each in children)
    return Markup(f"<{name}{told}>{inner}</{name}>")


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return value
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def percent(value: float) -> str:
    """Return a share of 100 as an attribute's value."""
    return f"{_value(value)}%"
