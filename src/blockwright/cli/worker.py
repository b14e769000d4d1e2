"""``blockwright worker``.

Knows: flags, and signals. Refuses to know: steps.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress

import click

from blockwright.cli.temporal_options import namespace_option, place_of
from blockwright.pipeline.temporal.place import Place


@click.command()
@click.option("--temporal", "address", metavar="ADDRESS", required=True, help="The server of Temporal: HOST:PORT.")
@click.option("--host", metavar="ID", required=True, help="What this machine is called: the same from boot to boot.")
@namespace_option
def worker(*, address: str, host: str, namespace: str) -> None:
    """Do the steps that `fetch-and-create --temporal ADDRESS --on ID` asks of this host, until it is interrupted.

    Volumes are made in this machine's pools. It may be killed at any time: the next worker of the host goes on.
    """
    asyncio.run(_work(place_of(address, host, namespace)))


async def _work(place: Place) -> None:
    from blockwright.pipeline.temporal.client import connect
    from blockwright.pipeline.temporal.worker import work

    client = await connect(place)
    over = asyncio.Event()
    with suppress(NotImplementedError):  # Windows: Ctrl-C ends it
        for each in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(each, over.set)

    def ready() -> None:
        sys.stderr.write(f"worker: {place.host}: takes steps from {place.address}\n")
        sys.stderr.flush()

    await work(client, place.host, ready, over.wait)
