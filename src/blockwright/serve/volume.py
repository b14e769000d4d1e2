"""A volume of layers exported by this process, which was started for it (``volume.file.export``).

It serves a socket in a folder of its own and, where that is wanted, attaches it as a block device. A signal ends it
when the device was detached, or where there is none, when no client is connected; until then signals change nothing,
so that what uses the volume is not left without it.

Knows: the order of things in that process. Refuses to know: who started it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from blockwright.errors import BlockwrightError, NotFound, NotSupported
from blockwright.volume.file import FileDriver
from blockwright.volume.file.export import START_S, lease_name
from blockwright.volume.file.holder import PREFIX, remove_traces
from blockwright.volume.spec import PoolSpec, load_spec

if TYPE_CHECKING:
    from blockwright.attach.nbd import Attached
    from blockwright.nbd.server.server import Server

_REPLY: Final = 1


def main() -> None:
    """Export the volume that the arguments name: POOL NAME read-only|writable device|socket.

    The process that was started ends at once, and its child goes on, which tells in one line of JSON on standard
    output where the export is, or why there is none.
    """
    if sys.platform == "win32":
        raise NotSupported("volume: this system has no sockets that are files")
    pool, name, mode, kind = sys.argv[1:]
    if os.fork():
        os._exit(0)
    os.setsid()
    waited = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)  # from before there are threads
    signal.alarm(START_S)

    def ready(path: str) -> None:
        _tell({"path": path})
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, _REPLY)
        os.close(nothing)
        signal.alarm(0)

    try:
        spec = load_spec(pool)
        os.chdir("/")
        _serve(
            spec,
            name,
            writable=mode == "writable",
            device=kind == "device",
            ready=ready,
            wait=lambda: signal.sigwait(waited),
        )
    except (BlockwrightError, OSError) as error:
        _tell({"error": str(error), "kind": type(error).__name__})
        sys.exit(1)


def _tell(document: dict[str, str]) -> None:
    """Write the line; whoever is not there any more to read it has us end."""
    os.write(_REPLY, json.dumps(document).encode() + b"\n")


def _serve(
    spec: PoolSpec,
    name: str,
    *,
    writable: bool,
    device: bool,
    ready: Callable[[str], None],
    wait: Callable[[], object],
) -> None:
    from blockwright.nbd.server.export import Export
    from blockwright.nbd.server.listeners import listen_unix
    from blockwright.nbd.server.server import Server

    with ExitStack() as stack:
        driver = stack.enter_context(FileDriver(spec))
        volume = driver.get(name)
        disk = stack.enter_context(driver.open_layers(volume, writable=writable))
        socket = os.path.join(tempfile.mkdtemp(prefix=PREFIX), "s")
        stack.callback(remove_traces, socket)
        fields = {"socket": socket, "device": device, "read_only": not writable}
        lease = driver.journal.take(lease_name(volume.id), fields)
        stack.callback(driver.journal.give_back, lease)
        listener = listen_unix(socket, mode=0o600)
        export = Export(name, disk, read_only=not writable, growing=True)
        server = stack.enter_context(Server([export], [listener.socket]))
        path = str(replace(listener.uri, export=name))
        attached = stack.enter_context(_attach(path, writable=writable)) if device else None
        path = path if attached is None else attached.path
        driver.journal.renew(lease, {**fields, "path": path})
        ready(path)
        while True:
            wait()
            if _is_free(server, attached):
                return


def _attach(uri: str, *, writable: bool) -> Attached:
    from blockwright.attach import nbd

    def tell() -> None:
        os.kill(os.getpid(), getattr(signal, "SIGUSR1"))  # noqa: B009 - Windows has none, and never comes here

    attached = nbd.attach(uri, connections=1, read_only=not writable, owned=True)
    attached.when_ended(tell)
    return attached


def _is_free(server: Server, attached: Attached | None) -> bool:
    """Whether nobody can have anything left to write."""
    if attached is None:
        return not server.connections
    try:
        attached.state()
    except NotFound:
        return True
    return False
