"""Changes in place: FAT12, FAT16 and FAT32."""

from __future__ import annotations

from blockwright.fs.fat.edit.editor import FatEditor, open  # noqa: A004  # edit.open reads as it should

__all__ = ["FatEditor", "open"]
