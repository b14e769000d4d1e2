"""``blockwright dm``: device-mapper's devices, as dmsetup has them.

Knows: which subcommands there are. Refuses to know: what they do.
"""

from __future__ import annotations

import click

from blockwright.cli import dm_change, dm_show

dm = click.Group(
    "dm",
    help="""Make, change and show device-mapper's devices.

    A table has one target a line, START LENGTH TYPE PARAMETERS, in sectors of 512 bytes. NAME is a device's name, or
    /dev/mapper/NAME.
    """,
    commands=[
        dm_show.list_,
        dm_show.info,
        dm_show.table,
        dm_show.status,
        dm_show.deps,
        dm_show.targets,
        dm_change.create,
        dm_change.load,
        dm_change.clear,
        dm_change.resume,
        dm_change.suspend,
        dm_change.remove,
        dm_change.rename,
        dm_change.message,
        dm_change.wait,
    ],
)
