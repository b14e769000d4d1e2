"""What an image holds: its table, its partitions and their file systems, as a value.

Knows: which questions to ask of what is found. Refuses to know: how answers are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from blockwright.address import part_name
from blockwright.device.base import BlockDevice
from blockwright.device.extent import HOLE
from blockwright.device.window import Window
from blockwright.errors import FormatError, NotThisFormat
from blockwright.finding import Finding
from blockwright.format.describe import Described, Description
from blockwright.fs import foreign
from blockwright.fs.reader import Usage
from blockwright.resolve import Known, identify, naming, open_file_system, sector_size_of
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

    Where ``file_system`` is None, ``problem`` says why something that was there could not be read, and ``foreign`` is
    the name of what is known by its marks and not read, such as ``xfs`` or ``luks``.
    """

    start: int
    size: int
    allocated: int
    partition: AnyPartition | None
    file_system: FileSystemReport | None
    problem: str = ""
    foreign: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """An image: its format, its size, how much of it is allocated, its table and its regions in ascending order."""

    source: str
    size: int
    allocated: int
    table: AnyTable | None
    regions: tuple[Region, ...]
    findings: tuple[Finding, ...] = field(default=())
    format: Description | None = None


def inspect(device: BlockDevice, *, source: str) -> Report:
    """Return what ``device`` holds; nothing of it is changed, and the device stays open.

    A partition that holds nothing known, or something broken, is told as such. Raises FormatError only where the
    table itself can be read from neither of its copies.
    """
    form = device.describe() if isinstance(device, Described) else None
    if identify(device) not in (Known.GPT, Known.MBR):
        with Window(device, 0, device.size, owns=False) as window:
            whole = _region(window, 0, None, source)
        return Report(source, device.size, whole.allocated, None, (whole,), format=form)
    with naming(source):
        table = tables.read(device, sector_size=sector_size_of(device))
    findings = tuple(check_table(device, sector_size=sector_size_of(device)))
    regions = []
    partitions: Sequence[AnyPartition] = table.partitions
    for partition in sorted(partitions, key=lambda each: each.start):
        with Window(device, partition.start, partition.size, owns=False) as window:
            regions.append(_region(window, partition.start, partition, part_name(source, partition.number)))
    return Report(source, device.size, _allocated(device), table, tuple(regions), findings, form)


def _region(device: BlockDevice, start: int, partition: AnyPartition | None, source: str) -> Region:
    """Return what ``device`` holds, which lies at byte ``start`` of the disk. A file system closes it with itself."""
    size, allocated = device.size, _allocated(device)
    system, problem, other = None, "", ""
    try:
        with open_file_system(device, source=source) as found:
            system = FileSystemReport(found.kind, found.label, found.uuid, found.usage(), found.features)
    except NotThisFormat:
        other = foreign.identify(device)
    except FormatError as error:
        problem = str(error)
    return Region(start, size, allocated, partition, system, problem, other)


def _allocated(device: BlockDevice) -> int:
    return sum(extent.length for extent in device.extents(0, device.size) if not extent.flags & HOLE)
