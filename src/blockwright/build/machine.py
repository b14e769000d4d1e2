"""What a disk starts: its kernel, the machine that is for, and where its loaders' files are looked for.

Knows: which of the definition and the tree says so. Refuses to know: loaders and partitions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from blockwright.boot.image import efi_suffix, is_bzimage
from blockwright.boot.kernel import Kernel, find_kernel, named_kernel
from blockwright.boot.machine import programs_machine
from blockwright.boot.shelf import Shelf, of_directory, of_host, of_tree
from blockwright.build.definition import Definition
from blockwright.errors import NotFound, NotThisFormat
from blockwright.tree.node import Directory

_BIOS_MACHINES = ("X64", "IA32")


@dataclass(frozen=True, slots=True)
class Machine:
    """What starts the disk: the EFI suffix of its machine, the kernel, and where files of loaders are."""

    suffix: str
    kernel: Kernel
    shelves: tuple[Shelf, ...]


def find_machine(tree: Directory, definition: Definition) -> Machine:
    """Return what is to start the disk, from the definition or else from the tree.

    Raises NotFound where no kernel is named and the tree holds none, NotThisFormat for what firmware cannot start.
    """
    boot = definition.boot
    if boot.kernel is not None:
        kernel: Kernel | None = named_kernel(boot.kernel.name, boot.kernel.content)
    else:
        kernel = find_kernel(tree)
    if kernel is None:
        raise NotFound("build: the tree holds no kernel in /boot, /usr/lib/modules or /: name one with --kernel")
    if boot.initrd is not None:
        kernel = replace(kernel, initrd=boot.initrd.content, initrd_path=None)
    if boot.ways.bios is not None and not is_bzimage(kernel.content):
        raise NotThisFormat("expected a Linux bzImage, which loaders for a BIOS start", source=kernel.path)
    return Machine(_suffix(tree, definition, kernel), kernel, shelves_for(tree, definition))


def shelves_for(tree: Directory, definition: Definition) -> tuple[Shelf, ...]:
    """Return where loaders are looked for: in the directory that was named, or in the tree and on this host."""
    directory = definition.boot.loader_dir
    return (of_tree(tree), of_host()) if directory is None else (of_directory(directory),)


def _suffix(tree: Directory, definition: Definition, kernel: Kernel) -> str:
    boot = definition.boot
    if boot.ways.uefi is None:  # a kernel for a BIOS need not be an EFI program
        found = programs_machine(tree)
        return found if found in _BIOS_MACHINES else "X64"
    program = boot.loader or boot.kernel
    if program is not None:
        return efi_suffix(program.content, program.name)
    return efi_suffix(kernel.content, kernel.path)
