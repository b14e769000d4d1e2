"""Where a run can be, and what leads from where to where: one table, which the runner, commands and pages read.

Knows: states, events, steps and their order. Refuses to know: what a step does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple

from blockwright.errors import InUse, UsageError


class State(Enum):
    """What is there of an image."""

    NEW = "new"
    """It is known what is meant, and nothing is here yet."""
    FETCHED = "fetched"
    """All bytes of it are here."""
    VERIFIED = "verified"
    """They are what the image says they are, and make a tree that is taken in."""
    SCANNED = "scanned"
    """There is a verdict, and it lets the image pass."""
    READY = "ready"
    """A volume holds its file system."""
    ACTIVE = "active"
    """A snapshot of the volume has a path."""
    FAILED = "failed"
    """A step failed for good; what the steps before it made is there."""
    CANCELLED = "cancelled"
    """Somebody had it stopped."""
    ABSENT = "absent"
    """It was removed, or never there."""


class Event(Enum):
    """What happens to an image. The first five are steps, and their values what receipts and metrics call them."""

    DOWNLOAD = "download"
    VERIFY = "verify"
    SCAN = "scan"
    CREATE = "create"
    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    FAIL = "fail"
    CANCEL = "cancel"
    RETRY = "retry"
    REMOVE = "remove"


class Transition(NamedTuple):
    """``event`` leads from any of ``sources`` to ``target``."""

    event: Event
    sources: frozenset[State]
    target: State
    meaning: str


_WORKING: Final = frozenset({State.NEW, State.FETCHED, State.VERIFIED, State.SCANNED})
_ENDED: Final = frozenset({State.FAILED, State.CANCELLED})

TRANSITIONS: Final = (
    Transition(Event.DOWNLOAD, frozenset({State.NEW}), State.FETCHED, "all bytes are here, of one version"),
    Transition(Event.VERIFY, frozenset({State.FETCHED}), State.VERIFIED, "digests hold, and the tree is taken in"),
    Transition(Event.SCAN, frozenset({State.VERIFIED}), State.SCANNED, "the verdict lets it pass"),
    Transition(Event.CREATE, frozenset({State.SCANNED}), State.READY, "a volume holds the file system"),
    Transition(Event.ACTIVATE, frozenset({State.READY, State.ACTIVE}), State.ACTIVE, "a snapshot has a path"),
    Transition(Event.DEACTIVATE, frozenset({State.ACTIVE}), State.READY, "no snapshot has a path"),
    Transition(Event.FAIL, _WORKING, State.FAILED, "a step failed for good"),
    Transition(Event.CANCEL, _WORKING, State.CANCELLED, "somebody had it stopped"),
    Transition(Event.RETRY, _ENDED, State.NEW, "goes on behind the last receipt that still holds"),
    Transition(Event.REMOVE, frozenset(State) - {State.ABSENT, State.ACTIVE}, State.ABSENT, "nothing is left of it"),
)
"""All there are."""

STEPS: Final = (Event.DOWNLOAD, Event.VERIFY, Event.SCAN, Event.CREATE)
"""What makes an image ready, in order; ``ACTIVATE`` follows where it is asked for."""

_BY_EVENT: Final[Mapping[Event, Transition]] = {each.event: each for each in TRANSITIONS}


def transition(event: Event) -> Transition:
    """Return what an event leads from and to."""
    return _BY_EVENT[event]


def check_transition(event: Event, name: str, state: State) -> State:
    """Return where the event leads. Raises InUse or UsageError where it cannot happen in that state."""
    found = _BY_EVENT[event]
    if state in found.sources:
        return found.target
    wanted = " or ".join(sorted(each.value for each in found.sources))
    text = f"{name}: {event.value}: expected an image that is {wanted}, found it {state.value}"
    raise InUse(text) if state is State.ACTIVE else UsageError(text)


def state_behind(done: Sequence[Event]) -> State:
    """Return the state of an image of which these steps are done."""
    return transition(done[-1]).target if done else State.NEW


def drawn(state: State, done: Sequence[Event]) -> list[str]:
    """Return the states that lead to a path in a line, the present one in brackets, and below it what may follow."""
    path = [State.NEW, *(transition(each).target for each in (*STEPS, Event.ACTIVATE))]
    at = state if state in path else state_behind(done)
    line = " -> ".join(f"[{each.value}]" if each is at else each.value for each in path)
    lines = [line if state in path else f"{line}  ({state.value})"]
    lines += [
        f"{each.event.value} -> {each.target.value}: {each.meaning}" for each in TRANSITIONS if state in each.sources
    ]
    return lines
