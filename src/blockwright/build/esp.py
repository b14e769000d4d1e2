"""The boot partition of a disk, which UEFI starts programs from: its files, and its size.

A BIOS's loader may be at home in it too, with the same kernel, or alone.

Knows: what each way to start puts there, and how large the partition is. Refuses to know: the rest of the disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blockwright.boot import loaders, uefi
from blockwright.boot.bios import kernel_in
from blockwright.boot.kernel import os_release, os_title
from blockwright.boot.kinds import Uefi
from blockwright.boot.shelf import all_bytes
from blockwright.build.definition import Definition
from blockwright.build.machine import Machine
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import FatPlan
from blockwright.fs.fat.plan import plan as plan_fat
from blockwright.tree.content import Content
from blockwright.tree.node import Directory
from blockwright.tree.overlay import with_files
from blockwright.units import MiB, align_up

if TYPE_CHECKING:
    from blockwright.build.bios import PlannedLoader

MINIMUM = {512: 64 * MiB, 4096: 272 * MiB}
"""The least automatic size by sector size: firmware must read FAT32, which begins at 65,525 clusters."""

STREAMED = 256 * MiB
"""The automatic size where the kernel is still to come in a stream, so that its size is not known yet."""


@dataclass(frozen=True, slots=True)
class BootPartition:
    """What the boot partition is planned from. ``loader`` is a BIOS's where that is at home there."""

    tree: Directory
    machine: Machine
    definition: Definition
    loader: PlannedLoader | None
    seed: bytes
    time_ns: int
    streamed: bool

    def plan(self, cmdline: str) -> FatPlan:
        """Return its file system: of the size that was asked for, or as small as holds its files, in MiB.

        ``cmdline`` is the whole kernel command line, as it is for a loader.
        """
        files = with_files(Directory(mtime_ns=self.time_ns), self._files(cmdline), mtime_ns=self.time_ns)
        definition = self.definition
        options = FatOptions(seed=self.seed, label="ESP", sector_size=definition.sector_size)
        size = streamed_size(definition) if self.streamed else definition.boot.esp_size
        if size is None:
            size = max(MINIMUM[definition.sector_size], align_up(plan_fat(files, options).size, MiB))
        return plan_fat(files, replace(options, size=size))

    def _files(self, cmdline: str) -> uefi.Files:
        kernel, boot = self.machine.kernel, self.definition.boot
        files: uefi.Files = {}
        if boot.ways.uefi is not None:
            files |= self._uefi_files(boot.ways.uefi, cmdline)
        if self.loader is not None:
            title = os_title(os_release(self.tree))
            elsewhere = replace(kernel, in_tree=False)
            kernels, entry = kernel_in(self.loader.home, elsewhere, title=title, options=cmdline, serial=boot.serial)
            files |= kernels | self.loader.files(entry)
        return files

    def _uefi_files(self, way: Uefi, cmdline: str) -> uefi.Files:
        kernel, suffix = self.machine.kernel, self.machine.suffix
        if way is Uefi.KERNEL:
            return uefi.kernel_as_program(kernel)
        program, name = self._program(way)
        release = os_release(self.tree)
        if way is Uefi.UKI:
            return uefi.unified(
                kernel,
                all_bytes(program, name),
                name,
                options=cmdline,
                os_release=release,
                machine_suffix=suffix,
            )
        entry = uefi.kernel_entry(
            kernel, title=os_title(release), options=cmdline, serial=self.definition.boot.serial
        )
        if way is Uefi.GRUB:
            return uefi.grub(kernel, all_bytes(program, name), name, entry, suffix)
        return uefi.systemd_boot(kernel, program, entry, suffix)

    def _program(self, way: Uefi) -> tuple[Content, str]:
        """Return the loader or stub that the user named, or the one that is found."""
        named = self.definition.boot.loader
        if named is not None:
            return named.content, named.name
        found = loaders.uefi(self.machine.shelves, way, self.machine.suffix)
        return found.content, found.name


def streamed_size(definition: Definition) -> int:
    """Return the size of the partition where it must be fixed before the tree is known."""
    return definition.boot.esp_size or max(STREAMED, MINIMUM[definition.sector_size])
