"""``blockwright manifest``."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import click

from blockwright.cli.content_options import content_options
from blockwright.cli.options import force_option, quiet_option
from blockwright.cli.output import print_path, progress_bar, tell_remarks, write_file
from blockwright.cli.source_options import Take, source_options
from blockwright.manifest import manifest as manifest_of
from blockwright.tree.changes.options import Changes
from blockwright.tree.mtree.digest import NAMES
from blockwright.units import MiB


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("-o", "--output", metavar="FILE", help="Write it to FILE instead of standard output.")
@click.option(
    "--digest", multiple=True, type=click.Choice(NAMES), help="A digest of each file's content. May be given again."
)
@force_option
@quiet_option
@content_options()
@source_options
def manifest(
    sources: tuple[str, ...],
    output: str | None,
    digest: tuple[str, ...],
    force: bool,  # noqa: FBT001  # click passes flags by name
    quiet: bool,  # noqa: FBT001  # a click flag
    changes: Changes,
    take: Take,
) -> None:
    """List what SOURCE holds as an mtree(5) manifest: paths, types, modes, owners, times, sizes, links, devices.

    SOURCE is whatever `build` takes, and what is changed of it is changed as there. `mtree`, `bsdtar` and `build
    --manifest` read it.

    \b
    Examples:
      blockwright manifest rootfs/ --digest sha256 -o rootfs.mtree
      blockwright manifest disk.img:2 | mtree -p /mnt
    """  # noqa: D301  # click leaves lines as they are below a real backspace
    gc.disable()  # a tree is many objects, and none of them in cycles
    with take.open(sources) as opened, progress_bar("manifest", quiet=quiet) as progress:
        chunks = _gathered(manifest_of(opened, changes=changes, digest=digest, progress=progress))
        if output is None:
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
        else:
            write_file(output, chunks, "a manifest", force=force)
        tell_remarks(opened.name, opened.remarks)
    if output is not None:
        print_path(output)


def _gathered(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines in pieces of about a MiB."""
    pending, size = [], 0
    for line in lines:
        pending.append(line)
        size += len(line)
        if size >= MiB:
            yield b"".join(pending)
            pending, size = [], 0
    yield b"".join(pending)
