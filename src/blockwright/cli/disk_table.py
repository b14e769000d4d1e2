"""``blockwright disk create``, ``table``, ``hybrid``, ``move-backup``, ``boot-code``: a disk's table as a whole."""

from __future__ import annotations

import sys
from typing import Any

import click

from blockwright.cli.disk_options import Opener, opening_options, sector_size_option, seed_option
from blockwright.cli.options import OrPlugin, allow_backing_option, check_new_file, force_option, some_size_value
from blockwright.cli.output import print_json, print_lines, print_path, show_text
from blockwright.cli.output import table as aligned
from blockwright.cli.params import json_option
from blockwright.cli.partitions import ALIGN, HEAD, parse_signature, parse_uuid, table_document, table_rows
from blockwright.device.spool import read_up_to
from blockwright.disk.backing import create_overlay
from blockwright.disk.create import KINDS, converted, empty_table
from blockwright.disk.create import create as create_image
from blockwright.disk.edit import DiskEditor
from blockwright.errors import UsageError
from blockwright.format.policy import Policy
from blockwright.format.registry import MADE, NAMES
from blockwright.plugin import FORMATS
from blockwright.resolve import naming
from blockwright.table import edit
from blockwright.table.gpt import edit as gpt
from blockwright.table.gpt.hybrid import Shown
from blockwright.table.mbr.layout import BOOT_CODE
from blockwright.table.mbr.names import parse_type
from blockwright.table.partition import AnyTable, PartitionTable
from blockwright.units import SECTOR, format_size


@click.command()
@click.argument("image")
@click.argument("size", callback=some_size_value, required=False)
@click.option("--backing", metavar="FILE", help="Stand on FILE, a path from IMAGE's folder on, and read as it does.")
@click.option("--backing-format", type=click.Choice(NAMES), help="Its format.  [default: what its first bytes say]")
@allow_backing_option
@click.option("--table", "kind", type=click.Choice(KINDS), help="Begin with an empty table of that kind.")
@click.option("--format", "form", type=OrPlugin(MADE, FORMATS), help="Format of IMAGE.  [default: by its suffix]")
@sector_size_option
@seed_option
@force_option
def create(
    *,
    image: str,
    size: int | None,
    sector_size: int | None,
    backing: str | None,
    backing_format: str | None,
    allow_backing: tuple[str, ...],
    **options: Any,
) -> None:
    """Make IMAGE a disk of SIZE bytes that read as zeros and take no room on the host.

    With --backing it is a qcow2 image that reads as FILE does and takes what is written; SIZE is FILE's by default.
    """
    check_new_file(image)
    if backing is not None:
        if options["kind"] is not None or options["form"] not in (None, "qcow2"):
            raise UsageError("--backing: is for qcow2 images, whose table is that of the backing file")
        policy = Policy(allow_backing)
        create_overlay(image, backing, form=backing_format, size=size, policy=policy, force=options["force"])
        print_path(image)
        return
    if backing_format is not None:
        raise UsageError("--backing-format: expected --backing FILE")
    if size is None:
        raise UsageError("size: expected one, such as 20G, or --backing FILE")
    create_image(image, size, sector_size=sector_size or SECTOR, **options)
    print_path(image)


@click.command()
@click.argument("image")
@click.argument("kind", type=click.Choice(KINDS), required=False)
@click.option("--convert", is_flag=True, help="Keep the partitions of the other kind of table.")
@click.option("--force", is_flag=True, help="Make an empty table where a table or a file system is.")
@click.option("--guid", help="The GUID of a disk with a new GPT.")
@click.option("--signature", help="The signature of a disk with a new MBR, eight hexadecimal digits.")
@seed_option
@opening_options
@json_option
def table(
    *,
    image: str,
    kind: str | None,
    opener: Opener,
    as_json: bool,
    **options: Any,
) -> None:
    """Show the partition table of IMAGE, with what is free; or make an empty one of KIND, or convert to it."""
    if kind is None and any(options[name] for name in ("convert", "force", "guid", "signature")):
        raise UsageError("table: expected the kind of table to make, gpt or mbr")
    with opener(image, writable=kind is not None) as disk:
        found = disk.table() if kind is None else _made(disk, kind, options)
    if as_json:
        print_json("blockwright.disk.table/1", {"image": image, **table_document(found)})
    elif kind is None:
        head = f"{image}: {format_size(found.size)}, {found.kind} {found.identity}, {found.sector_size}-byte sectors"
        print_lines([head, "", *aligned([HEAD, *table_rows(found)], ALIGN)])


def _made(disk: DiskEditor, kind: str, options: dict[str, Any]) -> AnyTable:
    signature = parse_signature(options["signature"]) if options["signature"] else 0
    if (options["guid"] and kind != "gpt") or (signature and kind != "mbr"):
        raise UsageError("table: a GPT has a --guid, and an MBR a --signature")
    if options["convert"]:
        present = disk.table()
        made = converted(present, kind, seed=options["seed"], signature=signature or edit.disk_signature(disk.device))
        _tell_losses(present, made)
    else:
        if not options["force"]:
            disk.require_blank()
        made = empty_table(
            kind, disk.device.size, seed=options["seed"], sector_size=disk.sector_size, signature=signature
        )
    if isinstance(made, PartitionTable) and options["guid"]:
        made = edit.with_disk_guid(made, parse_uuid("disk GUID", options["guid"]))
    disk.write(made)
    return made


def _tell_losses(before: AnyTable, after: AnyTable) -> None:
    """Say on standard error what the other kind of table has no place for."""
    if not isinstance(before, PartitionTable) or isinstance(after, PartitionTable):
        return
    names = [f"{each.number} ({show_text(each.name)})" for each in before.partitions if each.name]
    if names:
        sys.stderr.write(f"blockwright: an MBR has no names: lost those of partitions {', '.join(names)}\n")


@click.command("move-backup")
@click.argument("image")
@opening_options
def move_backup(*, image: str, opener: Opener) -> None:
    """Put the backup of IMAGE's GPT at the end of the disk, which has grown, so that all of it can be used."""
    with opener(image) as disk, naming(image):
        found = disk.table()
        if not isinstance(found, PartitionTable):
            raise UsageError(f"{image}: an MBR has no backup")
        disk.write(gpt.fit(found, disk.device.size))


@click.command()
@click.argument("image")
@click.argument("partitions", nargs=-1, metavar="[N[:TYPE]]...")
@click.option("--active", type=int, metavar="N", help="The one of them that a BIOS starts.")
@click.option("--clear", is_flag=True, help="Tell of none any more.")
@opening_options
def hybrid(*, image: str, partitions: tuple[str, ...], active: int | None, clear: bool, opener: Opener) -> None:
    """Have the MBR in front of IMAGE's GPT tell of up to three partitions too, each by its number and a type.

    TYPE is a name or a number such as 0x0c, and linux without one. The GPT stays as it is.
    """
    if clear == bool(partitions):
        raise UsageError("hybrid: expected partitions, or --clear")
    shown = []
    for text in partitions:
        number, _, kind = text.partition(":")
        if not number.isascii() or not number.isdecimal() or len(number) > 4:
            raise UsageError(f"hybrid: expected N or N:TYPE, found {text[:64]!a}")
        shown.append(Shown(int(number), parse_type(kind or "linux"), int(number) == active))
    if active is not None and not any(each.active for each in shown):
        raise UsageError(f"hybrid: --active {active}: expected one of the partitions that are told of")
    with opener(image) as disk:
        disk.write_hybrid(shown)


@click.command("boot-code")
@click.argument("image")
@click.option("--file", "file", type=click.File("rb"), help=f"The code, at most {BOOT_CODE} bytes, such as mbr.bin.")
@click.option("--clear", is_flag=True, help="Have none.")
@opening_options
def boot_code(*, image: str, file: Any, clear: bool, opener: Opener) -> None:
    """Put what a BIOS runs in front of IMAGE's table; partitions and the disk's signature stay."""
    if clear == (file is not None):
        raise UsageError("boot-code: expected --file or --clear")
    code = b"" if clear else read_up_to(file, BOOT_CODE + 1)
    if len(code) > BOOT_CODE:
        raise UsageError(f"{file.name}: expected at most {BOOT_CODE} bytes of boot code, found more")
    with opener(image) as disk:
        disk.write_boot_code(code)
