"""The workflow: one step behind the other on the host that is to have the volume, each with its receipt in history.

It is replayed, so it asks neither clock nor machine, and imports nothing that does. All steps are on one host, since
each works on files that the one before left there.

Knows: the order of things. Refuses to know: what steps do.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception
from temporalio.workflow import ActivityCancellationType

from blockwright.pipeline.temporal.words import (
    HELD,
    PUBLISH,
    STEP,
    STEP_HOURS,
    TRIES,
    WORKFLOW,
    Asked,
    Done,
    Known,
    queue_of,
)

_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=0.5), maximum_interval=timedelta(seconds=30), maximum_attempts=TRIES
)


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
                receipts = await self._activity(asked, HELD, asked["inputs"])
            for step in asked["steps"][len(receipts) :]:
                self._at = step
                _check_wanted()
                given = {"step": step, "inputs": asked["inputs"] | {"receipts": receipts}}
                receipts.append(await self._activity(asked, STEP, given))
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
            "created_ns": int(workflow.info().start_time.timestamp()) * 10**9,
            "failed": self._at if trouble else "",
            "trouble": trouble,
            "cancelled": cancelled,
        }
        await self._activity(asked, PUBLISH, known)

    async def _activity(self, asked: Asked, name: str, given: Any) -> Any:
        return await workflow.execute_activity(
            name,
            given,
            task_queue=queue_of(asked["host"]),
            start_to_close_timeout=timedelta(hours=STEP_HOURS),
            heartbeat_timeout=timedelta(seconds=asked["heartbeat_s"]),
            retry_policy=_RETRY,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )


def _check_wanted() -> None:
    """Return where nobody had the run cancelled while a step was ended that did not hear of it any more."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
