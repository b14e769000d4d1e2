"""Verify all that an image holds: its format, its table, and every file system in it.

Knows: which verifier fits what is found. Refuses to know: any rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from blockwright.address import parse_address, part_name
from blockwright.device.base import BlockDevice
from blockwright.device.window import Window
from blockwright.errors import Corrupt, FormatError, NotAllowed, NotThisFormat, Unsupported, UsageError
from blockwright.finding import Finding
from blockwright.format.open import Files, format_of, is_probed
from blockwright.format.policy import REFUSE, Policy
from blockwright.format.registry import find_format
from blockwright.fs import foreign
from blockwright.fs.ext4.check import check as check_ext4
from blockwright.fs.fat.check import check as check_fat
from blockwright.resolve import Known, identify, naming, open_device, refuse_container, sector_size_of
from blockwright.table import read as tables
from blockwright.table.check import check as check_table
from blockwright.table.partition import AnyPartition

MAX_FINDINGS: Final = 100_000
"""Findings that are kept of one image, beside one of each place: a table may lead to 32,768 file systems."""


@dataclass(frozen=True, slots=True)
class Place:
    """Something that was checked: its name (``disk.img:1``), what it is, its findings.

    ``start`` is the byte of the checked device where it begins; findings count from there. ``unchecked`` says why
    it could not be looked at, where that is no damage. ``more`` is how many findings are left out: those past
    MAX_FINDINGS of the image; there is always one where anything is wrong.
    """

    name: str
    kind: str
    start: int
    findings: tuple[Finding, ...]
    unchecked: str | None = None
    more: int = 0


def check_image(
    text: str,
    *,
    partition: int | None = None,
    force_unlocked: bool = False,
    form: str | None = None,
    policy: Policy = REFUSE,
) -> Iterator[Place]:
    """Yield what can be verified of the image that ``text`` names: its format, where that is not raw, then its disk.

    A disk that cannot be had is left out where its format is damaged, and unchecked where its backing file may not be
    opened; one of which the format does not give all that had to be read is ``unreadable``. Raises as ``check`` and
    ``open_device`` do.
    """
    yield from _capped(_check_image(text, partition, force_unlocked=force_unlocked, form=form, policy=policy))


def _check_image(
    text: str, partition: int | None, *, force_unlocked: bool, form: str | None, policy: Policy
) -> Iterator[Place]:
    address = parse_address(text, partition=partition)
    refuse_container(text, address)
    found = None
    if address.scheme == "file":
        with open_device(f"file:{address.rest}", form="raw", force_unlocked=force_unlocked) as file:
            found = _check_format(file, form, Files(address.rest, policy))
    if found is not None:
        yield found
    try:
        device = open_device(text, partition=partition, force_unlocked=force_unlocked, form=form, policy=policy)
    except NotAllowed as refusal:
        if found is None:
            raise
        yield Place(text, "disk", 0, (), unchecked=str(refusal))
        return
    except FormatError:
        if found is None or not found.findings:
            raise
        return
    with device:
        try:
            yield from _check(device, text)
        except NotThisFormat:
            if found is None or address.is_part:
                raise
        except Corrupt as error:
            if found is None:
                raise
            yield Place(text, "disk", 0, (_unreadable(error),))


def _format(file: BlockDevice, form: str | None) -> str:
    return form or (format_of(file) if is_probed(file) else "raw")


def _check_format(file: BlockDevice, form: str | None, files: Files) -> Place | None:
    """Return the image's own structures, verified; None where its format has none, or is not read."""
    kind, name = find_format(_format(file, form)), files.path or ""
    if kind is None:
        return None
    try:
        found = kind.load().check(file, files)
        return None if found is None else Place(name, kind.name, 0, tuple(islice(found, MAX_FINDINGS)))
    except (Unsupported, NotAllowed) as error:
        if isinstance(error, FormatError):
            error.source = error.source or name
        raise
    except FormatError as error:
        return Place(name, kind.name, 0, (_unreadable(error),))


def repair(text: str, *, form: str | None = None, force_unlocked: bool = False) -> bool:
    """Mend what the format of the image in the file that ``text`` names lets be mended, and return whether any was.

    Raises UsageError for a format that has nothing to mend, Corrupt where more is wrong, with nothing changed.
    """
    address = parse_address(text)
    refuse_container(text, address)
    address.check_writable()
    if address.scheme != "file" or address.is_part:
        raise UsageError(f"{text}: expected a file whose image is to be repaired")
    with open_device(f"file:{address.rest}", form="raw", writable=True, force_unlocked=force_unlocked) as file:
        kind = find_format(_format(file, form))
        if kind is None:
            raise UsageError(f"{text}: expected an image of a format that is read, found {format_of(file)}")
        with naming(text):
            return kind.load().repair(file)


def check(device: BlockDevice, *, source: str) -> Iterator[Place]:
    """Yield each thing on ``device`` that can be verified, verified. The device stays open and unchanged.

    What cannot be read at all is a finding too (``unreadable``), and what a table that holds in no copy would say
    of partitions is not asked. Raises NotThisFormat where nothing known is there.
    """
    yield from _capped(_check(device, source))


def _capped(places: Iterable[Place]) -> Iterator[Place]:
    left = MAX_FINDINGS
    for place in places:
        kept = place.findings[: max(left, 1)]
        left = max(0, left - len(kept))
        yield replace(place, findings=kept, more=len(place.findings) - len(kept))


def _check(device: BlockDevice, source: str) -> Iterator[Place]:
    content = identify(device)
    if content not in (Known.GPT, Known.MBR):
        place = _check_file_system(device, source, 0)
        if place is None:
            other = foreign.identify(device)
            found = f"{other}, which is not read" if other else "neither"
            raise NotThisFormat(f"expected a partition table or a file system, found {found}", source=source)
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
            place = _check_file_system(window, part_name(source, partition.number), partition.start)
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
