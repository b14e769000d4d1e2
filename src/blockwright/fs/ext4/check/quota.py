"""Quota files judged: what they say that owners use, against what was found.

Knows: the tree of a quota file (format 1 of version 2). Refuses to know: limits, and how inodes are charged.

Source: Linux 6.1, fs/quota/quotaio_v2.h and Documentation/filesystems/ext4 (special_inodes).
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NoReturn

from blockwright.errors import FormatError
from blockwright.fs.ext4.check.inodes import QUOTA_GROUP, QUOTA_PROJECT, QUOTA_USER
from blockwright.fs.ext4.check.state import Charge, State
from blockwright.fs.ext4.contents import RunReader
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import RoCompat
from blockwright.fs.ext4.mapping import block_runs

MAGICS: Final = {QUOTA_USER: 0xD9C01F11, QUOTA_GROUP: 0xD9C01927, QUOTA_PROJECT: 0xD9C03F14}
VERSION: Final = 1
BLOCK: Final = 1024
"""Bytes of a quota file's own blocks."""
LEVELS: Final = 4
"""Levels of references above the blocks of entries: one for each byte of an owner's number."""
MAX_BLOCKS: Final = 1 << 20
"""Blocks of a quota file that are read: a gigabyte, which is millions of owners."""
_HEADER: Final = Struct("<8I")
"""magic, version; two times of grace, flags, blocks in use, first free block, first leaf with free entries."""
_REFERENCES: Final = Struct("<256I").unpack
_ENTRY: Final = Struct("<II 3Q 3Q QQ")
"""id, pad, inode limits (2) and count, space limits (2) and count, two times."""
_LEAF_HEADER: Final = 16


def check_quotas(state: State) -> None:
    """Report quota files that say something else than was found."""
    if not state.ro_compat(RoCompat.quota):
        return
    superblock = state.volume.superblock
    numbers = (superblock.s_usr_quota_inum, superblock.s_grp_quota_inum, superblock.s_prj_quota_inum)
    for kind, number in enumerate(numbers):
        if 1 <= number <= superblock.s_inodes_count:
            inode = state.volume.inode(number)
            try:
                stated = _read(state, inode, kind)
            except FormatError as error:
                state.report("quota.file", str(error.args[0]), error.offset, repairable=True)
                continue
            _compare(state, inode, kind, stated)


def _compare(state: State, inode: Inode, kind: int, stated: dict[int, Charge]) -> None:
    found = {owner: charge for (of, owner), charge in state.charges.items() if of == kind}
    none = Charge()
    for owner in sorted(found.keys() | stated.keys()):
        expected, said = found.get(owner, none), stated.get(owner, none)
        if expected != said:
            state.report(
                "quota.usage",
                f"quota file {inode.number}: owner {owner}: expected {expected.space} bytes and {expected.inodes} "
                f"inodes, found {said.space} and {said.inodes}",
                inode.position,
                repairable=True,
            )


def _read(state: State, inode: Inode, kind: int) -> dict[int, Charge]:
    """Return what a quota file says of each owner. Raises Corrupt."""
    volume = state.volume
    reader = RunReader(volume, block_runs(volume, inode), inode.size)
    blocks = inode.size // BLOCK

    def refuse(what: str, expected: str, found: str) -> NoReturn:
        raise volume.corrupt(f"quota file {inode.number}: {what}expected {expected}, found {found}", inode.position)

    def block(number: int) -> bytes:
        if not 0 <= number < blocks:
            refuse("", f"a block below {blocks}", f"{number}")
        buffer = bytearray(BLOCK)
        reader.read_into(number * BLOCK, memoryview(buffer))
        return bytes(buffer)

    if not 2 <= blocks <= MAX_BLOCKS:
        refuse("", f"2 to {MAX_BLOCKS} blocks", f"{blocks}")
    header = block(0)
    magic, version, _space_grace, _inode_grace, _flags, used, free_block, free_entry = _HEADER.unpack_from(header)
    if magic != MAGICS[kind] or version != VERSION:
        refuse("", f"magic {MAGICS[kind]:#x} of version {VERSION}", f"{magic:#x} of {version}")
    if not 2 <= used <= blocks:
        refuse("blocks in use: ", f"2 to {blocks}", f"{used}")
    if free_block >= used or free_entry >= used:
        refuse("free blocks: ", f"them below {used}", f"{free_block} and {free_entry}")
    blocks = used
    level = {1}
    for _ in range(LEVELS):
        level = {reference for number in sorted(level) for reference in _REFERENCES(block(number)) if reference}
    stated: dict[int, Charge] = {}
    for number in sorted(level):
        _leaf(block(number), stated)
    return stated


def _leaf(data: bytes, stated: dict[int, Charge]) -> None:
    for at in range(_LEAF_HEADER, len(data) - _ENTRY.size + 1, _ENTRY.size):
        if any(data[at : at + _ENTRY.size]):
            owner, _pad, _ihard, _isoft, inodes, _bhard, _bsoft, space, _btime, _itime = _ENTRY.unpack_from(data, at)
            stated[owner] = Charge(space, inodes)
