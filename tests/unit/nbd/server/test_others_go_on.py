"""What one client does, and what the host denies, is no other client's trouble."""

import errno
import socket
import struct
import subprocess
import threading

import pytest

from blockwright.device.base import Waits
from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import SourceChanged
from blockwright.nbd.protocol.steps import Send
from blockwright.nbd.server import handoff, processes, worker
from blockwright.nbd.server.catalogue import Catalogue
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.outbox import Outbox
from blockwright.nbd.server.pool import Workers
from blockwright.nbd.server.status import MAX_TOLD
from blockwright.nbd.server.transmission import Transmission
from blockwright.nbd.transport import Deadline, SocketStream, run
from tests.support.memorystream import MemoryStream
from tests.support.runningserver import running

MIB = 1 << 20
READ, WRITE, STATUS = 0, 1, 7


class Waiting(ForwardingDevice):
    """Served by workers; with a parallelism of 1, in turn."""

    def __init__(self, size=8 * MIB, *, parallelism=4):
        inner = MemoryDevice(content=b"\1" * size)
        super().__init__(inner, traits=inner.traits.__class__(parallelism=parallelism, waits=Waits.ALWAYS))


@pytest.fixture
def no_threads(monkeypatch):
    """Have threads whose names begin so denied, as a host does that has too many."""
    start, denied = threading.Thread.start, []

    def deny(thread):
        if any(thread.name.startswith(each) for each in denied):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", deny)
    return denied


def test_nothing_of_a_reply_follows_its_end(monkeypatch):
    """The piece that ends first is held up on its way out; the end of the reply must not pass it."""
    post, calls, passed = Outbox.post, [], threading.Event()

    def held_up(outbox, data, sent):
        calls.append(data)
        if len(calls) == 1:
            passed.wait(0.3)  # where nothing may pass, nothing sets it
            post(outbox, data, sent)
        else:
            post(outbox, data, sent)
            passed.set()

    monkeypatch.setattr(Outbox, "post", held_up)
    with running([Export("", Waiting())]) as server, server.client() as client:
        client.go(structured=True)
        client.request(READ, 1, 0, 2 * MIB)
        assert sum(len(payload) - 8 for kind, _, payload in client.chunks() if kind == 1) == 2 * MIB
    assert len(calls) == 2


def test_a_client_that_takes_nothing_keeps_no_other_from_a_serial_device():
    export = Export("", Waiting(64 * MIB, parallelism=1))
    with running([export], grace_s=0) as server, server.client() as lazy, server.client(timeout=60) as other:
        lazy.go()
        lazy.request(READ, 1, 0, 32 * MIB)
        lazy.take(16)  # its reply is on its way, and does not fit any buffer
        other.go()
        other.request(READ, 2, 0, 512)
        assert other.reply(512) == (0, 2, b"\1" * 512)


def test_the_answer_to_a_question_about_blocks_counts_as_memory():
    asked, answer = threading.Event(), threading.Event()

    class Asked(Waiting):
        def _extents(self, offset, length):
            asked.set()
            assert answer.wait(30)
            return super()._extents(offset, length)

    with running([Export("", Asked())]) as server, server.client() as client:
        client.go(structured=True, context=True)
        client.request(STATUS, 1, 0, MIB)
        assert asked.wait(30)
        held = server.server.bytes_in_flight
        answer.set()
        client.chunks()
    assert held == 8 * MAX_TOLD


def test_an_error_names_nothing_of_the_host_to_a_client():
    class Changed(Waiting):
        def _read_into(self, offset, buffers):
            raise SourceChanged("/srv/hidden/disk.img: changed while it was served")

    with running([Export("", Changed())]) as server, server.client() as client:
        client.go(structured=True)
        client.request(READ, 1, 0, 512)
        [(_, _, payload)] = client.chunks()
        assert payload[6:] == b"the device failed"
        assert "/srv/hidden" in str(server.said("request failed")["reason"])


def test_an_idle_client_holds_no_more_than_a_new_one(monkeypatch, tmp_path):
    monkeypatch.setattr("blockwright.nbd.server.inbox.SHRINK_AFTER_S", 0.01)
    shrunk, shrink = threading.Event(), Transmission._shrink

    def sizes(loop):
        return len(loop._arena), len(loop._room), len(loop._scratch)

    def noted(loop):
        grown.append(sizes(loop))
        shrink(loop)
        grown.append(sizes(loop))
        shrunk.set()

    grown = []
    (tmp_path / "image").write_bytes(bytes(8 * MIB))
    monkeypatch.setattr(Transmission, "_shrink", noted)
    with (
        FileDevice(tmp_path / "image", writable=True) as image,
        running([Export("", image)]) as server,
        server.client() as client,
    ):
        client.go()
        client.request(WRITE, 1, 0, MIB, b"\1" * MIB)
        assert client.reply()[0] == 0
        header = struct.pack(">IHHQQI", 0x25609513, 0, READ, 2, 0, 65536)
        client.sock.sendall(header * 16)
        for _ in range(16):
            assert client.reply(65536)[2] == b"\1" * 65536
        assert shrunk.wait(30)
        client.request(READ, 3, 0, 512)
        assert client.reply(512)[2] == b"\1" * 512
    assert max(grown[0]) > 65536
    assert grown[1] == (65536, 65536, 0)


# -- no thread to be had -----------------------------------------------------------------------------------------


def test_a_client_for_whom_there_is_no_thread_is_refused_alone(no_threads):
    with running([Export("", MemoryDevice(MIB))]) as server:
        no_threads.append("nbd: unix")
        with pytest.raises((EOFError, ConnectionError)):
            server.client()
        server.said("refused", "no thread")
        no_threads.clear()
        with server.client() as client:
            assert client.go() == MIB


def test_jobs_are_done_by_the_threads_there_are_or_by_the_caller(no_threads):
    no_threads.append("test")
    workers, done = Workers(3, "test"), []
    workers.submit(lambda: done.append(threading.current_thread().name))
    assert done == [threading.current_thread().name]
    no_threads.clear()
    gate = threading.Event()
    workers.submit(lambda: gate.wait(30))
    no_threads.append("test")
    workers.submit(lambda: done.append(threading.current_thread().name))
    gate.set()
    workers.close()
    assert done[1:] == ["test"]


def test_replies_that_no_thread_can_send_end_the_connection(no_threads):
    ours, theirs = socket.socketpair()
    no_threads.append("nbd: late")
    failures, sent = [], []
    with ours, theirs:
        outbox = Outbox(SocketStream(ours), failures.append)
        for _ in range(2):
            outbox.post(bytes(16 * MIB), lambda: sent.append(1))
        outbox.wait_until_sent()
    assert sent == [1, 1]
    assert [type(each) for each in failures] == [RuntimeError]


# -- worker processes --------------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(range(256)) * 4096)
    with FileDevice(path) as device:
        yield device


def two_clients_are_served(image, name="", **more):
    """The second one would be served by a worker process."""
    with running([Export(name, image, **more)], workers=1) as server, server.client() as first:
        first.go()
        first.request(READ, 1, 0, 256)
        assert first.reply(256)[2] == bytes(range(256))
        with server.client() as second:
            second.go()
            second.request(READ, 2, 0, 256)
            assert second.reply(256)[2] == bytes(range(256))
            return len(server.server._processes._workers)


@pytest.mark.slow
def test_a_worker_takes_no_module_from_the_working_directory(image, tmp_path, monkeypatch):
    (tmp_path / "blockwright.py").write_text("raise SystemExit('taken from the working directory')\n")
    (tmp_path / "json.py").write_text("raise SystemExit('taken from the working directory')\n")
    monkeypatch.chdir(tmp_path)
    assert two_clients_are_served(image) == 1


def test_without_a_process_sessions_stay_here(image, monkeypatch):
    def denied(*_arguments, **_more):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", denied)
    assert two_clients_are_served(image) == 0


@pytest.mark.slow
def test_what_a_worker_does_not_take_stays_here(image, monkeypatch):
    def gone(*_arguments):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(processes._Worker, "begin", gone)
    assert two_clients_are_served(image) == 1


@pytest.mark.slow
def test_what_a_message_has_no_room_for_stays_here(image):
    """JSON has six bytes for a control character, and the name stands in it twice."""
    assert two_clients_are_served(image, "\1" * 4096, description="\1" * 4096) == 1


def test_what_may_grow_is_looked_at_here(image):
    assert two_clients_are_served(image, growing=True) == 0


@pytest.mark.parametrize("count", [1, 3])
def test_a_worker_outlives_what_it_cannot_begin(monkeypatch, count):
    monkeypatch.setattr(worker._Worker, "_tick", lambda _self: None)
    ours, theirs = handoff.pair()
    answers, told = handoff.pair()
    with theirs, answers:
        with ours, told:
            handoff.send(ours, b"{", [told.fileno()] * count)
        worker._Worker(theirs).run()
        assert handoff.told(answers) is None  # nobody holds the other end any more


# -- the rest ----------------------------------------------------------------------------------------------------


def test_sending_ends_with_the_time_of_a_handshake_too():
    def talkative():
        for _ in range(1000):
            yield Send(b"x")

    stream = MemoryStream(b"")
    with pytest.raises(TimeoutError, match="took too long"):
        run(talkative(), stream, deadline=Deadline(0))
    assert not stream.sent


def test_thousands_of_exports_are_not_compared_with_each_other():
    compared = []

    class Source:
        def __init__(self, number):
            self.number = number

        def __call__(self):
            raise AssertionError

        def __eq__(self, other):
            compared.append(1)
            return self.number == other.number

        def __hash__(self):
            return self.number

    catalogue = Catalogue([Export(str(number), Source(number)) for number in range(500)])
    catalogue.replace([Export(str(number), Source(number + 1)) for number in range(500)])
    assert len(compared) < 5000
    first, second = (catalogue.find(str(number)) for number in (0, 1))
    assert first.opened is not second.opened
    catalogue.replace([Export("a", Source(1)), Export("b", Source(1))])
    assert catalogue.find("a").opened is catalogue.find("b").opened is first.opened
    catalogue.close()


def test_devices_that_cannot_be_hashed_are_shared_too():
    class Source:
        __hash__ = None

        def __eq__(self, other):
            return isinstance(other, Source)

        def __call__(self):
            raise AssertionError

    catalogue = Catalogue([Export("a", Source()), Export("b", Source())])
    assert catalogue.find("a").opened is catalogue.find("b").opened
    catalogue.close()


class Closing(ForwardingDevice):
    """Notes that it was closed, and raises then where it has an error."""

    def __init__(self, error=None):
        super().__init__(MemoryDevice(MIB))
        self.error = error

    def _close(self):
        super()._close()
        if self.error is not None:
            raise self.error


def test_an_export_that_cannot_be_closed_keeps_no_other_open():
    made = [Closing(), Closing(OSError(errno.ENOSPC, "no space left")), Closing()]
    catalogue = Catalogue([Export(str(number), lambda each=each: each) for number, each in enumerate(made)])
    for number in range(len(made)):
        assert catalogue.find(str(number)).device is made[number]
    with pytest.raises(OSError, match="no space left"):
        catalogue.close()
    assert [each.closed for each in made] == [True, True, True]


def test_what_is_not_stuck_is_closed_at_the_end_too():
    stuck, idle = Closing(), Closing()
    catalogue = Catalogue([Export("stuck", lambda: stuck), Export("idle", lambda: idle)])
    taken = catalogue.take("stuck")
    assert taken.device is stuck
    assert catalogue.find("idle").device is idle
    catalogue.close()
    assert (stuck.closed, idle.closed) == (False, True)
    catalogue.give_back([taken])
    assert stuck.closed
