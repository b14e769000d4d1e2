"""Makes room for larger FATs behind the ones there are.

First what lies where they will be moves: every directory is copied, and the clusters of files in the way, all to free
clusters. Then entries of the FATs lead to the middles of files, and the boot sector (FAT32) or the sectors of the
fixed root directory to the directories, one by one. Whoever reads the volume in between finds every file, by the old
way or by the new. Then new FATs, and directories with the new numbers, are written where the volume has nothing, and
the boot sector leads to these.

A full volume has no free clusters to move to. Where its FATs have room, it gets more of them first; where they have
not and there are two, the first takes the room of both until the end.

Knows: what goes where, and in which order. Refuses to know: when a volume needs larger FATs.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import NoSpace, Unsupported
from blockwright.fs.fat import layout
from blockwright.fs.fat.geometry import Geometry
from blockwright.fs.fat.resize.front import begin, flip, has_flags
from blockwright.fs.fat.resize.target import Target, bounds, fat_room
from blockwright.fs.fat.resize.tree import Tree, drop_lost, read_folder, read_tree, renumbered
from blockwright.fs.fat.resize.values import (
    clear_entries,
    link,
    put,
    read_values,
    write_differing,
    write_new,
    write_values,
)
from blockwright.fs.fat.volume import Volume

_COPY: Final = 1 << 20
"""Bytes that are copied at once."""


class Move:
    """One change of size with larger FATs, looked at whole before anything is written.

    ``base`` is the volume's geometry with all its FATs. Raises NoSpace, Unsupported, UsageError.
    """

    def __init__(self, device: BlockDevice, volume: Volume, base: Geometry, target: Target) -> None:
        self._device = device
        self._volume = volume
        self._target = target
        self._way = layout.FIRST_CLUSTER + target.shift
        geometry = volume.geometry
        if not has_flags(device, volume):
            raise Unsupported("fat: needs larger FATs, and its boot sector cannot say that it is being changed")
        if not volume.mirrored:
            raise Unsupported("fat: needs larger FATs, and those it has are not copies of one another")
        tree = read_tree(device, volume, self._way)
        values = read_values(device, geometry)
        taken = _taken(values, tree, geometry)
        kept = taken.count(1, layout.FIRST_CLUSTER) + tree.folder_clusters
        if layout.BAD[geometry.bits] in _masked(values, geometry.bits, self._way):
            raise Unsupported("fat: a cluster that is marked as bad lies where the FATs would grow")
        self._reaches = tree.reaches_below(self._way)
        self._joined = False
        self._extended: Geometry | None = None
        if self._reaches:
            self._find_room(tree, taken, base)
        if kept > target.geometry.clusters:
            raise NoSpace(
                f"fat: with larger FATs there are {target.geometry.clusters} clusters, and {kept} are needed with "
                "copies of all directories: a larger size has them"
            )

    def _find_room(self, tree: Tree, taken: bytearray, base: Geometry) -> None:
        """Find out what must become larger first, so that what lies in the way finds free clusters."""
        live = self._volume.geometry
        need = tree.folder_clusters + sum(len(each.clusters) for each in tree.segments)
        free = taken.count(0, self._way)
        if need <= free:
            return
        candidates = [live]
        if live.fats == 2:
            candidates.append(replace(live, fats=1, fat_sectors=2 * live.fat_sectors))
        most = (self._target.geometry.size - live.data_start) // live.cluster_size
        found = free
        for each in candidates:
            clusters = max(live.clusters, min(most, fat_room(each), bounds(base)[1]))
            larger = replace(each, clusters=clusters, total_sectors=_total_for(each, clusters))
            found = free + clusters - live.clusters
            if need <= found:
                self._joined = each is not live
                self._extended = larger
                return
        lacking = (need - found) * live.cluster_size
        raise NoSpace(
            f"fat: what lies where the FATs would grow takes {need} free clusters to move, found {found}: "
            f"remove {lacking} bytes of files first"
        )

    def apply(self) -> None:
        """Do it. The volume is left with its mark."""
        device, volume = self._device, self._volume
        begin(device, volume, volume.mark or layout.RESIZING)
        if self._joined:
            live = volume.geometry
            joined = replace(live, fats=1, fat_sectors=2 * live.fat_sectors)
            volume = flip(device, volume, joined, layout.RESIZING_ONE_FAT)
        if self._extended is not None and self._extended != volume.geometry:
            keep_bad = volume.mark != layout.RESIZING_ONE_FAT  # what is behind the first of two FATs is the second
            clear_entries(device, volume.geometry, self._extended.clusters, keep_bad=keep_bad)
            volume = flip(device, volume, self._extended)
        if self._reaches:
            volume = _evict(device, volume, self._way)
        _switch(device, volume, self._target)


def _evict(device: BlockDevice, volume: Volume, way: int) -> Volume:
    """Have nothing in use below ``way``; return the volume as it is then."""
    geometry = volume.geometry
    bits = geometry.bits
    tree = read_tree(device, volume, way)
    values = read_values(device, geometry)
    space = _Space(_taken(values, tree, geometry), way)
    firsts = _place_folders(tree, values, space, bits)
    before: dict[int, int] = {}
    for each in tree.segments:
        copy = space.take(len(each.clusters))
        link(values, copy, each.behind or layout.MASK[bits], bits)
        _copy(device, geometry, each.clusters, copy)
        if each.before:
            before[each.before] = copy[0]
        else:
            firsts[each.clusters[0]] = copy[0]

    def number(cluster: int) -> int:
        return firsts.get(cluster, cluster)

    _write_folders(device, geometry, tree, values, firsts, number)
    write_values(device, geometry, values)
    device.flush()
    for cluster, following in before.items():
        put(values, cluster, following, bits)
    write_values(device, geometry, values)
    if bits == 32:
        return flip(device, volume, replace(geometry, root_cluster=firsts[geometry.root_cluster]))
    device.flush()
    root = read_folder(device, geometry, tree.folders[0])
    write_differing(device, geometry.root_start, renumbered(root, number, wide=False), geometry.sector_size)
    device.flush()
    return volume


def _switch(device: BlockDevice, volume: Volume, target: Target) -> None:
    """Write FATs and directories for the new numbers where there is nothing, and lead the boot sector to them."""
    old, new, shift = volume.geometry, target.geometry, target.shift
    bits, way = old.bits, layout.FIRST_CLUSTER + shift
    tree = read_tree(device, volume, way)
    assert not tree.reaches_below(way), "it was moved away"
    values = read_values(device, old)
    drop_lost(values, tree.owned, bits)
    end = new.end_cluster + shift
    taken = _taken(values, tree, old)[:end]
    space = _Space(taken + bytearray(end - len(taken)), way)
    for folder in tree.folders:
        for cluster in folder.clusters:
            put(values, cluster, 0, bits)
    values.extend([0] * (space.end_of(tree.folder_clusters) - len(values)))
    firsts = _place_folders(tree, values, space, bits)

    def number(cluster: int) -> int:
        return firsts.get(cluster, cluster) - shift

    _write_folders(device, old, tree, values, firsts, number)
    if bits != 32:
        root = renumbered(read_folder(device, old, tree.folders[0]), number, wide=False)
        device.write(new.root_start, root)
    write_new(device, new, _shifted(values, shift, bits, new.end_cluster))
    root_cluster = number(old.root_cluster) if bits == 32 else 0
    flip(device, volume, replace(new, root_cluster=root_cluster), layout.RESIZING)


def _shifted(values: array[int], shift: int, bits: int, end: int) -> array[int]:
    """Return the entries of the new numbers: each at its place, and saying the next one's."""
    mask, least = layout.MASK[bits], layout.BAD[bits]
    moved = [
        value if not value & mask or value & mask >= least else value - shift
        for value in values[layout.FIRST_CLUSTER + shift : end + shift]
    ]
    return values[: layout.FIRST_CLUSTER] + array(values.typecode, moved)


class _Space:
    """Free clusters, taken from the lowest on."""

    def __init__(self, taken: bytearray, start: int) -> None:
        self._taken = taken
        self._next = start

    def take(self, count: int) -> list[int]:
        """Return so many clusters, which are no longer free."""
        found: list[int] = []
        while len(found) < count:
            at = self._taken.find(0, self._next)
            assert at >= 0, "there is as much as was counted"
            found.append(at)
            self._next = at + 1
        return found

    def end_of(self, count: int) -> int:
        """Return the number behind the last of the next so many free clusters; nothing is taken."""
        before = self._next
        end = max(self.take(count), default=0) + 1
        self._next = before
        return end


def _taken(values: array[int], tree: Tree, geometry: Geometry) -> bytearray:
    """Return a byte for each cluster: 0 where it is free for a copy, be it free or nobody's."""
    taken = bytearray(tree.owned)
    if layout.BAD[geometry.bits] in _masked(values, geometry.bits, len(values)):
        for cluster in range(layout.FIRST_CLUSTER, len(values)):
            if values[cluster] & layout.MASK[geometry.bits] == layout.BAD[geometry.bits]:
                taken[cluster] = 1
    taken[: layout.FIRST_CLUSTER] = b"\1" * layout.FIRST_CLUSTER
    return taken


def _masked(values: array[int], bits: int, end: int) -> Sequence[int]:
    """Return entries without the bits that are nobody's."""
    part = values[:end]
    if bits != 32 or max(part, default=0) <= layout.MASK[32]:
        return part
    return array("I", [value & layout.MASK[32] for value in part])


def _total_for(geometry: Geometry, clusters: int) -> int:
    return max(
        geometry.total_sectors,
        geometry.data_start // geometry.sector_size + clusters * geometry.sectors_per_cluster,
    )


def _place_folders(tree: Tree, values: array[int], space: _Space, bits: int) -> dict[int, int]:
    """Give every directory but a fixed root new clusters; return the new first one by the old."""
    firsts: dict[int, int] = {}
    for folder in tree.folders:
        if folder.runs:
            copy = space.take(len(folder.clusters))
            link(values, copy, layout.MASK[bits], bits)
            firsts[folder.first] = copy[0]
    return firsts


def _write_folders(
    device: BlockDevice,
    geometry: Geometry,
    tree: Tree,
    values: array[int],
    firsts: dict[int, int],
    number: Callable[[int], int],
) -> None:
    """Write the copies of directories, their entries numbered as ``number`` has it."""
    size, mask = geometry.cluster_size, layout.MASK[geometry.bits]
    for folder in tree.folders:
        if not folder.runs:
            continue
        data = renumbered(read_folder(device, geometry, folder), number, wide=geometry.bits == 32)
        cluster = firsts[folder.first]
        for at in range(0, len(data), size):
            device.write(geometry.cluster_start(cluster), data[at : at + size])
            cluster = values[cluster] & mask


def _copy(device: BlockDevice, geometry: Geometry, source: Sequence[int], to: Sequence[int]) -> None:
    """Copy clusters, those that follow one another on both sides together."""
    size = geometry.cluster_size
    most = max(1, _COPY // size)
    at = 0
    while at < len(source):
        count = 1
        while (
            count < most
            and at + count < len(source)
            and source[at + count] == source[at] + count
            and to[at + count] == to[at] + count
        ):
            count += 1
        data = device.read(geometry.cluster_start(source[at]), count * size)
        device.write(geometry.cluster_start(to[at]), data)
        at += count
