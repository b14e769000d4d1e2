"""``blockwright loopless``: loopless's command line, so that its users change one word.

Knows: its verbs, how many arguments each takes, and what it prints. Refuses to know: what they do.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import click

from blockwright import loopless as verbs
from blockwright._version import __version__
from blockwright.cli.output import write_bytes
from blockwright.disk.edit import split_target
from blockwright.errors import UsageError
from blockwright.units import parse_size


class _Verb(NamedTuple):
    """A verb: its arguments as its usage has them, how many there may be, and what it does with them."""

    usage: str
    least: int
    most: int
    call: Callable[[str, Sequence[str]], None]


def _number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise UsageError(f"{what}: expected a number, found {text[:64]!r}")
    return int(text)


def _create_part(file: str, given: Sequence[str]) -> None:
    numbers = [_number(text, what) for text, what in zip(given, ("PARTNUM", "START", "SIZE"), strict=False)]
    number, start, size = [*numbers, 0, 0, 0][:3]
    verbs.create_part(file, number, start, size, given[3] if len(given) > 3 else "")


def _part_info(file: str, _: Sequence[str]) -> None:
    for each in verbs.part_info(file):
        bootable = "true" if each.bootable else "false"
        label = each.label.encode("utf-8", "surrogatepass").translate(None, b"\t\n\r")
        line = f"{each.number}\t{each.start}\t{each.size}\t{bootable}\t".encode() + label
        sys.stdout.buffer.write(line + b"\n")


def _set_bootable(part: str, given: Sequence[str]) -> None:
    file, number = split_target(part)
    if number is None:
        raise UsageError(f"{part}: expected the number of a partition behind the name, such as {file}:1")
    if given[0] not in ("true", "false"):
        raise UsageError(f"set-bootable: expected true or false, found {given[0][:64]!r}")
    verbs.set_bootable(file, number, given[0] == "true")


def _ls(part: str, _: Sequence[str]) -> None:
    for path in verbs.ls(part):
        sys.stdout.buffer.write(path + b"\n")


def _read(part: str, given: Sequence[str]) -> None:
    with verbs.opened(part, os.fsencode(given[0])) as device:
        write_bytes(device)


def _write(part: str, given: Sequence[str]) -> None:
    if not re.fullmatch(r"(0o)?[0-7]{1,12}", given[1]):
        raise UsageError(f"mode: expected an octal number, found {given[1][:64]!r}")
    verbs.write(part, os.fsencode(given[0]), sys.stdin.buffer, int(given[1], 8))


_VERBS = {
    "create": _Verb("FILE create BYTES", 1, 1, lambda file, given: verbs.create(file, parse_size(given[0]))),
    "create-vmdk": _Verb("FILE create-vmdk VMDK_FILE", 1, 1, lambda file, given: verbs.create_vmdk(file, given[0])),
    "create-gpt": _Verb("FILE create-gpt", 0, 0, lambda file, _: verbs.create_gpt(file)),
    "create-part": _Verb("FILE create-part [PARTNUM [START [SIZE [LABEL]]]]", 0, 4, _create_part),
    "part-info": _Verb("FILE part-info", 0, 0, _part_info),
    "set-bootable": _Verb("FILE:PARTNUM set-bootable true|false", 1, 1, _set_bootable),
    "mkfs": _Verb("FILE[:PART] mkfs [LABEL]", 0, 1, lambda part, given: verbs.mkfs(part, *given)),
    "ls": _Verb("FILE[:PART] ls", 0, 0, _ls),
    "rm": _Verb("FILE[:PART] rm PATH", 1, 1, lambda part, given: verbs.rm(part, os.fsencode(given[0]))),
    "read": _Verb("FILE[:PART] read PATH", 1, 1, _read),
    "write": _Verb("FILE[:PART] write PATH MODE", 2, 2, _write),
    "syslinux": _Verb("FILE[:PART] syslinux", 0, 0, lambda part, loaders: verbs.syslinux(part, loaders=loaders)),
    "install-mbr": _Verb("FILE install-mbr", 0, 0, lambda file, loaders: verbs.install_mbr(file, loaders=loaders)),
}
_BOOT = ("syslinux", "install-mbr")
"""What takes no arguments, but has to know where SYSLINUX is."""


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="PART is the number of a partition, or a range START,SIZE in bytes. START and SIZE of create-part count "
    "in sectors of 512 bytes.",
)
@click.option(
    "--loader", "loaders", multiple=True, metavar="DIR", help="Where SYSLINUX is, if not where it is installed."
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="version | FILE[:PART] VERB [ARGUMENT]…")
def loopless(*, words: tuple[str, ...], loaders: tuple[str, ...]) -> None:
    """Partition, format, fill and boot images by loopless's own verbs, arguments and output.

    \b
    create BYTES              make an image of zeros
    create-gpt                have an empty GPT
    create-part [PARTNUM [START [SIZE [LABEL]]]]
    part-info                 PARTNUM, START, SIZE, BOOTABLE and LABEL, with tabs between them
    set-bootable true|false   of FILE:PARTNUM
    mkfs [LABEL]              have an empty ext4
    ls                        the paths of all files
    rm PATH                   and the directories that are empty then
    read PATH                 to standard output
    write PATH MODE           from standard input
    syslinux                  start the partition by SYSLINUX and its /syslinux.cfg
    install-mbr               code that starts the partition that is bootable
    create-vmdk VMDK_FILE     a descriptor for hypervisors
    """  # noqa: D301  # \b is click's
    if words == ("version",):
        sys.stdout.write(f"{__version__}\n")
        return
    if len(words) < 2:
        raise UsageError("loopless: expected FILE[:PART] and a verb, or version: see 'blockwright loopless --help'")
    target, name, *given = words
    verb = _VERBS.get(name)
    if verb is None:
        raise UsageError(f"loopless: expected one of {', '.join(_VERBS)}, found {name[:64]!r}")
    if not verb.least <= len(given) <= verb.most:
        raise UsageError(f"loopless: expected {verb.usage}, found {len(given)} arguments behind {name}")
    verb.call(target, loaders if name in _BOOT else given)
