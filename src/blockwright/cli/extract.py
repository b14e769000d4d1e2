"""``blockwright extract``."""

from __future__ import annotations

import gc
import re
import sys

import click

from blockwright.cli.content_options import content_options
from blockwright.cli.options import quiet_option
from blockwright.cli.output import print_json, print_path, progress_bar, tell_remarks
from blockwright.cli.params import json_option
from blockwright.cli.source_options import Take, source_options
from blockwright.errors import UsageError
from blockwright.extract import extract as extract_source
from blockwright.tree.changes.options import Changes
from blockwright.tree.extract import KEEP, ME, ExtractOptions, Owner, default_owner
from blockwright.tree.node import MAX_ID


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.argument("directory")
@click.option("--owner", metavar="keep|me|USER:GROUP", help="Whose files are made.  [default: keep as root, else me]")
@click.option("--specials", is_flag=True, help="Make devices, FIFOs and sockets too.")
@click.option("--strict", is_flag=True, help="Fail where something would be left out.")
@click.option("--force", is_flag=True, help="Add to a directory that holds something, replacing files.")
@quiet_option
@json_option
@content_options(owner=False)
@source_options
def extract(
    sources: tuple[str, ...],
    directory: str,
    owner: str | None,
    specials: bool,  # noqa: FBT001  # click passes flags by name
    strict: bool,  # noqa: FBT001  # a click flag
    force: bool,  # noqa: FBT001  # a click flag
    quiet: bool,  # noqa: FBT001  # a click flag
    as_json: bool,  # noqa: FBT001  # a click flag
    changes: Changes,
    take: Take,
) -> None:
    """Make DIRECTORY what SOURCE holds: whatever `build` takes, several over one another among it.

    DIRECTORY must be empty or absent. Nothing is ever written outside of it, whatever SOURCE says. What fails or is
    interrupted leaves DIRECTORY as it was, but with --force: then it holds .blockwright-incomplete-….
    """
    rule = _owner(owner)
    options = ExtractOptions(owner=rule or KEEP, specials=specials, strict=strict, force=force)
    gc.disable()  # a tree is many objects, and none of them in cycles
    sys.setswitchinterval(0.0001)  # a decoder's thread that has its next piece ready waits that long
    with take.open(sources) as opened, progress_bar("extract", quiet=quiet) as progress:
        named = None if rule is not None else owner
        done = extract_source(opened, directory, options, changes=changes, owner=named, progress=progress)
        tell_remarks(opened.name, opened.remarks)
    if done.left_out:
        text = ", ".join(f"{count} {what}" for what, count in sorted(done.left_out.items()))
        sys.stderr.write(f"blockwright: {directory}: left out: {text} (--strict fails instead)\n")
    if as_json:
        document = {"directory": directory, "entries": done.entries, "left_out": dict(done.left_out)}
        print_json("blockwright.extract/1", document)
    else:
        print_path(directory)


def _owner(text: str | None) -> Owner | None:
    """Return the rule, None for names, which are the image's."""
    if text is None:
        return default_owner()
    if text in ("keep", "me"):
        return KEEP if text == "keep" else ME
    match = re.fullmatch(r"([0-9]{1,64}):([0-9]{1,64})", text)
    if match is None and re.fullmatch(r"[^\s:,/]{1,64}:[^\s:,/]{1,64}", text):
        return None
    if match is None or max(int(match[1]), int(match[2])) > MAX_ID:
        raise UsageError(f"--owner: expected keep, me or USER:GROUP, found {text[:64]!r}")
    return Owner(uid=int(match[1]), gid=int(match[2]))
