"""What an operation on a pool holds: its lock, and its journal, which is made anew where it does not hold.

Knows: how either is come by. Refuses to know: what is done meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from blockwright.errors import Corrupt
from blockwright.journal import Journal, Part
from blockwright.volume import records
from blockwright.volume.spec import PoolSpec


class PoolLock:
    """The pool's lock as it is held by one operation, which may let go of it for a while."""

    def __init__(self, spec: PoolSpec) -> None:
        self._spec = spec
        self._held = spec.locked()
        self.held = False
        """Whether it is held now: who let go of it may not have got it back."""

    def __enter__(self) -> Self:
        self._held.__enter__()
        self.held = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.held:
            self.held = False
            self._held.__exit__(kind, error, trace)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let others at the pool meanwhile. Raises as ``PoolSpec.locked`` does; it is not ``held`` then."""
        self.held = False
        self._held.__exit__(None, None, None)
        try:
            yield
        finally:
            self._held = self._spec.locked()
            self._held.__enter__()
            self.held = True


def open_journal(spec: PoolSpec, tables: Part | None) -> Journal:
    """Return the journal of a pool; one that does not hold is set aside, and a new one made."""
    parts = (records.PART,) if tables is None else (records.PART, tables)
    try:
        return _sound(spec.journal, parts)
    except Corrupt:
        pass
    with spec.locked():
        try:
            return _sound(spec.journal, parts)  # somebody else was here first
        except Corrupt:
            aside = f"{spec.journal}.set-aside.{time.time_ns()}"
            os.rename(spec.journal, aside)
            for suffix in ("-wal", "-shm"):
                if os.path.exists(spec.journal + suffix):
                    os.unlink(spec.journal + suffix)
            return Journal(spec.journal, parts)


def _sound(path: str, parts: Sequence[Part]) -> Journal:
    """Return a journal of which SQLite has found no fault. Raises Corrupt."""
    journal = Journal(path, parts)
    try:
        told = journal.rows("PRAGMA quick_check(1)")[0][0]
        if told != "ok":
            raise Corrupt(f"journal: {told}", source=path)
    except BaseException:
        journal.close()
        raise
    return journal
