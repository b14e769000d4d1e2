"""An image that exists is made to start: loaders' files are put into its file systems, and what leads to them.

Everything is found and checked before the first byte is written. Then, in this order: files, as one change of their
file system; ``ldlinux.sys`` where it came to lie; boot sectors; the mark in the table; the first sector, without
which none of the rest does anything.

Knows: that order. Refuses to know: what any loader consists of, and how files are put into a file system.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from blockwright.boot import bios, fixed, loaders, uefi
from blockwright.boot.image import efi_suffix, is_bzimage
from blockwright.boot.installed import system_shelf, system_tree
from blockwright.boot.kernel import Kernel, find_kernel, os_release, os_title
from blockwright.boot.kinds import Uefi, Ways
from blockwright.boot.shelf import Shelf, of_directory, of_host
from blockwright.boot.survey import Survey, Volume, survey
from blockwright.device.base import BlockDevice
from blockwright.errors import NotFound, NotThisFormat, Unsupported, UsageError
from blockwright.fs.fat.boot import with_code
from blockwright.fs.fat.layout import BootSector32
from blockwright.fs.reader import FileSystem, Placed
from blockwright.resolve import open_editor, open_file_system, part_name
from blockwright.table import edit as table_edit
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import Directory, File
from blockwright.tree.solid import SolidContent

SECTOR: Final = 512
_NOTHING: Final[Mapping[str, Content]] = {}


@dataclass(frozen=True, slots=True)
class Request:
    """What is to start an image, and from where.

    ``home`` is the partition for a BIOS's loader, ``root`` that of the system; None where they are to be told by what
    is there. ``kernel`` is one that is not in the image yet; ``program`` what UEFI starts, or a stub. ``shelves`` are
    where loaders are looked for, after the system itself where ``search_system``. ``configure`` false leaves the
    configuration that is there. ``time_ns`` is the time of what is made.
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
    time_ns: int = 0


def shelves_for(directory: str | None) -> tuple[tuple[Shelf, ...], bool]:
    """Return ``shelves`` and ``search_system`` for a directory that the user named, or for none."""
    return ((of_host(),), True) if directory is None else ((of_directory(directory),), False)


def install(device: BlockDevice, name: str, request: Request) -> list[str]:
    """Have the image on a writable device start as ``request`` says; return what was written, by place.

    Raises UsageError and Unsupported for what cannot work, NotFound for what is missing, FormatError for parts or
    file systems that are broken; then nothing was changed. NoSpace leaves the file system as it was.
    """
    if not request.ways:
        raise UsageError("boot: expected a way to start the image, found none")
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
            yield from self._put(esp, files)
        if boot is not None:
            yield from boot

    # -- UEFI ------------------------------------------------------------------------------------------------

    def _uefi_files(self, way: Uefi) -> uefi.Files:
        kernel, program = self._needed_kernel(), self.request.program
        suffix = (
            efi_suffix(kernel.content, kernel.path) if program is None else efi_suffix(program.content, program.name)
        )
        if program is None and way is not Uefi.KERNEL:
            found = loaders.uefi(self.shelves, way, suffix)
            program = uefi.Program(found.name, found.content)
        return uefi.way_files(
            way,
            kernel,
            program,
            os_release=self.release,
            options=self._cmdline(),
            serial=self.request.serial,
            machine_suffix=suffix,
        )

    # -- a BIOS ----------------------------------------------------------------------------------------------

    def _bios(self) -> Iterator[tuple[str, str]]:
        """Check all that a BIOS's loader needs; return the steps that install it."""
        found, request = self.found, self.request
        assert request.ways.bios is not None, "asked for"
        table = found.table
        if (table is not None and table.sector_size != SECTOR) or self.device.traits.minimum_block > SECTOR:
            raise Unsupported(f"{found.name}: loaders for a BIOS count in sectors of 512 bytes, this image does not")
        starter = bios.find_starter(request.ways.bios, self.shelves, "none" if table is None else table.kind)
        volume = found.home(request.home, self.root, marked=starter.marked)
        home = bios.Home(volume.fat, "boot/" if volume == self.root else "")
        core_at, core_room = found.core_room() if starter.core else (0, 0)
        files = self.stack.enter_context(open_file_system(volume.open(self.device), source=found.name))
        bios.check_features(starter, files.features)
        kernel = self._kernel_at(volume, files)
        if volume.fat:
            _check_fat_sector(volume, self.device, found.name)
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
        return self._install_bios(starter, home, volume, contents, sparse, core_at, core_room)

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
        starter: bios.Starter,
        home: bios.Home,
        volume: Volume,
        files: uefi.Files,
        sparse: uefi.Files,
        core_at: int,
        core_room: int,
    ) -> Iterator[tuple[str, str]]:
        image = starter.image(home)
        site = bios.Site(volume.start, volume.size, volume.number, (), core_at, core_room)
        code = None if image else starter.code(home, site)
        yield from self._put(volume, files, image, sparse)
        if image is not None:
            runs = self._runs(volume, image)
            code = starter.code(home, site._replace(runs=runs))
            self._fill(volume, code, runs)
            yield self._place(volume), "boot sector"
        assert code is not None, "with an image or without"
        for position, data in code.others:
            self.device.write(position, data)
            if image is None:
                yield self.found.name, f"{len(data)} bytes of the loader at byte {position}"
        self.device.flush()
        table = self.found.table
        if table is None:
            return
        if starter.marked:
            marked = table_edit.only_bootable(table, volume.number)
            if marked != table:
                table_edit.write(self.device, marked)
                yield self._place(volume), "marked as what a BIOS starts"
        table_edit.write_boot_code(self.device, code.first)
        yield self.found.name, "boot code in the first sector"

    def _runs(self, volume: Volume, image: bios.Image) -> list[Placed]:
        """Return where the image's file has come to lie. Raises Corrupt where it is not what was put there."""
        with open_file_system(volume.open(self.device), source=self.found.name) as files:
            return fixed.placed(files, f"/{image.path}".encode(), image.blank)

    def _fill(self, volume: Volume, code: bios.Code, runs: Sequence[Placed]) -> None:
        """Write the image where it lies, and then what leads to it."""
        with volume.open(self.device) as part:
            fixed.fill(part, runs, code.image)
            if code.boot_sector:
                _write_fat_sector(part, code.boot_sector)

    # -- files -----------------------------------------------------------------------------------------------

    def _put(
        self,
        volume: Volume,
        files: uefi.Files,
        image: bios.Image | None = None,
        sparse: Mapping[str, Content] = _NOTHING,
    ) -> Iterator[tuple[str, str]]:
        """Have the files in a volume, and those that are ``sparse`` there without their holes, by one commit."""
        contents = dict(files)
        if image is not None:
            contents[image.path] = BytesContent(image.blank)
        time_ns = self.request.time_ns
        with open_editor(volume.open(self.device), source=self.found.name) as editor:
            for path, content in contents.items():
                raw = path.encode()
                stays = image is not None and path == image.path
                if stays:
                    fixed.release(editor, raw, fat=volume.fat)
                if b"/" in raw:
                    editor.mkdir(raw.rpartition(b"/")[0], Directory(mtime_ns=time_ns), parents=True)
                permissions = fixed.PERMISSIONS if stays else 0o644
                editor.put(raw, File(permissions, mtime_ns=time_ns, content=content))
                if stays:
                    fixed.fix(editor, raw, fat=volume.fat)
            for path, content in sparse.items():
                editor.write(path.encode(), content)
        for path in contents:
            yield self._place(volume), f"/{path}"
        for path in sparse:
            yield self._place(volume), f"/{path}: holes filled, which the loader cannot read"

    # -- what is said of the system ----------------------------------------------------------------------------

    def _cmdline(self) -> str:
        cmdline = self.request.cmdline
        if not any(word.startswith("root=") for word in cmdline.split()):
            if self.root is None or self.root.partition is None:
                raise UsageError(
                    f"{self.found.name}: which partition is the root cannot be told: name it by --root N, or say"
                    " root=… in --cmdline"
                )
            cmdline = uefi.with_root(cmdline, self.root.partition.identity)
        return uefi.with_serial(cmdline) if self.request.serial else cmdline

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


def _check_fat_sector(volume: Volume, device: BlockDevice, name: str) -> None:
    with volume.open(device) as part:
        size = BootSector32.parse(part.read(0, SECTOR)).bpb_byts_per_sec
    if size != SECTOR:
        raise Unsupported(f"{name}: expected a FAT volume in sectors of {SECTOR} bytes, found {size}")


def _write_fat_sector(part: BlockDevice, loader: bytes) -> None:
    """Give a FAT volume's boot sector a loader's code, its backup first."""
    existing = part.read(0, SECTOR)
    record = BootSector32.parse(existing)
    sector = with_code(existing, loader)
    if existing[22:24] == b"\0\0" and 0 < record.bpb_bk_boot_sec < record.bpb_rsvd_sec_cnt:
        at = record.bpb_bk_boot_sec * record.bpb_byts_per_sec
        part.write(at, with_code(part.read(at, SECTOR), loader))
        part.flush()
    part.write(0, sector)
    part.flush()
