"""Changes in place: files of an ext2, ext3 or ext4 file system, through its journal where it has one."""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.errors import ReadOnly, UsageError
from blockwright.fs.editor import DEFAULT_POLICY, CommitPolicy
from blockwright.fs.ext4.edit.commit import Committer, JournaledCommitter, OrderedCommitter
from blockwright.fs.ext4.edit.editor import Ext4Editor
from blockwright.fs.ext4.edit.features import refuse_state
from blockwright.fs.ext4.edit.log import LogWriter
from blockwright.fs.ext4.edit.parts import Parts
from blockwright.fs.ext4.edit.recover import recovered
from blockwright.fs.ext4.layout import Compat
from blockwright.fs.ext4.replay import open_journal


def open(  # noqa: A001 - the same name in every file system
    device: BlockDevice, *, policy: CommitPolicy = DEFAULT_POLICY, source: str | None = None
) -> Ext4Editor:
    """Return the file system on ``device``, which it owns from then on, open for changes.

    An unclean journal is replayed onto the device, and orphans are freed or cut.
    ``source`` is what messages call the device.
    Raises NotThisFormat, Corrupt, Unsupported, ReadOnly, and UsageError where its state forbids changes;
    the device then stays open and the caller's.
    """
    if not device.traits.writable:
        raise ReadOnly("edit: expected a writable device, found a read-only one")
    transaction = recovered(device, source=source)
    refuse_state(transaction.volume.superblock)
    parts = Parts(transaction)
    journaled = bool(transaction.volume.superblock.s_feature_compat & Compat.has_journal)
    committer: Committer
    if journaled:
        committer = JournaledCommitter(
            transaction, parts.superblock, LogWriter(transaction, open_journal(parts.volume))
        )
    else:
        if policy.atomic:
            raise UsageError("edit: expected a journal, without which no change is atomic, found none")
        committer = OrderedCommitter(transaction, parts.superblock)
    editor = Ext4Editor(parts, committer, policy, journaled=journaled)
    editor.finish_orphans()
    return editor
