"""The files of an EFI system partition that start a kernel by UEFI's removable-media path.

Either systemd-boot with one Boot Loader Specification entry (type 1), or the kernel itself as BOOT*.EFI: a unified
kernel image, or one built with its command line.

Knows: paths and texts. Refuses to know: file systems and partitions.

Source: UEFI 2.10 section 3.5.1.1; UAPI.1 Boot Loader Specification, "Type #1 Boot Loader Specification Entries".
"""

from __future__ import annotations

from blockwright.boot.image import efi_suffix
from blockwright.boot.kernel import Kernel
from blockwright.errors import UsageError
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import Directory, File


def systemd_boot(
    kernel: Kernel, loader: Content, *, title: str, options: str, machine_suffix: str, mtime_ns: int
) -> Directory:
    """Return a tree with the loader as BOOT*.EFI, its configuration, one entry, the kernel and its RAM disk."""
    if "\n" in options or "\0" in options:
        raise UsageError("kernel command line: expected one line, found a line break or NUL")
    name = _file_name(kernel.version)
    lines = [f"title {title}", f"version {kernel.version}", f"linux /{name}/linux"]
    files: dict[str, Content] = {f"{name}/linux": kernel.content}
    if kernel.initrd is not None:
        lines.append(f"initrd /{name}/initrd")
        files[f"{name}/initrd"] = kernel.initrd
    lines.append(f"options {options}")
    files[f"EFI/BOOT/BOOT{machine_suffix}.EFI"] = loader
    files["loader/loader.conf"] = BytesContent(f"default {name}.conf\ntimeout 0\neditor no\n".encode())
    files[f"loader/entries/{name}.conf"] = BytesContent("".join(f"{line}\n" for line in lines).encode())
    return _tree(files, mtime_ns)


def kernel_as_program(kernel: Kernel, *, mtime_ns: int) -> Directory:
    """Return a tree with nothing but the kernel as BOOT*.EFI; firmware gives it no command line."""
    return _tree({f"EFI/BOOT/BOOT{efi_suffix(kernel.content, kernel.path)}.EFI": kernel.content}, mtime_ns)


def with_root(cmdline: str, partition_guid: str) -> str:
    """Return the command line with ``root=PARTUUID=…`` and ``rw`` in front, unless it says either itself."""
    return _with(cmdline, root=f"PARTUUID={partition_guid}", mode="rw")


def with_verity_root(cmdline: str, root_hash: str) -> str:
    """Return the command line with ``root=/dev/mapper/root``, ``ro`` and ``roothash=…`` in front.

    systemd's generator in the initial RAM disk makes that device of the partitions whose UUIDs are the first and the
    last 128 bits of the root hash. ``root=`` and ``ro`` are left to a line that says them itself.
    """
    return _with(cmdline, f"roothash={root_hash}", root="/dev/mapper/root", mode="ro")


def _with(cmdline: str, *more: str, root: str, mode: str) -> str:
    words = cmdline.split()
    defaults = []
    if not any(word.startswith("root=") for word in words):
        defaults.append(f"root={root}")
    if not any(word in ("ro", "rw") for word in words):
        defaults.append(mode)
    return " ".join([*defaults, *more, *([cmdline.strip()] if words else [])])


def _file_name(version: str) -> str:
    """Return the version as a name that FAT and the loader take."""
    return "".join(each if each.isascii() and (each.isalnum() or each in "._+-") else "_" for each in version)[:64]


def _tree(files: dict[str, Content], mtime_ns: int) -> Directory:
    root = Directory(mtime_ns=mtime_ns)
    for path, content in files.items():
        *parents, name = path.split("/")
        directory = root
        for parent in parents:
            child = directory.entries.setdefault(parent.encode(), Directory(mtime_ns=mtime_ns))
            assert isinstance(child, Directory)
            directory = child
        directory.entries[name.encode()] = File(mtime_ns=mtime_ns, content=content)
    return root
