"""The exports of a server by name, and what one client gets to know of them.

Knows: names, and who may use which. Refuses to know: how a client is served.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Self

from blockwright.errors import UsageError
from blockwright.nbd.protocol.server import Offer, OptionRefused
from blockwright.nbd.protocol.session import ExportInfo
from blockwright.nbd.protocol.steps import Identity
from blockwright.nbd.server.export import Export, Opened, Served, only_readable
from blockwright.nbd.server.failure import failure
from blockwright.nbd.server.limits import Limits
from blockwright.nbd.server.log import Log
from blockwright.nbd.server.metrics import ServerMetrics
from blockwright.nbd.server.peer import Peer
from blockwright.nbd.wire import Option, ReplyType


class Catalogue:
    """Exports by name. Thread-safe; ``replace`` changes them while sessions go on.

    ``default`` names the export that an empty name asks for; without it that is the only one there is. Raises
    UsageError where two have one name, or where there is no export of the default's name.
    """

    def __init__(self, exports: Iterable[Export], default: str | None = None) -> None:
        self._lock = threading.Lock()
        self._served: dict[str, Served] = {}
        self._default: str | None = None
        self._leaving: list[Served] = []
        self.replace(exports, default)

    def replace(self, exports: Iterable[Export], default: str | None = None) -> None:
        """Offer these exports from now on.

        One that is equal to what is offered already goes on as it is. One that is gone, or changed, is closed when
        its last session ends; where the new one has the same device, it is opened once and they share it.
        """
        wanted: dict[str, Export] = {}
        for export in exports:
            if export.name in wanted:
                raise UsageError(f"exports: {export.name!r} is there twice")
            wanted[export.name] = export
        if default is not None and default not in wanted:
            raise UsageError(
                f"exports: the default {default!r} is not among {', '.join(map(repr, wanted)) or 'them'}"
            )
        with self._lock:
            old = self._served
            opened = _ByDevice()
            for served in (*old.values(), *self._leaving):
                opened.note(served)
            self._served = {}
            for name, export in wanted.items():
                same = old.get(name)
                if same is None or same.export != export:
                    same = Served(export, opened.share(export))
                    opened.note(same)
                self._served[name] = same
            self._default = default
            self._leaving += [each for name, each in old.items() if self._served.get(name) is not each]
        self.close_unused()

    def find(self, name: str) -> Served | None:
        """Return the export called ``name``."""
        with self._lock:
            return self._find(name)

    def take(self, name: str) -> Served | None:
        """Return the export called ``name``, which stays open until it is given back."""
        with self._lock:
            found = self._find(name)
            if found is not None:
                found.users += 1
            return found

    def give_back(self, taken: Iterable[Served]) -> None:
        """Let go of what was taken; what is not offered any more is closed by the last who does."""
        with self._lock:
            for served in taken:
                served.users -= 1
        self.close_unused()

    def _find(self, name: str) -> Served | None:
        found = self._served.get(name)
        if found is None and not name:
            if self._default is not None:
                return self._served[self._default]
            if len(self._served) == 1:
                return next(iter(self._served.values()))
        return found

    def all(self) -> list[Served]:
        """Return the exports that are offered now."""
        with self._lock:
            return list(self._served.values())

    def close_unused(self) -> None:
        """Close the exports that are not offered any more and that nobody has taken."""
        with self._lock:
            done = [each for each in self._leaving if not each.users]
            self._leaving = [each for each in self._leaving if each.users]
        _close_all(done)

    def close(self) -> None:
        """Offer nothing any more, and close each export that nobody has taken; others are closed by the last who has.

        Raises what closing one of them raised, when all were closed.
        """
        with self._lock:
            self._leaving += self._served.values()
            self._served = {}
        self.close_unused()


def _close_all(exports: Iterable[Served]) -> None:
    """Close each, whatever closing another raises: an image on a full disk must not keep others from their disk."""
    with ExitStack() as stack:
        for each in exports:
            stack.callback(each.close)


class _ByDevice:
    """Devices that exports have: one is opened once for all of them, as its calls may have to be made in turn.

    Found by hash, as there may be thousands; a source that has none is compared with the others of its kind.
    """

    def __init__(self) -> None:
        self._hashed: dict[object, Opened] = {}
        self._others: list[tuple[object, Opened]] = []

    def note(self, served: Served) -> None:
        """Take note of an export's device; of equal ones the first stays."""
        device = served.export.device
        try:
            self._hashed.setdefault(device, served.opened)
        except TypeError:
            self._others.append((device, served.opened))

    def share(self, export: Export) -> Opened | None:
        """Return the export's device for one more user, None where no export has it yet."""
        try:
            found = self._hashed.get(export.device)
        except TypeError:
            found = next((opened for device, opened in self._others if device == export.device), None)
        return None if found is None else found.share()


class ClientView:
    """The catalogue as one client sees it: what it may not use does not exist for it. Answers the handshake.

    As a context manager it keeps open what the client found, until the client is gone.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        peer: Peer,
        limits: Limits,
        log: Log,
        stopping: threading.Event,
        *,
        metrics: ServerMetrics | None = None,
    ) -> None:
        self._metrics = metrics
        self._catalogue = catalogue
        self._limits = limits
        self._log = log
        self._stopping = stopping
        self._taken: list[Served] = []
        self.peer = peer
        self.found: dict[str, Served] = {}
        self.joined: Served | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.joined is not None:
            self.joined.leave()
            self.joined = None
        taken, self._taken = self._taken, []
        self._catalogue.give_back(taken)

    @property
    def stopping(self) -> bool:
        """Whether the server is about to end."""
        return self._stopping.is_set()

    def authenticated(self, identity: Identity) -> None:
        """Take note of who the client proved to be."""
        self.peer = _identified(self.peer, identity)
        self.found = {}

    def refused(self, option: int, reply: ReplyType, message: str) -> None:
        """Count the refusal and log it; that an option is unknown is no news."""
        if self._metrics is not None:
            self._metrics.count("option refused", reply.name)
        if reply is not ReplyType.ERR_UNSUP:
            name = Option(option).name if option in set(Option) else str(option)
            self._log("option refused", option=name, reply=reply.name, reason=message)

    def listed(self) -> Iterable[tuple[str, str]]:
        """Return the exports that are listed and that the client may use."""
        for served in self._catalogue.all():
            export = served.export
            if export.listed and self._why_not(served) is None:
                yield export.name, export.description

    def find(self, name: str) -> Offer:
        """Return the export, its device open. Raises OptionRefused."""
        served = self._catalogue.take(name)
        if served is None:
            raise OptionRefused(ReplyType.ERR_UNKNOWN, f"there is no export {name[:64]!r}")
        self._taken.append(served)
        reason = self._why_not(served)
        if reason is not None:
            self._log("export denied", export=served.export.name, reason=reason)
            raise OptionRefused(ReplyType.ERR_UNKNOWN, f"there is no export {name[:64]!r}")
        try:
            info = served.info(self._limits)
        except Exception as error:  # noqa: BLE001 - whatever opening raises is told to the log, and is not the client's
            self._log("export not opened", export=served.export.name, reason=failure(error)[1])
            raise OptionRefused(ReplyType.ERR_UNKNOWN, f"the export {name[:64]!r} cannot be opened") from None
        access = served.export.access
        if access is not None and access.read_only(self.peer):
            info = only_readable(info)
        self.found[info.name] = served
        return Offer(info, served.context_names)

    def begin(self, info: ExportInfo) -> None:
        """Count the client's session, until the client is gone. Raises OptionRefused."""
        served = self.found[info.name]
        if not served.join():
            told = f"the export {info.name[:64]!r} has {served.export.connections} connections already"
            raise OptionRefused(ReplyType.ERR_POLICY, told)
        self.joined = served

    def _why_not(self, served: Served) -> str | None:
        access = served.export.access
        return None if access is None else access.refusal(self.peer)


def _identified(peer: Peer, identity: Identity) -> Peer:
    return Peer(peer.kind, peer.address, peer.port, peer.uid, peer.gid, peer.pid, identity)
