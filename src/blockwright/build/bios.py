"""What a BIOS needs of a disk: its loader's files in a file system, code in the first sector, and where both lie.

A loader is planned in two steps. Its files go into the tree before anything has a place; when everything has one, the
bytes that name places are filled in.

Knows: both steps for SYSLINUX and GRUB. Refuses to know: which partitions there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from blockwright.boot import grub, loaders, menu, syslinux
from blockwright.boot.kernel import Kernel, os_release, os_title
from blockwright.boot.kinds import Bios
from blockwright.boot.shelf import Shelf
from blockwright.boot.uefi import Files, file_name
from blockwright.build.definition import Home, Table
from blockwright.device.planned import SegmentTable
from blockwright.errors import NoSpace, Unsupported
from blockwright.fs.reader import Placed
from blockwright.tree.content import BytesContent
from blockwright.tree.late import LateContent
from blockwright.tree.node import Directory
from blockwright.units import MiB

CORE_SIZE = MiB
"""Bytes of the partition that GRUB's core image has to itself on a GPT."""


class Place(NamedTuple):
    """A partition and the file system in it: where it starts, its size, and the segments, relative to the start."""

    start: int
    size: int
    segments: SegmentTable


class Code(NamedTuple):
    """What is written outside of files: 440 bytes of the first sector, others by byte, and a FAT's boot sector."""

    first: bytes
    others: tuple[tuple[int, bytes], ...] = ()
    boot_sector: bytes = b""


class Starter(Protocol):
    """A loader for a BIOS, found, but for its places."""

    core: int
    marked: bool

    def files(self, home: Home, entry: menu.Entry) -> Files:
        """Return the files of the loader, by path in its home."""

    def code(self, home: Home, place: Place, number: int, core_at: int, core_room: int) -> Code:
        """Return what is outside of files, for a home at ``place``, partition ``number``, and fill in what is inside.

        The core image, where there is one, goes to byte ``core_at``, with so many bytes of room.
        """


def find_starter(way: Bios, shelves: tuple[Shelf, ...], table: Table) -> Starter:
    """Return the loader from where its files are. Raises NotFound, FormatError; Unsupported for what cannot work."""
    if way is Bios.GRUB:
        return GrubStarter(loaders.grub(shelves), table)
    parts = loaders.syslinux(shelves)
    if parts.version <= syslinux.LAST_WITHOUT_64BIT:
        version = f"{parts.version[0]}.{parts.version[1]:02}"
        raise Unsupported(f"SYSLINUX {version}: cannot read ext4 with the feature 64bit: expected 6.04 or newer")
    return SyslinuxStarter(parts, loaders.disk_code(shelves, table.value))


@dataclass(slots=True)
class SyslinuxStarter:
    """SYSLINUX: code in the first sector starts the boot sector of the marked partition, which starts a file."""

    parts: syslinux.Syslinux
    first: bytes
    core: int = 0
    marked: bool = True
    _image: LateContent | None = field(default=None, init=False)

    def files(self, home: Home, entry: menu.Entry) -> Files:
        """Return ldlinux.sys, still without places, its module and its configuration."""
        directory, config = _SYSLINUX_HOMES[home]
        self._image = LateContent(self.parts.size)
        return {
            f"{directory}/ldlinux.sys": self._image,
            f"{directory}/ldlinux.c32": BytesContent(self.parts.module),
            f"{directory}/{config}": BytesContent(menu.syslinux(entry).encode()),
        }

    def code(self, home: Home, place: Place, number: int, core_at: int, core_room: int) -> Code:
        """Fill in ldlinux.sys and return the boot sectors."""
        del number, core_at, core_room
        assert self._image is not None, "files come first"
        directory = _SYSLINUX_HOMES[home][0]
        installed = self.parts.install(placement(place.segments, self._image), f"/{directory}")
        self._image.fill(installed.image)
        if home is Home.BOOT:
            return Code(self.first, boot_sector=installed.boot_sector)
        sector = syslinux.on_ext(installed.boot_sector, start=place.start, size=place.size)
        return Code(self.first, ((place.start, sector),))


@dataclass(slots=True)
class GrubStarter:
    """GRUB: code in the first sector starts the core image, which reads its configuration from the home."""

    parts: grub.Grub
    table: Table
    core: int = CORE_SIZE
    marked: bool = False

    def files(self, home: Home, entry: menu.Entry) -> Files:
        """Return the configuration."""
        return {f"{_GRUB_HOMES[home]}/grub.cfg": BytesContent(menu.grub(entry).encode())}

    def code(self, home: Home, place: Place, number: int, core_at: int, core_room: int) -> Code:
        """Return the first sector's code and the core image."""
        del place
        core = self.parts.core(grub_prefix(self.table.value, number, _GRUB_HOMES[home]))
        if len(core) > core_room:
            raise NoSpace(f"GRUB: its core image needs {len(core)} bytes, found room for {core_room}")
        return Code(grub.boot_code(self.parts.part("boot.img"), core_at), ((core_at, grub.embedded(core, core_at)),))


_SYSLINUX_HOMES = {Home.ROOT: ("boot/extlinux", "extlinux.conf"), Home.BOOT: ("syslinux", "syslinux.cfg")}
_GRUB_HOMES = {Home.ROOT: "boot/grub", Home.BOOT: "grub"}


def root_files(starter: Starter, kernel: Kernel, tree: Directory, cmdline: str, *, serial: bool) -> Files:
    """Return what goes into the root where a BIOS's loader is at home there.

    A kernel of the tree stays where it is; one that was named is put into /boot, by its version.
    """
    version, files = file_name(kernel.version), Files()
    path, initrd = f"/{kernel.path}", None if kernel.initrd_path is None else f"/{kernel.initrd_path}"
    if not kernel.in_tree:
        path = f"/boot/vmlinuz-{version}"
        files[path[1:]] = kernel.content
    if kernel.initrd is not None and initrd is None:
        initrd = f"/boot/initrd.img-{version}"
        files[initrd[1:]] = kernel.initrd
    entry = menu.Entry(os_title(os_release(tree)), path, initrd, cmdline, serial)
    return files | starter.files(Home.ROOT, entry)


def grub_prefix(table: str, number: int, directory: str) -> str:
    """Return how GRUB names a directory of partition ``number`` of the disk it was started from."""
    return f"(,{'msdos' if table == 'mbr' else table}{number})/{directory}"


def placement(segments: SegmentTable, content: LateContent) -> list[Placed]:
    """Return where the bytes of a content lie among the segments, ascending by their place in it."""
    rows = zip(segments.sources, segments.source_offsets, segments.starts, segments.lengths, strict=True)
    return sorted(Placed(offset, start, length) for source, offset, start, length in rows if source is content)
