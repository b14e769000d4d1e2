"""Images of VHD, VHDX and VDI to try things on, those over a parent made by hand, and what qemu-img says of them."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from blockwright.device.base import BlockDevice
from blockwright.device.memory import MemoryDevice
from blockwright.format.blocks import BlockImage
from blockwright.format.vdi import check as vdi_check
from blockwright.format.vdi import create as vdi_create
from blockwright.format.vdi.device import open_vdi
from blockwright.format.vhd import check as vhd_check
from blockwright.format.vhd import create as vhd_create
from blockwright.format.vhd.layout import DIFFERENCING, DynamicHeader, Footer, Locator, pack_footer, pack_header
from blockwright.format.vhd.open import open_vhd, read_image
from blockwright.format.vhdx import check as vhdx_check
from blockwright.format.vhdx import create as vhdx_create
from blockwright.format.vhdx import layout as vhdx
from blockwright.format.vhdx.open import open_vhdx
from blockwright.units import KiB, MiB
from tests.support.qcow2 import GrowingCrash
from tests.support.tools import run, tool

METADATA = 2 * MiB
"""Where our VHDX images have their metadata."""
HARMLESS = {vhd_check.LEAK, vhd_check.FOOTER, vhdx_check.LEAK, vhdx_check.HEADER, vhdx_check.LOG, vdi_check.LEAK}
"""What a power cut may leave: nothing that costs a byte of the disk, and nothing that the next one to write minds."""


@dataclass(frozen=True)
class Format:
    """A format as tests use it: our package's functions, and QEMU's name."""

    create: Callable[..., None]
    check: Callable[[BlockDevice], list[Any]]
    qemu: str
    open: Callable[..., BlockImage]


class Lends:
    """Gives a device where an image names its parent, and keeps the name."""

    def __init__(self, below: BlockDevice | None = None) -> None:
        self.device = below
        self.name: bytes | None = None

    def below(self, name: bytes, form: str | None, what: str = "") -> BlockDevice:
        assert self.device is not None, "the image has no parent"
        self.name = name
        return self.device


VHD = Format(vhd_create.create, vhd_check.check, "vpc", open_vhd)
VHDX = Format(vhdx_create.create, vhdx_check.check, "vhdx", open_vhdx)
VDI = Format(vdi_create.create, vdi_check.check, "vdi", lambda file, files, **more: open_vdi(file, **more))

KINDS: dict[str, tuple[Format, Any]] = {
    "vhd": (VHD, vhd_create.Options(block_size=512 * KiB)),
    "vhd, fixed": (VHD, vhd_create.Options(fixed=True)),
    "vhdx": (VHDX, vhdx_create.Options(block_size=MiB)),
    "vhdx, fixed": (VHDX, vhdx_create.Options(fixed=True, block_size=MiB)),
    "vhdx, sectors of 4 KiB": (VHDX, vhdx_create.Options(block_size=2 * MiB, sector_size=4096)),
    "vdi": (VDI, vdi_create.Options()),
    "vdi, fixed": (VDI, vdi_create.Options(fixed=True)),
}
OVER = {"vhd, differencing": VHD, "vhdx, differencing": VHDX}


class SizedCrash(GrowingCrash):
    """A crash device that remembers how large it was when."""

    def __init__(self, content: bytes, room: int) -> None:
        super().__init__(content, room)
        self.sizes = [(0, len(content))]

    def _resize(self, size: int) -> None:
        super()._resize(size)
        self.sizes.append((len(self.events), size))

    def left(self, count: int, chance: random.Random | None = None) -> MemoryDevice:
        """Return the file after a cut behind ``count`` events: all of it, or what chance has left."""
        sizes = [size for at, size in self.sizes if at <= count]
        if chance is None:
            return MemoryDevice(content=self.cut(count).read(0, sizes[-1]))
        flushed = max((index for index in range(count) if self.events[index].is_flush), default=-1)
        before = [size for at, size in self.sizes if at <= flushed] or sizes[:1]
        return MemoryDevice(content=self.torn(count, chance).read(0, chance.choice((before[-1], sizes[-1]))))


def new(kind: str, size: int) -> MemoryDevice:
    """Return a file in memory with an empty image."""
    found, options = KINDS[kind]
    file = MemoryDevice(0)
    found.create(file, size, options)
    return file


def opened(
    kind: str, file: BlockDevice, *, writable: bool = True, owns: bool = True, below: BlockDevice | None = None
) -> BlockImage:
    """Return the disk in a file."""
    found = OVER[kind] if kind in OVER else KINDS[kind][0]
    return found.open(file, Lends(below), writable=writable, owns=owns)


def format_of(kind: str) -> Format:
    """Return the format of a kind."""
    return OVER[kind] if kind in OVER else KINDS[kind][0]


def parent_of(kind: str, content: bytes) -> MemoryDevice:
    """Return a file with an image of ``content``, for a differencing image to stand on."""
    plain = kind.split(",", maxsplit=1)[0]
    file = new(plain, len(content))
    with opened(plain, file, owns=False) as disk:
        disk.write(0, content)
        disk.flush()
    return file


def lent(kind: str, parent: MemoryDevice | None) -> BlockImage | None:
    """Return the disk in the parent's file, to stand on; the file stays open with whoever has it."""
    return None if parent is None else opened(kind.split(",", maxsplit=1)[0], parent, writable=False, owns=False)


def over(kind: str, parent: MemoryDevice, name: str) -> MemoryDevice:
    """Return a file with a differencing image that is empty and names its parent, made by hand."""
    return _vhd_over(parent, name) if OVER[kind] is VHD else _vhdx_over(parent, name)


def _vhd_over(parent: MemoryDevice, name: str) -> MemoryDevice:
    below = read_image(parent).footer
    file = new("vhd", below.size)
    image = read_image(file)
    assert image.header is not None
    text = name.encode("utf-16-le")
    at = file.size - 512
    locator = Locator(platform=b"W2ru", space=512, length=len(text), offset=at)
    header = image.header.replace(
        parent_uuid=below.uuid, parent_name="parent.vhd".encode("utf-16-be"), locators=locator.pack()
    )
    footer = image.footer.replace(kind=DIFFERENCING, uuid=b"\1" * 16)
    file.resize(file.size + 512)
    file.write(at, text.ljust(512, b"\0"))
    file.write(512, pack_header(header))
    file.write(0, pack_footer(footer))
    file.write(at + 512, pack_footer(footer))
    assert Footer.SIZE == 512
    assert DynamicHeader.SIZE == 1024
    return file


def _vhdx_over(parent: MemoryDevice, name: str) -> MemoryDevice:
    below = opened("vhdx", parent, writable=False, owns=False)
    file = new("vhdx", below.size)
    metadata = bytearray(file.read(METADATA, 128 * KiB))
    values = {
        "relative_path": name,
        "parent_linkage": "{" + str(UUID(bytes_le=below.data_guid)) + "}",
    }
    item = locator_item(values)
    count = int.from_bytes(metadata[10:12], "little")
    at = 96 * KiB
    entry = vhdx.MetadataEntry(guid=vhdx.PARENT, offset=at, length=len(item), flags=vhdx.REQUIRED)
    metadata[32 + 32 * count : 64 + 32 * count] = entry.pack()
    metadata[10:12] = (count + 1).to_bytes(2, "little")
    metadata[64 * KiB + 4 : 64 * KiB + 8] = vhdx.HAS_PARENT.to_bytes(4, "little")
    metadata[at : at + len(item)] = item
    file.write(METADATA, metadata)
    return file


def locator_item(values: dict[str, str]) -> bytes:
    """Return a parent locator's bytes."""
    head = vhdx.LocatorHeader(kind=vhdx.LOCATOR_TYPE, count=len(values)).pack()
    at = len(head) + 12 * len(values)
    table, text = b"", b""
    for pair in values.items():
        key, value = (each.encode("utf-16-le") for each in pair)
        table += vhdx.LocatorEntry(
            key_offset=at + len(text),
            value_offset=at + len(text) + len(key),
            key_length=len(key),
            value_length=len(value),
        ).pack()
        text += key + value
    return head + table + text


def qemu_reads(kind: str) -> bool:
    """Whether QEMU reads such images: it takes VHDX with sectors of 512 bytes only, and nothing over a parent."""
    return kind in KINDS and "4 KiB" not in kind


def qemu_check(kind: str, path: Path) -> None:
    """Fail where qemu-img finds something in the image; it has no check of VHD."""
    name = format_of(kind).qemu
    if name != "vpc":
        run([tool("qemu-img"), "check", "-f", name, path])


def qemu_compare(kind: str, path: Path, raw: Path) -> None:
    """Fail where QEMU reads another disk from the image."""
    run([tool("qemu-img"), "compare", "-f", format_of(kind).qemu, "-F", "raw", path, raw])
