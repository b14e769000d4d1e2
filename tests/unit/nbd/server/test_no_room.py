"""Requests for which there is no room in time: refused, counted, and the stream stays in step.

What looks after requests that take too long, and would end their session, does not come to it here.
"""

import errno
import socket
import struct
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

from blockwright.device.base import Waits
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.nbd.server import connection
from blockwright.nbd.server.connection import Options, serve_connection
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.flight import InFlight
from blockwright.nbd.server.limits import Limits
from blockwright.nbd.server.outbox import Outbox
from tests.support.rawnbd import RawClient
from tests.support.runningserver import running

MIB = 1 << 20
READ, WRITE, DISC, FLUSH = range(4)
NO_ROOM = b"the server has no memory for the request"


@pytest.fixture(autouse=True)
def _nobody_looks(monkeypatch):
    monkeypatch.setattr(connection, "TICK_S", 60)


class Stuck(ForwardingDevice):
    """Reads and writes are under way until it is opened, each told of by `waiting`."""

    def __init__(self, size: int = 8 * MIB) -> None:
        inner = MemoryDevice(content=b"\1" * size)
        super().__init__(inner, traits=inner.traits.__class__(writable=True, parallelism=4, waits=Waits.ALWAYS))
        self.open = threading.Event()
        self.waiting = threading.Semaphore(0)

    def _wait(self):
        self.waiting.release()
        assert self.open.wait(60)

    def _read_into(self, offset, buffers):
        self._wait()
        super()._read_into(offset, buffers)

    def _write(self, offset, buffers, *, durable):
        self._wait()
        super()._write(offset, buffers, durable=durable)


@pytest.fixture(autouse=True)
def refused(monkeypatch):
    """Room is waited for a moment, and the event set when there was none. Clients and devices have all their time."""
    refused, enter = threading.Event(), InFlight.enter

    def hurried(flight, cost):
        flight._limits = replace(flight._limits, request_s=0.3)
        ticket = enter(flight, cost)
        if ticket is None:
            refused.set()
        return ticket

    monkeypatch.setattr(InFlight, "enter", hurried)
    return refused


def opened_behind(refused, device):
    """Let the device go on a while behind the refusal."""

    def wait():
        if refused.wait(60):
            threading.Event().wait(0.2)
        device.open.set()

    threading.Thread(target=wait, daemon=True).start()


class Served:
    """One connection: its client's end, what was logged, and why it ended."""

    def __init__(self, client, options):
        self.client, self.options = client, options
        self.events, self.endings = [], []


@contextmanager
def served(device, **limits):
    """Serve one connection without a server."""
    ours, theirs = socket.socketpair()
    options = Options(limits=Limits(**limits), log=lambda event, **more: found.events.append((event, more)))
    with RawClient(ours, greet=False) as client:
        found = Served(client, options)
        thread = threading.Thread(
            target=lambda: found.endings.append(serve_connection(theirs, [Export("", device)], options)), daemon=True
        )
        thread.start()
        client.take(18)
        client.sock.sendall(struct.pack(">I", 3))
        try:
            yield found
        finally:
            if isinstance(device, Stuck):
                device.open.set()
        client.sock.close()
        thread.join(60)
        assert not thread.is_alive()


def test_a_request_without_room_is_refused_and_the_others_are_answered():
    device = Stuck()
    with served(device, connection_requests=1) as found:
        client = found.client
        client.go()
        client.request(READ, 1, 0, 512)
        device.waiting.acquire()
        client.request(FLUSH, 2)
        client.request(WRITE, 3, 0, 4 * MIB, b"\2" * 4 * MIB)
        client.request(READ, 4, 0, 512)
        for cookie in (2, 3, 4):
            assert client.reply() == (errno.ENOMEM, cookie, b"")
        device.open.set()
        assert client.reply(512) == (0, 1, b"\1" * 512)
        client.request(READ, 5, 4096, 512)
        assert client.reply(512) == (0, 5, b"\1" * 512)
    refused = [(more["command"], more["reason"]) for event, more in found.events if event == "request refused"]
    assert refused == [(each, NO_ROOM.decode()) for each in ("FLUSH", "WRITE", "READ")]
    counted = found.options.metrics.export("").commands()
    assert [counted[each].errors for each in (FLUSH, WRITE, READ)] == [1, 1, 1]


def test_a_write_that_has_room_for_a_part_says_that_it_failed(refused):
    device = Stuck()
    with served(device, connection_requests=1) as found:
        found.client.go()
        found.client.request(WRITE, 1, 0, 4 * MIB, b"\2" * 4 * MIB)
        found.client.request(DISC)
        device.waiting.acquire()
        opened_behind(refused, device)
        assert found.client.reply() == (errno.ENOMEM, 1, b"")
        assert found.client.ended()
    assert found.endings == [("done", "the client disconnected")]


def test_the_refusal_of_a_read_waits_for_what_the_read_has_sent(monkeypatch, refused):
    """Its first piece is held up on its way out until the second one has waited for too long."""
    post, held = Outbox.post, threading.Event()

    def held_up(outbox, data, sent):
        if not held.is_set():
            held.set()
            assert refused.wait(60)
            threading.Event().wait(0.2)
        post(outbox, data, sent)

    monkeypatch.setattr(Outbox, "post", held_up)
    device = Stuck()
    device.open.set()
    with served(device, connection_requests=1) as found:
        found.client.go(structured=True)
        found.client.request(READ, 1, 0, 2 * MIB)
        (data, _, payload), (error, _, said) = found.client.chunks()
        assert (data, len(payload)) == (1, 8 + MIB)
        assert (error, said) == (0x8001, struct.pack(">IH", errno.ENOMEM, len(NO_ROOM)) + NO_ROOM)


@pytest.mark.parametrize("sent", [100, 3 * MIB])
def test_a_client_that_hangs_up_within_a_payload_without_room_has_ended(sent, refused):
    device = Stuck()
    with served(device, connection_requests=1) as found:
        found.client.go()
        found.client.request(READ, 1, 0, 512)
        device.waiting.acquire()
        opened_behind(refused, device)
        found.client.request(WRITE, 2, 0, 4 * MIB, bytes(sent))
        found.client.sock.shutdown(socket.SHUT_WR)
        assert found.client.reply(512)[:2] == (0, 1)
        assert found.client.ended()
    assert found.endings == [("protocol", "the client hung up within a request")]


def test_a_long_request_waits_for_the_others_bytes_and_is_refused_in_time():
    """It is no piece, so it is not let in beside them; its session has nothing under way, and goes on."""
    stuck, fine = Stuck(), MemoryDevice(8 * MIB)
    fine = ForwardingDevice(fine, traits=fine.traits.__class__(parallelism=4, waits=Waits.ALWAYS))
    exports = [Export("stuck", stuck), Export("", fine)]
    with (
        running(exports, bytes_in_flight=2 * MIB) as server,
        server.client() as greedy,
        server.client() as other,
    ):
        greedy.go("stuck")
        for cookie in range(2):
            greedy.request(READ, cookie, 0, MIB)
            stuck.waiting.acquire()
        other.go()
        other.request(READ, 1, 0, 2 * MIB)
        assert other.reply() == (errno.ENOMEM, 1, b"")
        other.request(READ, 2, 0, MIB)
        assert other.reply(MIB)[:2] == (0, 2)
        stuck.open.set()
