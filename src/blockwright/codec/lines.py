"""Lines of a text as the formats have them that were made by others: a line feed ends one, and nothing else does.

Knows: that a carriage return before it belongs to it. Refuses to know: what lines say. ``str.splitlines`` also splits
at form feeds, separators and U+2028, which such formats have within a line.
"""

from __future__ import annotations


def lines_of(text: str) -> list[str]:
    """Return the lines without their ends; there is none behind the last line feed."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
