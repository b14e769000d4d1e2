"""The client's device against servers that crash, fall silent, lie and come back."""

import errno
import random
import socket
import struct
import sys
import threading
import time
from functools import partial

import pytest

from blockwright.device.base import ResizableDevice, Waits
from blockwright.errors import (
    Cancelled,
    Closed,
    ConnectionLost,
    NotFound,
    NotSupported,
    PeerError,
    ReadOnly,
    Refused,
    RemoteProtocolError,
)
from blockwright.nbd import wire
from blockwright.nbd.client import connection, pool
from blockwright.nbd.client import device as device_module
from blockwright.nbd.client.connect import connect, from_socket
from blockwright.nbd.client.options import ClientOptions
from blockwright.nbd.wire import Command, CommandFlag, Option, TransmissionFlag
from blockwright.testing import check_device
from tests.support.nbdcrash import FLAGS, Crash, CrashAfter, CrashServer, Hang, Rules
from tests.support.nbdserver import ack, chunk, context, simple
from tests.support.together import run_together

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")

QUICK = ClientOptions(timeout_s=30, reconnect_s=30)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(pool, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(pool, "LONGEST_PAUSE_S", 0.05)


@pytest.fixture
def server(tmp_path):
    with CrashServer(tmp_path) as running:
        yield running


def count(server, *commands):
    return [request for request in server.requests if request.command in commands]


@pytest.mark.parametrize("structured", [False, True])
def test_a_device_keeps_the_contract(tmp_path, structured):
    with CrashServer(tmp_path, Rules(size=200_000, structured=structured)) as server:

        def make():
            server.volatile[:] = bytes(server.rules.size)
            return connect(server.uri, writable=True)

        check_device(make, bytes(200_000), operations=60)


def test_a_minimum_block_is_the_device_s(tmp_path):
    blocks = wire.INFO_BLOCK_SIZE.pack(wire.InfoType.BLOCK_SIZE, 512, 4096, 8192)
    with CrashServer(tmp_path, Rules(size=100_000, blocks=blocks)) as server:

        def make():
            server.volatile[:] = bytes(server.rules.size)
            return connect(server.uri, writable=True)

        with make() as device:
            assert device.size == 100_000 // 512 * 512
            assert (device.traits.minimum_block, device.traits.maximum_block) == (512, 8192)
            assert device.traits.waits is Waits.PEER
        check_device(make, bytes(100_000 // 512 * 512), operations=60)
        assert max(request.length for request in count(server, Command.READ, Command.WRITE)) == 8192


def test_long_calls_are_cut_and_in_flight_together(tmp_path):
    blocks = wire.INFO_BLOCK_SIZE.pack(wire.InfoType.BLOCK_SIZE, 1, 4096, 4096)
    with (
        CrashServer(tmp_path, Rules(size=1 << 20, blocks=blocks)) as server,
        connect(server.uri, writable=True) as disk,
    ):
        content = random.Random(1).randbytes(1 << 20)
        disk.write(0, content)
        assert len(server.requests) == 256
        buffers = [bytearray(700_000), bytearray(), bytearray((1 << 20) - 700_000)]
        disk.read_into(0, *buffers)
        assert b"".join(buffers) == content
        assert len(server.requests) == 512


def test_a_request_that_a_crash_swallowed_is_made_again(server):
    crashed = []

    def before(request):
        if request.command != Command.DISC and request.command not in crashed:
            crashed.append(request.command)
            raise Crash

    server.rules.before = before
    with connect(server.uri, writable=True, options=QUICK) as device:
        assert device.read(0, 100) == bytes(100)
        device.write(5, b"hello")
        device.flush()
        device.zero(6, 2)
        device.discard(100, 100)
        device.flush()
        assert device.read(5, 5) == b"h\0\0lo"
        assert len(crashed) == 5
        assert device.reconnects == 5


def test_writes_that_no_flush_covered_survive_a_crash(server):
    with connect(server.uri, writable=True, options=QUICK) as device:
        device.write(0, b"old")
        device.write(1, b"NEW")
        device.zero(3, 1)
        device.write(2, b"last", durable=True)
        server.crash()
        assert server.volatile[:8] == b"\0\0last\0\0"
        assert device.read(0, 8) == b"oNlast\0\0"
        server.crash()
        device.flush()
        assert server.durable[:8] == b"oNlast\0\0"
        device.write(0, b"x")
        server.crash()
        made = len(server.requests)
        assert device.read(0, 2) == b"xN"
        assert [r.command for r in server.requests[made:]] == [Command.WRITE, Command.READ], (
            "the flushed ones are not"
        )


def test_writes_over_the_budget_fail_the_next_flush_and_only_that(tmp_path):
    with CrashServer(tmp_path) as server:
        options = ClientOptions(unflushed_budget=10_000, reconnect_s=30)
        with connect(server.uri, writable=True, options=options) as device:
            device.write(0, bytes(6000))
            device.write(0, b"x" * 6000)
            server.crash()
            assert device.read(0, 4) == bytes(4)
            with pytest.raises(ConnectionLost, match="too many to keep: what was written since the last flush"):
                device.flush()
            device.write(0, b"again")
            device.flush()
            assert server.durable[:5] == b"again"
            device.write(0, b"y" * 20_000)
            device.flush()
            server.crash()
            device.flush()
            assert server.durable[:20_000] == b"y" * 20_000


def test_a_flush_in_flight_vouches_for_what_it_covers(server):
    """The server dies behind the flush's work and before its answer, then forgets nothing; and once before it."""
    for error in (Crash, CrashAfter):
        fired = []

        def before(request, error=error, fired=fired):
            if request.command == Command.FLUSH and not fired:
                fired.append(request)
                raise error

        server.rules.before = before
        with connect(server.uri, writable=True, options=QUICK) as device:
            device.write(0, error.__name__.encode())
            device.flush()
            server.crash()
            assert device.read(0, len(error.__name__)) == error.__name__.encode()


def test_no_acknowledged_and_flushed_byte_is_lost_under_load(server):
    """Threads write and flush while the server dies again and again; what a flush covered is on the durable disk."""
    chance = random.Random(7)
    server.rules.before = lambda request: _crash_sometimes(chance)
    stripe = 4096

    def work(device, number):
        own = random.Random(number)
        for turn in range(25):
            content = own.randbytes(stripe)
            device.write(number * stripe, content[:100])
            device.write(number * stripe + 100, content[100:])
            device.flush()
            kept = server.durable[number * stripe : (number + 1) * stripe]
            assert kept == content, f"thread {number}, turn {turn}"

    with connect(server.uri, writable=True, options=QUICK) as device:
        run_together(partial(work, device, number) for number in range(4))
        assert device.reconnects > 0


def _crash_sometimes(chance):
    roll = chance.random()
    if roll < 0.02:
        raise Crash
    if roll < 0.04:
        raise CrashAfter


def test_several_connections_end_and_come_back_together(tmp_path):
    rules = Rules(flags=FLAGS | TransmissionFlag.CAN_MULTI_CONN)
    with CrashServer(tmp_path, rules) as server:
        gate = threading.Barrier(2, timeout=30)  # two are never in flight on one connection of this server
        tried = []

        def before(request):
            if len(tried) < 2:
                tried.append(request)
                server._lock.release()  # so that the others come in
                try:
                    gate.wait()
                finally:
                    server._lock.acquire()

        with connect(server.uri, writable=True, options=QUICK) as device:
            device.write(0, b"unflushed")
            rules.before = before
            run_together([lambda n=n: device.read(n, 1) for n in range(4)])
            assert 1 < server.accepted <= 4
            server.crash()
            before_reads = len(server.requests)
            run_together([lambda n=n: device.write(1000 + n, bytes([n])) for n in range(4)])
            assert server.requests[before_reads].offset == 0, "what was unflushed comes first"
            assert device.read(0, 9) == b"unflushed"
            assert device.read(1000, 4) == bytes(range(4))


def test_a_server_that_is_gone_for_good_is_given_up(server):
    options = ClientOptions(reconnect_s=0.1)
    with connect(server.uri, writable=True, options=options) as device:
        server.stop()
        for _ in range(2):
            with pytest.raises(ConnectionLost, match=r"no other is to be had: .*nobody listens"):
                device.read(0, 1)
        server.start()
        device._pool._reconnect_s = 30  # it is there, and has all the time it needs
        assert device.read(0, 1) == b"\0"
    with connect(server.uri, options=ClientOptions(reconnect_s=0)) as device:
        server.crash()
        with pytest.raises(ConnectionLost, match=r"the server ended the connection|the connection broke"):
            device.read(0, 1)


def test_a_handshake_that_is_reset_is_tried_again(server):
    with connect(server.uri, writable=True, options=QUICK) as device:
        server.rules.resets = 3
        server.crash()
        assert device.read(0, 1) == b"\0"
        assert (server.rules.resets, server.accepted) == (0, 5)
    server.rules.resets = 1
    with pytest.raises(ConnectionLost, match=r"^nbd\+unix:[^ ]*: the connection broke in the handshake"):
        connect(server.uri)


def test_a_server_that_comes_back_as_another_is_refused(server):
    with connect(server.uri, writable=True, options=QUICK) as device:
        server.rules.size //= 2
        server.crash()
        with pytest.raises(ConnectionLost, match="not what it was: expected 1048576 bytes, found 524288"):
            device.read(0, 1)
        server.rules.size *= 2
        server.rules.flags = FLAGS & ~TransmissionFlag.SEND_FLUSH
        with pytest.raises(ConnectionLost, match="expected SEND_FLUSH, found it gone"):
            device.read(0, 1)
        server.rules.flags = FLAGS | TransmissionFlag.READ_ONLY
        with pytest.raises(ConnectionLost, match="found it read-only"):
            device.read(0, 1)
        server.rules.flags = FLAGS
        server.rules.blocks = wire.INFO_BLOCK_SIZE.pack(wire.InfoType.BLOCK_SIZE, 512, 4096, 1 << 25)
        with pytest.raises(ConnectionLost, match="expected blocks from 1"):
            device.read(0, 1)


def test_a_server_that_does_not_answer_meets_the_deadline(server):
    def before(request):
        if request.offset == 4096:
            raise Hang

    server.rules.before = before
    with connect(server.uri, writable=True, options=ClientOptions(timeout_s=0.2)) as device:
        with pytest.raises(TimeoutError, match=r"READ of 10 bytes at 4096: no answer within 0\.2 s"):
            device.read(4096, 10)
        with device.time_limit(30):
            assert device.read(0, 10) == bytes(10)
    with (
        connect(server.uri, writable=True) as device,
        device.time_limit(0.1),
        pytest.raises(TimeoutError, match=r"within 0\.1 s"),
    ):
        device.read(4096, 10)


def test_a_deadline_of_one_thread_costs_the_others_nothing(server):
    hung = threading.Event()

    def before(request):
        if request.offset == 4096:
            hung.set()
            raise Hang

    server.rules.before = before
    with connect(server.uri, writable=True) as device:

        def limited():
            while not hung.is_set():  # its time may be over before it is sent
                with device.time_limit(0.2), pytest.raises(TimeoutError):
                    device.read(4096, 10)

        def patient():
            assert hung.wait(30)
            assert device.read(0, 10) == bytes(10)

        run_together([limited, patient])


def test_cancel_wakes_all_and_the_device_goes_on(server):
    def before(request):
        if request.offset >= 4096:
            raise Hang

    server.rules.before = before
    with connect(server.uri, writable=True, options=QUICK) as device:

        def stuck():
            with pytest.raises(Cancelled):
                device.read(4096, 10)

        def cancel():
            until = time.monotonic() + 30
            while sum(each.load for each in device._pool._connections) < 3:
                assert time.monotonic() < until
                time.sleep(0.001)
            device.cancel()

        run_together([stuck, stuck, stuck, cancel])
        assert device.read(0, 10) == bytes(10)


def test_cancel_ends_the_wait_for_a_server_that_is_away(server, monkeypatch):
    monkeypatch.setattr(pool, "LONGEST_PAUSE_S", 600)
    with connect(server.uri, options=ClientOptions(timeout_s=None, reconnect_s=600)) as device:
        device._pool._pause_s = 599  # 600 when the pause has begun
        server.stop()

        def stuck():
            with pytest.raises(Cancelled):
                device.read(0, 1)

        def cancel():
            while device._pool._pause_s == 599:
                time.sleep(0.001)
            device.cancel()

        run_together([stuck, cancel])


def test_an_acknowledgement_that_is_noted_too_late_is_not_relied_on(server, monkeypatch):
    """Between a write's reply and its being noted the server dies and is met again: the write is made again."""
    with connect(server.uri, writable=True, options=QUICK) as device:
        acknowledged, go = threading.Event(), threading.Event()
        check = device._not_done

        def late(calls, connection):
            if calls[0].command == Command.WRITE and not acknowledged.is_set():
                acknowledged.set()
                assert go.wait(30)
            return check(calls, connection)

        monkeypatch.setattr(device, "_not_done", late)

        def crash():
            assert acknowledged.wait(30)
            server.crash()
            assert device.read(0, 4) == bytes(4)
            go.set()

        run_together([lambda: device.write(0, b"data"), crash])
        assert device.read(0, 4) == b"data"
        device.flush()
        assert server.durable[:4] == b"data"


def test_one_lost_connection_ends_its_siblings(tmp_path):
    """Or a request on one of them could overtake the writes that are made again."""
    rules = Rules(flags=FLAGS | TransmissionFlag.CAN_MULTI_CONN)
    with CrashServer(tmp_path, rules) as server, connect(server.uri, writable=True, options=QUICK) as device:
        first = device._pool._connections[0]
        second = device._pool._another()
        assert second is not None
        device.write(0, b"unflushed")
        fell, ended = [], []

        def before(request):
            if request.command == Command.WRITE:
                ended.append(first.failure is not None and second.failure is not None)

        rules.before = before

        def hang_up(request):
            if request.offset == 4096 and not fell:
                fell.append(request)
            return fell == [request]

        rules.hang_up = hang_up
        rules.raw_reply = lambda request: b"" if request.offset == 4096 and not fell else None
        assert device.read(4096, 1) == b"\0"
        assert ended == [True], "both have ended when the write is made again"
        assert (device.reconnects, server.accepted) == (1, 3)


@pytest.mark.parametrize(
    "garbage",
    [
        lambda request: bytes(64),
        lambda request: simple(request.cookie + 1, 0, bytes(64)),
        lambda request: chunk(request.cookie, 0, done=True),
    ],
    ids=["zeros", "cookie", "framing"],
)
def test_garbage_is_the_server_s_fault_for_good(server, garbage):
    server.rules.raw_reply = garbage
    with connect(server.uri, options=QUICK) as device:
        for _ in range(2):
            with pytest.raises(RemoteProtocolError, match="nbd\\+unix"):
                device.read(0, 10)
        assert len(server.requests) == 1


def test_errors_of_the_server_are_told_with_their_number(server):
    errors = {0: 5, 1: 28, 2: 1, 3: 95, 4: 12345, 5: 108}
    server.rules.raw_reply = lambda request: simple(request.cookie, errors[request.offset])
    with connect(server.uri, writable=True) as device:
        with pytest.raises(PeerError, match=r"READ of 1 bytes at 0: the server answers EIO") as caught:
            device.read(0, 1)
        assert caught.value.errno == errno.EIO
        with pytest.raises(PeerError, match="ENOSPC") as caught:
            device.write(1, b"x")
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(ReadOnly):
            device.write(2, b"x")
        with pytest.raises(NotSupported):
            device.zero(3, 1)
        with pytest.raises(PeerError, match="error 12345") as caught:
            device.read(4, 1)
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(PeerError, match="ESHUTDOWN"):
            device.read(5, 1)


@pytest.mark.parametrize("structured", [False, True])
def test_a_reply_cut_at_every_byte_is_asked_for_again(tmp_path, structured):
    with CrashServer(tmp_path, Rules(size=4096, structured=structured)) as server:
        server.volatile[:] = server.durable[:] = random.Random(2).randbytes(4096)
        length = 60
        whole = (28 if structured else 16) + length
        with connect(server.uri, writable=True, options=QUICK) as device:
            for cut in range(whole):
                calls = []

                def raw(request, calls=calls, cut=cut):
                    calls.append(request)
                    return server._do(request, b"")[:cut] if len(calls) == 1 else None

                def after(request, calls=calls):
                    return len(calls) == 1

                server.rules.raw_reply, server.rules.hang_up = raw, after
                assert device.read(7, length) == server.durable[7 : 7 + length], cut


@pytest.mark.parametrize("say", [b"", b"NBDMAGIC", b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", bytes(200)])
def test_what_is_no_nbd_server_is_told_quickly(say):
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(say)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(RemoteProtocolError):
            from_socket(ours)


def test_a_handshake_that_hangs_meets_its_deadline():
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(TimeoutError):
        from_socket(ours, options=ClientOptions(connect_timeout_s=0.05))


def test_a_connected_socket_is_enough_and_cannot_be_made_again(server):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(server.path)
    with from_socket(sock, "disk", writable=True) as device:
        device.write(0, b"here")
        assert device.read(0, 4) == b"here"
        server.crash()
        with pytest.raises(ConnectionLost):
            device.read(0, 4)


def test_resize_where_the_server_offers_it(tmp_path):
    with CrashServer(tmp_path, Rules(flags=FLAGS | TransmissionFlag.SEND_RESIZE)) as server:
        with connect(server.uri, writable=True, options=QUICK) as device:
            assert isinstance(device, ResizableDevice)
            device.resize(2 << 20)
            assert device.size == 2 << 20
            device.write(1 << 20, b"grown")
            server.crash()
            assert device.read(1 << 20, 5) == b"grown"
            device.resize(1 << 19)
            server.crash()
            assert device.read(0, 1) == b"\0"
        with connect(server.uri) as device:
            assert not isinstance(device, ResizableDevice)


def test_a_resize_that_is_refused_says_to_what_size(tmp_path):
    blocks = wire.INFO_BLOCK_SIZE.pack(wire.InfoType.BLOCK_SIZE, 512, 4096, 1 << 25)
    rules = Rules(flags=FLAGS | TransmissionFlag.SEND_RESIZE, blocks=blocks)
    with CrashServer(tmp_path, rules) as server, connect(server.uri, writable=True) as device:
        with pytest.raises(NotSupported, match="resize: expected a multiple of 512 bytes, found 1000"):
            device.resize(1000)
        assert not count(server, Command.RESIZE)
        rules.raw_reply = lambda request: simple(request.cookie, 28) if request.command == Command.RESIZE else None
        with pytest.raises(PeerError, match="RESIZE to 2097152 bytes: the server answers ENOSPC"):
            device.resize(2 << 20)
        assert device.size == 1 << 20
        device.write(0, bytes(512))


def test_what_a_resize_cuts_off_is_not_written_again(tmp_path):
    flags = FLAGS | TransmissionFlag.SEND_RESIZE
    with CrashServer(tmp_path, Rules(flags=flags)) as server, connect(server.uri, writable=True) as device:
        device.write((1 << 20) - 4096, b"x" * 4096)
        device.write(0, b"kept")
        device.resize(1 << 19)
        device.resize(1 << 20)
        server.crash()
        assert device.read(0, 4) == b"kept"
        assert device.read(device.size - 4096, 4096) == bytes(4096)
        assert device.reconnects == 1


def test_zeros_are_asked_for_as_they_are_wanted(tmp_path):
    with CrashServer(tmp_path, Rules(flags=FLAGS | TransmissionFlag.SEND_FAST_ZERO)) as server:
        with connect(server.uri, writable=True) as device:
            for wanted in ({}, {"may_unmap": False}, {"fast_only": True}):
                device.zero(0, 4096, **wanted)
        asked = [request.flags for request in count(server, Command.WRITE_ZEROES)]
        assert asked == [0, CommandFlag.NO_HOLE, CommandFlag.FAST_ZERO]


def test_a_server_without_zeroes_gets_zeros(tmp_path):
    with CrashServer(tmp_path, Rules(flags=TransmissionFlag.HAS_FLAGS)) as server:
        server.volatile[:] = b"\xff" * (1 << 20)
        with connect(server.uri, writable=True) as device:
            device.zero(10, 500_000, durable=True)
            device.discard(0, 10)
            device.flush()
            assert server.volatile[:500_020] == b"\xff" * 10 + bytes(500_000) + b"\xff" * 10
        assert {request.command for request in server.requests} <= {Command.WRITE, Command.DISC}


def test_durable_is_fua_or_a_flush(tmp_path):
    for flags in (FLAGS, FLAGS & ~TransmissionFlag.SEND_FUA):
        folder = tmp_path / str(int(flags))
        folder.mkdir()
        with CrashServer(folder, Rules(flags=flags)) as server, connect(server.uri, writable=True) as device:
            device.write(0, b"kept", durable=True)
            assert server.durable[:4] == b"kept"
            device.zero(0, 2, durable=True)
            assert server.durable[:4] == b"\0\0pt"


def test_a_durable_discard_is_flushed_where_there_is_no_fua(tmp_path):
    rules = Rules(flags=FLAGS & ~TransmissionFlag.SEND_FUA)
    with CrashServer(tmp_path, rules) as server, connect(server.uri, writable=True) as device:
        device.discard(0, 4096)
        device.discard(0, 4096, durable=True)
        assert [each.command for each in server.requests] == [Command.TRIM, Command.TRIM, Command.FLUSH]
    with CrashServer(tmp_path) as server, connect(server.uri, writable=True) as device:
        device.discard(0, 4096, durable=True)
        assert [(each.command, each.flags) for each in server.requests] == [(Command.TRIM, CommandFlag.FUA)]


def test_opening_says_what_is_wrong(tmp_path):
    with pytest.raises(NotFound, match="nobody listens"):
        connect(f"nbd+unix:///x?socket={tmp_path}/none")
    with CrashServer(tmp_path, Rules(flags=FLAGS | TransmissionFlag.READ_ONLY)) as server:
        with pytest.raises(ReadOnly, match="read-only"):
            connect(server.uri, writable=True)
        with connect(server.uri) as device:
            assert not device.traits.writable
            device.flush()
            device.close()
            with pytest.raises(Closed):
                device.read(0, 1)
        with pytest.raises(Refused, match="asks for it and the server refuses"):
            connect(server.uri.replace("nbd+", "nbds+") + "&tls-verify-peer=0")


def test_a_thread_that_cannot_send_in_time_leaves_the_connection_alone(server):
    with connect(server.uri, writable=True, options=QUICK) as device:
        [connection] = device._pool._connections
        with (
            connection._sending,
            device.time_limit(0.05),
            pytest.raises(TimeoutError, match=r"WRITE of 1 bytes at 0: no answer within 0\.05 s"),
        ):
            device.write(0, b"x")
        assert connection.failure is None
        device.write(0, b"y")
        assert (server.volatile[:1], server.accepted) == (b"y", 1)


def test_hints_that_nobody_waits_for_are_bounded(tmp_path):
    rules = Rules(flags=FLAGS | TransmissionFlag.SEND_CACHE)
    with CrashServer(tmp_path, rules) as server, connect(server.uri) as device:
        for _ in range(1000):
            device.prefetch(0, 4096)
        assert device.read(0, 1) == b"\0"
        assert 0 < len(count(server, Command.CACHE)) <= 16
        device.prefetch(0, 4096)
        assert device.read(0, 1) == b"\0"


def comes(server, command):
    until = time.monotonic() + 60
    while not count(server, command):
        assert time.monotonic() < until, f"{command.name} has not come"
        time.sleep(0.001)


def hinted(server):
    """Return a device with a hint that the server has, and has not answered."""
    device = connect(server.uri, options=QUICK)
    device.prefetch(0, 4096)
    comes(server, Command.CACHE)
    return device


def test_who_goes_waits_for_answers_that_nobody_waited_for(tmp_path):
    """A server that answers a client which has gone may end with all that it serves."""
    answered = threading.Event()

    def before(request):
        if request.command == Command.CACHE:
            assert answered.wait(60)

    rules = Rules(flags=FLAGS | TransmissionFlag.SEND_CACHE, before=before)
    with CrashServer(tmp_path, rules) as server:
        leaving = threading.Thread(target=hinted(server).close)
        leaving.start()
        leaving.join(0.2)
        assert leaving.is_alive()
        answered.set()
        leaving.join(60)
        assert not leaving.is_alive()
        comes(server, Command.DISC)


def test_who_goes_does_not_wait_for_good(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "_LEAVE_S", 0.05)
    monkeypatch.setattr(connection, "_TICK_S", 0.05)
    answered = threading.Event()
    rules = Rules(flags=FLAGS | TransmissionFlag.SEND_CACHE, before=lambda request: answered.wait(60))
    with CrashServer(tmp_path, rules) as server:
        hinted(server).close()
        assert not answered.is_set()
        answered.set()


class Contexts(CrashServer):
    """Selects base:allocation, and tells of extents as short as it likes."""

    selects = True

    def _select(self):
        return context(Option.SET_META_CONTEXT, (9, "base:allocation")) if self.selects else ack(10)

    def _do(self, request, data):
        if request.command != Command.BLOCK_STATUS:
            return super()._do(request, data)
        many = min(request.length, 5000)
        pairs = b"".join(wire.STATUS_ENTRY.pack(1, number % 2 * 3) for number in range(many))
        return chunk(request.cookie, 5, wire.U32.pack(9) + pairs, done=True)


def test_a_server_that_tells_of_every_byte_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(device_module, "MAX_EXTENTS", 12_000)
    with Contexts(tmp_path, Rules(structured=True)) as server, connect(server.uri) as device:
        extents = list(device.extents())
        assert len(extents) in (12_000, 12_001)
        assert extents[:2] == [(0, 1, 0), (1, 1, 3)]
        assert extents[-1].end == device.size
        assert extents[-1].flags == 0
        assert len(count(server, Command.BLOCK_STATUS)) == 3


def test_an_extent_that_reaches_behind_the_end_is_cut_off(tmp_path):
    class Far(Contexts):
        def _do(self, request, data):
            if request.command != Command.BLOCK_STATUS:
                return super()._do(request, data)
            return chunk(request.cookie, 5, struct.pack(">III", 9, 0xFFFFF000, 3), done=True)

    with Far(tmp_path, Rules(structured=True)) as server, connect(server.uri) as device:
        found = list(device.context_extents("base:allocation", 4096))
        assert found == [(4096, device.size - 4096, 3)]


def test_a_server_that_comes_back_without_its_contexts_is_another(tmp_path):
    with Contexts(tmp_path, Rules(structured=True)) as server, connect(server.uri, options=QUICK) as device:
        server.selects = False
        server.crash()
        with pytest.raises(ConnectionLost, match="expected the meta context base:allocation, found it gone"):
            device.read(0, 1)


def test_threads_share_what_is_in_flight(server):
    """Replies come in an order of the server's own: each thread gets its bytes."""
    server.volatile[:] = b"".join(struct.pack(">I", n) for n in range(1 << 18))
    with connect(server.uri) as device:

        def read(seed):
            chance = random.Random(seed)
            for _ in range(200):
                offset, length = chance.randrange(1 << 19), chance.choice((1, 100, 5000, 70_000, 300_000))
                assert device.read(offset, length) == server.volatile[offset : offset + length]

        run_together([lambda seed=seed: read(seed) for seed in range(6)])
