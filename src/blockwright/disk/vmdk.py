"""A VMDK descriptor over a raw image: text that has a hypervisor take the image as it is.

Knows: which image a descriptor is for. Refuses to know: the descriptor's lines (``format.vmdk.descriptor``).
"""

from __future__ import annotations

import os

from blockwright.device.output import OutputFile
from blockwright.errors import NotFound, UsageError
from blockwright.format.probe import HEAD, look_for_image
from blockwright.format.vmdk.descriptor import MONOLITHIC_FLAT, NO_PARENT, Descriptor, Extent, text_of
from blockwright.units import SECTOR


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
    extent = Extent("RW", size, "FLAT", os.fsencode(path))
    text = text_of(Descriptor(content_id % NO_PARENT, MONOLITHIC_FLAT, (extent,)))
    with OutputFile(output, force=force, size=len(text)) as out:
        out.device.write(0, text)
