"""Who asks for a run on another host: begins its workflow, or joins the one that is at it, and waits for what comes.

Knows: clients of Temporal. Refuses to know: activities.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.service import RPCError, RPCStatusCode

from blockwright import errors
from blockwright.errors import BlockwrightError, ConnectionLost, UsageError
from blockwright.pipeline.context import cancelled
from blockwright.pipeline.identity import identify
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.records import Run
from blockwright.pipeline.request import Request
from blockwright.pipeline.runner import Outcome, covered, wanted_steps
from blockwright.pipeline.states import Event, State, state_behind
from blockwright.pipeline.temporal.words import HEARTBEAT_S, QUEUE, WORKFLOW, Asked, workflow_of

_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}").fullmatch
_ROUNDS: Final = 4
"""How often a workflow of others is joined that was asked for less than this one."""
_STOP_S: Final = 30.0
_DECIDE_S: Final = 5.0
"""After how long another worker is asked what comes next, where one died that was."""


@dataclass(frozen=True, slots=True)
class Place:
    """A server of Temporal, and the host whose worker is to do a run."""

    address: str
    host: str
    namespace: str = "default"
    heartbeat_s: float = HEARTBEAT_S


def check_host(host: str) -> str:
    """Return a host's name. Raises UsageError."""
    if not _HOST(host):
        raise UsageError(f"host: expected letters, digits, '.', '_' and '-', found {host[:64]!r}")
    return host


async def connect(place: Place) -> Client:
    """Return a client. Raises ConnectionLost."""
    try:
        return await Client.connect(place.address, namespace=place.namespace)
    except (RuntimeError, RPCError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ConnectionLost(f"temporal: {place.address}: {text[:300]}") from None


def fetch_there(request: Request, place: Place, told: Callable[[Run], None]) -> Outcome:
    """Have the image that is asked for on that host, and return what it came to; ``told`` hears of the run.

    Raises what its step raised there, Cancelled where it was stopped, ConnectionLost. A SIGINT or SIGTERM of the main
    thread cancels the run, and raises KeyboardInterrupt.
    """
    check_host(place.host)
    identity = identify(request)
    name = request.run_of(identity)
    run = Run(name, request, identity, request.volume_of(name), State.NEW)
    told(run)
    try:
        return asyncio.run(_fetch(run, place))
    except RPCError as error:
        raise ConnectionLost(f"temporal: {place.address}: {error.message}") from None
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


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
    client = await connect(place)
    name = workflow_of(place.host, run.id)
    receipts = await _earlier(client.get_workflow_handle(name))
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
            id=name,
            task_queue=QUEUE,
            task_timeout=timedelta(seconds=_DECIDE_S),
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        found = await _result(run, handle)
        receipts = [Receipt.parse(each) for each in found["receipts"]]
        if len(covered(run, receipts)) == len(receipts) and {each.step for each in receipts} >= set(steps):
            state = state_behind([each.step for each in receipts])
            return Outcome(replace(run, state=state), receipts, [Event(each) for each in found["did"]])
    raise BlockwrightError(f"run {run.id}: others ask for it again and again: expected one of its own")


async def _earlier(handle: WorkflowHandle[Any, Any]) -> Sequence[Receipt]:
    """Return the receipts of the workflow before, where it came to its end."""
    try:
        described = await handle.describe()
        if described.status is not WorkflowExecutionStatus.COMPLETED:
            return ()
        found = await handle.result()
        return [Receipt.parse(each) for each in found["receipts"]]
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return ()
        raise


async def _result(run: Run, handle: WorkflowHandle[Any, Any]) -> Any:
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
            raise cancelled(run.id) from None
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
