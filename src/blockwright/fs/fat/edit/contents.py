"""The bytes of files change: replaced as a whole, made longer where they lie, cut.

Knows: which of these is one write of an entry. Refuses to know: names.
"""

from __future__ import annotations

from collections.abc import Sequence

from blockwright.errors import Corrupt, UsageError
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import Run
from blockwright.fs.fat.edit.bodies import Patched
from blockwright.fs.fat.edit.session import Session
from blockwright.fs.fat.plan import check_content
from blockwright.tree.content import EMPTY, Content
from blockwright.units import ceil_div


class Contents:
    """Changes the files of one session, by the inode numbers of their entries."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._geometry = session.geometry
        self._table = session.table
        self._files = session.files

    def replace(self, inode: int, content: Content) -> None:
        """Give a file other bytes, as one change."""
        check_content(b"", content)
        entry = self._files.entry(inode)
        old = self._session.chain(entry)
        runs = self._session.store(content)
        changed = chained(entry, first_of(runs), content.size)
        self._session.change_entry(inode, changed.replace(dir_attr=entry.dir_attr | layout.ARCHIVE))
        self._table.free(old)

    def patch(self, inode: int, offset: int, part: Content, end: int) -> None:
        """Change a part of a file, which ends at ``end`` or where it did, whatever is more."""
        entry = self._files.entry(inode)
        before = entry.dir_file_size
        if end > layout.MAX_FILE:
            raise UsageError(f"fat: expected a file of at most {layout.MAX_FILE} bytes, found {end}")
        with self._files.open_inode(inode) as old:
            content = Patched(old, part, offset, max(before, end))
            if offset < before or not self._extend(inode, content):
                self.replace(inode, content)

    def _extend(self, inode: int, content: Content) -> bool:
        """Let a file become longer where it lies; False where that cannot be one change."""
        if inode in self._session.shrunk:
            self._session.commit_before("a file that is cut must be so before it grows again")
        entry = self._files.entry(inode)
        size, before = self._geometry.cluster_size, entry.dir_file_size
        have = ceil_div(before, size)
        last = last_of(self._table.runs(self._files.first_cluster(entry), have, whole=False)) if have else 0
        if not have or self._table.get(last) < self._table.eoc or self._straddles(last):
            return False
        more = ceil_div(content.size, size) - have
        runs = self._session.allocate(more) if more else []
        skip = before // size * size
        try:
            self._session.bodies.write([Run(last, 1), *runs] if before % size else runs, content, skip=skip)
        except BaseException:
            self._table.free(runs)
            raise
        if runs:
            self._table.link(last, runs[0].start)
        changed = entry.replace(dir_file_size=content.size, dir_attr=entry.dir_attr | layout.ARCHIVE)
        self._session.change_entry(inode, changed)
        return True

    def _straddles(self, cluster: int) -> bool:
        """Whether an entry of 12 bits lies in two sectors, so that it cannot be changed at once."""
        sector = self._geometry.sector_size
        return self._geometry.bits == 12 and cluster * 3 // 2 % sector == sector - 1

    def shorten(self, inode: int, entry: layout.DirEntry, size: int) -> None:
        """Cut a file to ``size`` bytes, which are fewer than it has."""
        runs = self._session.chain(entry)
        keep = ceil_div(size, self._geometry.cluster_size)
        kept, rest = split_at(runs, keep)
        if sum(run.length for run in kept) < keep:
            raise Corrupt(f"fat: {entry.dir_name!r}: expected {keep} clusters or more, found fewer")
        if keep and self._straddles(last_of(kept)):
            with self._files.open_inode(inode) as old:
                self.replace(inode, Patched(old, EMPTY, size, size))
            return
        changed = chained(entry, first_of(kept), size)
        self._session.change_entry(inode, changed.replace(dir_attr=entry.dir_attr | layout.ARCHIVE))
        if kept and rest:
            self._table.cut(last_of(kept))
        self._table.free(rest)
        self._session.shrunk.add(inode)


def chained(entry: layout.DirEntry, cluster: int, size: int) -> layout.DirEntry:
    """Return an entry with another chain and size."""
    return entry.replace(dir_fst_clus_hi=cluster >> 16, dir_fst_clus_lo=cluster & 0xFFFF, dir_file_size=size)


def first_of(runs: Sequence[Run]) -> int:
    """Return the first cluster, 0 where there is none."""
    return runs[0].start if runs else 0


def last_of(runs: Sequence[Run]) -> int:
    """Return the last cluster."""
    return runs[-1].start + runs[-1].length - 1


def split_at(runs: Sequence[Run], count: int) -> tuple[list[Run], list[Run]]:
    """Return the runs of the first ``count`` clusters, and of the others."""
    kept: list[Run] = []
    rest: list[Run] = []
    for run in runs:
        part = min(run.length, count)
        if part:
            kept.append(Run(run.start, part))
        if part < run.length:
            rest.append(Run(run.start + part, run.length - part))
        count -= part
    return kept, rest
