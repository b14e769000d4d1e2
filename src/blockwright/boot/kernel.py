"""Where a tree keeps its kernels and their initial RAM disks, and what it calls itself.

Knows: the places that distributions use. Refuses to know: what is done with what is found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from blockwright.boot.image import linux_version
from blockwright.tree.content import Content
from blockwright.tree.lookup import lookup
from blockwright.tree.node import Directory, File

_IMAGES = re.compile(rb"(?:vmlinuz|vmlinux|Image|bzImage|kernel)(?:-(?P<version>.+))?")
_NOT_A_KERNEL = re.compile(rb"(?:^|[-.])(?:rescue|recovery|old)(?:$|[-.])")
_MAX_OS_RELEASE = 64 << 10


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel: where it was found, its bytes, its version (never empty), and the initial RAM disk made for it.

    ``in_tree`` says that ``path`` is one of the tree, and ``initrd_path`` is the RAM disk's where that is there too.
    """

    path: str
    content: Content
    version: str
    initrd: Content | None = None
    initrd_path: str | None = None
    in_tree: bool = False


def named_kernel(path: str, content: Content, initrd: Content | None = None) -> Kernel:
    """Return the kernel that the user named; its version is what it says of itself, or ``linux``."""
    return Kernel(path, content, linux_version(content) or "linux", initrd)


def find_kernel(root: Directory) -> Kernel | None:
    """Return the newest kernel of the tree with its initial RAM disk, or None.

    Looks in /usr/lib/modules/VERSION/vmlinuz and /lib/modules, then in /boot, then in the root directory; versions
    compare number by number, and rescue or ``.old`` kernels come last.
    """
    found = [*_module_kernels(root), *_named_kernels(root, b"boot"), *_named_kernels(root, b"")]
    if not found:
        return None
    path, version, file = max(found, key=lambda each: (not _NOT_A_KERNEL.search(each[0]), _order(each[1])))
    name = version.decode("utf-8", "replace") or linux_version(file.content) or "linux"
    initrd = _initrd(root, version)
    made = Kernel(path.decode("utf-8", "replace"), file.content, name, in_tree=True)
    return made if initrd is None else replace(made, initrd=initrd[1], initrd_path=initrd[0])


def os_release(root: Directory) -> bytes:
    """Return the os-release file of the system in the tree; empty where there is none, or one that is too large."""
    for path in (b"etc/os-release", b"usr/lib/os-release"):
        node = lookup(root, path)
        if isinstance(node, File) and 0 < node.content.size <= _MAX_OS_RELEASE:
            buffer = bytearray(node.content.size)
            node.content.read_into(0, memoryview(buffer))
            return bytes(buffer)
    return b""


def os_title(release: bytes) -> str:
    """Return what a system calls itself: PRETTY_NAME of its os-release, else ``Linux``."""
    match = re.search(rb"^PRETTY_NAME=[\"']?([^\"'\n]+)", release, re.MULTILINE)
    return match[1].decode("utf-8", "replace").strip()[:80] if match else "Linux"


def _module_kernels(root: Directory) -> list[tuple[bytes, bytes, File]]:
    found = []
    for base in (b"usr/lib/modules", b"lib/modules"):
        modules = lookup(root, base)
        for version in modules.entries if isinstance(modules, Directory) else ():
            path = b"%s/%s/vmlinuz" % (base, version)
            node = lookup(root, path)
            if isinstance(node, File) and node.content.size:
                found.append((path, version, node))
    return found


def _named_kernels(root: Directory, base: bytes) -> list[tuple[bytes, bytes, File]]:
    found = []
    directory = lookup(root, base)
    for name in directory.entries if isinstance(directory, Directory) else ():
        match = _IMAGES.fullmatch(name)
        path = b"%s/%s" % (base, name) if base else name
        node = lookup(root, path) if match else None
        if match and isinstance(node, File) and node.content.size:
            found.append((path, match["version"] or b"", node))
    return found


def _initrd(root: Directory, version: bytes) -> tuple[str, Content] | None:
    names = [
        b"usr/lib/modules/%s/initrd" % version,
        b"boot/initrd.img-" + version,
        b"boot/initrd-" + version,
        b"boot/initramfs-%s.img" % version,
    ]
    if not version:
        names = [b"boot/initrd.img", b"initrd.img", b"boot/initrd", b"boot/initramfs.img"]
    for name in names:
        node = lookup(root, name)
        if isinstance(node, File) and node.content.size:
            return name.decode("utf-8", "replace"), node.content
    return None


def _order(version: bytes) -> list[tuple[int, int, bytes]]:
    """Return a key by which 6.10 is newer than 6.9, and any version newer than none."""
    parts = re.findall(rb"[0-9]+|[^0-9]+", version)
    return [(1, int(part), b"") if part.isdigit() else (0, 0, part) for part in parts]
