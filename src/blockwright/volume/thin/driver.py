"""Volumes as devices of a thin pool, told apart there by the volume's number.

The pool's transaction goes up by one with each change, from what the journal says it is; where it is another,
somebody else has changed the pool, and nothing is done before it was looked at again. A volume that a process opens
is active for it under a UUID that says so, and goes with the process: the kernel removes it behind its last user.

Knows: what the pool is told for each operation. Refuses to know: what the pool stands on (``stack``), and the order
of things (``volume.driver``).
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar, Final

from blockwright.device.base import BlockDevice
from blockwright.device.hostblock import HostBlockDevice
from blockwright.errors import FormatError, IntegrityError, InUse, KernelError, NoSpace, NotFound, Unavailable
from blockwright.finding import Finding
from blockwright.system.linux.dm import Info, Mapper, ThinPoolStatus, Watch
from blockwright.system.linux.mount import points_of, unmount
from blockwright.system.linux.thin import MAX_IDENTITY, Metadata, Pool
from blockwright.volume.driver import Driver, Intend, unintended
from blockwright.volume.engine import Fill
from blockwright.volume.found import Found, PoolStatus, Reconciled
from blockwright.volume.info import Operation, VolumeInfo
from blockwright.volume.mounting import mount_points, settle
from blockwright.volume.spec import PoolSpec
from blockwright.volume.steps import Change, Checkpoint, Plan, Step, unwatched
from blockwright.volume.thin.backing import make_backing
from blockwright.volume.thin.mending import Mender
from blockwright.volume.thin.settings import low_water
from blockwright.volume.thin.stack import Stack, damage
from blockwright.volume.thin.tools import PACKAGE, peer_check
from blockwright.volume.thin.water import check_room, growth_of

_TRANSACTION: Final = "transaction"
_GROWING: Final = "growing"
_OPEN: Final = "-open"
_METADATA_BLOCK: Final = 4096
GONE_TIMEOUT_S: Final = 5.0
"""How long a device whose last user has just closed it may take to go."""


class ThinDriver(Driver):
    """Volumes as thin devices. Raises Unavailable elsewhere than on Linux, and without root or the driver."""

    kind: ClassVar[str] = "thin"
    holds_all: ClassVar[bool] = True

    def __init__(self, spec: PoolSpec, *, checkpoint: Checkpoint = unwatched) -> None:
        _require_linux(spec)
        self._mapper = Mapper()
        self._watch: Watch | None = None
        try:
            self._stack = Stack(spec, self._mapper)
            super().__init__(spec, checkpoint=checkpoint)
        except BaseException:
            self._mapper.close()
            raise

    def _close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._mapper.close()

    # -- the pool --------------------------------------------------------------------------------------------

    @classmethod
    def make(cls, spec: PoolSpec, *, intend: Intend = unintended, checkpoint: Checkpoint = unwatched) -> PoolSpec:
        _require_linux(spec)
        with Mapper() as mapper:
            made = make_backing(spec, intend)
            stack = Stack(made, mapper)
            try:
                checkpoint("pool: laid out")
                stack.up(fresh=True)
                checkpoint("pool: up")
            except BaseException:
                stack.destroy()
                raise
        return made

    @classmethod
    def unmake(cls, spec: PoolSpec) -> None:
        _require_linux(spec)
        with Mapper() as mapper:
            stack = Stack(spec, mapper)
            stack.down()
            stack.backing.undo()

    def _recover(self, done: Reconciled) -> None:
        done.corrected += self._settle()
        if self._journal.intents() and self._stack.exists:
            self._stack.up()  # what is settled is settled in the pool
        super()._recover(done)

    def _settle(self) -> Sequence[str]:
        """Have nothing left of a repair or growth of the pool that a dead process began."""
        mender = Mender(self._stack, self._records, self._checkpoint)
        mender.settle()
        if wanted := self._records.fact(_GROWING):
            size, metadata = map(int, wanted.split())
            self._enlarge(size, metadata)
            mender.lines.append("a growth that was not finished is finished")
        return mender.lines

    def _pool_up(self, done: Reconciled) -> None:
        done.corrected += self._settle()
        self._stack.up()

    def _pool_down(self) -> None:
        self._drop_opened()
        self._stack.down()

    def _pool_destroy(self) -> None:
        self._drop_opened()
        for info in self._active().values():
            path = f"/dev/mapper/{info.name}"
            for point in reversed(points_of(path)):
                unmount(point)
            self._mapper.remove(info.name)
        self._stack.destroy()

    def _pool_grow(self, size: int, metadata: int = 0) -> None:
        self._grow(self._stack.check_growth(size or self._stack.size), metadata)

    def _grow(self, size: int, metadata: int) -> None:
        """Have the pool grow, in steps of which each may be done again; what is begun is on record."""
        self._stack.up()
        metadata = max(metadata, self._stack.metadata_for(size))
        self._stack.backing.check_growth(size, metadata)
        self._records.note(_GROWING, f"{size} {metadata}")
        self._checkpoint("grow pool: intended")
        self._enlarge(size, metadata)
        self._checkpoint("grow pool: recorded")

    def _enlarge(self, size: int, metadata: int) -> None:
        self._stack.backing.grow(size, metadata)
        self._checkpoint("grow pool: enlarged")
        if self._stack.runs:
            self._stack.apply()
        self._checkpoint("grow pool: applied")
        self._records.note(_GROWING, "")

    def _pool_wait(self, wait_s: float) -> None:
        """The first time there is no wait: what happened before somebody listened is looked at."""
        if self._watch is None:
            self._watch = Watch()
        else:
            self._watch.happened(wait_s)

    def _pool_tend(self) -> Sequence[str]:
        status = self._stack.status()
        wanted = None if status is None else growth_of(self.spec, status, self._stack.block)
        if wanted is None:
            return ()
        self._grow(wanted.data, wanted.metadata)
        return (wanted.line,)

    def _pool_status(self) -> PoolStatus:
        found = self._stack.status()
        if found is None:
            return self._status_down()
        block = self._stack.block
        more = {
            "mode": found.mode,
            "transaction": found.transaction,
            "needs_check": found.needs_check,
            "full": "error" if found.error_if_full else "queue",
        }
        return PoolStatus(
            True,
            found.data_used_blocks * block,
            found.data_total_blocks * block,
            found.metadata_used_blocks * _METADATA_BLOCK,
            found.metadata_total_blocks * _METADATA_BLOCK,
            _health(found),
            {**self._stack.detail(), **more, **self._limits()},
        )

    def _limits(self) -> Mapping[str, int]:
        growth = {each: self.spec.number(each) for each in ("grow_by", "limit") if each in self.spec.options}
        return {"low_water": low_water(self.spec), **growth}

    def _status_down(self) -> PoolStatus:
        """Return what the metadata says of a pool that is down."""
        detail = {**self._stack.detail(), **self._limits()}
        try:
            found = self._stack.superblock()
            size = self._stack.size
        except (FormatError, NotFound, OSError) as error:
            return PoolStatus(False, 0, 0, health=f"down: {error}", detail=detail)
        block = self._stack.block
        return PoolStatus(
            False,
            found.data.used_blocks * block,
            size,
            found.metadata.used_blocks * _METADATA_BLOCK,
            found.metadata.blocks * _METADATA_BLOCK,
            "down: its metadata has to be checked" if found.needs_check else "",
            {**detail, "transaction": found.transaction, "needs_check": found.needs_check},
        )

    def _pool_repair(self, spare: str | None, *, force: bool) -> Sequence[str]:
        self._stack.backing.spare = (spare, force)
        mender = Mender(self._stack, self._records, self._checkpoint)
        mender.settle()
        mender.mend()
        self.spec = self._stack.backing.spec
        return mender.lines

    def _pool_check(self) -> Sequence[Finding]:
        status = self._stack.status()
        try:
            found = self._stack.check()
            if status is None:
                found += self._peer_check()
            if damage(found):
                return found
            there, transaction, needs_check = self._told(status)
        except (FormatError, NotFound) as error:
            return [Finding("thin.metadata", str(error))]
        if status is None:
            if needs_check:
                found.insert(0, Finding("thin.pool", "its metadata has to be checked", repairable=True))
        elif not status.healthy:
            found.insert(0, Finding("thin.pool", _health(status), repairable=status.needs_check))
        if transaction != self._transaction():
            text = f"expected transaction {self._transaction()}, found {transaction}"
            found.append(Finding("thin.pool.transaction", text, repairable=True))
        busy = {self._change_of(each).after.id for each in self._journal.intents()}
        recorded = {each.id: each.name for each in self._records.all() if each.id not in busy}
        missing, unknown = sorted(recorded.keys() - there), sorted(there - recorded.keys() - busy)
        text = "{}: the pool has no device {}"
        found += [Finding("volume.device.missing", text.format(recorded[each], each)) for each in missing]
        found += [
            Finding("volume.device.unknown", f"device {each}: is no volume's", repairable=True) for each in unknown
        ]
        return found

    def _told(self, status: ThinPoolStatus | None) -> tuple[set[int], int, bool]:
        """Return the devices, the transaction and whether a check is needed, of a running pool or of its metadata."""
        if status is not None:
            return (
                {each.identity for each in self._stack.running().devices()},
                status.transaction,
                status.needs_check,
            )
        with self._stack.backing.metadata() as device:
            metadata = Metadata(device)
            top = metadata.superblock
            return {each.identity for each in metadata.devices()}, top.transaction, top.needs_check

    def _peer_check(self) -> Sequence[Finding]:
        try:
            said = peer_check(self._stack.backing.metadata_path())
        finally:
            self._stack.backing.detach()  # what the path took: the pool is down
        if said is None:
            self.remarks.append(f"thin_check is not installed (package {PACKAGE}): it was not asked as well")
        return [Finding("thin.check", said)] if said else []

    # -- what there is ---------------------------------------------------------------------------------------

    def _observe(self) -> Mapping[int, Found]:
        if not self._stack.exists:
            return {}
        pool = self._stack.pool()
        status = pool.status()
        if status.held_root is not None and status.takes_messages:
            pool.release()  # a dead process left it: whoever of us has one has the pool's lock
        known = {each.id for each in self._records.all()}
        active, points = self._active(), mount_points()
        found: dict[int, Found] = {}
        with pool.metadata() as metadata:
            for each in metadata.devices():
                number = each.identity
                found[number] = self._found(number, active.get(number), None if number in known else metadata, points)
        self._records.note(_TRANSACTION, str(pool.status().transaction))
        self._records.saw_number(max(found, default=0))
        return found

    def _found(
        self, number: int, info: Info | None, metadata: Metadata | None, points: Mapping[tuple[int, int], str]
    ) -> Found:
        """Return what there is of a device; ``metadata`` tells the size of one that is not on record."""
        name, size = None, None
        if metadata is not None:
            size = metadata.mapped_end(number) or self._stack.block
        if info is None:
            return Found(number, name, size)
        if metadata is not None:
            name = info.name.removeprefix(self._stack.name)
        size = sum(target.length for target in self._mapper.table(info.name))
        path = f"/dev/mapper/{info.name}"
        return Found(number, name, size, None, path, info.read_only, points.get((info.major, info.minor)))

    def _active(self) -> dict[int, Info]:
        """Return the active devices of volumes, by number; those that a process has open are not among them."""
        found, start = {}, f"{self._stack.key}-"
        for entry in self._mapper.devices():
            number = (entry.uuid or "").removeprefix(start)
            if entry.uuid and entry.uuid.startswith(start) and number.isdecimal():
                with suppress(NotFound):  # gone meanwhile
                    info = self._mapper.info(entry.name)
                    if info.active:
                        found[int(number)] = info
        return found

    def _adopt(self, found: Found, volume: VolumeInfo) -> VolumeInfo:
        if found.path is not None:
            self._resume(volume)  # nobody knows any more of a snapshot that it may have stood still for
        return volume

    def _sweep(self) -> Sequence[str]:
        self._drop_opened()
        return ()

    def _drop_opened(self) -> None:
        """Have no device left of a process that died before the kernel knew that it was the last user."""
        for entry in self._mapper.devices():
            if entry.uuid and entry.uuid.startswith(f"{self._stack.key}-") and entry.uuid.endswith(_OPEN):
                with suppress(NotFound, InUse):  # gone meanwhile, or somebody has it open
                    if not self._mapper.info(entry.name).open_count:
                        self._mapper.remove(entry.name, timeout_s=0)

    def _transaction(self) -> int:
        return int(self._records.fact(_TRANSACTION) or 0)

    # -- plans -----------------------------------------------------------------------------------------------

    def _make_room(self) -> None:
        status = self._stack.pool().status()
        if status.takes_messages and status.transaction == self._transaction():
            wanted = growth_of(self.spec, status, self._stack.block)
            if wanted is not None:
                self._grow(wanted.data, wanted.metadata)

    def _prepare(self, change: Change) -> Change:
        pool, volume = self._stack.pool(), change.after
        if change.operation is not Operation.SNAPSHOT:
            self._refuse_open(volume)
        if change.operation in (Operation.ACTIVATE, Operation.DEACTIVATE, Operation.GROW):
            return change
        if volume.id > MAX_IDENTITY:
            raise NoSpace(f"pool {self.spec.name}: all {MAX_IDENTITY} numbers for volumes were given out")
        status, old = pool.status(), self._transaction()
        if status.transaction != old:
            raise self._changed(old, status.transaction)
        if not status.healthy and change.operation is not Operation.REMOVE:
            text = f"expected a pool that takes more, found it {_health(status)}"
            if status.mode == "out_of_data_space":
                raise NoSpace(f"pool {self.spec.name}: {text}")
            raise KernelError(change.operation.value, f"pool {self.spec.name}", errno.EROFS, text)
        if change.operation in (Operation.CREATE, Operation.SNAPSHOT):
            check_room(self.spec, status, self._stack.block)
        return replace(change, extra={_TRANSACTION: old})

    def _plan(self, change: Change, fill: Fill | None) -> Plan:
        volume = change.after
        if change.operation in (Operation.CREATE, Operation.SNAPSHOT):
            return self._plan_new(change, fill)
        if change.operation is Operation.REMOVE:
            advance = Step("advance", lambda: self._advance(int(change.extra[_TRANSACTION])))
            return Plan((advance, Step("delete", lambda: self._discard(volume))), forward=True)
        if change.operation is Operation.ACTIVATE:
            return Plan(
                (Step("expose", lambda: self._expose(volume)),),
                (Step("hide", lambda: self._hide(volume)),),
                result=lambda after: replace(after, path=self._path(after)),
            )
        if change.operation is Operation.DEACTIVATE:
            return Plan((Step("hide", lambda: self._hide(volume)),), forward=True)
        before = volume.size if change.before is None else change.before.size
        return Plan(
            (Step("grow", lambda: self._resize(volume, volume.size)),),
            # Nobody has been told of the new size, so nothing has been written there.
            (Step("shrink", lambda: self._resize(volume, before)),),
            forward=True,
        )

    def _plan_new(self, change: Change, fill: Fill | None) -> Plan:
        volume, origin, strange = change.after, change.origin, list[int]()
        old = int(change.extra[_TRANSACTION])

        def begin() -> None:
            try:
                self._advance(old)
            except IntegrityError:
                strange.append(volume.id)  # if there is one
                raise

        def make() -> None:
            pool = self._stack.running()
            try:
                if origin is None:
                    pool.create(volume.id)
                else:
                    pool.snapshot(volume.id, origin.id)
            except KernelError as error:
                if error.errno != errno.EEXIST:
                    raise
                strange.append(volume.id)
                raise IntegrityError(
                    f"pool {self.spec.name}: has a device {volume.id}, which the journal does not know: reconcile"
                ) from None

        def discard() -> None:
            if not strange:
                self._discard(volume)

        advance = Step("advance", begin)
        undo = (Step("advance", lambda: self._advance(old, strict=False)), Step("discard", discard))
        if origin is not None:
            wake = Step("resume", lambda: self._resume(origin))  # who took it may have died while it stood still
            return Plan((advance, Step("settle", lambda: settle(origin)), Step("snapshot", make)), (wake, *undo))
        if fill is None:
            return Plan((advance, Step("make", make)), undo)
        filled = Step("fill", lambda: self._fill(volume, fill), unlocked=True)
        return Plan((advance, Step("make", make), filled, Step("hide", lambda: self._hide(volume))), undo)

    def _advance(self, old: int, *, strict: bool = True) -> None:
        """Have the pool's transaction be the next one, and the journal know; what came behind that stays.

        Where by the journal nothing of ours came behind, and the pool has another, raises IntegrityError: ``strict``.
        """
        pool = self._stack.running()
        status = pool.status()
        if status.transaction == old:
            status = pool.set_transaction(old, old + 1)
        if self._transaction() != old:
            return
        if status.transaction == old + 1:
            self._records.note(_TRANSACTION, str(old + 1))
        elif strict:
            raise self._changed(old, status.transaction)

    def _changed(self, old: int, found: int) -> IntegrityError:
        return IntegrityError(
            f"pool {self.spec.name}: expected transaction {old} as in the journal, found {found} in "
            "the pool, which somebody else has changed: 'pool check' it, then reconcile"
        )

    def _resume(self, volume: VolumeInfo) -> None:
        """Have the volume run where it is active, under whatever name."""
        with suppress(NotFound):  # the pool is down, and nothing is active
            for name, identity in self._stack.running().active().items():
                with suppress(NotFound):
                    if identity == volume.id and self._mapper.info(name).suspended:
                        self._mapper.resume(name)

    def _fill(self, volume: VolumeInfo, fill: Fill) -> None:
        self._expose(volume)
        path = self._path(volume)
        fill(path, volume.size)
        with open(path, "rb") as file:
            os.fsync(file.fileno())

    def _expose(self, volume: VolumeInfo) -> None:
        """Have the volume active."""
        name, uuid = self._name(volume), self._uuid(volume)
        info = self._info(volume)
        if info is not None and info.uuid == uuid and info.active:
            return
        self._hide(volume)
        pool = self._stack.running()
        pool.activate(name, volume.id, volume.size, uuid=uuid, read_only=volume.read_only)

    def _hide(self, volume: VolumeInfo) -> None:
        """Have nobody see the volume. Raises InUse."""
        if self._info(volume) is not None:
            with suppress(NotFound):  # it goes by itself behind its last user
                self._mapper.remove(self._name(volume))

    def _discard(self, volume: VolumeInfo) -> None:
        """Have no such device in the pool, and where that can be, its blocks in the file under the pool free."""
        self._hide(volume)
        pool = self._stack.running()
        with suppress(NotFound, OSError):  # there is no such device, or its blocks stay in the file
            self._give_back(pool, volume)
        end = time.monotonic() + GONE_TIMEOUT_S
        while True:
            try:
                pool.delete(volume.id)
                return
            except InUse:
                if time.monotonic() >= end:
                    raise
                time.sleep(0.002)
            except KernelError as error:
                if error.errno != errno.ENODATA:
                    raise
                return

    def _give_back(self, pool: Pool, volume: VolumeInfo) -> None:
        """Have no blocks of the volume in the file under the pool: to delete it tells the pool only."""
        path = pool.activate(self._name(volume), volume.id, volume.size, uuid=self._uuid(volume) + _OPEN)
        try:
            with HostBlockDevice(path, writable=True) as device:
                if device.traits.discard:
                    device.discard(0, device.size)
        finally:
            self._hide(volume)

    def _resize(self, volume: VolumeInfo, size: int) -> None:
        info = self._info(volume)
        if info is not None and info.uuid == self._uuid(volume):
            [target] = self._mapper.table(info.name)
            self._mapper.replace(info.name, [replace(target, length=size)], read_only=info.read_only)

    # -- use -------------------------------------------------------------------------------------------------

    def _open(self, volume: VolumeInfo, *, writable: bool, force_unlocked: bool) -> BlockDevice:
        if volume.path is not None:
            if writable and not force_unlocked:
                raise InUse(f"{volume.name}: is active as {volume.path}: deactivate it first, or read it only")
            return HostBlockDevice(volume.path, writable=writable, force_unlocked=force_unlocked)
        pool, name = self._stack.pool(), self._name(volume)
        if writable:
            self._refuse_open(volume)
        info = self._info(volume)
        if info is not None and info.open_count:
            joined = self._join(volume, info, writable=writable, force_unlocked=force_unlocked)
            if joined is not None:
                return joined
        if info is not None:
            self._hide(volume)
        path = pool.activate(name, volume.id, volume.size, uuid=self._uuid(volume) + _OPEN, read_only=not writable)
        try:
            device = HostBlockDevice(path, writable=writable, force_unlocked=force_unlocked)
        except BaseException:
            self._hide(volume)
            raise
        self._mapper.remove(name, deferred=True)
        return device

    def _join(
        self, volume: VolumeInfo, info: Info, *, writable: bool, force_unlocked: bool
    ) -> HostBlockDevice | None:
        """Return the device that another process has open; None where that was its last moment."""
        try:
            device = HostBlockDevice(info.path, writable=writable, force_unlocked=force_unlocked)
        except (NotFound, FileNotFoundError):
            return None
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None
        now = self._info(volume)
        if now is not None and (now.major, now.minor) == (info.major, info.minor):
            return device
        device.close()  # another device has its number by now
        return None

    def _refuse_open(self, volume: VolumeInfo) -> None:
        """Return where no process has the volume open; a device that nobody has open any more goes."""
        info = self._info(volume)
        if info is None or not info.uuid.endswith(_OPEN):
            return
        if info.open_count:
            raise InUse(f"{volume.name}: is in use: {info.open_count} have it open")
        self._hide(volume)

    def _info(self, volume: VolumeInfo) -> Info | None:
        """Return the volume as device-mapper has it, active or open; None also where its name is somebody else's."""
        try:
            found = self._mapper.info(self._name(volume))
        except NotFound:
            return None
        return found if found.uuid.removesuffix(_OPEN) == self._uuid(volume) else None

    def _path(self, volume: VolumeInfo) -> str:
        return f"/dev/mapper/{self._name(volume)}"

    def _name(self, volume: VolumeInfo) -> str:
        return f"{self._stack.name}{volume.name}"

    def _uuid(self, volume: VolumeInfo) -> str:
        return f"{self._stack.key}-{volume.id}"


def _health(status: ThinPoolStatus) -> str:
    if status.needs_check:
        return "read-only: its metadata has to be checked"
    return {"rw": "", "out_of_data_space": "out of space for data", "ro": "read-only"}.get(status.mode, "failed")


def _require_linux(spec: PoolSpec) -> None:
    if sys.platform != "linux":
        text = f"the driver thin needs Linux, this is {sys.platform}"
        raise Unavailable("open", f"pool {spec.name}", errno.ENOSYS, text)
