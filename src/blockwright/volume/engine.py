"""The order of things that survives any death: intent, steps, result; and, later, what a dead process left.

Knows: locks, journal, steps, and how journal and world are brought to agree. Refuses to know: which operations there
are for callers, and what a volume consists of.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar, Final, Self, final

from blockwright.errors import BlockwrightError, Corrupt, InUse
from blockwright.journal import Intent, Journal, Part
from blockwright.volume import records
from blockwright.volume.found import Found, Reconciled
from blockwright.volume.held import PoolLock, open_journal
from blockwright.volume.info import TRANSITIONS, Operation, State, VolumeInfo, check_name, check_transition
from blockwright.volume.mounting import mount_plan, unmount_plan
from blockwright.volume.spec import PoolSpec
from blockwright.volume.steps import Change, Checkpoint, Plan, Step, unwatched

Fill = Callable[[str, int], None]
"""``fill(path, size)`` writes a new volume's content: ``path`` is a block device of ``size`` bytes, or the name of a
file that is not there yet and becomes one of at most ``size``."""

MAX_CHAIN: Final = 64
"""Operations that one may lead to (``Plan.then``) before something is wrong."""


_SEEN: Final = "seen"
"""The fact that the journal was compared with the world once, and so is not one that was just made."""


class Engine(ABC):
    """What runs changes of one pool. ``kind`` is the driver's name; ``checkpoint`` is told of each thing done."""

    kind: ClassVar[str]
    tables: ClassVar[Part | None] = None
    """Tables of the journal that are the driver's own."""

    def __init__(self, spec: PoolSpec, *, checkpoint: Checkpoint = unwatched) -> None:
        self.spec = spec
        self._checkpoint = checkpoint
        self._journal = open_journal(spec, self.tables)
        self._records = records.Records(self._journal, spec.name)
        self._looked = False
        self.remarks: list[str] = []
        """What a check could not look at, or how, as lines."""

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(self, *exc: object) -> None:
        self.close()

    @final
    def close(self) -> None:
        """Close the journal. What is active stays active."""
        self._close()
        self._journal.close()

    def _close(self) -> None:
        """Let go of what the driver has open in this process."""

    @property
    def journal(self) -> Journal:
        """The pool's journal, for metrics."""
        return self._journal

    # -- primitives of a driver ------------------------------------------------------------------------------
    # They are called with the pool's lock held, but for steps that are ``unlocked``.

    @abstractmethod
    def _prepare(self, change: Change) -> Change:
        """Return the change with all that its plan depends on and that is decided now: in ``extra`` and ``after``.

        Called within the transaction that records the intent. What it raises refuses the operation.
        """

    @abstractmethod
    def _plan(self, change: Change, fill: Fill | None) -> Plan:
        """Return the steps of a change, which follow from it alone; ``fill`` is None in whoever finds it later.

        MOUNT and UNMOUNT are planned for all drivers.
        """

    @abstractmethod
    def _observe(self) -> Mapping[int, Found]:
        """Return what there really is, by volume id."""

    @abstractmethod
    def _sweep(self) -> Sequence[str]:
        """Remove what belongs to no volume and no intent, and has nobody's content; return lines that say what."""

    def _make_room(self) -> None:
        """Have the pool take one more volume, where it may grow for that; before anything of that is on record."""

    def _adopt(self, found: Found, volume: VolumeInfo) -> VolumeInfo:
        """Return how a volume is recorded that was found; called in the transaction that does it."""
        return volume

    # -- operations ------------------------------------------------------------------------------------------

    def _make(self, name: str, change: Callable[[int], Change], fill: Fill | None) -> VolumeInfo:
        with self._started() as lock:
            self._make_room()
            with self._journal.transaction():
                there = self._records.find(name)
                check_transition(Operation.CREATE, name, State.ABSENT if there is None else there.state)
                self._refuse_busy(name)
                wanted = self._prepare(change(self._records.next_number()))
                intent = self._intend(wanted)
            return self._carry_out(wanted, intent, fill, lock)

    def _alter(self, name: str, change: Callable[[VolumeInfo], Change | None]) -> VolumeInfo:
        check_name(name)
        with self._started() as lock:
            with self._journal.transaction():
                volume = self._records.get(name)
                self._refuse_busy(name)
                wanted = change(volume)
                if wanted is None:
                    return volume
                check_transition(wanted.operation, name, volume.state)
                if wanted.operation not in (Operation.MOUNT, Operation.UNMOUNT):
                    wanted = self._prepare(wanted)
                intent = self._intend(wanted)
            return self._carry_out(wanted, intent, None, lock)

    def _intend(self, change: Change, *, owned: bool = True) -> Intent:
        return self._journal.intend(change.operation.value, change.after.name, change.document(), owned=owned)

    def _carry_out(self, change: Change, intent: Intent, fill: Fill | None, lock: PoolLock) -> VolumeInfo:
        """Do what was intended; whatever raises leaves the world as it was, or the intent for later."""
        try:
            plan = self._plans(change, fill)
        except BaseException as error:
            self._journal.settle(intent, type(error).__name__)
            raise
        begun: list[Step] = []
        try:
            self._checkpoint(f"{change.operation.value}: intended")
            self._run(change, plan.steps, lock, begun)
            done = plan.result(change.after)
            then = self._record(change, plan, done, intent)
        except BaseException as error:
            if lock.held:
                self._end(change, plan, intent, error, begun)
            else:  # what is taken back may be taken back by who has the lock alone
                self._journal.abandon(intent, str(error))
            raise
        finally:
            plan.release()
        if then is not None:
            self._follow(*then)
        return done

    def _run(
        self, change: Change, steps: Sequence[Step], lock: PoolLock | None, begun: list[Step] | None = None
    ) -> None:
        """Do the steps, and add each to ``begun`` once it is done."""
        for step in steps:
            if step.unlocked and lock is not None:
                with lock.released():
                    step.do()
            else:
                step.do()
            if begun is not None:
                begun.append(step)
            self._checkpoint(f"{change.operation.value}: {step.name}")

    def _record(
        self, change: Change, plan: Plan, done: VolumeInfo, intent: Intent, outcome: str = "done"
    ) -> tuple[Change, Intent] | None:
        with self._journal.transaction() as db:
            if change.operation is not Operation.TIDY:
                if TRANSITIONS[change.operation][1] is State.ABSENT:
                    self._records.remove(done.id)
                else:
                    self._records.put(done)
            plan.record(db)
            self._journal.settle(intent, outcome)
            following = plan.then()
            intended = None if following is None else self._intend(following, owned=False)
        self._checkpoint(f"{change.operation.value}: recorded")
        return None if following is None or intended is None else (following, intended)

    def _follow(self, change: Change, intent: Intent) -> None:
        """Do what follows from something that is done; where it fails it is taken back or left, and no failure.

        The pool's lock is held throughout, so the intent needs no owner, and is anybody's wherever this ends.
        """
        for _ in range(MAX_CHAIN):
            plan, begun = self._plans(change, None), list[Step]()
            try:
                self._run(change, plan.steps, None, begun)
                then = self._record(change, plan, plan.result(change.after), intent)
            except BaseException as error:
                self._end(change, plan, intent, error, begun)
                if not isinstance(error, BlockwrightError | OSError):
                    raise  # somebody wants all of this to end
                return
            finally:
                plan.release()
            if then is None:
                return
            change, intent = then
        raise AssertionError("a driver's operations lead to no end")

    def _end(self, change: Change, plan: Plan, intent: Intent, error: BaseException, begun: Sequence[Step]) -> None:
        """Undo what was done, unless it counts already: a signal may come right behind the commit.

        What can only go forward, and is under way, is left for whoever comes next.
        """
        if all(each.id != intent.id for each in self._journal.intents()):
            return
        if begun and plan.forward and not plan.undo:
            self._journal.abandon(intent, str(error))
            return
        try:
            self._run(change, plan.undo, None)
        except BaseException as second:
            self._journal.abandon(intent, f"{error}; and then: {second}")
            if not isinstance(second, BlockwrightError | OSError):
                raise  # a second signal: this process may go on, and so may whoever comes next
            return
        self._journal.settle(intent, type(error).__name__)

    def _plans(self, change: Change, fill: Fill | None) -> Plan:
        if change.operation is Operation.MOUNT:
            return mount_plan(change.after)
        if change.operation is Operation.UNMOUNT:
            return unmount_plan(change.before or change.after)
        return self._plan(change, fill)

    def _refuse_busy(self, name: str) -> None:
        """Raise InUse where another thread or process is at the volume with the lock released."""
        for intent in self._journal.intents():
            change = self._change_of(intent)
            if name in change.names:
                why = f": {intent.trouble}" if intent.trouble else ""
                raise InUse(f"{name}: {change.operation.value} of {change.after.name} is not done yet{why}")

    def _change_of(self, intent: Intent) -> Change:
        try:
            return Change.parse(intent.operation, intent.fields)
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(f"journal: an intent does not hold: {error}", source=self._journal.path) from None

    # -- recovery --------------------------------------------------------------------------------------------

    @contextmanager
    def _started(self) -> Iterator[PoolLock]:
        """Hold the pool's lock, with nothing left that a dead process began; the first time, look at the world."""
        with PoolLock(self.spec) as lock:
            if self._looked:
                self._recover(Reconciled())
            else:
                self._reconcile()
            yield lock

    def _recover(self, done: Reconciled) -> None:
        for intent in self._journal.intents():
            if not intent.abandoned:
                continue
            change = self._change_of(intent)
            mine = self._journal.take_over(intent)
            try:
                then = self._recover_one(change, mine, done)
            except BaseException as error:
                self._journal.abandon(mine, str(error))
                if not isinstance(error, BlockwrightError | OSError):
                    raise
                continue
            if then is not None:
                self._follow(*then)

    def _recover_one(self, change: Change, intent: Intent, done: Reconciled) -> tuple[Change, Intent] | None:
        """Finish or undo what a dead process began, and return what follows from it."""
        what = f"{change.operation.value} of {change.after.name}"
        plan = self._plans(change, None)
        try:
            self._run(change, plan.steps if plan.forward else plan.undo, None)
        finally:
            plan.release()
        if plan.forward:
            then = self._record(change, plan, plan.result(change.after), intent, "finished")
            done.finished.append(what)
            return then
        self._journal.settle(intent, "undone")
        done.undone.append(what)
        self._checkpoint(f"{change.operation.value}: undone")
        return None

    def _reconcile(self, done: Reconciled | None = None) -> Reconciled:
        done = Reconciled() if done is None else done
        self._recover(done)
        found = self._observe()
        busy = {self._change_of(each).after.id for each in self._journal.intents()}
        with self._journal.transaction():
            recorded = {each.id: each for each in self._records.all()}
            for volume in recorded.values():
                if volume.id not in busy:
                    self._correct(volume, found.get(volume.id), done)
            names = {each.name for each in recorded.values()}
            for number in sorted(found.keys() - recorded.keys() - busy):
                self._take_in(found[number], names, done)
        done.corrected += self._sweep()
        if not self._looked:
            self._looked = True
            if self._records.fact(_SEEN) is None:
                self._records.note(_SEEN, str(time.time_ns()))
        return done

    def _known(self) -> records.Records:
        """Return the records, made from what there is where the journal is new."""
        if not self._looked and self._records.fact(_SEEN) is None:
            with self.spec.locked():
                self._reconcile()
        return self._records

    def _correct(self, volume: VolumeInfo, found: Found | None, done: Reconciled) -> None:
        """Record a volume as it is."""
        if found is None:
            if volume.state is not State.LOST:
                self._records.put(replace(volume, state=State.LOST, path=None, mount_point=None))
                done.lost.append(volume.name)
            return
        now = replace(volume, size=found.size or volume.size, path=found.path, mount_point=found.mount_point)
        now = replace(now, state=found.state, read_only=found.read_only and found.path is not None)
        if now != volume:
            self._records.put(now)
            done.corrected.append(f"{volume.name} is {now.state.value}, {now.size} bytes")

    def _take_in(self, found: Found, names: set[str], done: Reconciled) -> None:
        """Record a volume that was found, under its name or, where that is taken or unknown, one with its number."""
        name = found.name or f"{self.kind}-{found.id}"
        wanted, more = name, ""
        while name in names:
            name = f"{wanted[:40]}-{found.id}{more}"
            more += "x"
        names.add(name)
        volume = VolumeInfo(
            self.spec.name,
            name,
            found.id,
            found.size or 0,
            origin=found.origin,
            state=found.state,
            read_only=found.read_only,
            path=found.path,
            mount_point=found.mount_point,
            wanted=found.state,
            created_ns=time.time_ns(),
            extra=found.extra,
        )
        self._records.put(self._adopt(found, volume))
        self._records.saw_number(found.id)
        done.adopted.append(name)
