"""Internal snapshots of an image: made, gone back to, deleted.

Counts are raised before anything more refers to a cluster and lowered when nothing does any more; what names a state
changes in between, by one write to the header. So a power cut leaves leaks, and marks that contradict the counts of
clusters which only one state has: ``repair`` settles both, and no data depends on it.

Knows: the order of steps. Refuses to know: how snapshots are read (``snapshot``). Nobody else may use the disk while
one of these runs.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator

from blockwright.errors import LimitExceeded, NotSupported, UsageError
from blockwright.format.qcow2.device import read_entries
from blockwright.format.qcow2.layout import COMPRESSED, COPIED, MAX_SNAPSHOTS, OFFSET_MASK, entry_bytes
from blockwright.format.qcow2.snapshot import Snapshot, find_snapshot, read_snapshot_table, read_snapshots
from blockwright.format.qcow2.write import WritableQcow2

MAX_NAME_BYTES = 255


def create_snapshot(disk: WritableQcow2, name: str, *, time_ns: int) -> Snapshot:
    """Keep the disk's present state under ``name``, made at ``time_ns`` since 1970, and return it.

    Raises UsageError for a name that is taken, NotSupported with an external data file, LimitExceeded where the
    refcounts are too narrow for one more state, with nothing changed.
    """
    _check(disk)
    encoded = name.encode("utf-8", "surrogateescape")
    if not 0 < len(encoded) <= MAX_NAME_BYTES:
        raise UsageError(f"snapshot: expected a name of 1 to {MAX_NAME_BYTES} bytes, found {len(encoded)}")
    present, table_length = read_snapshot_table(disk.file, disk.image)
    if any(name in (each.name, each.id) for each in present):
        raise UsageError(f"snapshot {name!r}: is there already")
    if len(present) >= MAX_SNAPSHOTS:
        raise LimitExceeded(f"snapshots: expected at most {MAX_SNAPSHOTS}")
    updates, geometry, clusters = disk.updates, disk.image.geometry, disk.updates.map
    l1 = _unmarked(clusters.l1)
    with updates.lock:
        used = array("Q", _referred(disk, l1))
        _check_room(disk, used)
        l1_offset = updates.counts.allocate_run(max(1, geometry.clusters(len(l1) * 8))) << geometry.cluster_bits
        updates.counts.add(used, 1)
    updates.sync()
    _share(disk)
    number = 1 + max((int(each.id) for each in present if each.id.isdecimal()), default=0)
    made = Snapshot(
        id=str(number),
        name=name,
        date_s=min(time_ns // 10**9, 0xFFFF_FFFF),
        date_ns=time_ns % 10**9,
        vm_clock_ns=0,
        vm_state=0,
        size=disk.size,
        l1_offset=l1_offset,
        l1_size=len(l1),
    )
    disk.file.write(l1_offset, entry_bytes(l1))
    _put_table(disk, [*present, made], table_length)
    return made


def apply_snapshot(disk: WritableQcow2, name: str) -> Snapshot:
    """Make the disk what it was when the snapshot was made; what it is now is lost. Raises NotFound, UsageError.

    The disk's size must be what it was.
    """
    _check(disk)
    snapshot = find_snapshot(read_snapshots(disk.file, disk.image), name)
    if snapshot.size != disk.size:
        raise UsageError(
            f"snapshot {name!r}: is of a disk of {snapshot.size} bytes, found one of {disk.size}: resize it"
        )
    updates, geometry, clusters = disk.updates, disk.image.geometry, disk.updates.map
    old, old_offset = clusters.l1[:], clusters.l1_offset
    new = _unmarked(read_entries(disk.file, snapshot.l1_offset, snapshot.l1_size))
    with updates.lock:
        used = array("Q", _referred(disk, new))
        _check_room(disk, used)
        count = max(1, geometry.clusters(len(new) * 8))
        offset = updates.counts.allocate_run(count) << geometry.cluster_bits
        updates.counts.add(used, 1)
    disk.file.write(offset, entry_bytes(new).ljust(count * geometry.cluster, b"\0"))
    updates.sync()
    with updates.lock:
        gone = array("Q", _referred(disk, old))
        first = old_offset >> geometry.cluster_bits
        gone.extend(range(first, first + geometry.clusters(len(old) * 8)))
        disk.use_l1(new, offset)
        updates.loosen(gone)
    updates.sync()
    _mark(disk)
    return snapshot


def delete_snapshot(disk: WritableQcow2, name: str) -> Snapshot:
    """Forget the snapshot, and free what only it has. Raises NotFound."""
    _check(disk)
    present, table_length = read_snapshot_table(disk.file, disk.image)
    snapshot = find_snapshot(present, name)
    l1 = read_entries(disk.file, snapshot.l1_offset, snapshot.l1_size)
    _put_table(disk, [each for each in present if each is not snapshot], table_length)
    updates, geometry = disk.updates, disk.image.geometry
    with updates.lock:
        first = snapshot.l1_offset >> geometry.cluster_bits
        updates.loosen(_referred(disk, l1))
        updates.loosen(range(first, first + geometry.clusters(snapshot.l1_size * 8)))
    updates.sync()
    _mark(disk)
    return snapshot


def _check(disk: WritableQcow2) -> None:
    if disk.image.data_file is not None:
        raise NotSupported("snapshot: the data of an image with an external data file cannot be kept")
    disk.flush()


def _check_room(disk: WritableQcow2, used: array[int]) -> None:
    most, counts = disk.image.geometry.max_refcount, disk.updates.counts
    times: dict[int, int] = {}
    for cluster in used:
        count = counts.get(cluster)
        if 2 * count > most:  # a state has it no more often than it is counted: few need to be looked at closely
            times[cluster] = more = times.get(cluster, 0) + 1
            if count + more > most:
                raise LimitExceeded(f"snapshot: refcounts of at most {most} cannot count one more state")


def _unmarked(l1: array[int]) -> array[int]:
    return array("Q", [entry & ~COPIED for entry in l1])


def _referred(disk: WritableQcow2, l1: array[int]) -> Iterator[int]:
    """Yield every cluster that a state's tables refer to, once for each time; the tables on the disk are current."""
    geometry, updates = disk.image.geometry, disk.updates
    width = 2 if geometry.extended else 1
    for entry in l1:
        table = entry & OFFSET_MASK
        if table:
            yield table >> geometry.cluster_bits
            for value in read_entries(disk.file, table, geometry.cluster // 8)[::width]:
                if value:
                    yield from updates.clusters_of(value)


def _share(disk: WritableQcow2) -> None:
    """Take the mark of being alone from every entry of the active state."""
    _remark(disk, lambda _: False)


def _mark(disk: WritableQcow2) -> None:
    """Make the marks of the active state say what refcounts do."""
    counts = disk.updates.counts
    _remark(disk, lambda cluster: counts.get(cluster) == 1)


def _remark(disk: WritableQcow2, alone: Callable[[int], bool]) -> None:
    updates, geometry, clusters = disk.updates, disk.image.geometry, disk.updates.map
    width, bits = (2 if geometry.extended else 1), geometry.cluster_bits
    for index in range(len(clusters.l1)):
        with updates.lock:
            offset = clusters.table_offset(index)
            if not offset:
                continue
            table = clusters.table(index)
            assert table is not None, "it has an offset"
            own = alone(offset >> bits)
            changed = bool(clusters.l1[index] & COPIED) != own
            for slot in range(0, len(table), width):
                value = table[slot]
                if not value & OFFSET_MASK or value & COMPRESSED:
                    continue
                marked = value | COPIED if alone((value & OFFSET_MASK) >> bits) else value & ~COPIED
                if marked != value:
                    clusters.hold(index, table)
                    table[slot] = marked
                    clusters.changed(index, slot, slot + 1)
            if changed:
                clusters.hold(index, table)
                clusters.l1[index] = offset | (COPIED if own else 0)
                clusters.dirty_l1.add(index)
        disk.bound()
    updates.sync()


def _put_table(disk: WritableQcow2, snapshots: list[Snapshot], old_length: int) -> None:
    """Write the table of snapshots anew and make the header refer to it; the old one is free then."""
    updates, geometry = disk.updates, disk.image.geometry
    data = b"".join(each.pack() for each in snapshots)
    old = disk.image.record.snapshots_offset
    offset = 0
    if data:
        count = geometry.clusters(len(data))
        with updates.lock:
            offset = updates.counts.allocate_run(count) << geometry.cluster_bits
        disk.file.write(offset, data.ljust(count * geometry.cluster, b"\0"))
    updates.sync()
    disk.put_header(nb_snapshots=len(snapshots), snapshots_offset=offset)
    with updates.lock:
        first = old >> geometry.cluster_bits
        updates.loosen(range(first, first + geometry.clusters(old_length)))
    updates.sync()
