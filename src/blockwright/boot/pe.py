"""An EFI program's headers and sections, in the form that Windows calls PE.

Knows: fields and their bounds. Refuses to know: what a section is for, and the program's code.

Source: Microsoft PE format, "COFF File Header", "Optional Header", "Section Table"; UEFI 2.10 section 2.1.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from blockwright.codec.record import Record, raw, u16, u32
from blockwright.errors import Corrupt, LimitExceeded, NotThisFormat

MAX_SECTIONS: Final = 96
"""What Windows loads at the most."""
CERTIFICATES: Final = 4
"""The data directory that tells where signatures are."""
_OPTIONAL_PLUS, _OPTIONAL_32 = 0x20B, 0x10B
_DIRECTORIES: Final = {_OPTIONAL_PLUS: 108, _OPTIONAL_32: 92}
"""Where, in the optional header, the number of data directories is; they follow."""
_SIGNATURE: Final = b"PE\0\0"


class FileHeader(Record, size=20):
    """The COFF file header, behind the signature."""

    machine: int = u16(0)
    number_of_sections: int = u16(2)
    pointer_to_symbol_table: int = u32(8)
    number_of_symbols: int = u32(12)
    size_of_optional_header: int = u16(16)


class OptionalHeader(Record, size=68):
    """What both widths have at the same place, and a linker's sums."""

    magic: int = u16(0)
    size_of_initialized_data: int = u32(8)
    section_alignment: int = u32(32)
    file_alignment: int = u32(36)
    size_of_image: int = u32(56)
    size_of_headers: int = u32(60)
    checksum: int = u32(64)


class SectionHeader(Record, size=40):
    """One entry of the section table."""

    name: bytes = raw(0, 8)
    virtual_size: int = u32(8)
    virtual_address: int = u32(12)
    size_of_raw_data: int = u32(16)
    pointer_to_raw_data: int = u32(20)
    characteristics: int = u32(36)


class Section(NamedTuple):
    """A section: its name, and where its bytes are in memory and in the file."""

    name: str
    address: int
    size: int
    offset: int
    file_size: int


@dataclass(frozen=True, slots=True)
class Program:
    """An EFI program. ``optional_at`` and ``sections_at`` are bytes of the file; ``signed``: it has a certificate."""

    machine: int
    optional: OptionalHeader
    file_header_at: int
    optional_at: int
    sections_at: int
    sections: tuple[Section, ...]
    signed: bool

    def section(self, name: str) -> Section | None:
        """Return the first section of that name, or None."""
        return next((each for each in self.sections if each.name == name), None)

    @property
    def memory_end(self) -> int:
        """The first address behind all sections."""
        return max((each.address + each.size for each in self.sections), default=0)

    @property
    def file_end(self) -> int:
        """The first byte of the file behind all sections and headers."""
        ends = [each.offset + each.file_size for each in self.sections]
        return max([self.optional.size_of_headers, *ends])


def read(data: bytes, source: str) -> Program:
    """Return what a whole program says of itself.

    Raises NotThisFormat for what is no EFI program, Corrupt and LimitExceeded for one that breaks its rules.
    """
    at = int.from_bytes(data[0x3C:0x40], "little")
    if data[:2] != b"MZ" or data[at : at + 4] != _SIGNATURE:
        raise NotThisFormat("expected an EFI program (PE), found something else", source=source, offset=0)
    header_at = at + len(_SIGNATURE)
    optional_at = header_at + FileHeader.SIZE
    if optional_at + OptionalHeader.SIZE > len(data):
        raise Corrupt("expected PE headers, found the end", source=source, offset=header_at)
    header, optional = FileHeader.parse(data, header_at), OptionalHeader.parse(data, optional_at)
    if optional.magic not in _DIRECTORIES:
        raise NotThisFormat(f"expected a PE32 or PE32+ program, found {optional.magic:#x}", source=source)
    _check_alignment(optional, source, optional_at)
    sections_at = optional_at + header.size_of_optional_header
    count = header.number_of_sections
    if count > MAX_SECTIONS:
        raise LimitExceeded(f"expected at most {MAX_SECTIONS} sections, found {count}", source=source)
    if header.size_of_optional_header < OptionalHeader.SIZE or sections_at + count * SectionHeader.SIZE > len(data):
        raise Corrupt("its section table lies behind its end", source=source, offset=header_at)
    if optional.size_of_headers > len(data):
        raise Corrupt(
            f"headers: expected to end by byte {len(data)}, found {optional.size_of_headers}",
            source=source,
            offset=optional_at + 60,
        )
    sections = tuple(_section(data, sections_at + 40 * number, source) for number in range(count))
    signed = _directory(data, optional_at, sections_at, CERTIFICATES, _DIRECTORIES[optional.magic])
    return Program(header.machine, optional, header_at, optional_at, sections_at, sections, signed)


def _check_alignment(optional: OptionalHeader, source: str, at: int) -> None:
    for what, value, offset in (
        ("section alignment", optional.section_alignment, 32),
        ("file alignment", optional.file_alignment, 36),
    ):
        if value.bit_count() != 1 or not 16 <= value <= 1 << 16:
            raise Corrupt(
                f"{what}: expected a power of two from 16 to 65536, found {value}", source=source, offset=at + offset
            )


def _section(data: bytes, at: int, source: str) -> Section:
    header = SectionHeader.parse(data, at)
    name = header.name.rstrip(b"\0").decode("ascii", "backslashreplace")
    end = header.pointer_to_raw_data + header.size_of_raw_data
    if header.size_of_raw_data and end > len(data):
        raise Corrupt(f"section {name}: expected to end by byte {len(data)}, found {end}", source=source, offset=at)
    if header.virtual_address + header.virtual_size > 1 << 32:
        raise Corrupt(f"section {name}: lies behind the end of 32-bit addresses", source=source, offset=at)
    return Section(
        name, header.virtual_address, header.virtual_size, header.pointer_to_raw_data, header.size_of_raw_data
    )


def _directory(data: bytes, optional_at: int, end: int, number: int, count_at: int) -> bool:
    """Whether a data directory says that it has something."""
    at = optional_at + count_at
    if at + 4 > end or number >= int.from_bytes(data[at : at + 4], "little"):
        return False
    entry = at + 4 + 8 * number
    return entry + 8 <= end and any(data[entry + 4 : entry + 8])
