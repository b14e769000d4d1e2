"""Worker processes that end, or cannot begin what they were sent: what the others, and the counts, make of that."""

import errno
import os
import signal
import socket
import sys
from contextlib import ExitStack, contextmanager

import pytest

from blockwright.device.file import FileDevice
from blockwright.nbd.protocol.session import BlockSizes, ExportInfo, Session
from blockwright.nbd.server import handoff, processes, worker
from blockwright.nbd.server.ending import STOPPED
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.handoff import Handoff
from blockwright.nbd.server.limits import Limits
from blockwright.nbd.server.metrics import ServerMetrics
from blockwright.nbd.wire import TransmissionFlag
from tests.support.runningserver import running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="worker processes are for Linux")
MIB = 1 << 20
READ, WRITE = 0, 1


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(b"\1" * MIB)
    with FileDevice(path, writable=True) as device:
        yield device


def reads(client, offset=0):
    client.request(READ, 1, offset, 512)
    error, _, data = client.reply(512)
    return error or data


@contextmanager
def two_sessions(image, **more):
    """Yield a server, a client that is served in this process, and one that a worker serves."""
    with running([Export("", image)], workers=1, **more) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(2)]
        for client in clients:
            client.go()
            assert reads(client) == b"\1" * 512
        assert [each.sessions for each in server.server._processes._workers] == [1]
        yield server, *clients


def pids(server):
    return [each._process.pid for each in server.server._processes._workers]


def test_a_worker_that_is_killed_costs_its_sessions_and_no_others(image):
    with two_sessions(image, bytes_in_flight=4 * MIB) as (server, here, there):
        [pid] = pids(server)
        os.kill(pid, signal.SIGKILL)
        assert there.ended()
        ending = server.said("disconnected", "the worker process has given it up")
        assert ending["how"] == "internal"
        assert reads(here) == b"\1" * 512
        server.server._processes._workers[0]._process.wait(30)
        with server.client() as later:
            later.go()
            assert reads(later) == b"\1" * 512
            assert len(pids(server)) == 1
            assert pids(server) != [pid]
            assert server.server._budget.limit == 2 * MIB  # the new one has the share of the old one
        assert server.server.bytes_in_flight == 0


def test_what_a_worker_says_of_a_request_is_logged_as_said_here(image):
    with two_sessions(image) as (server, _, there):
        os.truncate(image.name, 4096)
        assert reads(there, 8192) == errno.EIO
        found = server.said("request failed")
        assert (found["command"], found["offset"]) == ("READ", "8192")
        assert found["peer"] == server.events[0][1]["peer"]
        assert reads(there) == b"\1" * 512


def test_which_blocks_a_session_in_a_worker_used_is_known_here(image):
    metrics = ServerMetrics(heat=True)
    with two_sessions(image, metrics=metrics) as (server, here, there):
        there.request(WRITE, 2, MIB - 4096, 4096, b"w" * 4096)
        assert there.reply()[0] == 0
        there.sock.close()
        server.said("disconnected")
        here.sock.close()
    heat = metrics.export("").heat()
    assert sum(heat.reads) == 1024
    assert heat.writes[-1] == sum(heat.writes) == 4096
    assert metrics.export("").commands()[WRITE].bytes == 4096


def test_a_file_that_was_cut_since_is_served_here(image):
    with running([Export("", image)], workers=1) as server, server.client() as first, server.client() as second:
        os.truncate(image.name, 4096)
        for client in (first, second):
            client.go()
            assert reads(client) == b"\1" * 512
            assert reads(client, 8192) == errno.EIO
        assert server.reasons() == []
        assert pids(server) == []


def test_a_session_that_does_not_fit_its_file_leaves_nothing_open_in_the_worker(image, monkeypatch):
    monkeypatch.setattr(worker._Worker, "_tick", lambda _self: None)
    session = Session(ExportInfo("", 2 * MIB, TransmissionFlag.HAS_FLAGS, BlockSizes(), ""), False, False, {}, False)
    request = Handoff(session, Limits(), "peer", "disk", 0, writable=False).encode()
    before = sorted(os.listdir("/proc/self/fd"))
    ours, theirs = handoff.pair()
    answers, told = handoff.pair()
    client, served = handoff.pair()
    with theirs, answers, client:
        with ours, told, served:
            handoff.send(ours, request, [served.fileno(), image._fd, told.fileno()])
        worker._Worker(theirs).run()
        assert handoff.told(answers) is None
        assert client.recv(1) == b""
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_worker_ends_quietly_where_nobody_has_heard_that_it_is_ready(monkeypatch):
    monkeypatch.setattr(worker._Worker, "_tick", lambda _self: None)
    ours, theirs = handoff.pair()
    with theirs:
        theirs.send(handoff.READY)
        ours.close()
        worker._Worker(theirs).run()


def test_a_session_in_a_worker_closes_all_it_has_though_its_stream_does_not(monkeypatch):
    closed = []

    class Part:
        def __init__(self, name, error=None):
            self.name, self.error = name, error

        def close(self):
            closed.append(self.name)
            if self.error is not None:
                raise self.error

    worked = worker._Worked.__new__(worker._Worked)
    ours, worked.answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worked._stream, worked._served, worked._device = (
        Part("stream", OSError(errno.EIO, "")),
        Part("served"),
        Part("file"),
    )
    monkeypatch.setattr(worker._Worked, "_report", lambda _self: None)
    with ours:
        with pytest.raises(OSError, match=r"\[Errno 5\]"):
            worked.end(STOPPED)
        assert handoff.told(ours)["kind"] == "ended"
    assert closed == ["stream", "served", "file"]


def test_a_worker_that_never_says_it_is_ready_is_done_without(image, monkeypatch, tmp_path):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr(processes.sys, "executable", str(program))
    monkeypatch.setattr(processes, "START_S", 0.3)
    close, ended = processes._Worker.close, []

    def note(worker, patience_s=processes.PATIENCE_S):
        close(worker, patience_s)
        ended.append((patience_s, worker._process.returncode))

    monkeypatch.setattr(processes._Worker, "close", note)
    with running([Export("", image)], workers=1) as server, server.client() as first, server.client() as second:
        for client in (first, second):
            client.go()
            assert reads(client) == b"\1" * 512
        server.said("worker not started", "the process ended or did not begin in time")
        assert ended == [(0, -signal.SIGKILL)], "what has no session is not waited for, and gone"
        assert server.server._budget.limit == Limits().bytes_in_flight
