"""A running thin pool, told what to do and asked whether it did.

The kernel answers a message with success also where it could not keep what it did, and the pool went read-only over
it. So the status is read after each one, which makes the pool commit once more, and a message has succeeded where
the pool still takes writes to its metadata then.

Knows: messages, in which order what is asked, and two mistakes that the kernel lets pass. Refuses to know: names of
volumes, and who else uses the pool.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from blockwright.device.hostblock import HostBlockDevice
from blockwright.errors import BlockwrightError, InUse, KernelError, NotFound, UsageError
from blockwright.system.linux import blkdev
from blockwright.system.linux.dm.device import Mapper
from blockwright.system.linux.dm.status import ThinPoolStatus
from blockwright.system.linux.dm.tables import Thin, ThinPool
from blockwright.system.linux.thin.layout import MAX_IDENTITY, Details
from blockwright.system.linux.thin.metadata import Metadata

_MAX_TRANSACTION: Final = (1 << 64) - 1
_REMEDY: Final = "its metadata has to be checked, and may have to grow"


class Pool:
    """The running pool that device-mapper has as ``name``. Thin devices have identities, from 0 to 2**24 - 1.

    A device whose UUID is ``key``, a dash and a number, with anything that begins with a dash behind that, is taken
    for the thin device of that identity; what any other device is the kernel is asked, one by one.

    Every message returns the pool's status behind it. Raises NotFound where there is no such device, UsageError where
    it is something else than a pool, KernelError where the kernel refuses, with EROFS where the pool is read-only
    behind a message, whatever was answered to that: what the message was to do may be done then, or lost.
    """

    def __init__(self, mapper: Mapper, name: str, *, key: str = "") -> None:
        self._mapper = mapper
        self._key = f"{key}-" if key else ""
        self.name = name
        self.status()

    def status(self) -> ThinPoolStatus:
        """Return how full the pool is, and how well; it commits first, where it can."""
        found = self._mapper.status(self.name)
        if len(found) != 1 or not isinstance(found[0], ThinPoolStatus):
            raise UsageError(
                f"{self.name}: expected a thin pool, found {' '.join(each.type for each in found) or 'none'}"
            )
        return found[0]

    def table(self) -> ThinPool:
        """Return what the pool stands on, devices as ``major:minor``."""
        for target in self._mapper.table(self.name):
            if isinstance(target, ThinPool):
                return target
        raise UsageError(f"{self.name}: expected a thin pool, found something else")

    # -- messages --------------------------------------------------------------------------------------------

    def create(self, identity: int) -> ThinPoolStatus:
        """Have an empty thin device. Raises KernelError: EEXIST where there is one of that identity."""
        return self._tell("create_thin", checked_identity(identity))

    def snapshot(self, identity: int, origin: int) -> ThinPoolStatus:
        """Have a thin device that is what ``origin`` is now.

        An active origin is suspended for it, under every name that it has, and runs afterwards whatever happens; one
        that was suspended stays so. Raises KernelError: EEXIST, or ENODATA where there is no such origin.
        """
        checked_identity(identity)
        checked_identity(origin)
        with contextlib.ExitStack() as stack:
            for name in [name for name, each in self._active() if each == origin]:
                with contextlib.suppress(NotFound):  # gone meanwhile, so that nobody writes to it
                    info = self._mapper.info(name)
                    if info.active and not info.suspended:
                        stack.callback(self._wake, name)
                        self._mapper.suspend(name)
            return self._tell("create_snap", identity, origin)

    def _wake(self, name: str) -> None:
        with contextlib.suppress(NotFound):  # its last user may have closed it
            self._mapper.resume(name)

    def delete(self, identity: int) -> ThinPoolStatus:
        """Have no such thin device. Raises InUse while it is active, KernelError: ENODATA where there is none."""
        return self._tell("delete", checked_identity(identity))

    def set_transaction(self, old: int, new: int) -> ThinPoolStatus:
        """Have the pool's transaction be ``new``. Raises KernelError: EINVAL where it is not ``old``."""
        for each in (old, new):
            if not 0 <= each <= _MAX_TRANSACTION:
                raise UsageError(f"{self.name}: expected a transaction of 64 bits, found {each}")
        return self._behind("set_transaction_id", self._tell("set_transaction_id", old, new), "transaction", new)

    def reserve(self) -> ThinPoolStatus:
        """Have a metadata snapshot, which ``held_root`` of the status names. Raises InUse where there is one."""
        found = self._tell("reserve_metadata_snap")
        if found.held_root is None:
            raise KernelError("reserve_metadata_snap", self.name, errno.EIO, "expected a held root, found none")
        return found

    def release(self) -> ThinPoolStatus:
        """Have no metadata snapshot. Raises KernelError: EINVAL where there is none."""
        return self._behind("release_metadata_snap", self._tell("release_metadata_snap"), "held_root", None)

    def _tell(self, message: str, *values: int) -> ThinPoolStatus:
        """Send a message and return the status behind it."""
        refused: BlockwrightError | None = None
        try:
            self._mapper.message(self.name, " ".join([message, *map(str, values)]))
        except (KernelError, InUse) as error:
            refused = error
        found = self.status()
        if not found.takes_messages:
            said = f"; the kernel answered: {refused}" if refused else ""
            state = f"{found.mode}{' and needs a check' if found.needs_check else ''}"
            text = f"expected a pool that keeps what it is told, found it {state}{said}"
            remedy = _REMEDY if found.needs_check else ""
            raise KernelError(message, self.name, errno.EROFS, text, remedy=remedy) from refused
        if refused is not None:
            raise refused
        return found

    def _behind(self, message: str, found: ThinPoolStatus, field: str, wanted: int | None) -> ThinPoolStatus:
        """Return the status, which must say what the message was to do."""
        if getattr(found, field) != wanted:
            text = f"expected {field} {wanted} behind it, found {getattr(found, field)}"
            raise KernelError(message, self.name, errno.EIO, text)
        return found

    # -- thin devices ----------------------------------------------------------------------------------------

    def active(self) -> dict[str, int]:
        """Return the identities of the pool's devices that are active, by the names device-mapper has for them."""
        return dict(self._active())

    def _active(self) -> Iterator[tuple[str, int]]:
        """Yield name and identity of each; what others made comes last, since the kernel is asked about each."""
        strange = []
        for entry in self._mapper.devices():
            if self._key and entry.uuid and entry.uuid.startswith(self._key):
                number = entry.uuid[len(self._key) :].partition("-")[0]
                if number.isdecimal():
                    yield entry.name, int(number)
                    continue
            strange.append(entry.name)
        info = self._mapper.info(self.name)
        number_of_pool = (info.major, info.minor)
        for name in strange:
            with contextlib.suppress(NotFound):  # gone meanwhile
                if number_of_pool in self._mapper.dependencies(name):
                    for target in self._mapper.table(name):
                        if isinstance(target, Thin) and target.pool == f"{info.major}:{info.minor}":
                            yield name, target.identity

    def _active_as(self, identity: int) -> str | None:
        return next((name for name, each in self._active() if each == identity), None)

    def activate(self, name: str, identity: int, size: int, *, uuid: str = "", read_only: bool = False) -> str:
        """Return the node of the thin device, ``size`` bytes large, which device-mapper has under ``name`` now.

        Raises InUse where it is active already, which the kernel would allow a second time; NotFound where there is
        no such thin device.
        """
        other = self._active_as(checked_identity(identity))
        if other is not None:
            raise InUse(f"{self.name}: thin device {identity}: is active as {other}")
        info = self._mapper.info(self.name)
        target = Thin(size, f"{info.major}:{info.minor}", identity)
        try:
            return self._mapper.create(name, [target], uuid=uuid, read_only=read_only)
        except KernelError as error:
            if error.errno == errno.ENODATA:
                raise NotFound(f"{self.name}: no thin device {identity}") from None
            raise

    # -- metadata --------------------------------------------------------------------------------------------

    @contextmanager
    def reserved(self) -> Iterator[Metadata]:
        """Have a metadata snapshot for the block, and read the metadata as it was when that was taken.

        Raises InUse where somebody has one already, FormatError for damage.
        """
        root = self.reserve().held_root
        try:
            with self._metadata_device() as device:
                yield Metadata(device, root or 0)
        finally:
            self.release()

    @contextmanager
    def metadata(self) -> Iterator[Metadata]:
        """Read the metadata as it is now: reserved for the block, or, where the pool is read-only, where it lies.

        Raises as ``reserved`` does.
        """
        if self.status().takes_messages:
            with self.reserved() as found:
                yield found
        else:  # it takes no message, and changes nothing any more
            with self._metadata_device() as device:
                yield Metadata(device)

    @contextmanager
    def _metadata_device(self) -> Iterator[HostBlockDevice]:
        with HostBlockDevice(self._metadata_path()) as device:
            device.forget_cache()  # the pool writes past it
            yield device

    def _metadata_path(self) -> str:
        number = self.table().metadata
        path = blkdev.node_of(*map(int, number.split(":")))
        if path is None:
            raise NotFound(f"{self.name}: its metadata is on {number}, which has no node")
        return path

    def devices(self) -> list[Details]:
        """Return every thin device of the pool as its own metadata has it, identities ascending."""
        with self.metadata() as metadata:
            return list(metadata.devices())


def checked_identity(identity: int) -> int:
    """Return an identity that a thin device can have. Raises UsageError."""
    if not 0 <= identity <= MAX_IDENTITY:
        raise UsageError(f"thin device: expected an identity from 0 to {MAX_IDENTITY}, found {identity}")
    return identity
