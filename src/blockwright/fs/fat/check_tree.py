"""Verifies the directories of a FAT volume, and that every chain is one file's alone and as long as its size.

Nothing here trusts a chain or an entry: each cluster is visited once, so a volume that loops ends like any other.

Knows: rules of entries and chains. Refuses to know: the boot sector and the allocation tables as a whole.
"""

from __future__ import annotations

from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.finding import Finding
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import AllocationTable
from blockwright.fs.fat.names import short_text
from blockwright.fs.fat.volume import Volume
from blockwright.units import ceil_div

_SIZE: Final = layout.ENTRY_SIZE
_DOT: Final = b".".ljust(11)
_DOT_DOT: Final = b"..".ljust(11)
_MAX_SHOWN: Final = 1024
"""Characters of a path that are told; of a longer one, its end: directories nest as deep as there are clusters."""
_FORBIDDEN: Final = frozenset(b'"*./:<>?\\|\x7f') | frozenset(range(32))


class TreeChecker:
    """Walks all directories. ``owned`` has a byte for each cluster, 1 where a chain holds it; ``label`` is the
    root's volume label, None without one. Findings go to the list that was given, up to a limit.
    """

    def __init__(
        self, device: BlockDevice, volume: Volume, table: AllocationTable, found: list[Finding], limit: int
    ) -> None:
        self._device = device
        self._geometry = volume.geometry
        self._table = table
        self._found = found
        self._limit = limit
        self.owned = bytearray(volume.geometry.end_cluster)
        self.label: bytes | None = None
        self._folders: list[tuple[str, int, int, list[tuple[int, int]]]] = []

    def run(self) -> None:
        """Check everything below the root."""
        geometry = self._geometry
        if geometry.bits == 32:
            start = geometry.root_cluster
            pieces = self._pieces("/", start, 44)
        else:
            start = 0
            pieces = [(geometry.root_start, geometry.root_size)]
        self._folders.append(("/", start, 0, pieces))
        while self._folders and len(self._found) < self._limit:
            self._check_folder(*self._folders.pop())

    def _add(self, rule: str, message: str, offset: int | None, *, repairable: bool = False) -> None:
        self._found.append(Finding(rule, message, offset, repairable))

    # -- chains ----------------------------------------------------------------------------------------------

    def _walk(self, path: str, start: int, offset: int, limit: int) -> list[tuple[int, int]]:
        """Take the chain from ``start`` into possession; return its (cluster, length) runs up to where it breaks."""
        table, owned = self._table, self.owned
        runs: list[tuple[int, int]] = []
        cluster, left = start, limit
        while True:
            if not layout.FIRST_CLUSTER <= cluster < table.end:
                self._add(
                    "fat.chain.range",
                    f"{path}: expected a cluster from 2 to {table.end - 1}, found {cluster}",
                    offset,
                )
                return runs
            value = table.get(cluster)
            if value in (0, table.bad):
                kind = "free" if value == 0 else "bad"
                self._add(f"fat.chain.{kind}", f"{path}: its chain holds cluster {cluster}, which is {kind}", offset)
                return runs
            length = table.run_length(cluster, max(left, 1))
            taken = owned.find(1, cluster, cluster + length)
            if taken >= 0:
                self._add(
                    "fat.chain.shared",
                    f"{path}: cluster {taken} is in a chain before it, or twice in its own",
                    offset,
                )
                length = taken - cluster
            if length:
                owned[cluster : cluster + length] = b"\1" * length
                runs.append((cluster, length))
                left -= length
            if taken >= 0:
                return runs
            following = table.get(cluster + length - 1)
            if following >= table.eoc:
                return runs
            if left <= 0:
                self._add("fat.chain.long", f"{path}: expected a chain of {limit} clusters, found more", offset)
                return runs
            cluster = following

    def _pieces(self, path: str, start: int, offset: int) -> list[tuple[int, int]]:
        """Return the (position, length) in bytes of a directory's clusters."""
        geometry = self._geometry
        limit = ceil_div(layout.MAX_DIRECTORY, geometry.cluster_size)
        size = geometry.cluster_size
        return [
            (geometry.cluster_start(cluster), length * size)
            for cluster, length in self._walk(path, start, offset, limit)
        ]

    # -- directories -----------------------------------------------------------------------------------------

    def _check_folder(self, path: str, start: int, parent: int, pieces: list[tuple[int, int]]) -> None:
        """Check every entry of one directory."""
        is_root = path == "/"
        names: set[bytes] = set()
        parts: list[tuple[int, bytes]] = []
        number = 0
        for position, length in pieces:
            data = self._device.read(position, length)
            for within in range(0, length, _SIZE):
                raw = data[within : within + _SIZE]
                offset = position + within
                number += 1
                if not is_root and number <= 2:
                    self._check_dot(path, number, raw, offset, start if number == 1 else parent)
                    continue
                if raw[0] in (0, layout.DELETED):
                    self._orphans(path, parts)
                    parts = []
                elif raw[11] == layout.LONG_NAME:
                    parts.append((offset, raw))
                else:
                    self._check_long(path, parts, raw)
                    if raw[12] & layout.NO_SHORT_NAME and not parts and not raw[11] & layout.VOLUME:
                        self._add("fat.name.missing", f"{path}: {raw[:11]!r} is no name, and has no long one", offset)
                    parts = []
                    self._check_entry(path, raw, offset, start, names)
                if len(self._found) >= self._limit:
                    return
        self._orphans(path, parts)

    def _check_dot(self, path: str, number: int, raw: bytes, offset: int, cluster: int) -> None:
        """Check one of the first two entries of a directory that is not the root."""
        expected = _DOT if number == 1 else _DOT_DOT
        shown = expected.decode().rstrip()
        entry = layout.DirEntry.parse(raw)
        wrong = entry.dir_name != expected or entry.dir_ntres & layout.NO_SHORT_NAME
        if wrong or not entry.dir_attr & layout.DIRECTORY:
            self._add("fat.directory.dots", f"{path}: expected {shown!r} as entry {number}", offset)
        elif self._cluster(entry) != cluster:
            text = f"{path}: {shown!r}: expected cluster {cluster}, found {self._cluster(entry)}"
            self._add("fat.directory.dots", text, offset + 26)

    def _cluster(self, entry: layout.DirEntry) -> int:
        return entry.first_cluster if self._geometry.bits == 32 else entry.dir_fst_clus_lo

    def _orphans(self, path: str, parts: list[tuple[int, bytes]]) -> None:
        if parts:
            text = f"{path}: expected a short entry behind {len(parts)} parts of a long name, found none"
            self._add("fat.long-name.orphan", text, parts[0][0], repairable=True)

    def _check_long(self, path: str, parts: list[tuple[int, bytes]], short: bytes) -> None:
        """Check that the parts of a long name are complete, in order and the short entry's own."""
        if not parts:
            return
        count, checksum = len(parts), layout.short_checksum(bytes(short[:11]))
        for index, (offset, part) in enumerate(parts):
            expected = count - index | (layout.LAST_LONG if index == 0 else 0)
            if part[0] != expected:
                text = f"{path}: long name: expected part {expected:#x}, found {part[0]:#x}"
                self._add("fat.long-name.order", text, offset, repairable=True)
                return
            if part[13] != checksum:
                text = f"{path}: long name: expected the checksum {checksum:#x}, found {part[13]:#x}"
                self._add("fat.long-name.checksum", text, offset + 13, repairable=True)
                return
            if part[12] or part[26] or part[27]:
                text = (
                    f"{path}: long name: expected zeros at bytes 12 and 26, found {part[12]} and {part[26:28].hex()}"
                )
                self._add("fat.long-name.reserved", text, offset + 12, repairable=True)
                return

    def _check_entry(self, path: str, raw: bytes, offset: int, folder: int, names: set[bytes]) -> None:
        """Check a short entry and what it stands for."""
        entry = layout.DirEntry.parse(raw)
        name = entry.dir_name
        if entry.dir_attr & layout.VOLUME:
            self._check_volume_label(path, entry, offset)
            return
        shown = path + ascii(short_text(name, entry.dir_ntres))[1:-1]
        if not _FORBIDDEN.isdisjoint(name[1:]) or name[0] in _FORBIDDEN - {layout.KANJI_E5} or name[0] == 0x20:
            self._add("fat.name.characters", f"{shown}: the short name {name!r} holds what names cannot", offset)
        if name in names:
            self._add("fat.name.duplicate", f"{shown}: the directory has this short name twice", offset)
        names.add(name)
        cluster = self._cluster(entry)
        if entry.dir_attr & layout.DIRECTORY:
            self._check_child(shown, entry, cluster, offset, folder)
        else:
            self._check_file(shown, entry, cluster, offset)

    def _check_volume_label(self, path: str, entry: layout.DirEntry, offset: int) -> None:
        if entry.dir_attr & layout.DIRECTORY or self._cluster(entry) or entry.dir_file_size:
            text = f"{path}: expected a volume label without content, found attributes {entry.dir_attr:#x}"
            self._add("fat.label.content", text, offset + 11)
        elif path != "/":
            self._add("fat.label.place", f"{path}: expected volume labels in the root directory only", offset)
        elif self.label is not None:
            self._add("fat.label.twice", f"{path}: expected one volume label, found another", offset)
        if path == "/" and self.label is None and not entry.dir_attr & layout.DIRECTORY:
            self.label = entry.dir_name

    def _check_child(self, path: str, entry: layout.DirEntry, cluster: int, offset: int, folder: int) -> None:
        if entry.dir_file_size:
            text = f"{path}: expected a directory's size of 0, found {entry.dir_file_size}"
            self._add("fat.directory.size", text, offset + 28, repairable=True)
        pieces = self._pieces(path, cluster, offset)
        if pieces:
            parent = 0 if folder == self._geometry.root_cluster else folder
            shown = path if len(path) < _MAX_SHOWN else "..." + path[-_MAX_SHOWN // 2 :]
            self._folders.append((shown + "/", cluster, parent, pieces))

    def _check_file(self, path: str, entry: layout.DirEntry, cluster: int, offset: int) -> None:
        size = entry.dir_file_size
        if cluster == 0:
            if size:
                self._add("fat.file.size", f"{path}: expected clusters for {size} bytes, found none", offset + 26)
            return
        needed = ceil_div(size, self._geometry.cluster_size)
        before = len(self._found)
        taken = sum(length for _, length in self._walk(path, cluster, offset, max(needed, 1)))
        if len(self._found) == before and taken != needed:
            text = f"{path}: expected {needed} clusters for {size} bytes, found {taken}"
            self._add("fat.file.size", text, offset + 28)
