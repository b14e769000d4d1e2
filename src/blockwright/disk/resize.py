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
from blockwright.errors import UsageError
from blockwright.fs.resize import ResizeReport
from blockwright.resolve import Known, identify, naming
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

    ``number`` says which partition is taken to be the last one, which it must be. Its ext4 or FAT grows with it,
    unless ``table_only``. A smaller size cuts off nothing but free room. Raises NoSpace where a partition lies in
    what would be cut off; UsageError for a FAT that would be of another type, and for another size of a device or
    VMDK, which have one only; and then nothing was changed. What growing the file system raises leaves it as it was.
    """
    device, table = disk.device, disk.table()
    old = device.size
    wanted = old if size is None else size
    if wanted % table.sector_size or wanted <= 0:
        raise UsageError(f"{disk.name}: expected a multiple of {table.sector_size} bytes, found {wanted}")
    if wanted != old and not isinstance(device, ResizableDevice):
        raise UsageError(f"{disk.name}: expected its own size of {old} bytes, which cannot change, found {wanted}")
    if wanted < old:
        _shrink(disk, table, wanted)
        return Resized(old, wanted)
    last = _last(table, number)
    steps = _grown(table, wanted, None if last is None else last.number)
    content = None if last is None or table_only else _content(device, last, disk.name, steps[-1])
    if wanted > old:
        assert isinstance(device, ResizableDevice), "looked at above"
        device.resize(wanted)
    for made in steps:
        if made != table:
            disk.write(made)
        table = made
    if last is None:
        return Resized(old, wanted)
    grown: AnyPartition = table.partition(last.number)
    report = None
    if content in (Known.EXT4, Known.FAT):
        with Window(device, grown.start, grown.size, owns=False) as window:
            report = _grow(window, content, part_name(disk.name, grown.number))
            window.flush()
    return Resized(old, wanted, grown.number, grown.size, report)


def _grow(window: Window, content: Known | None, name: str) -> ResizeReport:
    """Have the file system fill its partition."""
    if content is Known.FAT:
        from blockwright.fs.fat import resize as fat

        with naming(name):
            return fat.resize(window)
    from blockwright.fs.ext4.resize import resize as resize_ext4

    return resize_ext4(window, None, source=name)


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


def _content(device: BlockDevice, part: AnyPartition, name: str, table: AnyTable) -> Known | None:
    """Return what the partition holds. Raises UsageError for a FAT that cannot be as large as it is in ``table``."""
    with Window(device, part.start, part.size, owns=False) as window:
        found = identify(window)
        if found is Known.FAT:
            from blockwright.fs.fat.resize import check_size

            with naming(part_name(name, part.number)):
                check_size(window, table.partition(part.number).size)
    return found


def _grown(table: AnyTable, size: int, number: int | None) -> list[AnyTable]:
    """Return the tables, one behind the other, by which a disk of ``size`` bytes gets its partition up to the end."""
    made = edit.fit(table, size)
    steps: list[AnyTable] = []
    if isinstance(made, MbrTable) and number is not None and made.partition(number).is_logical:
        outer = made.extended[0]
        made = mbr.resize(made, outer.number, _room(made, outer))
        steps.append(made)
    if number is not None:
        made = edit.resize(made, number, _room(made, made.partition(number)))
    return [*steps, made]


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
