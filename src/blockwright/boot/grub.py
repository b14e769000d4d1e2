"""GRUB for a BIOS as bytes: the core image of a kernel and modules, and the sectors that lead to it.

The BIOS runs ``boot.img`` in the first sector, which reads the first sector of the core image, ``diskboot.img``;
that reads the rest, which unpacks itself. They are told where the core lies by absolute sectors of 512 bytes: in a
partition of its own (GPT) or before the first partition (MBR), never within a file system, since files move.

Knows: which bytes say what. Refuses to know: where the parts come from, and tables.

Source: GRUB 2.06, include/grub/offsets.h, include/grub/kernel.h (module area), grub-core/boot/i386/pc; checked
against what grub-mkimage makes.
"""

from __future__ import annotations

import lzma
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from blockwright.boot.elf import memory_image
from blockwright.errors import Corrupt, LimitExceeded, NotFound, NotThisFormat, UsageError
from blockwright.units import align_up, ceil_div

SECTOR: Final = 512
MODULES: Final = (
    *("biosdisk", "part_gpt", "part_msdos", "ext2", "fat", "normal", "linux", "configfile", "boot"),
    *("echo", "test", "ls", "cat", "sleep", "halt", "reboot", "minicmd", "serial", "terminal"),
    *("search", "search_fs_file", "search_fs_uuid", "search_label"),
)
"""What the core holds by default: enough to read its configuration and start Linux without any other file."""
LISTS: Final = tuple(
    f"{each}.lst" for each in ("command", "crypto", "fs", "moddep", "partmap", "parttool", "terminal", "video")
)
"""Which module has which command, and so on."""
MAX_MODULES: Final = 512
MAX_FILE: Final = 1 << 20
"""Bytes of one module or image at the most."""

_MODULE_NAME: Final = re.compile(r"[A-Za-z0-9_+-]{1,64}")
_LINK_ADDRESS: Final = 0x9000
_KERNEL_ROOM: Final = 0x68000 - _LINK_ADDRESS
_CORE_ROOM: Final = 0x78000 - _LINK_ADDRESS
_UNPACKER_ROOM: Final = 0xE00
_UNPACKER_FIELDS: Final = 0x1C
_MODULES_MAGIC: Final = 0x676D696D
_MODULE_HEADER: Final = struct.Struct("<III")
_OBJECT_HEADER: Final = struct.Struct("<II")
_ELF, _CONFIG, _PREFIX = 0, 2, 3
_FILTER: Final = {"id": lzma.FILTER_LZMA1, "dict_size": 64 << 10, "lc": 3, "lp": 0, "pb": 2}
_BLOCKLIST: Final = 0x1F4
_BLOCKLIST_SEGMENT: Final = 0x820
_CORE_SECTOR: Final = 0x5C
_BOOT_DRIVE: Final = 0x64
_DRIVE_CHECK: Final = 0x66
_KEPT: Final = slice(0x03, 0x5A)
"""The fields of a FAT volume in the first sector, which stay."""
BOOT_CODE: Final = 440
"""Bytes of the first sector before the disk's signature and partitions."""


@dataclass(frozen=True, slots=True)
class Grub:
    """The parts of one build for ``i386-pc``; ``read`` returns a file of its directory, None where there is none."""

    read: Callable[[str], bytes | None]
    source: str

    def part(self, name: str) -> bytes:
        """Return a file. Raises NotFound, and LimitExceeded where it is too large."""
        data = self.read(name)
        if data is None:
            raise NotFound(f"{self.source}: holds no {name}")
        if len(data) > MAX_FILE:
            raise LimitExceeded(f"{name}: expected at most {MAX_FILE} bytes, found {len(data)}", source=self.source)
        return data

    def dependencies(self) -> dict[str, list[str]]:
        """Return every module, and what it needs at once, as ``moddep.lst`` says."""
        needs: dict[str, list[str]] = {}
        for line in self.part("moddep.lst").decode("ascii", "replace").splitlines():
            name, _, rest = line.partition(":")
            if _MODULE_NAME.fullmatch(name.strip()):
                needs[name.strip()] = rest.split()
        if len(needs) > MAX_MODULES:
            raise LimitExceeded(f"moddep.lst: expected at most {MAX_MODULES} modules", source=self.source)
        return needs

    def directory(self) -> dict[str, bytes]:
        """Return the files that GRUB looks for in ``i386-pc`` below its prefix: all modules, and their lists."""
        names = self.dependencies().keys() - {"kernel"}  # what it needs is listed, and it is no module
        files = {f"{name}.mod": _module(self.part(f"{name}.mod"), name) for name in sorted(names)}
        return files | {name: data for name in LISTS if (data := self.read(name)) is not None}

    def with_dependencies(self, modules: Iterable[str]) -> list[str]:
        """Return the modules and all they need, each behind what it needs."""
        needs = self.dependencies()
        order: dict[str, None] = {}
        stack: list[tuple[str, bool]] = [(name, False) for name in reversed(list(modules))]
        entered: set[str] = set()
        while stack:
            name, done = stack.pop()
            if done:
                order[name] = None
            elif name not in entered:
                entered.add(name)
                if name not in needs:
                    raise NotFound(f"{self.source}: its moddep.lst names no module {name[:64]!r}")
                stack.append((name, True))
                stack.extend((each, False) for each in needs[name])  # the last first, as grub-mkimage does
        return list(order)

    def payload(self, prefix: str, modules: Iterable[str] = MODULES, config: str | None = None) -> bytes:
        """Return the kernel with its modules, its configuration and where its files are, before it is packed."""
        kernel = memory_image(self.part("kernel.img"), _LINK_ADDRESS, _KERNEL_ROOM, f"{self.source}: kernel.img")
        objects = [_object(_ELF, _module(self.part(f"{name}.mod"), name)) for name in self.with_dependencies(modules)]
        if config is not None:
            objects.append(_object(_CONFIG, config.encode() + b"\0"))
        objects.append(_object(_PREFIX, prefix.encode() + b"\0"))
        body = b"".join(objects)
        size = _MODULE_HEADER.size
        # A kernel ends where its last section does; what follows it begins at a word.
        kernel = kernel.ljust(align_up(len(kernel), 4), b"\0")
        return kernel + _MODULE_HEADER.pack(_MODULES_MAGIC, size, size + len(body)) + body

    def core(self, prefix: str, modules: Iterable[str] = MODULES, config: str | None = None) -> bytes:
        """Return the core image in whole sectors, which does not know yet where it lies.

        ``prefix`` is the directory of its files as GRUB names it, ``(,gpt2)/boot/grub``. Raises NotFound for a part
        that is missing, FormatError for one that is none, LimitExceeded where the whole is too large to load.
        """
        first, unpacker = self.part("diskboot.img"), bytearray(self.part("lzma_decompress.img"))
        if len(first) != SECTOR:
            raise NotThisFormat(f"diskboot.img: expected {SECTOR} bytes, found {len(first)}", source=self.source)
        if not _UNPACKER_FIELDS <= len(unpacker) <= _UNPACKER_ROOM:
            raise NotThisFormat(
                f"lzma_decompress.img: expected up to {_UNPACKER_ROOM} bytes, found {len(unpacker)}",
                source=self.source,
            )
        payload = self.payload(prefix, modules, config)
        packed = lzma.compress(payload, lzma.FORMAT_RAW, filters=[_FILTER])
        struct.pack_into("<III", unpacker, 0x08, len(packed), len(payload), 0)
        rest = bytes(unpacker) + packed
        if len(rest) > _CORE_ROOM:
            raise LimitExceeded(f"core image: expected at most {_CORE_ROOM} bytes, found {len(rest)}")
        core = first + rest
        return core.ljust(align_up(len(core), SECTOR), b"\0")


def embedded(core: bytes, position: int) -> bytes:
    """Return the core image for byte ``position`` of the disk: its first sector leads to the others."""
    sectors = len(core) // SECTOR - 1
    if position % SECTOR or len(core) % SECTOR or sectors < 1:
        raise UsageError(f"core image: expected whole sectors, found {len(core)} bytes at {position}")
    image = bytearray(core)
    struct.pack_into("<QHH", image, _BLOCKLIST, position // SECTOR + 1, sectors, _BLOCKLIST_SEGMENT)
    image[_BLOCKLIST - 12 : _BLOCKLIST] = bytes(12)  # the end of the list, which grows downwards
    return bytes(image)


def boot_code(boot_image: bytes, core_position: int, existing: bytes = b"") -> bytes:
    """Return the 440 bytes that start the core image at byte ``core_position``.

    ``existing`` is the disk's first sector, whose fields of a FAT volume stay.
    """
    if len(boot_image) != SECTOR or boot_image[510:] != b"\x55\xaa" or boot_image[0] != 0xEB:
        raise NotThisFormat("boot.img: expected 512 bytes with a jump and a signature, found something else")
    if boot_image[_DRIVE_CHECK] != 0xEB:
        raise Corrupt(
            f"boot.img: expected a jump over the drive check, found {boot_image[_DRIVE_CHECK]:#x}", offset=0x66
        )
    code = bytearray(boot_image[:BOOT_CODE])
    code[_KEPT] = existing[_KEPT].ljust(_KEPT.stop - _KEPT.start, b"\0")
    struct.pack_into("<Q", code, _CORE_SECTOR, core_position // SECTOR)
    code[_BOOT_DRIVE] = 0xFF  # the drive that the BIOS started from
    code[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"  # a hard disk: do what is skipped for floppies
    return bytes(code)


def _module(data: bytes, name: str) -> bytes:
    if data[:4] != b"\x7fELF":
        raise NotThisFormat(f"{name}.mod: expected an ELF module, found something else")
    return data


def _object(kind: int, data: bytes) -> bytes:
    padded = data.ljust(ceil_div(len(data), 4) * 4, b"\0")
    return _OBJECT_HEADER.pack(kind, _OBJECT_HEADER.size + len(padded)) + padded
