"""/dev/mapper/control: one request, one answer.

The answer's buffer grows until the answer fits: a kernel that lacks room succeeds and says so in a flag.

Knows: the transport, and what an errno means for any request. Refuses to know: devices.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from blockwright.errors import InUse, KernelError, NotFound, UsageError
from blockwright.system.linux.dm import layout
from blockwright.system.linux.dm.kmsg import KernelLog
from blockwright.system.linux.dm.layout import Command, Flag, Header
from blockwright.system.linux.ioctl import HELD_ABOVE, call, kernel_error, number_inout, open_control, split_device
from blockwright.system.linux.log import Logger, told

_FIRST_REPLY: Final = HELD_ABOVE
_ONLY_REPLY: Final = 16 << 10
_REASONS: Final = {
    errno.EINVAL: "invalid argument",
    errno.ENODEV: "a device that the table names does not exist",
    getattr(errno, "ENOTBLK", 15): "the metadata is not what the target expects",
    errno.EOPNOTSUPP: "the device is in a state that does not allow it",
    errno.ENODATA: "no such thin device in the pool",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """The kernel's answer: its header, and the bytes behind it."""

    header: Header
    data: bytes

    @property
    def flags(self) -> Flag:
        """What the answer says of the device."""
        return Flag(self.header.flags)


class Control:
    """The open control node. Requests name a device by name, or by UUID with ``uuid``, or by number with ``dev``.

    Raises Unavailable without the driver or without privilege. Close it, or use it as a context manager.
    """

    def __init__(self, logger: Logger | None = None) -> None:
        self._told = told(logger)
        self._fd = open_control(layout.CONTROL, misc="device-mapper", module="dm_mod")
        self._log = KernelLog()

    def fileno(self) -> int:
        """Return the descriptor, for poll."""
        return self._fd

    def request(
        self,
        command: Command,
        name: str = "",
        *,
        uuid: str = "",
        dev: int = 0,
        flags: Flag = Flag(0),  # noqa: B008 - a constant
        event_nr: int = 0,
        target_count: int = 0,
        payload: bytes = b"",
        once: bool = False,
    ) -> Reply:
        """Return the kernel's answer.

        ``once`` asks no second time where the answer does not fit. Raises NotFound where there is no such device,
        InUse where the kernel answers EBUSY, UsageError for a name or UUID that is too long, KernelError with the
        kernel's own reason where it can be read.
        """
        header = Header(
            flags=flags,
            event_nr=event_nr,
            target_count=target_count,
            dev=dev,
            name=_field(name, layout.NAME_SIZE, "name"),
            uuid=_field(uuid, layout.UUID_SIZE, "UUID"),
        )
        size = max(_ONLY_REPLY if once else _FIRST_REPLY, Header.SIZE + len(payload))
        while True:
            buffer = bytearray(size)
            header.data_size = size
            buffer[: Header.SIZE] = header.pack()
            buffer[Header.SIZE : Header.SIZE + len(payload)] = payload
            self._call(command, buffer, name or uuid or _device(dev))
            found = Header.parse(buffer)
            if not found.flags & Flag.BUFFER_FULL or command == Command.DEV_WAIT:  # its answer is the header
                return Reply(found, bytes(buffer[min(found.data_start, size) : min(found.data_size, size)]))
            if once or size >= layout.MAX_REPLY:
                raise KernelError(f"DM_{command.name}", name, errno.ENOSPC, f"the answer is over {size} bytes long")
            size *= 8

    def _call(self, command: Command, buffer: bytearray, device: str) -> None:
        self._log.mark()
        self._told.debug("DM_%s %s", command.name, device)
        request = number_inout(layout.KIND, command, Header.SIZE)
        try:
            call(self._fd, request, buffer, operation=f"DM_{command.name}", device=device or layout.CONTROL)
        except KernelError as error:
            raise self._explained(error, command, buffer) from None

    def _explained(self, error: KernelError, command: Command, buffer: bytearray) -> Exception:
        number = error.errno or errno.EIO
        if number == errno.ENXIO and command != Command.TABLE_LOAD:
            return NotFound(f"{error.device}: no such device-mapper device")
        said = self._log.said()
        if number == errno.EBUSY:
            return InUse(f"{error.device}: {error.operation}: {said or 'is in use'}")
        spoken = Header.parse(buffer)
        if number == errno.EINVAL and spoken.version_major != layout.VERSION[0]:
            said = f"expected interface version 4, found {spoken.version_major}.{spoken.version_minor}"
        return kernel_error(error.operation, error.device, number, said or _REASONS.get(number, ""))

    def close(self) -> None:
        """Let go of the node. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _field(text: str, size: int, what: str) -> bytes:
    data = layout.bytes_of(text)
    if len(data) >= size or b"\0" in data:
        raise UsageError(f"device-mapper {what} {text[:40]!r}: expected at most {size - 1} bytes, found {len(data)}")
    return data


def _device(dev: int) -> str:
    return "{}:{}".format(*split_device(dev)) if dev else ""
