"""What a check is, and what it may find.

Knows: the shape of a check and of a result, and the list that checks enter themselves in.
Refuses to know: how a server is spoken to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from blockwright.nbd.conformance.probe import Probe

Run = Callable[["Probe"], None]


class Level(Enum):
    """How much a rule binds: the document's words, or ADVICE for what it leaves open and a sound server does."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    ADVICE = "ADVICE"


class Outcome(Enum):
    """What became of a check. ERROR says that nothing was learnt: the server could not be reached, or the like."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"
    ERROR = "error"


class Need(Enum):
    """What a check takes for granted; where it is missing, the check is not applicable and says why."""

    EXPORT = "an export that can be entered"
    MANY = "a server that takes two connections at once"
    OFFERS_TLS = "a server that offers TLS"
    NO_TLS = "a server without TLS"
    FORCED_TLS = "a server that insists on TLS"
    SELECTIVE_TLS = "a server that offers TLS and does not insist on it"
    TLS = "an address with TLS (nbds)"
    INFO = "INFO"
    STRICT_NAMES = "a server that knows its exports by name"
    ZEROES_KEPT = "a server that does not offer NO_ZEROES"
    STRUCTURED = "structured replies"
    EXTENDED = "extended headers"
    CONTEXTS = "metadata contexts"
    ALLOCATION = "base:allocation"
    WRITABLE = "a writable export"
    READ_ONLY = "a read-only export"
    FLUSH = "FLUSH"
    FUA = "FUA"
    TRIM = "TRIM"
    ZEROES = "WRITE_ZEROES"
    FAST_ZERO = "FAST_ZERO"
    NO_FAST_ZERO = "WRITE_ZEROES without FAST_ZERO"
    CACHE = "CACHE"
    NO_CACHE = "an export that does not advertise CACHE"
    DF = "DF"
    NO_DF = "structured replies without DF"
    MULTI_CONN = "CAN_MULTI_CONN"
    RESIZE_UNKNOWN = "an export that does not advertise RESIZE"
    PAYLOAD_FILTER = "BLOCK_STATUS_PAYLOAD"
    BLOCK_SIZES = "advertised block sizes"
    COARSE_BLOCKS = "an advertised minimum block over 1 byte"
    SMALL_MAXIMUM = "an advertised maximum below the export's size"
    NO_MAXIMUM = "no advertised maximum, and an export of 33 MiB"


@dataclass(frozen=True, slots=True)
class Check:
    """One rule. ``id`` never changes its meaning; ``section`` is the heading in doc/proto.md that states the rule.

    ``writes`` changes the export for a moment and puts back what was there; ``slow`` waits for half a minute.
    """

    id: str
    title: str
    level: Level
    section: str
    needs: tuple[Need, ...]
    writes: bool
    slow: bool
    run: Run


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found. ``message`` is empty where it passed: else what was expected and found, or the reason."""

    check: Check
    outcome: Outcome
    message: str = ""


class Failed(Exception):
    """The server broke the rule."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}, found {found}")


class Ended(Failed):
    """The server closed the connection where it had something to say."""

    def __init__(self, expected: str = "an answer", found: str = "the connection closed") -> None:
        super().__init__(expected, found)


class NotApplicable(Exception):
    """The rule says nothing of this server; the message says why."""


CHECKS: Final[list[Check]] = []
"""Every check, in the order in which the modules list them; ``blockwright.nbd.conformance`` fills it."""


def rule(
    identity: str,
    title: str,
    level: Level,
    section: str,
    *needs: Need,
    writes: bool = False,
    slow: bool = False,
) -> Callable[[Run], Run]:
    """Enter a function in the list as the check ``identity``."""

    def enter(run: Run) -> Run:
        assert all(each.id != identity for each in CHECKS), f"{identity} is there twice"
        CHECKS.append(Check(identity, title, level, section, needs, writes, slow, run))
        return run

    return enter


def fail(expected: str, found: str) -> NoReturn:
    """End a check: the rule is broken."""
    raise Failed(expected, found)
