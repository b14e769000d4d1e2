"""``blockwright volume create``.

Knows: flags. Refuses to know: drivers, and how a file system is made.
"""

from __future__ import annotations

import click

from blockwright.build.definition import Definition, RootOptions, Table
from blockwright.build.run import build
from blockwright.cli.options import quiet_option
from blockwright.cli.output import progress_bar, tell_remarks
from blockwright.cli.params import json_option
from blockwright.cli.source_options import Take, source_options
from blockwright.cli.volume import opened, show_volume, volume_arguments
from blockwright.epoch import source_date_epoch
from blockwright.units import SECTOR, align_up, parse_new_size
from blockwright.volume.info import check_name


@click.command()
@volume_arguments
@click.option("--size", metavar="SIZE", required=True, help="Size of the volume, such as 4G.")
@click.option("--from", "source_name", metavar="SOURCE", help="Hold a file system with what SOURCE has.")
@click.option(
    "--table",
    type=click.Choice([each.value for each in Table]),
    default="none",
    show_default=True,
    help="The partition table around the file system.",
)
@click.option("--label", default="root", show_default=True, help="Label of the file system.")
@click.option("--seed", help="Text that its identities follow from, or random. Default: the input.")
@json_option
@quiet_option
@source_options
def create(
    *,
    take: Take,
    name: str,
    pool: str | None,
    size: str,
    source_name: str | None,
    table: str,
    label: str,
    seed: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make a volume, and print its address, which every command takes as IMAGE.

    SOURCE is what `build` takes: a directory, a tar archive, a container image. The file system is written straight
    into the volume, and fills it.
    """
    driver, plain = opened(name, pool)
    with driver:
        check_name(plain)
        wanted = align_up(parse_new_size(size), SECTOR)
        if source_name is None:
            show_volume(driver.create(plain, wanted), as_json=as_json)
            return
        definition = Definition(
            table=Table(table), size=wanted, root=RootOptions(label=label), seed=seed, time_s=source_date_epoch()
        )
        definition.check()
        with take.open((source_name,)) as source, progress_bar("create", quiet=quiet) as progress:

            def fill(path: str, _size: int) -> None:
                build(source, path, definition, force=True, progress=progress)

            made = driver.create(plain, wanted, fill=fill)
            tell_remarks(source.name, source.remarks)
    show_volume(made, as_json=as_json)
