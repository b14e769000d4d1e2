"""Multiple mount protection: who says in the file system itself that it is in use.

Whoever mounts it writes a sequence number and a name, and another number every few seconds; that of a file system
which nobody uses is fixed, and so is that of e2fsck. A number that stands still may be that of a host that crashed,
or of one that is slow to write: the kernel waits to tell them apart, and here both are in use.

Knows: that block. Refuses to know: who may go on all the same.

Source: Linux 6.1, fs/ext4/ext4.h (struct mmp_struct), fs/ext4/mmp.c.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c_raw
from blockwright.errors import InUse
from blockwright.fs.ext4.layout import Incompat
from blockwright.fs.ext4.volume import Volume

MAGIC: Final = 0x004D4D50
CLEAN: Final = 0xFF4D4D50
"""The sequence number where nobody uses the file system."""
FSCK: Final = 0xE24D4D50
"""The sequence number while it is being checked."""
LAST: Final = 0xE24D4D4F
"""The greatest sequence number of a host that has mounted it."""
_BLOCK: Final = Struct("<IIQ64s32s")
"""mmp_magic, mmp_seq, mmp_time, mmp_nodename, mmp_bdevname."""
_CHECKSUM_AT: Final = 1020
_WHAT: Final = "multiple mount protection"


class Block(NamedTuple):
    """What the block says: its ``sequence`` number, and the host and the device that wrote it last."""

    sequence: int
    node: bytes
    device: bytes


def read_block(volume: Volume, *, verify: bool) -> Block:
    """Return what the block of a file system with mmp says, read past the cache.

    Raises Corrupt for a block that lies outside, has another magic number, or, with ``verify``, a wrong checksum.
    """
    place = volume.superblock.s_mmp_block
    data = volume.blocks(place, 1, _WHAT)
    at = place * volume.block_size
    magic, sequence, _time, node, device = _BLOCK.unpack_from(data)
    if magic != MAGIC:
        raise volume.corrupt(f"{_WHAT}: expected the magic number {MAGIC:#x}, found {magic:#x}", at)
    if verify and volume.has_checksums:
        found = int.from_bytes(data[_CHECKSUM_AT : _CHECKSUM_AT + 4], "little")
        expected = crc32c_raw(volume.seed, data[:_CHECKSUM_AT])
        if found != expected:
            raise volume.corrupt(
                f"{_WHAT}: expected checksum {expected:#010x}, found {found:#010x}", at + _CHECKSUM_AT
            )
    return Block(sequence, node, device)


def user_of(volume: Volume) -> str | None:
    """Return who has the file system in use, as its block says; None where nobody has, or nobody has to say.

    Raises Corrupt as ``read_block`` does.
    """
    if not volume.superblock.s_feature_incompat & Incompat.mmp:
        return None
    block = read_block(volume, verify=volume.verify)
    if block.sequence == CLEAN:
        return None
    if block.sequence == FSCK:
        return "e2fsck"
    where = _text(block.device)
    return f"{_text(block.node) or 'another host'}{f' as {where}' if where else ''}"


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
