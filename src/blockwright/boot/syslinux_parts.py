"""The parts of SYSLINUX as they are distributed: three files, or inside the program ``extlinux``.

Upstream's tree has ``ldlinux.bss``, ``ldlinux.sys`` and ``ldlinux.c32`` as files. Debian has the first two within
``/usr/bin/extlinux`` only, which also holds the module that belongs to them; one of another build does not fit.

Knows: how the parts lie in the program. Refuses to know: what is done with them (``syslinux``).

Source: SYSLINUX 6.04: the program's data are boot sector, module and image, in this order, each with its size and
time in read-only data; seen in Debian 12's program.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from blockwright.boot.syslinux import MAGIC, MAX_IMAGE, SECTOR, Syslinux, is_boot_sector
from blockwright.errors import LimitExceeded, NotThisFormat

MAX_PROGRAM: Final = 8 << 20
"""Bytes of the program at the most; it is about 250 KiB."""
MAX_CANDIDATES: Final = 16
"""Places that look like a part, beyond which the program is no program of ours."""
_GAP: Final = 64
"""What alignment may leave between two parts at the most."""
_SECTOR: Final = re.compile(rb"\xeb\x58\x90SYSLINUX")
_IMAGE: Final = re.compile(rb"\r\nSYSLINUX [0-9]")


def from_program(data: bytes, source: str) -> Syslinux:
    """Return the parts that are within the program ``extlinux``. Raises FormatError where they are not."""
    if len(data) > MAX_PROGRAM:
        raise LimitExceeded(f"expected at most {MAX_PROGRAM} bytes, found {len(data)}", source=source)
    if data[:4] != b"\x7fELF":
        raise NotThisFormat("expected the program extlinux, found no ELF program", source=source, offset=0)
    for start in _starts(_SECTOR, data):
        sector = data[start : start + SECTOR]
        if not is_boot_sector(sector):
            continue
        for image in _starts(_IMAGE, data):
            module = data.find(b"\x7fELF", start + SECTOR, start + SECTOR + _GAP + 4)
            if data.find(MAGIC.to_bytes(4, "little"), image, image + 64) < 0 or not 0 <= module < image:
                continue
            sizes = _sizes(data, image - module, len(data) - image)
            if sizes is not None:
                return Syslinux.of(sector, data[image : image + sizes[1]], data[module : module + sizes[0]], source)
    raise NotThisFormat("expected the program extlinux with a loader inside, found none", source=source)


def _starts(pattern: re.Pattern[bytes], data: bytes) -> list[int]:
    found = []
    for match in pattern.finditer(data):
        found.append(match.start())
        if len(found) == MAX_CANDIDATES:
            break
    return found


def _sizes(data: bytes, module_room: int, image_room: int) -> tuple[int, int] | None:
    """Return the sizes of module and image, which stand behind that of the boot sector with a time before each."""
    needle = struct.pack("<I", SECTOR)
    at = data.find(needle)
    tries = 0
    while at >= 0 and tries < 4096:
        if at + 20 <= len(data):
            module, image = (int.from_bytes(data[at + 4 * n : at + 4 * n + 4], "little") for n in (2, 4))
            if module <= module_room < module + _GAP and 4096 <= image <= min(image_room, MAX_IMAGE):
                return module, image
        at = data.find(needle, at + 1)
        tries += 1
    return None
