"""An ext2, ext3 or ext4 file system opened for reading: its files by inode and by path.

Knows: how the parts of the format make files. Refuses to know: how each part is stored (``volume``, ``mapping``,
``directory``, ``xattr_read``), and writing.

Source: Linux 6.1, Documentation/filesystems/ext4.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, NotThisFormat, UsageError
from blockwright.fs.ext4.contents import BytesDevice, FileContent, FileDevice, RunReader
from blockwright.fs.ext4.directory import Budget, directory_blocks, entries_in, inline_entries
from blockwright.fs.ext4.inode import KINDS, S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG, Inode
from blockwright.fs.ext4.layout import (
    XATTR_PREFIXES,
    Compat,
    Incompat,
    InodeFlag,
    ReservedInode,
    RoCompat,
    State,
    feature_names,
)
from blockwright.fs.ext4.lookup import find_name
from blockwright.fs.ext4.mapping import MAX_LOGICAL, block_runs
from blockwright.fs.ext4.mmp import user_of
from blockwright.fs.ext4.replay import needs_replay, replayed
from blockwright.fs.ext4.volume import Volume, read_superblock
from blockwright.fs.ext4.xattr_read import ACL_INDEXES, INDEX_SYSTEM, Attribute, attributes, inline_tail, shown_acl
from blockwright.fs.reader import Entry, FileSystem, Placed, Stat, Usage
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import NO_XATTRS, Directory, File, Node, Special, Symlink
from blockwright.units import KiB

MAX_TARGET = 64 * KiB
"""Bytes of a symbolic link's target, which lies in one block."""


def probe(device: BlockDevice) -> bool:
    """Whether the device carries the superblock of an ext2, ext3 or ext4 file system."""
    try:
        read_superblock(device, verify=False)
    except NotThisFormat:
        return False
    return True


def open(  # noqa: A001 - the same name in every file system
    device: BlockDevice, *, source: str | None = None, superblock: int | None = None, verify: bool = True
) -> Ext4FileSystem:
    """Return the file system on ``device``, which it owns from then on.

    ``superblock`` is the block of a backup to read in place of the primary superblock and its descriptors.
    An unclean journal is replayed in memory. Without ``verify``, checksums are not compared. ``source`` is what
    messages call the device.
    Raises NotThisFormat, Corrupt, Unsupported; the device then stays open and the caller's.
    """
    found = read_superblock(device, source=source, verify=verify, block=superblock)
    volume = Volume(device, found, source=source, verify=verify, super_block=superblock)
    if needs_replay(volume):
        device = replayed(volume)
        found = read_superblock(device, source=source, verify=verify, block=superblock)
        volume = Volume(device, found, source=source, verify=verify, super_block=superblock)
    root = volume.inode(int(ReservedInode.root))
    if root.kind != S_IFDIR or not root.links:
        raise volume.corrupt(f"root: expected a directory, found mode {root.mode:#o}", root.position)
    return Ext4FileSystem(volume)


class Ext4FileSystem(FileSystem):
    """Files of an ext2, ext3 or ext4 file system. May be used from several threads as far as its device may.

    ``warnings`` says what a user should know before trusting what is read: errors on record, another host's use.
    """

    root_inode = int(ReservedInode.root)

    def __init__(self, volume: Volume) -> None:
        """Take over a volume. Use ``open``."""
        superblock = volume.superblock
        self.volume = volume
        self.kind = kind_of(volume)
        self.label = superblock.s_volume_name.split(b"\0")[0].decode("utf-8", "backslashreplace")
        self.uuid = str(uuid.UUID(bytes=superblock.s_uuid)) if any(superblock.s_uuid) else ""
        self.features = feature_names(
            superblock.s_feature_compat, superblock.s_feature_incompat, superblock.s_feature_ro_compat
        )
        self.warnings = tuple(_warnings(volume))

    def close(self) -> None:
        """Close the device."""
        self.volume.device.close()

    def usage(self) -> Usage:
        """Return what the superblock accounts for."""
        superblock, block_size = self.volume.superblock, self.volume.block_size
        free = superblock.free_blocks_count
        return Usage(
            size=superblock.blocks_count * block_size,
            free=free * block_size,
            available=max(0, free - superblock.reserved_blocks_count) * block_size,
            block_size=block_size,
            inodes=superblock.s_inodes_count,
            inodes_free=superblock.s_free_inodes_count,
        )

    # -- inodes ----------------------------------------------------------------------------------------------

    def _used(self, number: int) -> Inode:
        inode = self.volume.inode(number)
        if not inode.links or not inode.mode:
            raise self.volume.corrupt(f"inode {number}: expected it in use, found no links", inode.position)
        return inode

    def _typed(self, number: int, kind: int, what: str) -> Inode:
        inode = self._used(number)
        if inode.kind != kind:
            raise UsageError(f"inode {number}: expected {what}, found mode {inode.mode:#o}")
        if inode.flags & InodeFlag.encrypt.real:
            raise self.volume.unsupported(f"inode {number}: encrypted contents", inode.position)
        return inode

    def stat_inode(self, inode: int) -> Stat:
        """Return an inode's metadata."""
        found = self._used(inode)
        major, minor = found.device_number() if found.kind in (S_IFCHR, S_IFBLK) else (0, 0)
        return Stat(
            inode=inode,
            mode=found.mode,
            nlink=found.links,
            uid=found.uid,
            gid=found.gid,
            size=found.size,
            allocated=self._allocated(found),
            mtime_ns=found.mtime_ns,
            atime_ns=found.atime_ns,
            ctime_ns=found.ctime_ns,
            crtime_ns=found.crtime_ns,
            major=major,
            minor=minor,
        )

    def _allocated(self, inode: Inode) -> int:
        if not self.volume.superblock.s_feature_ro_compat & RoCompat.huge_file:
            return (inode.blocks & 0xFFFFFFFF) * 512
        return inode.blocks * (self.volume.block_size if inode.flags & InodeFlag.huge_file else 512)

    # -- directories -----------------------------------------------------------------------------------------

    def entries(self, inode: int) -> Iterator[Entry]:
        """Yield a directory's names in the order they are stored."""
        return self._entries(self._typed(inode, S_IFDIR, "a directory"))

    def _entries(self, directory: Inode, budget: Budget | None = None) -> Iterator[Entry]:
        volume = self.volume
        typed = volume.superblock.s_feature_incompat & Incompat.filetype
        if directory.flags & InodeFlag.inline_data.real:
            parts = iter([inline_entries(volume, directory, inline_tail(volume, directory))])
        else:
            blocks = directory_blocks(volume, directory, budget)
            parts = (entries_in(volume, directory, block, position) for _, position, block in blocks)
        for names in parts:
            for name, number, file_type in names:
                if name in (b".", b".."):
                    continue
                self._check_name(directory, name)
                kind = KINDS[file_type & 7] if typed else 0
                yield Entry(name, number, kind or self.volume.inode(number).kind)

    def _check_name(self, directory: Inode, name: bytes) -> None:
        if b"/" in name or b"\0" in name:
            raise self.volume.corrupt(
                f"directory {directory.number}: name: expected no slash and no NUL, found {name[:64]!r}"
            )

    def find(self, inode: int, name: bytes) -> int | None:
        """Return the inode that a name stands for; case counts unless the directory says otherwise."""
        return find_name(self.volume, self._typed(inode, S_IFDIR, "a directory"), name)

    # -- contents --------------------------------------------------------------------------------------------

    def link_target(self, inode: int) -> bytes:
        """Return a symbolic link's target."""
        return self._target(self._typed(inode, S_IFLNK, "a symbolic link"))

    def _target(self, link: Inode) -> bytes:
        if link.flags & InodeFlag.encrypt.real:
            raise self.volume.unsupported(f"inode {link.number}: encrypted contents", link.position)
        if link.size > min(MAX_TARGET, self.volume.block_size):
            raise self.volume.corrupt(
                f"inode {link.number}: target: expected at most {self.volume.block_size} bytes, found {link.size}",
                link.position + 4,
            )
        if link.fast_symlink:
            target = link.block[: link.size]
        elif link.flags & InodeFlag.inline_data.real:
            target = self._inline(link)
        else:
            buffer = bytearray(link.size)
            RunReader(self.volume, block_runs(self.volume, link), link.size).read_into(0, memoryview(buffer))
            target = bytes(buffer)
        return target.split(b"\0")[0]

    def _inline(self, inode: Inode) -> bytes:
        """Return the content of an inode that has it inside."""
        data = inode.block + inline_tail(self.volume, inode) if inode.size > len(inode.block) else inode.block
        if inode.size > len(data):
            raise self.volume.corrupt(
                f"inode {inode.number}: inline data: expected {inode.size} bytes, found {len(data)}",
                inode.position + 4,
            )
        return data[: inode.size]

    def open_inode(self, inode: int) -> BlockDevice:
        """Return a regular file's bytes."""
        found = self._typed(inode, S_IFREG, "a regular file")
        if found.flags & InodeFlag.inline_data.real:
            return BytesDevice(self._inline(found))
        return FileDevice(self.volume, self._reader(found))

    def placement(self, inode: int) -> list[Placed]:
        """Return where a regular file's written blocks lie."""
        size = self.volume.block_size
        return [
            Placed(run.logical * size, run.physical * size, run.blocks * size)
            for run in block_runs(self.volume, self._typed(inode, S_IFREG, "a regular file"))
            if run.written
        ]

    def _reader(self, inode: Inode) -> RunReader:
        if inode.size > MAX_LOGICAL * self.volume.block_size:
            raise self.volume.corrupt(
                f"inode {inode.number}: size: expected at most {MAX_LOGICAL} blocks, found {inode.size} bytes",
                inode.position + 4,
            )
        return RunReader(self.volume, block_runs(self.volume, inode), inode.size)

    # -- attributes ------------------------------------------------------------------------------------------

    def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        """Return the extended attributes that Linux would show."""
        return self._xattrs(self._used(inode))

    def _xattrs(self, inode: Inode) -> Mapping[bytes, bytes]:
        if not inode.file_acl and len(inode.raw) <= 132 + inode.extra_isize:
            return NO_XATTRS
        found = {}
        for attribute in attributes(self.volume, inode):
            shown = _shown(attribute)
            if shown is not None:
                found[shown[0]] = shown[1]
        return found or NO_XATTRS

    # -- everything ------------------------------------------------------------------------------------------

    def tree(self) -> Directory:
        """Return everything as a tree value; a node that has several names is one object.

        Raises Corrupt where a directory is met twice, which would be a loop.
        """
        nodes: dict[int, Node] = {}
        root = self._node(self._typed(self.root_inode, S_IFDIR, "a directory"))
        assert isinstance(root, Directory), "root: is a directory by its mode"
        seen, budget = {self.root_inode}, Budget(self.volume)
        pending = [(self._used(self.root_inode), root)]
        while pending:
            inode, directory = pending.pop()
            for name, number, _kind in self._entries(inode, budget):
                node = nodes.get(number)
                if node is None:
                    child = self._used(number)
                    node = self._node(child)
                    if isinstance(node, Directory):
                        if number in seen:
                            raise self.volume.corrupt(
                                f"directory {number}: expected one name, found another in directory {inode.number}"
                            )
                        seen.add(number)
                        pending.append((child, node))
                    elif child.links > 1:
                        nodes[number] = node
                directory.entries[name] = node
        return root

    def _node(self, inode: Inode) -> Node:
        permissions, kind = inode.mode & 0o7777, inode.kind
        xattrs = self._xattrs(inode)
        common = (permissions, inode.uid, inode.gid, inode.mtime_ns, xattrs)
        if kind == S_IFREG:
            return File(*common, self._content(inode))
        if inode.flags & InodeFlag.encrypt.real:
            raise self.volume.unsupported(f"inode {inode.number}: encrypted contents", inode.position)
        if kind == S_IFDIR:
            return Directory(*common)
        if kind == S_IFLNK:
            return Symlink(self._target(inode), *common)
        if kind not in Special.KINDS:
            raise self.volume.corrupt(
                f"inode {inode.number}: mode: expected a file type, found {inode.mode:#o}", inode.position
            )
        major, minor = inode.device_number() if kind in (S_IFCHR, S_IFBLK) else (0, 0)
        return Special(kind, *common, major=major, minor=minor)

    def _content(self, inode: Inode) -> Content:
        if inode.flags & InodeFlag.encrypt.real:
            raise self.volume.unsupported(f"inode {inode.number}: encrypted contents", inode.position)
        if inode.flags & InodeFlag.inline_data.real:
            return BytesContent(self._inline(inode))
        if not inode.size:
            return BytesContent(b"")
        return FileContent(inode.size, lambda: self._reader(inode))


def kind_of(volume: Volume) -> str:
    """Return the name that users know: a journal makes it ext3, anything newer ext4."""
    superblock = volume.superblock
    newer = (
        Incompat.extent | Incompat.bit64 | Incompat.flex_bg | Incompat.inline_data | Incompat.mmp | Incompat.ea_inode
    )
    newer |= Incompat.large_dir | Incompat.casefold | Incompat.encrypt | Incompat.metadata_csum_seed
    if superblock.s_feature_incompat & newer:
        return "ext4"
    if superblock.s_feature_ro_compat & ~int(RoCompat.sparse_super | RoCompat.large_file | RoCompat.btree_dir):
        return "ext4"
    return "ext3" if superblock.s_feature_compat & Compat.has_journal else "ext2"


def _warnings(volume: Volume) -> Iterator[str]:
    superblock = volume.superblock
    if superblock.s_state & State.error:
        yield "errors were detected on the file system and are not repaired yet"
    try:
        user = user_of(volume)
    except Corrupt as error:
        yield str(error)
    else:
        if user is not None:
            yield f"the file system is in use by {user}"


def _shown(attribute: Attribute) -> tuple[bytes, bytes] | None:
    """Return the name and the value that Linux shows of an attribute, or None where it shows none."""
    index, name, value = attribute
    prefix = XATTR_PREFIXES.get(index)
    if prefix is None or index == INDEX_SYSTEM:
        return None
    if prefix.endswith(b"."):
        return prefix + name, value
    return (prefix, shown_acl(value) if index in ACL_INDEXES else value) if not name else None
