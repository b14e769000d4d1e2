"""Random edits of partition tables beside a model, which is a list of what should be there."""

import random
from dataclasses import dataclass
from uuid import UUID

from blockwright.device.base import BlockDevice
from blockwright.errors import NoSpace
from blockwright.table import edit
from blockwright.table import read as tables
from blockwright.table.gaps import Wish
from blockwright.table.gpt import change as gpt
from blockwright.table.gpt.names import TYPES
from blockwright.table.mbr import change as mbr
from blockwright.table.partition import AnyTable, MbrTable
from blockwright.units import KiB

MBR_TYPES = (0x07, 0x0C, 0x82, 0x83, 0x8E, 0xEF)
GPT_TYPES = ("esp", "linux-generic", "swap", "root-x86-64", "lvm")


@dataclass
class Row:
    """What a partition should be. ``kind`` is its type; ``flags`` the attributes, or 0x80 for active."""

    number: int
    start: int
    size: int
    kind: UUID | int
    flags: int = 0
    name: str = ""


def rows_of(table: AnyTable) -> list[Row]:
    """What a table says, in the model's words."""
    if isinstance(table, MbrTable):
        return [
            Row(each.number, each.start, each.size, each.os_type, 0x80 if each.active else 0)
            for each in table.partitions
        ]
    return [
        Row(each.number, each.start, each.size, each.type_guid, each.attributes, each.name)
        for each in table.partitions
    ]


def wish(source: random.Random, sector: int, room: int) -> Wish:
    """A size that may fit, with a start of its own or an odd alignment now and then."""
    alignment = source.choice([1 << 20, 64 * KiB, sector])
    size = source.choice([None, *[source.randrange(1, max(2, room // sector // 3)) * sector for _ in range(4)]])
    start = source.randrange(room // sector) * sector if source.random() < 0.2 else None
    return Wish(size, start, alignment)


def edit_once(device: BlockDevice, model: list[Row], source: random.Random, *, sector_size: int | None = None) -> str:
    """Make one random change of the device's table and of the model alike; return what it was.

    A change that does not fit leaves both.
    """
    table = tables.read(device, sector_size=sector_size)
    before = rows_of(table)
    assert before == model
    try:
        changed, words = (_edit_mbr if isinstance(table, MbrTable) else _edit_gpt)(table, model, source)
    except NoSpace as error:
        return f"no room: {error}"
    edit.write(device, changed)
    return words


def _edit_gpt(table, model, source):
    action = source.choice(["add", "add", "add", "rm", "set", "resize", "only"])
    if action == "add" or not model:
        kind = TYPES[source.choice(GPT_TYPES)]
        name, flags = source.choice(["", "data", "ä€𝄞"]), source.choice([0, 4, 1 << 63])
        guid = UUID(int=1 + max((each.guid.int for each in table.partitions), default=0))
        made, number = gpt.add(
            table, kind, wish(source, table.sector_size, table.size), guid=guid, name=name, attributes=flags
        )
        return made, _added(model, made, number, kind, flags, name)
    row = source.choice(model)
    if action == "rm":
        model.remove(row)
        return gpt.remove(table, row.number), f"rm {row.number}"
    if action == "resize":
        return _resized(gpt.resize, gpt.room(table), table, row, source)
    if action == "only":
        for each in model:
            each.flags = each.flags & ~4 | (4 if each is row else 0)
        return gpt.only_legacy_boot(table, row.number), f"only {row.number}"
    row.kind, row.flags, row.name = TYPES[source.choice(GPT_TYPES)], source.choice([0, 4]), "renamed"
    made = gpt.change(table, row.number, type_guid=row.kind, attributes=row.flags, name=row.name)
    return made, f"set {row.number}"


def _edit_mbr(table, model, source):
    action = source.choice(["add", "add", "add", "extended", "rm", "set", "active", "resize"])
    if action == "extended":
        if table.extended or len(table.primary) == 4:
            return table, "nothing"
        made, number = mbr.add(table, source.choice([0x05, 0x0F]), wish(source, table.sector_size, table.size))
        return made, f"add {number}, extended"
    if action == "add" or not model:
        if not table.extended and len(table.primary) == 4:
            return table, "nothing"
        kind, logical = source.choice(MBR_TYPES), bool(table.extended) and source.random() < 0.7
        asked = wish(source, table.sector_size, table.size)
        made, number = mbr.add(table, kind, asked, logical=logical)
        return made, _added(model, made, number, kind, 0, "")
    row = source.choice(model)
    if action == "rm":
        model.remove(row)
        for each in model:
            each.number -= each.number > row.number >= 5
        return mbr.remove(table, row.number), f"rm {row.number}"
    if action == "resize":
        runs = mbr.logical_room(table) if row.number >= 5 else mbr.primary_room(table)
        return _resized(mbr.resize, runs, table, row, source)
    if action == "active" and row.number < 5:
        for each in model:
            each.flags = 0x80 if each is row else each.flags if each.number >= 5 else 0
        return mbr.change(table, row.number, active=True), f"active {row.number}"
    row.kind = source.choice(MBR_TYPES)
    return mbr.change(table, row.number, os_type=row.kind), f"set {row.number}"


def _added(model, made, number, kind, flags, name):
    found = made.partition(number)
    row = Row(number, found.start, found.size, kind, flags, name)
    for each in model:
        apart = row.start + row.size <= each.start or each.start + each.size <= row.start
        assert apart, f"{row} lies on {each}"
    model.append(row)
    model.sort(key=lambda each: each.number)
    return f"add {number}: {found.size} bytes at {found.start}"


def _resized(resize, runs, table, row, source):
    limit = next((high for low, high in runs if low == row.start + row.size), row.start + row.size) - row.start
    size = source.choice([None, source.randrange(1, limit // table.sector_size + 1) * table.sector_size])
    made = resize(table, row.number, size)
    row.size = limit if size is None else size
    return made, f"resize {row.number} to {row.size}"
