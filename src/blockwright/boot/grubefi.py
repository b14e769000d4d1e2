"""GRUB's image for UEFI: where it looks for its configuration.

Knows: the modules' area of the image, and the prefix in it. Refuses to know: everything else in it.

Source: GRUB 2.06, include/grub/kernel.h (struct grub_module_info64 and 32, struct grub_module_header).
"""

from __future__ import annotations

import re
import struct
from typing import Final

from blockwright.boot import pe
from blockwright.errors import Corrupt, LimitExceeded, NotThisFormat, Unsupported

MAX_OBJECTS: Final = 1024
_SECTION: Final = "mods"
_MAGIC: Final = 0x676D696D
_INFO_64: Final = struct.Struct("<IIQQ")
_INFO_32: Final = struct.Struct("<III")
_OBJECT: Final = struct.Struct("<II")
_PREFIX: Final = 3
_PE_PLUS: Final = 0x20B
_PATH: Final = re.compile(r"(?P<device>\([^)]*\))?(?P<path>(?:/[A-Za-z0-9._+-]+)+)/?")


def config_path(data: bytes, source: str) -> str:
    """Return where, on the partition it is started from, the image reads ``grub.cfg``, without a leading slash.

    Raises NotThisFormat for what is no image of GRUB, Corrupt and LimitExceeded for one that breaks its rules,
    Unsupported for one that brings its own configuration.
    """
    program = pe.read(data, source)
    section = program.section(_SECTION)
    if section is None:
        raise NotThisFormat("expected an image of GRUB with its modules, found another program", source=source)
    area = memoryview(data)[section.offset : section.offset + section.file_size]
    wide = program.optional.magic == _PE_PLUS
    layout = _INFO_64 if wide else _INFO_32
    if len(area) < layout.size:
        raise Corrupt("modules: expected their header, found the end", source=source, offset=section.offset)
    magic, *_, offset, size = layout.unpack_from(area)
    if magic != _MAGIC or not layout.size <= offset <= size <= len(area):
        raise Corrupt(
            f"modules: expected {_MAGIC:#x} and a size of up to {len(area)}, found {magic:#x} and {size}",
            source=source,
            offset=section.offset,
        )
    for _ in range(MAX_OBJECTS):
        if offset + _OBJECT.size > size:
            break
        kind, length = _OBJECT.unpack_from(area, offset)
        if not _OBJECT.size <= length <= size - offset:
            raise Corrupt(
                f"modules: expected an object of up to {size - offset} bytes, found {length}",
                source=source,
                offset=section.offset + offset,
            )
        if kind == _PREFIX:
            return _path(bytes(area[offset + _OBJECT.size : offset + length]), source)
        offset += length
    else:
        raise LimitExceeded(f"modules: expected at most {MAX_OBJECTS}, found more", source=source)
    raise Unsupported("expected an image of GRUB that has a prefix, found none", source=source)


def _path(raw: bytes, source: str) -> str:
    text = raw.split(b"\0", 1)[0].decode("ascii", "replace")
    match = _PATH.fullmatch(text)
    if match is None or ".." in text or (match["device"] or "").startswith("(memdisk"):
        raise Unsupported(
            f"expected an image of GRUB that reads its configuration beside itself, found the prefix {text[:64]!r}",
            source=source,
        )
    return match["path"][1:] + "/grub.cfg"
