"""Who asks for a run on another host: begins its workflow, or joins the one that is at it, and waits for what comes.

Knows: clients of Temporal. Refuses to know: activities.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ActivityError, ApplicationError, WorkflowAlreadyStartedError, is_cancelled_exception
from temporalio.service import RPCError

from blockwright import errors
from blockwright.errors import BlockwrightError, InUse, NotFound
from blockwright.pipeline import tracing
from blockwright.pipeline.context import cancelled
from blockwright.pipeline.identity import identify
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.records import Run
from blockwright.pipeline.request import Request
from blockwright.pipeline.runner import Outcome, covered, wanted_steps
from blockwright.pipeline.states import Event, State, state_behind
from blockwright.pipeline.temporal.connect import connect, trouble_with
from blockwright.pipeline.temporal.history import known
from blockwright.pipeline.temporal.place import Place, check_host
from blockwright.pipeline.temporal.words import (
    CHANGE_WORKFLOW,
    QUEUE,
    WORKFLOW,
    Asked,
    Change,
    change_of,
    workflow_of,
)

_ROUNDS: Final = 4
"""How often a workflow of others is joined that was asked for less than this one."""
_STOP_S: Final = 30.0
_DECIDE_S: Final = 5.0
"""After how long another worker is asked what comes next, where one died that was."""


_Found = TypeVar("_Found")


def fetch_there(request: Request, place: Place, told: Callable[[Run], None]) -> Outcome:
    """Have the image that is asked for on that host, and return what it came to; ``told`` hears of the run.

    Raises what its step raised there, Cancelled where it was stopped, and as ``connect`` does. A SIGINT or SIGTERM of
    the main thread cancels the run, and raises KeyboardInterrupt.
    """
    check_host(place.host)
    identity = identify(request)
    name = request.run_of(identity)
    run = Run(name, request, identity, request.volume_of(name), State.NEW)
    told(run)
    return _asked(place, _fetch(run, place))


def retry_there(name: str, place: Place) -> Outcome:
    """Have a run go on there that failed or was cancelled, behind the receipts that still hold.

    Raises NotFound, InUse where it is being done, and as ``fetch_there``.
    """
    check_host(place.host)
    return _asked(place, _retry(name, place))


def cancel_there(name: str, place: Place, wait_s: float) -> State:
    """Have nobody at a run there, of which the step that it is at is taken back, and return its state.

    Raises NotFound, and InUse where its worker has not stopped in time.
    """
    check_host(place.host)
    return _asked(place, _cancel(name, place, wait_s))


def change_there(change: Change, place: Place) -> dict[str, Any]:
    """Have an image of that host changed, and return what came of it. Raises what that raised there, InUse."""
    check_host(place.host)
    return _asked(place, _change(change, place))


def activated(found: Mapping[str, Any]) -> Outcome:
    """Return what came of an activation there."""
    receipts = [Receipt.parse(each) for each in found["receipts"]]
    request = Request.parse(found["request"])
    run = Run(found["image"], request, found["identity"], found["volume"], State(found["state"]))
    return Outcome(run, receipts, [Event(each) for each in found["did"]])


def _asked(place: Place, asking: Coroutine[Any, Any, _Found]) -> _Found:
    try:
        return asyncio.run(asking)
    except RPCError as error:
        raise trouble_with(place.server, error) from None
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _retry(name: str, place: Place) -> Outcome:
    found = await known(await connect(place.server), workflow_of(place.host, name))
    if found is None:
        raise _no_run(name, place)
    if found.status is None:
        raise InUse(f"run {name}: is being done on {place.host}: 'blockwright image cancel' stops it")
    inputs = found.inputs
    return await _fetch(Run(inputs.run, inputs.request, inputs.identity, inputs.volume, State.NEW), place)


def _no_run(name: str, place: Place) -> NotFound:
    told = f"as far as {place.server.address} knows"
    return NotFound(f"{name}: no such run on {place.host}, {told}: expected its whole name")


async def _cancel(name: str, place: Place, wait_s: float) -> State:
    _obey_signals()
    client, workflow = await connect(place.server), workflow_of(place.host, name)
    found = await known(client, workflow)
    if found is None:
        raise _no_run(name, place)
    if found.status is not None:
        return found.state
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow)
    with suppress(RPCError):  # it has ended meanwhile
        await handle.cancel()
    try:
        await asyncio.wait_for(handle.result(), wait_s)
    except TimeoutError:
        text = f"has not stopped in {wait_s:g} seconds: a worker of {place.host} stops it when it is heard of"
        raise InUse(f"run {name}: {text}") from None
    except WorkflowFailureError:
        pass  # as it should
    found = await known(client, workflow)
    if found is None:
        raise _no_run(name, place)
    return found.state


async def _change(change: Change, place: Place) -> dict[str, Any]:
    _obey_signals()
    client = await connect(place.server)
    with tracing.trace(change["image"][:64], name=change["what"]) as trace:
        return await _changed(client, {**change, "trace": trace}, place)


async def _changed(client: Client, change: Change, place: Place) -> dict[str, Any]:
    try:
        handle: WorkflowHandle[Any, Any] = await client.start_workflow(
            CHANGE_WORKFLOW,
            change,
            id=change_of(place.host, change["image"]),
            task_queue=QUEUE,
            task_timeout=timedelta(seconds=_DECIDE_S),
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
        )
    except WorkflowAlreadyStartedError:
        raise InUse(f"{change['image']}: somebody else changes it on {place.host} now") from None
    found: dict[str, Any] = await _result(change["image"], handle)
    return found


def _obey_signals() -> None:
    """Have signals cancel the task: what a handler raises in the middle of the loop, the loop may swallow."""
    task = asyncio.current_task()
    assert task is not None
    for each in (signal.SIGINT, signal.SIGTERM):
        # Windows has no such handlers, and threads have none.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(each, task.cancel)


async def _fetch(run: Run, place: Place) -> Outcome:
    _obey_signals()
    client = await connect(place.server)
    earlier = await known(client, workflow_of(place.host, run.id))
    receipts = earlier.receipts if earlier is not None and earlier.status is not None else ()
    with tracing.trace(run.id, earlier.trace if earlier is not None else "") as trace:
        return await _joined(client, replace(run, trace=trace), place, receipts)


async def _joined(client: Client, run: Run, place: Place, receipts: Sequence[Receipt]) -> Outcome:
    """Begin the run, or join the one that is at it, until one has done what is asked for."""
    steps = wanted_steps(run)
    for _ in range(_ROUNDS):
        asked: Asked = {
            "host": place.host,
            "inputs": run.inputs(receipts).document(),
            "steps": [each.value for each in steps],
            "heartbeat_s": place.heartbeat_s,
            "trace": run.trace,
        }
        handle: WorkflowHandle[Any, Any] = await client.start_workflow(
            WORKFLOW,
            asked,
            id=workflow_of(place.host, run.id),
            task_queue=QUEUE,
            task_timeout=timedelta(seconds=_DECIDE_S),
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        found = await _result(run.id, handle)
        receipts = [Receipt.parse(each) for each in found["receipts"]]
        if len(covered(run, receipts)) == len(receipts) and {each.step for each in receipts} >= set(steps):
            state = state_behind([each.step for each in receipts])
            return Outcome(replace(run, state=state), receipts, [Event(each) for each in found["did"]])
    raise BlockwrightError(f"run {run.id}: others ask for it again and again: expected one of its own")


async def _result(run: str, handle: WorkflowHandle[Any, Any]) -> Any:
    try:
        return await handle.result()
    except asyncio.CancelledError:  # of this process
        await handle.cancel()
        with suppress(WorkflowFailureError, TimeoutError):
            await asyncio.wait_for(handle.result(), _STOP_S)
        raise
    except WorkflowFailureError as error:
        cause: BaseException = error.cause
        if is_cancelled_exception(cause):
            raise cancelled(run) from None
        if isinstance(cause, ActivityError) and cause.cause is not None:
            cause = cause.cause
        raise _error_of(cause) from None


def _error_of(cause: BaseException) -> BlockwrightError:
    """Return what a step raised on another host, as what it was where that takes a message."""
    text = cause.message if isinstance(cause, ApplicationError) else str(cause)
    kind = getattr(errors, str(getattr(cause, "type", "")), None)
    if isinstance(kind, type) and issubclass(kind, BlockwrightError):
        with suppress(TypeError, ValueError):
            return kind(text)
    return BlockwrightError(text)
