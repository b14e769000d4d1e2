"""What a volume holds, as far as it matters when clusters get other numbers: every directory, and the parts of files
that lie where room is needed.

Knows: chains and entries. Refuses to know: where anything goes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, Unsupported
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import AllocationTable, Run
from blockwright.fs.fat.entries import DOT, DOT_DOT
from blockwright.fs.fat.geometry import Geometry
from blockwright.fs.fat.names import short_text
from blockwright.fs.fat.resize.values import straddles
from blockwright.fs.fat.volume import Volume
from blockwright.units import ceil_div

_SIZE: Final = layout.ENTRY_SIZE


class Folder:
    """A directory and its clusters, of which a fixed root has none."""

    __slots__ = ("parent", "path", "runs")

    def __init__(self, path: str, parent: Folder | None, runs: list[Run]) -> None:
        self.path = path
        self.parent = parent
        self.runs = runs

    @property
    def first(self) -> int:
        """Its first cluster, 0 for a fixed root."""
        return self.runs[0].start if self.runs else 0

    @property
    def clusters(self) -> list[int]:
        """Every cluster, in order."""
        return clusters_of(self.runs)


class Segment(NamedTuple):
    """Clusters of a file that move: the one before them that stays, 0 for none, and the one behind them."""

    before: int
    clusters: list[int]
    behind: int


class Tree:
    """All directories, the root first; the parts of files that lie below ``way``; a byte for each cluster, 1 where it
    is somebody's.
    """

    def __init__(self, end: int) -> None:
        self.folders: list[Folder] = []
        self.segments: list[Segment] = []
        self.owned = bytearray(end)

    @property
    def folder_clusters(self) -> int:
        """Clusters of all directories."""
        return sum(run.length for folder in self.folders for run in folder.runs)

    def reaches_below(self, way: int) -> bool:
        """Whether a cluster below ``way`` is somebody's."""
        return 1 in self.owned[:way]


def clusters_of(runs: list[Run]) -> list[int]:
    """Return the numbers of all clusters in runs."""
    return [cluster for run in runs for cluster in range(run.start, run.start + run.length)]


def read_tree(device: BlockDevice, volume: Volume, way: int = layout.FIRST_CLUSTER) -> Tree:
    """Return what the volume holds. Raises Corrupt; Unsupported for a system file that reaches below ``way``."""
    geometry = volume.geometry
    table = AllocationTable(device, geometry, volume.active_fat)
    tree = Tree(geometry.end_cluster)
    limit = ceil_div(layout.MAX_DIRECTORY, geometry.cluster_size)
    runs = table.runs(geometry.root_cluster, limit, whole=True) if geometry.bits == 32 else []
    tree.folders.append(Folder("/", None, runs))
    _own(tree, runs)
    for folder in tree.folders:  # which grows on the way
        data = read_folder(device, geometry, folder)
        for offset, first, attributes in _entries(data, wide=geometry.bits == 32):
            if attributes & layout.DIRECTORY:
                name = short_text(data[offset : offset + 11], data[offset + 12])
                runs = table.runs(first, limit, whole=True)
                tree.folders.append(Folder(f"{folder.path}{name}/", folder, runs))
            else:
                runs = table.runs(first, geometry.clusters, whole=True)
                if any(run.start < way for run in runs):
                    if attributes & layout.SYSTEM:
                        _refuse_system(folder, data, offset)
                    tree.segments += _segments(runs, way, geometry)
            _own(tree, runs)
    return tree


def _refuse_system(folder: Folder, data: bytes, offset: int) -> None:
    name = ascii(folder.path + short_text(data[offset : offset + 11], data[offset + 12]))[1:-1]
    raise Unsupported(
        f"fat: {name} lies where the FATs would grow, and does not move, since it is a system file, of which a boot "
        "loader may know the place"
    )


def _own(tree: Tree, runs: list[Run]) -> None:
    for run in runs:
        if 1 in tree.owned[run.start : run.start + run.length]:
            raise Corrupt(f"fat: a cluster from {run.start} on is in two chains", spec=layout.SPEC)
        tree.owned[run.start : run.start + run.length] = b"\1" * run.length


def _segments(runs: list[Run], way: int, geometry: Geometry) -> list[Segment]:
    """Return the parts of a chain that move: what is below ``way``, or before it with an entry in two sectors."""
    pieces: list[tuple[Run, bool]] = []
    for run in runs:
        head = max(0, min(run.length, way - run.start))
        if head:
            pieces.append((Run(run.start, head), True))
        if head < run.length:
            pieces.append((Run(run.start + head, run.length - head), False))
    if geometry.bits == 12:
        pieces = [(Run(each, 1), moves) for run, moves in pieces for each in range(run.start, run.start + run.length)]
        for index in range(len(pieces) - 1, 0, -1):
            (before, _), (_, moves) = pieces[index - 1], pieces[index]
            if moves and straddles(before.start, geometry):
                pieces[index - 1] = (before, True)
    found: list[Segment] = []
    moving: list[int] = []
    last = 0
    for run, moves in pieces:
        if moves:
            moving += range(run.start, run.start + run.length)
            continue
        if moving:
            found.append(Segment(last, moving, run.start))
            moving = []
        last = run.start + run.length - 1
    return [*found, Segment(last, moving, 0)] if moving else found


def read_folder(device: BlockDevice, geometry: Geometry, folder: Folder) -> bytes:
    """Return a directory's bytes."""
    if not folder.runs:
        return device.read(geometry.root_start, geometry.data_start - geometry.root_start)
    size = geometry.cluster_size
    return b"".join([device.read(geometry.cluster_start(run.start), run.length * size) for run in folder.runs])


def _entries(data: bytes, *, wide: bool) -> Iterator[tuple[int, int, int]]:
    """Yield (place, first cluster, attributes) of everything that has clusters, but for the dots."""
    for offset in range(0, len(data) - _SIZE + 1, _SIZE):
        attributes = data[offset + 11]
        if data[offset] in (0, layout.DELETED) or attributes & layout.VOLUME:
            continue
        first = int.from_bytes(data[offset + 26 : offset + 28], "little")
        if wide:
            first |= int.from_bytes(data[offset + 20 : offset + 22], "little") << 16
        if first and data[offset : offset + 11] not in (DOT, DOT_DOT):
            yield offset, first, attributes


def renumbered(data: bytes, number: Callable[[int], int], *, wide: bool) -> bytes:
    """Return a directory's bytes with the first cluster of each entry as ``number`` has it, dots included.

    0 stays: no cluster, or the root directory.
    """
    changed = bytearray(data)
    for offset in range(0, len(data) - _SIZE + 1, _SIZE):
        if data[offset] in (0, layout.DELETED) or data[offset + 11] & layout.VOLUME:
            continue
        first = int.from_bytes(data[offset + 26 : offset + 28], "little")
        if wide:
            first |= int.from_bytes(data[offset + 20 : offset + 22], "little") << 16
        if first:
            value = number(first)
            changed[offset + 26 : offset + 28] = (value & 0xFFFF).to_bytes(2, "little")
            if wide:
                changed[offset + 20 : offset + 22] = (value >> 16).to_bytes(2, "little")
    return bytes(changed)


def drop_lost(values: array[int], owned: bytearray, bits: int) -> None:
    """Have every entry that is nobody's say that the cluster is free, unless it is bad."""
    mask, bad = layout.MASK[bits], layout.BAD[bits]
    if len(values) - values.count(0) == owned.count(1) + layout.FIRST_CLUSTER:
        return
    for cluster in range(layout.FIRST_CLUSTER, len(values)):
        if values[cluster] and not owned[cluster] and values[cluster] & mask != bad:
            values[cluster] &= ~mask
