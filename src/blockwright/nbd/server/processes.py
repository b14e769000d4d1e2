"""Worker processes: sessions over plain files leave the interpreter that accepted them, and its lock.

A worker is started when every process has a session already, so one client is served without any. It gets the
client's socket and the file over a socket of its own, and ends with the process that started it.

Knows: which sessions can leave, and where to. Refuses to know: what a session does.
"""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.nbd.protocol.session import Session
from blockwright.nbd.server import handoff
from blockwright.nbd.server.ending import Ending
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.failure import failure
from blockwright.nbd.server.handoff import Handoff
from blockwright.nbd.server.heat import Heat, HeatMap
from blockwright.nbd.server.limits import ByteBudget, Limits
from blockwright.nbd.server.log import Log
from blockwright.nbd.server.metrics import ExportMetrics
from blockwright.nbd.transport import SocketStream, Stream
from blockwright.nbd.wire import BASE_ALLOCATION

START_S: Final = 30.0
"""Seconds that a worker process may take to start."""
PATIENCE_S: Final = 5.0
"""Seconds that a worker process may take to end."""
_MAIN = "import sys; from blockwright.nbd.server.worker import main; main(int(sys.argv[1]))"

if sys.platform == "linux":
    _CORES = len(os.sched_getaffinity(0))
else:
    _CORES = os.cpu_count() or 1


class File(NamedTuple):
    """Where a device's bytes are: all of them, from ``offset`` on, in one open file."""

    fd: int
    offset: int
    writable: bool


class Processes:
    """Up to ``count`` worker processes. Thread-safe; ``close`` ends them.

    Each gets its share of ``budget``, this process's, for as long as it lives: together they hold no more than that.
    """

    def __init__(self, count: int, budget: ByteBudget) -> None:
        self._count = count if sys.platform == "linux" else 0
        self._budget = budget
        self._share = budget.limit // (self._count + 1)
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._here = 0
        self._sessions = 0
        self._held: dict[socket.socket, int] = {}

    @property
    def bytes_in_flight(self) -> int:
        """The bytes that requests in workers held when they last told."""
        with self._lock:
            return sum(self._held.values())

    def serve(self, leaving: Leaving, here: Callable[[], Ending]) -> Ending:
        """Have the session served by the process that has the fewest, and return why it ended.

        ``here`` serves it in this one. Shutting down the stream ends it in a worker too.
        """
        with self._lock:
            self._sessions += 1
        try:
            return self._serve(leaving, here)
        finally:
            with self._lock:
                self._sessions -= 1

    def _serve(self, leaving: Leaving, here: Callable[[], Ending]) -> Ending:
        file = leaving.file() if self._count else None
        worker = self._choose(leaving.log, may_leave=file is not None)
        if worker is not None and not worker.ready():
            self._do_without(worker, leaving.log)
            worker = None
        if worker is not None and file is not None:
            request = leaving.request(file, self._share)
            try:
                answers = worker.begin(request, leaving.stream.fileno(), file.fd)
            except OSError:  # it has ended, and nothing of the session was served there
                with self._lock:
                    worker.sessions -= 1
                    self._here += 1
            else:
                return self._elsewhere(worker, answers, leaving)
        try:
            return here()
        finally:
            with self._lock:
                self._here -= 1

    def _elsewhere(self, worker: _Worker, answers: socket.socket, leaving: Leaving) -> Ending:
        """Follow a session in a worker to its end."""
        try:
            with answers:
                return self._follow(answers, leaving.metrics, leaving.log)
        except (OSError, ValueError) as error:
            leaving.stream.shut_down()  # nobody would count it any more
            return Ending("internal", f"the worker process failed: {failure(error)[1]}")
        finally:
            with self._lock:
                worker.sessions -= 1
                self._held.pop(answers, None)

    def _follow(self, answers: socket.socket, metrics: ExportMetrics, log: Log) -> Ending:
        """Take what a worker tells of a session, until it has ended, and return why it did."""
        heat = metrics.begin_heat(0)
        try:
            return self._follow_to_end(answers, metrics, heat, log)
        finally:
            metrics.end_heat(heat)

    def _follow_to_end(self, answers: socket.socket, metrics: ExportMetrics, heat: Heat | None, log: Log) -> Ending:
        while True:
            found = handoff.told(answers)
            if found is None:
                return Ending("internal", "the worker process has given it up")
            if found["kind"] == "ended":
                return Ending(found["how"], found["reason"])
            if found["kind"] == "log":
                log(found["event"], **found["fields"])
            else:
                metrics.add(handoff.metrics_of(found["commands"]))
                if heat is not None and found["heat"] is not None:
                    heat.take_over(HeatMap.of_fields(found["heat"]))
                with self._lock:
                    self._held[answers] = found["held"]

    def has_spare_core(self) -> bool:
        """Whether there are more cores than sessions."""
        return self._sessions < _CORES

    def stop(self) -> None:
        """Tell the workers to answer ESHUTDOWN."""
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.stop()

    def close(self) -> None:
        """End the workers; sessions that are still under way there end too."""
        with self._lock:
            workers, self._workers = self._workers, []
        for worker in workers:
            worker.close()

    def _choose(self, log: Log, *, may_leave: bool) -> _Worker | None:
        """Return the worker that is to have one more session, None for this process, which has it then."""
        with self._lock:
            for each in [each for each in self._workers if each.gone]:
                self._workers.remove(each)
                self._budget.limit += self._share
                each.close()
            best = min(self._workers, key=lambda each: each.sessions, default=None)
            if may_leave and self._here and (best is None or best.sessions) and len(self._workers) < self._count:
                best = self._started(log) or best
            if best is None or not may_leave or self._here < best.sessions or not self._here:
                self._here += 1
                return None
            best.sessions += 1
            return best

    def _started(self, log: Log) -> _Worker | None:
        """Return a new worker; None where the system starts none, and then never asks again. The lock is held."""
        try:
            worker = _Worker()
        except OSError as error:
            self._count = len(self._workers)
            log("worker not started", reason=(error.strerror or str(error)).lower())
            return None
        self._workers.append(worker)
        self._budget.limit -= self._share
        return worker

    def _do_without(self, worker: _Worker, log: Log) -> None:
        """Serve here what was meant for a worker that came to nothing, and start no more of them."""
        with self._lock:
            worker.sessions -= 1
            self._here += 1
            first = worker in self._workers
            if first:
                self._workers.remove(worker)
                self._budget.limit += self._share
                self._count = len(self._workers)
        if first:
            log("worker not started", reason="the process ended or did not begin in time")
            worker.close(patience_s=0)  # it has no session, and a client waits


@dataclass(frozen=True, slots=True)
class Leaving:
    """A session, and all that serving it elsewhere takes."""

    stream: Stream
    peer: str
    session: Session
    export: Export
    device: BlockDevice
    limits: Limits
    metrics: ExportMetrics
    log: Log

    def file(self) -> File | None:
        """Return the one regular file that is all a worker needs; None where it would need more.

        No other context, no size that other sessions must learn of, no encryption.
        """
        export = self.export
        if not export.multi_conn or export.resizable or export.growing or not isinstance(self.stream, SocketStream):
            return None
        if not set(self.session.contexts.values()) <= {BASE_ALLOCATION}:
            return None
        with ExitStack() as stack:
            try:
                runs = stack.enter_context(self.device.backing(0, self.device.size))
            except Exception:  # noqa: BLE001 - a map that is damaged: reads that need it tell what is wrong
                return None
            if not runs or runs[0].length != self.device.size or runs[0].writable != self.device.traits.writable:
                return None
            run = runs[0]
            status = os.fstat(run.fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size < run.offset + run.length:  # it was cut since
                return None
            return File(run.fd, run.offset, run.writable)

    def request(self, file: File, share: int) -> Handoff:
        """Return the message to a worker, which may have ``share`` bytes in flight."""
        return Handoff(
            self.session,
            replace(self.limits, bytes_in_flight=share),
            self.peer,
            self.export.name,
            file.offset,
            writable=file.writable and not self.export.read_only,
            heat=self.metrics.has_heat,
        )


class _Worker:
    """One process, and how many sessions it has. Raises OSError where the system does not start it."""

    def __init__(self) -> None:
        self._channel, theirs = handoff.pair()
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - this program itself
                    # -P: no module is taken from the working directory, which may be anybody's
                    [sys.executable, "-P", "-c", _MAIN, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,  # the terminal's control-C is for the process that accepts
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)},
                )
        except BaseException:
            self._channel.close()
            raise
        self.sessions = 0
        self._starting = threading.Lock()
        self._ready: bool | None = None

    def ready(self) -> bool:
        """Whether the process can serve, once that is known: it ends at once where its user may not read us."""
        with self._starting:
            if self._ready is None:
                self._channel.settimeout(START_S)
                try:
                    self._ready = bool(self._channel.recv(len(handoff.READY)))
                    self._channel.settimeout(None)
                except OSError:
                    self._ready = False
            return self._ready

    @property
    def gone(self) -> bool:
        """Whether the process has ended, after it had started well."""
        return bool(self._ready) and self._process.poll() is not None

    def begin(self, request: Handoff, client: int, file: int) -> socket.socket:
        """Send a session, and return the socket on which the worker answers."""
        ours, theirs = handoff.pair()
        try:
            with theirs:
                handoff.send(self._channel, request.encode(), [client, file, theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        return ours

    def stop(self) -> None:
        """Have ESHUTDOWN answered."""
        with suppress(OSError):
            self._channel.send(handoff.STOP)

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """End the process, which has ``patience_s`` for what it has under way."""
        self._channel.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # a disk that hangs may hold it for ever
                self._process.wait(PATIENCE_S)
