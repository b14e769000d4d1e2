"""What a server says, as bytes, and a handshake fed with them: the client's tests write their servers with it."""

from collections.abc import Iterable, Sequence

from blockwright.errors import RemoteProtocolError
from blockwright.nbd import wire
from blockwright.nbd.protocol.steps import Handshake, Identity, Receive, Send, Skip, StartTls
from blockwright.nbd.wire import Option, ReplyType

GREETING = wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, 3)


class Ended(RemoteProtocolError):
    """The peer ended the connection, as ``transport.run`` tells it."""


def drive(
    handshake: Handshake,
    answers: bytes,
    *,
    sent: bytearray | None = None,
    tls: Sequence[str | None] = (),
    whole: bool = True,
):
    """Run a handshake on what the peer says, and return its result; what it sends is added to ``sent``.

    With ``whole`` all that the peer says must have been asked for.
    """
    position = 0
    hosts = list(tls)
    answer = None
    try:
        while True:
            step = handshake.send(answer)
            answer = None
            if isinstance(step, (Receive, Skip)):
                if position + step.length > len(answers):
                    raise Ended("the peer ended it")
                answer = answers[position : position + step.length] if isinstance(step, Receive) else None
                position += step.length
            elif isinstance(step, Send):
                if sent is not None:
                    sent += step.data
            else:
                assert isinstance(step, StartTls)
                assert hosts, "TLS was not expected"
                assert step.host == hosts.pop(0)
                answer = Identity()
    except StopIteration as finished:
        assert position == len(answers) or not whole, f"{len(answers) - position} bytes were not asked for"
        return finished.value
    finally:
        handshake.close()


def reply(option: Option, kind: int, data: bytes = b"") -> bytes:
    return wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def ack(option: Option) -> bytes:
    return reply(option, ReplyType.ACK)


def unsupported(option: Option) -> bytes:
    return reply(option, ReplyType.ERR_UNSUP, b"no such option")


def export(option: Option, size: int = 1 << 20, flags: int = 0x1, *more: bytes) -> bytes:
    """The answer to INFO or GO: the export, further infos, ACK."""
    infos = [wire.INFO_EXPORT.pack(wire.InfoType.EXPORT, size, flags), *more]
    return b"".join(reply(option, ReplyType.INFO, info) for info in infos) + ack(option)


def context(option: Option, *named: tuple[int, str]) -> bytes:
    replies = [reply(option, ReplyType.META_CONTEXT, wire.U32.pack(n) + name.encode()) for n, name in named]
    return b"".join(replies) + ack(option)


def chunk(cookie: int, kind: int, payload: bytes = b"", *, done: bool = False) -> bytes:
    return wire.CHUNK.pack(wire.CHUNK_MAGIC, int(done), kind, cookie, len(payload)) + payload


def extended(cookie: int, kind: int, offset: int, payload: bytes = b"", *, done: bool = False) -> bytes:
    head = wire.EXTENDED_CHUNK.pack(wire.EXTENDED_CHUNK_MAGIC, int(done), kind, cookie, offset, len(payload))
    return head + payload


def simple(cookie: int, error: int = 0, data: bytes = b"") -> bytes:
    return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, error, cookie) + data


def feed(reader, data: bytes, cuts: Iterable[int] = ()):
    """Have a ReplyReader receive ``data``, at most as much at once as ``cuts`` say in turn; return what finished."""
    finished = []
    limits = iter(cuts)
    position = 0
    while position < len(data):
        space = reader.space(bulk=position % 2 == 1)
        assert len(space), "a reader has room for what it needs"
        part = min(len(space), len(data) - position, next(limits, len(data)))
        space[:part] = data[position : position + part]
        finished += reader.received(part)
        position += part
    return finished
