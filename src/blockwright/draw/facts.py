"""What a picture says in words: the same lines for every drawing of it.

Knows: sentences. Refuses to know: how any drawing sets them.
"""

from __future__ import annotations

from typing import Final

from blockwright.draw.picture import Kind, Part, Picture
from blockwright.draw.strip import LETTERS, scale_of, usage
from blockwright.units import format_size


def headline(picture: Picture) -> str:
    """Return what it is a picture of."""
    return f"The disk {picture.source}"


def summary(picture: Picture) -> str:
    """Return the disk in one line: its size, how much of it is stored, its table, its format."""
    share = picture.allocated / picture.size if picture.size else 0
    told = [f"{format_size(picture.size)}", f"{format_size(picture.allocated)} stored ({share:.0%})", picture.table]
    if picture.sector_size:
        told.append(f"{picture.sector_size}-byte sectors")
    if picture.format:
        told.append(picture.format)
    return ", ".join(told)


def legend(picture: Picture) -> list[tuple[str, str]]:
    """Return what stands for what: names of styles, and words; no style for a remark."""
    bins = [each for part in picture.parts for each in part.bins]
    told = []
    if any(part.file_system for part in picture.parts):
        told += [("used", "in use"), ("bar", "free in a file system")]
    told += [("data", "data")]
    told += [("zero", "stored zeros")] if any(each.zero for each in bins) else []
    told += [("holes", "holes, which take no room")] if any(each.hole for each in bins) else []
    told += [("unknown", "not looked at")] if any(each.unknown for each in bins) else []
    told += [("part-table", "partition table")] if any(part.kind is Kind.TABLE for part in picture.parts) else []
    told += [("part-free", "no partition")] if any(part.kind is Kind.FREE for part in picture.parts) else []
    told += [("boot", "takes part in the start")] if picture.boot else []
    if not scale_of(picture).exact:
        told.append(("", "Narrow parts are drawn wider than they are."))
    return told


def boot_lines(picture: Picture) -> list[tuple[str, str]]:
    """Return what takes part in the start, by the letters of the drawing."""
    return [
        (letter, f"{boot.what}: {format_size(boot.size)} at byte {boot.start}")
        for boot, letter in zip(picture.boot, LETTERS, strict=False)
    ]


NUMBERS: Final = range(1, 4)
"""Which columns of the table of partitions are numbers, which stand under one another by their ends."""


def columns(picture: Picture) -> tuple[list[str], list[list[str]]]:
    """Return the table of partitions: the names of its columns, and its rows."""
    names = ["", "start", "size", "stored", "type", "holds", "label", "in use"]
    rows = [_row(part) for part in picture.parts if part.kind in (Kind.PARTITION, Kind.WHOLE)]
    return names, rows


def _row(part: Part) -> list[str]:
    system = part.file_system
    kind = system.kind if system else part.foreign or ("unreadable" if part.problem else "-")
    return [
        str(part.number or "-"),
        str(part.start),
        format_size(part.size),
        format_size(part.allocated),
        part.type or "-",
        kind,
        (system.label if system else "") or part.name or "-",
        usage(part) or "-",
    ]


def findings_summary(picture: Picture) -> str:
    """Return what a check found, in one sentence."""
    if picture.findings is None:
        return "Nothing was checked."
    looked = ", ".join(picture.checked) or "nothing that is known"
    count = len(picture.findings) + picture.more_findings
    if not count:
        return f"No damage found; looked at {looked}."
    return f"{count} broken rule{'s' if count != 1 else ''} found; looked at {looked}."
