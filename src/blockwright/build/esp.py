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
from blockwright.boot.secure import secured
from blockwright.build.definition import Definition
from blockwright.build.machine import Machine
from blockwright.build.partition import FAT, PartitionDefinition
from blockwright.errors import UsageError
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import FatPlan
from blockwright.fs.fat.plan import plan as plan_fat
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
    """What the boot partition is planned from.

    ``tree`` is the disk's, ``held`` what the partition holds beside what starts the disk. ``loader`` is a BIOS's
    where that is at home there.
    """

    tree: Directory
    held: Directory
    machine: Machine
    definition: Definition
    part: PartitionDefinition
    loader: PlannedLoader | None
    seed: bytes
    time_ns: int
    streamed: bool

    def plan(self, cmdline: str, size: int | None) -> FatPlan:
        """Return its file system: of that size, or as small as holds its files, in MiB.

        ``cmdline`` is the whole kernel command line, as it is for a loader. Raises UsageError where it is to have
        another file system than FAT.
        """
        if self.part.kind not in FAT:
            raise UsageError(f"{self.part.what}: expected FAT, which firmware reads, found {self.part.kind}")
        files = with_files(self.held, self._files(cmdline), mtime_ns=self.time_ns)
        definition = self.definition
        options = FatOptions(
            seed=self.seed,
            label=self.part.label or "ESP",
            sector_size=definition.sector_size,
            bits=FAT[self.part.kind],
            cluster_size=self.part.block_size,
        )
        if self.streamed:
            size = streamed_size(definition)
        if size is None:
            least = align_up(plan_fat(files, options).size, MiB)
            size = max(self.part.minimum or MINIMUM[definition.sector_size], least)
        return plan_fat(files, replace(options, size=size))

    def _files(self, cmdline: str) -> uefi.Files:
        kernel, boot = self.machine.kernel, self.definition.boot
        files: uefi.Files = {}
        release = os_release(self.tree)
        if boot.ways.uefi is not None:
            program = None if boot.ways.uefi is Uefi.KERNEL else self._program(boot.ways.uefi)
            files |= uefi.way_files(
                boot.ways.uefi,
                kernel,
                program,
                os_release=release,
                options=cmdline,
                serial=boot.serial,
                machine_suffix=self.machine.suffix,
                sections={
                    name: each.content
                    for name, each in ((".dtb", boot.devicetree), (".splash", boot.splash))
                    if each is not None
                },
            )
            if boot.secure:
                files = secured(files, boot.secure, self.machine.shelves, self.machine.suffix)
        if self.loader is not None:
            title = os_title(release)
            elsewhere = replace(kernel, in_tree=False)
            kernels, entry = kernel_in(self.loader.home, elsewhere, title=title, options=cmdline, serial=boot.serial)
            files |= kernels | self.loader.files(entry)
        return files

    def _program(self, way: Uefi) -> uefi.Program:
        """Return the loader or stub that the user named, or the one that is found."""
        named = self.definition.boot.loader
        if named is not None:
            return uefi.Program(named.name, named.content)
        signed = self.definition.boot.secure.shim
        found = loaders.uefi(self.machine.shelves, way, self.machine.suffix, signed=signed)
        return uefi.Program(found.name, found.content)


def streamed_size(definition: Definition) -> int:
    """Return the size of the partition where it must be fixed before the tree is known."""
    return definition.boot.esp_size or max(STREAMED, MINIMUM[definition.sector_size])
