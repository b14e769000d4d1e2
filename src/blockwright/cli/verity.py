"""``blockwright verity``: hash trees that prove every block of a device.

Knows: flags, and how results are shown. Refuses to know: how a tree is computed, checked or opened.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import wraps
from typing import Any
from uuid import UUID

import click

from blockwright.address import parse_address
from blockwright.cli.options import force_option, quiet_option, seed_value, size_value
from blockwright.cli.output import print_json, print_lines, print_path, progress_bar
from blockwright.cli.params import json_option
from blockwright.cli.really import meaning, really_option
from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.errors import UsageError
from blockwright.finding import Finding
from blockwright.resolve import locate, naming, open_device, open_output
from blockwright.units import align_up
from blockwright.verity.check import Report, check
from blockwright.verity.find import area_of, find_behind
from blockwright.verity.format import HashArea, blocks_of, parse_salt, write_area
from blockwright.verity.layout import DIGEST_SIZES, Parameters, identity, parse_root
from blockwright.verity.plan import area_end, tree_start

DAMAGED = 3


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the options say of a tree; ``data_blocks`` None is all, ``hash_offset`` None where it usually is."""

    algorithm: str
    salt: str | None
    data_block: int
    hash_block: int
    data_blocks: int | None
    hash_offset: int | None
    superblock: bool

    def parameters(self, data_size: int, salt: bytes) -> Parameters:
        count = blocks_of(data_size, self.data_block, self.data_blocks)
        given = salt if self.salt is None else parse_salt(self.salt)
        return Parameters(count, self.algorithm, given, self.data_block, self.hash_block)


def _tree_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says of what kind a tree is and where it lies, and pass it as ``wish``."""

    @wraps(command)
    def with_wish(
        *,
        algorithm: str,
        salt: str | None,
        data_block_size: int,
        hash_block_size: int,
        data_blocks: int | None,
        hash_offset: int | None,
        no_superblock: bool,
        **others: Any,
    ) -> Any:
        wish = _Wish(
            algorithm, salt, data_block_size, hash_block_size, data_blocks, hash_offset, superblock=not no_superblock
        )
        return command(wish=wish, **others)

    for option in (
        click.option("--no-superblock", is_flag=True, help="The tree alone; whoever opens it must know the rest."),
        click.option("--hash-offset", callback=size_value, metavar="SIZE", help="Where the hashes begin."),
        click.option(
            "--data-blocks", type=click.IntRange(min=1), metavar="N", help="Blocks to prove; all by default."
        ),
        click.option(
            "--hash-block-size",
            callback=size_value,
            default="4096",
            show_default=True,
            metavar="SIZE",
            help="A block of hashes.",
        ),
        click.option(
            "--data-block-size",
            callback=size_value,
            default="4096",
            show_default=True,
            metavar="SIZE",
            help="What one hash proves.",
        ),
        click.option("--salt", metavar="HEX", help="The salt, - for none."),
        click.option(
            "--algorithm",
            type=click.Choice(list(DIGEST_SIZES)),
            default="sha256",
            show_default=True,
            help="The hash.",
        ),
    ):
        option(with_wish)
    return with_wish


@click.group()
def verity() -> None:
    """Prove every block of a device by a hash tree (dm-verity).

    HASH is a file or device of the hashes' own. Without it they are behind the data, in DATA itself.
    """


@verity.command("format")
@click.argument("data")
@click.argument("hashes", metavar="[HASH]", required=False)
@_tree_options
@click.option("--uuid", type=click.UUID, help="The area's UUID.")
@click.option("--seed", callback=seed_value, help="Text that salt and UUID follow from; random without it.")
@force_option
@really_option
@quiet_option
@json_option
def format_(
    *,
    data: str,
    hashes: str | None,
    wish: _Wish,
    uuid: UUID | None,
    seed: bytes,
    force: bool,
    yes_really: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Compute the hash tree of DATA and print the root hash.

    The tree goes to HASH, or behind the data into DATA, which grows.
    """
    salt, derived = identity(seed)
    uuid = (uuid or derived) if wish.superblock else None
    with meaning(hashes or "", yes_really), progress_bar("verity", quiet=quiet) as progress:
        if hashes is None or hashes == data:
            area, root, offset = _format_behind(data, wish, salt, uuid, progress, force=force)
        else:
            area, root, offset = _format_apart(data, hashes, wish, salt, uuid, progress, force=force)
    if as_json:
        print_json("blockwright.verity.format/1", {**_document(area, offset), "root_hash": root.hex()})
    else:
        print_lines([root.hex()])


_Made = tuple[HashArea, bytes, int]


def _format_behind(data: str, wish: _Wish, salt: bytes, uuid: UUID | None, progress: Any, *, force: bool) -> _Made:
    """Append the hashes to the data; after a failure the data is as large as it was."""
    with open_device(data, writable=True) as device:
        size, before = device.size, find_behind(device)
        if before is not None and wish.data_blocks is None and wish.hash_offset is None:
            if not force:
                raise UsageError(f"{data}: has hashes behind its data already; --force computes them anew")
            size = before[0]
        given = wish.parameters(size, salt)
        offset = wish.hash_offset
        if offset is None:
            offset = given.data_size if wish.superblock else align_up(given.data_size, given.hash_block)
        kept, end = device.size, area_end(given, offset, superblock=wish.superblock)
        if end > kept and isinstance(device, ResizableDevice):
            device.resize(end)
        try:
            root = write_area(device, device, given, hash_offset=offset, uuid=uuid, progress=progress)
            device.flush()
        except BaseException:
            if isinstance(device, ResizableDevice):
                device.resize(kept)
            raise
    return HashArea(given, tree_start(given, offset, superblock=wish.superblock), uuid), root, offset


def _format_apart(
    data: str, hashes: str, wish: _Wish, salt: bytes, uuid: UUID | None, progress: Any, *, force: bool
) -> _Made:
    """Make a file, or overwrite a device; with an offset the hashes go into what is there."""
    _require_apart(data, hashes)
    offset = wish.hash_offset or 0
    with open_device(data) as device, ExitStack() as stack:
        given = wish.parameters(device.size, salt)
        end = area_end(given, offset, superblock=wish.superblock)
        target: BlockDevice
        if offset:
            target = stack.enter_context(open_device(hashes, writable=True))
            if end > target.size and isinstance(target, ResizableDevice):
                target.resize(end)
        else:
            output = open_output(hashes, size=end, force=force)
            stack.enter_context(output)
            target = output.device
        root = write_area(device, target, given, hash_offset=offset, uuid=uuid, progress=progress)
        target.flush()
    return HashArea(given, tree_start(given, offset, superblock=wish.superblock), uuid), root, offset


def _require_apart(data: str, hashes: str) -> None:
    """Raise UsageError where the hashes would be written over their data, which has another name there."""
    one, other = parse_address(data), parse_address(hashes)
    if one.scheme != "file" or other.scheme != "file" or not _is_same(one.rest, other.rest):
        return
    if one.partition and other.partition and one.partition != other.partition:
        return
    if one.is_part and other.is_part:
        first, second = locate(data), locate(hashes)
        if first.start + (first.size or 0) <= second.start or second.start + (second.size or 0) <= first.start:
            return
    raise UsageError(f"{hashes}: is {data} itself: expected a HASH of its own, or none for hashes behind the data")


def _is_same(one: str, other: str) -> bool:
    """Whether two names lead to one file or block device."""
    try:
        left, right = os.stat(one), os.stat(other)
    except OSError:
        return False
    if sys.platform != "win32" and stat.S_ISBLK(left.st_mode) and stat.S_ISBLK(right.st_mode):
        return left.st_rdev == right.st_rdev
    return os.path.samestat(left, right)


@verity.command()
@click.argument("names", nargs=-1, required=True, metavar="DATA [HASH] ROOT")
@_tree_options
@quiet_option
@json_option
def verify(*, names: Sequence[str], wish: _Wish, quiet: bool, as_json: bool) -> int:
    """Verify DATA and its hash tree against the root hash; exit with 3 where something is damaged.

    Damaged data is told from a damaged tree, each with its byte. Nothing is changed.
    """
    data, hashes, root = _split(names, 2)
    with ExitStack() as stack:
        device = stack.enter_context(open_device(data))
        tree = device if hashes is None else stack.enter_context(open_device(hashes))
        with naming(hashes or data):
            area = _area(wish, device, tree, behind=hashes is None)
            wanted = parse_root(root, area.parameters)
            progress = stack.enter_context(progress_bar("verity", quiet=quiet))
            report = check(device, tree, area.parameters, wanted, start=area.tree_start, progress=progress)
    if as_json:
        document = {"clean": report.clean, "root_hash": report.root.hex(), "cut": report.cut}
        findings = [
            {"rule": each.rule, "message": each.message, "offset": each.offset, "repairable": each.repairable}
            for each in report.findings
        ]
        print_json("blockwright.verity.verify/1", {**document, "findings": findings})
    else:
        print_lines(_text(report, data, hashes or data))
    return 0 if report.clean else DAMAGED


def _text(report: Report, data: str, hashes: str) -> list[str]:
    if report.clean:
        return [f"{data}: verity: clean"]

    def where(finding: Finding) -> str:
        return hashes if finding.rule == "verity.tree" else data

    lines = [f"{where(each)}: {each}" for each in report.findings]
    return [*lines, "there is more damage than is told here"] if report.cut else lines


@verity.command("open")
@click.argument("names", nargs=-1, required=True, metavar="DATA [HASH] ROOT NAME")
@_tree_options
@json_option
def open_(*, names: Sequence[str], wish: _Wish, as_json: bool) -> None:
    """Have DATA as /dev/mapper/NAME, which the kernel verifies as it is read, and print that.

    Files are attached to loop devices on the way. It stays until `verity close`.
    """
    from blockwright.attach import verity as attach

    data, hashes, root, name = _split(names, 3)
    area = None
    if not wish.superblock:
        with ExitStack() as stack:
            device = stack.enter_context(open_device(data))
            area = _area(wish, device, device, behind=hashes is None)
    found = attach.open_verified(data, hashes, root, name, hash_offset=wish.hash_offset, area=area)
    if as_json:
        document = {"name": found.name, "path": found.path, "size": found.size}
        print_json("blockwright.verity.open/1", {**document, "data": found.data, "hashes": found.hashes})
    else:
        print_path(found.path)


@verity.command()
@click.argument("name")
@json_option
def close(*, name: str, as_json: bool) -> None:
    """Remove /dev/mapper/NAME, which `verity open` made, and its loop devices."""
    from blockwright.attach import verity as attach

    attach.close(name)
    if as_json:
        print_json("blockwright.verity.close/1", {"name": name})


def _split(names: Sequence[str], least: int) -> list[Any]:
    """Return the names with None for a HASH that is not given."""
    if not least <= len(names) <= least + 1:
        raise click.UsageError(f"expected {least} or {least + 1} arguments, found {len(names)}")
    return list(names) if len(names) > least else [names[0], None, *names[1:]]


def _area(wish: _Wish, data: BlockDevice, hashes: BlockDevice, *, behind: bool) -> HashArea:
    """Return where the tree is: as the superblock says, or without one as the options do."""
    if wish.superblock:
        return area_of(hashes, wish.hash_offset, behind=behind)
    offset = wish.hash_offset
    if behind and (offset is None or wish.data_blocks is None):
        raise UsageError("verity: expected --hash-offset and --data-blocks with --no-superblock and without HASH")
    parameters = wish.parameters(data.size, b"")
    return HashArea(parameters, tree_start(parameters, offset or 0, superblock=False), None)


def _document(area: HashArea, offset: int) -> dict[str, Any]:
    given = area.parameters
    return {
        "uuid": None if area.uuid is None else str(area.uuid),
        "algorithm": given.algorithm,
        "salt": given.salt.hex(),
        "data_blocks": given.data_blocks,
        "data_block_size": given.data_block,
        "hash_block_size": given.hash_block,
        "hash_offset": offset,
        "tree_start": area.tree_start,
    }
