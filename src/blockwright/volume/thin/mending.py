"""Repair of a pool's metadata: to a new area, which is verified, and takes the old one's place in one step.

The journal says that a repair is under way. Wherever it ends, the metadata in use is the old one or a new one that
was found whole; the old one goes when the kernel runs with the new one.

Knows: the order. Refuses to know: where areas are (``backing``), and who is kept from the pool.
"""

from __future__ import annotations

from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.device.file import open_path
from blockwright.errors import Corrupt, FormatError
from blockwright.finding import Finding
from blockwright.system.linux.thin import Metadata, check_metadata
from blockwright.system.linux.thin.layout import BLOCK, MAX_BLOCKS, NEEDS_CHECK, SUPERBLOCK_SALT, Superblock, checksum
from blockwright.units import MiB
from blockwright.volume.records import Records
from blockwright.volume.steps import Checkpoint
from blockwright.volume.thin.stack import Stack, damage
from blockwright.volume.thin.tools import PACKAGE, peer_check, peer_repair

_MENDING: Final = "mending"
_FULL: Final = 3, 4
"""The part of the metadata that may be used before a new one is made twice as large."""
_FLAGS: Final = 4


class Mender:
    """Repairs the metadata of a pool; ``lines`` say what was done. The pool's lock is held throughout."""

    def __init__(self, stack: Stack, records: Records, checkpoint: Checkpoint) -> None:
        self._stack = stack
        self._records = records
        self._checkpoint = checkpoint
        self.lines: list[str] = []

    def settle(self) -> None:
        """Have nothing left of a repair that was not finished: what it swapped in was whole, all else goes."""
        if self._records.fact(_MENDING):
            self._end()
            self.lines.append("a repair of the metadata that was not finished is cleared away")

    def _end(self) -> None:
        if not self._stack.runs:
            self._stack.backing.detach()
        self._stack.backing.drop()
        self._records.note(_MENDING, "")

    def mend(self) -> None:
        """Have the pool run with metadata that is whole and needs no check; nothing is done where it does already.

        Raises InUse while a volume is active, Corrupt where it cannot be repaired, Unavailable where that takes a
        program that is not installed. After a failure the metadata is as it was.
        """
        status = self._stack.status()
        if status is not None and status.takes_messages and not damage(self._stack.check()):
            return
        self._stack.down()
        found = self._stack.check()
        try:
            top: Superblock | None = self._stack.superblock()
        except FormatError:
            top = None
        if not found and top is not None and not top.needs_check:
            return
        self._records.note(_MENDING, "begun")
        self._checkpoint("repair: intended")
        try:
            self._replace(found, top)
        except BaseException:
            self._end()
            raise
        self._end()
        self._checkpoint("repair: recorded")

    def _replace(self, found: list[Finding], top: Superblock | None) -> None:
        backing = self._stack.backing
        with backing.metadata() as device:
            least, size = device.size, device.size
        if top is not None and top.metadata.used_blocks * _FULL[1] > top.metadata.blocks * _FULL[0]:
            size = min(2 * size, MAX_BLOCKS * BLOCK)
        with backing.areas(least, size) as (old, new):
            if damage(found):
                peer_repair(old, new)
                self.lines.append("the metadata was repaired by thin_repair")
            else:
                with open_path(old, force_unlocked=True) as source, open_path(new, writable=True) as target:
                    _copy(source, target)
            with open_path(new, writable=True) as target:
                _clear(target)
            self._checkpoint("repair: written")
            self._verify(new)
        self._checkpoint("repair: verified")
        backing.swap()
        self._checkpoint("repair: swapped")
        try:
            self._stack.up()
            status = self._stack.running().status()
            if not status.takes_messages:
                raise Corrupt(f"expected a pool that takes changes with the new metadata, found it {status.mode}")
        except BaseException:
            self._stack.down()
            backing.swap_back()
            raise
        self.lines.append("the metadata needs no check any more")
        self._checkpoint("repair: up")

    def _verify(self, path: str) -> None:
        with open_path(path, force_unlocked=True) as device:
            found = damage(check_metadata(device))
        if found:
            raise Corrupt(f"the repaired metadata is not whole, and not used: {found[0]}")
        said = peer_check(path)
        if said:
            raise Corrupt(f"the repaired metadata is not used: thin_check: {said}")
        if said is None:
            self.lines.append(
                f"thin_check is not installed (package {PACKAGE}): the metadata was verified without it"
            )


def _copy(source: BlockDevice, target: BlockDevice) -> None:
    """Have all of the metadata in the target, the superblock last."""
    end = min(source.size, target.size)
    for at in range(BLOCK, end, MiB):
        data = source.read(at, min(MiB, end - at))
        if any(data):
            target.write(at, data)
        else:
            target.zero(at, len(data))
    target.flush()
    target.write(0, source.read(0, BLOCK))
    target.flush()


def _clear(target: BlockDevice) -> None:
    """Have the superblock say that no check is needed. Raises FormatError."""
    found = Metadata(target).superblock
    if not found.needs_check:
        target.flush()
        return
    data = bytearray(target.read(0, BLOCK))
    data[_FLAGS : _FLAGS + 4] = (found.flags & ~NEEDS_CHECK).to_bytes(4, "little")
    data[:4] = checksum(data, SUPERBLOCK_SALT).to_bytes(4, "little")
    target.write(0, bytes(data))
    target.flush()
