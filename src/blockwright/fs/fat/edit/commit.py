"""The order in which changes reach a volume that has no journal.

What nothing refers to yet comes first (new chains in every copy of the table, new directories, the parts of long
names), then the short entries, each of which makes one file's change, then the entries that go, and last what nothing
refers to any more. A flush stands between any two of these, and the volume says that it is not clean from before the
first until behind the last. So a power cut leaves each name as it was or as it will be, and at worst clusters that
belong to nobody, which fsck.fat -a gives back.

Knows: the order. Refuses to know: what the changes are.
"""

from __future__ import annotations

from collections.abc import Iterable

from blockwright.device.base import BlockDevice
from blockwright.fs.fat import layout
from blockwright.fs.fat.edit.folder import Folder
from blockwright.fs.fat.edit.pending import Pending, Step
from blockwright.fs.fat.edit.state import VolumeState
from blockwright.fs.fat.edit.table import EditedTable

_DELETED = bytes((layout.DELETED,))


class Committer:
    """Writes what is pending to one volume."""

    def __init__(self, device: BlockDevice, sector_size: int, table: EditedTable, state: VolumeState) -> None:
        self._device = device
        self._sector = sector_size
        self._table = table
        self._state = state

    def write(self, pending: Pending, folders: Iterable[Folder], free: int) -> None:
        """Write everything; ``free`` clusters are left behind it. Durable when it returns."""
        device, table = self._device, self._table
        at_once = len(pending.visible()) <= 1
        self._state.mark(clean=False)
        device.flush()
        table.write(late=False)
        self._close_gaps(pending, folders)
        self._patch(pending, Step.PREPARE)
        device.flush()
        if at_once:
            written = self._patch(pending, Step.SWITCH, Step.REMOVE)
        else:
            written = self._patch(pending, Step.SWITCH)
            if written:
                device.flush()
            written = self._patch(pending, Step.REMOVE)
        if written:
            device.flush()
        self._patch(pending, Step.CLEAN_UP)
        table.write(late=True)
        self._state.write_counts(free, table.next_free)
        device.flush()
        self._state.mark(clean=True)
        device.flush()

    def _patch(self, pending: Pending, *steps: Step) -> bool:
        """Write the patches of these steps, neighbouring sectors with one call; return whether there were any."""
        size = self._sector
        run, start = bytearray(), 0
        written = False
        for sector, patches in pending.of_steps(steps):
            if run and start + len(run) != sector * size:
                self._device.write(start, run)
                run = bytearray()
            if not run:
                start = sector * size
            data = bytearray(self._device.read(sector * size, size))
            for position, change in patches:
                data[position - sector * size : position - sector * size + len(change)] = change
            run += data
            written = True
        if run:
            self._device.write(start, run)
        return written

    def _close_gaps(self, pending: Pending, folders: Iterable[Folder]) -> None:
        """Have no entry behind the end of a directory's list, should only some of the sectors arrive.

        A list ends at the first place that was never used. Where new entries lie in several sectors, the places of
        those in all but the first are marked as deleted before.
        """
        for folder in folders:
            if folder.is_new or not folder.touched:
                continue
            positions = [folder.position(slot) for slot in range(folder.end, len(folder.used.rstrip(b"\0")))]
            if len({position // self._sector for position in positions}) < 2:
                continue
            marks: dict[int, bytearray] = {}
            for position in positions:
                if pending.step_at(position) is not Step.PREPARE:
                    sector = position // self._sector * self._sector
                    data = marks.setdefault(sector, bytearray(self._device.read(sector, self._sector)))
                    data[position - sector : position - sector + 1] = _DELETED
            for sector, data in sorted(marks.items()):
                self._device.write(sector, data)
