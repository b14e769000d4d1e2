"""One thing that was looked for.

Knows: the shape. Refuses to know: what is looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How it stands with a thing. ABSENT: systems of this kind have none, and nothing brings it."""

    READY = "ready"
    MISSING = "missing"
    UNKNOWN = "unknown"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Line:
    """A thing: ``topic`` and ``name``, ``found`` of it, what it ``gives``, and the ``remedy`` where it is missing."""

    topic: str
    name: str
    state: State
    found: str
    gives: str
    remedy: str = ""
