"""Verify all that an image holds: its table, and every file system in it.

Knows: which verifier fits what is found. Refuses to know: any rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from blockwright.device.base import BlockDevice
from blockwright.device.window import Window
from blockwright.errors import FormatError, NotThisFormat
from blockwright.finding import Finding
from blockwright.fs.ext4.check import check as check_ext4
from blockwright.fs.fat.check import check as check_fat
from blockwright.resolve import Known, identify, naming, sector_size_of
from blockwright.table import read as tables
from blockwright.table.check import check as check_table
from blockwright.table.partition import AnyPartition


@dataclass(frozen=True, slots=True)
class Place:
    """Something that was checked: its name (``disk.img:1``), what it is, its findings.

    ``start`` is the byte of the checked device where it begins; findings count from there.
    """

    name: str
    kind: str
    start: int
    findings: tuple[Finding, ...]


def check(device: BlockDevice, *, source: str) -> Iterator[Place]:
    """Yield each thing on ``device`` that can be verified, verified. The device stays open and unchanged.

    What cannot be read at all is a finding too (``unreadable``), and what a table that holds in no copy would say
    of partitions is not asked. Raises NotThisFormat where nothing known is there.
    """
    content = identify(device)
    if content not in (Known.GPT, Known.MBR):
        place = _check_file_system(device, source, 0)
        if place is None:
            raise NotThisFormat("expected a partition table or a file system, found neither", source=source)
        yield place
        return
    with naming(source):
        findings = check_table(device, sector_size=sector_size_of(device))
    try:
        table = tables.read(device, sector_size=sector_size_of(device))
    except FormatError as error:
        yield Place(source, content.value, 0, tuple(findings) or (_unreadable(error),))
        return
    yield Place(source, table.kind, 0, tuple(findings))
    partitions: Sequence[AnyPartition] = table.partitions
    for partition in sorted(partitions, key=lambda each: each.start):
        with Window(device, partition.start, partition.size, owns=False) as window:
            place = _check_file_system(window, f"{source}:{partition.number}", partition.start)
        if place is not None:
            yield place


def _check_file_system(device: BlockDevice, name: str, start: int) -> Place | None:
    kind: str
    verify: Callable[[BlockDevice], Iterable[Finding]]
    content = identify(device)
    if content is Known.EXT4:
        kind, verify = "ext4", check_ext4
    elif content is Known.FAT:
        kind, verify = "fat", check_fat
    else:
        return None
    try:
        return Place(name, kind, start, tuple(verify(device)))
    except FormatError as error:
        return Place(name, kind, start, (_unreadable(error),))


def _unreadable(error: FormatError) -> Finding:
    return Finding("unreadable", str(error.args[0]), error.offset)
