"""The last step, where it is asked for: a snapshot of the volume has a path. The volume itself stays as it was made.

Knows: names of snapshots. Refuses to know: drivers.
"""

from __future__ import annotations

import time
from contextlib import suppress

from blockwright.errors import BlockwrightError, NotFound, UsageError
from blockwright.pipeline import verdicts
from blockwright.pipeline.context import Context
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.locks import exclusive
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.states import Event
from blockwright.pipeline.steps.create import find
from blockwright.volume import State, open_pool
from blockwright.volume.info import check_name
from blockwright.volume.pool import look_up

DEFAULT_SUFFIX = "active"
"""Behind the volume's name, that of the snapshot which is activated where no other name is asked for."""


def name_of(inputs: Inputs) -> str:
    """Return the name of the snapshot. Raises UsageError."""
    return check_name(inputs.request.activation or f"{inputs.volume}-{DEFAULT_SUFFIX}")


def do(inputs: Inputs, context: Context) -> Receipt:
    """Have the snapshot, active; what was written to one that is there already stays.

    Raises PolicyViolated and ScanFailed where a verdict that came later lets nobody, and what the driver does.
    """
    started_ns = time.time_ns()
    verdicts.check(context.home, inputs.run, inputs.receipts)
    pool, name = check_name(inputs.request.pool, "pool"), name_of(inputs)
    with exclusive(context.home.lock(f"{pool}.{name}"), context.stop):
        context.checkpoint("activate: locked")
        with open_pool(pool, checkpoint=context.checkpoint) as driver:
            driver.reconcile()
            found = find(driver, name)
            if found is not None and found.origin != inputs.volume:
                raise UsageError(f"{name}: exists, and is no snapshot of {inputs.volume}: expected another name")
            fresh = found is None
            if found is None:
                found = driver.snapshot(inputs.volume, name)
            context.checkpoint("activate: made")
            try:
                active = driver.activate(name)
            except BaseException:
                if fresh:
                    with suppress(BlockwrightError, OSError):
                        driver.remove(name)
                raise
            number = found.id
        context.checkpoint("activate: active")
    outputs = {"pool": pool, "snapshot": name, "number": number, "path": active.path, "address": active.address}
    return context.receipt(inputs, Event.ACTIVATE, started_ns, outputs)


def holds(inputs: Inputs, receipt: Receipt, _context: Context) -> bool:
    """Whether the snapshot is there, and active."""
    made = receipt.outputs
    if made["snapshot"] != name_of(inputs):
        return False
    try:
        found = look_up(str(made["pool"]), str(made["snapshot"]))
    except NotFound:
        return False
    return found.id == made["number"] and found.path == made["path"] and found.state in (State.ACTIVE, State.MOUNTED)


def undo(_inputs: Inputs, _context: Context) -> None:
    """Leave all as it is: what was begun is taken back where it failed."""
