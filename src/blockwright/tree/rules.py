"""What is taken in of an archive that nobody vouches for: budgets, and which extended attributes.

Knows: the limits, their defaults, and which attributes any archive may set. Refuses to know: formats, and where a
limit is looked at.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from blockwright.errors import ArchiveRejected, Rejection
from blockwright.units import GiB, MiB, TiB


class Xattrs(Enum):
    """Which extended attributes of an archive are kept.

    ``safe`` are those that mean the same wherever a file goes: ``user.*``, capabilities and POSIX ACLs. Labels of
    security modules and ``trusted.*`` are decisions of the host that packed them; ``all`` keeps them too.
    """

    SAFE = "safe"
    ALL = "all"
    NONE = "none"


_SAFE: Final = frozenset({b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"})


@dataclass(frozen=True, slots=True)
class ArchiveRules:
    """Budgets for one archive, or for all layers of an image together; what goes over one is refused as a whole.

    ``size`` is bytes that come out: of a decoder, and of all files with their holes counted. ``ratio`` is how many
    bytes may come out for one that goes in, looked at behind the first ``ratio_from`` bytes. ``entries`` are names
    in the tree. ``spool`` is bytes of a container image that passes once and is kept in a file. ``depth`` is of
    directories, ``path`` bytes of a name. ``header`` is bytes of one extended header,
    ``metadata`` those of all link targets and attributes. ``memory`` bounds a decoder's window. ``time_s`` is the
    clock's, from the first byte on; None is without end.
    """

    size: int = 4 * TiB
    ratio: int = 250
    ratio_from: int = GiB
    entries: int = 1 << 22
    depth: int = 256
    path: int = 4096
    header: int = MiB
    metadata: int = GiB
    memory: int = 128 * MiB
    spool: int = 64 * GiB
    time_s: float | None = None
    xattrs: Xattrs = Xattrs.SAFE

    def keeps_xattr(self, name: bytes) -> bool:
        """Whether an extended attribute of this name is kept."""
        if self.xattrs is Xattrs.SAFE:
            return name.startswith(b"user.") or name in _SAFE
        return self.xattrs is Xattrs.ALL


DEFAULT_RULES: Final = ArchiveRules()


@dataclass(slots=True)
class Remarks:
    """What was not taken as it stands, and is no reason to refuse: told once, behind the work.

    ``replaced`` counts entries whose name a later entry of the same archive took; ``dropped_xattrs`` is by name.
    """

    replaced: int = 0
    dropped_xattrs: Counter[bytes] = field(default_factory=Counter)


class Budget:
    """What one archive has used of its rules so far. ``source`` is what messages call it."""

    __slots__ = ("_deadline", "_rules", "source")

    def __init__(self, rules: ArchiveRules, source: str) -> None:
        self._rules = rules
        self.source = source
        self._deadline = None if rules.time_s is None else time.monotonic() + rules.time_s

    def check(self, came_out: int, went_in: int) -> None:
        """Raise ArchiveRejected where so many bytes of output, for so many of input, or the time are too much."""
        rules = self._rules
        if came_out > rules.size:
            raise self._over(Rejection.BYTES, f"size: expected at most {rules.size} bytes, found more", went_in)
        if came_out > rules.ratio_from and came_out > rules.ratio * went_in:
            raise self._over(
                Rejection.RATIO,
                f"ratio: expected at most {rules.ratio} bytes for one of the input, found {came_out} for {went_in}",
                went_in,
            )
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise self._over(
                Rejection.SECONDS, f"time: expected the end within {rules.time_s:g} s, found more", went_in
            )

    def _over(self, reason: Rejection, message: str, offset: int) -> ArchiveRejected:
        return ArchiveRejected(reason, message, source=self.source, offset=offset)
