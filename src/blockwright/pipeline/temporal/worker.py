"""A worker: does the steps of runs that are for its host, and decides for any run what comes next.

A step runs in a thread; another one beside it says that it is alive, and hears whether it is still wanted. Who is
killed is heard of no more, and the step is begun again: the volume's lock and journal see to that it is made once.

Knows: activities. Refuses to know: the order of steps.
"""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import Worker

from blockwright.errors import BlockwrightError, Cancelled, LimitExceeded, NotFound
from blockwright.journal import Journal
from blockwright.pipeline import claims, manage, records, tracing
from blockwright.pipeline.context import Context, cancelled
from blockwright.pipeline.home import Home
from blockwright.pipeline.images import Images
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.receipt import Receipt, check_chain
from blockwright.pipeline.records import Run
from blockwright.pipeline.runner import covered, passes
from blockwright.pipeline.states import STEPS, Event, State, state_behind
from blockwright.pipeline.steps import STEPS as FUNCTIONS
from blockwright.pipeline.temporal.words import CHANGE, HELD, PUBLISH, QUEUE, STEP, Change, Known, queue_of
from blockwright.pipeline.temporal.workflow import ChangeWorkflow, ImageWorkflow
from blockwright.volume.steps import Checkpoint, unwatched

MAX_PAYLOAD: Final = 3 << 19
"""Bytes of all receipts of a run as JSON: Temporal takes 2 MiB at once."""
AT_ONCE: Final = 4
"""How many steps one worker does at the same time."""
_BEATS: Final = 5
"""How often a worker is heard of, at least, before it would be given up."""
_BEAT_S: Final = 1.0
"""How long it takes at most to hear that a step is not wanted any more."""


class Activities:
    """What a host does for runs. ``checkpoint`` is told of every place at which a process can die."""

    def __init__(self, host: str, checkpoint: Checkpoint = unwatched) -> None:
        self._host = host
        self._checkpoint = checkpoint

    @activity.defn(name=STEP, no_thread_cancel_exception=True)
    def step(self, given: dict[str, Any]) -> dict[str, Any]:
        """Do one step, and return its receipt; of what fails, or is not wanted any more, nothing is left."""
        with _answering():
            inputs, event = Inputs.parse(given["inputs"]), Event(given["step"])
            function = FUNCTIONS[event]
            with self._context(inputs.run) as context, _last(inputs.run, context):
                try:
                    with tracing.span(event.value, inputs.run, context.attempt, given.get("trace", "")):
                        receipt = function.do(inputs, context).document()
                except BaseException:
                    with suppress(BlockwrightError, OSError):
                        function.undo(inputs, context)
                    raise
                self._checkpoint(f"{event.value}: done")
            size = len(json.dumps([*given["inputs"]["receipts"], receipt]))
            if size > MAX_PAYLOAD:
                raise LimitExceeded(f"{event.value}: expected receipts of {MAX_PAYLOAD} bytes, found {size}")
            return receipt

    @activity.defn(name=HELD, no_thread_cancel_exception=True)
    def held(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the receipts of an earlier run that this one goes on behind."""
        with _answering():
            inputs = Inputs.parse(given)
            run = _run_of(inputs, State.NEW)
            order = (*STEPS, Event.ACTIVATE)
            kept = list(inputs.receipts)
            if [each.step for each in kept] != list(order[: len(kept)]):
                return []
            try:
                check_chain(kept)
            except BlockwrightError:
                return []
            kept = covered(run, kept, Home.default())
            with self._spanned("held", inputs.run, given) as context:
                while kept and not FUNCTIONS[kept[-1].step].holds(run.inputs(kept), kept[-1], context):
                    kept.pop()
            return [each.document() for each in kept]

    @activity.defn(name=PUBLISH, no_thread_cancel_exception=True)
    def publish(self, known: Known) -> None:
        """Have the catalogue know what became of a run."""
        with _answering():
            inputs = Inputs.parse(known["inputs"])
            state = state_behind([each.step for each in inputs.receipts])
            failed = known["failed"] if state not in (State.READY, State.ACTIVE) else ""
            if known["trouble"] and state not in (State.READY, State.ACTIVE):
                state = State.CANCELLED if known["cancelled"] else State.FAILED
            receipts = list(inputs.receipts)
            self._checkpoint("publish: begun")
            with (
                self._spanned("publish", inputs.run, known) as context,
                _last(inputs.run, context),
                Images() as images,
            ):
                active = _still_active(images, inputs, context) if state is State.READY else None
                if active is not None:
                    state = State.ACTIVE
                    receipts.append(active)
                images.catalogue.put(images.image_of(_run_of(inputs, state, known, failed), receipts))
            tracing.spanned("workflow", inputs.run, known["trace"], known["created_ns"], state.value)

    @activity.defn(name=CHANGE, no_thread_cancel_exception=True)
    def change(self, given: Change) -> dict[str, Any]:
        """Have an image of this host activated, deactivated or removed, whichever engine has its run."""
        with (
            _answering(again=False),
            Images() as images,
            self._spanned(given["what"], given["image"][:64], given) as context,
        ):
            try:
                image = images.find(given["image"])
            except NotFound:
                if given["what"] == Event.REMOVE.value and context.attempt > 1:
                    return {"image": given["image"], "removed": []}  # by the attempt before, whose worker died
                raise
            if given["what"] == Event.ACTIVATE.value:
                outcome = manage.activate(images, image, context, given["name"] or None)
                return {
                    "image": image.id,
                    "request": outcome.run.request.document(),
                    "identity": dict(outcome.run.identity),
                    "volume": outcome.run.volume,
                    "state": outcome.run.state.value,
                    "receipts": [each.document() for each in outcome.receipts],
                    "did": [each.value for each in outcome.fresh],
                }
            if given["what"] == Event.DEACTIVATE.value:
                done = manage.deactivate(images, image, given["name"] or None)
                return {"image": image.id, "deactivated": done}
            gone = manage.remove(images, image, snapshots=given["snapshots"])
            return {"image": image.id, "removed": gone}

    @contextmanager
    def _spanned(self, name: str, run: str, given: Mapping[str, Any]) -> Iterator[Context]:
        """Have what an activity works with, and what it does be a span of the trace that it was given."""
        with self._context(run) as context, tracing.span(name, run, context.attempt, given.get("trace", "")):
            yield context

    @contextmanager
    def _context(self, run: str) -> Iterator[Context]:
        """Have what a step works with, while a thread beside it says that it is alive."""
        home = Home.default()
        home.make()
        unwanted, over = threading.Event(), threading.Event()

        def stop() -> None:
            if unwanted.is_set():
                raise cancelled(run)

        limit = activity.info().heartbeat_timeout
        pause = min(_BEAT_S, limit.total_seconds() / _BEATS) if limit else _BEAT_S

        def beat() -> None:
            while not over.wait(pause):
                activity.heartbeat()
                if activity.is_cancelled():
                    unwanted.set()

        beside = threading.Thread(target=contextvars.copy_context().run, args=(beat,), name="heartbeat", daemon=True)
        beside.start()
        try:
            attempt = activity.info().attempt
            with Context(home, self._host, attempt, checkpoint=self._checkpoint, stop=stop) as context:
                yield context
        finally:
            over.set()
            beside.join()


def _run_of(inputs: Inputs, state: State, known: Known | None = None, failed: str = "") -> Run:
    return Run(
        inputs.run,
        inputs.request,
        inputs.identity,
        inputs.volume,
        state,
        trace=known["trace"] if known else "",
        trouble=known["trouble"] or None if known else None,
        failed=failed or None,
        created_ns=known["created_ns"] if known else 0,
        changed_ns=time.time_ns(),
    )


@contextmanager
def _last(run: str, context: Context) -> Iterator[None]:
    """Have the run to oneself on this machine, as its last attempt. Raises InUse, UsageError, Cancelled."""
    info = activity.info()
    fence = int(info.current_attempt_scheduled_time.timestamp() * 10**6)
    with (
        Journal(context.home.journal, (records.PART, claims.PART)) as journal,
        claims.attempt(context.home, journal, run, fence, context.stop),
    ):
        yield


def _still_active(images: Images, inputs: Inputs, context: Context) -> Receipt | None:
    """Return the catalogue's receipt of a snapshot that is active though nobody asked for that here."""
    known = images.catalogue.get(inputs.run)
    last = images.receipts(known)[-1:] if known is not None else []
    if not last or last[0].step is not Event.ACTIVATE or last[0].before != inputs.receipts[-1].digest:
        return None
    named = replace(inputs.request, activate=True, activation=str(last[0].outputs["snapshot"]))
    return last[0] if FUNCTIONS[Event.ACTIVATE].holds(replace(inputs, request=named), last[0], context) else None


@contextmanager
def _answering(*, again: bool = True) -> Iterator[None]:
    """Raise what a step raises as Temporal understands it: what may pass is tried again, and all else is not.

    Nothing is, but for workers that end, where ``again`` is false.
    """
    try:
        yield
    except Cancelled as error:
        details = activity.cancellation_details()
        if details is not None and details.worker_shutdown and not details.cancel_requested:
            raise ApplicationError("the worker ends", type="WorkerShutdown") from None
        raise CancelledError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where it was asked for
        raise ApplicationError(
            str(error)[:1000], type=type(error).__name__, non_retryable=not (again and passes(error))
        ) from None


async def work(
    client: Client,
    host: str,
    ready: Callable[[], object],
    wait: Callable[[], Any],
    checkpoint: Checkpoint = unwatched,
) -> None:
    """Do what is asked of ``host`` until ``wait()`` is over; what is being done then is left to the next worker."""
    did = Activities(host, checkpoint)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        async with (
            # Histories are short. Kept in memory, they would have a run wait for the worker that died with it.
            Worker(client, task_queue=QUEUE, workflows=[ImageWorkflow, ChangeWorkflow], max_cached_workflows=0),
            Worker(
                client,
                task_queue=queue_of(host),
                activities=[did.step, did.held, did.publish, did.change],
                activity_executor=threads,
                max_concurrent_activities=AT_ONCE,
                max_heartbeat_throttle_interval=timedelta(seconds=_BEAT_S),
                default_heartbeat_throttle_interval=timedelta(seconds=_BEAT_S),
            ),
        ):
            ready()
            await wait()
