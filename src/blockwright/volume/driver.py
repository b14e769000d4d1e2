"""What a driver of volumes is: one interface over files and over the kernel's thin pools.

``Driver`` is a sandwich. Its public methods are final: they take the pool's lock, look at the journal, check names
and states, record what is intended, and only then run the steps that the driver planned; the result is recorded in
the transaction that ends the intent. Drivers plan and observe, and never touch the journal but through what they are
handed.

Knows: the operations, and what each needs to be allowed. Refuses to know: what a volume consists of.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, final

from blockwright.device.base import BlockDevice
from blockwright.errors import BlockwrightError, InUse, UsageError
from blockwright.finding import Finding
from blockwright.system.linux.mount import SAFE
from blockwright.volume.engine import Engine, Fill
from blockwright.volume.found import PoolStatus, Reconciled
from blockwright.volume.info import Operation, State, VolumeInfo, check_name, check_size, check_transition
from blockwright.volume.mounting import require_mount
from blockwright.volume.spec import PoolSpec
from blockwright.volume.steps import Change, Checkpoint, unwatched

Intend = Callable[[PoolSpec], None]
"""Records the specification of a pool that is about to be made."""


def unintended(_spec: PoolSpec) -> None:
    """Record nothing."""


class Driver(Engine):
    """The volumes of one pool. Use it as a context manager, or ``close`` it.

    Several processes may have the same pool open. Names are checked, and every refusal comes before anything is
    changed: UsageError, NotFound, InUse; KernelError and OSError are the world's. After a failure the volume is as it
    was before; where even that could not be restored, the journal keeps what is left to do, and ``reconcile``
    does it.
    """

    holds_all: ClassVar[bool] = False
    """Whether ``_pool_destroy`` takes volumes along, in whatever state, so that a damaged pool can be destroyed."""

    # -- volumes ---------------------------------------------------------------------------------------------

    @final
    def create(self, name: str, size: int, *, fill: Fill | None = None) -> VolumeInfo:
        """Make a volume of ``size`` bytes that reads as zeros, or holds what ``fill`` writes, and return it."""
        check_name(name)
        check_size(size)

        def change(number: int) -> Change:
            volume = VolumeInfo(self.spec.name, name, number, size, created_ns=time.time_ns())
            return Change(Operation.CREATE, None, volume)

        return self._make(name, change, fill)

    @final
    def snapshot(self, origin: str, name: str) -> VolumeInfo:
        """Make a volume that is what ``origin`` is now, and return it; either can be written to afterwards.

        What a process has written to an active origin and not flushed may be in it or not.
        """
        check_name(name)

        def change(number: int) -> Change:
            source = self._records.get(origin)
            check_transition(Operation.GROW, origin, source.state)  # it has to be there, in whatever state
            self._refuse_busy(source.name)
            volume = VolumeInfo(
                self.spec.name, name, number, source.size, origin=source.name, created_ns=time.time_ns()
            )
            return Change(Operation.SNAPSHOT, None, volume, source)

        return self._make(name, change, None)

    @final
    def activate(self, name: str, *, read_only: bool = False) -> VolumeInfo:
        """Give the volume a path and return it; one that is active in the same way already stays so."""

        def change(volume: VolumeInfo) -> Change | None:
            if volume.state in (State.ACTIVE, State.MOUNTED) and volume.read_only == read_only:
                return None
            after = replace(volume, state=State.ACTIVE, wanted=State.ACTIVE, read_only=read_only)
            after = after.with_extra(wanted_read_only=read_only)
            return Change(Operation.ACTIVATE, volume, after)

        return self._alter(name, change)

    @final
    def deactivate(self, name: str) -> VolumeInfo:
        """Take the volume's path away, and return it; one that is inactive stays so. Raises InUse."""
        return self._deactivate(name, State.INACTIVE)

    def _deactivate(self, name: str, wanted: State) -> VolumeInfo:

        def change(volume: VolumeInfo) -> Change | None:
            if volume.state is State.INACTIVE:
                return None
            after = replace(volume, state=State.INACTIVE, wanted=wanted, path=None, read_only=False)
            return Change(Operation.DEACTIVATE, volume, after)

        return self._alter(name, change)

    @final
    def grow(self, name: str, size: int) -> VolumeInfo:
        """Give the volume ``size`` bytes and return it; what is added reads as zeros. It never becomes smaller."""
        check_size(size)

        def change(volume: VolumeInfo) -> Change | None:
            if size < volume.size:
                raise UsageError(f"{name}: has {volume.size} bytes, and volumes only grow: found {size}")
            return None if size == volume.size else Change(Operation.GROW, volume, replace(volume, size=size))

        return self._alter(name, change)

    @final
    def mount(self, name: str, point: str, *, flags: int | None = None) -> VolumeInfo:
        """Mount the file system of the volume at the directory ``point``, and return the volume, active for it.

        ``flags`` are those of ``system.linux.mount``, by default nosuid and nodev. Raises Unavailable without root.
        """
        volume = self.get(name)
        require_mount(volume)
        if volume.state is State.INACTIVE:
            self.activate(name)
            try:
                return self._mount(name, point, flags)
            except BaseException:
                self.deactivate(name)
                raise
        return self._mount(name, point, flags)

    def _mount(self, name: str, point: str, flags: int | None) -> VolumeInfo:

        def change(volume: VolumeInfo) -> Change | None:
            real = os.path.realpath(point)
            if volume.state is State.MOUNTED and volume.mount_point == real:
                return None
            after = replace(volume, state=State.MOUNTED, wanted=State.MOUNTED, mount_point=real)
            after = after.with_extra(wanted_point=real, wanted_flags=SAFE if flags is None else flags)
            return Change(Operation.MOUNT, volume, after)

        return self._alter(name, change)

    @final
    def unmount(self, name: str) -> VolumeInfo:
        """Unmount the volume, and return it; one that is not mounted stays so. Raises KernelError."""
        return self._unmount(name, State.ACTIVE)

    def _unmount(self, name: str, wanted: State) -> VolumeInfo:

        def change(volume: VolumeInfo) -> Change | None:
            if volume.state in (State.ACTIVE, State.INACTIVE):
                return None
            after = replace(volume, state=State.ACTIVE, wanted=wanted, mount_point=None)
            return Change(Operation.UNMOUNT, volume, after)

        return self._alter(name, change)

    @final
    def remove(self, name: str) -> None:
        """Have no such volume; its snapshots stay. Raises InUse where it is active."""

        def change(volume: VolumeInfo) -> Change:
            return Change(Operation.REMOVE, volume, replace(volume, state=State.ABSENT))

        self._alter(name, change)

    @final
    def get(self, name: str) -> VolumeInfo:
        """Return the volume as it is recorded. Raises NotFound."""
        return self._known().get(check_name(name))

    @final
    def list(self) -> list[VolumeInfo]:
        """Return all volumes as they are recorded, by name."""
        return self._known().all()

    @final
    def open(self, name: str, *, writable: bool = False, force_unlocked: bool = False) -> BlockDevice:
        """Return the volume as a device of this process; closing it ends the use.

        Raises InUse where somebody else uses it in a way that contradicts, NotFound.
        """
        with self._started():
            volume = self._records.get(check_name(name))
            check_transition(Operation.GROW, name, volume.state)
            self._refuse_busy(name)
            return self._open(volume, writable=writable, force_unlocked=force_unlocked)

    # -- the pool --------------------------------------------------------------------------------------------

    @final
    def reconcile(self) -> Reconciled:
        """Make journal and world agree, and return what that took.

        What a dead process began is finished or undone; what is there and not recorded is adopted; what is recorded
        and not there is lost; what is otherwise than recorded is recorded as it is. A lost journal is rebuilt so.
        What is damaged is told.
        """
        with self.spec.locked():
            done = self._reconcile()
            self._tell_damage(done)
            return done

    def _tell_damage(self, done: Reconciled) -> Mapping[str, str]:
        found = self._damaged()
        done.damaged += [f"{name}: {text}" for name, text in found.items()]
        return found

    @final
    def up(self) -> Reconciled:
        """Have the pool ready, and every volume active and mounted that last was; idempotent.

        A volume that is damaged stays as it is, and is told; the others come up. Raises Damaged for a whole pool.
        """
        done = Reconciled()
        with self.spec.locked():
            self._pool_up(done)
            self._reconcile(done)
            damaged = self._tell_damage(done)
        for volume in self._records.all():
            if volume.name in damaged:
                continue
            if volume.wanted in (State.ACTIVE, State.MOUNTED) and volume.state is State.INACTIVE:
                try:
                    self._again(volume, done)
                except (BlockwrightError, OSError) as error:
                    done.corrected.append(f"{volume.name} stays as it is: {error}")
        return done

    @final
    def down(self) -> None:
        """Have nothing of the pool in use, so that the machine can go down; ``up`` brings back what was.

        Raises InUse or KernelError where somebody uses a volume; what came down before stays down.
        """
        for volume in self._now():
            if volume.state is State.MOUNTED:
                self._unmount(volume.name, volume.wanted)
            if volume.state in (State.ACTIVE, State.MOUNTED):
                self._deactivate(volume.name, volume.wanted)
        with self._started():
            self._pool_down()

    def _now(self) -> Sequence[VolumeInfo]:
        """Return all volumes behind what a dead process had begun: it may have been to remove one."""
        with self._started():
            return self._records.all()

    @final
    def status(self) -> PoolStatus:
        """Return how full the pool is, and how well."""
        return self._pool_status()

    @final
    def grow_pool(self, size: int = 0, *, metadata: int = 0) -> PoolStatus:
        """Give the pool ``size`` bytes for data, and ``metadata`` for that, and return its status.

        0 leaves what there is, and has devices that are larger now used. Raises UsageError where it cannot grow.
        """
        with self._started():
            self._pool_grow(size, metadata)
            return self._pool_status()

    @final
    def check(self) -> Sequence[Finding]:
        """Return what is wrong with the pool and its volumes; nothing is changed."""
        with self.spec.locked():
            return self._pool_check()

    @final
    def repair(self, spare: str | None = None, *, force: bool = False) -> Reconciled:
        """Put right what ``check`` finds as far as that can be done without loss, and return what was done.

        ``spare`` is a device for metadata that has no other place to be repaired to; it has to be blank, unless
        ``force``.
        """
        with self.spec.locked():
            lines = self._pool_repair(spare, force=force)
            done = self._reconcile()
            self._tell_damage(done)
        done.corrected[:0] = lines
        return done

    @final
    def destroy(self, *, force: bool = False) -> None:
        """Have nothing of the pool left but its specification and journal. Raises InUse while it has volumes,
        unless ``force``.
        """
        volumes = self._known().all()
        if volumes and not force:
            raise InUse(f"pool {self.spec.name}: still has volumes, {volumes[0].name} among them")
        if self.holds_all:
            with self.spec.locked():
                self._pool_destroy()
            return
        for volume in self._now():
            if volume.state is State.MOUNTED:
                self.unmount(volume.name)
            if volume.state in (State.ACTIVE, State.MOUNTED):
                self.deactivate(volume.name)
            self.remove(volume.name)
        with self._started():
            self._pool_destroy()

    def pause(self, wait_s: float) -> None:
        """Wait a while before something is tried again."""
        time.sleep(wait_s)

    @final
    def tend(self, wait_s: float) -> Sequence[str]:
        """Wait until the pool may have changed, or so long, do what it needs by itself, and return lines of that."""
        self._pool_wait(wait_s)
        with self._started():
            return self._pool_tend()

    # -- primitives of a driver, besides those of ``Engine`` -------------------------------------------------

    @abstractmethod
    def _open(self, volume: VolumeInfo, *, writable: bool, force_unlocked: bool) -> BlockDevice:
        """Return the volume as a device of this process."""

    @classmethod
    @abstractmethod
    def make(cls, spec: PoolSpec, *, intend: Intend = unintended, checkpoint: Checkpoint = unwatched) -> PoolSpec:
        """Make what the pool consists of, and return its specification with all that has to be remembered.

        Called with the pool's lock held, before the specification is saved: what was made and is not returned is to
        be removed again. ``intend`` is called with that specification when nothing speaks against it, before
        anything is made. Raises UsageError for options it does not know.
        """

    @classmethod
    def unmake(cls, spec: PoolSpec) -> None:
        """Have nothing of what ``make`` had begun to make, behind ``intend``, when its process died."""

    def _pool_up(self, done: Reconciled) -> None:
        """Have the pool ready, and tell ``done`` what that took; idempotent. Raises Corrupt for a damaged one."""

    def _damaged(self) -> Mapping[str, str]:
        """Return the volumes that are not to be used as they are, and why; nothing is left that was begun."""
        return {}

    def _pool_down(self) -> None:
        """Have the pool out of use; no volume is active."""

    @abstractmethod
    def _pool_status(self) -> PoolStatus:
        """Return how full the pool is."""

    def _pool_grow(self, size: int, metadata: int = 0) -> None:
        """Give the pool more space for data, and for metadata; 0 is what there is."""
        raise UsageError(f"pool {self.spec.name}: a pool of the driver {self.kind} grows with its file system")

    def _pool_wait(self, wait_s: float) -> None:
        """Return when the pool may have changed, or after ``wait_s``; called without the lock."""
        time.sleep(wait_s)

    def _pool_tend(self) -> Sequence[str]:
        """Do what the pool needs by itself, such as to grow before it is full; return lines that say what."""
        return ()

    @abstractmethod
    def _pool_check(self) -> Sequence[Finding]:
        """Return what is wrong."""

    def _pool_repair(self, spare: str | None, *, force: bool) -> Sequence[str]:
        """Put right what can be put right without loss; return lines that say what."""
        return ()

    @abstractmethod
    def _pool_destroy(self) -> None:
        """Remove what the pool consists of; there are no volumes, unless it ``holds_all``."""

    def _again(self, volume: VolumeInfo, done: Reconciled) -> None:
        """Have a volume active, and mounted, that was; what cannot be is told."""
        wanted, point, flags = volume.wanted, volume.extra.get("wanted_point"), volume.extra.get("wanted_flags")
        self.activate(volume.name, read_only=bool(volume.extra.get("wanted_read_only")))
        if wanted is State.MOUNTED and isinstance(point, str):
            self.mount(volume.name, point, flags=flags if isinstance(flags, int) else None)
        done.corrected.append(f"{volume.name} is {self.get(volume.name).state.value} again")
