"""An unclean journal replayed onto the device, before anything is changed.

Knows: the order of writes that makes a replay safe to repeat. Refuses to know: the log's format (``replay``).

Source: Linux 6.1, Documentation/filesystems/ext4/journal.rst.
"""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.fs.ext4.edit.features import refuse_features
from blockwright.fs.ext4.edit.log import LogWriter
from blockwright.fs.ext4.edit.superblock import LiveSuperblock
from blockwright.fs.ext4.edit.transaction import Transaction
from blockwright.fs.ext4.layout import Compat, Incompat
from blockwright.fs.ext4.replay import needs_replay, open_journal, patched, read_log
from blockwright.fs.ext4.volume import read_superblock


def recovered(device: BlockDevice, *, source: str | None) -> Transaction:
    """Return an empty transaction over a file system whose journal is empty.

    Raises NotThisFormat, Corrupt, Unsupported, and UsageError for one that is in use.
    """
    transaction = Transaction(device, read_superblock(device, source=source), source=source)
    refuse_features(transaction.volume)
    if not needs_replay(transaction.volume):
        return transaction
    _replay(transaction)
    return Transaction(device, read_superblock(device, source=source), source=source)


def _replay(transaction: Transaction) -> None:
    """Write what the log holds to its places, then empty the log, then say that it is empty."""
    volume, raw = transaction.volume, transaction.raw
    superblock = LiveSuperblock(transaction)
    if volume.superblock.s_feature_compat & Compat.has_journal:
        journal = open_journal(volume)
        found, sequence = read_log(journal)
        for number, patch in found.items():
            data = patched(volume, patch)
            if number == superblock.block:
                superblock.replay(data)
            else:
                transaction.write_home(number * volume.block_size, data)
        raw.flush()
        log = LogWriter(transaction, journal)
        log.sequence = sequence
        log.advance()
        log.write_superblock(counts=False)
        raw.flush()
    _mark_empty(Transaction(raw, read_superblock(raw, source=volume.source), source=volume.source))


def _mark_empty(transaction: Transaction) -> None:
    """Say that the log is empty, and what is free: the kernel logs that of groups, and sums it up at unmounting."""
    volume, superblock = transaction.volume, LiveSuperblock(transaction)
    found = [volume.descriptor(group) for group in range(volume.geometry.groups)]
    blocks = sum(each.free_blocks_count for each in found)
    superblock.write(
        s_feature_incompat=superblock.fields.s_feature_incompat & ~Incompat.needs_recovery,
        s_free_blocks_count_lo=blocks & 0xFFFFFFFF,
        s_free_blocks_count_hi=blocks >> 32,
        s_free_inodes_count=sum(each.free_inodes_count for each in found) & 0xFFFFFFFF,
    )
    transaction.raw.flush()
