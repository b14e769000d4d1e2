"""``blockwright disk rebase`` and ``blockwright disk commit``."""

from __future__ import annotations

import click

from blockwright.cli.options import allow_backing_option, quiet_option
from blockwright.cli.output import print_path, progress_bar
from blockwright.disk.backing import commit as commit_image
from blockwright.disk.backing import rebase as rebase_image
from blockwright.errors import UsageError
from blockwright.format.policy import Policy
from blockwright.format.registry import NAMES


@click.command()
@click.argument("image")
@click.option("--backing", metavar="FILE", help="The other backing file, a path from IMAGE's folder on.")
@click.option("--backing-format", type=click.Choice(NAMES), help="Its format.  [default: what its first bytes say]")
@click.option("--no-backing", is_flag=True, help="Let IMAGE stand alone.")
@click.option("-u", "--unsafe", is_flag=True, help="Change the name only, of a file that was moved.")
@allow_backing_option
@quiet_option
def rebase(
    image: str,
    backing: str | None,
    backing_format: str | None,
    allow_backing: tuple[str, ...],
    *,
    no_backing: bool,
    unsafe: bool,
    quiet: bool,
) -> None:
    """Put the qcow2 IMAGE onto another backing file, and leave its disk as it is.

    What the other file has otherwise is written to IMAGE first. --allow-backing says where the present backing file
    lies, and what FILE itself may stand on.
    """
    if no_backing == (backing is not None):
        raise UsageError("rebase: expected --backing FILE or --no-backing")
    with progress_bar("rebase", quiet=quiet) as progress:
        rebase_image(
            image,
            backing,
            form=backing_format,
            unsafe=unsafe,
            policy=Policy(allow_backing),
            progress=progress,
        )
    print_path(image)


@click.command()
@click.argument("image")
@click.option("--keep", is_flag=True, help="Leave IMAGE as it is, instead of empty.")
@allow_backing_option
@quiet_option
def commit(image: str, allow_backing: tuple[str, ...], *, keep: bool, quiet: bool) -> None:
    """Bring what the qcow2 IMAGE holds down into its backing file, which --allow-backing must allow.

    Others that stand on that file read something else from then on. IMAGE holds nothing then, and reads as before.
    """
    with progress_bar("commit", quiet=quiet) as progress:
        commit_image(image, keep=keep, policy=Policy(allow_backing), progress=progress)
    print_path(image)
