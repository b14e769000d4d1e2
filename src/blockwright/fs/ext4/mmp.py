"""Multiple mount protection: who says in the file system itself that it is in use.

Whoever mounts it writes a sequence number and a name, and another number every few seconds; that of a file system
which nobody uses is fixed, and so is that of e2fsck. A number that stands still may be that of a host that crashed,
or of one that is slow to write: the kernel waits to tell them apart, and here both are in use.

Knows: that block. Refuses to know: who may go on all the same.

Source: Linux 6.1, fs/ext4/ext4.h (struct mmp_struct), fs/ext4/mmp.c.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from blockwright.codec.checksum import crc32c_raw
from blockwright.errors import InUse
from blockwright.fs.ext4.layout import Incompat
from blockwright.fs.ext4.volume import Volume

MAGIC: Final = 0x004D4D50
CLEAN: Final = 0xFF4D4D50
"""The sequence number where nobody uses the file system."""
FSCK: Final = 0xE24D4D50
"""The sequence number while it is being checked."""
_BLOCK: Final = Struct("<IIQ64s32s")
"""mmp_magic, mmp_seq, mmp_time, mmp_nodename, mmp_bdevname."""
_CHECKSUM_AT: Final = 1020
_WHAT: Final = "multiple mount protection"


def user_of(volume: Volume) -> str | None:
    """Return who has the file system in use, as its block says; None where nobody has, or nobody has to say.

    Read past the cache. Raises Corrupt for a block that lies outside, has another magic number, or a wrong checksum.
    """
    superblock = volume.superblock
    if not superblock.s_feature_incompat & Incompat.mmp:
        return None
    data = volume.blocks(superblock.s_mmp_block, 1, _WHAT)
    at = superblock.s_mmp_block * volume.block_size
    magic, sequence, _time, node, device = _BLOCK.unpack_from(data)
    if magic != MAGIC:
        raise volume.corrupt(f"{_WHAT}: expected the magic number {MAGIC:#x}, found {magic:#x}", at)
    if volume.verify and volume.has_checksums:
        found = int.from_bytes(data[_CHECKSUM_AT : _CHECKSUM_AT + 4], "little")
        expected = crc32c_raw(volume.seed, data[:_CHECKSUM_AT])
        if found != expected:
            raise volume.corrupt(f"{_WHAT}: expected checksum {expected:#010x}, found {found:#010x}", at)
    if sequence == CLEAN:
        return None
    if sequence == FSCK:
        return "e2fsck"
    where = _text(device)
    return f"{_text(node) or 'another host'}{f' as {where}' if where else ''}"


def refuse_used(volume: Volume, what: str) -> None:
    """Raise InUse, which names who it is, for a file system that somebody uses; ``what`` begins the message."""
    user = user_of(volume)
    if user is not None:
        raise InUse(
            f"{what}: expected a file system that nobody uses, found it in use by {user}: unmount it there, or run"
            " e2fsck if that host crashed"
        )


def _text(field: bytes) -> str:
    text = field.split(b"\0")[0].decode("ascii", "backslashreplace")
    return text if text.isprintable() else ascii(text)
