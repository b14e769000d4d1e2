"""One directory while it is changed: its names, and which of its places for entries are free.

A place whose entry is removed stays taken until the device knows: a new entry there would be written first.

Knows: names, places, short aliases. Refuses to know: clusters' contents, and when anything is written.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

from blockwright.fs.fat import layout
from blockwright.fs.fat.directory import Listed, scan
from blockwright.fs.fat.entries import DOT, DOT_DOT
from blockwright.fs.fat.names import Name, ShortNames, encode_long, exact_short, fold, short_text

SIZE: Final = layout.ENTRY_SIZE
MAX_SLOTS: Final = layout.MAX_DIRECTORY // SIZE


class Item(NamedTuple):
    """A name: the text, its 11 bytes of short name, and its places, those of a long name before that of the short."""

    name: bytes
    short: bytes
    first: int
    slot: int
    directory: bool

    @property
    def slots(self) -> range:
        """The places it takes."""
        return range(self.first, self.slot + 1)


class Folder:
    """The directory that begins at ``cluster`` (0 for a fixed root), lying in ``pieces`` of (position, length).

    ``is_new`` says that nothing on the device refers to it yet. ``end`` is the place behind the last that the device
    has ever used, where its list ends for readers.
    """

    def __init__(self, cluster: int, pieces: list[tuple[int, int]], data: bytes, *, is_new: bool) -> None:
        self.cluster = cluster
        self.is_new = is_new
        self.pieces: list[tuple[int, int]] = []
        self._starts: list[int] = []
        self.count = 0
        for position, length in pieces:
            self.grow(position, length)
        firsts = data[::SIZE]
        self.end = firsts.find(b"\0") if b"\0" in firsts else len(firsts)
        self.used = bytearray(firsts[: self.end].translate(_USED)).ljust(self.count, b"\0")
        self.items: dict[int, Item] = {}
        self.by_name: dict[str, int] = {}
        self.shorts = ShortNames()
        self.label: int | None = None
        self.is_sound = not any(firsts[self.end :])
        self.touched = False
        self.born: set[int] = set()
        self.gone: set[str] = set()
        self._leaving: list[tuple[list[int], bytes | None]] = []
        found = [(self.inode(each.offset // SIZE), each) for each in scan(data)]
        for inode, each in reversed(found):
            self._enter(inode, each)

    def _enter(self, inode: int, each: Listed) -> None:
        """Take note of an entry; of two with one name the first is found, as by every reader."""
        short, slot = each.raw[:11], each.offset // SIZE
        if each.raw[11] & layout.VOLUME:
            if not each.raw[11] & layout.DIRECTORY:
                self.label = slot
            return
        if short in (DOT, DOT_DOT):
            return
        self._add(inode, Item(each.name, short, each.start // SIZE, slot, bool(each.raw[11] & layout.DIRECTORY)))

    def _add(self, inode: int, item: Item) -> None:
        self.items[inode] = item
        self.shorts.add(item.short)
        for key in _keys(item):
            self.by_name[key] = inode

    def grow(self, position: int, length: int) -> None:
        """Take note of clusters at the end, all of whose places are free."""
        self.pieces.append((position, length))
        self._starts.append(self.count)
        self.count += length // SIZE
        if hasattr(self, "used"):
            self.used.extend(bytes(length // SIZE))

    # -- places ----------------------------------------------------------------------------------------------

    def position(self, slot: int) -> int:
        """Return the byte of the volume where a place lies."""
        piece = bisect_right(self._starts, slot) - 1
        return self.pieces[piece][0] + (slot - self._starts[piece]) * SIZE

    def inode(self, slot: int) -> int:
        """Return the inode number of an entry at a place."""
        return self.position(slot) // SIZE

    def room(self, count: int) -> int | None:
        """Return where so many free places lie side by side, or None."""
        slot = self.used.find(bytes(count))
        return None if slot < 0 else slot

    @property
    def free_at_end(self) -> int:
        """Free places at the end, which new clusters would make more."""
        return self.count - len(self.used.rstrip(b"\0"))

    @property
    def frees_later(self) -> bool:
        """Whether a commit frees places."""
        return bool(self._leaving)

    def room_within(self, places: range, count: int, item: Item) -> int | None:
        """Return where so many places lie side by side among these, those of ``item`` counted as free."""
        used = bytearray(self.used[places.start : places.stop])
        for slot in item.slots:
            if slot in places:
                used[slot - places.start] = 0
        found = used.find(bytes(count))
        return None if found < 0 else places.start + found

    def find(self, name: bytes) -> int | None:
        """Return the inode number of a name, by any spelling of it."""
        return self.by_name.get(fold(name.decode("utf-8", "surrogatepass")))

    def has_gone(self, text: str) -> bool:
        """Whether the device still has a name that was removed."""
        return fold(text) in self.gone

    # -- names -----------------------------------------------------------------------------------------------

    def name_for(self, text: str, instead: Item | None = None) -> Name:
        """Return how a name is stored here; an alias is taken from then on. ``instead`` is who gives up its name."""
        if instead is not None:
            self.shorts.taken.discard(instead.short)
        exact = exact_short(text)
        if exact is not None and exact[0] not in self.shorts.taken:
            self.shorts.add(exact[0])
            return Name(*exact, b"")
        return Name(self.shorts.alias(text), 0, encode_long(text))

    def enter(self, text: str, name: Name, first: int, *, directory: bool) -> Item:
        """Have a name at places that are free."""
        item = Item(text.encode(), name.short, first, first + name.entries - 1, directory)
        for slot in item.slots:
            self.used[slot] = 1
        self._add(self.inode(item.slot), item)
        self.touched = True
        return item

    def leave(self, item: Item, *, at_once: bool, kept: range = range(0), short: bytes = b"") -> None:
        """Forget a name. Its places are free ``at_once``, or when the device knows.

        With ``kept`` and ``short`` it is only another name for the same: these places and this alias stay taken.
        """
        inode = self.inode(item.slot)
        self.items.pop(inode, None)
        for key in _keys(item):
            if self.by_name.get(key) == inode:
                del self.by_name[key]
        self.born.discard(item.slot)
        self.touched = True
        freed = [slot for slot in item.slots if slot not in kept]
        alias = None if item.short == short else item.short
        if at_once:
            self._release(freed, alias)
        else:
            self._leaving.append((freed, alias))
            self.gone.update(_keys(item))

    def _release(self, slots: list[int], short: bytes | None) -> None:
        for slot in slots:
            self.used[slot] = 0
        if short is not None:
            self.shorts.taken.discard(short)

    def settle(self) -> None:
        """Take what was written for what is there."""
        for slots, short in self._leaving:
            self._release(slots, short)
        self._leaving.clear()
        self.gone.clear()
        self.born.clear()
        self.is_new = self.touched = False
        self.end = max(self.end, len(self.used.rstrip(b"\0")))


_USED: Final = bytes(0 if value in (0, layout.DELETED) else 1 for value in range(256))


def _keys(item: Item) -> tuple[str, str]:
    """Return what a name is found by: itself, and its alias."""
    return fold(item.name.decode("utf-8", "surrogatepass")), fold(short_text(item.short, 0))
