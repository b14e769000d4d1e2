"""What an image says of itself, for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Description:
    """The image's format, the bytes of its file, details as (name, value) in the order in which to show them."""

    name: str
    file_size: int
    details: tuple[tuple[str, str], ...]
    snapshots: tuple[str, ...] = ()
    bitmaps: tuple[str, ...] = ()


class Described:
    """Part of a device that is the disk of an image."""

    def describe(self) -> Description | None:
        """Return what the image says of itself, None where it says nothing. Raises FormatError, OSError."""
        return None
