"""What a file's first bytes make of it, where nobody says which format it has.

Knows: marks, and where they lie. Refuses to know: the formats themselves.
"""

from __future__ import annotations

from typing import Final

from blockwright.format.registry import FORMATS

HEAD: Final = 512
"""Bytes in which every mark lies."""

_UNREAD: Final = (
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (257, b"ustar", "tar"),
)
"""Of what is known by its mark and not read. A format that comes to be read takes its own into the registry."""

MARKS: Final = (*((offset, mark, each.name) for each in FORMATS for offset, mark in each.marks), *_UNREAD)
"""(offset, bytes, format) of each."""

NO_IMAGES: Final = frozenset({"tar"})
"""What marks name that is no image of a disk, and is a raw one where a disk is expected."""


def look(head: bytes) -> str | None:
    """Return the format that an image with these first bytes would be taken for, None for a raw one."""
    told = next((each.name for each in FORMATS if each.tells is not None and each.tells(head)), None)
    return told or next((name for offset, mark, name in MARKS if head.startswith(mark, offset)), None)


def look_for_image(head: bytes) -> str | None:
    """Return the format of disk images that these first bytes name, None for a raw one."""
    found = look(head)
    return None if found in NO_IMAGES else found
