"""How commands show and read partitions of either kind of table.

Knows: the words. Refuses to know: what is done with a partition.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from blockwright.errors import UsageError
from blockwright.table.gpt import change as gpt
from blockwright.table.gpt.names import attribute_names, parse_attributes
from blockwright.table.gpt.names import type_name as gpt_type_name
from blockwright.table.mbr import change as mbr
from blockwright.table.mbr.names import type_name as mbr_type_name
from blockwright.table.partition import AnyPartition, AnyTable, Extended, MbrTable, Partition
from blockwright.units import format_size

HEAD = ("", "start", "size", "length", "type", "name", "flags", "identity")
ALIGN = "<>>><<<<"


def type_name(part: AnyPartition | Extended) -> str:
    """Return the partition's type as people write it."""
    return gpt_type_name(part.type_guid) if isinstance(part, Partition) else mbr_type_name(part.os_type)


def flag_names(part: AnyPartition | Extended) -> list[str]:
    """Return the names of the partition's attributes, or of its active flag."""
    if isinstance(part, Partition):
        return attribute_names(part.attributes)
    return ["active"] if not isinstance(part, Extended) and part.active else []


def partition_document(part: AnyPartition) -> dict[str, Any]:
    """Return what JSON documents say of a partition, beside its place."""
    document: dict[str, Any] = {"number": part.number, "type": type_name(part), "guid": part.identity}
    if isinstance(part, Partition):
        document |= {"type_guid": str(part.type_guid), "name": part.name}
        return document | {"attributes": attribute_names(part.attributes)}
    return document | {"os_type": part.os_type, "active": part.active}


def table_document(table: AnyTable) -> dict[str, Any]:
    """Return a table as a JSON document."""
    parts: list[AnyPartition] = list(table.partitions)
    return {
        "kind": table.kind,
        "guid": table.identity,
        "sector_size": table.sector_size,
        "size": table.size,
        "partitions": [{"start": each.start, "size": each.size, **partition_document(each)} for each in parts],
        "extended": [
            {"number": each.number, "start": each.start, "size": each.size, "os_type": each.os_type}
            for each in (table.extended if isinstance(table, MbrTable) else ())
        ],
        "free": [{"start": start, "size": end - start} for start, end in _free(table)],
    }


def table_rows(table: AnyTable) -> list[tuple[str, ...]]:
    """Return a row for each partition and each free run, by where they begin."""
    rows: list[tuple[int, tuple[str, ...]]] = []
    parts: list[AnyPartition | Extended] = [*table.partitions]
    if isinstance(table, MbrTable):
        parts += table.extended
    for each in parts:
        name = each.name if isinstance(each, Partition) else ""
        identity = "" if isinstance(each, Extended) else each.identity
        flags = ",".join(flag_names(each))
        place = (str(each.number), str(each.start), str(each.size), format_size(each.size))
        rows.append((each.start, (*place, type_name(each), name, flags, identity)))
    rows += [
        (start, ("-", str(start), str(end - start), format_size(end - start), "free", "", "", ""))
        for start, end in _free(table)
    ]
    return [row for _, row in sorted(rows)]


def _free(table: AnyTable) -> list[tuple[int, int]]:
    if isinstance(table, MbrTable):
        return sorted([*mbr.primary_room(table), *mbr.logical_room(table)])
    return gpt.room(table)


def parse_flags(text: str) -> int:
    """Return the attribute bits that names with commas between them set."""
    return parse_attributes([name.strip() for name in text.split(",") if name.strip()])


def parse_uuid(what: str, text: str) -> UUID:
    """Return a UUID. Raises UsageError."""
    try:
        return UUID(text)
    except ValueError:
        raise UsageError(f"{what}: expected a UUID, found {text[:64]!r}") from None


def parse_signature(text: str) -> int:
    """Return a disk signature of eight hexadecimal digits, with 0x or without. Raises UsageError."""
    digits = text.lower().removeprefix("0x")
    if not 1 <= len(digits) <= 8 or any(each not in "0123456789abcdef" for each in digits):
        raise UsageError(f"disk signature: expected up to eight hexadecimal digits, found {text[:64]!r}")
    return int(digits, 16)
