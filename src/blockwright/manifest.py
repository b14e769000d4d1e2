"""A source becomes a manifest: what ``build`` would put on a disk, as mtree(5) tells it.

Knows: how digests are had of what can be read anywhere, and of what passes once. Refuses to know: mtree's words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from blockwright.errors import UsageError
from blockwright.source import Source
from blockwright.tree.changes.options import Changes
from blockwright.tree.content import Content, Fill, Runs
from blockwright.tree.mtree.digest import NAMES, Digester, digests
from blockwright.tree.mtree.write import write_manifest
from blockwright.units import MiB

Progress = Callable[[int, int], None]
_NO_CHANGES = Changes()


def manifest(
    source: Source,
    *,
    changes: Changes = _NO_CHANGES,
    digest: Sequence[str] = (),
    progress: Progress | None = None,
) -> Iterator[bytes]:
    """Yield the lines of the manifest of a source's tree, with these digests of files, after ``changes``.

    Nothing of the host is written. Raises UsageError for a digest that is not to be had, and for changes that are for
    disks, or need to read what passes once; what reading the source raises.
    """
    changes.refuse_disk("manifest")
    names = tuple(dict.fromkeys(digest))
    try:
        Digester(names)
    except ValueError:
        raise UsageError(f"digest: expected some of {', '.join(NAMES)}, found {', '.join(names)[:80]!a}") from None
    if source.addressable:
        tree = source.read()
    else:
        place = _Digesting(names).place
        tree = source.read(source.shown(place, progress) if progress is not None else place)
    if changes:
        from blockwright.tree.changes.ready import ready

        tree = ready(changes).apply(tree)

    def digests_of(content: Content) -> dict[str, str]:
        if isinstance(content, _Digested):
            return content.found
        return digests(content, names)

    yield from write_manifest(tree, digests_of if names else None)


class _Digested(Content):
    """A body that has passed."""

    __slots__ = ("_runs", "found")

    def __init__(self, size: int, runs: Runs, found: dict[str, str]) -> None:
        super().__init__(size)
        self._runs = runs
        self.found = found

    def runs(self) -> Runs:
        return self._runs

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Refuse: it was not kept."""
        raise UsageError("manifest: a file of what passes once is needed, and was not kept: expected it in a file")


class _Digesting:
    """A place that keeps digests of bodies and nothing else."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._buffer = memoryview(bytearray(MiB))

    def place(self, size: int, runs: Runs, fill: Fill, /) -> Content:
        digester = Digester(self._names)
        position = 0
        for start, length in runs:
            digester.zeros(start - position if self._names else 0)
            position, end = start, start + length
            while position < end:
                part = self._buffer[: min(len(self._buffer), end - position)]
                fill(part)
                digester.update(part)
                position += len(part)
        digester.zeros(size - position if self._names else 0)
        return _Digested(size, runs, digester.result())
