"""Each boot loader's parts, from the places where its files are found.

Knows: which files make a loader, and under which names distributions have them. Refuses to know: what becomes of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from blockwright.boot.grub import BOOT_CODE, Grub
from blockwright.boot.kinds import Uefi
from blockwright.boot.shelf import Found, Shelf, Wanted, all_bytes, find, missing
from blockwright.boot.syslinux import Syslinux
from blockwright.boot.syslinux_parts import from_program
from blockwright.errors import NotFound, NotThisFormat

_SYSLINUX_FILES: Final = (
    Wanted("ldlinux.bss", (), ("ldlinux.bss", "core/ldlinux.bss", "bios/core/ldlinux.bss"), "extlinux"),
    Wanted("ldlinux.sys", (), ("ldlinux.sys", "core/ldlinux.sys", "bios/core/ldlinux.sys"), "extlinux"),
    Wanted(
        "ldlinux.c32",
        (),
        ("ldlinux.c32", "com32/elflink/ldlinux/ldlinux.c32", "bios/com32/elflink/ldlinux/ldlinux.c32"),
        "extlinux",
    ),
)
_EXTLINUX: Final = Wanted(
    "extlinux",
    ("usr/bin/extlinux", "usr/sbin/extlinux", "sbin/extlinux"),
    ("extlinux", "extlinux/extlinux", "bios/extlinux/extlinux"),
    "extlinux",
)
_GRUB: Final = Wanted(
    "GRUB for a BIOS (kernel.img)",
    ("usr/lib/grub/i386-pc/kernel.img",),
    ("kernel.img", "i386-pc/kernel.img"),
    "grub-pc-bin",
)
_GRUB_DIRECTORIES: Final = {
    "X64": "x86_64-efi",
    "IA32": "i386-efi",
    "AA64": "arm64-efi",
    "ARM": "arm-efi",
    "RISCV64": "riscv64-efi",
    "LOONGARCH64": "loongarch64-efi",
}
_GRUB_PACKAGES: Final = {
    "X64": "grub-efi-amd64-bin",
    "IA32": "grub-efi-ia32-bin",
    "AA64": "grub-efi-arm64-bin",
    "ARM": "grub-efi-arm-bin",
    "RISCV64": "grub-efi-riscv64-bin",
    "LOONGARCH64": "grub-efi-loong64-bin",
}
_VENDORS: Final = ("boot/efi/EFI/fedora", "boot/efi/EFI/BOOT")


def syslinux(shelves: Sequence[Shelf]) -> Syslinux:
    """Return SYSLINUX, from its three files or from within ``extlinux``, whichever a place has first.

    Raises NotFound; FormatError where what is found is none of it.
    """
    for shelf in shelves:
        files = [shelf.find(each) for each in _SYSLINUX_FILES]
        present = [each for each in files if each is not None]
        if len(present) == len(files):
            sector, image, module = (each.bytes() for each in present)
            return Syslinux.of(sector, image, module, present[1].name)
        program = shelf.find(_EXTLINUX)
        if program is not None:
            return from_program(program.bytes(), program.name)
    raise missing(shelves, _EXTLINUX)


def disk_code(shelves: Sequence[Shelf], table: str) -> bytes:
    """Return SYSLINUX's code for the first sector of a disk with a table of that kind, ``gpt`` or ``mbr``.

    It starts the boot sector of the partition that is marked. Raises NotFound; NotThisFormat for a wrong size.
    """
    name = {"gpt": "gptmbr.bin", "mbr": "mbr.bin"}[table]
    places = ("syslinux/mbr", "EXTLINUX", "SYSLINUX", "syslinux/bios", "syslinux")
    installed = (*(f"usr/lib/{each}/{name}" for each in places), f"usr/share/syslinux/{name}")
    found = find(shelves, Wanted(name, installed, (name, f"mbr/{name}", f"bios/mbr/{name}"), "syslinux-common"))
    code = found.bytes()
    if len(code) > BOOT_CODE:
        raise NotThisFormat(f"expected at most {BOOT_CODE} bytes of code, found {len(code)}", source=found.name)
    return code.ljust(BOOT_CODE, b"\0")


def grub(shelves: Sequence[Shelf]) -> Grub:
    """Return GRUB for ``i386-pc``; its parts are read when they are asked for. Raises NotFound."""
    kernel = find(shelves, _GRUB)
    directory = PurePosixPath(kernel.path).parent

    def read(name: str) -> bytes | None:
        content = kernel.shelf.read(str(directory / name))
        return None if content is None else all_bytes(content, name)

    return Grub(read, str(PurePosixPath(kernel.shelf.name) / directory))


def uefi(shelves: Sequence[Shelf], way: Uefi, suffix: str, *, signed: bool = False) -> Found:
    """Return the program that a way by UEFI takes on the machine with that suffix: a loader, or systemd's stub.

    ``signed`` has GRUB with a distribution's signature come first. Raises NotFound.
    """
    low = suffix.lower()
    if way is Uefi.GRUB:
        if suffix not in _GRUB_DIRECTORIES:
            raise NotFound(f"boot: GRUB has no image for UEFI on {suffix}")
        name, directory = f"grub{low}.efi", _GRUB_DIRECTORIES[suffix]
        installed = [
            f"usr/lib/grub/{directory}/monolithic/{name}",
            *(f"{vendor}/{name}" for vendor in _VENDORS),
            f"usr/lib/grub/{directory}-signed/{name}.signed",
        ]
        loose = [
            name,
            f"monolithic/{name}",
            f"{directory}/monolithic/{name}",
            f"{name}.signed",
            f"{directory}-signed/{name}.signed",
        ]
        package = _GRUB_PACKAGES[suffix]
        if signed:
            installed.sort(key=lambda each: not each.endswith(".signed"))
            loose.sort(key=lambda each: not each.endswith(".signed"))
            package = package.removesuffix("-bin") + "-signed"
        return find(shelves, Wanted(name, tuple(installed), tuple(loose), package))
    name = f"linux{low}.efi.stub" if way is Uefi.UKI else f"systemd-boot{low}.efi"
    return find(shelves, Wanted(name, (f"usr/lib/systemd/boot/efi/{name}",), (name,), "systemd-boot-efi"))


def shim(shelves: Sequence[Shelf], suffix: str) -> tuple[Found, Found | None]:
    """Return the signed shim for the machine, and the program that enrols keys, from the same place where it has one.

    Raises NotFound.
    """
    found = find(shelves, _of_shim(f"shim{suffix.lower()}.efi", "shim-signed"))
    return found, found.shelf.find(_of_shim(f"mm{suffix.lower()}.efi", "shim-helpers-amd64-signed"))


def _of_shim(name: str, package: str) -> Wanted:
    installed = (f"usr/lib/shim/{name}.signed", *(f"{vendor}/{name}" for vendor in _VENDORS))
    return Wanted(name, installed, (f"{name}.signed", name), package)
