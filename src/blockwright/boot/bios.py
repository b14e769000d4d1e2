"""What a BIOS needs of a disk: its loader's files in a file system, code in the first sector, and where both lie.

A loader is planned in two steps. Its files go into a file system before anything has a place; when everything has
one, the bytes that name places follow.

Knows: both steps for SYSLINUX and GRUB. Refuses to know: which partitions there are, and who writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from blockwright.boot import grub, loaders, menu, syslinux
from blockwright.boot.kernel import Kernel
from blockwright.boot.kinds import Bios
from blockwright.boot.shelf import Shelf
from blockwright.boot.uefi import Files, file_name
from blockwright.errors import NoSpace, Unsupported
from blockwright.fs.reader import Placed
from blockwright.tree.content import BytesContent
from blockwright.tree.solid import SolidContent
from blockwright.units import MiB

CORE_SIZE = MiB
"""Bytes of the partition that GRUB's core image has to itself on a GPT."""


@dataclass(frozen=True, slots=True)
class Home:
    """The file system that a loader lives in: whether it is FAT, and what its paths begin with (``boot/``).

    ``directory`` is the loader's own, without slashes around it and empty for the top one; None is the usual one.
    """

    fat: bool
    top: str = ""
    directory: str | None = None

    def path(self, usual: str, name: str) -> str:
        """Return where a file of the loader is, whose directory is usually called so."""
        directory = self.of(usual)
        return f"{directory}/{name}" if directory else name

    def of(self, usual: str) -> str:
        """Return the loader's directory."""
        return f"{self.top}{usual}" if self.directory is None else self.directory


ROOT = Home(fat=False, top="boot/")
"""The root file system."""
BOOT = Home(fat=True)
"""A boot partition that firmware can read."""


class Image(NamedTuple):
    """A file that is filled in when it has its place: where it is, and what it holds until then.

    Those ``beside`` it are kept from being moved or replaced as it is, though nothing says where they lie.
    """

    path: str
    blank: bytes
    beside: tuple[str, ...] = ()


class Site(NamedTuple):
    """Where a home is: the byte its partition starts at, its size, the partition's number (0 for none).

    ``runs`` are where the bytes of its image lie, relative to the start. ``core_at`` and ``core_room`` are the bytes
    that a core image may take.
    """

    start: int
    size: int
    number: int
    runs: Sequence[Placed]
    core_at: int
    core_room: int


class Code(NamedTuple):
    """What follows from the places: 440 bytes of the first sector, the image, others by byte of the disk.

    ``boot_sector`` is a loader's for the home's own; where that is ext, it is among the others already.
    """

    first: bytes
    image: bytes = b""
    others: tuple[tuple[int, bytes], ...] = ()
    boot_sector: bytes = b""


@dataclass(frozen=True, slots=True)
class SyslinuxStarter:
    """SYSLINUX: code in the first sector starts the boot sector of the marked partition, which starts a file."""

    parts: syslinux.Syslinux
    first: bytes
    core: int = 0
    marked: bool = True
    reads_holes: bool = False

    def image(self, home: Home) -> Image:
        """Return ldlinux.sys, beside the module that it loads."""
        usual = _syslinux(home)
        return Image(home.path(usual, "ldlinux.sys"), self.parts.blank(), (home.path(usual, "ldlinux.c32"),))

    def files(self, home: Home, entry: menu.Entry | None) -> Files:
        """Return the loader's module, and its configuration where there is an entry for it."""
        usual = _syslinux(home)
        files: Files = {home.path(usual, "ldlinux.c32"): BytesContent(self.parts.module)}
        if entry is not None:
            config = home.path(usual, "syslinux.cfg" if home.fat else "extlinux.conf")
            files[config] = BytesContent(menu.syslinux(entry).encode())
        return files

    def code(self, home: Home, site: Site) -> Code:
        """Return ldlinux.sys and the boot sectors."""
        installed = self.parts.install(site.runs, f"/{home.of(_syslinux(home))}")
        if home.fat:
            return Code(self.first, installed.image, boot_sector=installed.boot_sector)
        sector = syslinux.on_ext(installed.boot_sector, start=site.start, size=site.size)
        return Code(self.first, installed.image, ((site.start, sector),))


@dataclass(frozen=True, slots=True)
class GrubStarter:
    """GRUB: code in the first sector starts the core image, which reads its configuration from the home."""

    parts: grub.Grub
    table: str
    modules: bool = False
    core: int = CORE_SIZE
    marked: bool = False
    reads_holes: bool = True

    def image(self, home: Home) -> None:
        """Return nothing: no file has to know where it lies."""
        del home

    def files(self, home: Home, entry: menu.Entry | None) -> Files:
        """Return the configuration where there is an entry for it, and the modules where they are wanted."""
        files = Files()
        if entry is not None:
            files[home.path("grub", "grub.cfg")] = BytesContent(menu.grub(entry).encode())
        if self.modules:
            for name, content in self.parts.directory().items():
                files[home.path("grub", f"i386-pc/{name}")] = BytesContent(content)
        return files

    def code(self, home: Home, site: Site) -> Code:
        """Return the first sector's code and the core image."""
        core = self.parts.core(grub_prefix(self.table, site.number, home.of("grub")))
        if len(core) > site.core_room:
            raise NoSpace(f"GRUB: its core image needs {len(core)} bytes, found room for {site.core_room}")
        first = grub.boot_code(self.parts.part("boot.img"), site.core_at)
        return Code(first, others=((site.core_at, grub.embedded(core, site.core_at)),))


Starter = SyslinuxStarter | GrubStarter
"""A loader for a BIOS. ``core`` bytes are its own on a GPT; ``marked``: the BIOS starts the home's partition.

Without ``reads_holes`` it fails at a kernel or RAM disk on ext4 that has some, as sparse copies do.
"""


def find_starter(way: Bios, shelves: Sequence[Shelf], table: str, *, modules: bool = False) -> Starter:
    """Return the loader from where its files are, for a table of that kind; with ``modules``, GRUB with all its own.

    Raises NotFound, FormatError.
    """
    if way is Bios.GRUB:
        return GrubStarter(loaders.grub(shelves), table, modules)
    parts = loaders.syslinux(shelves)
    return SyslinuxStarter(parts, b"" if table == "none" else loaders.disk_code(shelves, table))


def check_features(starter: Starter, features: Sequence[str]) -> None:
    """Raise Unsupported, with the reason, for a file system with features that the loader cannot read."""
    if isinstance(starter, SyslinuxStarter):
        version, name = starter.parts.version, "SYSLINUX"
        refused = {"inline_data": "it cannot read files", "bigalloc": "it cannot read files"}
        refused["encrypt"] = "it has no keys"
        if version <= syslinux.LAST_WITHOUT_64BIT:
            refused["64bit"] = f"version {version[0]}.{version[1]:02} cannot read its block numbers, 6.04 can"
    else:
        name = "GRUB"
        refused = {"inline_data": "it cannot read files", "ea_inode": "it refuses the file system"}
        refused["casefold"] = refused["ea_inode"]
    for feature in features:
        if feature in refused:
            raise Unsupported(f"{name}: on ext4 with {feature} {refused[feature]}: make it without")


def kernel_in(home: Home, kernel: Kernel, *, title: str, options: str, serial: bool) -> tuple[Files, menu.Entry]:
    """Return what has to be put into the home for the kernel to start, and how it is started.

    A kernel that is there (``in_tree``) stays where it is; another is put there by its version, without holes.
    """
    version, files = file_name(kernel.version), Files()
    path, initrd = f"/{kernel.path}", None if kernel.initrd_path is None else f"/{kernel.initrd_path}"
    if not kernel.in_tree:
        path = f"/{version}/linux" if home.fat else f"/{home.top}vmlinuz-{version}"
        files[path[1:]] = SolidContent(kernel.content)
    if kernel.initrd is not None and (initrd is None or not kernel.in_tree):
        initrd = f"/{version}/initrd" if home.fat else f"/{home.top}initrd.img-{version}"
        files[initrd[1:]] = SolidContent(kernel.initrd)
    return files, menu.Entry(title, path, initrd, options, serial)


def grub_prefix(table: str, number: int, directory: str) -> str:
    """Return how GRUB names a directory of partition ``number`` of the disk it was started from."""
    return f"(,{'msdos' if table == 'mbr' else table}{number})/{directory}"


def _syslinux(home: Home) -> str:
    return "syslinux" if home.fat else "extlinux"
