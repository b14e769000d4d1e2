"""What loopless does, by its own names: images partitioned, formatted, filled and made to boot.

``FILE`` is an image, ``PART`` is ``FILE``, ``FILE:N`` or ``FILE:START,SIZE`` in bytes. Sectors have 512 bytes. New
identities are random.

Knows: loopless's verbs and what they promise. Refuses to know: how any of it is done.

Source: loopless 0.1.5, README.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import BinaryIO, NamedTuple

from blockwright.boot.shelf import Shelf, of_directory, of_host
from blockwright.codec.identity import derive_uuid
from blockwright.device.base import BlockDevice
from blockwright.device.window import Window
from blockwright.disk.create import create as create_image
from blockwright.disk.create import empty_table
from blockwright.disk.edit import DiskEditor, read_table
from blockwright.disk.vmdk import write_descriptor
from blockwright.epoch import now_ns
from blockwright.errors import NotFound, UsageError
from blockwright.fs.editor import Attributes, Editor
from blockwright.fs.reader import FileSystem
from blockwright.resolve import open_device, open_editor, open_file_system
from blockwright.table.gaps import Wish
from blockwright.table.gpt import change
from blockwright.table.gpt.change import LEGACY_BOOT
from blockwright.table.gpt.names import TYPES
from blockwright.table.partition import AnyPartition, MbrTable, Partition, PartitionTable
from blockwright.table.plan import ALIGNMENT
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import File
from blockwright.tree.spool import spooled
from blockwright.units import SECTOR, align_up


class Part(NamedTuple):
    """A partition as ``part-info`` tells it; ``start`` and ``size`` in sectors."""

    number: int
    start: int
    size: int
    bootable: bool
    label: str


def create(file: str, size: int) -> None:
    """Make ``file`` one of ``size`` bytes, rounded up to a sector, that read as zeros; what was there is replaced."""
    create_image(file, size, seed=b"", form="raw", force=True)


def create_gpt(file: str) -> None:
    """Have an empty GUID partition table on ``file``, whatever was there."""
    with DiskEditor(file) as disk:
        disk.write(empty_table("gpt", disk.device.size, seed=os.urandom(32), sector_size=disk.sector_size))


def create_part(file: str, number: int = 0, start: int = 0, size: int = 0, label: str = "") -> int:
    """Add a partition of ``size`` sectors from sector ``start`` on, and return its number.

    0 stands for what loopless does without: the first free number; the first aligned sector behind the last
    partition; all that is left there.
    """
    with DiskEditor(file) as disk:
        table = _gpt(disk)
        chosen = number or change.free_number(table)
        end = max((each.end for each in table.partitions), default=table.usable_start)
        first = start * SECTOR or align_up(end, ALIGNMENT)
        table, chosen = change.add(
            table,
            TYPES["linux-generic"],
            Wish(size * SECTOR or None, first),
            number=chosen,
            guid=derive_uuid(os.urandom(32), "partition"),
            name=label,
        )
        disk.write(table)
    return chosen


def part_info(file: str) -> list[Part]:
    """Return the partitions of ``file``, by their numbers."""
    with open_device(file) as device:
        table = read_table(device, file)
    parts: list[AnyPartition] = list(table.partitions)
    return [
        Part(
            each.number,
            each.start // SECTOR,
            each.size // SECTOR,
            bool(each.attributes & LEGACY_BOOT) if isinstance(each, Partition) else each.active,
            each.name if isinstance(each, Partition) else "",
        )
        for each in parts
    ]


def set_bootable(file: str, number: int, value: bool = True) -> None:  # noqa: FBT001, FBT002  # as in Ruby
    """Set or clear the legacy boot attribute of a partition; those of the others stay."""
    with DiskEditor(file) as disk:
        table = _gpt(disk)
        flags = table.partition(number).attributes & ~LEGACY_BOOT
        disk.write(change.change(table, number, attributes=flags | LEGACY_BOOT if value else flags))


def mkfs(part: str, label: str = "") -> None:
    """Have an empty ext4 file system on ``part``."""
    from blockwright.disk.mkfs import make_ext4

    with open_device(part, writable=True, alone=True) as device:
        make_ext4(device, label=label, seed=os.urandom(32), time_ns=now_ns())


def ls(part: str) -> list[bytes]:
    """Return the paths of everything on ``part`` but directories, sorted."""
    with closing(_files(part)) as files:
        found = []
        stack = [(b"/", files.root_inode)]
        seen = {files.root_inode}
        while stack:
            prefix, inode = stack.pop()
            for entry in files.entries(inode):
                if entry.kind != stat.S_IFDIR:
                    found.append(prefix + entry.name)
                elif entry.inode not in seen:
                    seen.add(entry.inode)
                    stack.append((prefix + entry.name + b"/", entry.inode))
    return sorted(found)


def rm(part: str, path: bytes) -> None:
    """Remove a file, and each directory above it that is empty then. Raises NotFound.

    A symbolic link in the path stays, and so does what it leads to: neither is a directory above the file by name.
    """
    with _editor(part) as editor:
        if stat.S_ISDIR(editor.files.stat(path, follow=False).mode):
            raise UsageError(f"{os.fsdecode(path)}: expected a file, found a directory")
        editor.rm(path)
        for parent in reversed(_parents(path)):
            if not stat.S_ISDIR(editor.files.stat(parent, follow=False).mode):
                break
            if next(iter(editor.files.entries(editor.files.resolve(parent))), None) is not None:
                break
            editor.rm(parent)


@contextmanager
def opened(part: str, path: bytes) -> Iterator[BlockDevice]:
    """Have the bytes of a file on ``part`` as a device."""
    with closing(_files(part)) as files, files.open(path) as device:
        yield device


def read(part: str, path: bytes) -> bytes:
    """Return the bytes of a file on ``part``."""
    with opened(part, path) as device:
        return device.read(0, device.size)


def write(part: str, path: bytes, data: bytes | BinaryIO, mode: int = 0o644) -> None:
    """Have a file of these bytes and this mode on ``part``, with the directories before it.

    Those get the mode too, with the right to search wherever there is one to read.
    """
    if not 0 <= mode <= 0o7777:
        raise UsageError(f"mode: expected 0 to 7777, found {mode:o}")
    with _content(data) as content, _editor(part) as editor:
        now = now_ns()
        try:
            there = editor.files.stat(path)
        except NotFound:
            editor.put(path, File(mode, mtime_ns=now, content=content), parents=True)
        else:
            if not stat.S_ISREG(there.mode):
                raise UsageError(f"{os.fsdecode(path)}: expected a regular file to write over")
            editor.write(path, content)
            editor.set_attributes(path, _mode(editor, mode, now))
        for parent in _parents(path):
            editor.set_attributes(parent, _mode(editor, mode | (mode & 0o444) >> 2))


def syslinux(part: str, *, loaders: Sequence[str] = ()) -> None:
    """Have the ext file system on ``part`` start by SYSLINUX, whose files go to its root, beside ``/syslinux.cfg``.

    SYSLINUX is found in the directories ``loaders``, else where this host has it installed. Raises NotFound, which
    names the package; Unsupported for a file system that SYSLINUX cannot read.
    """
    from blockwright.boot import extlinux
    from blockwright.boot.loaders import syslinux as find_syslinux

    parts = find_syslinux(_shelves(loaders))
    with open_device(part, writable=True, alone=True) as device:
        start = device.start if isinstance(device, Window) else 0
        extlinux.install(device, parts, directory="/", start=start, time_ns=now_ns(), source=part)


def install_mbr(file: str, *, loaders: Sequence[str] = ()) -> None:
    """Have SYSLINUX's code in front of the table of ``file``; it starts the partition that is bootable.

    ``loaders`` as in ``syslinux``. Raises NotFound, which names the package.
    """
    from blockwright.boot.loaders import disk_code

    with DiskEditor(file) as disk:
        disk.write_boot_code(disk_code(_shelves(loaders), disk.table().kind))


def _shelves(loaders: Sequence[str]) -> list[Shelf]:
    return [of_directory(each) for each in loaders] or [of_host()]


def create_vmdk(file: str, output: str) -> None:
    """Make ``output`` a VMDK descriptor of the raw image ``file``, with an identity of its own."""
    write_descriptor(file, output, content_id=int.from_bytes(os.urandom(4), "little"), force=True)


def _gpt(disk: DiskEditor) -> PartitionTable:
    table = disk.table()
    if isinstance(table, MbrTable):
        raise UsageError(f"{disk.name}: expected a GPT, found an MBR: 'blockwright disk' changes those")
    return table


def _files(part: str) -> FileSystem:
    device = open_device(part)
    try:
        return open_file_system(device, source=part)
    except BaseException:
        device.close()
        raise


def _editor(part: str) -> Editor:
    device = open_device(part, writable=True, alone=True)
    try:
        return open_editor(device, source=part)
    except BaseException:
        device.close()
        raise


def _parents(path: bytes) -> list[bytes]:
    """Return the directories that lead to a path, the root left out, outermost first."""
    parts = [each for each in path.split(b"/") if each not in (b"", b".")]
    return [b"/" + b"/".join(parts[:count]) for count in range(1, len(parts))]


def _mode(editor: Editor, mode: int, mtime_ns: int | None = None) -> Attributes:
    """Return the metadata to set, without a mode where the file system keeps none."""
    return Attributes(permissions=mode if editor.files.kind.startswith("ext") else None, mtime_ns=mtime_ns)


@contextmanager
def _content(data: bytes | BinaryIO) -> Iterator[Content]:
    if isinstance(data, bytes):
        yield BytesContent(data)
        return
    with spooled(data) as content:
        yield content
