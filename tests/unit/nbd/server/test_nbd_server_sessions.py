"""Whole sessions on a socket, byte for byte, over every way in which a device is served."""

import struct
import threading
from dataclasses import replace

import pytest

from blockwright.device.adapter import ObjectDevice
from blockwright.device.base import BlockDevice, Waits
from blockwright.device.extent import DATA, Extent
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.server.export import Export
from blockwright.testing import RecordingDevice
from tests.support import devices
from tests.support.runningserver import running

KIB, MIB = 1 << 10, 1 << 20
SIZE = 8 * MIB
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZERO, STATUS, RESIZE = range(9)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
EPERM, EIO, EINVAL, ENOSPC, ENOTSUP, ESHUTDOWN = 1, 5, 22, 28, 95, 108


class Slow(ForwardingDevice):
    """Served by workers, out of order."""

    def __init__(self, inner: BlockDevice) -> None:
        super().__init__(inner, traits=replace(inner.traits, waits=Waits.ALWAYS, known_extents=False, parallelism=4))


class Serial(ForwardingDevice):
    """Takes one call at a time, and sees to it that it gets no more."""

    def __init__(self, inner: BlockDevice) -> None:
        super().__init__(inner, traits=replace(inner.traits, waits=Waits.ALWAYS, parallelism=1))
        self._one = threading.Lock()

    def _read_into(self, offset, buffers):
        assert self._one.acquire(blocking=False)
        try:
            super()._read_into(offset, buffers)
        finally:
            self._one.release()


CONTENT = bytes(range(256)) * (MIB // 256) + bytes(SIZE - MIB)
KINDS = {
    "memory": lambda folder: MemoryDevice(SIZE, CONTENT[:MIB]),
    "file": lambda folder: devices.file(CONTENT, folder),
    "slow": lambda folder: Slow(MemoryDevice(content=CONTENT)),
    "slow file": lambda folder: Slow(devices.file(CONTENT, folder)),
    "serial": lambda folder: Serial(MemoryDevice(content=CONTENT)),
    "object": lambda folder: ObjectDevice(devices.Store(CONTENT)),
}


@pytest.fixture(params=KINDS)
def device(request, tmp_path):
    with KINDS[request.param](tmp_path) as made:
        yield made


@pytest.fixture
def server(device):
    with running([Export("", device)]) as made:
        yield made


def read_chunks(chunks, offset, length):
    """Put a structured reply together, which must cover the range once; return the data and the error."""
    data, covered, error = bytearray(length), 0, 0
    for kind, _, payload in chunks:
        if kind == 1:
            (start,) = struct.unpack_from(">Q", payload)
            data[start - offset : start - offset + len(payload) - 8] = payload[8:]
            covered += len(payload) - 8
        elif kind == 2:
            start, count = struct.unpack(">QI", payload)
            covered += count
        elif kind & 0x8000:
            (error,) = struct.unpack_from(">I", payload)
        else:
            assert kind == 0
    assert error or covered == length
    assert len(data) == length
    return bytes(data), error


@pytest.mark.parametrize("length", [1, 4096, 64 * KIB, 64 * KIB + 1, 300 * KIB, 3 * MIB])
def test_reads(server, length):
    with server.client() as client:
        assert client.go() == SIZE
        client.request(READ, cookie=7, offset=100, length=length)
        assert client.reply(length) == (0, 7, CONTENT[100 : 100 + length])
    for flags in (0, DF):
        with server.client() as client:
            client.go(structured=True)
            client.request(READ, cookie=8, offset=100, length=length, flags=flags)
            chunks = client.chunks()
            assert read_chunks(chunks, 100, length) == (CONTENT[100 : 100 + length], 0)
            assert {cookie for _, cookie, _ in chunks} == {8}
            if flags:
                assert [kind for kind, _, _ in chunks if kind != 0] == [1]


def test_holes_are_told_as_holes_where_the_device_knows(tmp_path):
    for kind, low in (("memory", 4096), ("file", 64 * KIB), ("slow file", 64 * KIB)):
        with KINDS[kind](tmp_path) as device, running([Export("", device)]) as server, server.client() as client:
            client.go(structured=True)
            client.request(READ, offset=2 * MIB, length=low)
            assert [kind for kind, _, _ in client.chunks() if kind] == [2], kind


@pytest.mark.parametrize("length", [1, 4096, 70_000, 3 * MIB])
@pytest.mark.parametrize("flags", [0, FUA])
def test_writes(server, length, flags):
    data = b"written" * (length // 7 + 1)
    with server.client() as client:
        client.go()
        client.request(WRITE, cookie=3, offset=4097, length=length, data=data[:length], flags=flags)
        assert client.reply() == (0, 3, b"")
        client.request(FLUSH, cookie=4)
        assert client.reply() == (0, 4, b"")
        client.request(READ, cookie=5, offset=4096, length=length + 2)
        expected = CONTENT[4096:4097] + data[:length] + CONTENT[4097 + length : 4098 + length]
        assert client.reply(length + 2) == (0, 5, expected)


def test_zeroes_trim_and_cache(server):
    with server.client() as client:
        client.go()
        for number, flags in enumerate((0, NO_HOLE, FUA, NO_HOLE | FUA)):
            client.request(ZERO, cookie=1, offset=4096 * number + 5, length=4000, flags=flags)
            assert client.reply() == (0, 1, b"")
            client.request(READ, cookie=2, offset=4096 * number, length=4096)
            data = client.reply(4096)[2]
            assert data == CONTENT[:5] + bytes(4000) + CONTENT[4005:4096]
        client.request(ZERO, cookie=3, offset=2 * MIB, length=4096, flags=FAST_ZERO)
        assert client.reply()[0] in (0, ENOTSUP)
        for command in (TRIM, CACHE):
            client.request(command, cookie=9, offset=MIB, length=MIB)
            assert client.reply() == (0, 9, b"")


def test_many_requests_at_once_are_all_answered(server):
    with server.client() as client:
        client.go()
        wanted = {cookie: (cookie * 7919) % (SIZE - 65536) for cookie in range(500)}
        sender = threading.Thread(
            target=lambda asked: [client.request(READ, cookie, offset, 4096) for cookie, offset in asked],
            args=(list(wanted.items()),),
        )
        sender.start()
        for _ in range(len(wanted)):
            error, cookie, data = client.reply(4096)
            offset = wanted.pop(cookie)
            assert (error, data) == (0, CONTENT[offset : offset + 4096])
        sender.join()


def test_a_refused_request_leaves_the_stream_in_step(server):
    with server.client() as client:
        client.go()
        for command, flags, offset, length, number in (
            (READ, 0, SIZE, 1, EINVAL),
            (READ, 0, 0, 33 * MIB, EINVAL),
            (READ, DF, 0, 512, EINVAL),
            (WRITE, 0, SIZE - 1, 2, ENOSPC),
            (WRITE, NO_HOLE, 0, 70_000, EINVAL),
            (WRITE, 0, SIZE, 3 * MIB, ENOSPC),
            (ZERO, 0, SIZE, 1, ENOSPC),
            (TRIM, 0, SIZE, 1, EINVAL),
            (STATUS, 0, 0, 512, EINVAL),
            (RESIZE, 0, 512, 0, EINVAL),
            (100, 0, 0, 512, EINVAL),
            (READ, 1 << 15, 0, 512, EINVAL),
        ):
            payload = bytes(length) if command == WRITE else b""
            client.request(command, 77, offset, length, payload, flags)
            assert client.reply() == (number, 77, b""), (command, flags, offset, length)
        client.request(READ, cookie=1, length=16)
        assert client.reply(16) == (0, 1, CONTENT[:16])


@pytest.mark.parametrize("one", [False, True])
def test_block_status_covers_the_range(server, one):
    with server.client() as client:
        client.go(structured=True, context=True)
        client.request(STATUS, 5, 0, SIZE, flags=REQ_ONE if one else 0)
        ((kind, cookie, payload),) = client.chunks()
        assert (kind, cookie, payload[:4]) == (5, 5, b"\0\0\0\1")
        extents = list(struct.iter_unpack(">II", payload[4:]))
        assert len(extents) == 1 or not one
        if not one:
            assert sum(length for length, _ in extents) == SIZE
        position = 0
        for length, flags in extents:
            assert not flags & 2 or not any(CONTENT[position : position + length])
            position += length


def test_read_only_exports_refuse_writes(device):
    with running([Export("", device, read_only=True)]) as server, server.client() as client:
        client.go()
        assert client.flags & 2
        for command in (WRITE, TRIM, ZERO):
            client.request(command, 1, 0, 512, bytes(512) if command == WRITE else b"")
            assert client.reply()[0] == EPERM
        client.request(READ, cookie=2, length=256)
        assert client.reply(256) == (0, 2, CONTENT[:256])


def test_blocks_are_enforced():
    export = Export("", MemoryDevice(content=CONTENT), blocks=BlockSizes(512, 4096, 64 * KIB))
    with running([export]) as server, server.client() as client:
        client.go()
        for offset, length in ((1, 512), (0, 511), (0, 128 * KIB)):
            client.request(READ, 1, offset, length)
            assert client.reply()[0] == EINVAL
        client.request(WRITE, 1, 0, 511, bytes(511))
        assert client.reply()[0] == EINVAL
        client.request(READ, 1, 512, 512)
        assert client.reply(512)[0] == 0


def test_a_device_can_be_resized_where_that_is_offered():
    device = MemoryDevice(SIZE)
    with running([Export("", device, resizable=True)]) as server, server.client() as client:
        client.go()
        client.request(RESIZE, 1, 16 * MIB)
        assert client.reply() == (0, 1, b"")
        client.request(READ, 2, 16 * MIB - 512, 512)
        assert client.reply(512)[0] == 0
        with server.client() as later:
            assert later.go() == 16 * MIB


@pytest.mark.parametrize("flags", [0, FUA])
def test_each_command_reaches_the_device_as_it_was_asked_for(flags):
    device = RecordingDevice(Slow(MemoryDevice(SIZE)))
    with running([Export("", device)]) as server, server.client() as client:
        client.go()
        zeros = [(ZERO, 512, more) for more in (0, NO_HOLE, FAST_ZERO)]
        asked = [(WRITE, 512, 0), (WRITE, MIB + 512, 0), *zeros, (TRIM, 512, 0), (FLUSH, 0, 0)]
        for number, (command, length, more) in enumerate(asked):
            data = bytes(length) if command == WRITE else b""
            client.request(command, number, number * MIB, length, data, flags | more)
            assert client.reply()[:2] == (0, number)
    durable = ("durable",) if flags else ()
    assert sorted(call for call in device.calls if call.name in ("write", "zero", "discard", "flush")) == [
        ("discard", 5 * MIB, 512, durable),
        ("flush", 0, 0, ()),
        ("write", 0, 512, durable),
        ("write", MIB, MIB, durable),
        ("write", 2 * MIB, 512, durable),
        ("zero", 2 * MIB, 512, ("may_unmap", *durable)),
        ("zero", 3 * MIB, 512, durable),
        ("zero", 4 * MIB, 512, ("may_unmap", "fast_only", *durable)),
    ]


def test_an_answer_waits_for_no_payload(tmp_path):
    device = devices.file(CONTENT, tmp_path)
    with device, running([Export("", device)], request_s=25) as server, server.client() as client:
        client.go()
        header = struct.Struct(">IHHQQI")
        asked = header.pack(0x25609513, 0, READ, 1, 0, 512), header.pack(0x25609513, 0, WRITE, 2, 0, 128 * KIB)
        client.sock.sendall(b"".join(asked))
        assert client.reply(512) == (0, 1, CONTENT[:512])
        client.sock.sendall(bytes(128 * KIB))
        assert client.reply()[:2] == (0, 2)


def test_a_context_of_an_export_is_told():
    class Dirty:
        def extents(self, offset, length):
            yield Extent(offset, 4096, 1)
            yield Extent(offset + 4096, length - 4096, DATA)

    export = Export("", MemoryDevice(SIZE), contexts={"blockwright:dirty": Dirty()})
    with running([export]) as server, server.client() as client:
        assert client.option(8)[-1][0] == 1
        query = b"blockwright:dirty"
        data = struct.pack(">III", 0, 1, len(query)) + query
        assert client.option(10, data) == [(4, b"\0\0\0\1" + query), (1, b"")]
        client.option(7, b"\0\0\0\0\0\0")
        client.request(STATUS, 1, 0, MIB)
        assert client.chunks() == [(5, 1, struct.pack(">IIIII", 1, 4096, 1, MIB - 4096, 0))]


def test_disc_ends_it_when_all_is_answered(server):
    with server.client() as client:
        client.go()
        for cookie in range(20):
            client.request(READ, cookie, 0, 64 * KIB)
        client.request(DISC)
        assert {client.reply(64 * KIB)[1] for _ in range(20)} == set(range(20))
        assert client.ended()
    server.said("disconnected", "the client disconnected")


@pytest.mark.parametrize("data", [b"\0" * 28, b"\x25\x60\x95\x14" + bytes(24), b"GET / HTTP/1.1\r\n\r\n" + bytes(28)])
def test_a_bad_magic_ends_it_with_a_reason(server, data):
    with server.client() as client:
        client.go()
        client.sock.sendall(data)
        assert client.ended()
    with server.client() as other:
        assert other.go() == SIZE
    server.said("disconnected", "expected the magic")


def test_what_came_before_a_bad_magic_is_answered_and_counted():
    export = Export("", MemoryDevice(SIZE))
    with running([export]) as server, server.client() as client:
        client.go()
        head = struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 7, 512, 512)
        client.sock.sendall(head + b"w" * 512 + bytes(28))
        assert client.reply() == (0, 7, b"")
        assert client.ended()
        server.said("disconnected", "expected the magic")
        assert export.device.read(512, 512) == b"w" * 512
        counted = server.server.options.metrics.export("").commands()[WRITE]
        assert (counted.requests, counted.bytes) == (1, 512)


def test_a_bad_magic_is_the_reason_though_what_came_before_cannot_be_answered():
    gone = threading.Event()

    class Late(ForwardingDevice):
        def _write(self, offset, buffers, *, durable):
            assert gone.wait(30)
            super()._write(offset, buffers, durable=durable)

    with running([Export("", Late(MemoryDevice(SIZE)))]) as server:
        with server.client() as client:
            client.go()
            head = struct.pack(">IHHQQI", 0x25609513, 0, WRITE, 7, 512, 512)
            client.sock.sendall(head + b"w" * 512 + bytes(28))
        gone.set()
        server.said("disconnected", "expected the magic")


def test_a_client_that_goes_without_its_replies_is_told_in_words(server):
    with server.client() as client:
        client.go()
        for cookie in range(64):
            client.request(READ, cookie, 0, SIZE)
    assert "errno" not in str(server.said("disconnected")["reason"])


@pytest.mark.parametrize("length", [512, 3 * MIB])
def test_a_failed_request_keeps_none_of_the_frames_it_went_through(length):
    """They know the reply, which knows the error: all of a session would wait for the collector."""
    error = OSError(5, "broken")

    class Broken(Slow):
        def _read_into(self, offset, buffers):
            raise error

    with running([Export("", Broken(MemoryDevice(content=b"x" * SIZE)))]) as server, server.client() as client:
        client.go()
        client.request(READ, 1, 0, length)
        assert client.reply()[0] == EIO
        assert error.__traceback__ is None
