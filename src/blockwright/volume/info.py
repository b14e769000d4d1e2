"""What a volume is, as a value; what its states are, and which operation leads from which to which.

Knows: names, states, transitions. Refuses to know: drivers, and how anything is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Final, Self

from blockwright.errors import InUse, NotFound, UsageError
from blockwright.units import MAX_SIZE, SECTOR

MAX_NAME: Final = 63
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
SIZE_UNIT: Final = SECTOR
"""What a volume's size is a multiple of, in bytes."""


class State(Enum):
    """Where a volume is in its life."""

    ABSENT = "absent"
    """There is none of that name."""
    INACTIVE = "inactive"
    """It exists, and nobody sees it as a device or path."""
    ACTIVE = "active"
    """It has a ``path``."""
    MOUNTED = "mounted"
    """Its path is mounted at ``mount_point``."""
    LOST = "lost"
    """It was recorded, and what it consisted of is gone: to be removed, or to come back."""


class Operation(Enum):
    """What is done to volumes. The values are what the journal and the metrics call it."""

    CREATE = "create"
    SNAPSHOT = "snapshot"
    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    GROW = "grow"
    MOUNT = "mount"
    UNMOUNT = "unmount"
    REMOVE = "remove"
    TIDY = "tidy"
    """What a driver has to do behind another operation, and can do any time: merge layers, remove files."""


_THERE: Final = frozenset({State.INACTIVE, State.ACTIVE, State.MOUNTED})

TRANSITIONS: Final[Mapping[Operation, tuple[frozenset[State], State | None]]] = {
    Operation.CREATE: (frozenset({State.ABSENT}), State.INACTIVE),
    Operation.SNAPSHOT: (frozenset({State.ABSENT}), State.INACTIVE),  # of the new volume; its origin is _THERE
    Operation.ACTIVATE: (frozenset({State.INACTIVE}), State.ACTIVE),
    Operation.DEACTIVATE: (frozenset({State.ACTIVE}), State.INACTIVE),
    Operation.GROW: (_THERE, None),
    Operation.MOUNT: (frozenset({State.ACTIVE}), State.MOUNTED),
    Operation.UNMOUNT: (frozenset({State.MOUNTED}), State.ACTIVE),
    Operation.REMOVE: (frozenset({State.INACTIVE, State.LOST}), State.ABSENT),
    Operation.TIDY: (frozenset(State), None),
}
"""From which states an operation may start, and where it leads; None where the state stays."""


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume as it is recorded. ``id`` is never used again within its pool; ``size`` in bytes.

    ``origin`` is the volume that it was a snapshot of, by name, None where it is none. ``path`` is the device or file
    that it is active as, and ``read_only`` whether as such; ``mount_point`` where it is mounted. ``wanted`` is the
    state that was asked for last, which ``pool up`` brings back. ``extra`` is its driver's, as JSON has it.
    """

    pool: str
    name: str
    id: int
    size: int
    origin: str | None = None
    state: State = State.INACTIVE
    read_only: bool = False
    path: str | None = None
    mount_point: str | None = None
    wanted: State = State.INACTIVE
    created_ns: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """How the volume is named wherever an image is."""
        return f"volume:{self.pool}/{self.name}"

    def document(self) -> dict[str, Any]:
        """Return the volume as JSON has it."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return found | {"state": self.state.value, "wanted": self.wanted.value, "extra": dict(self.extra)}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Return what ``document`` was made of. Raises KeyError, TypeError, ValueError for anything else."""
        return cls(
            **{**document, "state": State(document["state"]), "wanted": State(document["wanted"])},
        )

    def with_extra(self, **values: Any) -> Self:
        """Return the volume with other values of its driver."""
        return replace(self, extra={**self.extra, **values})


def check_name(name: str, what: str = "volume") -> str:
    """Return a name that a file, a device and an address can have. Raises UsageError."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise UsageError(
            f"{what} {name[:80]!r}: expected a name of 1 to {MAX_NAME} letters, digits, '.', '_' and '-', "
            "which begins with a letter or digit"
        )
    return name


def check_size(size: int) -> int:
    """Return a size that a volume can have. Raises UsageError."""
    if not SIZE_UNIT <= size <= MAX_SIZE - SIZE_UNIT + 1 or size % SIZE_UNIT:
        raise UsageError(f"size: expected a multiple of {SIZE_UNIT} bytes from {SIZE_UNIT} on, found {size}")
    return size


def check_transition(operation: Operation, name: str, state: State) -> None:
    """Return where the operation may start from the state.

    Raises NotFound for a volume that is not there, UsageError for one that is and should not be, InUse otherwise.
    """
    allowed, _ = TRANSITIONS[operation]
    if state in allowed:
        return
    if state is State.ABSENT:
        raise NotFound(f"{name}: no such volume")
    if allowed == {State.ABSENT}:
        raise UsageError(f"{name}: exists: expected a name that no volume has")
    if state is State.LOST:
        raise NotFound(f"{name}: is lost: what it consisted of is gone; it can only be removed")
    wanted = " or ".join(sorted(each.value for each in allowed))
    raise InUse(f"{name}: {operation.value}: expected a volume that is {wanted}, found it {state.value}")


def parse_volume_name(text: str) -> tuple[str | None, str]:
    """Return (pool, volume) of ``POOL/NAME`` or ``NAME``, which says no pool. Raises UsageError."""
    pool, slash, name = text.partition("/")
    if not slash:
        return None, check_name(text)
    return check_name(pool, "pool"), check_name(name)
