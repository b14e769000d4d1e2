"""Fuzz target: any bytes as an ext2, ext3 or ext4 file system."""

import contextlib
import stat

from blockwright.device.base import BlockDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError
from blockwright.fs.ext4 import read
from blockwright.fs.ext4.check import MAX_FINDINGS, check
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.layout import Compat
from blockwright.fs.ext4.options import Ext4Options, Features
from blockwright.fs.ext4.plan import plan
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Node, Special, Symlink, walk

MAX_BYTES = 1 << 20
MAX_READ = 1 << 16
"""Bytes of each file that are read: a hostile size is no reason to read zeros for hours."""
MAX_INODES = 2000
NOW = 1_800_000_000


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out, and ends."""
    device = MemoryDevice(content=data[:MAX_BYTES])
    for verify in (False, True):
        with contextlib.suppress(FormatError):
            explore(device, verify=verify)
    try:
        findings = check(device, now=NOW)
    except FormatError:
        return
    if len(findings) > MAX_FINDINGS:
        raise AssertionError(f"{len(findings)} findings, more than {MAX_FINDINGS}")


def explore(device: BlockDevice, *, verify: bool) -> None:
    """Use all of the reader's interface."""
    fs = read.open(device, verify=verify)
    fs.usage()
    explore_inodes(fs)
    with contextlib.suppress(FormatError):
        for _count, (_path, node) in zip(range(MAX_INODES), walk(fs.tree()), strict=False):
            if isinstance(node, File) and node.content.runs():
                buffer = bytearray(min(MAX_READ, node.content.size))
                node.content.read_into(0, memoryview(buffer))


def explore_inodes(fs: read.Ext4FileSystem) -> None:
    """Ask everything of every inode that a name leads to."""
    pending, seen = [fs.root_inode], {fs.root_inode}
    while pending and len(seen) < MAX_INODES:
        number = pending.pop()
        try:
            kind = fs.stat_inode(number).kind
            fs.xattrs(number)
            if kind == stat.S_IFDIR:
                for entry in fs.entries(number):
                    fs.find(number, entry.name)
                    if entry.inode not in seen and len(seen) < MAX_INODES:
                        seen.add(entry.inode)
                        pending.append(entry.inode)
                fs.find(number, b"absent")
            elif kind == stat.S_IFLNK:
                fs.link_target(number)
            elif kind == stat.S_IFREG:
                with fs.open_inode(number) as file:
                    file.read(0, min(MAX_READ, file.size))
                    file.read(max(0, file.size - 100), min(100, file.size))
                    for _ in zip(range(1000), file.extents(), strict=False):
                        pass
        except FormatError:
            continue


def small_tree() -> Directory:
    """One of everything."""
    many: dict[bytes, Node] = {b"%03d-%s" % (i, b"x" * 40): Symlink(b"t%d" % i) for i in range(150)}
    linked = File(content=BytesContent(b"linked" * 500), xattrs={b"user.a": b"v" * 300, b"security.b": b"c"})
    return Directory(
        entries={
            b"empty": File(),
            b"small": File(content=BytesContent(b"small")),
            b"large": File(content=BytesContent(bytes(range(256)) * 40)),
            b"link": Symlink(b"small"),
            b"long": Symlink(b"l" * 200),
            b"fifo": Special(stat.S_IFIFO),
            b"device": Special(stat.S_IFBLK, major=8, minor=300),
            b"one": linked,
            b"two": linked,
            b"folder": Directory(entries={b"inner": Directory(entries={b"file": File()})}),
            b"many": Directory(entries=many),
        }
    )


def seeds() -> list[bytes]:
    """File systems of our own, with and without a journal."""
    plain = Features().compat & ~(Compat.has_journal | Compat.resize_inode)
    options = [
        Ext4Options(block_size=1024, seed=b"fuzz", features=Features(compat=plain)),
        Ext4Options(block_size=4096, seed=b"fuzz", features=Features(compat=plain)),
        Ext4Options(block_size=1024, seed=b"fuzz"),
    ]
    found = []
    for option in options:
        with open_plan(plan(small_tree(), option)) as device:
            if device.size <= MAX_BYTES:
                found.append(device.read(0, device.size))
    return found
