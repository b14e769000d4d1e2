"""The SYSLINUX boot loader as bytes: its parts, and what must be written into them so that they find each other.

The boot sector holds the address of the first sector of ``ldlinux.sys``; that holds the addresses of all others,
the directory its configuration is in, and at its end the auxiliary data vector (ADV), twice. Addresses count in
sectors of 512 bytes from the start of the partition.

Knows: which bytes of the parts say what. Refuses to know: where the parts come from (``syslinux_parts``), and file
systems.

Source: SYSLINUX 6.04, doc/distrib.txt ("SYSLINUX patch area") and doc/gpt.txt; checked against what extlinux
installs.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from blockwright.codec.record import Record, u16, u32
from blockwright.errors import Corrupt, LimitExceeded, NotThisFormat, Unsupported, UsageError
from blockwright.fs.reader import Placed

SECTOR: Final = 512
MAGIC: Final = 0x3EB202FE
"""Marks the patch area, and is the sum of all 32-bit words of an installed ``ldlinux.sys``."""
MAX_IMAGE: Final = 1 << 20
"""Bytes of ``ldlinux.sys`` at the most; it is loaded below 640 KiB."""
ADV_SIZE: Final = 512
LAST_WITHOUT_64BIT: Final = (6, 3)
"""The last version whose ext4 driver reads block numbers of 32 bits only."""

_ADV_HEAD: Final = 0x5A2D2FA5
_ADV_SUM: Final = 0xA3041767
_ADV_TAIL: Final = 0xDD28BF64
_MAX_EXTENT: Final = 65535 // SECTOR
"""Sectors that one entry may span: the loader reads each into one segment."""
_EXTENT: Final = struct.Struct("<QH")
_JUMP: Final = re.compile(rb"\xeb\x58\x90SYSLINUX")
_BANNER: Final = re.compile(rb"\r\nSYSLINUX ([0-9]{1,2})\.([0-9]{1,3})")
_PLACEHOLDERS: Final = (0xDEADBEEF, 0xFEEDFACE)
"""What an uninstalled boot sector has where the two halves of the first address go."""


class PatchArea(Record, size=24):
    """What ``ldlinux.sys`` says of itself, from its magic on."""

    magic: int = u32(0)
    instance: int = u32(4)
    data_sectors: int = u16(8)
    adv_sectors: int = u16(10)
    dwords: int = u32(12)
    checksum: int = u32(16)
    max_transfer: int = u16(20)
    extended: int = u16(22)


class ExtendedArea(Record, size=20):
    """Where in ``ldlinux.sys``, and in the boot sector (``sector_…``), the installer's values go."""

    adv_pointers: int = u16(0)
    directory: int = u16(2)
    directory_size: int = u16(4)
    subvolume: int = u16(6)
    subvolume_size: int = u16(8)
    extents: int = u16(10)
    extent_count: int = u16(12)
    sector_low: int = u16(14)
    sector_high: int = u16(16)
    sector_raid: int = u16(18)


class Installed(NamedTuple):
    """A boot sector without a file system's own fields, and all bytes of ``ldlinux.sys``."""

    boot_sector: bytes
    image: bytes


@dataclass(frozen=True, slots=True)
class Syslinux:
    """The parts of one build, which only work with each other; ``image`` is ``ldlinux.sys`` as it is distributed."""

    boot_sector: bytes
    image: bytes
    module: bytes
    version: tuple[int, int]

    @classmethod
    def of(cls, boot_sector: bytes, image: bytes, module: bytes, source: str) -> Syslinux:
        """Return the parts, each held to what it must be. Raises NotThisFormat, Corrupt, LimitExceeded."""
        if not is_boot_sector(boot_sector):
            raise NotThisFormat("expected a boot sector of SYSLINUX, found something else", source=source)
        banner = _BANNER.match(image)
        if banner is None:
            raise NotThisFormat("expected ldlinux.sys, found something else", source=source)
        if len(image) > MAX_IMAGE:
            raise LimitExceeded(f"ldlinux.sys: expected at most {MAX_IMAGE} bytes, found {len(image)}", source=source)
        if module[:4] != b"\x7fELF":
            raise NotThisFormat("ldlinux.c32: expected an ELF module, found something else", source=source)
        version = int(banner[1]), int(banner[2])
        if version < (4, 6):
            raise Unsupported(
                f"SYSLINUX: expected version 4.06 or newer, found {version[0]}.{version[1]:02}", source=source
            )
        made = cls(bytes(boot_sector), image.ljust(-(-len(image) // 4) * 4, b"\0"), module, version)
        made.areas()
        return made

    @property
    def size(self) -> int:
        """Bytes in ``ldlinux.sys`` as it is installed, with the ADV."""
        return -(-len(self.image) // SECTOR) * SECTOR + 2 * ADV_SIZE

    def blank(self) -> bytes:
        """Return ``ldlinux.sys`` before it knows where it lies; as long as it will be."""
        return self.image.ljust(self.size - 2 * ADV_SIZE, b"\0") + 2 * empty_adv()

    def areas(self) -> tuple[int, PatchArea, ExtendedArea]:
        """Return the byte at which the patch area lies, the area and its extension. Raises Corrupt."""
        at = self.image.find(MAGIC.to_bytes(4, "little"), 0, 64)
        if at < 0:
            raise NotThisFormat(f"ldlinux.sys: expected {MAGIC:#x} within 64 bytes, found none")
        if at + PatchArea.SIZE > len(self.image):
            raise Corrupt("ldlinux.sys: expected a patch area, found the end", offset=at)
        area = PatchArea.parse(self.image, at)
        if area.extended + ExtendedArea.SIZE > len(self.image):
            raise Corrupt(
                f"ldlinux.sys: the extended patch area lies behind its end: {area.extended}", offset=at + 22
            )
        more = ExtendedArea.parse(self.image, area.extended)
        written = (
            (at, PatchArea.SIZE, "the patch area"),
            (area.extended, ExtendedArea.SIZE, "its extension"),
            (more.adv_pointers, 16, "the pointers to the ADV"),
            (more.directory, more.directory_size, "the directory"),
            (more.extents, more.extent_count * _EXTENT.size, "the extents"),
        )
        for what, end, limit in (
            *((what, start + size, len(self.image)) for start, size, what in written),
            ("the first address's low half", more.sector_low + 4, 0x1F8),
            ("the first address's high half", more.sector_high + 4, 0x1F8),
        ):
            if end > limit:
                raise Corrupt(f"ldlinux.sys: {what}: expected to end by byte {limit}, found {end}")
        # The checksum is a word of the sum only where it is aligned, and where nothing else is written over it.
        if at % 4:
            raise Corrupt("ldlinux.sys: expected the patch area at a multiple of 4 bytes", offset=at)
        for (start, size, what), (place, _, other) in itertools.pairwise(sorted(written)):
            if start + size > place:
                raise Corrupt(f"ldlinux.sys: {what}: lies over {other}", offset=place)
        for place, value in zip((more.sector_low, more.sector_high), _PLACEHOLDERS, strict=True):
            found = int.from_bytes(self.boot_sector[place : place + 4], "little")
            if found != value:
                raise Corrupt(f"SYSLINUX boot sector: expected {value:#x}, found {found:#x}", offset=place)
        return at, area, more

    def install(self, runs: Sequence[Placed], directory: str) -> Installed:
        """Return the parts for a ``ldlinux.sys`` whose bytes lie where ``runs`` say, relative to the partition.

        ``directory`` is the absolute path of its directory. Raises UsageError for a path that is too long, for a file
        that has holes, is in too many pieces, or does not lie in whole sectors.
        """
        at, area, more = self.areas()
        path = directory.encode()
        if len(path) >= more.directory_size:
            raise UsageError(
                f"{directory}: expected a path of less than {more.directory_size} bytes, found {len(path)}"
            )
        sectors = sector_map(runs, self.size)
        image = bytearray(self.blank())
        body = len(sectors) - 2
        area.replace(data_sectors=body, adv_sectors=2, dwords=len(self.image) // 4, checksum=0).pack_into(image, at)
        extents = _extents(sectors[1:body])
        if len(extents) > more.extent_count:
            raise UsageError(
                f"ldlinux.sys: expected at most {more.extent_count} pieces, found {len(extents)}: free space is too"
                " fragmented"
            )
        table = b"".join(_EXTENT.pack(*each) for each in extents)
        room = more.extent_count * _EXTENT.size
        image[more.extents : more.extents + room] = table.ljust(room, b"\0")
        image[more.adv_pointers : more.adv_pointers + 16] = struct.pack("<QQ", *sectors[body:])
        image[more.directory : more.directory + len(path) + 1] = path + b"\0"
        checksum = (MAGIC - word_sum(image[: len(self.image)])) & 0xFFFFFFFF
        image[at + 16 : at + 20] = checksum.to_bytes(4, "little")
        boot = bytearray(self.boot_sector)
        boot[more.sector_low : more.sector_low + 4] = (sectors[0] & 0xFFFFFFFF).to_bytes(4, "little")
        boot[more.sector_high : more.sector_high + 4] = (sectors[0] >> 32).to_bytes(4, "little")
        return Installed(bytes(boot), bytes(image))


def is_boot_sector(data: bytes) -> bool:
    """Whether these are the 512 bytes of a SYSLINUX boot sector."""
    return (
        len(data) == SECTOR
        and _JUMP.match(data) is not None
        and data[0x1F8:0x1FC] == MAGIC.to_bytes(4, "little")
        and data[0x1FE:] == b"\x55\xaa"
    )


def empty_adv() -> bytes:
    """Return an auxiliary data vector that says nothing."""
    data = bytes(ADV_SIZE - 12)
    checksum = (_ADV_SUM - word_sum(data)) & 0xFFFFFFFF
    return struct.pack("<II", _ADV_HEAD, checksum) + data + struct.pack("<I", _ADV_TAIL)


def word_sum(data: bytes | bytearray) -> int:
    """Return the sum of all little-endian 32-bit words, modulo 2**32."""
    words: tuple[int, ...] = struct.unpack(f"<{len(data) // 4}I", data)
    return sum(words) & 0xFFFFFFFF


def sector_map(runs: Sequence[Placed], size: int) -> list[int]:
    """Return the sector of each 512 bytes of a file of ``size`` bytes. Raises UsageError where one has none."""
    sectors: list[int] = []
    for run in runs:
        if run.offset != len(sectors) * SECTOR or run.position % SECTOR:
            break
        count = min(-(-run.length // SECTOR), -(-size // SECTOR) - len(sectors))
        sectors.extend(range(run.position // SECTOR, run.position // SECTOR + count))
    if len(sectors) * SECTOR < size:
        raise UsageError(
            f"ldlinux.sys: expected {size} bytes in whole sectors without holes, found a break at byte"
            f" {len(sectors) * SECTOR}"
        )
    return sectors


def on_ext(boot_sector: bytes, *, start: int, size: int) -> bytes:
    """Return the sector for an ext file system of ``size`` bytes in a partition at byte ``start``.

    It gets the fields of a FAT volume that the loader asks for; ext leaves its first 1024 bytes to boot loaders.
    """
    sector = bytearray(boot_sector)
    total = size // SECTOR
    struct.pack_into("<H", sector, 11, SECTOR)
    struct.pack_into("<H", sector, 19, total if total < 1 << 16 else 0)
    struct.pack_into("<HHI", sector, 24, 32, 64, (start // SECTOR) & 0xFFFFFFFF)
    struct.pack_into("<I", sector, 32, min(total, 0xFFFFFFFF))
    return bytes(sector)


def _extents(sectors: Sequence[int]) -> list[tuple[int, int]]:
    """Return (first sector, sectors) of runs, none longer than the loader reads at once."""
    found: list[tuple[int, int]] = []
    for sector in sectors:
        if found and sector == sum(found[-1]) and found[-1][1] < _MAX_EXTENT:
            found[-1] = found[-1][0], found[-1][1] + 1
        else:
            found.append((sector, 1))
    return found
