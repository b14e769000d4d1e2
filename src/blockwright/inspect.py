"""What an image holds: its table, its partitions and their file systems, as a value.

Knows: which questions to ask of what is found. Refuses to know: how answers are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from blockwright.device.base import BlockDevice
from blockwright.device.extent import HOLE
from blockwright.device.window import Window
from blockwright.errors import FormatError, NotThisFormat
from blockwright.finding import Finding
from blockwright.fs.reader import Usage
from blockwright.resolve import Known, identify, naming, open_file_system, part_name, sector_size_of
from blockwright.table import read as tables
from blockwright.table.check import check as check_table
from blockwright.table.partition import AnyPartition, AnyTable


@dataclass(frozen=True, slots=True)
class FileSystemReport:
    """A file system: its short name, identities, how full it is, and the features it names."""

    kind: str
    label: str
    uuid: str
    usage: Usage
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Region:
    """A run of the device: a partition, or the whole device where there is no table. Bytes.

    ``problem`` says why ``file_system`` is None where something was there that could not be read.
    """

    start: int
    size: int
    allocated: int
    partition: AnyPartition | None
    file_system: FileSystemReport | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FormatReport:
    """What an image that is not raw says of itself: ``details`` by name, in the order in which to show them.

    ``file_size`` is the bytes of the file; ``snapshots`` and ``bitmaps`` are names.
    """

    name: str
    file_size: int
    details: tuple[tuple[str, str], ...]
    snapshots: tuple[str, ...] = ()
    bitmaps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """An image: its format, its size, how much of it is allocated, its table and its regions in ascending order."""

    source: str
    size: int
    allocated: int
    table: AnyTable | None
    regions: tuple[Region, ...]
    findings: tuple[Finding, ...] = field(default=())
    format: FormatReport | None = None


def inspect(device: BlockDevice, *, source: str) -> Report:
    """Return what ``device`` holds; nothing of it is changed, and the device stays open.

    A partition that holds nothing known, or something broken, is told as such. Raises FormatError only where the
    table itself can be read from neither of its copies.
    """
    form = _format(device)
    if identify(device) not in (Known.GPT, Known.MBR):
        allocated = _allocated(device, 0, device.size)
        return Report(source, device.size, allocated, None, (_whole(device, source),), format=form)
    with naming(source):
        table = tables.read(device, sector_size=sector_size_of(device))
    findings = tuple(check_table(device, sector_size=sector_size_of(device)))
    regions = []
    partitions: Sequence[AnyPartition] = table.partitions
    for partition in sorted(partitions, key=lambda each: each.start):
        with Window(device, partition.start, partition.size, owns=False) as window:
            found, problem = _file_system(window, part_name(source, partition.number))
        allocated = _allocated(device, partition.start, partition.size)
        regions.append(Region(partition.start, partition.size, allocated, partition, found, problem))
    return Report(source, device.size, _allocated(device, 0, device.size), table, tuple(regions), findings, form)


def _format(device: BlockDevice) -> FormatReport | None:
    """Return what the image says of itself; None for a raw one."""
    from blockwright.format.qcow2.device import Qcow2Device

    if not isinstance(device, Qcow2Device):
        return None
    from blockwright.format.qcow2.describe import describe

    told = describe(device)
    return FormatReport("qcow2", device.file.size, told.details, told.snapshots, told.bitmaps)


def _whole(device: BlockDevice, source: str) -> Region:
    with Window(device, 0, device.size, owns=False) as window:
        found, problem = _file_system(window, source)
    return Region(0, device.size, _allocated(device, 0, device.size), None, found, problem)


def _file_system(device: BlockDevice, source: str) -> tuple[FileSystemReport | None, str]:
    try:
        with open_file_system(device, source=source) as system:
            return FileSystemReport(system.kind, system.label, system.uuid, system.usage(), system.features), ""
    except NotThisFormat:
        return None, ""
    except FormatError as error:
        return None, str(error)


def _allocated(device: BlockDevice, start: int, size: int) -> int:
    return sum(extent.length for extent in device.extents(start, size) if not extent.flags & HOLE)
