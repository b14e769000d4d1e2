"""Mapped devices: made and run, changed while they run, and removed.

Knows: the order of requests that leaves nothing half done. Refuses to know: what stands on a device.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Self

from blockwright.device import holders
from blockwright.errors import BlockwrightError, InUse, KernelError, NotFound
from blockwright.system.linux import blkdev
from blockwright.system.linux.dm import layout, nodes, status, tables
from blockwright.system.linux.dm.control import Control, Reply
from blockwright.system.linux.dm.events import Watch
from blockwright.system.linux.dm.layout import Command, Flag
from blockwright.system.linux.dm.status import Status
from blockwright.system.linux.dm.tables import Error, Target, lines
from blockwright.system.linux.ioctl import join_device, split_device
from blockwright.system.linux.log import Logger, told

REMOVE_TIMEOUT_S: Final = 5.0
"""How long users that come and go by themselves, as udevd does, are waited for."""
_FIRST_PAUSE_S: Final = 0.001
_MAX_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Info:
    """A device as it is: its number, how many have it open, its events so far, what it has and does."""

    name: str
    uuid: str
    major: int
    minor: int
    open_count: int
    event_nr: int
    suspended: bool
    read_only: bool
    active: bool
    inactive: bool
    deferred_remove: bool

    @property
    def path(self) -> str:
        """The kernel's own node."""
        return f"/dev/dm-{self.minor}"


class Mapper:
    """Device-mapper, open. Devices are named; each method is one request, or says which and in what order.

    Raises Unavailable without the driver or without privilege, here and nowhere later. Close it, or use it as a
    context manager.
    """

    def __init__(self, *, logger: Logger | None = None) -> None:
        self._control = Control(logger)
        self._log = told(logger)

    def close(self) -> None:
        """Let go of the control node; devices stay. Idempotent."""
        self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- whole lives -----------------------------------------------------------------------------------------

    def create(self, name: str, table: Sequence[Target], *, uuid: str = "", read_only: bool = False) -> str:
        """Return the node of a new device that runs with ``table``; where any step fails there is no device.

        Raises InUse where a device of that name or UUID exists, UsageError for a name that cannot be a file's,
        KernelError with the kernel's reason.
        """
        nodes.checked_name(name)
        wanted = lines(table, nodes.number_of)
        made = self._control.request(Command.DEV_CREATE, name, uuid=uuid)
        try:
            self._load(name, wanted, read_only=read_only)
            path = self._run(name)
        except BaseException:
            with suppress(BlockwrightError):  # what went wrong before is what has to be told
                self.remove(name)
            nodes.remove(name, made.header.dev)
            raise
        self._log.info("created %s", path)
        return path

    def replace(self, name: str, table: Sequence[Target], *, read_only: bool = False) -> None:
        """Have the running device run with ``table``, without a moment in which it is gone; users keep it open.

        Where the kernel does not take the new table, or does not run with it, the old one runs on. Raises NotFound,
        KernelError.
        """
        old = self.table_lines(name)
        was_read_only = self.info(name).read_only
        try:
            self._load(name, lines(table, nodes.number_of), read_only=read_only)
            self._run(name)
        except BlockwrightError:
            self._go_back(name, old, read_only=was_read_only)
            raise

    def _go_back(self, name: str, old: Sequence[layout.Line], *, read_only: bool) -> None:
        """A device whose new table does not run is suspended; only another table wakes it."""
        if self.info(name).suspended and old:
            self._load(name, old, read_only=read_only)
            self._run(name)
        else:
            self.clear(name)

    def remove(
        self,
        name: str,
        *,
        deferred: bool = False,
        force: bool = False,
        timeout_s: float = REMOVE_TIMEOUT_S,
        info: Info | None = None,
    ) -> None:
        """Have no device of that name, nor its node.

        While it is in use it is tried for ``timeout_s``, then InUse names who holds it. ``deferred`` has the kernel
        remove it when its last user closes it, and its node is gone at once; ``force`` makes every read and write of
        the users fail first, so that they let go, and defers what is then left. ``info`` is what is known of it,
        where it was just asked for. Raises NotFound.
        """
        found = self.info(name) if info is None else info
        dev = join_device(found.major, found.minor)
        if force:
            self.fail(name)
            deferred = True
        end, wait = time.monotonic() + timeout_s, _FIRST_PAUSE_S
        while True:
            try:
                self._control.request(
                    Command.DEV_REMOVE,
                    name,
                    flags=Flag.DEFERRED_REMOVE if deferred else Flag(0),
                    event_nr=layout.UDEV_PRIMARY_SOURCE,
                )
                break
            except InUse:
                if time.monotonic() >= end:
                    raise InUse(f"{nodes.path_of(name)}: is in use: {self._users(found)}") from None
            time.sleep(wait)
            wait = min(2 * wait, _MAX_PAUSE_S)
        nodes.remove(name, dev)
        self._log.info("removed %s", name)

    def _users(self, found: Info) -> str:
        return holders.named(blkdev.users(found.path)) or f"{self.info(found.name).open_count} have it open"

    def fail(self, name: str) -> None:
        """Have every read and write of the device fail, also those that wait; its size stays.

        Raises InUse for a thin pool under thin devices, which would wait for it without end.
        """
        old = self.table_lines(name)
        if any(line.type == "thin-pool" for line in old):
            info = self.info(name)
            above = [user for user in blkdev.users(info.path) if user.startswith("used by")]
            if above:
                raise InUse(f"{nodes.path_of(name)}: is in use: {holders.named(above)}")
        size = sum(line.length_sectors for line in old) * layout.SECTOR
        if size:
            self.load(name, [Error(size)])
            self.suspend(name, flush=False, freeze=False)
            self.resume(name)

    # -- single steps ----------------------------------------------------------------------------------------

    def load(self, name: str, table: Sequence[Target], *, read_only: bool = False) -> None:
        """Have ``table`` ready for the next ``resume``; what runs is not touched. Raises NotFound, KernelError."""
        self._load(name, lines(table, nodes.number_of), read_only=read_only)

    def _load(self, name: str, wanted: Sequence[layout.Line], *, read_only: bool) -> None:
        flags = Flag.READ_ONLY if read_only else Flag(0)
        if any(line.type in tables.KEYED for line in wanted):
            flags |= Flag.SECURE_DATA
        payload = layout.pack_targets(wanted)
        try:
            self._control.request(Command.TABLE_LOAD, name, flags=flags, target_count=len(wanted), payload=payload)
        except KernelError as error:
            if error.errno == errno.ENXIO:  # of this device, or of one that the table names
                self.info(name)
            raise

    def clear(self, name: str) -> None:
        """Forget a table that was loaded and does not run."""
        self._control.request(Command.TABLE_CLEAR, name)

    def resume(self, name: str) -> None:
        """Have the device run, with the loaded table where there is one, and its node in place."""
        self._run(name)

    def _run(self, name: str) -> str:
        reply = self._control.request(Command.DEV_SUSPEND, name, event_nr=layout.UDEV_PRIMARY_SOURCE)
        if not reply.flags & Flag.ACTIVE_PRESENT:
            return nodes.path_of(name)  # without a table there is nothing to run
        return nodes.ensure(name, reply.header.dev)

    def suspend(self, name: str, *, flush: bool = True, freeze: bool = True) -> None:
        """Hold back every read and write from now on; those in flight are finished, with ``flush``.

        ``freeze`` has a file system on the device write out what it holds, so that a copy of it is whole.
        """
        flags = Flag.SUSPEND
        flags |= Flag(0) if flush else Flag.NO_FLUSH
        flags |= Flag(0) if freeze else Flag.SKIP_LOCKFS
        self._control.request(Command.DEV_SUSPEND, name, flags=flags)

    @contextmanager
    def suspended(self, name: str, *, flush: bool = True, freeze: bool = True) -> Iterator[None]:
        """Hold the device for the block; whatever happens in it, the device runs afterwards."""
        try:
            self.suspend(name, flush=flush, freeze=freeze)
            yield
        finally:
            self.resume(name)

    def rename(self, name: str, to: str) -> str:
        """Return the node of the device under its new name. Raises InUse where that is taken."""
        nodes.checked_name(to)
        payload = layout.bytes_of(to) + b"\0"
        reply = self._control.request(Command.DEV_RENAME, name, payload=payload, event_nr=layout.UDEV_PRIMARY_SOURCE)
        nodes.remove(name, reply.header.dev)
        return nodes.ensure(to, reply.header.dev) if reply.flags & Flag.ACTIVE_PRESENT else nodes.path_of(to)

    def set_uuid(self, name: str, uuid: str) -> None:
        """Give a device that has no UUID this one. Raises KernelError (EINVAL) where it has one."""
        self._control.request(Command.DEV_RENAME, name, flags=Flag.UUID, payload=layout.bytes_of(uuid) + b"\0")

    def message(self, name: str, text: str, *, sector: int = 0) -> str:
        """Return what the target at that sector answers to a message; most answer nothing."""
        payload = sector.to_bytes(8, sys.byteorder) + layout.bytes_of(text) + b"\0"
        reply = self._control.request(Command.TARGET_MSG, name, payload=payload, once=True)
        return layout.text_of(reply.data) if reply.flags & Flag.DATA_OUT else ""

    # -- questions -------------------------------------------------------------------------------------------

    def version(self) -> tuple[int, int, int]:
        """Return the version of the kernel's interface."""
        found = self._control.request(Command.VERSION).header
        return found.version_major, found.version_minor, found.version_patch

    def targets(self) -> dict[str, tuple[int, int, int]]:
        """Return the targets that the kernel has loaded now, with their versions; others may come as modules."""
        return layout.parse_versions(self._control.request(Command.LIST_VERSIONS).data)

    def target_version(self, kind: str) -> tuple[int, int, int] | None:
        """Return the version of a target, whose module is loaded where there is one; None where there is none."""
        try:
            reply = self._control.request(Command.GET_TARGET_VERSION, kind)
        except BlockwrightError:
            return self.targets().get(kind)  # before Linux 5.13 the request is not known
        return layout.parse_versions(reply.data).get(kind)

    def devices(self) -> list[layout.Entry]:
        """Return every device-mapper device, with UUIDs, in the order of names."""
        reply = self._control.request(Command.LIST_DEVICES, flags=Flag.UUID)
        found = layout.parse_names(reply.data)
        for at, entry in enumerate(found):
            if entry.uuid is None:  # before Linux 5.11
                found[at] = entry._replace(uuid=self.info(entry.name).uuid)
        return sorted(found)

    def exists(self, name: str) -> bool:
        """Whether there is a device of that name."""
        try:
            self.info(name)
        except NotFound:
            return False
        return True

    def info(self, name: str) -> Info:
        """Return the device as it is. Raises NotFound."""
        return _info(self._control.request(Command.DEV_STATUS, name))

    def by_uuid(self, uuid: str) -> Info:
        """Return the device of that UUID as it is. Raises NotFound."""
        return _info(self._control.request(Command.DEV_STATUS, uuid=uuid))

    def by_number(self, dev: int) -> Info:
        """Return the device of that number as it is. Raises NotFound."""
        return _info(self._control.request(Command.DEV_STATUS, dev=dev))

    def table(self, name: str, *, inactive: bool = False) -> list[Target]:
        """Return the table that runs, or the loaded one that does not yet. An encrypted device's has its key."""
        return [tables.parse(line) for line in self.table_lines(name, inactive=inactive)]

    def table_lines(self, name: str, *, inactive: bool = False) -> list[layout.Line]:
        """Return the same as the kernel's text (see ``text``), which may say more than the type has fields for."""
        return self._ask_targets(name, Flag.STATUS_TABLE | (Flag.QUERY_INACTIVE_TABLE if inactive else Flag(0)))

    def status(self, name: str, *, flush: bool = True) -> list[Status]:
        """Return what each target tells of itself; a thin pool commits first, with ``flush``."""
        return [status.parse(line) for line in self.status_lines(name, flush=flush)]

    def status_lines(self, name: str, *, flush: bool = True) -> list[layout.Line]:
        """Return the same as the kernel's text, with where each target lies."""
        return self._ask_targets(name, Flag(0) if flush else Flag.NO_FLUSH)

    def _ask_targets(self, name: str, flags: Flag) -> list[layout.Line]:
        reply = self._control.request(Command.TABLE_STATUS, name, flags=flags)
        return layout.parse_targets(reply.data, reply.header.target_count)

    def dependencies(self, name: str) -> list[tuple[int, int]]:
        """Return (major, minor) of every device that the running table stands on."""
        reply = self._control.request(Command.TABLE_DEPS, name)
        return [split_device(dev) for dev in layout.parse_dependencies(reply.data)]

    def wait(self, name: str, event_nr: int, *, timeout_s: float | None = None) -> Info:
        """Return the device when its event number is another than ``event_nr``, which was read before looking at it.

        Waits for as long as that takes, or for ``timeout_s``; the number is ``event_nr`` still where that was too
        short. Raises NotFound, also where the device goes meanwhile.
        """
        if timeout_s is None:
            self._control.request(Command.DEV_WAIT, name, event_nr=event_nr)
            return self.info(name)  # that it goes is an event too
        end = time.monotonic() + timeout_s
        with Watch() as watch:
            while True:
                found, left = self.info(name), end - time.monotonic()
                if found.event_nr != event_nr or left <= 0:
                    return found
                watch.happened(left)


def _info(reply: Reply) -> Info:
    header, flags = reply.header, reply.flags
    major, minor = split_device(header.dev)
    return Info(
        name=layout.text_of(header.name),
        uuid=layout.text_of(header.uuid),
        major=major,
        minor=minor,
        open_count=header.open_count,
        event_nr=header.event_nr,
        suspended=bool(flags & Flag.SUSPEND),
        read_only=bool(flags & Flag.READ_ONLY),
        active=bool(flags & Flag.ACTIVE_PRESENT),
        inactive=bool(flags & Flag.INACTIVE_PRESENT),
        deferred_remove=bool(flags & Flag.DEFERRED_REMOVE),
    )
