"""Boot loaders' parts: Debian's, and as small as they can be, of our own making, without code that would run."""

import struct
from collections.abc import Callable
from pathlib import Path

from tests.support.tools import package_file

MAGIC = 0x3EB202FE
EXTENTS = 8
IMAGE = 0x1800
DIRECTORY, EXTENT_TABLE, POINTERS, EXTENDED = 0x200, 0x400, 0x600, 0x700


_DEBIAN = {
    "extlinux": ("usr/bin/extlinux", "extlinux"),
    "gptmbr.bin": ("usr/lib/syslinux/mbr/gptmbr.bin", "syslinux-common"),
    "mbr.bin": ("usr/lib/syslinux/mbr/mbr.bin", "syslinux-common"),
    "i386-pc": ("usr/lib/grub/i386-pc", "grub-pc-bin"),
    "grubx64.efi": ("usr/lib/grub/x86_64-efi/monolithic/grubx64.efi", "grub-efi-amd64-bin"),
    "grubx64.efi.signed": ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "grub-efi-amd64-signed"),
    "shimx64.efi": ("usr/lib/shim/shimx64.efi", "shim-unsigned"),
    "shimx64.efi.signed": ("usr/lib/shim/shimx64.efi.signed", "shim-signed"),
    "mmx64.efi.signed": ("usr/lib/shim/mmx64.efi.signed", "shim-helpers-amd64-signed"),
    "linuxx64.efi.stub": ("usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd-boot-efi"),
    "systemd-bootx64.efi": ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", "systemd-boot-efi"),
}


def debian_loaders(directory: Path, *names: str) -> Path:
    """Fill `directory` with Debian's loaders, all or those named, wherever their packages were unpacked."""
    directory.mkdir(exist_ok=True)
    for name in names or _DEBIAN:
        path, package = _DEBIAN[name]
        (directory / name).symlink_to(package_file(path, package=package))
    return directory


def boot_sector() -> bytes:
    """A boot sector of SYSLINUX before it is installed."""
    sector = bytearray(b"\x90" * 512)
    sector[:11] = b"\xeb\x58\x90SYSLINUX"
    sector[11:0x5A] = bytes(0x5A - 11)
    struct.pack_into("<I", sector, 0x11A, 0xDEADBEEF)
    struct.pack_into("<I", sector, 0x120, 0xFEEDFACE)
    struct.pack_into("<I", sector, 0x1F8, MAGIC)
    sector[510:] = b"\x55\xaa"
    return bytes(sector)


def ldlinux(version: bytes = b"6.04", size: int = IMAGE) -> bytes:
    """ldlinux.sys as it is distributed, with room for `EXTENTS` extents."""
    image = bytearray(size)
    image[:16] = b"\r\nSYSLINUX %s " % version
    struct.pack_into("<IIHHIIHH", image, 24, MAGIC, 1, 0, 0, 0, 0, 127, EXTENDED)
    fields = (POINTERS, DIRECTORY, 64, DIRECTORY + 64, 64, EXTENT_TABLE, EXTENTS, 0x11A, 0x120, 0x1CA)
    struct.pack_into("<10H", image, EXTENDED, *fields)
    image[0x1000:] = b"code" * ((size - 0x1000) // 4)
    return bytes(image)


def module() -> bytes:
    """ldlinux.c32, by its first bytes."""
    return b"\x7fELF" + b"module" * 20


def extlinux() -> bytes:
    """A program with the three inside, as extlinux has them."""
    sizes = struct.pack("<8I", 0, 10, 7, 512, 7, len(module()), 7, IMAGE)
    parts = boot_sector() + module().ljust(128, b"\0") + ldlinux()
    return (b"\x7fELF" + bytes(60) + sizes).ljust(512, b"\0") + parts + bytes(64)


def elf32(sections: list[tuple[int, bytes]]) -> bytes:
    """A program of 32 bits with these (address, bytes) in memory."""
    body, headers = bytearray(bytes(52)), bytearray(bytes(40))
    for address, content in sections:
        headers += struct.pack("<10I", 0, 1, 2, address, len(body), len(content), 0, 0, 4, 0)
        body += content
    struct.pack_into("<7sBB", body, 0, b"\x7fELF\1\1\1", 0, 0)
    struct.pack_into("<I", body, 32, len(body))
    struct.pack_into("<HH", body, 46, 40, len(headers) // 40)
    return bytes(body + headers)


def grub_files() -> dict[str, bytes]:
    """The files of GRUB for a BIOS."""
    boot = bytearray(512)
    boot[:3], boot[0x66:0x68], boot[510:] = b"\xeb\x63\x90", b"\xeb\x05", b"\x55\xaa"
    files = {name: b"\x7fELF" + name.encode() for name in ("biosdisk.mod", "ext2.mod", "fshelp.mod", "normal.mod")}
    return files | {
        "boot.img": bytes(boot),
        "diskboot.img": b"d" * 512,
        "lzma_decompress.img": b"l" * 0x400,
        "kernel.img": elf32([(0x9000, b"text" * 10), (0x9040, b"data")]),
        "moddep.lst": b"ext2: fshelp\nfshelp:\nnormal: ext2 biosdisk\nbiosdisk:\nkernel:\n",
    }


def grub_reader(files: dict[str, bytes] | None = None) -> Callable[[str], bytes | None]:
    """How a loader's parts are read: a function from a name."""
    return (grub_files() if files is None else files).get


def program(
    sections: list[tuple[str, bytes]],
    *,
    machine: int = 0x8664,
    section_alignment: int = 0x1000,
    file_alignment: int = 0x200,
    headers: int = 0x400,
    certificate: int = 0,
) -> bytes:
    """An EFI program (PE32+) with these sections."""
    data = bytearray(headers)
    data[:2] = b"MZ"
    struct.pack_into("<I", data, 0x3C, 0x80)
    data[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<HH", data, 0x84, machine, len(sections))
    struct.pack_into("<H", data, 0x94, 240)
    optional = 0x98
    struct.pack_into("<H", data, optional, 0x20B)
    struct.pack_into("<II", data, optional + 32, section_alignment, file_alignment)
    struct.pack_into("<I", data, optional + 108, 16)
    struct.pack_into("<II", data, optional + 112 + 8 * 4, certificate, certificate)
    address = section_alignment
    for number, (name, content) in enumerate(sections):
        padded = content.ljust(-(-len(content) // file_alignment) * file_alignment, b"\0")
        header = struct.pack("<8s4I12xI", name.encode(), len(content), address, len(padded), len(data), 0x40000040)
        at = optional + 240 + 40 * number
        data[at : at + 40] = header
        data += padded
        address = -(-(address + len(content)) // section_alignment) * section_alignment
    struct.pack_into("<II", data, optional + 56, address, headers)
    return bytes(data)


def stub(**options: int) -> bytes:
    """A stub for unified kernel images, by its mark."""
    return program([(".text", b"code" * 100), (".sdmagic", b"#### LoaderInfo: systemd-stub 1 ####")], **options)


def grub_efi(
    prefix: bytes = b"/EFI/debian", objects: tuple[tuple[int, bytes], ...] = ((0, b"\x7fELFmod!"),)
) -> bytes:
    """GRUB's image for UEFI with a prefix."""
    area = b""
    for kind, content in (*objects, (3, prefix + b"\0")):
        padded = content.ljust(-(-len(content) // 8) * 8, b"\0")
        area += struct.pack("<II", kind, 8 + len(padded)) + padded
    area = struct.pack("<IIQQ", 0x676D696D, 0, 24, 24 + len(area)) + area
    return program([(".text", b"code"), ("mods", area)])
