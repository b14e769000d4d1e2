"""Where the code lies that starts a disk: first sectors, gaps, and the files that firmware and loaders look for.

Told by marks of the code itself; what has none is told as code that is not known. Nothing is run or followed.

Knows: places and marks. Refuses to know: whether a disk would start.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.draw.picture import Boot
from blockwright.draw.words import plain
from blockwright.errors import BlockwrightError
from blockwright.fs.reader import FileSystem
from blockwright.units import KiB

MAX_FILES: Final = 16
"""Files of one file system that are told."""
MAX_NAMES: Final = 4096
"""Names in one directory that are looked at."""
_CODE: Final = 440
_GAP: Final = 64 * KiB
_MARKS: Final = (
    (b"GRUB", "GRUB"),
    (b"SYSLINUX", "SYSLINUX"),
    (b"EXTLINUX", "SYSLINUX"),
    (b"Missing operating system", "SYSLINUX"),
    (b"isolinux", "ISOLINUX"),
    (b"BOOTMGR", "Windows"),
)
_STUB: Final = re.compile(rb"This is not a bootable disk|^.{0,2}\xcd\x18\xf4\xeb\xfd", re.DOTALL)
_HOMES: Final = ((b"boot",), (b"boot", b"extlinux"), (b"boot", b"syslinux"), (b"extlinux",), (b"syslinux",), ())
_NAMES: Final = re.compile(rb"(vmlinuz|vmlinux|bzImage|Image|initrd|initramfs)([-.].*)?|(ld|ext)linux\.sys")
_ANY: Final = re.compile(rb".*", re.DOTALL)
_EFI_NAME: Final = re.compile(rb".*\.efi", re.IGNORECASE)


def first_sector(device: BlockDevice) -> Iterator[Boot]:
    """Yield the code in a partitioned disk's first sector, if there is any."""
    code = _read(device, 0, _CODE)
    if code.strip(b"\0"):
        yield Boot(0, _CODE, f"boot code in the first sector{_of(_read(device, 0, 512))}")


def gap(device: BlockDevice, start: int, size: int) -> Iterator[Boot]:
    """Yield what lies in a run that belongs to loaders: before the first partition, or a partition of theirs."""
    head = _read(device, start, min(size, _GAP))
    used = len(head.rstrip(b"\0"))
    if used:
        maker = " of GRUB" if b"loading" in head[:512] or b"GRUB" in head else ""
        yield Boot(start, used, f"loader{maker} outside of any file system")


def sector(part: BlockDevice, start: int, kind: str) -> Iterator[Boot]:
    """Yield the code in the first sectors of a file system that begins at byte ``start`` of the disk."""
    fat = kind.startswith("fat")
    head = _read(part, 0, 512 if fat else KiB)
    code = head[90 if kind == "fat32" else 62 : 510] if fat else head
    if code.strip(b"\0") and not _STUB.search(code):
        yield Boot(start, len(head), f"boot sector of the file system{_of(head)}")


def files(system: FileSystem, start: int) -> Iterator[Boot]:
    """Yield the files that take part in a start, where they begin on the disk; MAX_FILES at the most."""
    found = 0
    seen: set[int] = set()
    for path, name, inode in _candidates(system):
        if inode in seen:
            continue
        seen.add(inode)
        try:
            placed = system.placement(inode)
            size = system.stat_inode(inode).size
        except BlockwrightError:
            continue
        if placed and size > 0:
            yield Boot(start + placed[0].position, size, plain(b"/" + b"/".join((*path, name))))
            found += 1
        if found == MAX_FILES:
            return


def _candidates(system: FileSystem) -> Iterator[tuple[tuple[bytes, ...], bytes, int]]:
    if system.kind.startswith("fat"):
        for vendor, _ in _matching(system, (b"EFI",), _ANY, stat.S_IFDIR)[:MAX_FILES]:
            for name, inode in _matching(system, (b"EFI", vendor), _EFI_NAME):
                yield (b"EFI", vendor), name, inode
    for path in _HOMES:
        for name, inode in _matching(system, path, _NAMES):
            yield path, name, inode


def _matching(
    system: FileSystem, path: Sequence[bytes], pattern: re.Pattern[bytes], kind: int = stat.S_IFREG
) -> list[tuple[bytes, int]]:
    """Return what a directory has of a kind and with names that match; nothing where there is no such directory."""
    try:
        inode = system.resolve(b"/".join(path))
        if system.stat_inode(inode).kind != stat.S_IFDIR:
            return []
        found = []
        for count, entry in enumerate(system.entries(inode)):
            if count == MAX_NAMES:
                break
            if entry.kind == kind and pattern.fullmatch(entry.name):
                found.append((entry.name, entry.inode))
    except BlockwrightError:
        return []
    return sorted(found)


def _read(device: BlockDevice, start: int, size: int) -> bytes:
    return bytes(device.read(start, max(0, min(size, device.size - start))))


def _of(code: bytes) -> str:
    return next((f" ({name})" for mark, name in _MARKS if mark in code), " (not known)")
