"""The fourth step: a volume holds the file system, made once however often, and by however many, it is asked for.

The volume's name follows from the run. Whoever makes it holds a lock of that name over intent, content and result;
whoever comes second waits, has the pool's journal reconciled, and finds it there. What a dead process left half done
the journal takes back before it is begun anew.

Knows: the order of things around a volume. Refuses to know: drivers, and how a file system is written (``filling``).
"""

from __future__ import annotations

import time

from blockwright.errors import IntegrityError, NotFound, SourceChanged
from blockwright.pipeline.context import Context
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.locks import exclusive
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.states import Event
from blockwright.pipeline.steps import download
from blockwright.volume import Driver, State, VolumeInfo, open_pool
from blockwright.volume.info import check_name
from blockwright.volume.pool import look_up


def do(inputs: Inputs, context: Context) -> Receipt:
    """Have the volume, whole. Raises what planning, writing and the pool's driver do."""
    started_ns = time.time_ns()
    pool, name = check_name(inputs.request.pool, "pool"), check_name(inputs.volume)
    with exclusive(context.home.lock(f"{pool}.{name}"), context.stop):
        context.checkpoint("create: locked")
        with open_pool(pool, checkpoint=context.checkpoint) as driver:
            driver.reconcile()
            made, hashed = find(driver, name), ""
            if made is None:
                made, hashed = _make(inputs, context, driver)
            else:
                hashed = _digest(driver, name, context)  # made by a process that died behind it
            kind = driver.spec.driver
        context.checkpoint("create: made")
    outputs = {
        "pool": pool,
        "driver": kind,
        "volume": name,
        "number": made.id,
        "address": made.address,
        "volume_bytes": made.size,
        "filesystem": hashed,
    }
    return context.receipt(inputs, Event.CREATE, started_ns, outputs)


def _make(inputs: Inputs, context: Context, driver: Driver) -> tuple[VolumeInfo, str]:
    """Make the volume, which is not there, and return it with the digest of all its bytes."""
    size = int(inputs.outputs(Event.VERIFY)["volume_bytes"])

    def content(path: str, room: int) -> None:
        from blockwright.pipeline.filling import digest_of, fill

        context.checkpoint("create: filling")
        fill(inputs, context, path, room)
        if not download.holds(inputs, inputs.receipts[0], context):
            raise SourceChanged(f"{inputs.request.named}: changed while it was read")
        hashed.append(digest_of(path, room, context.watch("hash")))
        context.checkpoint("create: filled")

    hashed: list[str] = []
    return driver.create(inputs.volume, size, fill=content), hashed[0]


def find(driver: Driver, name: str) -> VolumeInfo | None:
    """Return the volume where it is there; one whose bytes are lost is removed. Raises InUse."""
    try:
        found = driver.get(name)
    except NotFound:
        return None
    if found.state is State.LOST:
        driver.remove(name)
        return None
    return found


def _digest(driver: Driver, name: str, context: Context) -> str:
    """Return the digest of all bytes of a volume, by reading them."""
    from blockwright.pipeline.filling import digest_of_device

    with driver.open(name) as device:
        return digest_of_device(device, context.watch("hash"))


def holds(_inputs: Inputs, receipt: Receipt, context: Context) -> bool:
    """Whether the pool's journal has the volume that the receipt tells of.

    A context that is to ``verify`` has all of it read. Raises IntegrityError where it is not what was written.
    """
    made = receipt.outputs
    try:
        found = look_up(str(made["pool"]), str(made["volume"]))
    except NotFound:
        return False
    if found.state is State.LOST or found.id != made["number"] or found.size != made["volume_bytes"]:
        return False
    if context.verify:
        with open_pool(str(made["pool"])) as driver:
            hashed = _digest(driver, found.name, context)
        if hashed != made["filesystem"]:
            raise IntegrityError(f"{found.address}: expected {made['filesystem']}, found {hashed}")
    return True


def undo(_inputs: Inputs, context: Context) -> None:
    """Let go of what was read; of the volume the pool's journal has taken back what was begun.

    Raises InUse where somebody else is at it.
    """
    context.forget()
