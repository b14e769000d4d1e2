"""What workflow, worker and client call things, and how long they wait.

Knows: names. Refuses to know: steps, and Temporal; a workflow's module imports nothing else of ours.
"""

from __future__ import annotations

from typing import Any, Final, NotRequired, TypedDict

QUEUE: Final = "blockwright"
"""The task queue of workflows, which any worker takes: they decide what comes next, and touch no machine."""
WORKFLOW: Final = "blockwright.run"
HELD: Final = "blockwright.held"
STEP: Final = "blockwright.step"
PUBLISH: Final = "blockwright.publish"
CHANGE_WORKFLOW: Final = "blockwright.image"
CHANGE: Final = "blockwright.change"
HEARTBEAT_S: Final = 10.0
"""A step whose worker was not heard of for so long is begun again."""
TRIES: Final = 8
"""How often a step is done that fails in a way that may pass, or whose worker dies."""
STEP_HOURS: Final = 24
"""The longest that one attempt may take."""


class Asked(TypedDict):
    """What a workflow is given: ``inputs`` as ``Inputs.document`` has them, with the receipts of an earlier one.

    ``trace`` is a traceparent, which its steps are given, too: so it is in history, and outlives whoever is at them.
    """

    host: str
    inputs: dict[str, Any]
    steps: list[str]
    heartbeat_s: float
    trace: str


class Change(TypedDict):
    """What is to be done to an image that is there: ``what`` is an event, ``name`` that of a snapshot, or empty.

    ``trace`` is the place in its trace of who asks for it.
    """

    host: str
    image: str
    what: str
    name: str
    snapshots: bool
    heartbeat_s: float
    trace: NotRequired[str]


class Done(TypedDict):
    """What comes of a workflow: receipts in order, and which steps it did itself."""

    receipts: list[dict[str, Any]]
    did: list[str]


class Known(TypedDict):
    """What a catalogue is told: inputs with all receipts, and where it ended that failed."""

    inputs: dict[str, Any]
    trace: str
    created_ns: int
    failed: str
    trouble: str
    cancelled: bool


def queue_of(host: str) -> str:
    """Return the task queue that only workers of that host take from."""
    return f"{QUEUE}@{host}"


def change_of(host: str, image: str) -> str:
    """Return the id of the workflow that changes an image: one at a time does."""
    return f"{QUEUE}-{host}-{image}-change"


def workflow_of(host: str, run: str) -> str:
    """Return the workflow's id: equal for whoever asks for the same volume on the same host."""
    return f"{QUEUE}-{host}-{run}"
