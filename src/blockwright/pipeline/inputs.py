"""What a step works on, as a value: it can go to another process, or to another machine.

Knows: its shape. Refuses to know: what steps do with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from blockwright.errors import Corrupt
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import Event

_RUN: Final = re.compile(r"[0-9a-f]{1,64}").fullmatch
"""What a run is called by, which folders and locks are named after."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a step works on: the run, what was asked for, which source that is, and what the steps before did."""

    run: str
    request: Request
    identity: Mapping[str, Any]
    volume: str
    receipts: Sequence[Receipt] = ()

    def outputs(self, step: Event) -> Mapping[str, Any]:
        """Return what came of an earlier step. Raises Corrupt where there is no receipt of it."""
        for each in self.receipts:
            if each.step is step:
                return each.outputs
        raise Corrupt(f"run {self.run}: expected a receipt of {step.value}, found none")

    def document(self) -> dict[str, Any]:
        """Return the inputs as JSON has them."""
        return {
            "run": self.run,
            "request": self.request.document(),
            "identity": dict(self.identity),
            "volume": self.volume,
            "receipts": [each.document() for each in self.receipts],
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """Return what ``document`` was made of. Raises Corrupt for anything else."""
        for name, kind in (("run", str), ("request", dict), ("identity", dict), ("volume", str), ("receipts", list)):
            found = document.get(name)
            if type(found) is not kind:
                raise Corrupt(f"inputs: {name}: expected {kind.__name__}, found {type(found).__name__}")
        if not _RUN(document["run"]):
            raise Corrupt(f"inputs: run: expected hexadecimal digits, found {document['run'][:64]!r}")
        return cls(
            document["run"],
            Request.parse(document["request"]),
            document["identity"],
            document["volume"],
            tuple(Receipt.parse(each) for each in document["receipts"]),
        )
