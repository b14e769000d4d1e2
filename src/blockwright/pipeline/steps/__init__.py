"""The steps, by name: what each does, whether what it did still holds, and what takes it back.

Knows: which function is which. Refuses to know: what they do, and who calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from blockwright.pipeline.context import Context
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.states import Event
from blockwright.pipeline.steps import activate, create, download, scan, verify


class Step(NamedTuple):
    """``do`` may be called again at any time, and returns a receipt of the same.

    ``holds`` says whether what a receipt tells of is still there. ``undo`` removes what a ``do`` that raised may have
    left.
    """

    do: Callable[[Inputs, Context], Receipt]
    holds: Callable[[Inputs, Receipt, Context], bool]
    undo: Callable[[Inputs, Context], None]


STEPS: Final[Mapping[Event, Step]] = {
    Event.DOWNLOAD: Step(download.do, download.holds, download.undo),
    Event.VERIFY: Step(verify.do, verify.holds, verify.undo),
    Event.SCAN: Step(scan.do, scan.holds, scan.undo),
    Event.CREATE: Step(create.do, create.holds, create.undo),
    Event.ACTIVATE: Step(activate.do, activate.holds, activate.undo),
}
