"""Verify all that an image holds: its format, its table, and every file system in it.

Knows: which verifier fits what is found. Refuses to know: any rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from blockwright.device.base import BlockDevice
from blockwright.device.window import Window
from blockwright.errors import FormatError, NotAllowed, NotThisFormat, Unsupported, UsageError
from blockwright.finding import Finding
from blockwright.format.open import format_of, is_probed
from blockwright.format.policy import REFUSE, Policy
from blockwright.fs.ext4.check import check as check_ext4
from blockwright.fs.fat.check import check as check_fat
from blockwright.resolve import Known, identify, naming, open_device, parse_address, sector_size_of
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


def check_image(
    text: str,
    *,
    partition: int | None = None,
    force_unlocked: bool = False,
    form: str | None = None,
    policy: Policy = REFUSE,
) -> Iterator[Place]:
    """Yield what can be verified of the image that ``text`` names: its format, where that is not raw, then its disk.

    A disk that cannot be had, since its backing file may not be opened or its format is damaged, is left out. Raises
    as ``check`` and ``open_device`` do.
    """
    address = parse_address(text, partition=partition)
    found = None
    if address.scheme == "file":
        with open_device(f"file:{address.rest}", form="raw", force_unlocked=force_unlocked) as file:
            if (form or (format_of(file) if is_probed(file) else "raw")) == "qcow2":
                found = _check_qcow2(file, address.rest)
    if found is not None:
        yield found
    try:
        device = open_device(text, partition=partition, force_unlocked=force_unlocked, form=form, policy=policy)
    except NotAllowed:
        if found is None:
            raise
        return
    except FormatError:
        if found is None or not found.findings:
            raise
        return
    with device:
        try:
            yield from check(device, source=text)
        except NotThisFormat:
            if found is None or address.is_part:
                raise


def _check_qcow2(file: BlockDevice, name: str) -> Place:
    from blockwright.format.qcow2.check import check as check_qcow2

    try:
        return Place(name, "qcow2", 0, tuple(check_qcow2(file)))
    except Unsupported:
        raise
    except FormatError as error:
        return Place(name, "qcow2", 0, (_unreadable(error),))


def repair(text: str, *, form: str | None = None, force_unlocked: bool = False) -> bool:
    """Mend the refcounts of the qcow2 image in the file that ``text`` names, and return whether any was changed.

    Raises UsageError for another format, Corrupt where more than refcounts is wrong, with nothing changed.
    """
    from blockwright.format.qcow2.repair import repair as repair_qcow2

    address = parse_address(text)
    if address.scheme != "file" or address.is_part:
        raise UsageError(f"{text}: expected a file whose image is to be repaired")
    with open_device(f"file:{address.rest}", form="raw", writable=True, force_unlocked=force_unlocked) as file:
        kind = form or (format_of(file) if is_probed(file) else "raw")
        if kind != "qcow2":
            raise UsageError(f"{text}: expected an image of the format qcow2 to repair, found {kind}")
        with naming(text):
            return repair_qcow2(file)


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
