import errno
import random
import socket
import struct
from contextlib import contextmanager

import pytest

from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.device.memory import MemoryDevice
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.server import status
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.status import told, whole_blocks
from tests.support.rawnbd import RawClient
from tests.support.runningserver import running

MIB = 1 << 20
WRITE, BLOCK_STATUS, PAYLOAD_LEN = 1, 7, 32


def test_a_long_extent_becomes_several_of_whole_blocks():
    extents = [Extent(0, 10 << 32, HOLE)]
    parts = told(extents, block=4096, one=False, wide=False)
    assert sum(length for length, _ in parts) == 10 << 32
    assert all(length % 4096 == 0 and length < 1 << 32 and flags == HOLE for length, flags in parts)
    assert told(extents, block=4096, one=False, wide=True) == [(10 << 32, HOLE)]
    assert told(extents, block=512, one=True, wide=False) == [((1 << 32) - 512, HOLE)]


def test_one_is_one():
    extents = [Extent(0, 512, DATA), Extent(512, 512, HOLE)]
    assert told(extents, block=1, one=True, wide=True) == [(512, DATA)]


def test_a_reply_has_a_limit(monkeypatch):
    monkeypatch.setattr(status, "MAX_TOLD", 3)
    walked = []

    def endless():
        position = 0
        while True:
            walked.append(position)
            yield Extent(position, 512, position // 512 & 1)
            position += 512

    assert len(told(endless(), block=1, one=False, wide=True)) == 3
    assert len(walked) == 3


@pytest.mark.parametrize("block", [2, 512, 4096])
def test_whole_blocks_against_a_model(block):
    """Each block has the flags that all of its bytes have, and every border lies between blocks."""
    for number in range(300):
        source = random.Random(f"{block}.{number}")
        start = source.randrange(4) * block
        size = source.randrange(1, 12) * block + (source.randrange(block) if source.random() < 0.3 else 0)
        end, extents, position = start + size, [], start
        while position < end:
            length = min(source.choice([1, block // 2, block, source.randrange(1, 4 * block)]) or 1, end - position)
            extents.append(Extent(position, length, source.choice([DATA, HOLE, ZERO, HOLE | ZERO])))
            position += length
        found = list(whole_blocks(iter(extents), start, end, block))
        flags = [each.flags for each in extents for _ in range(each.length)]
        expected = []
        for low in range(0, size, block):
            shared = 3
            for each in flags[low : low + block]:
                shared &= each
            expected += [shared] * min(block, size - low)
        assert [each.flags for each in found for _ in range(each.length)] == expected, (block, number)
        assert found[0].offset == start
        assert found[-1].offset + found[-1].length == end
        assert all(each.offset % block == 0 for each in found)


# -- contexts that a payload names, with extended headers ---------------------------------------------------------


class Extended(RawClient):
    """A client that has agreed to extended headers, and asks for the status of a range in one context."""

    def ask(self, payload: bytes, *, announced: int | None = None) -> None:
        length = len(payload) if announced is None else announced
        head = struct.pack(">IHHQQQ", 0x21E41C71, PAYLOAD_LEN, BLOCK_STATUS, 7, 0, length)
        self.sock.sendall(head + payload)

    def answer(self) -> tuple[int, bytes]:
        """Return the only chunk's type and payload."""
        magic, flags, kind, cookie, _, length = struct.unpack(">IHHQQQ", self.take(32))
        assert (magic, flags, cookie) == (0x6E8A278C, 1, 7)
        return kind, self.take(length)


@contextmanager
def extended():
    export = Export("", MemoryDevice(MIB), blocks=BlockSizes(512, 4096, MIB))
    with running([export]) as server, Extended.at(server.path) as client:
        client.go(extended=True, context=True)
        yield server, client


def named(length: int, *contexts: int) -> bytes:
    return struct.pack(f">Q{len(contexts)}I", length, *contexts)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (named(MIB + 512, 1), "expected to lie in 1048576 bytes, found 1049088 at 0"),
        (named(0, 1), "found 0 at 0"),
        (named(100, 1), "found 100 at 0"),
        (named(512, 1, 1), "names a context twice"),
        (named(512, 99), "or one that was not selected"),
        (named(512), "8 bytes are no payload"),
        (named(512, 1) + b"\0", "13 bytes are no payload"),
        (named(512, *range(257)), "1036 bytes are no payload"),
    ],
)
def test_what_a_payload_may_not_ask_for(payload, said):
    with extended() as (_, client):
        client.ask(payload)
        kind, answer = client.answer()
        assert (kind, answer[:4]) == (0x8001, struct.pack(">I", errno.EINVAL))
        assert said in answer[6:].decode()
        client.ask(named(MIB, 1))  # the stream is in step
        assert client.answer()[0] == 6


@pytest.mark.parametrize("announced", [12, 1 << 20], ids=["a payload", "too long for one"])
def test_a_client_that_hangs_up_within_such_a_payload(announced):
    with extended() as (server, client):
        client.ask(b"half", announced=announced)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.ended()
        assert server.said("disconnected", "hung up within a request")["how"] == "protocol"


# -- payloads that nobody would read to their end -----------------------------------------------------------------


def test_a_refused_payload_of_more_than_the_old_header_can_say_ends_the_session():
    with extended() as (server, client):
        client.sock.sendall(struct.pack(">IHHQQQ", 0x21E41C71, PAYLOAD_LEN, WRITE, 7, 0, (1 << 32) + 1))
        assert client.ended()
        assert server.said("disconnected", "expected a payload of at most 4294967296, found 4294967297")


def test_a_client_that_hangs_up_within_a_write_has_written_nothing():
    device = MemoryDevice(MIB)
    with running([Export("", device)]) as server, server.client() as client:
        client.go()
        client.request(WRITE, 1, 0, 512 << 10, b"w" * 100_000)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.ended()
        assert server.said("disconnected", "hung up within a request")["how"] == "protocol"
        assert device.read(0, MIB) == bytes(MIB)
