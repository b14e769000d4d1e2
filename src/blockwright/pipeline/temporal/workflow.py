"""The workflows: one step behind the other on the host that is to have the volume, each with its receipt in history.

It is replayed, so it asks neither clock nor machine, and imports nothing that does. All steps are on one host, since
each works on files that the one before left there.

Knows: the order of things. Refuses to know: what steps do.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType

from blockwright.pipeline.temporal.words import (
    CHANGE,
    CHANGE_WORKFLOW,
    HELD,
    PUBLISH,
    STEP,
    STEP_HOURS,
    TRIES,
    WORKFLOW,
    Asked,
    Change,
    Done,
    Known,
    queue_of,
)

_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=0.5), maximum_interval=timedelta(seconds=30), maximum_attempts=TRIES
)

_EPOCH = datetime.fromtimestamp(0, UTC)


@workflow.defn(name=WORKFLOW)
class ImageWorkflow:
    """A run."""

    def __init__(self) -> None:
        self._at = ""

    @workflow.query
    def step(self) -> str:
        """Return the step that the run is at, empty before the first and behind the last."""
        return self._at

    @workflow.run
    async def run(self, asked: Asked) -> Done:
        """Have the steps done that were asked for and that no receipt tells of which still holds."""
        receipts: list[dict[str, Any]] = []
        did: list[str] = []
        try:
            if asked["inputs"]["receipts"]:
                earlier = asked["inputs"] | {"trace": asked["trace"]}
                receipts = await _activity(asked["host"], HELD, earlier, asked["heartbeat_s"])
            for step in asked["steps"][len(receipts) :]:
                self._at = step
                _check_wanted()
                inputs = asked["inputs"] | {"receipts": receipts}
                given = {"step": step, "inputs": inputs, "trace": asked["trace"]}
                receipts.append(await _activity(asked["host"], STEP, given, asked["heartbeat_s"]))
                did.append(step)
        except BaseException as error:
            if is_cancelled_exception(error):
                await self._publish(asked, receipts, "was cancelled", cancelled=True)
            elif isinstance(error, ActivityError):
                cause = error.cause
                text = cause.message if isinstance(cause, ApplicationError) else str(cause or error)
                await self._publish(asked, receipts, text)
            raise
        self._at = ""
        await self._publish(asked, receipts)
        return {"receipts": receipts, "did": did}

    async def _publish(
        self, asked: Asked, receipts: list[dict[str, Any]], trouble: str = "", *, cancelled: bool = False
    ) -> None:
        known: Known = {
            "inputs": asked["inputs"] | {"receipts": receipts},
            "trace": asked["trace"],
            "created_ns": (workflow.info().start_time - _EPOCH) // timedelta(microseconds=1) * 1000,
            "failed": self._at if trouble else "",
            "trouble": trouble,
            "cancelled": cancelled,
        }
        telling = asyncio.ensure_future(_activity(asked["host"], PUBLISH, known, asked["heartbeat_s"]))
        try:
            await asyncio.shield(telling)
        except asyncio.CancelledError:  # all is done by now: the catalogue hears of that, whoever wants it no more
            await telling
            if not trouble:
                return
            raise


@workflow.defn(name=CHANGE_WORKFLOW)
class ChangeWorkflow:
    """A change of an image that is there, on the host that has it."""

    @workflow.run
    async def run(self, change: Change) -> dict[str, Any]:
        """Have it changed, and return what came of that."""
        found: dict[str, Any] = await _activity(change["host"], CHANGE, change, change["heartbeat_s"])
        return found


async def _activity(host: str, name: str, given: Any, heartbeat_s: float) -> Any:
    return await workflow.execute_activity(
        name,
        given,
        task_queue=queue_of(host),
        start_to_close_timeout=timedelta(hours=STEP_HOURS),
        heartbeat_timeout=timedelta(seconds=heartbeat_s),
        retry_policy=_RETRY,
        cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    )


def _check_wanted() -> None:
    """Return where nobody had the run cancelled while a step was ended that did not hear of it any more."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
