"""A content without its holes: what reads as zeros is data, too.

Knows: that. Refuses to know: who cannot read holes.
"""

from __future__ import annotations

from blockwright.tree.content import Content


class SolidContent(Content):
    """The same bytes as another content, all of them data."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Content) -> None:
        super().__init__(inner.size)
        self._inner = inner

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Read from the other content."""
        self._inner.read_into(offset, buffer)


def is_solid(content: Content) -> bool:
    """Whether a content has no holes."""
    return sum(length for _, length in content.runs()) == content.size
