"""A VMDK descriptor over a raw image: text that has a hypervisor take the image as it is.

Knows: the descriptor's lines. Refuses to know: every other kind of VMDK.

Source: VMware, Virtual Disk Format 5.0, "The Descriptor" and "Geometry".
"""

from __future__ import annotations

import os
from typing import Final

from blockwright.device.output import OutputFile
from blockwright.errors import NotFound, UsageError
from blockwright.format.probe import HEAD, look_for_image
from blockwright.units import SECTOR

_HEADS: Final = 16
_SECTORS: Final = 63
_MAX_CYLINDERS: Final = 16383
_NO_PARENT: Final = 0xFFFFFFFF


def write_descriptor(image: str, output: str, *, content_id: int, force: bool = False) -> None:
    """Make ``output`` the descriptor of the raw ``image``, which it names relative to itself.

    ``content_id`` is what hypervisors tell disks by; two at once must not have the same. Raises NotFound without the
    image; UsageError for one that is not raw, for a size that is no whole number of sectors, for a path that a
    descriptor cannot say, and where ``output`` exists without ``force``.
    """
    try:
        with open(image, "rb") as file:
            size, found = os.fstat(file.fileno()).st_size, look_for_image(file.read(HEAD))
    except FileNotFoundError:
        raise NotFound(f"{image}: no such file") from None
    if found is not None:
        raise UsageError(f"{image}: expected a raw image, found {found}")
    if size == 0 or size % SECTOR:
        raise UsageError(f"{image}: expected whole sectors of {SECTOR} bytes, found {size} bytes")
    folder = os.path.dirname(os.path.realpath(output))
    path = os.path.relpath(os.path.realpath(image), folder)
    if os.path.realpath(image) == os.path.realpath(output):
        raise UsageError(f"{output}: expected another name than the image's")
    text = descriptor(path, size // SECTOR, content_id=content_id).encode("utf-8", "surrogateescape")
    with OutputFile(output, force=force, size=len(text)) as out:
        out.device.write(0, text)


def descriptor(path: str, sectors: int, *, content_id: int) -> str:
    """Return the text for an image of so many sectors of 512 bytes at ``path``. Raises UsageError for such a path."""
    if any(each in path for each in '"\n\r\0'):
        raise UsageError(f"{path!a}: expected a path without quotation marks and line breaks")
    cylinders = min(sectors // (_HEADS * _SECTORS), _MAX_CYLINDERS)
    lines = (
        "# Disk DescriptorFile",
        "version=1",
        'encoding="UTF-8"',
        f"CID={content_id % _NO_PARENT:08x}",
        f"parentCID={_NO_PARENT:08x}",
        'createType="monolithicFlat"',
        "",
        "# Extent description",
        f'RW {sectors} FLAT "{path}" 0',
        "",
        "# The Disk Data Base",
        "#DDB",
        "",
        'ddb.virtualHWVersion = "4"',
        'ddb.adapterType = "ide"',
        f'ddb.geometry.cylinders = "{max(cylinders, 1)}"',
        f'ddb.geometry.heads = "{_HEADS}"',
        f'ddb.geometry.sectors = "{_SECTORS}"',
    )
    return "\n".join(lines) + "\n"
