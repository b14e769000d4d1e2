"""Directories judged block by block: entries, dots, names, types, and what they say of inodes.

Knows: the rules of entries, and how names count as links. Refuses to know: hash trees (``index``), and whether
the links add up (``links``).

Source: Linux 6.1, Documentation/filesystems/ext4 (directory, inlinedata, checksums).
"""

from __future__ import annotations

from typing import Final

from blockwright.fs.ext4.check.index import IndexCheck
from blockwright.fs.ext4.check.state import DirectoryState, State
from blockwright.fs.ext4.directory import Budget, block_checksum, long_length
from blockwright.fs.ext4.inode import KINDS, S_IFDIR, Inode
from blockwright.fs.ext4.layout import (
    DIR_ENTRY,
    DIR_TAIL_SIZE,
    DIR_TAIL_TYPE,
    Compat,
    GroupFlag,
    Incompat,
    InodeFlag,
    ReservedInode,
)
from blockwright.fs.ext4.xattr_read import inline_tail
from blockwright.units import KiB

MAX_AT_ONCE: Final = 64
"""Directory blocks that are read together."""
_ENTRY: Final = DIR_ENTRY.unpack_from
_LEAST: Final = 12
"""Bytes of the shortest entry that may be."""
_DOTS: Final = (b".", b"..")


class DirectoryPass:
    """Looks at every directory once, in order of their numbers."""

    def __init__(self, state: State) -> None:
        self.state = state
        volume = state.volume
        superblock = volume.superblock
        self.block_size = volume.block_size
        self.budget = Budget(volume)
        self.large = self.block_size >= 64 * KiB
        self.typed = state.incompat(Incompat.filetype)
        self.inodes_count = superblock.s_inodes_count
        self.first_ino = superblock.first_ino
        # Files of quotas and orphans have no names even where they are no reserved inodes.
        self.hidden = {
            superblock.s_usr_quota_inum,
            superblock.s_grp_quota_inum,
            superblock.s_prj_quota_inum,
            superblock.s_orphan_file_inum,
        }
        self.per_group = superblock.s_inodes_per_group
        self.root = state.directories.get(ReservedInode.root)

    def run(self) -> None:
        """Look at all directories."""
        if self.root is not None:
            self.root.parent = int(ReservedInode.root)
        for directory in self.state.directories.values():
            if directory.inode.flags & InodeFlag.inline_data and self.state.incompat(Incompat.inline_data):
                self._inline(directory)
            else:
                self._blocks(directory)

    def report(self, inode: Inode, rule: str, message: str, offset: int | None) -> None:
        """Report about a directory."""
        self.state.report("directory." + rule, f"directory {inode.number}: {message}", offset)

    # -- blocks ----------------------------------------------------------------------------------------------

    def _blocks(self, directory: DirectoryState) -> None:
        inode, volume, size = directory.inode, self.state.volume, self.block_size
        seed = volume.inode_seed(inode) if volume.has_checksums else None
        index = None
        if inode.flags & InodeFlag.index and self.state.compat(Compat.dir_index) and directory.runs:
            index = IndexCheck(self.state, directory, seed)
        names: set[bytes] = set()
        following = 0
        for run in directory.runs:
            if run.logical > following:
                self.report(inode, "hole", f"expected block {following} to exist, found a hole", None)
            following = run.logical + run.blocks
            for done in range(0, run.blocks, MAX_AT_ONCE):
                part = min(MAX_AT_ONCE, run.blocks - done)
                self.budget.spend(inode, part)  # more would be blocks that are claimed twice, and are told of
                data = volume.blocks(run.physical + done, part, "directory")
                for at in range(part):
                    block = data[at * size : (at + 1) * size]
                    position = (run.physical + done + at) * size
                    self._block(directory, run.logical + done + at, block, position, seed, index, names)
        if index is not None:
            index.finish()

    def _block(
        self,
        directory: DirectoryState,
        logical: int,
        block: bytes,
        position: int,
        seed: int | None,
        index: IndexCheck | None,
        names: set[bytes],
    ) -> None:
        node = index is not None and index.is_node(logical, block)
        end = len(block)
        if seed is not None and not node and self._verify(directory.inode, block, position, seed):
            end -= DIR_TAIL_SIZE
        found = self._entries(directory, block, position, 0, end, names, 0 if logical == 0 else 2)
        if index is not None:
            if node:
                index.add_node(logical, block, position)
            else:
                index.add_leaf(logical, found, position)

    def _verify(self, inode: Inode, block: bytes, position: int, seed: int) -> bool:
        """Judge the checksum that closes a block; return whether there is room for one."""
        if not self._has_tail(block):
            self.report(inode, "checksum", "expected an entry for it at the end of the block, found none", position)
            return False
        expected, found = block_checksum(block, seed), int.from_bytes(block[-4:], "little")
        if expected != found:
            self.report(
                inode, "checksum", f"expected {expected:#010x}, found {found:#010x}", position + len(block) - 4
            )
        return True

    def _has_tail(self, block: bytes) -> bool:
        """Whether the chain of entries ends where a checksum entry stands."""
        at, tail = 0, len(block) - DIR_TAIL_SIZE
        while at < tail:
            length = self._length(block, at)
            if length < 8 or length & 3:
                return False
            at += length
        return at == tail and block[tail:-4] == b"\0\0\0\0\x0c\0\0" + bytes((DIR_TAIL_TYPE,))

    def _length(self, block: bytes, at: int) -> int:
        length = int(_ENTRY(block, at)[1])
        return long_length(length, self.block_size) if self.large else length

    # -- entries ---------------------------------------------------------------------------------------------

    def _entries(
        self,
        directory: DirectoryState,
        block: bytes,
        position: int,
        start: int,
        end: int,
        names: set[bytes],
        place: int,
    ) -> list[bytes]:
        """Judge a chain of entries and return the names in use.

        ``place`` is 0 where the chain opens with ``.`` and ``..``, else 2.
        """
        inode = directory.inode
        found: list[bytes] = []
        at = start
        while at < end:
            if at + 8 > end:
                self.report(
                    inode, "entry", f"expected entries to byte {end}, found {end - at} bytes left", position + at
                )
                break
            number, length, name_length, file_type = _ENTRY(block, at)
            if self.large:
                length = long_length(length, self.block_size)
            if length < _LEAST or length & 3 or at + length > end or name_length + 8 > length:
                self.report(
                    inode,
                    "entry",
                    f"expected {8 + name_length} to {end - at} bytes, found {length}",
                    position + at + 4,
                )
                break
            name = block[at + 8 : at + 8 + name_length]
            if place < len(_DOTS):
                self._dot(
                    directory,
                    place,
                    number,
                    name,
                    length,
                    block[at + 8 + name_length : at + 9 + name_length],
                    position + at,
                )
            elif number:
                self._name(directory, number, name, names, position + at)
            if number and self._target(directory, number, file_type, position + at, named=place >= len(_DOTS)):
                found.append(name)
            at += length
            place += 1
        if place < len(_DOTS):
            self.report(inode, "dots", "expected . and .., found the block end before them", position)
        return found

    def _dot(
        self,
        directory: DirectoryState,
        place: int,
        number: int,
        name: bytes,
        length: int,
        after: bytes,
        position: int,
    ) -> None:
        inode, wanted = directory.inode, _DOTS[place]
        if not number or name != wanted:
            self.report(
                inode, "dots", f"expected the name {wanted.decode()}, found {name[:32]!r} of inode {number}", position
            )
        elif after != b"\0":
            self.report(inode, "dots", f"{wanted.decode()}: expected a NUL behind it, found {after!r}", position)
        if place == 0:
            if number != inode.number:
                self.report(inode, "dots", f".: expected inode {inode.number}, found {number}", position)
            if length > _LEAST + _LEAST:
                self.report(inode, "dots", f".: expected 12 bytes, found {length}", position + 4)
        else:
            directory.dotdot = number

    def _name(self, directory: DirectoryState, number: int, name: bytes, names: set[bytes], position: int) -> None:
        """Judge a name behind the dots."""
        inode = directory.inode
        if number == inode.number:
            self.report(inode, "self", "expected no name for the directory itself but ., found one", position)
        elif name in _DOTS:
            self.report(inode, "dots", f"expected {name.decode()} once, found it again", position)
        elif number == ReservedInode.root:
            self.report(inode, "root", "expected no name for the root, found one", position)
        if not name:
            self.report(inode, "name", "expected a name, found none", position + 6)
        elif inode.flags & InodeFlag.encrypt:
            if len(name) < 16:
                self.report(inode, "name", f"encrypted: expected 16 bytes or more, found {len(name)}", position + 6)
        elif b"/" in name or b"\0" in name:
            self.report(inode, "name", f"expected no slash and no NUL, found {name[:64]!r}", position + 8)
        if name in names:
            self.report(inode, "name", f"expected each name once, found {name[:64]!r} again", position + 8)
        names.add(name)

    def _target(self, directory: DirectoryState, number: int, file_type: int, position: int, *, named: bool) -> bool:
        """Judge the inode that an entry names, and count the link; return whether it can be one."""
        state, inode = self.state, directory.inode
        kept = number < self.first_ino and number != ReservedInode.root
        if kept or number > self.inodes_count or number in self.hidden:
            self.report(
                inode, "inode", f"expected an ordinary inode up to {self.inodes_count}, found {number}", position
            )
            return False
        kind = state.kinds.get(number)
        if kind is None:
            self.report(inode, "inode", f"expected an inode in use, found {number}", position)
            return True
        group = (number - 1) // self.per_group
        if state.groups[group].flags & GroupFlag.inode_uninit and not state.group_checksums:
            self.report(inode, "inode", f"expected group {group} initialised for inode {number}", position)
        expected = KINDS.index(kind) if self.typed and kind in KINDS else 0
        if file_type not in (0, expected):  # 0 is allowed everywhere: whoever asks looks at the inode
            self.report(inode, "type", f"inode {number}: expected type {expected}, found {file_type}", position + 7)
        if named and kind == S_IFDIR:
            child = state.directories[number]
            if child.parent:
                self.report(
                    inode, "link", f"directory {number}: expected one name, found one in {child.parent} too", position
                )
            else:
                child.parent = inode.number
        state.counted[number] = state.counted.get(number, 0) + 1
        return True

    # -- in the inode ----------------------------------------------------------------------------------------

    def _inline(self, directory: DirectoryState) -> None:
        """Judge a directory that lies in its inode: the parent's number, entries, and more in an attribute."""
        inode = directory.inode
        rest = inline_tail(self.state.volume, inode)
        if rest and (len(rest) & 3 or len(rest) < _LEAST):
            self.report(
                inode, "size", f"expected a multiple of 4 from 12 on, found {len(rest)} bytes", inode.position
            )
        directory.dotdot = int.from_bytes(inode.block[:4], "little")
        position = inode.position + 0x28
        directory_type = KINDS.index(S_IFDIR) if self.typed else 0
        self._target(directory, inode.number, directory_type, position, named=False)
        if directory.dotdot:
            self._target(directory, directory.dotdot, directory_type, position, named=False)
        else:
            self.report(inode, "dots", "..: expected the parent's inode, found 0", position)
        names: set[bytes] = set()
        self._entries(directory, inode.block, position, 4, len(inode.block), names, 2)
        if rest:
            self._entries(directory, rest, inode.position, 0, len(rest), names, 2)
