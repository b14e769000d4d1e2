"""A device that fails costs its client an answer, and no session."""

import errno
import os
import struct
import sys
from contextlib import contextmanager

import pytest

from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.format.qcow2.create import Options, create
from blockwright.nbd.protocol.replies import StructuredFraming
from blockwright.nbd.protocol.requests import Request
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.longread import LongReads
from tests.support import devices
from tests.support.memorystream import MemoryStream
from tests.support.qcow2 import opened
from tests.support.runningserver import running

KIB, MIB = 1 << 10, 1 << 20
CLUSTER = 64 * KIB
READ, WRITE = 0, 1


@contextmanager
def damaged(file):
    """Open a qcow2 image of 64 MiB whose first cluster's entry is none, and whose others are whole."""
    with file:
        create(file, 64 * MIB, Options())
        with opened(file, owns=False) as disk:
            disk.write(0, bytes(range(256)) * (8 * CLUSTER // 256))
        l1 = int.from_bytes(file.read(40, 8), "big")
        l2 = int.from_bytes(file.read(l1, 8), "big") & ((1 << 56) - 1)
        file.write(l2, (1 << 63 | 512).to_bytes(8, "big"))
        with opened(file, writable=False, owns=False) as disk:
            yield disk


HOSTS = {
    "file": lambda folder: FileDevice(folder / "disk.qcow2", create=True),
    "memory": lambda folder: MemoryDevice(0),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("host", HOSTS)
def test_a_map_that_is_damaged_fails_a_read_and_no_session(tmp_path, host, workers):
    with (
        damaged(HOSTS[host](tmp_path)) as disk,
        running([Export("", disk)], workers=workers) as server,
        server.client() as first,
        server.client() as second,
    ):
        for client in (first, second):
            client.go(structured=True)
            for length in (512, 4 * CLUSTER):
                client.request(READ, 1, 0, length)
                *_, (kind, cookie, payload) = client.chunks()
                assert (kind & 0x8000, cookie, payload[:4]) == (0x8000, 1, struct.pack(">I", errno.EIO))
                client.request(READ, 2, 4 * CLUSTER, length)
                data = b"".join(payload[8:] for _, _, payload in client.chunks())
                assert data == bytes(range(256)) * (length // 256)
        assert "qcow2 L2 entry 0" in str(server.said("request failed")["reason"])
        assert server.reasons() == []


class Failing(ForwardingDevice):
    """Fails where it is told to, by all that a device may raise."""

    def __init__(self, error: Exception) -> None:
        super().__init__(MemoryDevice(content=b"x" * MIB))
        self.error = error

    def _read_into(self, offset, buffers):
        raise self.error

    def _read_ready(self, offset, buffers):
        raise self.error

    def _extents(self, offset, length):
        if offset:
            raise self.error
        return super()._extents(offset, length)

    def _write(self, offset, buffers, *, durable):
        raise self.error


@pytest.mark.parametrize("error", [OSError(errno.EIO, "bad sector"), ValueError("a bug")], ids=["error", "bug"])
@pytest.mark.parametrize("structured", [False, True])
def test_a_device_in_memory_that_fails_fails_its_requests(error, structured):
    with running([Export("", Failing(error))]) as server, server.client() as client:
        client.go(structured=structured)
        for command, offset in ((READ, 0), (READ, 4096), (WRITE, 0)):
            client.request(command, 1, offset, 512, bytes(512) if command == WRITE else b"")
            if structured:
                [(kind, _, payload)] = client.chunks()
                found = int.from_bytes(payload[:4], "big") if kind & 0x8000 else 0
            else:
                found = client.reply(512)[0]
            assert found == errno.EIO
        assert server.reasons() == []
        counted = server.server.options.metrics.export("").commands()
        assert (counted[READ].errors, counted[WRITE].errors) == (2, 1)


def test_a_size_that_cannot_be_learnt_stays_what_it_was():
    class Growing(ForwardingDevice):
        lost = False

        def _current_size(self):
            if self.lost:
                raise OSError(errno.EIO, "input/output error")
            return super()._current_size()

    device = Growing(MemoryDevice(MIB))
    with running([Export("", device, growing=True)]) as server, server.client() as client:
        client.go()
        device.lost = True
        client.request(READ, 1, MIB, 512)
        assert client.reply() == (errno.EINVAL, 1, b"")
        client.request(READ, 2, 0, 512)
        assert client.reply(512)[:2] == (0, 2)


class Refusing(MemoryStream):
    """Has the kernel send 100,000 bytes of a file at first, and then what `error` says."""

    def __init__(self, error: OSError) -> None:
        super().__init__(b"")
        self.error = error

    def send_file(self, fd, offset, length):
        if offset:
            raise self.error
        self.sent += os.pread(fd, 100_000, 0)
        return 100_000


@pytest.mark.skipif(sys.platform == "win32", reason="no sendfile")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ESTALE, errno.ENOMEM])
def test_what_the_kernel_does_not_send_is_read(tmp_path, number):
    content = bytes(range(256)) * (MIB // 256)
    stream = Refusing(OSError(number, os.strerror(number)))
    with devices.file(content, tmp_path) as device:
        last, error = LongReads(device, StructuredFraming()).answer(Request(0, 0, 7, 0, MIB), stream)
    assert error is None
    assert bytes(stream.sent[struct.calcsize(">IHHQIQ") :]) == content
    assert last == StructuredFraming().done(7, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no sendfile")
@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "broken pipe"), TimeoutError("took nothing")])
def test_a_client_that_is_gone_is_not_read_for(tmp_path, error):
    with devices.file(bytes(range(256)) * (MIB // 256), tmp_path) as device:
        stream = Refusing(error)
        with pytest.raises(type(error)):
            LongReads(device, StructuredFraming()).answer(Request(0, 0, 7, 0, MIB), stream)
    assert len(stream.sent) == struct.calcsize(">IHHQIQ") + 100_000
