"""The files of an EFI system partition that start a kernel by UEFI's removable-media path.

systemd-boot with one Boot Loader Specification entry (type 1); GRUB's image with its configuration; a unified kernel
image; or the kernel itself, built with its command line or needing none.

Knows: paths and texts. Refuses to know: file systems and partitions.

Source: UEFI 2.10 section 3.5.1.1; UAPI.1 Boot Loader Specification, "Type #1 Boot Loader Specification Entries".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from blockwright.boot import grubefi, menu, uki
from blockwright.boot.image import check_machines, efi_suffix, linux_version
from blockwright.boot.kernel import Kernel, os_title
from blockwright.boot.kinds import Uefi
from blockwright.boot.shelf import all_bytes
from blockwright.tree.content import BytesContent, Content

Files = dict[str, Content]
"""Contents by relative path."""

_NONE: Final[Mapping[str, Content]] = {}


class Program(NamedTuple):
    """A loader or a stub, and how messages show it."""

    name: str
    content: Content


def way_files(
    way: Uefi,
    kernel: Kernel,
    program: Program | None,
    *,
    os_release: bytes,
    options: str,
    serial: bool,
    machine_suffix: str,
    sections: Mapping[str, Content] = _NONE,
) -> Files:
    """Return what an EFI system partition holds for one way to start ``kernel``; ``program`` is what that takes.

    ``sections`` are more of a unified kernel image: ``.dtb``, ``.splash``. Raises FormatError where the program is
    another, or for another machine than the kernel.
    """
    if way is Uefi.KERNEL or program is None:
        return kernel_as_program(kernel)
    check_machines(program.content, program.name, kernel.content, kernel.path)
    if way is Uefi.UKI:
        stub = all_bytes(program.content, program.name)
        return unified(
            kernel,
            stub,
            program.name,
            options=options,
            os_release=os_release,
            machine_suffix=machine_suffix,
            more=sections,
        )
    entry = kernel_entry(kernel, title=os_title(os_release), options=options, serial=serial)
    if way is Uefi.GRUB:
        return grub(kernel, all_bytes(program.content, program.name), program.name, entry, machine_suffix)
    return systemd_boot(kernel, program.content, entry, machine_suffix)


def kernel_files(kernel: Kernel) -> Files:
    """Return the kernel and its RAM disk in a directory named by its version."""
    name = file_name(kernel.version)
    files = {f"{name}/linux": kernel.content}
    if kernel.initrd is not None:
        files[f"{name}/initrd"] = kernel.initrd
    return files


def kernel_entry(kernel: Kernel, *, title: str, options: str, serial: bool = False) -> menu.Entry:
    """Return how a loader starts what ``kernel_files`` put there."""
    name = file_name(kernel.version)
    initrd = None if kernel.initrd is None else f"/{name}/initrd"
    return menu.Entry(title, f"/{name}/linux", initrd, options, serial)


def systemd_boot(kernel: Kernel, loader: Content, entry: menu.Entry, machine_suffix: str) -> Files:
    """Return the loader as BOOT*.EFI, its configuration, one entry, the kernel and its RAM disk."""
    name = file_name(kernel.version)
    return {
        **kernel_files(kernel),
        f"EFI/BOOT/BOOT{machine_suffix}.EFI": loader,
        "loader/loader.conf": BytesContent(f"default {name}.conf\ntimeout 0\neditor no\n".encode()),
        f"loader/entries/{name}.conf": BytesContent(menu.systemd(entry, kernel.version).encode()),
    }


def grub(kernel: Kernel, image: bytes, source: str, entry: menu.Entry, machine_suffix: str) -> Files:
    """Return GRUB's image as BOOT*.EFI, its configuration where the image looks for it, the kernel, its RAM disk.

    Raises FormatError where the image is none of GRUB's.
    """
    return {
        **kernel_files(kernel),
        f"EFI/BOOT/BOOT{machine_suffix}.EFI": BytesContent(image),
        grubefi.config_path(image, source): BytesContent(menu.grub(entry).encode()),
    }


def unified(
    kernel: Kernel,
    stub: bytes,
    source: str,
    *,
    options: str,
    os_release: bytes,
    machine_suffix: str,
    more: Mapping[str, Content] = _NONE,
) -> Files:
    """Return a unified kernel image as BOOT*.EFI, with ``more`` sections. Raises as ``uki.assemble`` does."""
    menu.check_options(options)
    sections: Files = {**more, ".cmdline": BytesContent(options.encode() + b"\0"), ".linux": kernel.content}
    if os_release:
        sections[".osrel"] = BytesContent(os_release)
    version = linux_version(kernel.content)
    if version is not None:
        sections[".uname"] = BytesContent(version.encode())
    if kernel.initrd is not None:
        sections[".initrd"] = kernel.initrd
    return {f"EFI/BOOT/BOOT{machine_suffix}.EFI": uki.assemble(stub, sections, source)}


def kernel_as_program(kernel: Kernel) -> Files:
    """Return nothing but the kernel as BOOT*.EFI; firmware gives it no command line."""
    return {f"EFI/BOOT/BOOT{efi_suffix(kernel.content, kernel.path)}.EFI": kernel.content}


def file_name(version: str) -> str:
    """Return the version as a name that FAT and the loaders take."""
    name = "".join(each if each.isascii() and (each.isalnum() or each in "._+-") else "_" for each in version)[:64]
    return name if name.strip(".") else "linux"
