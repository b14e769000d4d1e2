"""A unified kernel image: systemd's stub with a kernel, its RAM disk and its command line as sections behind its own.

Knows: which sections there are, and what appending them changes in the stub's headers. Refuses to know: what the stub
does, and where the parts come from.

Source: UAPI.5 Unified Kernel Image, "PE Sections"; Microsoft PE format, "Section Table".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from blockwright.boot import pe
from blockwright.errors import LimitExceeded, NotThisFormat, Unsupported, UsageError
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.joined import JoinedContent
from blockwright.units import align_up

ORDER: Final = (".osrel", ".cmdline", ".uname", ".dtb", ".splash", ".initrd", ".linux")
"""The sections that can be given, in the order they are appended: the kernel last, which may grow in memory."""
MAX_STUB: Final = 4 << 20
MAX_IMAGE: Final = 0xFFFFFFFF
_INITIALIZED_AND_READABLE: Final = 0x40000040
_MARK: Final = b"#### LoaderInfo: systemd-stub"


def assemble(stub: bytes, sections: Mapping[str, Content], source: str) -> Content:
    """Return the image that ``stub`` becomes with ``sections``, which have names of ``ORDER``; none may be empty.

    Raises NotThisFormat for a stub that is no EFI program, Unsupported for one that is signed, has such a section
    already or no room for their headers, LimitExceeded where the whole passes 4 GiB.
    """
    unknown = [name for name in sections if name not in ORDER]
    if unknown or ".linux" not in sections:
        raise UsageError(f"unified kernel image: expected .linux and sections of {ORDER}, found {list(sections)}")
    if len(stub) > MAX_STUB:
        raise LimitExceeded(f"expected a stub of at most {MAX_STUB} bytes, found {len(stub)}", source=source)
    program = pe.read(stub, source)
    _check(program, stub, sections, source)
    optional = program.optional
    head = bytearray(stub[: program.file_end])
    parts: list[Content] = []
    address = align_up(program.memory_end, optional.section_alignment)
    offset = align_up(len(head), optional.file_alignment)
    padding = offset - len(head)
    entry, total = program.sections_at + len(program.sections) * pe.SectionHeader.SIZE, 0
    for name in ORDER:
        content = sections.get(name)
        if content is None:
            continue
        if not content.size:
            raise UsageError(f"unified kernel image: section {name}: expected content, found none")
        length = align_up(content.size, optional.file_alignment)
        if max(address, offset) + length > MAX_IMAGE:
            raise LimitExceeded(f"unified kernel image: expected less than 4 GiB with {name}")
        head[entry : entry + pe.SectionHeader.SIZE] = bytes(pe.SectionHeader.SIZE)
        pe.SectionHeader(
            name=name.encode(),
            virtual_size=content.size,
            virtual_address=address,
            size_of_raw_data=length,
            pointer_to_raw_data=offset,
            characteristics=_INITIALIZED_AND_READABLE,
        ).pack_into(head, entry)
        parts += [content, BytesContent(bytes(length - content.size))]
        entry += pe.SectionHeader.SIZE
        offset += length
        total += length
        address = align_up(address + content.size, optional.section_alignment)
    # Symbols lie behind the stub's sections, where the first of ours is now.
    pe.FileHeader.parse(head, program.file_header_at).replace(
        number_of_sections=len(program.sections) + len(sections), pointer_to_symbol_table=0, number_of_symbols=0
    ).pack_into(head, program.file_header_at)
    optional.replace(
        size_of_image=address,
        size_of_initialized_data=(optional.size_of_initialized_data + total) & 0xFFFFFFFF,
        checksum=0,
    ).pack_into(head, program.optional_at)
    return JoinedContent([BytesContent(bytes(head) + bytes(padding)), *parts])


def _check(program: pe.Program, stub: bytes, sections: Mapping[str, Content], source: str) -> None:
    if _MARK not in stub:
        raise NotThisFormat("expected systemd's stub for unified kernel images, found another program", source=source)
    if program.signed:
        raise Unsupported("expected a stub without a signature, which more sections would break", source=source)
    for name in sections:
        if program.section(name) is not None:
            raise Unsupported(f"expected a stub without {name}: this is an image already", source=source)
    table_end = program.sections_at + (len(program.sections) + len(sections)) * pe.SectionHeader.SIZE
    first = min([program.optional.size_of_headers, *[each.offset for each in program.sections if each.file_size]])
    if table_end > first:
        raise Unsupported(
            f"expected room for {len(sections)} more section headers before byte {first}, found them to end at"
            f" {table_end}",
            source=source,
        )
