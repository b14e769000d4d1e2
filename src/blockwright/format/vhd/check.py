"""What is wrong with the structures of a VHD image, with the byte where it is.

Knows: the rules between footers, table and file. Refuses to know: how they are mended.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from blockwright.device.base import BlockDevice
from blockwright.errors import FormatError
from blockwright.finding import Finding
from blockwright.format.blocks import cut_off
from blockwright.format.vhd import layout
from blockwright.format.vhd.device import Image
from blockwright.format.vhd.open import problems, read_image
from blockwright.units import SECTOR, align_up, ceil_div

LEAK = "vhd.leak"
FOOTER = "vhd.footer"
MAX_FINDINGS = 1000


def check(file: BlockDevice) -> list[Finding]:
    """Return what is wrong, at most MAX_FINDINGS of it. Raises FormatError where no footer holds."""
    return list(islice(_check(file), MAX_FINDINGS))


def _check(file: BlockDevice) -> Iterator[Finding]:
    image = read_image(file)
    header = image.header
    if header is None:
        if image.end > align_up(image.footer.size, SECTOR):
            over = image.end - image.footer.size
            yield Finding(LEAK, f"fixed disk: expected the footer behind it, found {over} bytes between", image.end)
        return
    yield from _footers(file, image)
    count = ceil_div(image.footer.size, header.block_size)
    table = layout.entries(file.read(header.table_offset, 4 * count))
    yield from (Finding(rule, message, offset) for rule, message, offset in problems(file, image, table))
    bitmap = layout.bitmap_bytes(header.block_size)
    starts = ((index, entry * SECTOR + bitmap) for index, entry in enumerate(table) if entry != layout.FREE)
    for index, message in cut_off(starts, header.block_size, image.footer.size, file.size):
        yield Finding("vhd.block.cut", message, header.table_offset + 4 * index)
    length = bitmap + header.block_size
    used = max((entry * SECTOR + length for entry in table if entry != layout.FREE), default=0)
    used = max(used, header.table_offset + 4 * count, image.footer.data_offset + header.SIZE)
    if image.end >= align_up(used, SECTOR) + header.block_size:
        yield Finding(LEAK, f"file: expected the footer at {used}, found {image.end - used} unused bytes", used)


def _footers(file: BlockDevice, image: Image) -> Iterator[Finding]:
    """Compare the footer and its copy; one that does not hold can be made anew from the other."""
    wanted = layout.pack_footer(image.footer)
    for offset, what in ((0, "copy of the footer"), (image.end, "footer")):
        data = file.read(offset, SECTOR) if offset + SECTOR <= file.size else b""
        if data == wanted:
            continue
        try:
            layout.parse_footer(data, offset)
            message = f"{what}: expected the same as the other one, found another"
        except FormatError as error:
            message = f"{what}: {error.args[0]}"
        yield Finding(FOOTER, message, offset, repairable=True)
