"""A process that serves sessions which another one accepted: one interpreter, and one core, for each.

Knows: sessions over one file. Refuses to know: handshakes, exports, and how many workers there are.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.device.file import FileDevice
from blockwright.device.window import Window
from blockwright.nbd.server import handoff
from blockwright.nbd.server.ending import STOPPED, Ending
from blockwright.nbd.server.export import Export, Served
from blockwright.nbd.server.handoff import Handoff
from blockwright.nbd.server.limits import ByteBudget
from blockwright.nbd.server.metrics import ExportMetrics
from blockwright.nbd.server.session import SessionRun
from blockwright.nbd.transport import SocketStream

TICK_S: Final = 1.0
"""Seconds between two reports of what was counted."""


def main(descriptor: int) -> None:
    """Serve what arrives on the socket ``descriptor`` until its other end is closed."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)  # the process that accepts decides when to end
    if sys.platform == "linux":
        # Woken at the first of many requests, a worker would interrupt the client that is still sending the others.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with socket.socket(fileno=descriptor) as channel:
        with contextlib.suppress(OSError):  # closed already: run sees it too
            channel.send(handoff.READY)
        _Worker(channel).run()
    os._exit(0)


class _Worker:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._stopping = threading.Event()
        self._budget: ByteBudget | None = None
        self._lock = threading.Lock()
        self._open: set[_Worked] = set()

    def run(self) -> None:
        """Begin each session in a thread of its own."""
        threading.Thread(target=self._tick, name="nbd: tick", daemon=True).start()
        while True:
            try:
                data, descriptors = handoff.receive(self._channel)
            except ConnectionError:  # closed before it was read that we are ready
                break
            if not data:
                break
            if data == handoff.STOP:
                self._stopping.set()
                continue
            with contextlib.suppress(Exception):  # out of descriptors: who asked is told, and other sessions go on
                self._begin(data, descriptors)
        self._stopping.set()
        for worked in self.open:
            worked.session.cut_off(STOPPED)

    def _begin(self, data: bytes, descriptors: list[int]) -> None:
        """Begin a session. Where that cannot be, its descriptors are closed: by that the other process knows."""
        with contextlib.ExitStack() as stack:
            for each in descriptors:
                stack.callback(os.close, each)
            if len(descriptors) != handoff.DESCRIPTORS:
                return
            request = Handoff.decode(data)
            stack.pop_all()
        self._budget = self._budget or ByteBudget(request.limits.bytes_in_flight)
        worked = _Worked(request, descriptors, self._budget, self._stopping)
        with self._lock:
            self._open.add(worked)
        try:
            threading.Thread(target=self._serve, args=(worked,), name=f"nbd: {request.peer}", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._open.discard(worked)
            worked.end(Ending("internal", "the worker process has no thread for it"))

    @property
    def open(self) -> list[_Worked]:
        """The sessions under way."""
        with self._lock:
            return list(self._open)

    def _serve(self, worked: _Worked) -> None:
        try:
            worked.serve()
        finally:
            with self._lock:
                self._open.discard(worked)

    def _tick(self) -> None:
        while True:
            time.sleep(TICK_S)
            for worked in self.open:
                worked.tick()


class _Worked:
    """One session, and what is reported of it."""

    def __init__(
        self, request: Handoff, descriptors: list[int], budget: ByteBudget, stopping: threading.Event
    ) -> None:
        client, file, answers = descriptors
        self._metrics = ExportMetrics(heat=request.heat)
        self._reporting = threading.Lock()
        self._held = 0
        with contextlib.ExitStack() as made:
            made.callback(os.close, file)  # whatever becomes of the devices over it
            self.answers = made.enter_context(socket.socket(fileno=answers))
            self._stream = SocketStream(made.enter_context(socket.socket(fileno=client)))
            device: BlockDevice = FileDevice.adopt(file, request.name, writable=request.writable)
            if request.start or device.size != request.session.export.size:
                device = Window(device, request.start, request.session.export.size)
            made.pop_all()
        export = Export(request.session.export.name, device, read_only=not request.writable)
        self._device = device
        self._served = Served(export)
        self.session = SessionRun(
            self._stream,
            request.session,
            self._served,
            request.limits,
            budget,
            self._metrics,
            self._log,
            stopping,
            has_spare_core=lambda: False,  # there are other sessions, or this one would not be here
        )

    def serve(self) -> None:
        """Serve the session, and report why it ended."""
        self.end(self.session.serve())

    def end(self, ending: Ending) -> None:
        """Close what the session has, and report why it ended."""
        with self.answers:
            try:
                with contextlib.closing(self._device), contextlib.closing(self._served):
                    self._stream.close()
            finally:
                self._report()
                handoff.tell(self.answers, "ended", how=ending.how, reason=ending.reason)

    def tick(self) -> None:
        """Report what was counted since the last time, and end a session whose request takes too long."""
        with contextlib.suppress(OSError):
            self._report()
        self.session.cut_off_if_stuck()

    def _report(self) -> None:
        with self._reporting:
            counted, held = self._metrics.take(), self.session.bytes_in_flight
            if counted or held != self._held:
                self._held = held
                heat = self._metrics.heat().fields() if self._metrics.has_heat else None
                fields = handoff.metrics_fields(counted)
                handoff.tell(self.answers, "metrics", commands=fields, held=held, heat=heat)

    def _log(self, event: str, /, **fields: object) -> None:
        handoff.tell(self.answers, "log", event=event, fields={key: str(value) for key, value in fields.items()})
