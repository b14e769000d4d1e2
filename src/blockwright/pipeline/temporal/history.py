"""What Temporal's history has of a run: what it was asked for, and the receipts of the steps that came to their end.

Read from events, so it needs no worker, and a run that failed or was cancelled tells as much as one that is done.

Knows: events. Refuses to know: what receipts mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from blockwright.errors import Corrupt
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.states import Event, State, state_behind
from blockwright.pipeline.temporal.words import HELD, STEP


@dataclass(frozen=True, slots=True)
class Known:
    """A run as history has it. ``status`` is None for one that is not over."""

    inputs: Inputs
    steps: Sequence[Event]
    receipts: Sequence[Receipt]
    trace: str
    status: WorkflowExecutionStatus | None

    @property
    def state(self) -> State:
        """Where it is."""
        if self.status is WorkflowExecutionStatus.CANCELED:
            return State.CANCELLED
        if self.status in (None, WorkflowExecutionStatus.COMPLETED):
            return state_behind([each.step for each in self.receipts])
        return State.FAILED


async def known(client: Client, workflow: str) -> Known | None:
    """Return the latest run of that id, None where there is none. Raises RPCError, Corrupt."""
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow)
    try:
        described = await handle.describe()
        found = client.get_workflow_handle(workflow, run_id=described.run_id)
        return await _read(client, found, described.status)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise


async def _read(client: Client, handle: WorkflowHandle[Any, Any], status: WorkflowExecutionStatus | None) -> Known:
    asked: dict[str, Any] | None = None
    names: dict[int, str] = {}
    receipts: list[dict[str, Any]] = []

    async def decoded(payloads: Any) -> Any:
        return (await client.data_converter.decode(payloads.payloads))[0]

    async for event in handle.fetch_history_events():
        if event.HasField("workflow_execution_started_event_attributes"):
            asked = await decoded(event.workflow_execution_started_event_attributes.input)
            receipts = list(asked["inputs"]["receipts"]) if asked else []
        elif event.HasField("activity_task_scheduled_event_attributes"):
            names[event.event_id] = event.activity_task_scheduled_event_attributes.activity_type.name
        elif event.HasField("activity_task_completed_event_attributes"):
            done = event.activity_task_completed_event_attributes
            name = names.get(done.scheduled_event_id)
            if name == HELD:
                receipts = await decoded(done.result)
            elif name == STEP:
                receipts.append(await decoded(done.result))
    if asked is None:
        raise Corrupt("temporal: expected a history with what was asked for, found none")
    return Known(
        Inputs.parse(asked["inputs"]),
        [Event(each) for each in asked["steps"]],
        [Receipt.parse(each) for each in receipts],
        str(asked.get("trace") or ""),
        None if status is WorkflowExecutionStatus.RUNNING else status,
    )
