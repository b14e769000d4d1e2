"""An export of an NBD server as a block device of the kernel: the handshake, the device, and what keeps it going.

    with attach("nbd://host/export") as attached:
        print(attached.path)

Knows: what of an export the kernel is told. Refuses to know: the handshake, the driver, and how it is kept connected.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from blockwright.attach.nbd_dial import Link, Source
from blockwright.attach.nbd_links import Keeper
from blockwright.errors import NotFound, NotSupported, RemoteProtocolError, UsageError
from blockwright.nbd.client.connect import list_exports
from blockwright.nbd.protocol.client import Listed
from blockwright.nbd.protocol.session import ExportInfo
from blockwright.nbd.transport import TlsStarter
from blockwright.nbd.uri import NbdUri
from blockwright.nbd.wire import TransmissionFlag
from blockwright.system.linux import nbd as driver
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.nbd import By, Control, NbdDevice, NbdState, ServerFlag, Settings, ownership
from blockwright.system.linux.nbd.attach import READY_TIMEOUT_S
from blockwright.system.linux.nbd.detach import TIMEOUT_S
from blockwright.system.linux.nbd.layout import KNOWN_FLAGS, MAX_CONNECTIONS, MIN_BLOCK_SIZE

CONNECTIONS: Final = 4
"""Connections to a server that allows several."""
DEAD_TIMEOUT_S: Final = 30.0
"""How long requests wait for another connection when all are dead."""
MAX_BLOCK_SIZE: Final = 4096
"""The largest block that every kernel takes, whose pages have no less."""


class Attached:
    """A device that was attached here: ``path`` is its node, ``export`` what the server told of what is behind it.

    As a context manager it goes with the block, and with this process where that dies: ``gc`` finds it then.
    """

    def __init__(
        self, device: NbdDevice, source: Source, export: ExportInfo, keeper: Keeper, logger: Logger | None
    ) -> None:
        self.device = device
        self.path = device.path
        self.export = export
        self._source = source
        self._keeper = keeper
        self._logger = logger

    def __str__(self) -> str:
        return self.path

    def __fspath__(self) -> str:
        return self.path

    def state(self) -> NbdState:
        """Return what the device is now. Raises NotFound where it is no longer what was attached here."""
        return self.device.state()

    def refresh(self) -> int:
        """Have the device's size follow the server's; return it in bytes.

        Raises NotSupported where the source was a socket, NotFound, KernelError; else as ``attach``.
        """
        size = self._source.size()
        self.device.resize(size)
        told(self._logger).info("%s: has %d bytes now", self.path, size)
        return size

    def keep(self) -> None:
        """Have the device stay when this process ends; it is not connected again then.

        Raises NotSupported where this process carries its bytes.
        """
        if self._carried:
            raise NotSupported(f"{self.path}: {self._source.text} needs this process, which carries its bytes")
        self.device.keep()

    @property
    def _carried(self) -> bool:
        return self._source.again and (self._source.uri.tls or self._source.uri.transport == "vsock")

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the device is detached, by whoever it is, and say whether it was."""
        return self._keeper.ended.wait(timeout_s)

    def when_ended(self, function: Callable[[], None]) -> None:
        """Call the function when the device is detached, by whoever it is; from a thread."""
        self._keeper.when_ended(function)

    def detach(self, *, force: bool = False, timeout_s: float = TIMEOUT_S, logger: Logger | None = None) -> None:
        """Have the device free, and no thread left. Idempotent. Raises as ``detach``; it stays attached then."""
        self.device.detach(force=force, timeout_s=timeout_s, logger=logger)
        self._keeper.stop()

    def __enter__(self) -> Self:
        self.device.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()


def attach(  # noqa: PLR0913 - a device's settings
    sock_or_uri: socket.socket | NbdUri | str,
    device: str | int | None = None,
    *,
    export: str = "",
    connections: int = CONNECTIONS,
    read_only: bool = False,
    block_size: int | None = None,
    timeout_s: float | None = None,
    dead_timeout_s: float = DEAD_TIMEOUT_S,
    identifier: str | None = None,
    owned: bool = False,
    by: By | None = None,
    start_tls: TlsStarter | None = None,
    on_connected: Callable[[Attached], object] | None = None,
    ready_timeout: float = READY_TIMEOUT_S,
    logger: Logger | None = None,
) -> Attached:
    """Return the export as a block device of the kernel, which can be read when this returns.

    ``sock_or_uri`` is an address, or a connected socket on which nothing was said yet, of whose server ``export`` is
    wanted; the socket belongs to the device then. ``device`` is taken if it is free, any without it. ``connections``
    are made where the server allows several, and made again when they die, for as long as this process lives.
    ``dead_timeout_s`` is how long requests wait while all are dead. After ``timeout_s`` without an answer a request
    is asked again on another connection, and so is what was under way when one died; without it a slow server is
    waited for, and what was under way is asked again after 30 s. ``block_size`` in bytes is by default the server's
    minimum. ``identifier`` is what the kernel knows the device by. With ``owned`` it goes with this process: ``gc``
    detaches it when that has died. ``on_connected`` is called with the device when it can be read, for which
    ``ready_timeout`` seconds are waited.

    Raises UsageError; NotFound where nobody listens or there is no such export, Refused with the server's reason,
    NotTrusted, RemoteProtocolError, TimeoutError, OSError; NotSupported for blocks that the kernel does not have;
    InUse where ``device`` is taken; Unavailable without privilege or driver; KernelError. Nothing is left then.
    """
    if not 1 <= connections <= MAX_CONNECTIONS:
        raise UsageError(f"connections: expected 1 to {MAX_CONNECTIONS}, found {connections}")
    by = driver.available() if by is None else by
    source = Source(sock_or_uri, export=export, start_tls=start_tls)
    links = _links(source, connections, logger)
    try:
        settings = _settings(links[0].export, read_only, block_size, timeout_s, dead_timeout_s, identifier)
        attached = _attached(source, links, settings, device, by, owned, ready_timeout, logger)
    finally:
        for each in links:
            each.sock.close()
    try:
        if on_connected is not None:
            on_connected(attached)
    except BaseException:
        attached.detach()
        raise
    return attached


def _attached(
    source: Source,
    links: Sequence[Link],
    settings: Settings,
    device: str | int | None,
    by: By,
    owned: bool,  # noqa: FBT001 - private
    ready_timeout_s: float,
    logger: Logger | None,
) -> Attached:
    found = links[0].export
    dead = _dead_links(by) if source.again else None  # from before the first can die
    try:
        made = driver.attach(
            [each.sock for each in links],
            settings,
            device=device,
            by=by,
            owned=owned,
            source=source.text if source.again else "",
            largest_request=found.blocks.maximum if found.blocks else None,
            ready_timeout_s=ready_timeout_s,
            logger=logger,
        )
    except BaseException:
        if dead is not None:
            dead.close()
        raise
    if rest := settings.size - settings.kept_size:
        text = "%s: the last %d bytes of %s are no whole block, and left out"
        told(logger).warning(text, made.path, rest, source.text)
    read_only = bool(settings.flags & ServerFlag.READ_ONLY)
    keeper = Keeper(made, source, dead, connections=len(links), read_only=read_only, logger=told(logger))
    keeper.start()
    return Attached(made, source, found, keeper, logger)


def _dead_links(by: By) -> driver.DeadLinks | None:
    if by is not By.NETLINK:
        return None
    with Control() as control:
        return control.dead_links()


def _links(source: Source, connections: int, logger: Logger | None) -> list[Link]:
    """Return as many connections as the server allows, which all lead to the same."""
    links = [source.link()]
    try:
        first = links[0].export
        several = source.again and first.flags & TransmissionFlag.CAN_MULTI_CONN
        if connections > 1 and not several:
            told(logger).info("%s: one connection, as the server allows no more", source.text)
        while len(links) < connections and several:
            links.append(source.link())
            again = links[-1].export
            if (again.size, again.flags) != (first.size, first.flags):
                raise RemoteProtocolError(
                    f"{source.text}: another connection leads to another export: expected {first.size} bytes and "
                    f"flags {first.flags:#x}, found {again.size} and {again.flags:#x}"
                )
    except BaseException:
        for each in links:
            each.sock.close()
        raise
    return links


def _settings(
    export: ExportInfo,
    read_only: bool,  # noqa: FBT001 - private
    block_size: int | None,
    timeout_s: float | None,
    dead_timeout_s: float,
    identifier: str | None,
) -> Settings:
    minimum = max(MIN_BLOCK_SIZE, export.blocks.minimum if export.blocks else 1)
    if minimum > MAX_BLOCK_SIZE:
        raise NotSupported(
            f"block size: the kernel has blocks up to {MAX_BLOCK_SIZE} bytes, the server from {minimum}"
        )
    if block_size is not None and not minimum <= block_size <= MAX_BLOCK_SIZE:
        raise UsageError(f"block size: expected {minimum} to {MAX_BLOCK_SIZE} bytes, found {block_size}")
    flags = ServerFlag(int(export.flags) & KNOWN_FLAGS) | ServerFlag.HAS_FLAGS
    return Settings(
        size=export.size,
        block_size=block_size or minimum,
        flags=flags | ServerFlag.READ_ONLY if read_only else flags,
        timeout_s=math.ceil(timeout_s or 0),
        dead_timeout_s=math.ceil(dead_timeout_s),
        identifier=identifier or "",
    )


def exports(uri: NbdUri | str, *, logger: Logger | None = None) -> tuple[Listed, ...]:
    """Return the exports that the server at an address lists, each with what it tells of it.

    Needs neither privilege nor driver. Raises UsageError for what is no address; NotFound where nobody listens,
    Refused with the server's reason, NotTrusted, RemoteProtocolError, TimeoutError, OSError.
    """
    found = list_exports(uri)
    told(logger).info("%s: lists %d exports", uri, len(found))
    return found


# -- devices that are there already ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Device:
    """An attached device, and what is on record about it.

    ``source`` is the address it was attached to and ``connections`` how many were made; empty and 0 where others
    attached it. ``owner`` is the process that answers for it, None where there is none, and ``alive`` says whether
    that still runs.
    """

    state: NbdState
    source: str = ""
    connections: int = 0
    owner: int | None = None
    alive: bool = False


def devices(*, logger: Logger | None = None) -> Iterator[Device]:
    """Yield every attached device, ascending, whoever attached it. Raises Unavailable."""
    known = {(each.number, each.task): record for record, each in ownership.records() if each is not None}
    for found in driver.states(logger=logger):
        record = known.get((found.number, found.task))
        if record is None:
            yield Device(found)
            continue
        owner = record.owner[0] if record.owner else None
        yield Device(found, _text(record.fields), _count(record.fields), owner, record.alive)


def _text(fields: dict[str, Any]) -> str:
    source = fields.get("source")
    return source if isinstance(source, str) else ""


def _count(fields: dict[str, Any]) -> int:
    count = fields.get("connections")
    return count if isinstance(count, int) else 0


def refresh(device: str | int, *, logger: Logger | None = None) -> int:
    """Have the size of a device that was attached here to an address follow the server's; return it in bytes.

    Any process may ask. Raises NotFound where it is not attached, or not on record; else as ``attach``.
    """
    number = driver.number_of(device)
    for each in devices():
        if each.state.number == number and each.source:
            size = Source(each.source).size()
            with Control() as control:
                control.reconfigure(number, each.state.identifier, size=size)
            told(logger).info("%s: has %d bytes now", each.state.path, size)
            return size
    raise NotFound(f"/dev/nbd{number}: is not attached to an address on record")


def detach(
    device: str | int, *, force: bool = False, timeout_s: float = TIMEOUT_S, logger: Logger | None = None
) -> bool:
    """Have the device free, and answer whether it was attached before. Raises as ``system.linux.nbd.detach``."""
    return driver.detach(device, force=force, timeout_s=timeout_s, logger=logger)


def gc(*, force: bool = False, logger: Logger | None = None) -> driver.Collected:
    """Have no device attached that was owned by a process that died. Raises as ``system.linux.nbd.gc``."""
    return driver.gc(force=force, logger=logger)
