"""What the superblock refers to beside groups: the journal, the inode kept for growing, the orphan file, and the
block of multiple mount protection.

Knows: how those files must be formed. Refuses to know: their inodes' ordinary rules.

Source: Linux 6.1, Documentation/filesystems/ext4 (journal, mmp, orphan, special_inodes); resize_inode as mke2fs makes
it.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from blockwright.codec.checksum import crc32c_raw
from blockwright.errors import FormatError
from blockwright.fs.ext4 import mmp
from blockwright.fs.ext4.check.state import State
from blockwright.fs.ext4.check.superblock import has_journal_fields
from blockwright.fs.ext4.inode import S_IFMT, S_IFREG
from blockwright.fs.ext4.journal import MIN_BLOCKS, Journal
from blockwright.fs.ext4.layout import (
    JBD2_SUPERBLOCK_V1,
    ORPHAN_MAGIC,
    ORPHAN_TAIL,
    SUPERBLOCK_OFFSET,
    Compat,
    Incompat,
    InodeFlag,
    JournalSuperblock,
    ReservedInode,
    RoCompat,
)
from blockwright.fs.ext4.mapping import block_runs
from blockwright.fs.ext4.replay import open_journal

JOURNAL_COPIED: Final = 1
"""s_jnl_backup_type where the superblock has a copy of the journal's i_block and i_size."""
_POINTERS: Final = Struct("<15I").unpack
_DOUBLE: Final = 13
_COMPARED: Final = 4
"""One in so many of the reserved descriptor blocks is compared."""


def check_journal(state: State) -> None:
    """Report a journal that cannot be used, or that the features do not speak of."""
    superblock = state.volume.superblock
    has_journal = state.compat(Compat.has_journal)
    recover = state.incompat(Incompat.needs_recovery)
    if not has_journal:
        if has_journal_fields(superblock) or recover:
            state.report(
                "journal.feature",
                f"without has_journal: expected no journal, found inode {superblock.s_journal_inum}",
                SUPERBLOCK_OFFSET + 0xE0,
            )
        return
    if any(superblock.s_journal_uuid):
        state.report(
            "journal.device", "expected a journal inside, found the name of another device", SUPERBLOCK_OFFSET + 0xD0
        )
        return
    try:
        journal = open_journal(state.volume)
    except FormatError as error:
        state.report("journal.superblock", str(error.args[0]), error.offset)
        return
    _journal_inode(state, journal)
    found = journal.superblock
    if not recover and found.s_start:
        state.report(
            "journal.start",
            f"expected an empty journal, found one from block {found.s_start} on",
            journal.position + 0x1C,
        )
    if not recover and found.s_errno:
        state.report("journal.error", f"expected none on record, found {found.s_errno}", journal.position + 0x20)
    _journal_version(state, found, journal.position)


def _journal_inode(state: State, journal: Journal) -> None:
    """Judge mode and size of the inode, where the journal's own length and its blocks are known.

    Of a journal without extents the superblock has a copy of the map and the size. e2fsck takes those where the inode
    claims more than it has, without a word.
    """
    superblock, block_size = state.volume.superblock, state.volume.block_size
    inode = state.volume.inode(superblock.s_journal_inum)
    blocks = inode.size // block_size
    copied = superblock.s_jnl_backup_type == JOURNAL_COPIED and not inode.flags & InodeFlag.extents
    if inode.mode & S_IFMT != S_IFREG or blocks < MIN_BLOCKS:
        state.report(
            "journal.inode",
            f"expected a regular file of {MIN_BLOCKS} blocks or more, found {inode.size} bytes",
            inode.position,
        )
    elif blocks < journal.end or (inode.size > journal.available * block_size and not copied):
        state.report(
            "journal.inode",
            f"expected {journal.end} to {journal.available} blocks, found {inode.size} bytes",
            inode.position + 4,
        )


def _journal_version(state: State, found: JournalSuperblock, position: int) -> None:
    if found.h_blocktype == JBD2_SUPERBLOCK_V1:
        newer = (found.s_feature_compat, found.s_feature_incompat, found.s_feature_ro_compat, found.s_nr_users)
        if any(newer):
            state.report("journal.version", "version 1: expected no newer fields, found some", position + 0x24)
        return
    if found.s_nr_users > 1:
        state.report("journal.users", f"expected 1 user, found {found.s_nr_users}", position + 0x40)
    if found.s_feature_ro_compat:
        state.report("journal.features", f"expected none, found {found.s_feature_ro_compat:#x}", position + 0x2C)


def check_resize_inode(state: State) -> None:
    """Report an inode 7 that does not keep the blocks that descriptors may grow into first.

    Compared are the first quarter of them with their copies, as e2fsck has it: others count in i_blocks only.
    """
    volume, geo = state.volume, state.volume.geometry
    inode = volume.inode(int(ReservedInode.resize))
    pointers = _POINTERS(inode.block)
    wanted = state.compat(Compat.resize_inode)

    def report(message: str, offset: int) -> None:
        state.report("resize.inode", f"inode {inode.number}: {message}", offset)

    if not wanted:
        if any(pointers):
            report("without resize_inode: expected no blocks, found some", inode.position + 0x28)
        return
    double = pointers[_DOUBLE]
    others = pointers[:_DOUBLE] + pointers[_DOUBLE + 1 :]
    if any(others) or not max(1, geo.first_data_block) <= double < geo.blocks_count:
        report(f"expected one double indirect block, found {double}", inode.position + 0x28)
        return
    if not inode.links or not inode.mode & S_IFREG:
        report(f"expected a regular file with a link, found mode {inode.mode:#o}", inode.position)
        return
    fan_out = geo.block_size // 4
    unpack = Struct(f"<{fan_out}I").unpack
    outer = unpack(volume.blocks(double, 1, "resize inode"))
    first = geo.super_block + 1 + geo.descriptor_blocks
    backups = [group for group in range(1, geo.groups) if geo.has_super(group)]
    for index in range(geo.reserved_gdt_blocks // _COMPARED):
        place, block = (geo.descriptor_blocks + index) % fan_out, first + index
        if outer[place] != block:
            report(f"expected block {block}, found {outer[place]}", double * geo.block_size + 4 * place)
            return
        inner = unpack(volume.blocks(block, 1, "resize inode"))
        expected = [block + group * geo.blocks_per_group for group in backups]
        if list(inner[: len(expected)]) != expected:
            report(f"block {block}: expected its copies in groups with backups, found others", block * geo.block_size)
            return


def check_orphan_file(state: State) -> None:
    """Report an orphan file that is not whole, or that names orphans, which the next mount would delete or cut."""
    superblock, volume = state.volume.superblock, state.volume
    number = superblock.s_orphan_file_inum
    present = state.ro_compat(RoCompat.orphan_present)
    if not state.compat(Compat.orphan_file):
        if present:
            state.report("orphan.feature", "orphan_present: expected orphan_file with it", SUPERBLOCK_OFFSET + 0x64)
        return
    if not 1 <= number <= volume.geometry.inodes_count:
        state.report("orphan.inode", f"expected an inode, found {number}", SUPERBLOCK_OFFSET + 0x280)
        return
    inode = volume.inode(number)
    if inode.size % volume.block_size:
        state.report(
            "orphan.size", f"inode {number}: expected whole blocks, found {inode.size} bytes", inode.position + 4
        )
    try:
        runs = block_runs(volume, inode) if not inode.flags & InodeFlag.inline_data else []
    except FormatError:
        return
    following, orphans = 0, False
    for run in runs:
        if run.logical > following:
            break
        following = run.logical + run.blocks
        for block in range(run.physical, run.physical + run.blocks):
            orphans |= _orphan_block(state, number, inode.generation, block)
    if following < inode.size // volume.block_size:
        state.report("orphan.size", f"inode {number}: expected block {following}, found a hole", inode.position + 4)
    elif present and not orphans and not state.incompat(Incompat.needs_recovery):
        state.report("orphan.feature", "orphan_present: expected orphans, found none", SUPERBLOCK_OFFSET + 0x64)


def _orphan_block(state: State, number: int, generation: int, block: int) -> bool:
    """Judge a block of the orphan file; return whether it names orphans."""
    volume = state.volume
    data = volume.blocks(block, 1, "orphan file")
    tail = len(data) - ORPHAN_TAIL.size
    magic, checksum = ORPHAN_TAIL.unpack_from(data, tail)
    position = block * volume.block_size + tail
    if magic != ORPHAN_MAGIC:
        state.report("orphan.magic", f"expected {ORPHAN_MAGIC:#x}, found {magic:#x}", position)
    else:
        expected = 0
        if volume.has_checksums:
            seed = crc32c_raw(volume.seed, number.to_bytes(4, "little") + generation.to_bytes(4, "little"))
            expected = crc32c_raw(crc32c_raw(seed, block.to_bytes(8, "little")), data[:tail])
        if checksum != expected:
            state.report("orphan.checksum", f"expected {expected:#010x}, found {checksum:#010x}", position + 4)
    orphans = any(data[:tail])
    if orphans:
        state.report("orphan.entries", "expected no inodes to be deleted or cut, found some", position - tail)
    return orphans


def check_mmp(state: State) -> None:
    """Report a block of multiple mount protection that keeps everybody from mounting.

    That a host has the file system in use, or had when it crashed, is no damage.
    """
    if not state.incompat(Incompat.mmp):
        return
    volume = state.volume
    try:
        sequence = mmp.read_block(volume, verify=True).sequence
    except FormatError as error:
        state.report("mmp.block", str(error.args[0]), error.offset)
        return
    if sequence > mmp.LAST and sequence != mmp.CLEAN:
        what = "that of a check that did not end" if sequence == mmp.FSCK else f"{sequence:#x}"
        message = f"expected a sequence number up to {mmp.LAST:#x} or that of nobody, found {what}"
        state.report("mmp.sequence", message, volume.superblock.s_mmp_block * volume.block_size + 4)
