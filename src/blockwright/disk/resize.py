"""A disk made larger with its last partition and the file system in it; or smaller, where its end is free.

Each step leaves a disk that is whole, and finds out by itself whether it is done already. So whatever ended the work
between two of them, the same call finishes it.

Knows: the order of the steps. Refuses to know: how a table or a file system stores its size.
"""

from __future__ import annotations

from dataclasses import dataclass

from blockwright.address import part_name
from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.window import Window
from blockwright.disk.edit import DiskEditor
from blockwright.errors import Unsupported, UsageError
from blockwright.fs.resize import ResizeReport
from blockwright.resolve import Known, identify
from blockwright.table import edit
from blockwright.table.gpt import change as gpt
from blockwright.table.mbr import change as mbr
from blockwright.table.partition import AnyPartition, AnyTable, Extended, MbrTable
from blockwright.table.plan import ALIGNMENT
from blockwright.units import align_down


@dataclass(frozen=True, slots=True)
class Resized:
    """What a disk was made: sizes in bytes before and after, and what became of its partition ``number``.

    ``number`` is None where no partition was to grow; ``file_system`` is None where there is none to grow with it.
    """

    old_size: int
    size: int
    number: int | None = None
    partition_size: int = 0
    file_system: ResizeReport | None = None


def resize(disk: DiskEditor, size: int | None, *, number: int | None = None, table_only: bool = False) -> Resized:
    """Give the disk ``size`` bytes, None for those it has; what is behind its last partition then is that one's.

    ``number`` says which partition is taken to be the last one, which it must be. Its ext4 grows with it, unless
    ``table_only``. A smaller size cuts off nothing but free room. Raises NoSpace where a partition lies in what would
    be cut off; Unsupported for a file system that cannot grow; UsageError for a device of another size that has one
    only; and then nothing was changed. What growing the file system raises leaves it as it was.
    """
    device, table = disk.device, disk.table()
    old = device.size
    wanted = old if size is None else size
    if wanted % table.sector_size or wanted <= 0:
        raise UsageError(f"{disk.name}: expected a multiple of {table.sector_size} bytes, found {wanted}")
    if wanted != old and not isinstance(device, ResizableDevice):
        raise UsageError(f"{disk.name}: expected its own size of {old} bytes, since only files get another: {wanted}")
    if wanted < old:
        _shrink(disk, table, wanted)
        return Resized(old, wanted)
    last = _last(table, number)
    content = None if last is None or table_only else _content(device, last, disk.name)
    if wanted > old:
        assert isinstance(device, ResizableDevice), "looked at above"
        device.resize(wanted)
    table = _grow_table(disk, table, None if last is None else last.number)
    if last is None:
        return Resized(old, wanted)
    grown: AnyPartition = table.partition(last.number)
    report = None
    if content is Known.EXT4:
        from blockwright.fs.ext4.resize import resize as resize_ext4

        with Window(device, grown.start, grown.size, owns=False) as window:
            report = resize_ext4(window, None, source=part_name(disk.name, grown.number))
            window.flush()
    return Resized(old, wanted, grown.number, grown.size, report)


def _shrink(disk: DiskEditor, table: AnyTable, size: int) -> None:
    """Put the table's end where the disk's will be, and cut off what lies behind."""
    device = disk.device
    assert isinstance(device, ResizableDevice), "looked at before"
    made = edit.fit(table, size)
    with Window(device, 0, size, owns=False) as window:
        edit.write(window, made)
    device.resize(size)


def _last(table: AnyTable, number: int | None) -> AnyPartition | None:
    """Return the partition that ends last. Raises UsageError where another is asked for; NotFound."""
    partitions: list[AnyPartition] = list(table.partitions)
    last = max(partitions, key=lambda each: each.end, default=None)
    asked = None if number is None else table.partition(number)
    if asked is not None and last is not None and asked.number != last.number:
        raise UsageError(
            f"partition {asked.number}: expected the last one on the disk, found {last.number} behind it"
        )
    return last


def _content(device: BlockDevice, part: AnyPartition, name: str) -> Known | None:
    """Return what the partition holds. Raises Unsupported for a file system that cannot grow."""
    with Window(device, part.start, part.size, owns=False) as window:
        found = identify(window)
    if found is Known.FAT:
        raise Unsupported(
            "holds a FAT file system, which stays as large as it is: --table-only enlarges the partition alone",
            source=part_name(name, part.number),
        )
    return found


def _grow_table(disk: DiskEditor, table: AnyTable, number: int | None) -> AnyTable:
    """Have the table of a disk that may have grown, and the partition up to the disk's end; return it."""
    made = edit.fit(table, disk.device.size)
    if isinstance(made, MbrTable) and number is not None and made.partition(number).is_logical:
        outer = made.extended[0]
        made = table = _written(disk, table, mbr.resize(made, outer.number, _room(made, outer)))
    if number is not None:
        made = edit.resize(made, number, _room(made, made.partition(number)))
    return _written(disk, table, made)


def _written(disk: DiskEditor, before: AnyTable, after: AnyTable) -> AnyTable:
    if after != before:
        disk.write(after)
    return after


def _room(table: AnyTable, part: AnyPartition | Extended) -> int:
    """Return how large the partition can become; its end stays aligned where that leaves it no smaller."""
    if not isinstance(table, MbrTable):
        runs = gpt.room(table)
    elif part.number > 4:
        runs = mbr.logical_room(table)
    else:
        runs = mbr.primary_room(table)
    end = next((high for low, high in runs if low == part.end), part.end)
    return max(align_down(end, ALIGNMENT), part.end) - part.start
