"""The EFI system partition of a disk: which kernel and loader start it, its files, and its size.

Knows: where each comes from, and how large the partition is. Refuses to know: the rest of the disk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from blockwright.boot.image import efi_suffix
from blockwright.boot.kernel import Kernel, find_kernel, find_loader, named_kernel, os_title
from blockwright.boot.uefi import kernel_as_program, systemd_boot
from blockwright.build.definition import Boot, Definition
from blockwright.errors import NotFound
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import FatPlan
from blockwright.fs.fat.plan import plan as plan_fat
from blockwright.tree.node import Directory
from blockwright.units import MiB, align_up

MINIMUM = {512: 64 * MiB, 4096: 272 * MiB}
"""The least automatic size by sector size: firmware must read FAT32, which begins at 65,525 clusters."""

STREAMED = 256 * MiB
"""The automatic size where the kernel is still to come in a stream, so that its size is not known yet."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What starts the disk: the EFI suffix of its machine, and the kernel."""

    suffix: str
    kernel: Kernel


def find_machine(tree: Directory, definition: Definition) -> Machine:
    """Return what is to start the disk, from the definition or else from the tree.

    Raises NotFound where no kernel is named and the tree holds none, NotThisFormat for what is no EFI program.
    """
    boot = definition.boot
    if boot.kernel is not None:
        kernel: Kernel | None = named_kernel(boot.kernel.name, boot.kernel.content)
    else:
        kernel = find_kernel(tree)
    if kernel is None:
        raise NotFound("build: the tree holds no kernel in /boot, /usr/lib/modules or /: name one with --kernel")
    if boot.initrd is not None:
        kernel = replace(kernel, initrd=boot.initrd.content)
    program = boot.loader or boot.kernel
    if program is not None:
        return Machine(efi_suffix(program.content, program.name), kernel)
    return Machine(efi_suffix(kernel.content, kernel.path), kernel)


def plan_esp(
    tree: Directory,
    machine: Machine,
    definition: Definition,
    cmdline: str,
    seed: bytes,
    time_ns: int,
    *,
    streamed: bool,
) -> FatPlan:
    """Return the partition's file system: of the size that was asked for, or as small as holds its files, in MiB.

    ``cmdline`` is the whole kernel command line.
    """
    files = _files(tree, machine, definition, cmdline, time_ns)
    options = FatOptions(seed=seed, label="ESP", sector_size=definition.sector_size)
    size = streamed_size(definition) if streamed else definition.boot.esp_size
    if size is None:
        size = max(MINIMUM[definition.sector_size], align_up(plan_fat(files, options).size, MiB))
    return plan_fat(files, replace(options, size=size))


def streamed_size(definition: Definition) -> int:
    """Return the size of the partition where it must be fixed before the tree is known."""
    return definition.boot.esp_size or max(STREAMED, MINIMUM[definition.sector_size])


def _files(tree: Directory, machine: Machine, definition: Definition, cmdline: str, time_ns: int) -> Directory:
    boot = definition.boot
    if boot.boot is Boot.KERNEL:
        return kernel_as_program(machine.kernel, mtime_ns=time_ns)
    loader = boot.loader.content if boot.loader else find_loader(tree, machine.suffix)
    if loader is None:
        raise NotFound(
            f"build: the tree holds no systemd-boot{machine.suffix.lower()}.efi in /usr/lib/systemd/boot/efi:"
            " name one with --loader"
        )
    return systemd_boot(
        machine.kernel,
        loader,
        title=os_title(tree),
        options=cmdline,
        machine_suffix=machine.suffix,
        mtime_ns=time_ns,
    )
