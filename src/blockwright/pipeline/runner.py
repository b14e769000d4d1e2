"""The embedded runner: steps one behind the other, each committed under the run's lease.

Whoever asks for a run that another process is at waits for it. A run goes on behind the last receipt that still
holds. What fails and may succeed later is tried again, a few times, with longer pauses; what fails for good has its
traces removed.

Knows: the order of things. Refuses to know: what steps do, and how runs are recorded.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from blockwright.errors import (
    BlockwrightError,
    Cancelled,
    ConnectionLost,
    InUse,
    StoreError,
)
from blockwright.journal import Lease
from blockwright.pipeline import sboms, tracing
from blockwright.pipeline.context import Context, cancelled
from blockwright.pipeline.home import Home
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.locks import pauses
from blockwright.pipeline.receipt import Receipt, check_chain
from blockwright.pipeline.records import Run, Runs
from blockwright.pipeline.states import STEPS, Event, State, state_behind
from blockwright.pipeline.steps import STEPS as FUNCTIONS
from blockwright.pipeline.steps import scan

TRIES: Final = 4
"""How often a step is done that fails in a way that may pass."""
BACKOFF_S: Final = 0.5
"""Seconds before it is done again; twice as long each time."""
_PASSING: Final = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)
_LOOK_S: Final = 0.5
"""How often a run looks whether it is still wanted."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: the run, and its receipts in order. ``fresh`` is what this call did, none for a second."""

    run: Run
    receipts: Sequence[Receipt]
    fresh: Sequence[Event]

    def receipt(self, step: Event) -> Receipt | None:
        """Return the receipt of a step."""
        return next((each for each in self.receipts if each.step is step), None)


def passes(error: BaseException) -> bool:
    """Whether what failed so may succeed when it is done again."""
    if isinstance(error, StoreError):
        return not error.permanent
    if isinstance(error, ConnectionLost | InUse):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


class Runner:
    """Runs of one journal. ``sleep`` waits before a step is done again."""

    def __init__(self, runs: Runs, context: Context, sleep: Callable[[float], None] = time.sleep) -> None:
        self._runs = runs
        self._context = context
        self._sleep = sleep

    def run(self, wanted: Run) -> Outcome:
        """Have the run done, whoever does it, and return what it came to.

        Raises what its step raised, which is on record then, Cancelled where it was stopped.
        """
        settled = self._settled(wanted)
        if settled is not None:
            return settled
        with self._lease(wanted.id) as lease:
            settled = self._settled(wanted)  # by whoever had the lease before
            if settled is not None:
                return settled
            known = self._runs.find(wanted.id) or wanted
            with self._context, tracing.trace(wanted.id, known.trace) as trace:
                run = self._runs.begin(replace(wanted, trace=trace), lease)
                return self._go(replace(run, request=wanted.request), lease)

    @contextmanager
    def _lease(self, run: str) -> Iterator[Lease]:
        """Have the run's lease, which is waited for."""
        for pause in pauses():
            try:
                lease = self._runs.take(run)
                break
            except InUse:
                self._sleep(pause)
        try:
            yield lease
        finally:
            self._runs.give_back(lease)

    def _settled(self, wanted: Run) -> Outcome | None:
        """Return what a run came to that has nothing left to do, None where it has."""
        run = self._runs.find(wanted.id)
        if run is None or run.state not in (State.READY, State.ACTIVE):
            return None
        run = replace(run, request=wanted.request)
        receipts = self._runs.receipts(run.id)
        asked = wanted_steps(run)
        if any(each not in {one.step for one in receipts} for each in asked):
            return None
        if len(covered(run, receipts, self._context.home)) < len(receipts):
            return None
        made = run.inputs(receipts)
        last = next(each for each in reversed(receipts) if each.step in asked)
        base = next(each for each in receipts if each.step is STEPS[-1])
        for each in {last.step: last, base.step: base}.values():
            if not FUNCTIONS[each.step].holds(made, each, self._context):
                return None
        return Outcome(run, receipts, ())

    def _go(self, run: Run, lease: Lease) -> Outcome:
        run = self._still_active(run)
        receipts = self._held(run, lease)
        self._watch(run.id)
        fresh: list[Event] = []
        for position, step in enumerate(wanted_steps(run)):
            if position < len(receipts):
                continue
            receipt = self._step(run.inputs(receipts), step, lease)
            self._commit(run, lease, receipt, position)
            receipts.append(receipt)
            fresh.append(step)
        return Outcome(replace(self._runs.get(run.id), request=run.request), receipts, fresh)

    def _still_active(self, run: Run) -> Run:
        """Return a run that is asked for what it has: a snapshot that is active stays so on record, too."""
        last = self._runs.receipts(run.id)[-1:]
        if run.request.activate or not last or last[0].step is not Event.ACTIVATE:
            return run
        named = replace(run, request=replace(run.request, activate=True, activation=str(last[0].outputs["snapshot"])))
        return named if FUNCTIONS[Event.ACTIVATE].holds(named.inputs(()), last[0], self._context) else run

    def _held(self, run: Run, lease: Lease) -> list[Receipt]:
        """Return the receipts that a run goes on behind, and have it be there on record."""
        receipts = self._runs.receipts(run.id)
        steps = (*STEPS, Event.ACTIVATE)
        order = [each.step for each in receipts]
        kept = [each for at, each in enumerate(receipts) if order[: at + 1] == list(steps[: at + 1])]
        kept = covered(run, kept, self._context.home)
        try:
            check_chain(kept)
        except BlockwrightError:
            kept = []
        while kept and not FUNCTIONS[kept[-1].step].holds(run.inputs(kept), kept[-1], self._context):
            kept.pop()
        state = state_behind([each.step for each in kept])
        if len(kept) != len(receipts) or state is not run.state:
            self._runs.go_back(lease, run.id, kept, state)
        return kept

    def _step(self, inputs: Inputs, step: Event, lease: Lease) -> Receipt:
        """Do one step, again where that may help. What fails for good is taken back and put on record."""
        function = FUNCTIONS[step]
        for attempt in range(1, TRIES + 1):
            self._context.attempt = attempt
            self._context.checkpoint(f"{step.value}: begun")
            try:
                self._context.stop()
                with tracing.span(step.value, inputs.run, attempt):
                    return function.do(inputs, self._context)
            except BaseException as error:
                with suppress(BlockwrightError, OSError):
                    function.undo(inputs, self._context)
                if attempt < TRIES and passes(error):
                    self._runs.journal.count(step.value, "retried", 0.0)
                    self._context.tell(f"{step.value}: {error}: trying again ({attempt} of {TRIES - 1})")
                    self._sleep(BACKOFF_S * 2 ** (attempt - 1))
                    continue
                self._fail(inputs, step, lease, error)
                raise
        raise AssertionError("the last attempt returns or raises")

    def _fail(self, inputs: Inputs, step: Event, lease: Lease, error: BaseException) -> None:
        """Put on record why a run ends here; a signal leaves it as what was killed."""
        if not isinstance(error, Exception):
            return
        event = Event.CANCEL if isinstance(error, Cancelled) else Event.FAIL
        if step is Event.ACTIVATE:
            return  # the image is ready as it was
        with suppress(InUse):  # whoever has the run now records what becomes of it
            self._runs.end(lease, inputs.run, event, step, error)
        self._context.checkpoint(f"{step.value}: failed")

    def _commit(self, run: Run, lease: Lease, receipt: Receipt, position: int) -> None:
        self._context.checkpoint(f"{receipt.step.value}: done")
        self._runs.advance(lease, receipt, position)
        self._context.checkpoint(f"{receipt.step.value}: committed")

    def _watch(self, run: str) -> None:
        """Have the context break off where somebody asks for that."""
        looked = 0.0

        def stop() -> None:
            nonlocal looked
            now = time.monotonic()
            if now - looked < _LOOK_S:
                return
            looked = now
            if self._runs.is_cancelled(run):
                raise cancelled(run)

        self._context.stop = stop


def covered(run: Run, receipts: Sequence[Receipt], home: Home | None = None) -> list[Receipt]:
    """Return the receipts before a verdict that does not do for what is asked now: all where it does.

    The volume that was made behind it stays; the step that makes it finds it. With a ``home``, a list that is asked
    for has to be there.
    """
    for at, each in enumerate(receipts):
        if each.step is not Event.SCAN:
            continue
        gone = home is not None and run.request.sbom and not sboms.is_kept(home, run.id, each.outputs.get("sbom"))
        if gone or not scan.covers(run.request, each):
            return list(receipts[:at])
    return list(receipts)


def wanted_steps(run: Run) -> Sequence[Event]:
    """Return the steps that were asked for, in order."""
    return (*STEPS, Event.ACTIVATE) if run.request.activate else STEPS
