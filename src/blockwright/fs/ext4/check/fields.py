"""The rules of an inode's own fields, alone and against what its map turned out to hold.

Knows: times, flags, modes, sizes and block counts. Refuses to know: other inodes.

Source: Linux 6.1, Documentation/filesystems/ext4 (inodes, ifork, inlinedata).
"""

from __future__ import annotations

from typing import Final

from blockwright.errors import FormatError
from blockwright.fs.ext4.check.state import State
from blockwright.fs.ext4.check.superblock import LEAST_EXTRA_ISIZE
from blockwright.fs.ext4.inode import (
    FAST_SYMLINK,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFREG,
    S_IFSOCK,
    Inode,
)
from blockwright.fs.ext4.layout import (
    EXTENT_HEADER,
    EXTENT_MAGIC,
    GOOD_OLD_INODE_SIZE,
    Compat,
    Incompat,
    InodeFlag,
    ReservedInode,
    RoCompat,
)
from blockwright.fs.ext4.mapping import block_runs
from blockwright.fs.ext4.xattr_read import INDEX_SYSTEM, attributes

HURD: Final = 1
"""s_creator_os of a system that keeps other things in some fields."""
EPOCH_CUTOFF_S: Final = 2 << 32
"""Seconds since 1970 before which a time in the last epoch is one before 1970, written wrongly."""
INDEX_ENCRYPTION: Final = 9
"""The prefix of the attribute that holds an encryption policy, which is not shown."""
_INLINE: Final = 60
_SPECIAL: Final = frozenset({S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK})
_KINDS: Final = _SPECIAL | {S_IFREG, S_IFDIR, S_IFLNK}
_ALWAYS_MAPPED: Final = frozenset({ReservedInode.bad_blocks, ReservedInode.root, ReservedInode.journal})
_MAPPED: Final = frozenset({S_IFREG, S_IFDIR, S_IFLNK})


class Rules:
    """Judges fields of one inode after the other."""

    def __init__(self, state: State) -> None:
        self.state = state
        superblock = state.volume.superblock
        self.first_ino = superblock.first_ino
        self.extents = state.incompat(Incompat.extent)
        self.inline = state.incompat(Incompat.inline_data)
        self.hurd = superblock.s_creator_os == HURD
        stamps = (superblock.s_wtime, superblock.s_mtime, superblock.s_mkfs_time)
        # A file system whose clock stood near 1970 has deletion times that look like inode numbers.
        self.low_dtime = not any(0 < stamp < superblock.s_inodes_count for stamp in stamps)

    def _report(self, inode: Inode, rule: str, message: str, offset: int) -> None:
        text = f"inode {inode.number}: {rule.replace('-', ' ')}: {message}"
        self.state.report("inode." + rule, text, inode.position + offset)

    def deletion_time(self, inode: Inode) -> None:
        """Judge i_dtime, which links orphans to one another by number while they wait."""
        dtime = inode.dtime
        if dtime and self.low_dtime and dtime < self.state.volume.superblock.s_inodes_count:
            self._report(inode, "deletion-time", f"expected a time, found the inode number {dtime}", 0x14)
        elif (dtime and inode.links and inode.number >= self.first_ino) or (
            dtime and inode.number == ReservedInode.root
        ):
            self._report(inode, "deletion-time", f"expected 0 with links, found {dtime}", 0x14)

    def flags(self, inode: Inode) -> None:
        """Judge flags that say how contents are stored."""
        flags, state = inode.flags, self.state
        ordinary = inode.number >= self.first_ino
        if flags & InodeFlag.casefold:
            if inode.kind != S_IFDIR:
                self._report(inode, "flags", "casefold: expected a directory", 0x20)
            elif not state.incompat(Incompat.casefold):
                self._report(inode, "flags", "casefold: expected the feature with it, found it alone", 0x20)
        if flags & InodeFlag.encrypt and ordinary and self._attribute(inode, INDEX_ENCRYPTION, b"c") is None:
            self._report(inode, "flags", "encrypt: expected a policy in the attributes, found none", 0x20)
        self._contents(inode, ordinary=ordinary)

    def _contents(self, inode: Inode, *, ordinary: bool) -> None:
        """Judge the two flags that say what i_block holds."""
        flags = inode.flags
        if flags & InodeFlag.inline_data:
            if flags & InodeFlag.extents:
                self._report(inode, "flags", "expected extents or inline data, found both", 0x20)
            if not self.inline and ordinary:
                self._report(inode, "flags", "inline data: expected the feature with it, found it alone", 0x20)
            elif ordinary and self._inline_size(inode) is None:
                self._report(inode, "inline-data", "expected the attribute system.data, found none", 0x20)
        mapped = inode.links or inode.number in _ALWAYS_MAPPED
        if flags & InodeFlag.extents and not self.extents and mapped:
            self._report(inode, "flags", "extents: expected the feature with it, found it alone", 0x20)
        if self.extents and not flags & InodeFlag.extents and inode.kind in (S_IFREG, S_IFDIR) and mapped:
            self._unmarked_extents(inode)

    def _unmarked_extents(self, inode: Inode) -> None:
        """Report a block map that opens like an extent tree."""
        magic, entries, most, _depth, _generation = EXTENT_HEADER.unpack_from(inode.block)
        if magic == EXTENT_MAGIC and entries <= most and most in (2, 3, 4):
            self._report(inode, "flags", "expected the extents flag with an extent tree, found none", 0x20)

    def _inline_size(self, inode: Inode) -> int | None:
        """Return the bytes that inline data takes, or None where its attribute is missing or broken."""
        tail = self._attribute(inode, INDEX_SYSTEM, b"data")
        return None if tail is None else _INLINE + len(tail)

    def _attribute(self, inode: Inode, prefix: int, name: bytes) -> bytes | None:
        """Return the value of an attribute of the format's own, or None where it is missing or broken."""
        value = None
        try:
            for found in attributes(self.state.volume, inode, strict=True):
                if found.prefix == prefix and found.name.split(b"\0")[0] == name:
                    value = found.value
        except FormatError:
            return None
        return value

    def fields(self, inode: Inode) -> None:
        """Judge fields that must be zero without some feature, and the room for extra ones."""
        raw, state = inode.raw, self.state
        if inode.flags & InodeFlag.imagic and not state.compat(Compat.imagic_inodes):
            self._report(inode, "flags", "imagic: expected the feature with it, found it alone", 0x20)
        if any(raw[0x70:0x74]):
            self._report(inode, "fragment", f"expected 0, found {int.from_bytes(raw[0x70:0x74], 'little')}", 0x70)
        if inode.kind == S_IFDIR and inode.size >> 32 and not state.incompat(Incompat.large_dir):
            self._report(inode, "size", f"expected a directory below 4 GiB, found {inode.size}", 0x6C)
        if self.hurd:
            if raw[0x74] or raw[0x75]:
                self._report(inode, "fragment", f"expected 0, found {raw[0x74]} and {raw[0x75]}", 0x74)
        else:
            high = int.from_bytes(raw[0x76:0x78], "little")
            if high and not state.incompat(Incompat.bit64):
                self._report(inode, "attribute-block", f"high half: expected 0 without 64bit, found {high}", 0x76)
            if inode.blocks >> 32 and not state.ro_compat(RoCompat.huge_file):
                self._report(inode, "block-count", f"expected 32 bits, found {inode.blocks}", 0x74)
        if len(raw) > GOOD_OLD_INODE_SIZE:
            self._extra(inode)

    def _extra(self, inode: Inode) -> None:
        size, most = inode.extra_isize, len(inode.raw) - GOOD_OLD_INODE_SIZE
        if size and (not LEAST_EXTRA_ISIZE <= size <= most or size & 3):
            self._report(inode, "extra-size", f"expected 0 or a multiple of 4 from 4 to {most}, found {size}", 0x80)
        if size >= most - 4 or self.state.now >= EPOCH_CUTOFF_S:
            return
        for seconds, extra in ((0x8, 0x8C), (0xC, 0x84), (0x10, 0x88), (0x90, 0x94)):
            if inode.raw[seconds + 3] & 0x80 and inode.raw[extra] & 3 == 3:
                self._report(inode, "time", "expected a time up to 2310, found one in the last epoch", extra)

    # -- the kind of file ------------------------------------------------------------------------------------

    def kind(self, inode: Inode) -> None:
        """Judge what each kind of file may have."""
        kind, flags = inode.kind, inode.flags
        if kind not in _KINDS:
            self._report(inode, "mode", f"expected a type of file, found {inode.mode:#o}", 0)
        elif kind in _SPECIAL:
            fixed = flags & (InodeFlag.immutable | InodeFlag.append)
            if flags & InodeFlag.index or (fixed and any(inode.block[16:])):
                self._report(inode, "device", "expected no blocks, found some", 0x28)
            if flags & (InodeFlag.extents | InodeFlag.inline_data):
                self._report(inode, "flags", f"device: expected no contents, found flags {flags:#x}", 0x20)
            if fixed:
                self._report(
                    inode, "flags", f"device: expected it neither immutable nor append-only, found {flags:#x}", 0x20
                )
            if inode.size:
                self._report(inode, "size", f"device: expected 0, found {inode.size}", 4)
        elif kind == S_IFLNK:
            if not self._target_holds(inode):
                self._report(inode, "symlink", f"expected a target of {inode.size} bytes, found another", 4)
            if flags & (InodeFlag.immutable | InodeFlag.append):
                self._report(
                    inode, "flags", f"symlink: expected it neither immutable nor append-only, found {flags:#x}", 0x20
                )

    def _target_holds(self, inode: Inode) -> bool:
        """Whether a symbolic link's target is where it must be, and as long as its size says."""
        volume = self.state.volume
        flags, size = inode.flags, inode.size
        if size >> 32 or not size or flags & InodeFlag.index:
            return False
        if flags & InodeFlag.inline_data:
            return not flags & InodeFlag.extents and size == self._inline_size(inode)
        if size < FAST_SYMLINK:
            if flags & InodeFlag.extents:
                return False
            data = inode.block
        else:
            try:
                runs = block_runs(volume, inode)
            except FormatError:
                return False
            if len(runs) != 1 or runs[0].logical or runs[0].blocks != 1:
                return False
            if not flags & InodeFlag.extents and any(inode.block[4:]):
                return False
            data = volume.blocks(runs[0].physical, 1, "symbolic link")
        if flags & InodeFlag.encrypt:
            length = int.from_bytes(data[:2], "little") + 2
        else:
            length = len(data.split(b"\0", 1)[0])
        return length < len(data) and length == size

    def has_map(self, inode: Inode) -> bool:
        """Whether i_block holds a map of blocks, not a device's number, a short target or contents."""
        if inode.number == ReservedInode.bad_blocks:
            return True
        if inode.kind not in _MAPPED or (inode.flags & InodeFlag.inline_data and self.inline):
            return False
        if inode.kind != S_IFLNK:
            return True
        if not inode.file_acl:
            return bool(inode.blocks & 0xFFFFFFFF)
        return inode.size >= FAST_SYMLINK or (inode.size > 4 and not any(inode.block[4:8]))

    # -- against the map -------------------------------------------------------------------------------------

    def size(self, inode: Inode, last_block: int, last_written: int) -> None:
        """Judge i_size against the last blocks of the map; ``-1`` where there is none."""
        state, size = self.state, inode.size
        block_size = state.volume.block_size
        if inode.kind == S_IFLNK:
            return
        if inode.kind == S_IFDIR:
            size &= 0xFFFFFFFF
            blocks = size // block_size
            if inode.flags & InodeFlag.inline_data:
                found = self._inline_size(inode)
                if found != size:
                    self._report(inode, "size", f"expected {found} bytes inside the inode, found {size}", 4)
            elif size % block_size:
                self._report(inode, "size", f"expected a multiple of {block_size}, found {size}", 4)
            elif not 0 <= last_block + 1 - blocks <= state.volume.superblock.s_prealloc_dir_blocks:
                self._report(inode, "size", f"expected {(last_block + 1) * block_size}, found {size}", 4)
            return
        if last_written >= 0 and size < last_written * block_size and not inode.flags & InodeFlag.verity:
            self._report(inode, "size", f"expected more than {last_written * block_size}, found {size}", 4)
        elif self.extents and inode.flags & InodeFlag.extents:
            if size > (block_size << 32) - 1:
                self._report(inode, "size", f"expected at most {(block_size << 32) - 1}, found {size}", 4)
        else:
            pointers = block_size // 4
            most = (12 + pointers + pointers**2 + pointers**3) * block_size
            if size > most:
                self._report(inode, "size", f"expected at most {most}, found {size}", 4)

    def block_count(self, inode: Inode, clusters: int) -> None:
        """Judge i_blocks against the clusters that were found."""
        state = self.state
        geo = state.volume.geometry
        expected = clusters * geo.cluster_blocks
        huge = state.ro_compat(RoCompat.huge_file)
        if not huge or not inode.flags & InodeFlag.huge_file:
            expected *= geo.block_size // 512
        found = inode.blocks if huge else inode.blocks & 0xFFFFFFFF
        if not self.hurd and found != expected:
            self._report(inode, "block-count", f"expected {expected}, found {found}", 0x1C)
        mapped = not inode.flags & (InodeFlag.extents | InodeFlag.inline_data) and inode.kind in (S_IFREG, S_IFDIR)
        ordinary = inode.number >= self.first_ino or inode.number == ReservedInode.root
        if state.ro_compat(RoCompat.bigalloc) and mapped and clusters and ordinary:
            self._report(inode, "flags", "bigalloc: expected an extent tree, found a block map", 0x20)
