"""``blockwright nbd info`` and ``nbd list``: what an NBD server offers."""

from __future__ import annotations

from typing import Any

import click

from blockwright.cli.output import print_json, print_lines, table
from blockwright.cli.params import json_option
from blockwright.nbd.protocol.client import Description, Listed
from blockwright.nbd.protocol.session import ExportInfo
from blockwright.nbd.wire import TransmissionFlag
from blockwright.units import format_size

_SHORT = {
    TransmissionFlag.READ_ONLY: "read-only",
    TransmissionFlag.ROTATIONAL: "rotational",
    TransmissionFlag.SEND_FLUSH: "flush",
    TransmissionFlag.SEND_FUA: "fua",
    TransmissionFlag.SEND_TRIM: "trim",
    TransmissionFlag.SEND_WRITE_ZEROES: "zero",
    TransmissionFlag.SEND_FAST_ZERO: "fast-zero",
    TransmissionFlag.SEND_DF: "df",
    TransmissionFlag.SEND_CACHE: "cache",
    TransmissionFlag.CAN_MULTI_CONN: "multi-conn",
    TransmissionFlag.SEND_RESIZE: "resize",
    TransmissionFlag.BLOCK_STATUS_PAYLOAD: "block-status-payload",
}


@click.command()
@click.argument("uri")
@json_option
def info(uri: str, as_json: bool) -> None:  # noqa: FBT001  # a click flag
    """Tell what the server says of the export URI."""
    from blockwright.nbd.client.connect import describe

    found = describe(uri)
    if as_json:
        print_json("blockwright.nbd-info/1", {"uri": uri, **_description(found)})
    else:
        print_lines([f"{uri}:", *(f"  {line}" for line in _info_lines(found))])


@click.command("list")
@click.argument("uri")
@json_option
def list_(uri: str, as_json: bool) -> None:  # noqa: FBT001  # a click flag
    """List the exports of the server at URI."""
    from blockwright.nbd.client.connect import list_exports

    found = list_exports(uri)
    if as_json:
        print_json("blockwright.nbd-list/1", {"uri": uri, "exports": [_listed(each) for each in found]})
    else:
        rows = [("export", "size", "can", "description")]
        print_lines(table([*rows, *map(_row, found)], "<><<"))


def _description(found: Description) -> dict[str, Any]:
    session = found.session
    return {
        **_export(session.export),
        "framing": _framing(found),
        "tls": session.tls,
        "fixed_newstyle": found.greeting.fixed,
        "contexts": list(found.contexts),
    }


def _export(export: ExportInfo) -> dict[str, Any]:
    blocks = export.blocks
    return {
        "export": export.name,
        "description": export.description,
        "size": export.size,
        "can": _can(export.flags),
        "flags": int(export.flags),
        "blocks": blocks and {"minimum": blocks.minimum, "preferred": blocks.preferred, "maximum": blocks.maximum},
    }


def _listed(each: Listed) -> dict[str, Any]:
    if each.info is None:
        return {"export": each.name, "description": each.description, "problem": each.problem}
    return {**_export(each.info), "export": each.name, "description": each.description}


def _info_lines(found: Description) -> list[str]:
    export = found.session.export
    blocks = export.blocks
    sizes = f"{blocks.minimum}, {blocks.preferred}, {blocks.maximum}" if blocks else "not told"
    rows = [
        ("export", repr(export.name) if not export.name else export.name),
        ("description", export.description),
        ("size", f"{export.size} ({format_size(export.size)})"),
        ("can", " ".join(_can(export.flags))),
        ("block sizes", f"{sizes} (minimum, preferred, maximum)" if blocks else sizes),
        ("contexts", " ".join(found.contexts) or "none"),
        ("replies", _framing(found)),
        ("TLS", "yes" if found.session.tls else "no"),
    ]
    return table([row for row in rows if row[1]], "<<")


def _row(each: Listed) -> tuple[str, str, str, str]:
    name = each.name or "''"
    if each.info is None:
        return name, "-", each.problem, each.description
    return name, format_size(each.info.size), " ".join(_can(each.info.flags)), each.description


def _framing(found: Description) -> str:
    return "extended" if found.session.extended else "structured" if found.session.structured else "simple"


def _can(flags: TransmissionFlag) -> list[str]:
    return [name for flag, name in _SHORT.items() if flags & flag]
