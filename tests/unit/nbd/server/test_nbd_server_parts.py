"""Rooms and turns: what one connection and a server may hold, who sends when, who waits for a device."""

import errno
import os
import socket
import struct
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from blockwright.nbd.protocol.replies import StructuredFraming
from blockwright.nbd.protocol.requests import Request
from blockwright.nbd.server import flight as flight_module
from blockwright.nbd.server import inbox as inbox_module
from blockwright.nbd.server.flight import InFlight
from blockwright.nbd.server.inbox import LARGEST, SMALLEST, Inbox
from blockwright.nbd.server.limits import PIECE, ByteBudget, Limits
from blockwright.nbd.server.longread import LongReads
from blockwright.nbd.server.outbox import Outbox
from blockwright.nbd.server.peer import Peer
from blockwright.nbd.server.polling import FIRST_PERIOD, Polling
from blockwright.nbd.server.pool import Workers
from blockwright.nbd.transport import SocketStream
from tests.support import devices
from tests.support.memorystream import MemoryStream

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    stream = SocketStream(ours)
    with theirs:
        theirs.settimeout(30)
        yield stream, theirs
        stream.close()


# -- ByteBudget and InFlight -------------------------------------------------------------------------------------


def test_a_budget_is_shared():
    budget = ByteBudget(100)
    assert budget.take(60)
    assert not budget.take(50, timeout_s=0)
    assert budget.take(50, at_once=lambda: True)
    assert budget.used == 110
    budget.give_back(110)
    assert budget.take(1000)  # alone, whatever it is
    assert not budget.take(1, timeout_s=0)


def test_who_waits_for_the_budget_gets_it():
    budget = ByteBudget(100)
    budget.take(100)
    got = []
    thread = threading.Thread(target=lambda: got.append(budget.take(50)))
    thread.start()
    budget.give_back(50)
    thread.join(30)
    assert got == [True]
    assert budget.used == 100


def test_a_connection_has_room_for_requests_and_bytes():
    limits = Limits(connection_requests=2, connection_bytes_in_flight=100, request_s=0)
    flight = InFlight(limits, ByteBudget(MIB))
    first = flight.enter(1000)  # alone, whatever it is
    assert flight.enter(1) is None
    flight.leave(first)
    first, second = flight.enter(50), flight.enter(50)
    assert None not in (first, second)
    assert flight.enter(0) is None
    flight.leave(first)
    assert flight.enter(51) is None
    assert flight.enter(50) is not None


def test_nobody_is_locked_out_by_others():
    budget = ByteBudget(MIB)
    budget.take(MIB)
    flight = InFlight(Limits(request_s=0), budget)
    assert flight.enter(PIECE + 1) is None
    ticket = flight.enter(PIECE)
    assert ticket is not None
    assert budget.used == 2 * MIB
    assert flight.enter(1) is None
    flight.leave(ticket)
    assert budget.used == MIB


@pytest.mark.parametrize("cost", [PIECE, 0])
def test_who_waits_for_others_is_let_in_when_it_is_alone(cost):
    """What it had under way when it began to wait may be over long before the others give anything back."""
    budget = ByteBudget(MIB)
    budget.take(MIB)
    flight = InFlight(Limits(request_s=30), budget)
    ticket, entered = flight.enter(cost), []
    thread = threading.Thread(target=lambda: entered.append(flight.enter(PIECE)))
    thread.start()
    thread.join(0.2)
    assert entered == [], "others hold all there is, and one request is under way"
    flight.leave(ticket)
    thread.join(60)
    assert entered == [ticket + 1]


def test_waiting_for_room_takes_no_more_than_its_time(monkeypatch):
    """Neither for the connection's own, nor for what all have, nor for both."""
    now, waits = [1000.0], []
    monkeypatch.setattr(flight_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Noted(ByteBudget):
        def take(self, amount, *, timeout_s=None, **more):
            waits.append(timeout_s)
            return super().take(amount, timeout_s=0, **more)

    budget = Noted(MIB)
    ByteBudget.take(budget, MIB)
    flight = InFlight(Limits(request_s=60, connection_requests=2), budget)
    first, second = flight.enter(0), flight.enter(0)

    def leave():
        now[0] += 45
        flight.leave(second)

    leaving = threading.Timer(0.2, leave)
    leaving.start()
    assert flight.enter(1) is None
    assert waits == [15], "what is left of 60 s when the first wait is over"
    leaving.join()
    flight.leave(first)


def test_where_nothing_is_under_way_nothing_is_held():
    """What a session held counts no more when it has ended, and not a moment later."""

    class Late(ByteBudget):
        def give_back(self, amount):
            threading.Event().wait(0.2)
            super().give_back(amount)

    budget = Late(MIB)
    flight = InFlight(Limits(), budget)
    leaving = threading.Thread(target=flight.leave, args=(flight.enter(10),))
    leaving.start()
    assert flight.wait_until_empty(60)
    assert budget.used == 0
    leaving.join(60)


def test_waiting_until_all_is_answered():
    flight = InFlight(Limits(), ByteBudget(MIB))
    assert flight.wait_until_empty(0)
    assert flight.oldest_s == 0
    ticket = flight.enter(10)
    assert not flight.wait_until_empty(0)
    assert flight.oldest_s >= 0
    thread = threading.Thread(target=flight.wait_until_empty)
    thread.start()
    flight.leave(ticket)
    thread.join(30)
    assert not thread.is_alive()


# -- Workers -----------------------------------------------------------------------------------------------------


def test_threads_are_started_as_they_are_needed_and_no_more():
    workers = Workers(3, "test")
    gate = threading.Event()
    done = []
    for number in range(10):
        workers.submit(lambda number=number: (gate.wait(30), done.append(number)))
    assert sum(thread.name == "test" for thread in threading.enumerate()) == 3
    gate.set()
    workers.close()
    assert sorted(done) == list(range(10))
    assert not any(thread.name == "test" for thread in threading.enumerate())


def test_one_worker_does_one_after_the_other():
    workers, done = Workers(0, "test"), []
    for number in range(100):
        workers.submit(lambda number=number: done.append(number))
    workers.close()
    assert done == list(range(100))


# -- Inbox -------------------------------------------------------------------------------------------------------


def inbox_of(stream, **more):
    return Inbox(stream, Polling(lambda: True), **({"idle_s": None, "request_s": 30} | more))


def test_what_arrives_is_held_until_it_is_taken(pair):
    stream, peer = pair
    inbox = inbox_of(stream)
    peer.sendall(b"abcdef")
    assert inbox.fill()
    assert bytes(inbox.view[inbox.start : inbox.end]) == b"abcdef"
    buffer = bytearray(4)
    assert inbox.take_into(memoryview(buffer))
    assert buffer == b"abcd"
    assert inbox.skip(1)
    peer.sendall(b"gh")
    buffer = bytearray(3)
    assert inbox.take_into(memoryview(buffer))
    assert buffer == b"fgh"
    peer.close()
    assert not inbox.fill()
    assert not inbox.skip(1)
    assert not inbox.take_into(memoryview(bytearray(1)))


def test_room_is_made_for_what_is_wanted(pair):
    stream, peer = pair
    inbox = inbox_of(stream)
    data = bytes(range(256)) * 1024
    sender = threading.Thread(target=peer.sendall, args=(data,))
    sender.start()
    assert inbox.fill()
    inbox.start += 10
    while inbox.held < len(data) - 10:
        assert inbox.fill(len(data) - 10)
    assert bytes(inbox.view[inbox.start : inbox.end]) == data[10:]
    sender.join(30)


def test_any_cutting_gives_the_same_bytes(pair):
    stream, peer = pair
    inbox = inbox_of(stream)
    data = bytes(range(251)) * 40_000
    sender = threading.Thread(target=peer.sendall, args=(data,))
    sender.start()
    got, turn = bytearray(), 0
    while len(got) < len(data):
        turn += 1
        if turn % 3:
            if not inbox.held:
                assert inbox.fill(1 + turn % 5000)
            count = min(inbox.held, 1 + turn * 37 % 20_000)
            got += inbox.view[inbox.start : inbox.start + count]
            inbox.start += count
        else:
            part = bytearray(min(turn * 101 % 300_000, len(data) - len(got)))
            assert inbox.take_into(memoryview(part))
            got += part
        assert len(inbox.data) <= 2 * LARGEST
    assert got == data
    sender.join(30)


def test_silence_between_requests_and_within_one_have_their_own_times(pair):
    stream, peer = pair
    with pytest.raises(TimeoutError):
        inbox_of(stream, idle_s=0.01).fill()
    inbox = inbox_of(stream, request_s=0.01)
    peer.sendall(b"part")
    assert inbox.fill()
    with pytest.raises(TimeoutError):
        inbox.fill(28)
    with pytest.raises(TimeoutError):
        inbox.take_into(memoryview(bytearray(28)))


@pytest.fixture
def clock(monkeypatch):
    """What the inbox takes for the time, in seconds; a socket waits for as long as it ever does."""
    now = [1000.0]
    monkeypatch.setattr(
        inbox_module, "time", SimpleNamespace(monotonic=lambda: now[0], perf_counter_ns=time.perf_counter_ns)
    )
    return now


def test_a_request_that_drips_is_late_as_a_whole(pair, clock):
    stream, peer = pair
    inbox = Inbox(stream, Polling(lambda: False), idle_s=None, request_s=30)
    for byte in b"first":
        peer.sendall(bytes([byte]))
        assert inbox.fill(5)
        clock[0] += 6
    inbox.start += 5
    for _ in range(6):
        peer.sendall(b"x")
        assert inbox.fill(64 * KIB)
        clock[0] += 6
    clock[0] += 1
    peer.sendall(b"x")
    with pytest.raises(TimeoutError, match="took too long"):
        inbox.fill(64 * KIB)


def test_each_request_has_its_own_time(pair, clock):
    """A request may begin where another one did, when the buffer was given back to its beginning."""
    stream, peer = pair
    inbox = Inbox(stream, Polling(lambda: False), idle_s=None, request_s=30)
    for _ in range(4):
        peer.sendall(b"half")
        assert inbox.fill(8)
        clock[0] += 20
        peer.sendall(b"half")
        assert inbox.fill(8)
        inbox.start += 8


def test_times_are_set_before_anything_is_waited_for():
    """A client that sends its requests with the handshake is sent to first."""

    class Noted(MemoryStream):
        def set_timeout(self, receive_s, send_s):
            self.times = (receive_s, send_s)

    stream = Noted(b"")
    inbox_of(stream, idle_s=5)
    assert stream.times == (5, 30)


def test_a_grown_buffer_is_given_back_in_silence(pair, monkeypatch):
    stream, peer = pair
    monkeypatch.setattr("blockwright.nbd.server.inbox.SHRINK_AFTER_S", 0.01)
    inbox = inbox_of(stream, idle_s=0.02)
    peer.sendall(bytes(10))
    assert inbox.fill(LARGEST)
    inbox.skip(10)
    assert len(inbox.data) == LARGEST
    with pytest.raises(TimeoutError):
        inbox.fill()
    assert len(inbox.data) == SMALLEST


def test_in_silence_others_give_back_memory_too(pair, monkeypatch):
    stream, _ = pair
    monkeypatch.setattr("blockwright.nbd.server.inbox.SHRINK_AFTER_S", 0.01)
    inbox, calls = inbox_of(stream, idle_s=0.02), []
    inbox.let_go = lambda: calls.append(1)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            inbox.fill()
    assert calls == [1]


# -- Outbox ------------------------------------------------------------------------------------------------------


def test_replies_are_sent_whole_by_many_threads(pair):
    stream, peer = pair
    outbox = Outbox(stream, lambda error: None)
    sent = []

    def post(letter):
        for _ in range(20):
            outbox.post(letter * 50_000, lambda: sent.append(letter))

    def hold(letter):
        for _ in range(20):
            with outbox as held:
                held.send(letter * 25_000)
                held.send(letter * 25_000)

    letters = [b"a", b"b", b"c", b"d"]
    work = [post, post, hold, hold]
    threads = [threading.Thread(target=each, args=(letter,)) for each, letter in zip(work, letters, strict=True)]
    for thread in threads:
        thread.start()
    got = bytearray()
    while len(got) < 80 * 50_000:
        got += peer.recv(1 << 20)
    for thread in threads:
        thread.join(30)
    outbox.wait_until_sent()
    pieces = [bytes(got[start : start + 50_000]) for start in range(0, len(got), 50_000)]
    assert all(len(set(piece)) == 1 for piece in pieces)
    assert sorted(piece[:1] for piece in pieces) == sorted(letters * 20)
    assert sorted(sent) == [b"a"] * 20 + [b"b"] * 20


def test_post_does_not_wait_for_a_slow_client(pair):
    stream, peer = pair
    outbox = Outbox(stream, lambda error: None)
    sent = []
    for _ in range(8):
        outbox.post(bytes(4 * MIB), lambda: sent.append(1))  # would block for ever in this thread
    assert len(sent) < 8
    got = 0
    while got < 32 * MIB:
        got += len(peer.recv(1 << 20))
    outbox.wait_until_sent()
    assert len(sent) == 8


def test_after_a_failure_everybody_is_told_and_nothing_is_sent(pair):
    stream, peer = pair
    failures, sent = [], []
    outbox = Outbox(stream, failures.append)
    peer.close()
    for _ in range(5):
        outbox.post(b"x", lambda: sent.append(1))
    outbox.wait_until_sent()
    assert len(sent) == 5
    assert len(failures) == 1
    assert isinstance(failures[0], OSError)


def test_nothing_follows_what_an_error_may_have_cut_short(pair):
    stream, peer = pair
    outbox, sent = Outbox(stream, lambda error: None), []

    def send_half():
        with outbox as held:
            held.send(b"half a reply")
            outbox.post(b"queued", lambda: sent.append(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        send_half()
    outbox.post(b"after", lambda: sent.append(2))
    outbox.wait_until_sent()
    stream.close()
    assert sent == [1, 2]
    assert peer.recv(100) == b"half a reply"
    assert peer.recv(100) == b""


# -- Peer --------------------------------------------------------------------------------------------------------


def test_who_counts_as_one():
    assert Peer("tcp", "192.0.2.1", 1).key == Peer("tcp", "192.0.2.1", 2).key != Peer("tcp", "192.0.2.2", 1).key
    assert Peer("tcp", "2001:db8::1", 1).key == Peer("tcp", "2001:db8::ffff:0:1", 2).key
    assert Peer("tcp", "2001:db8::1", 1).key != Peer("tcp", "2001:db8:0:1::1", 1).key
    assert Peer("tcp", "fe80::1%eth0", 1).key == Peer("tcp", "fe80::2", 1).key
    assert Peer("unix", uid=1, pid=1).key == Peer("unix", uid=1, pid=2).key != Peer("unix", uid=2, pid=1).key


# -- Workers take turns -------------------------------------------------------------------------------------------


def test_nobody_has_all_workers_and_all_have_their_turn():
    workers, gate, done = Workers(4, "test"), threading.Event(), []
    for number in range(9):
        workers.submit(lambda number=number: (gate.wait(30), done.append(f"many {number}")), "many")
    quick = threading.Event()
    workers.submit(quick.set, "one")
    assert quick.wait(30), "the one that is kept free"
    for number in range(3):
        workers.submit(lambda number=number: (gate.wait(30), done.append(f"few {number}")), "few")
    gate.set()
    workers.close()
    assert sorted(done) == sorted(
        [f"many {number}" for number in range(9)] + [f"few {number}" for number in range(3)]
    )


# -- Polling -------------------------------------------------------------------------------------------------------


def waits(polling, count, *, polled_ns, slept_ns):
    """Wait so often, as long as it takes either way, and return the share of waits that polled."""
    polls = 0
    for _ in range(count):
        polls += bool(length := polling.length_ns())
        polling.waited(polled_ns if length else slept_ns)
    return polls / count


def test_polling_is_kept_where_it_is_quicker_and_only_there():
    polling = Polling(lambda: True)
    assert 0 < waits(polling, FIRST_PERIOD, polled_ns=30_000, slept_ns=80_000) < 0.5, "tried"
    assert waits(polling, 4096, polled_ns=30_000, slept_ns=80_000) > 0.8, "it pays"
    waits(polling, 4096, polled_ns=120_000, slept_ns=80_000)
    assert waits(polling, 8192, polled_ns=120_000, slept_ns=80_000) < 0.1, "somebody else wants the core"


def test_nobody_polls_an_idle_client_or_without_a_spare_core():
    assert waits(Polling(lambda: False), 4096, polled_ns=1, slept_ns=80_000) == 0
    polling = Polling(lambda: True)
    waits(polling, FIRST_PERIOD, polled_ns=10**9, slept_ns=10**9)
    assert waits(polling, 4096, polled_ns=10**9, slept_ns=10**9) < 0.1


# -- LongReads ---------------------------------------------------------------------------------------------------


class Sending(MemoryStream):
    """Has the kernel send as many bytes of a file as `counts` says in turn; an exception among them is raised."""

    def __init__(self, *counts):
        super().__init__(b"")
        self.counts = list(counts)

    def send_file(self, fd, offset, length):
        count = self.counts.pop(0)
        if isinstance(count, Exception):
            raise count
        self.sent += os.pread(fd, count, offset)
        return count


@pytest.mark.skipif(sys.platform == "win32", reason="no sendfile")
@pytest.mark.parametrize("end", [0, OSError(errno.EIO, "input/output error")], ids=["cut off", "broken"])
def test_a_file_that_ends_within_a_read_is_padded_to_what_was_announced(tmp_path, end):
    content = bytes(range(256)) * (MIB // 256)
    with devices.file(content, tmp_path) as device:
        stream = Sending(100_000, end)
        last, error = LongReads(device, StructuredFraming()).answer(Request(0, 0, 7, 0, MIB), stream)
    head = struct.calcsize(">IHHQIQ")
    assert error is not None
    assert bytes(stream.sent[head:]) == content[:100_000] + bytes(MIB - 100_000)
    assert struct.unpack_from(">Q", last, len(last) - 8) == (100_000,)
