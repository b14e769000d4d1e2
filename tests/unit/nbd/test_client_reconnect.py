"""What goes wrong while a lost connection is made again: writes that must not be lost, and calls that must end."""

import errno
import sys
import threading
import time

import pytest

from blockwright.errors import Cancelled, ConnectionLost, RemoteProtocolError
from blockwright.nbd import wire
from blockwright.nbd.client import pool
from blockwright.nbd.client.connect import connect
from blockwright.nbd.client.options import ClientOptions
from blockwright.nbd.wire import Command, TransmissionFlag
from tests.support.nbdcrash import FLAGS, Crash, CrashServer, Rules
from tests.support.nbdserver import simple
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


def fails_for_a_while(server, times, fail):
    """Have `fail` raise, or answer, at the first so many writes from now on."""
    left = [times]

    def failing(request):
        if request.command != Command.WRITE or not left[0]:
            return None
        left[0] -= 1
        return fail(request)

    return failing


def test_a_server_that_dies_again_while_writes_are_made_again_gets_them_all(server):
    def crash(request):
        raise Crash

    with connect(server.uri, writable=True, options=QUICK) as device:
        for position in range(4):
            device.write(position, b"%d" % position)
        server.crash()
        server.rules.before = fails_for_a_while(server, 3, crash)
        device.flush()
        assert server.durable[:4] == b"0123"
        assert (server.crashes, device.reconnects) == (4, 1)


def test_a_write_that_is_refused_when_it_is_made_again_is_tried_until_it_is_taken(server):
    with connect(server.uri, writable=True, options=QUICK) as device:
        device.write(0, b"kept")
        server.crash()
        server.rules.raw_reply = fails_for_a_while(
            server, 2, lambda request: simple(request.cookie, wire.Error.ENOSPC)
        )
        device.flush()
        assert server.durable[:4] == b"kept"


def test_a_write_that_is_never_taken_again_fails_the_flush(server):
    with connect(server.uri, writable=True, options=QUICK) as device:
        device.write(0, b"kept")
        server.crash()
        refused = []

        def refuse(request):
            refused.append(request)
            if len(refused) == 3:
                device._pool._reconnect_s = 1e-9  # the time is over
            return simple(request.cookie, wire.Error.ENOSPC)

        server.rules.raw_reply = fails_for_a_while(server, 1 << 30, refuse)
        with pytest.raises(ConnectionLost, match=r"refuses a write that it had taken before \(error 28\)"):
            device.flush()
        assert len(refused) == 3
        device._pool._reconnect_s = 30
        server.rules.raw_reply = lambda request: None
        device.flush()
        assert server.durable[:4] == b"kept"


def test_a_call_ends_in_its_time_while_the_server_is_away(server):
    with connect(server.uri, writable=True, options=QUICK) as device:
        server.stop()
        with device.time_limit(0.2), pytest.raises(TimeoutError, match="did not come back in time") as caught:
            device.read(0, 1)
        assert caught.value.errno == errno.ETIMEDOUT
        assert caught.value.filename == device.name
        server.start()
        assert device.read(0, 1) == b"\0"


def test_all_calls_that_wait_for_a_server_that_is_away_end_in_their_time(server):
    def call():
        with device.time_limit(0.2), pytest.raises(TimeoutError, match="did not come back in time"):
            device.read(0, 1)

    with connect(server.uri, writable=True, options=QUICK) as device:
        server.stop()
        began = time.monotonic()
        run_together([call] * 4)
        assert time.monotonic() - began < 25, "and not when the server is given up"


def test_what_hangs_up_in_the_handshake_is_tried_again(tmp_path):
    """As what forwards ports does while the server behind it is away."""

    class Away(CrashServer):
        def _shake(self, sock, file):
            return not 1 < self.accepted < 5 and super()._shake(sock, file)

    with Away(tmp_path) as server, connect(server.uri, writable=True, options=QUICK) as device:
        device.write(0, b"kept")
        server.crash()
        device.flush()
        assert server.durable[:4] == b"kept"
        assert (server.accepted, device.reconnects) == (5, 1)


def test_what_comes_back_as_no_server_at_all_is_told_as_that(server, monkeypatch):
    with connect(server.uri, writable=True, options=QUICK) as device:
        made = pool.Pool._made

        def last(self, timeout_s):
            self._reconnect_s = 1e-9  # the time is over when this one has failed
            return made(self, timeout_s)

        server.crash()
        with monkeypatch.context() as greeting:
            greeting.setattr("tests.support.nbdcrash.GREETING", b"HTTP/1.1 400 Bad Request\r\n\r\n")
            greeting.setattr(pool.Pool, "_made", last)
            with pytest.raises(RemoteProtocolError, match=r"^nbd\+unix:"):
                device.read(0, 1)
        device._pool._reconnect_s = 30
        assert device.read(0, 1) == b"\0"


def test_a_resize_whose_answer_was_lost_is_not_made_again(tmp_path):
    """Nobody knows whether it was done; and the size that the device has told still holds where it was not."""

    def before(request):
        if request.command == Command.RESIZE:
            server.rules.before = lambda request: None
            raise Crash

    with CrashServer(tmp_path, Rules(flags=FLAGS | TransmissionFlag.SEND_RESIZE)) as server:
        server.rules.before = before
        with connect(server.uri, writable=True, options=QUICK) as device:
            with pytest.raises(ConnectionLost, match=r"ended|broke"):
                device.resize(2 << 20)
            assert device.size == 1 << 20
            assert device.read(0, 1) == b"\0"
            assert [each.command for each in server.requests].count(Command.RESIZE) == 1


def test_a_hint_on_a_connection_that_is_gone_raises_nothing(tmp_path):
    rules = Rules(flags=FLAGS | TransmissionFlag.SEND_CACHE)
    with CrashServer(tmp_path, rules) as server, connect(server.uri, options=QUICK) as device:
        server.crash()
        for _ in range(3):
            device.prefetch(0, 4096)
        assert device.read(0, 1) == b"\0"
        assert device.reconnects == 1


def test_a_connection_beside_the_first_is_made_within_the_time_of_its_call(tmp_path):
    """The server accepts one more, and says nothing: a call that would like to have it still ends in time."""
    held = threading.Event()

    class Silent(CrashServer):
        def _shake(self, sock, file):
            if self.accepted > 1:
                held.wait(30)
            return super()._shake(sock, file)

    def before(request):
        if request.offset == 4096:
            started.set()
            assert held.wait(30)

    started = threading.Event()
    rules = Rules(flags=FLAGS | TransmissionFlag.CAN_MULTI_CONN, before=before)
    with Silent(tmp_path, rules) as server, connect(server.uri, options=QUICK) as device:
        busy = threading.Thread(target=device.read, args=(4096, 1))
        busy.start()
        assert started.wait(30)
        began = time.monotonic()
        try:
            with device.time_limit(2), pytest.raises(TimeoutError):
                device.read(0, 1)
            assert time.monotonic() - began < 9, "the handshake has 10 s of its own"
        finally:
            held.set()
            busy.join(30)


@pytest.mark.parametrize(("limit_s", "tried"), [(0.4, False), (2, True)])
def test_a_call_with_little_time_leaves_further_connections_to_others(monkeypatch, tmp_path, limit_s, tried):
    """A server that takes no more of them does not answer: one that had no time to would be taken for one."""
    held, started, made = threading.Event(), threading.Event(), []

    def before(request):
        started.set()
        assert held.wait(30)

    rules = Rules(flags=FLAGS | TransmissionFlag.CAN_MULTI_CONN, before=before)
    with CrashServer(tmp_path, rules) as server, connect(server.uri, options=QUICK) as device:
        make = pool.Pool._made
        monkeypatch.setattr(pool.Pool, "_made", lambda self, left: made.append(left) or make(self, left))
        busy = threading.Thread(target=device.read, args=(4096, 1))
        busy.start()
        try:
            assert started.wait(30)
            with device.time_limit(limit_s), pytest.raises(TimeoutError):
                device.read(0, 1)
            # The other thread makes one in place of the one that was given up, within the time of its own call.
            assert any(each <= limit_s / 2 for each in made) is tried
        finally:
            held.set()
            busy.join(30)


def test_a_cancelled_call_says_so_to_each_thread(server):
    def call():
        with pytest.raises(Cancelled, match="the call was cancelled"):
            device.read(0, 1)

    with connect(server.uri, options=QUICK) as device:
        server.stop()
        ended = threading.Event()

        def cancel():
            while not ended.wait(0.1):  # again and again: a call that begins later was not cancelled
                device.cancel()

        cancelling = threading.Thread(target=cancel)
        cancelling.start()
        try:
            run_together([call] * 4)
        finally:
            ended.set()
            cancelling.join()
        server.start()
        assert device.read(0, 1) == b"\0"
