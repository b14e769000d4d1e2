"""``blockwright disk add``, ``rm`` and ``set``: single partitions of a table."""

from __future__ import annotations

from typing import Any

import click

from blockwright.address import part_name
from blockwright.cli.disk_options import Opener, opening_options, seed_option
from blockwright.cli.options import size_value
from blockwright.cli.output import print_json, print_path
from blockwright.cli.params import json_option
from blockwright.cli.partitions import parse_flags, parse_signature, parse_uuid, partition_document
from blockwright.codec.identity import derive_uuid
from blockwright.disk.edit import DiskEditor, split_target
from blockwright.errors import UsageError
from blockwright.table import edit
from blockwright.table.gaps import Wish
from blockwright.table.gpt import change as gpt
from blockwright.table.gpt.names import parse_type as parse_gpt_type
from blockwright.table.mbr import change as mbr
from blockwright.table.mbr.names import parse_type as parse_mbr_type
from blockwright.table.partition import AnyTable, MbrTable, PartitionTable
from blockwright.units import MiB, parse_new_size


def _room_value(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """Return bytes, None for ``rest``."""
    return None if value in (None, "rest") else parse_new_size(str(value))


@click.command()
@click.argument("image")
@click.option("--number", type=click.IntRange(min=1), metavar="N", help="Its number.  [default: the first free one]")
@click.option("--start", callback=size_value, metavar="SIZE", help="Where it begins.  [default: where it fits]")
@click.option(
    "--size",
    callback=_room_value,
    default="rest",
    show_default=True,
    metavar="SIZE|rest",
    help="Its size; the rest is the largest free run.",
)
@click.option("--type", "kind", default="linux", show_default=True, help="A name, a GUID, or 0xNN in an MBR.")
@click.option("--name", help="Its name in a GPT, at most 36 characters.")
@click.option("--guid", help="Its GUID in a GPT, which Linux has as PARTUUID.  [default: from --seed]")
@click.option("--attributes", metavar="NAME,…", help="Its attributes in a GPT, such as growfs,no-auto.")
@click.option("--bootable", is_flag=True, help="Have a BIOS start it and no other: active, or legacy-boot in a GPT.")
@click.option("--logical", is_flag=True, help="In an MBR: within the extended partition.")
@click.option(
    "--align", callback=size_value, default="1M", show_default=True, metavar="SIZE", help="What it begins at."
)
@seed_option
@opening_options
@json_option
def add(
    *,
    image: str,
    number: int | None,
    bootable: bool,
    opener: Opener,
    as_json: bool,
    **options: Any,
) -> None:
    """Add a partition to IMAGE and print its address, such as disk.img:1.

    It begins at a multiple of 1 MiB in free room, overlaps nothing, and what its room held is not touched.
    """
    with opener(image) as disk:
        found = disk.table()
        wish = Wish(options["size"], options["start"], options["align"] or MiB)
        made, chosen = (
            _add_mbr(found, wish, number, options)
            if isinstance(found, MbrTable)
            else _add_gpt(found, wish, number, options)
        )
        if bootable:
            made = edit.only_bootable(made, chosen)
        disk.write(made)
    address = part_name(image, chosen)
    if not as_json:
        print_path(address)
        return
    extended = made.extended if isinstance(made, MbrTable) else ()
    outer = next((each for each in extended if each.number == chosen), None)
    part = outer or made.partition(chosen)
    document = {"number": chosen} if outer else partition_document(made.partition(chosen))
    print_json("blockwright.disk.add/1", {"address": address, "start": part.start, "size": part.size, **document})


def _add_gpt(table: PartitionTable, wish: Wish, number: int | None, options: dict[str, Any]) -> tuple[AnyTable, int]:
    if options["logical"]:
        raise UsageError("partition: a GPT has no logical ones")
    chosen = number or gpt.free_number(table)
    guid = options["guid"]
    return gpt.add(
        table,
        parse_gpt_type(options["kind"]),
        wish,
        number=chosen,
        guid=parse_uuid("GUID", guid) if guid else derive_uuid(options["seed"], f"gpt.partition.{chosen}"),
        name=options["name"] or "",
        attributes=parse_flags(options["attributes"] or ""),
    )


def _add_mbr(table: MbrTable, wish: Wish, number: int | None, options: dict[str, Any]) -> tuple[AnyTable, int]:
    _refuse_gpt_only(options)
    return mbr.add(table, parse_mbr_type(options["kind"]), wish, number=number, logical=options["logical"])


def _refuse_gpt_only(options: dict[str, Any]) -> None:
    for name in ("name", "guid", "attributes"):
        if options[name] is not None:
            raise UsageError(f"partition: an MBR has no place for its {name}")


@click.command()
@click.argument("image")
@click.argument("number", type=int, required=False)
@opening_options
def rm(*, image: str, number: int | None, opener: Opener) -> None:
    """Remove partition NUMBER of IMAGE from the table; what it held is not touched.

    In an MBR the logical partitions behind it get the numbers before theirs.
    """
    whole, chosen = split_target(image, number)
    if chosen is None:
        raise UsageError(f"{image}: expected the number of a partition")
    with opener(whole) as disk:
        disk.write(edit.remove(disk.table(), chosen))


@click.command("set")
@click.argument("image")
@click.argument("number", type=int, required=False)
@click.option("--type", "kind", help="A name, a GUID, or 0xNN in an MBR.")
@click.option("--name", help="Its name in a GPT.")
@click.option("--guid", help="Its GUID in a GPT.")
@click.option("--attributes", metavar="NAME,…", help="Its attributes in a GPT; those not named are cleared.")
@click.option("--bootable", type=click.Choice(["on", "off"]), help="Whether a BIOS starts it, and then no other.")
@click.option(
    "--size", metavar="SIZE|rest", help="Its size, up to what lies behind it. What it holds is not touched."
)
@click.option("--force", is_flag=True, help="Cut a partition below the file system in it.")
@click.option("--disk-guid", help="The GUID of the disk.")
@click.option("--signature", help="The signature of the disk, eight hexadecimal digits.")
@opening_options
def set_(
    *,
    image: str,
    number: int | None,
    opener: Opener,
    force: bool,
    **options: Any,
) -> None:
    """Change partition NUMBER of IMAGE, or the identity of the disk."""
    whole, chosen = split_target(image, number)
    given = [name for name, value in options.items() if value is not None]
    if not given:
        raise UsageError("set: expected something to change")
    if chosen is None and not set(given) <= {"disk_guid", "signature"}:
        raise UsageError(f"{image}: expected the number of a partition")
    with opener(whole) as disk:
        before = disk.table()
        after = _changed(before, chosen, options)
        if chosen is not None and options["size"] is not None and not force:
            _check_room(disk, before, after, chosen)
        disk.write(after)


def _check_room(disk: DiskEditor, before: AnyTable, after: AnyTable, number: int) -> None:
    """Raise UsageError where a partition is cut below the file system in it."""
    if isinstance(before, MbrTable) and any(each.number == number for each in before.extended):
        return
    part, size = before.partition(number), after.partition(number).size
    if size < part.size:
        disk.require_room(part, size)


def _changed(table: AnyTable, number: int | None, options: dict[str, Any]) -> AnyTable:
    table = _with_identity(table, options)
    if number is None:
        return table
    bootable, size = options["bootable"], options["size"]
    if isinstance(table, MbrTable):
        _refuse_gpt_only(options)
        kind = options["kind"]
        active = None if bootable is None else bootable == "on"
        table = mbr.change(table, number, os_type=parse_mbr_type(kind) if kind else None, active=active)
    else:
        table = _changed_gpt(table, number, bootable, options)
    if size is not None:
        table = edit.resize(table, number, None if size == "rest" else parse_new_size(size))
    return table


def _changed_gpt(table: PartitionTable, number: int, bootable: str | None, options: dict[str, Any]) -> PartitionTable:
    kind, guid, attributes = options["kind"], options["guid"], options["attributes"]
    flags = table.partition(number).attributes if attributes is None else parse_flags(attributes)
    if bootable == "off":
        flags &= ~gpt.LEGACY_BOOT
    changed = gpt.change(
        table,
        number,
        type_guid=parse_gpt_type(kind) if kind else None,
        guid=parse_uuid("GUID", guid) if guid else None,
        name=options["name"],
        attributes=flags,
    )
    return gpt.only_legacy_boot(changed, number) if bootable == "on" else changed


def _with_identity(table: AnyTable, options: dict[str, Any]) -> AnyTable:
    guid, signature = options["disk_guid"], options["signature"]
    if isinstance(table, MbrTable):
        if guid is not None:
            raise UsageError("disk: an MBR has no GUID, but a --signature")
        return table if signature is None else edit.with_signature(table, parse_signature(signature))
    if signature is not None:
        raise UsageError("disk: a GPT has no signature, but a --disk-guid")
    return table if guid is None else edit.with_disk_guid(table, parse_uuid("disk GUID", guid))
