"""What a program of 32 bits puts into memory, by its section headers.

Knows: the few fields of ELF that this takes. Refuses to know: which program it is.

Source: System V ABI, "ELF Header" and "Sections".
"""

from __future__ import annotations

from typing import Final

from blockwright.codec.record import Record, raw, u16, u32
from blockwright.errors import Corrupt, LimitExceeded, NotThisFormat

MAX_SECTIONS: Final = 64
_MAGIC: Final = b"\x7fELF\x01\x01\x01"
_PROGBITS: Final = 1
_ALLOC: Final = 2


class _Header(Record, size=52):
    ident: bytes = raw(0, 7)
    section_headers: int = u32(32)
    section_header_size: int = u16(46)
    section_count: int = u16(48)


class _Section(Record, size=40):
    kind: int = u32(4)
    flags: int = u32(8)
    address: int = u32(12)
    offset: int = u32(16)
    size: int = u32(20)


def memory_image(data: bytes, base: int, limit: int, source: str) -> bytes:
    """Return what the sections with content are in memory from address ``base`` on, at most ``limit`` bytes.

    Raises NotThisFormat for anything but a little-endian ELF of 32 bits, Corrupt and LimitExceeded by its sections.
    """
    if len(data) < _Header.SIZE or data[:7] != _MAGIC:
        raise NotThisFormat("expected an ELF program of 32 bits, found something else", source=source, offset=0)
    header = _Header.parse(data)
    if header.section_count > MAX_SECTIONS:
        raise LimitExceeded(
            f"expected at most {MAX_SECTIONS} sections, found {header.section_count}", source=source, offset=48
        )
    if header.section_header_size < _Section.SIZE:
        raise Corrupt(
            f"expected section headers of {_Section.SIZE} bytes, found {header.section_header_size}",
            source=source,
            offset=46,
        )
    image = bytearray()
    for number in range(header.section_count):
        at = header.section_headers + number * header.section_header_size
        if at + _Section.SIZE > len(data):
            raise Corrupt(f"section {number}: its header lies behind the end", source=source, offset=at)
        section = _Section.parse(data, at)
        if section.kind != _PROGBITS or not section.flags & _ALLOC:
            continue
        start, end = section.address - base, section.address - base + section.size
        if section.offset + section.size > len(data):
            raise Corrupt(f"section {number}: lies behind the end", source=source, offset=at + 16)
        if start < 0 or end > limit:
            raise LimitExceeded(
                f"section {number}: expected addresses from {base:#x} to {base + limit:#x},"
                f" found {section.address:#x} to {section.address + section.size:#x}",
                source=source,
                offset=at + 12,
            )
        if len(image) < end:
            image.extend(bytes(end - len(image)))
        image[start:end] = data[section.offset : section.offset + section.size]
    if not image:
        raise Corrupt("expected sections with content, found none", source=source)
    return bytes(image)
