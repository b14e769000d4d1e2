"""``blockwright worker``.

Knows: flags, and signals. Refuses to know: steps.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress

import click

from blockwright.cli.temporal_options import worker_options
from blockwright.pipeline.temporal.place import Place


@click.command()
@worker_options
def worker(*, place: Place) -> None:
    """Do the steps that `fetch-and-create --temporal ADDRESS --on ID` asks of this host, until it is interrupted.

    Volumes are made in this machine's pools. It may be killed at any time: the next worker of the host goes on.
    """
    asyncio.run(_work(place))


async def _work(place: Place) -> None:
    from blockwright.pipeline.temporal.connect import check_namespace, connect
    from blockwright.pipeline.temporal.worker import work

    client = await connect(place.server)
    await check_namespace(client, place.server)
    over = asyncio.Event()
    with suppress(NotImplementedError):  # Windows: Ctrl-C ends it
        for each in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(each, over.set)

    def ready() -> None:
        sys.stderr.write(f"worker: {place.host}: takes steps from {place.server.address}\n")
        sys.stderr.flush()

    await work(client, place.host, ready, over.wait)
