"""What a step has done, for good: a value that the next step takes, and that can be looked at again later.

Each receipt has the digest of the one before, so a chain of them cannot be changed in its middle.

Knows: their shape. Refuses to know: any step, and where receipts are kept.
"""

from __future__ import annotations

import hashlib
import platform
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Self

from blockwright._version import __version__
from blockwright.errors import Corrupt
from blockwright.pipeline.request import canonical
from blockwright.pipeline.states import Event

SCHEMA: Final = "blockwright.receipt/1"
MAX_RECEIPT: Final = 256 << 20
"""Bytes of a receipt as JSON."""


@cache
def tools() -> dict[str, str]:
    """Return the versions of what takes part in every step."""
    return {"blockwright": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}


@dataclass(frozen=True, slots=True)
class Receipt:
    """``step`` of ``run`` is done: ``outputs`` say what came of it, as JSON has it.

    ``started_ns`` and ``finished_ns`` are of the clock; ``host`` is the machine; ``attempt`` counts from 1 on;
    ``before`` is the digest of the receipt of the step before, empty for the first. ``used`` are versions of tools.
    """

    run: str
    step: Event
    outputs: Mapping[str, Any]
    started_ns: int
    finished_ns: int
    host: str
    attempt: int = 1
    before: str = ""
    used: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long the step took; not below zero where the clock was set."""
        return max(0, self.finished_ns - self.started_ns) / 1e9

    def document(self) -> dict[str, Any]:
        """Return the receipt as JSON has it."""
        return {
            "schema": SCHEMA,
            "run": self.run,
            "step": self.step.value,
            "attempt": self.attempt,
            "started_ns": self.started_ns,
            "finished_ns": self.finished_ns,
            "host": self.host,
            "tools": dict(self.used),
            "before": self.before,
            "outputs": dict(self.outputs),
        }

    @property
    def digest(self) -> str:
        """What the next receipt calls this one."""
        return f"sha256:{hashlib.sha256(canonical(self.document())).hexdigest()}"

    @classmethod
    def parse(cls, document: Mapping[str, Any], source: str | None = None) -> Self:
        """Return what ``document`` was made of. Raises Corrupt for anything else."""
        try:
            if (
                not isinstance(document, Mapping)
                or document["schema"] != SCHEMA
                or not isinstance(document["outputs"], Mapping)
            ):
                raise ValueError("another document")
            return cls(
                str(document["run"]),
                Event(document["step"]),
                document["outputs"],
                int(document["started_ns"]),
                int(document["finished_ns"]),
                str(document["host"]),
                int(document["attempt"]),
                str(document["before"]),
                {str(name): str(value) for name, value in document["tools"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise Corrupt(f"receipt: expected {SCHEMA}, found {error}", source=source) from None


def check_chain(receipts: Sequence[Receipt], source: str | None = None) -> None:
    """Return where each receipt names the one before it. Raises Corrupt."""
    before = ""
    for each in receipts:
        if each.before != before:
            raise Corrupt(f"receipt: {each.step.value}: expected it behind {before or 'nothing'}", source=source)
        before = each.digest
