"""A content whose size is known before its bytes are.

What a boot loader's file holds follows from where it lies, and where it lies from its size: it is planned first, and
filled in before anything reads it.

Knows: that order. Refuses to know: what the bytes are.
"""

from __future__ import annotations

from blockwright.tree.content import Content


class LateContent(Content):
    """``size`` bytes without holes, which ``fill`` says once the plan is made."""

    __slots__ = ("_data",)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._data: bytes | None = None

    def fill(self, data: bytes) -> None:
        """Say what the bytes are; as many as were planned."""
        assert len(data) == self.size, f"planned {self.size} bytes, found {len(data)}"
        self._data = data

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Copy from memory."""
        assert self._data is not None, "read before it was filled"
        buffer[:] = self._data[offset : offset + len(buffer)]
