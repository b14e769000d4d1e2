"""An image that exists is made to start: loaders' files are put into its file systems, and what leads to them.

Everything is found and checked before the first byte is written. Then, in this order: what is in file systems
(``deploy``); the mark in the table; the first sector, without which none of the rest does anything.

Knows: that order, and what goes where. Refuses to know: what any loader consists of, and how its files come into a
file system.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from blockwright.address import part_name
from blockwright.boot import bios, loaders, uefi
from blockwright.boot.cmdline import with_root, with_serial
from blockwright.boot.deploy import SECTOR, Target
from blockwright.boot.image import efi_suffix, is_bzimage
from blockwright.boot.installed import system_shelf, system_tree
from blockwright.boot.kernel import Kernel, find_kernel, os_release, os_title
from blockwright.boot.kinds import NOTHING, Bios, Secure, Uefi, Ways
from blockwright.boot.secure import secured
from blockwright.boot.shelf import Shelf, of_directory, of_host
from blockwright.boot.survey import Survey, Volume, survey
from blockwright.device.base import BlockDevice
from blockwright.errors import NotFound, NotThisFormat, Unsupported, UsageError
from blockwright.fs.reader import FileSystem
from blockwright.resolve import open_file_system
from blockwright.table import edit as table_edit
from blockwright.tree.solid import SolidContent


@dataclass(frozen=True, slots=True)
class Request:
    """What is to start an image, and from where.

    ``home`` is the partition for a BIOS's loader, ``root`` that of the system; None where they are to be told by what
    is there. ``kernel`` is one that is not in the image yet; ``program`` what UEFI starts, or a stub. ``shelves`` are
    where loaders are looked for, after the system itself where ``search_system``. ``configure`` false leaves the
    configuration that is there. ``directory`` is that of a BIOS's loader in its home, None for the usual one.
    ``grub_modules`` puts all of GRUB's modules beside its configuration. ``time_ns`` is the time of what is made.
    ``secure`` is what Secure Boot asks for.
    """

    ways: Ways
    home: int | None = None
    root: int | None = None
    kernel: Kernel | None = None
    program: uefi.Program | None = None
    shelves: tuple[Shelf, ...] = ()
    search_system: bool = True
    cmdline: str = ""
    serial: bool = False
    configure: bool = True
    directory: str | None = None
    grub_modules: bool = False
    time_ns: int = 0
    secure: Secure = NOTHING

    def check(self) -> None:
        """Raise UsageError for what contradicts itself."""
        bios_way, uefi_way = self.ways
        if not self.ways:
            raise UsageError("boot: expected a way to start the image, found none")
        if self.program is not None and uefi_way in (None, Uefi.KERNEL):
            raise UsageError("boot: --loader names what UEFI starts: for a BIOS's loader use --loader-dir")
        if self.secure and self.ways.uefi is None:
            raise UsageError("boot: --shim and --sign-command are of use with UEFI only: with uki, for example")
        if self.secure.shim and self.ways.uefi is Uefi.KERNEL:
            raise UsageError("boot: a shim starts a loader: use grub-efi, systemd-boot or uki with --shim")
        if self.grub_modules and bios_way is not Bios.GRUB:
            raise UsageError("boot: --grub-modules is of use with grub only")
        if uefi_way is Uefi.KERNEL and bios_way is None and (self.cmdline or self.serial):
            raise UsageError("boot: firmware starts a bare kernel without a command line: use uki, which holds one")


def shelves_for(directory: str | None) -> tuple[tuple[Shelf, ...], bool]:
    """Return ``shelves`` and ``search_system`` for a directory that the user named, or for none."""
    return ((of_host(),), True) if directory is None else ((of_directory(directory),), False)


def install(device: BlockDevice, name: str, request: Request) -> list[str]:
    """Have the image on a writable device start as ``request`` says; return what was written, by place.

    Raises UsageError and Unsupported for what cannot work, NotFound for what is missing, FormatError for parts or
    file systems that are broken; then nothing was changed. NoSpace leaves the file system as it was.
    """
    request.check()
    with ExitStack() as stack:
        job = _Job.of(device, survey(device, name), request, stack)
        return [f"{where}: {what}" for where, what in job.run()]


@dataclass(slots=True)
class _Job:
    """One installation: what was found, all of it checked, and nothing of it written yet."""

    device: BlockDevice
    found: Survey
    request: Request
    stack: ExitStack
    root: Volume | None
    system: FileSystem | None
    shelves: tuple[Shelf, ...]
    kernel: Kernel | None
    release: bytes

    @classmethod
    def of(cls, device: BlockDevice, found: Survey, request: Request, stack: ExitStack) -> _Job:
        """Find the root, and the kernel that is to start."""
        root, system, shelves = found.root(request.root), None, request.shelves
        kernel, release = request.kernel, b""
        if root is not None:
            system = stack.enter_context(open_file_system(root.open(device), source=found.name))
            tree = system_tree(system)
            release = os_release(tree)
            if kernel is None:
                kernel = find_kernel(tree)
            if request.search_system:
                shelves = (system_shelf(system, part_name(found.name, root.number)), *shelves)
        return cls(device, found, request, stack, root, system, shelves, kernel, release)

    def run(self) -> Iterator[tuple[str, str]]:
        """Do it; yield each place and what was written there."""
        ways = self.request.ways
        boot = None if ways.bios is None else self._bios()
        esp = None if ways.uefi is None else self.found.esp()
        files = None if ways.uefi is None else self._uefi_files(ways.uefi)
        if esp is not None and files is not None:
            Target(self.device, esp, self.found.name, self.request.time_ns).put(files)
            yield from self._told(esp, files)
        if boot is not None:
            yield from boot

    # -- UEFI ------------------------------------------------------------------------------------------------

    def _uefi_files(self, way: Uefi) -> uefi.Files:
        kernel, program = self._needed_kernel(), self.request.program
        suffix = (
            efi_suffix(kernel.content, kernel.path) if program is None else efi_suffix(program.content, program.name)
        )
        if program is None and way is not Uefi.KERNEL:
            found = loaders.uefi(self.shelves, way, suffix, signed=self.request.secure.shim)
            program = uefi.Program(found.name, found.content)
        files = uefi.way_files(
            way,
            kernel,
            program,
            os_release=self.release,
            options="" if way is Uefi.KERNEL else self._cmdline(),
            serial=self.request.serial,
            machine_suffix=suffix,
        )
        return secured(files, self.request.secure, self.shelves, suffix) if self.request.secure else files

    # -- a BIOS ----------------------------------------------------------------------------------------------

    def _bios(self) -> Iterator[tuple[str, str]]:
        """Check all that a BIOS's loader needs; return the steps that install it."""
        found, request = self.found, self.request
        assert request.ways.bios is not None, "asked for"
        directory = None if request.directory is None else _directory(request.directory)
        table = found.table
        if table is not None and table.sector_size != SECTOR:
            raise Unsupported(f"{found.name}: loaders for a BIOS count in sectors of 512 bytes, its table does not")
        kind = "none" if table is None else table.kind
        starter = bios.find_starter(request.ways.bios, self.shelves, kind, modules=request.grub_modules)
        volume = found.home(request.home, self.root, marked=starter.marked)
        home = bios.Home(volume.fat, "boot/" if volume == self.root else "", directory)
        core = found.core_room() if starter.core else (0, 0)
        target = Target(self.device, volume, found.name, request.time_ns)
        target.check(starter)
        files = self.stack.enter_context(open_file_system(volume.open(self.device), source=found.name))
        kernel = self._kernel_at(volume, files)
        if starter.marked and table is not None:
            table_edit.only_bootable(table, volume.number)  # refuses what cannot be marked
        contents, entry = uefi.Files(), None
        if request.configure:
            if kernel is None:
                raise self._no_kernel()
            if not is_bzimage(kernel.content):
                raise NotThisFormat("expected a Linux bzImage, which loaders for a BIOS start", source=kernel.path)
            contents, entry = bios.kernel_in(
                home, kernel, title=os_title(self.release), options=self._cmdline(), serial=request.serial
            )
        contents |= starter.files(home, entry)
        sparse = uefi.Files() if starter.reads_holes or kernel is None else _sparse(files, kernel)
        return self._install_bios(target, starter, home, contents, sparse, core)

    def _kernel_at(self, volume: Volume, files: FileSystem) -> Kernel | None:
        """Return the kernel: the one that was named, else the home's own, else the root's, as seen from the home."""
        if self.request.kernel is not None or volume == self.root:
            return self.kernel
        own = find_kernel(system_tree(files)) if self.request.configure else None
        if own is not None:
            return own
        return None if self.kernel is None else replace(self.kernel, in_tree=False)

    def _install_bios(
        self,
        target: Target,
        starter: bios.Starter,
        home: bios.Home,
        files: uefi.Files,
        sparse: uefi.Files,
        core: tuple[int, int],
    ) -> Iterator[tuple[str, str]]:
        volume, table, image = target.volume, self.found.table, starter.image(home)
        code = target.install(starter, home, files, core, sparse)
        yield from self._told(volume, files)
        for path in sparse:
            yield self._place(volume), f"/{path}: holes filled, which the loader cannot read"
        if image is not None:
            yield from self._told(volume, [image.path])
            yield self._place(volume), "boot sector"
        else:
            for position, data in code.others:
                self.device.write(position, data)
                yield self.found.name, f"{len(data)} bytes of the loader at byte {position}"
            self.device.flush()
        if table is None:
            return
        if starter.marked:
            marked = table_edit.only_bootable(table, volume.number)
            if marked != table:
                table_edit.write(self.device, marked)
                yield self._place(volume), "marked as what a BIOS starts"
        table_edit.write_boot_code(self.device, code.first)
        yield self.found.name, "boot code in the first sector"

    def _told(self, volume: Volume, files: Iterable[str]) -> Iterator[tuple[str, str]]:
        for path in files:
            yield self._place(volume), f"/{path}"

    # -- what is said of the system ----------------------------------------------------------------------------

    def _cmdline(self) -> str:
        cmdline = self.request.cmdline
        if not any(word.startswith("root=") for word in cmdline.split()):
            if self.root is None or self.root.partition is None:
                raise UsageError(
                    f"{self.found.name}: which partition is the root cannot be told: name it by --root N, or say"
                    " root=… in --cmdline"
                )
            cmdline = with_root(cmdline, self.root.partition.identity)
        return with_serial(cmdline) if self.request.serial else cmdline

    def _needed_kernel(self) -> Kernel:
        if self.kernel is None:
            raise self._no_kernel()
        return self.kernel

    def _no_kernel(self) -> NotFound:
        return NotFound(
            f"{self.found.name}: holds no kernel in /boot, /usr/lib/modules or /: name one with --kernel, or keep the"
            " configuration that is there by --keep-config"
        )

    def _place(self, volume: Volume) -> str:
        return part_name(self.found.name, volume.number) if volume.number else self.found.name


def _directory(path: str) -> str:
    """Return a directory of a partition without slashes around it.

    Raises UsageError for one told by dots, or that no loader can name.
    """
    parts = path.strip("/").split("/")
    if {".", ".."} & set(parts) or (len(parts) > 1 and "" in parts):
        raise UsageError(f"{path[:200]!r}: expected a directory by its own name, without '.', '..' and empty parts")
    if any("\ud800" <= each <= "\udfff" for each in path):
        raise UsageError(f"directory: expected text in UTF-8, found {path[:64]!a}")
    return "/".join(parts)


def _sparse(files: FileSystem, kernel: Kernel) -> uefi.Files:
    """Return the kernel and its RAM disk, as far as they are in the file system and have holes there."""
    found = uefi.Files()
    if not kernel.in_tree:
        return found
    for path, content in ((kernel.path, kernel.content), (kernel.initrd_path, kernel.initrd)):
        if path is not None and content is not None:
            placed = files.placement(files.resolve(path.encode()))
            data = sum(min(run.length, content.size - run.offset) for run in placed)
            if data < content.size:
                found[path] = SolidContent(content)
    return found
