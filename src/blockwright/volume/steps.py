"""What an operation consists of: steps in order, each with a name, and what takes them back.

Every step can be done twice: whoever died behind it, or within it, has it done again. So the list is also the list of
the places at which a process can die, and ``Checkpoint`` is told of each of them.

Knows: the order of things. Refuses to know: what a step does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from blockwright.volume.info import Operation, VolumeInfo

Checkpoint = Callable[[str], None]
"""Called with a name between any two things that are done; whatever it raises ends the operation there."""


def unwatched(_name: str) -> None:
    """Let everything go on."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do, which may be done again without harm.

    ``unlocked`` lets others work in the pool meanwhile: for what may take long. The intent keeps them off the volume.
    """

    name: str
    do: Callable[[], None]
    unlocked: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """An operation on one volume: how it is ``before``, None where there is none yet, and is to be ``after``.

    ``origin`` is what a snapshot is taken of. ``extra`` is what the driver has decided in advance, as JSON has it, so
    that whoever finds the change in the journal comes to the same steps.
    """

    operation: Operation
    before: VolumeInfo | None
    after: VolumeInfo
    origin: VolumeInfo | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The volumes that nothing else may be done to meanwhile: its own, its origin, and ``names`` of ``extra``."""
        origin = set() if self.origin is None else {self.origin.name}
        return {self.after.name, *origin, *map(str, self.extra.get("names", ()))}

    def document(self) -> dict[str, Any]:
        """Return the change as JSON has it."""
        return {
            "before": None if self.before is None else self.before.document(),
            "after": self.after.document(),
            "origin": None if self.origin is None else self.origin.document(),
            "extra": dict(self.extra),
        }

    @classmethod
    def parse(cls, operation: str, document: Mapping[str, Any]) -> Self:
        """Return what ``document`` was made of. Raises KeyError, TypeError, ValueError for anything else."""
        before, origin = document["before"], document["origin"]
        return cls(
            Operation(operation),
            None if before is None else VolumeInfo.parse(before),
            VolumeInfo.parse(document["after"]),
            None if origin is None else VolumeInfo.parse(origin),
            document["extra"],
        )


def _as_it_is(after: VolumeInfo) -> VolumeInfo:
    return after


def _nothing(_db: sqlite3.Connection) -> None:
    """Record nothing besides the volume."""


def _no_more() -> None:
    """Do nothing further."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a driver makes a change.

    ``steps`` are done in order. What fails runs ``undo``, and so does, later, what finds that the process has died,
    unless ``forward``: then ``steps`` are run again from the first, and where there is no ``undo`` a failure behind
    the first step leaves the rest to be done later. Behind the last step ``result`` is asked for the volume as it is
    now, and ``record`` called in the transaction that puts it on record and ends the intent. What ``then`` returns
    behind that becomes the next intent in the same transaction; it is made with the lock held throughout, and has no
    part in whether this one succeeded. ``release`` is called in the end, whatever happened, by whoever ran steps.
    """

    steps: tuple[Step, ...] = ()
    undo: tuple[Step, ...] = ()
    forward: bool = False
    result: Callable[[VolumeInfo], VolumeInfo] = _as_it_is
    record: Callable[[sqlite3.Connection], None] = _nothing
    then: Callable[[], Change | None] = _no_more
    release: Callable[[], None] = _no_more
