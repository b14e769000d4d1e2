"""What is seen and said of pools and volumes, as values: what there really is, how full it is, what was put right.

Knows: their shape. Refuses to know: who looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blockwright.volume.info import State


@dataclass(frozen=True, slots=True)
class Found:
    """What there really is of a volume, as ``Driver._observe`` sees it; None is what cannot be seen.

    ``path`` is where it is active, ``mount_point`` where that is mounted.
    """

    id: int
    name: str | None = None
    size: int | None = None
    origin: str | None = None
    path: str | None = None
    read_only: bool = False
    mount_point: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """The state that a volume of which there is this is in."""
        if self.mount_point is not None:
            return State.MOUNTED
        return State.INACTIVE if self.path is None else State.ACTIVE


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """How full a pool is, in bytes; ``metadata_total`` is 0 where that has no space of its own.

    ``up`` says whether its volumes can be used, ``health`` what is wrong, empty for nothing, and ``detail`` is the
    driver's, as JSON has it.
    """

    up: bool
    data_used: int
    data_total: int
    metadata_used: int = 0
    metadata_total: int = 0
    health: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Reconciled:
    """What ``reconcile`` did, each as a line: operations that were finished or undone, volumes that were adopted,
    lost, or found to be otherwise than recorded. ``damaged`` are those that are there and cannot be used.
    """

    finished: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    corrected: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """All of it, as text."""
        named = {
            "finished": self.finished,
            "undone": self.undone,
            "adopted": self.adopted,
            "lost": self.lost,
            "corrected": self.corrected,
            "damaged": self.damaged,
        }
        return [f"{what}: {each}" for what, lines in named.items() for each in lines]
