"""What a file's first bytes make of it, where nobody says which format it has.

Knows: marks of image formats, and where they lie. Refuses to know: the formats themselves.
"""

from __future__ import annotations

from typing import Final

HEAD: Final = 512
"""Bytes in which every mark lies."""

MARKS: Final = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"conectix", "vhd"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (257, b"ustar", "tar"),
)
"""(offset, bytes, format) of each."""

NO_IMAGES: Final = frozenset({"tar"})
"""What marks name that is no image of a disk, and is a raw one where a disk is expected."""


def look(head: bytes) -> str | None:
    """Return the format that an image with these first bytes would be taken for, None for a raw one."""
    return next((name for offset, mark, name in MARKS if head.startswith(mark, offset)), None)


def look_for_image(head: bytes) -> str | None:
    """Return the format of disk images that these first bytes name, None for a raw one."""
    found = look(head)
    return None if found in NO_IMAGES else found
