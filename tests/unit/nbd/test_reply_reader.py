"""Replies as bytes against the calls they answer."""

import itertools
import random

import pytest

from blockwright.errors import RemoteProtocolError
from blockwright.nbd import wire
from blockwright.nbd.protocol import reply_reader
from blockwright.nbd.protocol.call import Call, encode
from blockwright.nbd.protocol.reply_reader import ReplyReader
from blockwright.nbd.protocol.session import ExportInfo, Session
from blockwright.nbd.wire import ChunkType, Command, CommandFlag, TransmissionFlag
from tests.support.nbdserver import chunk, extended, feed, simple

EXPORT = ExportInfo("", 1 << 30, TransmissionFlag.HAS_FLAGS)
PLAIN = Session(EXPORT)
STRUCTURED = Session(EXPORT, structured=True, contexts={1: "base:allocation", 2: "x:y"})
EXTENDED = Session(EXPORT, structured=True, extended=True, contexts={1: "base:allocation"})


class Out:
    """A reader with calls out: a READ, a WRITE and a BLOCK_STATUS with the cookies 1, 2, 3."""

    def __init__(self, session, length=100, pieces=(60, 0, 40)):
        self.buffers = [bytearray(b"\xee" * each) for each in pieces]
        views = [memoryview(each) for each in self.buffers]
        self.read = Call(Command.READ, 1000, length, buffers=views)
        self.write = Call(Command.WRITE, 0, 4, buffers=[memoryview(b"data")])
        self.status = Call(Command.BLOCK_STATUS, 4096, 8192)
        self.pending = {}
        for cookie, call in enumerate((self.read, self.write, self.status), 1):
            call.cookie = cookie
            self.pending[cookie] = call
        self.reader = ReplyReader(session, self.pending)

    @property
    def content(self):
        return b"".join(self.buffers)


def data(offset, content, cookie=1, *, done=False):
    return chunk(cookie, ChunkType.OFFSET_DATA, wire.U64.pack(offset) + content, done=done)


def hole(offset, length, *, done=False):
    return chunk(1, ChunkType.OFFSET_HOLE, wire.HOLE.pack(offset, length), done=done)


def error(cookie, number, text=b"", kind=ChunkType.ERROR, *, done=True, more=b""):
    return chunk(cookie, kind, wire.ERROR_HEAD.pack(number, len(text)) + text + more, done=done)


def status(context, *pairs, done=False):
    body = wire.U32.pack(context) + b"".join(wire.STATUS_ENTRY.pack(*pair) for pair in pairs)
    return chunk(3, ChunkType.BLOCK_STATUS, body, done=done)


BYTES = bytes(range(100))
CUTS = [None, [1] * 10_000, [7] * 10_000, [33, 1, 500] * 1000]


@pytest.mark.parametrize("cuts", CUTS)
def test_simple_replies_in_any_order_and_cut_anywhere(cuts):
    out = Out(PLAIN)
    finished = feed(out.reader, simple(2) + simple(1, 0, BYTES) + simple(3, 22), cuts or ())
    assert finished == [out.write, out.read, out.status]
    assert (out.content, out.status.error, out.pending) == (BYTES, 22, {})


@pytest.mark.parametrize("cuts", CUTS)
def test_chunks_of_several_requests_come_mixed(cuts):
    out = Out(STRUCTURED)
    answers = data(1050, BYTES[50:]) + status(1, (4096, 0), (1 << 20, 3)) + chunk(2, ChunkType.NONE, done=True)
    answers += hole(1000, 10) + status(2, (8192, 9), done=True) + data(1010, BYTES[10:50], done=True)
    finished = feed(out.reader, answers, cuts or ())
    assert finished == [out.write, out.status, out.read]
    assert out.content == bytes(10) + BYTES[10:]
    assert {number: list(runs) for number, runs in out.status.statuses.items()} == {
        1: [(4096, 0), (1 << 20, 3)],
        2: [(8192, 9)],
    }


@pytest.mark.parametrize("cuts", CUTS)
def test_extended_replies(cuts):
    out = Out(EXTENDED)
    body = wire.EXTENDED_STATUS_HEAD.pack(1, 2) + b"".join(
        wire.EXTENDED_STATUS_ENTRY.pack(*pair) for pair in ((4096, 3), (1 << 40, 0))
    )
    answers = extended(3, ChunkType.BLOCK_STATUS_EXT, 4096, body, done=True)
    answers += extended(1, ChunkType.OFFSET_DATA, 1000, wire.U64.pack(1000) + BYTES, done=True)
    answers += extended(2, ChunkType.NONE, 0, done=True)
    assert feed(out.reader, answers, cuts or ()) == [out.status, out.read, out.write]
    assert out.content == BYTES
    assert list(out.status.statuses[1]) == [(4096, 3), (1 << 40, 0)]


def test_errors_have_their_text_and_the_first_counts():
    out = Out(STRUCTURED)
    answers = error(1, 5, b"medium", done=False) + data(1000, BYTES[:50]) + error(1, 22, done=True)
    answers += error(2, 28, b"full", ChunkType.ERROR_OFFSET, more=bytes(8))
    answers += error(3, 77, b"from the future", 0x8ABC, more=b"whatever")
    assert feed(out.reader, answers) == [out.read, out.write, out.status]
    assert [(call.error, call.message) for call in (out.read, out.write, out.status)] == [
        (5, "medium"),
        (28, "full"),
        (77, "from the future"),
    ]


@pytest.mark.parametrize(
    ("session", "answers", "said"),
    [
        (PLAIN, simple(9), "cookie"),
        (PLAIN, chunk(1, ChunkType.NONE, done=True), "magic"),
        (PLAIN, simple(3), "expected a structured reply"),
        (PLAIN, bytes(16), "magic"),
        (STRUCTURED, simple(1, 22), "expected a structured reply"),
        (STRUCTURED, extended(1, ChunkType.NONE, 1000, done=True), "magic"),
        (STRUCTURED, chunk(9, ChunkType.NONE, done=True), "cookie"),
        (STRUCTURED, chunk(1, 3, b"x"), "does not have"),
        (STRUCTURED, chunk(1, ChunkType.NONE), "to be the last"),
        (STRUCTURED, chunk(1, ChunkType.NONE, b"x", done=True), "0 bytes"),
        (STRUCTURED, chunk(1, ChunkType.NONE, done=True), "found a part"),
        (STRUCTURED, data(1000, BYTES[:99], done=True), "found a part"),
        (STRUCTURED, data(1000, b""), "found none"),
        (STRUCTURED, chunk(1, ChunkType.OFFSET_DATA, b"1234567") + bytes(8), "found none"),
        (STRUCTURED, data(1001, BYTES), "within 100 bytes"),
        (STRUCTURED, data(999, BYTES), "within 100 bytes"),
        (STRUCTURED, data(0, BYTES), "within 100 bytes"),
        (STRUCTURED, data(1000, BYTES[:10]) + data(1009, BYTES[:10]), "each byte once"),
        (STRUCTURED, data(1010, BYTES[:10]) + data(1005, BYTES[:10]), "each byte once"),
        (STRUCTURED, data(1010, BYTES[:10]) + hole(1000, 100), "each byte once"),
        (STRUCTURED, hole(1000, 0), "found none"),
        (STRUCTURED, hole(1000, 101), "within 100 bytes"),
        (STRUCTURED, chunk(1, ChunkType.OFFSET_HOLE, bytes(13)), "12 bytes"),
        (STRUCTURED, data(1000, BYTES[:10]) + simple(1, 5), "behind chunks"),
        (STRUCTURED, data(0, BYTES[:4], cookie=2), "does not answer"),
        (STRUCTURED, status(1, (8192, 0)) + status(1, (8192, 0)), "context once"),
        (STRUCTURED, status(5, (8192, 0)), "context once"),
        (STRUCTURED, status(1, (8192, 0), done=True), "2 contexts"),
        (STRUCTURED, status(1, (0, 0)), "some length"),
        (STRUCTURED, status(1, (8192, 0), (1, 0)), "beyond 8192"),
        (STRUCTURED, status(1), "whole extents"),
        (STRUCTURED, chunk(3, ChunkType.BLOCK_STATUS, bytes(15)), "whole extents"),
        (STRUCTURED, chunk(3, ChunkType.BLOCK_STATUS_EXT, bytes(24)), "does not have"),
        (STRUCTURED, wire.CHUNK.pack(wire.CHUNK_MAGIC, 0, 5, 3, 1 << 31), "1 to 8388612"),
        (STRUCTURED, error(1, 0), "an error"),
        (STRUCTURED, chunk(1, ChunkType.ERROR, wire.ERROR_HEAD.pack(5, 10)), "an error"),
        (STRUCTURED, chunk(1, 0x9000, b"12345"), "an error"),
        (STRUCTURED, wire.CHUNK.pack(wire.CHUNK_MAGIC, 1, 0x8001, 1, 9000), "1 to 8192"),
        (EXTENDED, extended(1, ChunkType.NONE, 1001, done=True), "offset 1000"),
        (EXTENDED, simple(2) + bytes(16), "magic"),
        (EXTENDED, chunk(2, ChunkType.NONE, done=True) + bytes(12), "magic"),
        (EXTENDED, extended(3, ChunkType.BLOCK_STATUS, 4096, bytes(12)), "does not have"),
        (EXTENDED, extended(3, ChunkType.BLOCK_STATUS_EXT, 4096, wire.U64.pack(1 << 32) + bytes(16)), "another"),
        (EXTENDED, wire.EXTENDED_CHUNK.pack(wire.EXTENDED_CHUNK_MAGIC, 0, 6, 3, 4096, 1 << 63), "1 to 16777224"),
    ],
)
def test_what_breaks_the_rules_is_refused(session, answers, said):
    with pytest.raises(RemoteProtocolError, match=said):
        feed(Out(session).reader, answers)


def test_one_extent_means_one():
    out = Out(STRUCTURED)
    out.status.flags = CommandFlag.REQ_ONE
    with pytest.raises(RemoteProtocolError, match="beyond"):
        feed(out.reader, status(1, (4096, 0), (4096, 0)))


def test_the_number_of_chunks_is_bounded(monkeypatch):
    monkeypatch.setattr(reply_reader, "MAX_CHUNKS", 20)
    with pytest.raises(RemoteProtocolError, match="at most 20 chunks"):
        feed(Out(STRUCTURED).reader, b"".join(data(1000 + 2 * each, b"x") for each in range(30)))


def test_pieces_in_any_order_cover_a_read():
    for seed in range(200):
        chance = random.Random(seed)
        length = chance.randint(1, 60)
        content = chance.randbytes(length)
        borders = sorted({0, length, *(chance.randint(0, length) for _ in range(8))})
        pieces = list(itertools.pairwise(borders))
        chance.shuffle(pieces)
        first = chance.randint(0, length)
        out = Out(STRUCTURED, length, (first, length - first))
        answers = b"".join(data(1000 + low, content[low:high]) for low, high in pieces)
        assert feed(out.reader, answers) == []
        assert out.read.covered
        assert feed(out.reader, chunk(1, ChunkType.NONE, done=True)) == [out.read]
        assert out.content == content, seed


def test_long_reads_go_straight_to_their_buffers():
    out = Out(STRUCTURED, 1 << 20, (1 << 20,))
    head = data(1000, bytes(1 << 20))[:28]
    space = out.reader.space(bulk=True)
    assert len(space) == reply_reader.STAGING_BULK
    space[: len(head)] = head
    assert out.reader.received(len(head)) == []
    assert len(out.reader.space(bulk=True)) == 1 << 20


def test_requests_are_framed_as_the_session_says():
    call = Call(Command.WRITE, 0x1122, 5, flags=CommandFlag.FUA)
    call.cookie = 9
    assert encode(call, STRUCTURED).hex() == "25609513000100010000000000000009000000000000112200000005"
    assert encode(call, EXTENDED).hex() == ("21e41c7100210001000000000000000900000000000011220000000000000005")
    assert len(encode(Call(Command.TRIM, 0, 1 << 40), EXTENDED)) == 32
