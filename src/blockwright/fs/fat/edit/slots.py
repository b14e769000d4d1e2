"""Names come to a directory and leave it: entries at free places, each with the step of the commit that writes it.

Knows: which writes make a name appear and go in one. Refuses to know: contents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blockwright.errors import Corrupt, NoSpace, NotFound
from blockwright.fs.fat import layout
from blockwright.fs.fat.edit.folder import MAX_SLOTS, SIZE, Folder, Item
from blockwright.fs.fat.edit.pending import Step
from blockwright.fs.fat.edit.session import Session
from blockwright.fs.fat.names import check_name, long_entries
from blockwright.units import ceil_div

DELETED: Final = bytes((layout.DELETED,))


class Slots:
    """Changes the directories of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._device = session.device
        self._geometry = session.geometry
        self._table = session.table
        self._pending = session.pending

    def put(self, folder: Folder, first: int, data: bytes) -> None:
        """Have entries at places from ``first`` on. The last is a short one, in whose sector all are written at once.

        What lies in a sector before is a part of a long name, which is nothing without it.
        """
        size = self._geometry.sector_size
        count = len(data) // SIZE
        sector = folder.position(first + count - 1) // size
        for number in range(count):
            position = folder.position(first + number)
            early = folder.is_new or position // size != sector
            part = data[number * SIZE : (number + 1) * SIZE]
            self._pending.put(position, part, Step.PREPARE if early else Step.SWITCH)

    def add(self, folder: Folder, text: str, make: Callable[[bytes, int], bytes], *, directory: bool) -> Item:
        """Have a new name, whose short entry ``make`` gives for a short name and its case bits."""
        if not folder.is_sound:
            raise Corrupt("fat: a directory has entries behind its end", offset=folder.position(folder.end))
        name = folder.name_for(text)
        try:
            first = self.room(folder, name.entries)
        except BaseException:
            folder.shorts.taken.discard(name.short)
            raise
        item = folder.enter(text, name, first, directory=directory)
        folder.born.add(item.slot)
        self.put(folder, first, long_entries(name) + make(name.short, name.case))
        return item

    def room(self, folder: Folder, count: int) -> int:
        """Return where so many free places lie, with more clusters if need be. Raises NoSpace."""
        found = folder.room(count)
        if found is None and folder.frees_later and not self._can_grow(folder, count):
            self._session.commit_before("places that are given back must be so before they are used again")
            found = folder.room(count)
        if found is not None:
            return found
        if not self._can_grow(folder, count):
            most, free = folder.count, folder.used.count(0)
            raise NoSpace(
                f"fat: expected {count} free places side by side in a directory of at most {most} entries, "
                f"found {free} free"
            )
        self._grow(folder, count - folder.free_at_end)
        found = folder.room(count)
        assert found is not None, "the directory has just grown by as much"
        return found

    def _can_grow(self, folder: Folder, count: int) -> bool:
        if folder.cluster == 0:
            return False
        per_cluster = self._geometry.cluster_size // SIZE
        return folder.count + ceil_div(count - folder.free_at_end, per_cluster) * per_cluster <= MAX_SLOTS

    def _grow(self, folder: Folder, places: int) -> None:
        size = self._geometry.cluster_size
        runs = self._session.allocate(ceil_div(places * SIZE, size))
        position, length = folder.pieces[-1]
        last = (position + length - self._geometry.data_start) // size + layout.FIRST_CLUSTER - 1
        for run in runs:
            start = self._geometry.cluster_start(run.start)
            self._device.zero(start, run.length * size)
            folder.grow(start, run.length * size)
        self._table.link(last, runs[0].start)

    def erase(self, folder: Folder, item: Item, seen: Step = Step.REMOVE) -> None:
        """Take a name away. What the device has of it stays until everything new is there, or until ``seen``."""
        size = self._geometry.sector_size
        at_once = folder.is_new or item.slot in folder.born
        sector = folder.position(item.slot) // size
        for slot in item.slots:
            position = folder.position(slot)
            if at_once:
                step = Step.PREPARE if folder.is_new else Step.SWITCH
            else:
                step = seen if position // size == sector else Step.CLEAN_UP
            self._pending.put(position, DELETED, step)
        folder.leave(item, at_once=at_once)

    def need_name(self, folder: Folder, name: bytes) -> str:
        """Return a new name as text, once no entry of that name is left on the device."""
        text = check_name(name, name)
        if folder.has_gone(text):
            self._session.commit_before("a name that is removed must be gone before it can come again")
        return text

    def item(self, folder: Folder, name: bytes, inode: int | None = None) -> tuple[int, Item]:
        """Return a name's inode number and places. Raises NotFound."""
        found = folder.find(name) if inode is None else inode
        if found is None or found not in folder.items:
            raise NotFound(f"fat: {name!r} is not in its directory")
        return found, folder.items[found]
