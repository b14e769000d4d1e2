"""What a kernel or a loader says of itself: its machine, by its PE header, and a Linux kernel's version.

Knows: the few bytes of PE and of the x86 boot protocol that are needed. Refuses to know: where files come from.

Source: Microsoft PE format (COFF file header); Linux Documentation/arch/x86/boot.rst
(kernel_version, 0x20E; xloadflags, 0x236).
"""

from __future__ import annotations

from typing import Final

from blockwright.errors import NotThisFormat, Unsupported
from blockwright.tree.content import Content

_MACHINES: Final = {
    0x014C: "IA32",
    0x8664: "X64",
    0x01C0: "ARM",
    0x01C2: "ARM",
    0x01C4: "ARM",
    0xAA64: "AA64",
    0x5032: "RISCV32",
    0x5064: "RISCV64",
    0x6232: "LOONGARCH32",
    0x6264: "LOONGARCH64",
}
"""PE machine to the suffix that UEFI 2.10 section 3.5.1.1 gives the removable-media file name."""

_HANDOVER_32: Final = 1 << 2
"""Bit of xloadflags, 0x236: the kernel has an entry for EFI firmware of 32 bits."""
_HEAD = 64 << 10
_MAX_VERSION = 128


def efi_suffix(content: Content, name: str) -> str:
    """Return what stands behind ``BOOT`` in the removable-media path of this program: ``X64`` or ``AA64``.

    Raises NotThisFormat where ``content`` is no PE program, or one for a machine that UEFI gives no name.
    """
    head = _head(content)
    at = int.from_bytes(head[0x3C:0x40], "little")
    if head[:2] != b"MZ" or head[at : at + 4] != b"PE\0\0":
        raise NotThisFormat("expected an EFI program (PE), found something else", source=name, offset=0)
    machine = int.from_bytes(head[at + 4 : at + 6], "little")
    if machine not in _MACHINES:
        raise NotThisFormat(f"expected a machine that UEFI names, found {machine:#06x}", source=name, offset=at + 4)
    return _MACHINES[machine]


def check_machines(loader: Content, loader_name: str, kernel: Content, kernel_name: str) -> None:
    """Raise Unsupported where a loader for UEFI cannot start the kernel since that is for another machine.

    A loader for x86 of 32 bits starts a kernel of 64 bits that says it can be entered so: firmware of 32 bits on a
    processor of 64 has nothing else. A kernel that is no EFI program at all is the loader's to judge.
    """
    found = efi_suffix(loader, loader_name)
    try:
        wanted = efi_suffix(kernel, kernel_name)
    except NotThisFormat:
        return
    if found == wanted:
        return
    if (found, wanted) == ("IA32", "X64"):
        if is_bzimage(kernel) and int.from_bytes(_head(kernel)[0x236:0x238], "little") & _HANDOVER_32:
            return
        raise Unsupported(
            f"expected a kernel that firmware of 32 bits can enter (CONFIG_EFI_MIXED), for {loader_name} is for IA32;"
            " found one without",
            source=kernel_name,
        )
    raise Unsupported(f"expected a loader for {wanted}, as the kernel is, found one for {found}", source=loader_name)


def is_bzimage(content: Content) -> bool:
    """Whether this is a Linux kernel for x86 with the boot protocol that loaders for a BIOS use."""
    return _head(content)[0x202:0x206] == b"HdrS"


def linux_version(content: Content) -> str | None:
    """Return the version that a bzImage carries (``6.1.0-56-cloud-amd64``), or None where it carries none."""
    head = _head(content)
    if head[0x202:0x206] != b"HdrS":
        return None
    at = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    text = head[at : at + _MAX_VERSION].split(b"\0", 1)[0].split(b" ", 1)[0]
    return text.decode("ascii", "replace") if at > 0x200 and text.isascii() and text else None


def _head(content: Content) -> bytes:
    buffer = bytearray(min(content.size, _HEAD))
    if buffer:
        content.read_into(0, memoryview(buffer))
    return bytes(buffer)
