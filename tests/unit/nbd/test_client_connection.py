"""One connection among threads, on a stream that does what a test tells it."""

import signal
import sys
import threading
from functools import partial

import pytest

from blockwright.nbd.client import connection as connection_module
from blockwright.nbd.client.connection import Connection, PendingCall
from blockwright.nbd.protocol.session import ExportInfo, Session
from blockwright.nbd.transport import Stream
from blockwright.nbd.wire import Command, TransmissionFlag
from tests.support.nbdserver import simple

PLAIN = Session(ExportInfo("", 1 << 20, TransmissionFlag.HAS_FLAGS))


class Told(Stream):
    """Sends into nothing; ``receive`` is what a receive does."""

    def __init__(self, receive):
        self.receive = receive

    def receive_into(self, buffer):
        return self.receive(buffer)

    def receive_now(self, buffer):
        return None

    def send(self, data, *, more=False):
        return None

    def send_now(self, data):
        return len(data)

    def set_timeout(self, receive_s, send_s):
        return None

    def shut_down(self, *, reading_only=False):
        return None

    def close(self):
        return None

    def fileno(self):
        return -1


def read(length):
    data = bytearray(length)
    return PendingCall(Command.READ, 0, length, buffers=[memoryview(data)]), data


@pytest.mark.usefixtures("patient")
def test_nobody_returns_while_another_thread_receives_into_his_buffer():
    """The call of one thread times out while another, which receives for both, is at its buffer."""
    inside, go, returned = threading.Event(), threading.Event(), threading.Event()
    order = []
    slow, _ = read(100_000)
    other, _ = read(10)
    said = iter([simple(2)])

    def receive(buffer):
        head = next(said, None)
        if head is not None:
            buffer[: len(head)] = head
            return len(head)
        if inside.is_set():
            return 0
        inside.set()
        assert go.wait(30)
        buffer[:] = b"\xff" * len(buffer)
        order.append("left the buffer")
        return len(buffer)

    connection = Connection(Told(receive), PLAIN)
    connection.start([other], None)
    connection.start([slow], None)

    def leader():
        connection.wait(other, None)

    def late():
        assert inside.wait(30)
        connection.wait(slow, 0.0)
        order.append("returned")
        returned.set()

    threads = [threading.Thread(target=each) for each in (leader, late)]
    for thread in threads:
        thread.start()
    assert inside.wait(30)
    while connection.failure is None:
        threading.Event().wait(0.001)
    returned.wait(0.2)  # it must not, however long one waits
    go.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert order == ["left the buffer", "returned"]
    assert slow.lost is not None


@pytest.fixture
def patient(monkeypatch):
    """Who receives may take its time to leave a stream that has ended."""
    monkeypatch.setattr(connection_module, "_LEAVE_S", 60.0)


def later(condition, seconds, act):
    """A thread that acts some time behind the moment at which the condition holds."""

    def wait():
        while not condition():
            threading.Event().wait(0.001)
        threading.Event().wait(seconds)
        act()

    return threading.Thread(target=wait, daemon=True)


class Interrupted(BaseException):
    """What a signal's handler raises."""


@pytest.mark.skipif(sys.platform == "win32", reason="no signal to be sent to a thread")
@pytest.mark.parametrize("when", ["sending", "waiting"])
@pytest.mark.usefixtures("patient")
def test_an_interrupted_call_leaves_its_buffer_to_nobody(when):
    """Another thread receives into it at that moment, and is gone from it before the interrupt goes on."""
    inside, go = threading.Event(), threading.Event()
    order = []
    slow, data = read(100_000)
    other, _ = read(10)
    said = iter([simple(2)])

    def receive(buffer):
        head = next(said, None)
        if head is not None:
            buffer[: len(head)] = head
            return len(head)
        if inside.is_set():
            return 0
        inside.set()
        assert go.wait(30)
        buffer[:] = b"\xff" * len(buffer)
        order.append("left the buffer")
        return len(buffer)

    class Sending(Told):
        def send(self, data, *, more=False):
            if when == "sending" and connection.load == 2:
                leader.start()
                assert inside.wait(30)
                raise Interrupted

    def interrupt(_number, _frame):
        raise Interrupted

    connection = Connection(Sending(receive), PLAIN)
    leader = threading.Thread(target=connection.wait, args=(other, None))
    letting_go = later(lambda: connection.failure is not None, 0.2, go.set)
    connection.start([other], None)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        if when == "sending":
            letting_go.start()
            with pytest.raises(Interrupted):
                connection.start([slow], None)
        else:
            connection.start([slow], None)
            leader.start()
            assert inside.wait(30)
            letting_go.start()
            main = threading.main_thread().ident
            later(
                lambda: slow.cookie in connection._waiting, 0.05, partial(signal.pthread_kill, main, signal.SIGUSR1)
            ).start()
            with pytest.raises(Interrupted):
                connection.wait(slow, None)
        order.append("interrupted")
    finally:
        go.set()
        signal.signal(signal.SIGUSR1, before)
        leader.join(30)
    assert not leader.is_alive()
    assert order == ["left the buffer", "interrupted"]
    assert data == b"\xff" * len(data)
    assert slow.lost is not None
    assert other.lost is not None
    assert "interrupted" in str(connection.failure)


@pytest.mark.parametrize("name", ["_receiving", "_sending"])
def test_a_lock_that_an_interrupt_left_taken_keeps_nobody_from_closing(monkeypatch, name):
    """A signal can come between a lock and the block that gives it back; whoever unwinds would wait for himself."""
    monkeypatch.setattr(connection_module, "_LEAVE_S", 0.05)
    closed = []

    class Closing(Told):
        def close(self):
            closed.append(self)

    stream = Closing(lambda _: 0)
    connection = Connection(stream, PLAIN)
    assert getattr(connection, name).acquire(blocking=False)
    connection.close()
    assert closed == [stream]


@pytest.mark.parametrize("answered", [True, False])
def test_replies_that_nobody_waits_for_are_taken_before_goodbye(monkeypatch, answered):
    """A server that is told to go while it has one to send may end altogether; one that is silent is left."""
    monkeypatch.setattr(connection_module, "_LEAVE_S", 60.0 if answered else 0.01)
    said, order = [simple(1), simple(2)], []

    def receive(buffer):
        if not answered:
            raise TimeoutError
        head = said.pop(0)
        buffer[: len(head)] = head
        order.append("reply")
        return len(head)

    class Noted(Told):
        def send(self, data, *, more=False):
            order.append(Command(int.from_bytes(data[6:8], "big")))

        def close(self):
            order.append("closed")

    connection = Connection(Noted(receive), PLAIN)
    for _ in range(2):
        connection.start_unwaited(PendingCall(Command.CACHE, 0, 512))
    connection.close()
    replies = ["reply", "reply"] if answered else []
    assert order == [Command.CACHE, Command.CACHE, *replies, Command.DISC, "closed"]
    assert connection.load == 0


def test_the_task_of_receiving_goes_on_to_the_next_who_waits():
    """Replies come in the order of asking; each thread but the first must take over from the one before."""
    calls = [read(4)[0] for _ in range(8)]
    gates = [threading.Event() for _ in calls]
    replies = iter(range(1, 9))

    def receive(buffer):
        number = next(replies)
        assert gates[number - 1].wait(30)
        answer = simple(number, 0, number.to_bytes(4, "big"))
        buffer[: len(answer)] = answer
        return len(answer)

    connection = Connection(Told(receive), PLAIN)
    threads = []
    for call in calls:
        connection.start([call], None)
        threads.append(threading.Thread(target=connection.wait, args=(call, None)))
    for thread in threads:
        thread.start()
    for gate in gates:
        gate.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert [bytes(call.buffers[0]) for call in calls] == [number.to_bytes(4, "big") for number in range(1, 9)]
    assert connection.load == 0
