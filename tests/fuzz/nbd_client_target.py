"""Fuzz target: any bytes as what an NBD server says, in the handshake and behind it.

The first byte chooses the framing and where the bytes come in, the second how they are cut.
"""

from blockwright.errors import NotFound, Refused, RemoteProtocolError
from blockwright.nbd.protocol.call import Call
from blockwright.nbd.protocol.client import Wanted, describe, enter, listing
from blockwright.nbd.protocol.reply_reader import ReplyReader
from blockwright.nbd.protocol.session import ExportInfo, Session
from blockwright.nbd.wire import Command, TransmissionFlag
from tests.support.nbdserver import Ended, drive, feed

MAX_BYTES = 1 << 16
SESSIONS = [
    {"structured": False},
    {"structured": True, "contexts": {1: "base:allocation", 2: "x:y"}},
    {"structured": True, "extended": True, "contexts": {1: "base:allocation"}},
]
COOKIES = 8


def seeds():
    from tests.support import nbdserver

    greeting = nbdserver.GREETING
    yield (
        b"\x80\0" + greeting + nbdserver.ack(11) + nbdserver.context(10, (1, "base:allocation")) + nbdserver.export(7)
    )
    yield b"\x81\0" + greeting + nbdserver.unsupported(11) + nbdserver.ack(8) + nbdserver.export(6)
    yield b"\x82\0" + greeting + nbdserver.reply(3, 2, b"\0\0\0\x01adescribed") + nbdserver.ack(3)
    yield b"\0\0" + nbdserver.simple(1, 0, bytes(64)) + nbdserver.simple(2, 5)
    yield b"\1\3" + nbdserver.chunk(1, 1, (0).to_bytes(8, "big") + bytes(64), done=True)
    yield b"\1\3" + nbdserver.chunk(3, 5, bytes([0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 3]))
    yield b"\2\5" + nbdserver.extended(1, 2, 0, bytes(8) + b"\0\0\0\x40", done=True)


def fuzz_one(data: bytes) -> None:
    """Lets nothing but the documented errors out, and ends."""
    if len(data) < 2:
        return
    if data[0] & 0x80:
        _handshake(data[0] & 3, data[2:])
    else:
        _replies(SESSIONS[data[0] % len(SESSIONS)], data[1], data[2:])


def _handshake(which: int, answers: bytes) -> None:
    wanted = Wanted("x", tls=which == 3)
    handshake = (enter, describe, listing, enter)[which](wanted)
    try:
        drive(handshake, answers, tls=[None], whole=False)
    except (Ended, RemoteProtocolError, Refused, NotFound):
        return


def _replies(session: dict, cut: int, answers: bytes) -> None:
    pending = {}
    for cookie in range(COOKIES):
        command = (Command.READ, Command.WRITE, Command.BLOCK_STATUS, Command.FLUSH)[cookie % 4]
        length = 64 << cookie
        pieces = (bytearray(length // 2), bytearray(), bytearray(length - length // 2))
        pending[cookie] = Call(command, cookie * 8, length, buffers=[memoryview(each) for each in pieces])
        pending[cookie].cookie = cookie
    reader = ReplyReader(Session(ExportInfo("", 1 << 20, TransmissionFlag.HAS_FLAGS), **session), pending)
    try:
        finished = feed(reader, answers, [cut % 37 + 1] * len(answers) if cut else ())
    except RemoteProtocolError:
        return
    for call in finished:
        assert call.cookie not in pending
        assert call.error or call.command != Command.READ or call.covered
