"""Each limit is reached, and one client at a limit does not affect another."""

import contextlib
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from blockwright.device.base import Waits
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import UsageError
from blockwright.nbd.protocol.server import HandshakeLimits
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.server import connection as connection_module
from blockwright.nbd.server import server as server_module
from blockwright.nbd.server.access import access_list
from blockwright.nbd.server.catalogue import Catalogue
from blockwright.nbd.server.connection import Options, serve_connection
from blockwright.nbd.server.export import Export, Served
from blockwright.nbd.server.limits import Limits
from blockwright.nbd.server.metrics import ServerMetrics
from tests.support.rawnbd import RawClient
from tests.support.runningserver import running

KIB, MIB = 1 << 10, 1 << 20
READ, WRITE, DISC = range(3)
ACK, ERR_POLICY = 1, (1 << 31) + 2
FINE = Export("", MemoryDevice(64 * MIB))


class Gate(ForwardingDevice):
    """Answers when it is opened."""

    def __init__(self, size: int = MIB, *, parallelism: int = 4) -> None:
        inner = MemoryDevice(size)
        traits = inner.traits.__class__(writable=True, parallelism=parallelism, waits=Waits.ALWAYS)
        super().__init__(inner, traits=traits)
        self.open = threading.Event()
        self.waiting = threading.Semaphore(0)

    def _read_into(self, offset, buffers):
        self.waiting.release()
        assert self.open.wait(60)
        super()._read_into(offset, buffers)


def named(name):
    """Return the data of INFO or GO that asks for an export and nothing more."""
    return struct.pack(">I", len(name)) + name.encode() + bytes(2)


def works(server):
    with server.client() as client:
        client.go()
        client.request(READ, 1, 0, 512)
        assert client.reply(512)[0] == 0


def test_connections_in_all():
    with running([FINE], connections=2) as server, server.client() as first, server.client() as second:
        first.go()
        second.go()
        with pytest.raises((EOFError, ConnectionError)):
            server.client()
        server.said("refused", "too many connections")
        first.sock.close()
        server.said("disconnected")
        works(server)


def test_who_is_greeted_was_counted():
    class Late(ServerMetrics):
        def count(self, event, reason=""):
            threading.Event().wait(0.2)
            super().count(event, reason)

    metrics = Late()
    with running([FINE], metrics=metrics) as server, server.client():
        assert metrics.events() == {("accepted", ""): 1}
        assert len(server.server.connections) == 1


def test_whose_session_it_is_is_known_before_the_client_hears_of_it(monkeypatch):
    shake = connection_module.run

    def late(*arguments, **more):
        found = shake(*arguments, **more)
        threading.Event().wait(0.2)
        return found

    monkeypatch.setattr(connection_module, "run", late)
    with running([Export("disk", MemoryDevice(MIB))]) as server, server.client() as client:
        assert [each.export for each in server.server.connections] == [None]
        client.go()  # the only one there is, whatever it is called
        assert [each.export for each in server.server.connections] == ["disk"]
    assert server.said("disconnected")["export"] == "disk"


def test_who_is_gone_counts_no_more_though_nobody_was_told_yet():
    """A client that sees the end, or whoever reads the log, may connect again at once."""
    telling, told = threading.Event(), threading.Event()

    def log(event, /, **_fields):
        if event == "disconnected" and not telling.is_set():
            telling.set()
            assert told.wait(60)

    with running([FINE], connections=1, log=log) as server:
        try:
            with server.client() as first:
                first.go()
            assert telling.wait(60)
            assert server.server.connections == []
            works(server)
        finally:
            told.set()


def test_connections_of_one_address():
    with running([FINE], connections_by_address=1) as server, server.client() as first:
        first.go()
        with pytest.raises((EOFError, ConnectionError)):
            server.client()
        server.said("refused", "too many connections of one address")


def test_connections_of_one_export():
    exports = [Export("one", MemoryDevice(MIB), connections=1), Export("other", MemoryDevice(MIB))]
    with running(exports) as server, server.client() as second:
        with server.client() as first:
            first.go("one")
            assert second.option(6, named("one"))[-1][0] == ACK, "what it is may be asked at any time"
            assert second.option(7, named("one"))[-1][0] == ERR_POLICY
            assert server.said("option refused")["reason"] == "the export 'one' has 1 connections already"
        assert server.said("disconnected")["export"] == "one"
        assert second.option(7, named("one"))[-1][0] == ACK
        with server.client() as third:
            assert third.option(7, named("one"))[-1][0] == ERR_POLICY
            third.go("other")


def test_a_session_counts_before_its_client_hears_of_it():
    """Of clients that ask at the same time, too, as many as there may be get the export, and the others hear why."""
    exported = [Export("one", MemoryDevice(MIB), connections=2)]
    with running(exported) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(12)]
        barrier = threading.Barrier(len(clients))

        def ask(client):
            barrier.wait(30)
            return client.option(7, named("one"))[-1][0]

        with ThreadPoolExecutor(len(clients)) as pool:
            answers = sorted(pool.map(ask, clients))
        assert answers == [ACK] * 2 + [ERR_POLICY] * 10
        assert server.server.catalogue.all()[0].connections == 2


def hurried(server, handshake_s):
    """Have the clients that come from now on shake hands within so many seconds; nobody else is in a hurry."""
    options = server.server.options
    server.server.options = replace(options, limits=replace(options.limits, handshake_s=handshake_s))


def dropped(client, data=b""):
    """Send what the server may not wait for, and return when it has ended the connection."""
    with contextlib.suppress(ConnectionError):
        client.sock.sendall(data)
        while client.sock.recv(1 << 16):
            pass


def test_time_of_a_handshake():
    with running([FINE]) as server, server.client() as other:
        other.go()
        hurried(server, 0.2)
        with server.client(greet=False) as silent:
            dropped(silent)
        assert server.said("disconnected")["how"] == "timeout"
        other.request(READ, 1, 0, 512)
        assert other.reply(512)[0] == 0


def test_a_handshake_that_drips_takes_too_long_too():
    """Every byte is in time, and all of them are not."""
    with running([FINE], handshake_s=0.3) as server, server.client(greet=False) as client:
        with contextlib.suppress(ConnectionError):
            client.sock.sendall(struct.pack(">IQII", 3, 0x49484156454F5054, 77, 60000))
        client.sock.settimeout(0.01)
        while True:
            try:
                client.sock.sendall(b"x")
                if not client.sock.recv(100):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert server.said("disconnected")["how"] == "timeout"


def test_options_and_bytes_of_a_handshake():
    with running([FINE], handshake=HandshakeLimits(options=3, bytes=1000)) as server:
        with server.client() as client:
            for _ in range(3):
                client.option(77)
            assert client.ended()
        server.said("disconnected", "at most 3 options")
        with server.client() as client:
            client.sock.sendall(struct.pack(">QII", 0x49484156454F5054, 77, 0xFFFFFFFF))
            assert client.ended()
        server.said("disconnected", "at most 1000 bytes")


def test_bytes_of_a_request():
    with running([FINE], request_bytes=64 * KIB) as server, server.client() as client:
        client.go()
        client.request(READ, 1, 0, 64 * KIB + 1)
        assert client.reply()[0] == 22
        client.request(WRITE, 1, 0, 64 * KIB + 1, bytes(64 * KIB + 1))
        assert client.reply()[0] == 22
        client.request(READ, 1, 0, 64 * KIB)
        assert client.reply(64 * KIB)[0] == 0


def test_a_request_that_every_server_takes_cannot_be_forbidden():
    with pytest.raises(UsageError, match="at least 65536 bytes"):
        Limits(request_bytes=64 * KIB - 1)


def test_block_sizes_fit_the_longest_request():
    limits = Limits(request_bytes=100_000)
    for blocks, told in ((BlockSizes(4096, MIB, 32 * MIB), (4096, 64 * KIB, 98304)), (None, (1, 4096, 100_000))):
        found = Served(Export("", MemoryDevice(64 * MIB), blocks=blocks)).info(limits).blocks
        assert (found.minimum, found.preferred, found.maximum) == told


@pytest.mark.parametrize("length", [64 * KIB, 4 * MIB], ids=["short", "in pieces"])
@pytest.mark.parametrize("device", [FINE.device, Gate(4 * MIB)], ids=["in line", "by workers"])
def test_time_within_a_request(device, length, monkeypatch):
    monkeypatch.setattr(server_module, "TICK_S", 60.0)  # whoever looks after requests would call it stuck
    exports = [Export("", device), Export("other", MemoryDevice(MIB))]
    with running(exports, request_s=0.2, grace_s=5) as server, server.client() as client, server.client() as other:
        client.go()
        other.go("other")
        client.request(WRITE, 1, 0, length, bytes(100))
        assert client.ended()
        server.said("disconnected", "the peer sent nothing in time")
        assert server.server.bytes_in_flight == 0
        other.request(READ, 1, 0, 512)
        assert other.reply(512)[0] == 0


def test_time_of_a_device():
    gate = Gate()
    with running([Export("", gate)], request_s=0.2, grace_s=1) as server, server.client() as client:
        client.go()
        client.request(READ, 1, 0, 512)
        gate.waiting.acquire()
        assert client.ended()
        gate.open.set()
        server.said("disconnected", "a request took more than 0.2 s")


def test_time_of_a_client_that_takes_nothing():
    with running([FINE], request_s=0.3) as server, server.client() as client:
        client.go()
        for cookie in range(4):
            client.request(READ, cookie, 0, 16 * MIB)
        server.said("disconnected")
        works(server)


def test_time_of_a_client_that_asks_nothing():
    with running([FINE], idle_s=0.2) as server, server.client() as client:
        go = struct.pack(">QII", 0x49484156454F5054, 7, 6) + named("")
        client.sock.sendall(go + struct.pack(">IHHQQI", 0x25609513, 0, READ, 1, 0, 512))  # it is never late
        while client.option_reply()[1] != ACK:
            pass
        assert client.reply(512)[:2] == (0, 1)
        assert client.ended()
        server.said("disconnected", "the peer sent nothing in time")


def test_requests_of_one_connection():
    gate = Gate(parallelism=16)
    with running([Export("", gate)], connection_requests=3) as server, server.client() as client:
        client.go()
        for cookie in range(10):
            client.request(READ, cookie, 0, 512)
        for _ in range(3):
            gate.waiting.acquire()
        assert not gate.waiting.acquire(timeout=0.2)  # a fourth would be under way by now
        gate.open.set()
        assert sorted(client.reply(512)[1] for _ in range(10)) == list(range(10))


@pytest.mark.parametrize("limit", ["connection_bytes_in_flight", "bytes_in_flight"])
def test_bytes_in_flight(limit):
    gate = Gate(16 * MIB, parallelism=16)
    with running([Export("", gate)], **{limit: 3 * MIB}) as server, server.client() as client:
        client.go()
        for cookie in range(10):
            client.request(READ, cookie, 0, MIB)
        for _ in range(3):
            gate.waiting.acquire()
        assert not gate.waiting.acquire(timeout=0.2)
        assert server.server.bytes_in_flight == 3 * MIB
        gate.open.set()
        assert sorted(client.reply(MIB)[1] for _ in range(10)) == list(range(10))
    assert server.server.bytes_in_flight == 0


def test_one_client_that_holds_all_bytes_locks_nobody_out():
    gate = Gate(16 * MIB, parallelism=16)
    exports = [Export("gate", gate), Export("", MemoryDevice(MIB))]
    with running(exports, bytes_in_flight=2 * MIB) as server, server.client() as greedy:
        greedy.go("gate")
        for cookie in range(10):
            greedy.request(READ, cookie, 0, MIB)
        gate.waiting.acquire()
        gate.waiting.acquire()
        works(server)
        gate.open.set()
        for _ in range(10):
            greedy.reply(MIB)


def test_a_client_killed_within_a_write_affects_no_other():
    device = MemoryDevice(8 * MIB)
    with running([Export("", device)]) as server, server.client() as other:
        other.go()
        for sent in (0, 1, 27, 28, 100, 70_000, 3 * MIB):
            with server.client() as victim:
                victim.go()
                header = struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 1, 4 * MIB, 4 * MIB)
                victim.sock.sendall((header + bytes(4 * MIB))[:sent])
                victim.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            other.request(WRITE, 2, 0, 4096, b"y" * 4096)
            assert other.reply() == (0, 2, b"")
        other.request(READ, 3, 0, 4096)
        assert other.reply(4096) == (0, 3, b"y" * 4096)


def test_a_half_open_connection_is_answered_and_ends():
    with running([FINE]) as server, server.client() as client:
        client.go()
        client.request(READ, 1, 0, MIB)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.reply(MIB)[1] == 1
        assert client.ended()
        server.said("disconnected", "the client hung up")


def test_a_stopping_server_answers_eshutdown_and_what_is_under_way():
    gate = Gate()
    gate.write(0, b"x" * 512)  # a hole is told without being read
    with running([Export("", gate)]) as server, server.client() as client, server.client() as late:
        client.go(structured=True)
        client.request(READ, 1, 0, 512)
        gate.waiting.acquire()
        server.server.stop()
        client.request(READ, 2, 0, 512)
        _, kind, cookie, payload = client.chunk()
        assert (kind, cookie, payload[:4]) == (0x8001, 2, (108).to_bytes(4, "big"))
        late.send_option(7, b"\0\0\0\0\0\0")
        gate.open.set()
        assert client.chunk()[1:3] == (1, 1)
        assert client.chunk()[:3] == (1, 0, 1)
        assert client.ended()


def test_a_stopping_server_leaves_a_client_of_simple_replies_to_ask_the_next_one():
    """The kernel would hand ESHUTDOWN on as an error, and asks again what was not answered."""
    gate = Gate()
    with running([Export("", gate)]) as server, server.client() as client:
        client.go()
        client.request(READ, 1, 0, 512)
        gate.waiting.acquire()
        server.server.stop()
        client.request(READ, 2, 0, 512)
        gate.open.set()
        assert client.reply(512)[:2] == (0, 1)
        assert client.ended()


def test_a_stop_is_bounded():
    gate = Gate()
    with running([Export("", gate)], grace_s=0.1) as server, server.client() as client:
        client.go()
        client.request(READ, 1, 0, 512)
        gate.waiting.acquire()
        server.server.stop(0.1)
        assert client.ended()
        gate.open.set()


# -- the catalogue ------------------------------------------------------------------------------------------------


def opener(log, size=MIB):
    def open_device():
        device = MemoryDevice(size)
        log.append(device)
        return device

    return open_device


def test_devices_are_opened_when_they_are_asked_for_and_closed_with_the_server():
    opened = []
    with running([Export("a", opener(opened)), Export("b", opener(opened))], default="a") as server:
        assert opened == []
        with server.client() as client:
            client.option(3)
            assert opened == []
            client.go("")
        assert len(opened) == 1
    assert opened[0].closed


def test_a_device_that_cannot_be_opened_is_unknown_and_tried_again():
    attempts = []

    def fail():
        attempts.append(1)
        if len(attempts) == 1:
            raise FileNotFoundError(2, "no such file", "/secret/path")
        return MemoryDevice(MIB)

    with running([Export("", fail)]) as server, server.client() as client:
        (kind, text), *_ = client.option(7, b"\0\0\0\0\0\0")
        assert kind == (1 << 31) + 6
        assert b"secret" not in text
        server.said("export not opened")
        assert client.go() == MIB


def test_replacing_keeps_equal_exports_and_closes_others_with_their_last_session():
    opened = []
    kept, gone = opener(opened), opener(opened)
    exports = [Export("kept", kept), Export("gone", gone)]
    with running(exports) as server, server.client() as first, server.client() as second:
        first.go("kept")
        second.go("gone")
        server.server.reload([Export("kept", kept)])
        assert [device.closed for device in opened] == [False, False]
        second.request(READ, 1, 0, 512)
        assert second.reply(512)[0] == 0
        second.request(DISC)
        assert second.ended()
        server.said("disconnected", "gone")  # as the last thing of it
        assert [device.closed for device in opened] == [False, True]
        with pytest.raises(UsageError):
            server.server.reload([Export("x", kept), Export("x", kept)])
        with pytest.raises(UsageError):
            server.server.reload([Export("x", kept)], "y")
        first.request(READ, 1, 0, 512)
        assert first.reply(512)[0] == 0


def test_a_changed_export_shares_the_device_of_the_old_one():
    opened = []
    device = opener(opened)
    catalogue = Catalogue([Export("", device)])
    old = catalogue.find("")
    assert old.device is opened[0]
    assert catalogue.take("") is old
    catalogue.replace([Export("", device, description="new")])
    new = catalogue.find("")
    assert new is not old
    assert new.device is old.device
    catalogue.give_back([old])
    assert not opened[0].closed
    catalogue.close()
    assert opened[0].closed
    assert len(opened) == 1


def test_exports_of_one_serial_device_take_turns():
    device = Gate(parallelism=1)
    catalogue = Catalogue([Export("a", device), Export("b", device)])
    assert catalogue.find("a").calls() is catalogue.find("b").calls()


def test_what_a_client_may_not_use_does_not_exist_for_it():
    exports = [
        Export("mine", MemoryDevice(MIB), access=access_list(["unix"])),
        Export("theirs", MemoryDevice(MIB), access=access_list(["10.0.0.0/8"])),
        Export("hidden", MemoryDevice(MIB), listed=False),
        Export("look", MemoryDevice(MIB), access=access_list([], ["unix"])),
    ]
    with running(exports) as server:
        with server.client() as client:
            names = [data[4:] for kind, data in client.option(3) if kind == 2]
            assert names == [b"mine", b"look"]
            denied = client.option(7, b"\0\0\0\6theirs\0\0")
            unknown = client.option(7, b"\0\0\0\6nobody\0\0")
            assert denied[0][0] == unknown[0][0] == (1 << 31) + 6
            assert denied[0][1].replace(b"theirs", b"nobody") == unknown[0][1]
            client.go("hidden")
        with server.client() as client:
            client.go("look")
            assert client.flags & 2
            for command in (1, 4, 6):
                client.request(command, 1, 0, 512, bytes(512) if command == 1 else b"")
                assert client.reply()[0] == 1
            client.request(READ, 2, 0, 512)
            assert client.reply(512)[0] == 0
        with server.client() as client:
            client.go("mine")
            client.request(WRITE, 1, 0, 4, b"data")
            assert client.reply()[0] == 0


def test_one_connection_can_be_served_without_a_server():
    ours, theirs = socket.socketpair()
    reasons = []
    device = MemoryDevice(MIB)
    options = Options(limits=Limits(request_bytes=MIB))
    thread = threading.Thread(target=lambda: reasons.append(serve_connection(theirs, [Export("", device)], options)))
    thread.start()
    with RawClient(ours) as client:
        assert client.go() == MIB
        client.request(DISC)
        assert client.ended()
    thread.join(30)
    assert reasons == [("done", "the client disconnected")]
    assert not device.closed


@contextmanager
def served_alone(device, **limits):
    """Serve one connection without a server; yield its client, and what will be why it ended."""
    ours, theirs = socket.socketpair()
    options, endings = Options(limits=Limits(**limits)), []
    thread = threading.Thread(target=lambda: endings.append(serve_connection(theirs, [Export("", device)], options)))
    thread.start()
    with RawClient(ours) as client:
        yield client, endings
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("parallelism", [1, 4], ids=["in line", "by workers"])
def test_a_request_that_is_stuck_ends_one_connection_without_a_server(parallelism):
    before = set(threading.enumerate())
    gate = Gate(parallelism=parallelism)
    with served_alone(gate, request_s=0.2) as (client, endings):
        client.go()
        client.request(READ, 1, 0, 512)
        gate.waiting.acquire()
        assert client.ended()
        assert not endings, "the device is in use until its call returns"
        gate.open.set()
    assert endings == [("cut off", "a request took more than 0.2 s")]
    assert not [each for each in set(threading.enumerate()) - before if "watch" in each.name]


def test_without_a_limit_nobody_watches(monkeypatch):
    monkeypatch.setattr(connection_module, "TICK_S", 0.01)
    gate = Gate()
    with served_alone(gate, request_s=None) as (client, endings):
        client.go()
        client.request(READ, 1, 0, 512)
        gate.waiting.acquire()
        assert not [each for each in threading.enumerate() if "watch" in each.name]
        gate.open.set()
        assert client.reply(512)[0] == 0
        client.request(DISC)
        assert client.ended()
    assert endings == [("done", "the client disconnected")]


def test_one_connection_that_nobody_can_watch_is_refused(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    ours, theirs = socket.socketpair()
    events = []
    options = Options(log=lambda event, **more: events.append((event, more["reason"])))
    device = MemoryDevice(MIB)
    with RawClient(ours, greet=False) as client, monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert serve_connection(theirs, [Export("", lambda: device)], options) == ("refused", "no thread to be had")
        assert client.ended()
    assert events == [("refused", "no thread to be had")]
    assert options.metrics.events() == {("refused", "no thread to be had"): 1}


# -- why connections end -------------------------------------------------------------------------------------------


def test_each_end_has_its_kind():
    def ends(act, *, greet=True, **more):
        with running([FINE], **more) as server:
            with server.client(greet=greet) as client:
                act(client, server)
            found = server.said("disconnected")
            assert server.server.options.metrics.events()["ended", found["how"]] == 1
            return found["how"]

    def idle(client, server):
        client.go()
        assert client.ended()

    def disconnects(client, server):
        client.go()
        client.request(DISC)
        assert client.ended()

    def breaks_the_rules(client, server):
        client.go()
        client.sock.sendall(bytes(28))
        assert client.ended()

    def hangs_up_within_a_request(client, server):
        client.go()
        client.sock.sendall(bytes(5))

    def is_stopped(client, server):
        client.go()
        server.server.stop()
        assert client.ended()

    def aborts_and_is_gone(client, server):
        client.send_option(2)
        client.sock.close()
        server.said("disconnected")

    assert ends(disconnects) == "done"
    assert ends(lambda client, server: client.go()) == "done"
    assert ends(lambda client, server: client.option(2)) == "done"
    assert ends(aborts_and_is_gone) == "done"
    assert ends(is_stopped) == "stopped"
    assert ends(breaks_the_rules) == "protocol"
    assert ends(hangs_up_within_a_request) == "protocol"
    assert ends(idle, idle_s=0.1) == "timeout"
    assert ends(lambda client, server: client.send_option(1, b"nobody")) == "refused"
    assert ends(lambda client, server: dropped(client), greet=False, handshake_s=0.1) == "timeout"
    assert ends(lambda client, server: client.sock.sendall(bytes(16))) == "protocol"
