"""Replies byte for byte: "Simple reply message", "Structured reply chunk message", "Extended reply chunk message"."""

import struct

import pytest

from blockwright.nbd.protocol.replies import (
    MAX_TEXT,
    ExtendedFraming,
    SimpleFraming,
    StructuredFraming,
    framing,
)
from blockwright.nbd.protocol.session import ExportInfo, Session
from blockwright.nbd.wire import TransmissionFlag

COOKIE, START = 0x1122334455667788, 0x99AABBCCDD


def structured(kind, payload, done=1):
    return struct.pack(">IHHQI", 0x668E33EF, done, kind, COOKIE, len(payload)) + payload


def extended(kind, payload, done=1):
    return struct.pack(">IHHQQQ", 0x6E8A278C, done, kind, COOKIE, START, len(payload)) + payload


def test_simple_replies():
    framed = SimpleFraming()
    good = struct.pack(">IIQ", 0x67446698, 0, COOKIE)
    assert framed.done(COOKIE, START) == good
    assert framed.data_head(COOKIE, START, START, 512) == good
    assert framed.error(COOKIE, START, 5, "text", 7) == struct.pack(">IIQ", 0x67446698, 5, COOKIE)


@pytest.mark.parametrize(("framed", "chunk"), [(StructuredFraming(), structured), (ExtendedFraming(), extended)])
def test_chunks(framed, chunk):
    assert framed.done(COOKIE, START) == chunk(0, b"")
    assert framed.hole(COOKIE, START, START, 512, 0) == chunk(2, struct.pack(">QI", START, 512), 0)
    assert framed.error(COOKIE, START, 5, "é") == chunk(0x8001, b"\0\0\0\5\0\2\xc3\xa9")
    assert framed.error(COOKIE, START, 5, "", 9) == chunk(0x8002, b"\0\0\0\5\0\0" + struct.pack(">Q", 9))
    data = chunk(1, struct.pack(">Q", START) + b"x" * 512)
    assert framed.data_head(COOKIE, START, START, 512) + b"x" * 512 == data


def test_a_head_goes_where_it_is_told():
    buffer = bytearray(b"." * 64)
    StructuredFraming().put_data_head(buffer, 3, COOKIE, START, START, 1, 0)
    assert buffer[:3] == b"..."
    assert buffer[31:] == b"." * 33
    assert buffer[3:31] == structured(1, struct.pack(">Q", START) + b"x", 0)[:-1]


def test_status():
    extents = [(512, 3), (1024, 0)]
    assert StructuredFraming().status(COOKIE, START, 7, extents) == structured(
        5, struct.pack(">IIIII", 7, 512, 3, 1024, 0)
    )
    assert ExtendedFraming().status(COOKIE, START, 7, extents, 0) == extended(
        6, struct.pack(">IIQQQQ", 7, 2, 512, 3, 1024, 0), 0
    )


@pytest.mark.parametrize("text", ["x" * 10_000, "é" * 10_000, "x" + "é" * 10_000, "€" * 10_000, "\ud800"])
def test_an_error_s_text_is_cut_between_characters(text):
    payload = StructuredFraming().error(COOKIE, START, 5, text)[20:]
    (length,) = struct.unpack_from(">H", payload, 4)
    message = payload[6:]
    assert len(message) == length <= MAX_TEXT
    assert message.decode()[:100] == text[:100].encode("utf-8", "replace").decode()


def test_a_session_knows_its_framing():
    info = ExportInfo("", 1, TransmissionFlag.HAS_FLAGS)
    assert type(framing(Session(info))) is SimpleFraming
    assert type(framing(Session(info, structured=True))) is StructuredFraming
    assert type(framing(Session(info, structured=True, extended=True))) is ExtendedFraming
