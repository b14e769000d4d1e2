"""NBD_CMD_RESIZE, the draft of extension-resize: the new size stands in the offset."""

import os
import socket
import struct
import threading
from contextlib import contextmanager

import pytest

from blockwright.device.base import ResizableDevice
from blockwright.device.dirty import track
from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.server import Server
from blockwright.nbd.wire import Command, Error, TransmissionFlag
from tests.support.rawnbd import RawClient

pytestmark = pytest.mark.unprivileged
SIZE = 1 << 20
READ, WRITE, FLUSH, RESIZE = Command.READ, Command.WRITE, Command.FLUSH, Command.RESIZE


@contextmanager
def served(tmp_path, device, **more):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "sock"))
    listener.listen()
    with Server([Export("", device, **{"resizable": True, **more})], [listener]):
        yield lambda: RawClient.at(tmp_path / "sock")


def file(tmp_path, size=SIZE):
    path = tmp_path / "file"
    path.write_bytes(b"\xaa" * size)
    return FileDevice(path, writable=True)


DEVICES = {
    "memory": lambda folder: MemoryDevice(content=b"\xaa" * SIZE),
    "file": file,
    "tracked": lambda folder: track(file(folder)),
}


@pytest.fixture(params=DEVICES)
def device(request, tmp_path):
    with DEVICES[request.param](tmp_path) as made:
        yield made


def resize(client, size, **more):
    client.request(RESIZE, 9, offset=size, **more)
    error, cookie, _ = client.reply()
    assert cookie == 9
    return error


def test_growth_is_there_when_it_is_answered(tmp_path, device):
    with served(tmp_path, device) as connect, connect() as client:
        assert client.go() == SIZE
        assert client.flags & TransmissionFlag.SEND_RESIZE
        client.request(READ, offset=SIZE, length=512)
        assert client.reply()[0] == Error.EINVAL
        assert resize(client, 3 * SIZE) == 0
        assert device.size == 3 * SIZE
        client.request(READ, offset=SIZE - 512, length=1024)
        assert client.reply(1024)[2] == b"\xaa" * 512 + bytes(512)
        client.request(WRITE, offset=3 * SIZE - 512, length=512, data=b"x" * 512)
        assert client.reply()[0] == 0
        client.request(WRITE, offset=3 * SIZE, length=512, data=b"x" * 512)
        assert client.reply()[0] == Error.ENOSPC


def test_what_is_cut_off_is_gone(tmp_path, device):
    with served(tmp_path, device) as connect, connect() as client:
        client.go()
        assert resize(client, SIZE // 2) == 0
        assert device.size == SIZE // 2
        client.request(READ, offset=SIZE // 2 - 512, length=1024)
        assert client.reply()[0] == Error.EINVAL
        client.request(READ, offset=SIZE // 2 - 512, length=512)
        assert client.reply(512)[2] == b"\xaa" * 512
        assert resize(client, SIZE) == 0
        client.request(READ, offset=SIZE // 2, length=4096)
        assert client.reply(4096)[2] == bytes(4096)
        assert resize(client, 0) == 0
        assert resize(client, SIZE) == 0


def test_new_clients_and_info_are_told_the_new_size(tmp_path, device):
    with served(tmp_path, device) as connect, connect() as client:
        client.go()
        assert resize(client, 2 * SIZE) == 0
        with connect() as other:
            ((_, told), *_) = other.option(6, struct.pack(">I", 0) + bytes(2))
            assert struct.unpack(">HQ", told[:10]) == (0, 2 * SIZE)
            assert other.go() == 2 * SIZE


def test_a_size_is_a_multiple_of_the_blocks(tmp_path, device):
    with served(tmp_path, device, blocks=BlockSizes(512, 4096, 1 << 20)) as connect, connect() as client:
        client.go()
        assert resize(client, SIZE + 511) == Error.EINVAL
        assert device.size == SIZE
        assert resize(client, SIZE + 512) == 0
        client.request(READ, offset=SIZE, length=512)
        assert client.reply(512)[2] == bytes(512)


def test_a_size_that_nothing_has_is_no_space(tmp_path, device):
    with served(tmp_path, device) as connect, connect() as client:
        client.go()
        assert resize(client, (1 << 64) - 1) == Error.ENOSPC
        assert device.size == SIZE
        assert resize(client, SIZE) == 0


def test_flags_and_more_are_refused_and_the_session_goes_on(tmp_path, device):
    with served(tmp_path, device) as connect, connect() as client:
        client.go()
        assert resize(client, SIZE * 2, flags=1 << 1) == Error.EINVAL
        assert device.size == SIZE


@pytest.mark.parametrize(
    ("device", "more", "error"),
    [
        (MemoryDevice(SIZE), {"read_only": True}, Error.EPERM),
        (Window(MemoryDevice(SIZE), 0, SIZE, read_only=True), {}, Error.EPERM),
        (MemoryDevice(SIZE), {"resizable": False}, Error.EINVAL),
        (Window(MemoryDevice(2 * SIZE), 0, SIZE), {}, Error.EINVAL),
    ],
)
def test_where_it_was_not_offered_it_is_refused(tmp_path, device, more, error):
    with served(tmp_path, device, **more) as connect, connect() as client:
        assert client.go() == SIZE
        assert not client.flags & TransmissionFlag.SEND_RESIZE
        assert resize(client, 2 * SIZE) == error
        client.request(READ, offset=0, length=512)
        assert client.reply(512)[0] == 0
        assert device.size == SIZE


def test_a_session_that_does_not_know_cannot_write_behind_the_end(tmp_path, device):
    """Its own size is the old one; what it writes there must not be there when the device grows again."""
    with served(tmp_path, device) as connect, connect() as client, connect() as other:
        client.go()
        other.go()
        assert resize(client, SIZE // 2) == 0
        for length in (512, 100_000):
            other.request(WRITE, offset=SIZE // 2, length=length, data=b"x" * length)
            assert other.reply()[0] in (Error.EINVAL, Error.ENOSPC)
        for command in (Command.WRITE_ZEROES, Command.TRIM):
            other.request(command, offset=SIZE // 2 - 512, length=1024)
            assert other.reply()[0] != 0
        for length in (512, 100_000):
            other.request(READ, offset=SIZE // 2, length=length)
            assert other.reply(length)[0] == Error.EINVAL
        assert resize(client, SIZE) == 0
        client.request(READ, offset=SIZE // 2, length=SIZE // 2)
        assert client.reply(SIZE // 2)[2] == bytes(SIZE // 2)
        other.request(WRITE, offset=SIZE - 512, length=512, data=b"y" * 512)
        assert other.reply()[0] == 0


def test_one_that_does_not_know_of_growth_goes_on_as_it_was(tmp_path, device):
    with served(tmp_path, device) as connect, connect() as client, connect() as other:
        client.go()
        other.go()
        assert resize(client, 2 * SIZE) == 0
        other.request(READ, offset=SIZE, length=512)
        assert other.reply()[0] == Error.EINVAL
        other.request(READ, offset=0, length=512)
        assert other.reply(512)[0] == 0


def test_one_that_is_told_of_growth_by_somebody_else_is_not_refused(tmp_path):
    with (
        file(tmp_path) as made,
        served(tmp_path, made, resizable=False, growing=True) as connect,
        connect() as client,
    ):
        assert client.go() == SIZE
        client.request(READ, offset=SIZE, length=512)
        assert client.reply()[0] == Error.EINVAL
        os.truncate(made.name, 2 * SIZE)
        for length in (512, 100_000):
            client.request(WRITE, offset=2 * SIZE - length, length=length, data=b"x" * length)
            assert client.reply()[0] == 0
            client.request(READ, offset=2 * SIZE - length, length=length)
            assert client.reply(length)[2] == b"x" * length
        client.request(READ, offset=2 * SIZE - 1, length=2)
        assert client.reply()[0] == Error.EINVAL


class Gate(ForwardingDevice):
    """Holds writes until it is told to let them go."""

    def __init__(self, inner):
        super().__init__(inner)
        self.arrived, self.go = threading.Event(), threading.Event()

    def _write(self, offset, buffers, *, durable):
        self.arrived.set()
        assert self.go.wait(30)
        super()._write(offset, buffers, durable=durable)


class ResizableGate(Gate, ResizableDevice):
    def _resize(self, size):
        self._inner.resize(size)


def test_a_resize_waits_for_writes_under_way(tmp_path):
    gate = ResizableGate(MemoryDevice(content=b"\xaa" * SIZE))
    with served(tmp_path, gate) as connect, connect() as client, connect() as other:
        client.go()
        other.go()
        other.request(WRITE, 1, offset=SIZE - 4096, length=4096, data=b"x" * 4096)
        assert gate.arrived.wait(30)
        client.request(RESIZE, 2, offset=SIZE // 2)
        client.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.take(1)
        client.sock.settimeout(30)
        assert gate.size == SIZE
        gate.go.set()
        assert other.reply()[:2] == (0, 1)
        assert client.reply()[:2] == (0, 2)
        assert resize(client, SIZE) == 0
        client.request(READ, 3, offset=SIZE - 4096, length=4096)
        assert client.reply(4096)[2] == bytes(4096)


def test_resizes_and_writes_of_many_sessions_leave_nothing_behind_the_end(tmp_path, device):
    """Whoever writes while others cut off and add: what is added reads as zeros."""
    with served(tmp_path, device) as connect:
        stop, errors = threading.Event(), []

        def write():
            try:
                with connect() as client:
                    size = client.go()
                    while not stop.is_set():
                        client.request(WRITE, 1, offset=size - 8192, length=4096, data=b"x" * 4096)
                        assert client.reply()[0] in (0, Error.EINVAL, Error.ENOSPC)
            except BaseException as error:  # noqa: BLE001 - told by the test's own thread
                errors.append(error)

        threads = [threading.Thread(target=write) for _ in range(3)]
        with connect() as client:
            client.go()
            for thread in threads:
                thread.start()
            for _ in range(60):
                assert resize(client, SIZE // 2) == 0
                assert device.size == SIZE // 2
                assert resize(client, SIZE) == 0
                client.request(READ, 3, offset=SIZE - 4096, length=4096)
                assert client.reply(4096)[2] == bytes(4096)
            stop.set()
            for thread in threads:
                thread.join()
        assert not errors
    if isinstance(device, FileDevice):
        assert (tmp_path / "file").stat().st_size == SIZE


def test_what_others_add_to_a_file_is_seen_by_new_clients(tmp_path):
    with file(tmp_path) as made, served(tmp_path, made, resizable=False) as client, client() as first:
        assert first.go() == SIZE
        os.truncate(made.name, 2 * SIZE)
        with client() as second:
            assert second.go() == 2 * SIZE
            second.request(READ, 7, offset=SIZE, length=4)
            assert second.reply(4) == (0, 7, bytes(4))
        first.request(READ, 7, offset=SIZE, length=4)
        assert first.reply()[0] == Error.EINVAL
