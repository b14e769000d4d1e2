"""What every file system's ``resize`` module answers with.

Knows: sizes before and after. Refuses to know: how any file system grows or shrinks.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResizeReport:
    """A file system's size before and after, in bytes, in its own blocks, and in block groups.

    ``size`` may be less than what was asked for: whole blocks count, and an end too short for a group is left out.
    ``method`` says how the change was made: "none" where nothing had to be written, "journal" for transactions of
    the file system's own journal, "ordered" for writes in an order from which a check mends every prefix.
    """

    kind: str
    block_size: int
    old_blocks: int
    blocks: int
    old_groups: int
    groups: int
    method: str

    @property
    def old_size(self) -> int:
        """Bytes before."""
        return self.old_blocks * self.block_size

    @property
    def size(self) -> int:
        """Bytes after."""
        return self.blocks * self.block_size
