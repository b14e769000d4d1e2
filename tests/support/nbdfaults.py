"""For each check of the NBD probe, a server that breaks its rule.

Knows: how each rule can be broken. Refuses to know: how the checks find out.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass

from blockwright.nbd import wire
from blockwright.nbd.wire import ChunkType, Command, CommandFlag, Error, InfoType, Option, ReplyType, TransmissionFlag
from blockwright.units import KiB, MiB
from tests.support.nbdscripted import (
    ALL_FLAGS,
    Close,
    Config,
    Connection,
    Fault,
    Hang,
    Replies,
    Reply,
    Request,
    status_chunk,
)

F = TransmissionFlag
PROFILES: dict[str, Callable[[], Config]] = {
    "full": Config,
    "plain": lambda: Config(
        size=33 * MiB + 512,
        handshake=1,
        flags=F.HAS_FLAGS | F.SEND_WRITE_ZEROES,
        df=False,
        contexts=(),
        blocks=None,
        extended=False,
    ),
    "coarse": lambda: Config(blocks=(512, 4096, MiB), flags=ALL_FLAGS & ~F.SEND_TRIM),
    "read-only": lambda: Config(flags=ALL_FLAGS | F.READ_ONLY),
    "offers TLS": lambda: Config(tls="offered"),
    "forces TLS": lambda: Config(tls="forced"),
    "inside TLS": lambda: Config(tls="forced"),
    "keeps state": lambda: Config(tls="offered"),
    "impatient": lambda: Config(patience_s=2),
}
"""Servers that keep every rule, of several kinds; ``inside TLS`` is one whose address asks for TLS."""

_UNKNOWN_OPTION = 0x7F00_BEEF
_UNKNOWN_COMMAND = 0x7AB
_EXTENDED = Option.EXTENDED_HEADERS
_ACK: Replies = [(ReplyType.ACK, b"")]


@dataclass
class Case:
    """A fault, the kind of server it is in, and whether the server says nothing then, so that a check waits."""

    fault: Fault
    profile: str = "full"
    silent: bool = False


# -- options ---------------------------------------------------------------------------------------------------


def option(
    number: int | None,
    change: Callable[[Connection, bytes, Replies], Replies],
    *,
    when: Callable[[bytes], bool] = bool,
) -> Fault:
    """Change the replies to an option; with a ``when`` that is not bool, only where the data fits it."""

    def hook(connection: Connection, found: int, data: bytes, replies: Replies) -> Replies:
        matches = found == number or (number is None and found != Option.GO)
        fits = when is bool or when(data)
        return change(connection, data, replies) if matches and fits else replies

    return Fault(option=hook)


def answers(number: int, *replies: tuple[int, bytes], when: Callable[[bytes], bool] = bool) -> Fault:
    """Answer an option with other replies."""
    return option(number, lambda _connection, _data, _replies: list(replies), when=when)


def refuses(number: int, kind: ReplyType, *, when: Callable[[bytes], bool] = bool) -> Fault:
    """Answer an option with another error."""
    return answers(number, (kind, b""), when=when)


def closes_on(number: int, *, when: Callable[[bytes], bool] = bool) -> Fault:
    """Close at an option."""

    def close(_connection: Connection, _data: bytes, _replies: Replies) -> Replies:
        raise Close

    return option(number, close, when=when)


def hangs_on(number: int, *, when: Callable[[bytes], bool] = bool) -> Fault:
    """Say nothing more after an option."""

    def hang(_connection: Connection, _data: bytes, _replies: Replies) -> Replies:
        raise Hang

    return option(number, hang, when=when)


def info(change: Callable[[bytes], bytes], kind: InfoType, *options: int) -> Fault:
    """Change an information record."""

    def hook(connection: Connection, found: int, data: bytes, replies: Replies) -> Replies:
        def one(reply: tuple[int, bytes]) -> tuple[int, bytes]:
            record = reply[1]
            ours = reply[0] == ReplyType.INFO and record[:2] == wire.U16.pack(kind)
            return (reply[0], change(record)) if ours else reply

        return [one(each) for each in replies] if found in (options or (Option.INFO, Option.GO)) else replies

    return Fault(option=hook)


def sizes(minimum: int, preferred: int, maximum: int) -> Fault:
    """Tell other block sizes."""
    record = wire.INFO_BLOCK_SIZE.pack(InfoType.BLOCK_SIZE, minimum, preferred, maximum)
    return info(lambda _record: record, InfoType.BLOCK_SIZE)


def flags(change: Callable[[Connection, int], int]) -> Fault:
    """Tell other transmission flags."""

    def hook(connection: Connection, found: int, data: bytes, replies: Replies) -> Replies:
        def one(kind: int, record: bytes) -> tuple[int, bytes]:
            if kind != ReplyType.INFO or record[:2] != wire.U16.pack(InfoType.EXPORT):
                return kind, record
            _, size, told = wire.INFO_EXPORT.unpack(record)
            return kind, wire.INFO_EXPORT.pack(InfoType.EXPORT, size, change(connection, told))

        return [one(*each) for each in replies] if found in (Option.INFO, Option.GO) else replies

    return Fault(option=hook)


def context(number: int, name: bytes) -> tuple[int, bytes]:
    """A metadata context as a reply."""
    return ReplyType.META_CONTEXT, wire.U32.pack(number) + name


def claims(name: bytes) -> bool:
    """Whether INFO's or GO's data is for an export that is not there."""
    return b"no-such-export" in name


def malformed(data: bytes) -> bool:
    """Whether INFO's or GO's data claims a name longer than it is."""
    return len(data) < 6 or wire.U32.unpack_from(data)[0] > len(data) - 6


def enters(connection: Connection, data: bytes, replies: Replies) -> Replies:
    """Answer as if the default export had been asked for."""
    return connection.info(Option.INFO, wire.U32.pack(4) + b"disk" + wire.U16.pack(0))


def selects_anyway(connection: Connection, data: bytes, replies: Replies) -> Replies:
    """Select base:allocation whatever was asked."""
    connection.selected, connection.selected_for = {5: "base:allocation"}, b"disk"
    return [context(5, b"base:allocation"), *_ACK]


def keeps_selection(connection: Connection, option_number: int, data: bytes, replies: Replies) -> Replies:
    """Do not forget what was selected before."""
    if option_number == Option.SET_META_CONTEXT:
        if connection.selected:
            connection.memory["selected"] = dict(connection.selected)
        connection.selected, connection.selected_for = connection.memory.get("selected", {}), b"disk"
    return replies


# -- requests --------------------------------------------------------------------------------------------------


def request(
    command: int | None,
    change: Callable[[Connection, Request, Reply], Reply],
    *,
    when: Callable[[Connection, Request], bool] | None = None,
    mode: str = "",
    first: bool = False,
) -> Fault:
    """Change the reply to a command; with ``first`` only once, so that what was there can be put back."""
    seen: list[Request] = []

    def hook(connection: Connection, found: Request, reply: Reply) -> Reply:
        if command is not None and found.command != command:
            return reply
        if (mode and connection.mode != mode) or (when is not None and not when(connection, found)):
            return reply
        if first and seen:
            return reply
        seen.append(found)
        return change(connection, found, reply)

    return Fault(request=hook)


def says(error: int) -> Callable[[Connection, Request, Reply], Reply]:
    """Answer with another error, or success."""

    def change(connection: Connection, found: Request, reply: Reply) -> Reply:
        if error or found.command != Command.READ:
            return Reply(error)
        content = bytes(found.length)
        return Reply(data=content, chunks=[(ChunkType.OFFSET_DATA, wire.U64.pack(found.offset) + content)])

    return change


def closes(connection: Connection, found: Request, reply: Reply) -> Reply:
    """Close instead of replying."""
    raise Close


def outside(connection: Connection, found: Request) -> bool:
    """Whether a request leaves the export."""
    return found.offset + found.length > connection.config.size


def flagged(bits: int) -> Callable[[Connection, Request], bool]:
    """Whether a request has one of ``bits``."""
    return lambda _connection, found: bool(found.flags & bits)


def empty(connection: Connection, found: Request) -> bool:
    """Whether a request is of no bytes."""
    return not found.length


def chunks(
    change: Callable[[Request, list[tuple[int, bytes]]], list[tuple[int, bytes]]], mode: str = "structured"
) -> Fault:
    """Change the chunks of a READ that succeeds."""

    def one(_connection: Connection, found: Request, reply: Reply) -> Reply:
        if not reply.error:
            reply.chunks = change(found, reply.chunks)
        return reply

    return request(Command.READ, one, mode=mode)


def status(
    change: Callable[[list[tuple[int, int]], Request], list[tuple[int, int]]], mode: str = "structured"
) -> Fault:
    """Change the extents of every BLOCK_STATUS."""

    def one(connection: Connection, found: Request, reply: Reply) -> Reply:
        if not reply.error:
            extents = connection.extents("base:allocation", found.offset, found.length)
            extents = extents[:1] if found.flags & CommandFlag.REQ_ONE else extents
            number = next(iter(connection.selected))
            reply.chunks = [status_chunk(connection.mode, number, change(extents, found))]
        return reply

    return request(Command.BLOCK_STATUS, one, mode=mode)


def rechunked(change: Callable[[Connection, list[tuple[int, bytes]]], list[tuple[int, bytes]]], mode: str) -> Fault:
    """Change the chunks of BLOCK_STATUS."""

    def one(connection: Connection, found: Request, reply: Reply) -> Reply:
        if not reply.error:
            reply.chunks = change(connection, reply.chunks)
        return reply

    return request(Command.BLOCK_STATUS, one, mode=mode)


def encoded(change: Callable[[Connection, Request, bytes], bytes], command: int | None = None) -> Fault:
    """Change the bytes of a reply."""

    def hook(connection: Connection, found: Request, data: bytes) -> bytes:
        return change(connection, found, data) if command in (None, found.command) else data

    return Fault(encoded=hook)


def spoils(where: int) -> Callable[[Connection, Request, Reply], Reply]:
    """Change a byte of the export beside the request: ``where`` bytes from its end, or before its start."""

    def change(connection: Connection, found: Request, reply: Reply) -> Reply:
        place = found.offset + found.length + where if where >= 0 else found.offset + where
        connection.server.data[place] ^= 0xFF
        return reply

    return change


def unzeroed(connection: Connection, found: Request, reply: Reply) -> Reply:
    """Leave something where zeros should be."""
    if not reply.error:
        connection.server.data[found.offset + found.length // 2] = 1
    return reply


def never_mind(connection: Connection, found: Request, reply: Reply) -> Reply:
    """Take a WRITE and lose a byte of it."""
    if not reply.error and found.length:
        connection.server.data[found.offset + found.length - 1] ^= 0xFF
    return reply


def unconsumed(when: Callable[[Connection, Request], bool]) -> Fault:
    """Leave the payload of a WRITE in the stream."""

    def swallow(connection: Connection, found: Request) -> int:
        carried = found.command == Command.WRITE
        return found.length if carried and not when(connection, found) else 0

    return Fault(swallow=swallow)


def swallows_all(connection: Connection, found: Request) -> int:
    """Take every length for that of a payload."""
    return found.length if found.command not in (Command.READ, Command.BLOCK_STATUS) else 0


def own_cache(connection: Connection, found: Request, reply: Reply) -> Reply:
    """Serve READs from a cache that only the connection's own WRITEs refresh."""
    if found.command == Command.WRITE:
        connection.memory.clear()
    if found.command != Command.READ:
        return reply
    cached: Reply = connection.memory.setdefault(f"{found.offset} {found.length}", reply)
    return cached


def executes_injected(connection: Connection) -> None:
    """Execute inside TLS the plain option that came along before it."""
    connection.mode = "simple"
    if connection.sock.recv(1, socket.MSG_PEEK) == b"I":
        assert connection.recv(wire.OPTION.size) == wire.OPTION.pack(wire.OPTION_MAGIC, Option.STRUCTURED_REPLY, 0)
        connection.mode = "structured"


def answers_plain(connection: Connection) -> None:
    """Go on in the clear after the ACK of STARTTLS."""
    while connection.sock.recv(1, socket.MSG_PEEK) == b"I":
        connection.recv(wire.OPTION.size)
        connection.send(wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, Option.LIST, ReplyType.ACK, 0))


# -- the table -------------------------------------------------------------------------------------------------

_W = Command.WRITE
_Z = Command.WRITE_ZEROES
_R = Command.READ
_S = Command.BLOCK_STATUS
_EVERY_OTHER = CommandFlag.NO_HOLE | CommandFlag.REQ_ONE | CommandFlag.FAST_ZERO | CommandFlag.DF
_ODD_FLAG = 1 << 14


def _oldstyle(_greeting: bytes) -> bytes:
    return wire.OLDSTYLE.pack(wire.INIT_MAGIC, wire.OLDSTYLE_MAGIC, 4 * MiB, 0)


def _greeted_with(bits: int) -> Callable[[bytes], bytes]:
    return lambda _greeting: wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, bits)


def _must_be_fixed(connection: Connection, name: bytes) -> bytes | None:
    if not connection.fixed:
        raise Close
    return None


def _same_ids(connection: Connection, data: bytes, replies: Replies) -> Replies:
    return [
        (kind, b"\0\0\0\x07" + body[4:]) if kind == ReplyType.META_CONTEXT else (kind, body) for kind, body in replies
    ]


def _data(offset: int, length: int) -> tuple[int, bytes]:
    return ChunkType.OFFSET_DATA, wire.U64.pack(offset) + bytes(length)


def _split(found: Request, pieces: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    middle = found.length // 2 + 1
    return [_data(found.offset, middle), _data(found.offset + middle, found.length - middle)]


def _bad_flags(connection: Connection, found: Request, data: bytes) -> bytes:
    if connection.mode != "structured" or found.command != _R:
        return data
    return data[:4] + wire.U16.pack(wire.U16.unpack_from(data, 4)[0] | 0x100) + data[6:]


def _other_cookie(connection: Connection, found: Request, data: bytes) -> bytes:
    return data[:8] + wire.U64.pack(found.cookie & 0xFFFF_FFFF) + data[16:]


def _with_data(connection: Connection, found: Request, data: bytes) -> bytes:
    return data + bytes(found.length) if found.command == _R and outside(connection, found) else data


def _tell_error_with(payload: bytes, mode: str = "structured") -> Fault:
    def one(connection: Connection, found: Request, reply: Reply) -> Reply:
        return Reply(chunks=[(ChunkType.ERROR, payload)]) if reply.error else reply

    return request(_R, one, mode=mode)


def _simply(connection: Connection, found: Request, reply: Reply) -> Reply:
    reply.simple = True
    return reply


def _content(connection: Connection, found: Request, reply: Reply) -> Reply:
    reply.chunks = [_data(0, 1)]
    return reply


def _other_offset(connection: Connection, found: Request, data: bytes) -> bytes:
    return data[:16] + wire.U64.pack(found.offset + 8) + data[24:] if connection.mode == "extended" else data


def _listed(*names: bytes) -> Fault:
    return answers(Option.LIST_META_CONTEXT, *(context(0, each) for each in names), *_ACK)


def _too_early(connection: Connection, data: bytes, replies: Replies) -> Replies:
    return _ACK if connection.mode == "simple" else replies


def _second_time(connection: Connection, number: int, data: bytes, replies: Replies) -> Replies:
    if number == Option.STRUCTURED_REPLY:
        if connection.memory.get("again"):
            raise Close
        connection.memory["again"] = True
    return replies


def _dies_at_abort(connection: Connection, number: int, data: bytes, replies: Replies) -> Replies:
    if number == Option.ABORT:
        connection.server.dead = True
    return replies


def _pads(connection: Connection, data: bytes, replies: Replies) -> Replies:
    kind, _ = replies[-1]
    if kind == ReplyType.ACK:
        connection.trailing = bytes(wire.EXPORT_NAME_PADDING)
    return replies


def _closes_inside(connection: Connection, data: bytes, replies: Replies) -> Replies:
    if connection.tls:
        raise Close
    return replies


def keeps_state(connection: Connection) -> None:
    """Forget nothing at STARTTLS."""


def _chunky(connection: Connection, found: Request, data: bytes) -> bytes:
    return connection.chunk(found, ChunkType.NONE, b"", 1) if connection.mode == "simple" else data


def _swapped(connection: Connection, found: Request, reply: Reply) -> Reply:
    content = bytes(reversed(range(256))) * 2
    return Reply(data=content, chunks=[(ChunkType.OFFSET_DATA, wire.U64.pack(found.offset) + content)])


def _changed_by_cache(connection: Connection, found: Request, reply: Reply) -> Reply:
    if found.command == Command.CACHE:
        connection.memory["cached"] = True
    if found.command == Command.READ and connection.memory.get("cached"):
        reply.data = bytes(each ^ 1 for each in reply.data)
    return reply


def _unsteady(connection: Connection, number: int, data: bytes, replies: Replies) -> Replies:
    if number != Option.GO:
        return replies
    connection.server.config.size -= 4096
    return replies


def _no_precedence(connection: Connection, number: int, data: bytes, replies: Replies) -> Replies:
    if number == Option.STRUCTURED_REPLY:
        connection.memory["first"] = True
    if number == _EXTENDED and connection.memory.get("first"):
        connection.mode = "structured"
    return replies


def _unfiltered(connection: Connection, found: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [status_chunk("extended", number, [(512, 0)]) for number in connection.selected]


def _after(count: int, change: Callable[[Connection, Request, Reply], Reply]) -> Fault:
    """Change all replies of a connection after the first few."""

    def one(connection: Connection, found: Request, reply: Reply) -> Reply:
        connection.memory["seen"] = connection.memory.get("seen", 0) + 1
        return change(connection, found, reply) if connection.memory["seen"] > count else reply

    return Fault(request=one)


TABLE: dict[str, Case] = {
    # -- handshake
    "H01": Case(Fault(greeting=_oldstyle)),
    "H02": Case(Fault(greeting=_greeted_with(2))),
    "H03": Case(Fault(greeting=_greeted_with(7))),
    "H04": Case(Fault(any_flags=True)),
    "H05": Case(Fault(any_flags=True), "plain"),
    "H06": Case(Fault(padding=True)),
    "H07": Case(Fault(padding=False), silent=True),
    "H08": Case(Fault(export_name=lambda _connection, _name: b"disk")),
    "H09": Case(Fault(export_name=_must_be_fixed)),
    "H10": Case(info(lambda record: record[:-3] + b"\x01" + record[-2:], InfoType.EXPORT)),
    "H11": Case(closes_on(Option.LIST)),
    # -- options
    "O01": Case(refuses(_UNKNOWN_OPTION, ReplyType.ERR_INVALID)),
    "O02": Case(closes_on(_UNKNOWN_OPTION, when=lambda data: len(data) > 1000)),
    "O03": Case(closes_on(_UNKNOWN_OPTION, when=lambda data: data == b"abc")),
    "O04": Case(closes_on(Option.ABORT)),
    "O05": Case(refuses(Option.ABORT, ReplyType.ERR_INVALID, when=lambda data: data != b"")),
    "O06": Case(refuses(Option.LIST, ReplyType.ERR_UNSUP)),
    "O07": Case(answers(Option.LIST, (ReplyType.SERVER, b"\0\0\0\x09disk"), *_ACK)),
    "O08": Case(answers(Option.LIST, *_ACK, when=lambda data: data != b"")),
    "O09": Case(answers(Option.LIST, (ReplyType.ACK, b"done"))),
    "O10": Case(answers(_UNKNOWN_OPTION, (ReplyType.ERR_UNSUP, b"un\0known"))),
    "O11": Case(answers(Option.STRUCTURED_REPLY, *_ACK, when=lambda data: data != b"")),
    "O12": Case(Fault(option=_second_time)),
    "O13": Case(answers(Option.PEEK_EXPORT, *_ACK)),
    "O14": Case(Fault(fragile=True)),
    "O15": Case(Fault(fragile=True, option=_dies_at_abort)),
    "O16": Case(answers(Option.LIST, (ReplyType.ERR_INVALID, b""), *_ACK, when=lambda data: data != b"")),
    # -- INFO and GO
    "I01": Case(answers(Option.INFO, *_ACK)),
    "I02": Case(option(Option.GO, _pads)),
    "I03": Case(info(lambda record: record[:2] + bytes(8) + record[10:], InfoType.EXPORT, Option.INFO)),
    "I04": Case(refuses(Option.INFO, ReplyType.ERR_INVALID, when=lambda data: b"\x7a\xbc" in data)),
    "I05": Case(refuses(Option.GO, ReplyType.ERR_INVALID, when=claims)),
    "I06": Case(closes_on(Option.GO, when=claims)),
    "I07": Case(option(Option.GO, enters, when=claims)),
    "I08": Case(option(Option.GO, enters, when=malformed)),
    "I09": Case(hangs_on(Option.GO, when=lambda data: data == b""), silent=True),
    "I10": Case(option(Option.INFO, enters, when=lambda data: data[-4:] == b"\0\x02\0\x03")),
    "I11": Case(closes_on(Option.INFO, when=lambda data: len(data) > 4096)),
    "I12": Case(info(lambda record: record + b"\xff", InfoType.DESCRIPTION)),
    "I13": Case(flags(lambda _connection, told: told & ~F.HAS_FLAGS)),
    "I14": Case(flags(lambda _connection, told: told | F.SEND_DF)),
    "I15": Case(flags(lambda _connection, told: told & ~F.SEND_WRITE_ZEROES)),
    "I16": Case(sizes(1, 256, 32 * MiB)),
    "I17": Case(sizes(1, 4096, 64 * KiB)),
    "I18": Case(Fault(config={"blocks": (512, 4096, MiB), "size": 4 * MiB + 100})),
    "I19": Case(option(Option.INFO, enters, when=lambda data: data[-4:] == b"\0\0\0\x03")),
    # -- metadata contexts
    "M01": Case(option(Option.SET_META_CONTEXT, _too_early)),
    "M02": Case(option(Option.SET_META_CONTEXT, selects_anyway, when=lambda data: data.endswith(b"\x05base:"))),
    "M03": Case(answers(Option.LIST_META_CONTEXT, *_ACK, when=lambda data: data.endswith(b"\x05base:"))),
    "M04": Case(
        refuses(Option.SET_META_CONTEXT, ReplyType.ERR_INVALID, when=lambda data: data.endswith(b":nothing"))
    ),
    "M05": Case(refuses(Option.LIST_META_CONTEXT, ReplyType.ERR_INVALID, when=lambda data: data.endswith(b"-leaf"))),
    "M06": Case(option(Option.SET_META_CONTEXT, selects_anyway, when=lambda data: data.endswith(b"disk\0\0\0\0"))),
    "M07": Case(_listed(b"x-test:dirty")),
    "M08": Case(answers(Option.LIST_META_CONTEXT, context(1, b"base:allocation"), *_ACK)),
    "M09": Case(_listed(b"base:allocation", b"allocation")),
    "M10": Case(option(Option.SET_META_CONTEXT, _same_ids)),
    "M11": Case(
        answers(
            Option.SET_META_CONTEXT,
            context(5, b"base:allocation"),
            context(6, b"base:allocation"),
            *_ACK,
            when=lambda data: data.count(b"base:allocation") == 2,
        )
    ),
    "M12": Case(
        answers(Option.SET_META_CONTEXT, *_ACK, when=lambda data: b"nobody" in data and b"allocation" in data)
    ),
    "M13": Case(refuses(Option.LIST_META_CONTEXT, ReplyType.ERR_UNKNOWN, when=lambda data: b"\xff\xff" in data)),
    "M14": Case(closes_on(Option.SET_META_CONTEXT, when=lambda data: b"\xff\xff" in data)),
    "M15": Case(Fault(option=keeps_selection)),
    "M16": Case(Fault(option=keeps_selection)),
    "M17": Case(option(Option.SET_META_CONTEXT, selects_anyway, when=claims)),
    "M18": Case(answers(Option.LIST_META_CONTEXT, *_ACK, when=lambda data: data.endswith(b"\xff\xff\xff\xff"))),
    # -- TLS
    "P01": Case(closes_on(Option.STARTTLS)),
    "P02": Case(refuses(_EXTENDED, ReplyType.ERR_TLS_REQD)),
    "P03": Case(answers(Option.STARTTLS, *_ACK), "offers TLS"),
    "P04": Case(answers(Option.STARTTLS, *_ACK), "offers TLS"),
    "P05": Case(answers(Option.INFO, (ReplyType.ERR_UNKNOWN, b"")), "forces TLS"),
    "P06": Case(Fault(export_name=lambda _connection, _name: None), "forces TLS"),
    "P07": Case(refuses(Option.ABORT, ReplyType.ERR_TLS_REQD), "forces TLS"),
    "P08": Case(Fault(after_tls=answers_plain), "offers TLS", silent=True),
    "P09": Case(Fault(after_tls=answers_plain), "offers TLS", silent=True),
    "P10": Case(refuses(_UNKNOWN_OPTION, ReplyType.ERR_TLS_REQD), "offers TLS"),
    "P11": Case(option(Option.STARTTLS, _closes_inside), "inside TLS"),
    "P12": Case(refuses(_UNKNOWN_OPTION, ReplyType.ERR_TLS_REQD), "inside TLS"),
    "P13": Case(Fault(after_tls=keeps_state), "keeps state"),
    "P14": Case(Fault(after_tls=keeps_state), "keeps state", silent=True),
    "P15": Case(Fault(after_tls=executes_injected), "inside TLS"),
    "P16": Case(Fault(hello=b"\x15\x03\x03\x00\x02\x02\x46"), "offers TLS"),
    # -- transmission
    "T01": Case(encoded(_other_cookie)),
    "T02": Case(Fault(encoded=_chunky)),
    "T03": Case(request(_R, says(Error.EIO), when=outside)),
    "T04": Case(request(_R, says(Error.ENOSPC), when=outside)),
    "T05": Case(request(_R, says(Error.EIO), when=lambda _c, found: found.offset >= 1 << 63)),
    "T06": Case(request(_R, closes, when=lambda _c, found: found.length > 1 << 31)),
    "T07": Case(encoded(_with_data)),
    "T08": Case(request(_UNKNOWN_COMMAND, says(Error.ENOTSUP))),
    "T09": Case(Fault(swallow=swallows_all), silent=True),
    "T10": Case(request(_R, says(0), when=flagged(_ODD_FLAG))),
    "T11": Case(request(_R, says(0), when=flagged(_EVERY_OTHER))),
    "T12": Case(request(_R, says(0), when=flagged(CommandFlag.DF))),
    "T13": Case(request(_R, says(Error.EINVAL), when=flagged(CommandFlag.FUA))),
    "T14": Case(request(Command.FLUSH, says(Error.EINVAL), when=flagged(CommandFlag.FUA))),
    "T15": Case(request(Command.FLUSH, says(Error.EINVAL))),
    "T16": Case(request(_R, closes, when=empty)),
    "T17": Case(request(Command.DISC, _simply)),
    "T18": Case(_after(4, closes)),
    "T19": Case(request(_R, _swapped, when=lambda _c, found: found.length == 512)),
    "T20": Case(
        request(_R, says(0), when=lambda _c, found: bool(found.offset % 512 or found.length % 512)), "coarse"
    ),
    "T21": Case(request(_R, closes, when=lambda _c, found: found.length > MiB), "coarse"),
    "T22": Case(request(_R, says(Error.EINVAL), when=lambda _c, found: found.length > 32 * MiB), "plain"),
    "T23": Case(request(_R, closes, when=lambda _c, found: found.length > 31 * MiB), "plain"),
    "T24": Case(request(_R, closes)),
    "T25": Case(request(None, _changed_by_cache)),
    "T26": Case(request(Command.CACHE, says(0))),
    "T27": Case(request(Command.CACHE, closes), "plain"),
    "T28": Case(request(_S, says(Error.EIO), mode="simple")),
    "T29": Case(request(_UNKNOWN_COMMAND, says(38))),
    "T30": Case(Fault(option=_unsteady)),
    # -- writing
    "W01": Case(request(_W, never_mind, first=True)),
    "W02": Case(request(_W, says(Error.EINVAL), when=outside)),
    "W03": Case(unconsumed(outside)),
    "W04": Case(request(_W, says(0), when=flagged(_EVERY_OTHER))),
    "W05": Case(request(_W, says(0), when=flagged(_ODD_FLAG))),
    "W06": Case(request(_W, says(Error.EINVAL), when=flagged(CommandFlag.FUA))),
    "W07": Case(request(_W, closes, when=empty)),
    "W08": Case(request(_Z, unzeroed)),
    "W09": Case(request(_Z, says(Error.EINVAL), when=flagged(CommandFlag.NO_HOLE))),
    "W10": Case(request(_Z, says(Error.EINVAL), when=flagged(CommandFlag.FUA))),
    "W11": Case(request(_Z, says(Error.EINVAL), when=outside)),
    "W12": Case(request(_Z, says(Error.ENOTSUP), when=flagged(CommandFlag.FAST_ZERO))),
    "W13": Case(request(_Z, says(0), when=flagged(CommandFlag.FAST_ZERO)), "plain"),
    "W14": Case(request(Command.TRIM, spoils(0))),
    "W15": Case(request(Command.TRIM, says(Error.EINVAL), when=flagged(CommandFlag.FUA))),
    "W16": Case(request(Command.TRIM, says(0), when=outside)),
    "W17": Case(request(Command.TRIM, says(0), when=flagged(CommandFlag.NO_HOLE))),
    "W18": Case(request(_Z, closes, when=empty)),
    "W19": Case(request(_W, says(0)), "read-only"),
    "W20": Case(request(_W, says(Error.EINVAL)), "read-only"),
    "W21": Case(request(None, own_cache)),
    "W22": Case(request(None, own_cache)),
    "W23": Case(request(_W, says(0), when=lambda _c, found: bool(found.length % 512)), "coarse"),
    "W24": Case(unconsumed(lambda _c, found: found.offset > 1 << 63)),
    "W25": Case(request(Command.RESIZE, says(0))),
    "W26": Case(request(_W, never_mind, first=True)),
    "W27": Case(request(_W, never_mind, first=True)),
    # -- structured replies
    "S01": Case(request(_R, _simply, when=outside, mode="structured")),
    "S02": Case(chunks(lambda _found, pieces: pieces[:-1])),
    "S03": Case(chunks(lambda _found, pieces: [*pieces, pieces[0]])),
    "S04": Case(chunks(lambda found, pieces: [*pieces, _data(found.offset + found.length, 8)])),
    "S05": Case(chunks(lambda found, pieces: [*pieces, (ChunkType.OFFSET_HOLE, wire.HOLE.pack(found.offset, 0))])),
    "S06": Case(encoded(_bad_flags)),
    "S07": Case(chunks(lambda _found, pieces: [*pieces, (9, b"")])),
    "S08": Case(_tell_error_with(wire.ERROR_HEAD.pack(Error.EINVAL, 9) + b"no")),
    "S09": Case(request(_R, says(Error.EIO), when=outside, mode="structured")),
    "S10": Case(request(_R, says(0), mode="structured")),
    "S11": Case(chunks(_split)),
    "S12": Case(request(_R, says(Error.EOVERFLOW), when=flagged(CommandFlag.DF), mode="structured")),
    "S13": Case(request(_R, says(0), when=flagged(CommandFlag.DF)), "plain"),
    "S14": Case(request(_R, _swapped, when=lambda _c, found: found.length == 512, mode="structured")),
    "S15": Case(request(Command.FLUSH, _content, mode="structured")),
    "S16": Case(request(_UNKNOWN_COMMAND, _simply, mode="structured")),
    "S17": Case(request(_R, closes, when=empty, mode="structured")),
    "S18": Case(chunks(_split)),
    "S19": Case(request(_S, says(Error.EIO), mode="structured")),
    # -- BLOCK_STATUS
    "B01": Case(rechunked(lambda _c, found: found * 2, "structured")),
    "B02": Case(status(lambda found, _request: [(0, 0), *found])),
    "B03": Case(status(lambda found, _request: found * 2)),
    "B04": Case(status(lambda found, request_: [(request_.length, 0), *found])),
    "B05": Case(status(lambda found, _request: [(100, 0), *found]), "coarse"),
    "B06": Case(request(_S, says(Error.ENOSPC), when=outside)),
    "B07": Case(status(lambda found, _request: [(length, bits | 4) for length, bits in found])),
    "B08": Case(status(lambda _found, request_: [(request_.length, 2)])),
    "B09": Case(request(_S, closes, when=empty)),
    "B10": Case(request(_S, says(Error.EINVAL), when=flagged(CommandFlag.FUA))),
    "B11": Case(request(_S, says(0), when=flagged(CommandFlag.NO_HOLE))),
    "B12": Case(status(lambda found, _request: [(512, found[0][1]), (found[0][0] - 512, found[0][1]), *found[1:]])),
    "B13": Case(rechunked(lambda _c, found: found[:1], "structured")),
    "B14": Case(request(_S, _simply, mode="structured")),
    "B15": Case(rechunked(lambda c, _found: [status_chunk("extended", 5, [(512, 0)])], "structured")),
    # -- extended headers
    "E01": Case(answers(_EXTENDED, *_ACK, when=lambda data: data != b"")),
    "E02": Case(chunks(lambda _found, pieces: pieces[:-1], "extended")),
    "E03": Case(encoded(_other_offset)),
    "E04": Case(request(Command.FLUSH, _simply, mode="extended")),
    "E05": Case(option(Option.STRUCTURED_REPLY, lambda _c, _data, _replies: list(_ACK))),
    "E06": Case(Fault(option=_no_precedence)),
    "E07": Case(Fault(export_name=lambda _connection, _name: None)),
    "E08": Case(request(_R, says(0), when=flagged(CommandFlag.PAYLOAD_LEN))),
    "E09": Case(request(_W, says(Error.EINVAL), mode="extended")),
    "E10": Case(rechunked(lambda c, _found: [status_chunk("structured", 5, [(512, 0)])], "extended")),
    "E11": Case(
        rechunked(lambda _c, found: [(kind, b"\0\0\0\x05\0\0\0\x63" + body[8:]) for kind, body in found], "extended")
    ),
    "E12": Case(rechunked(_unfiltered, "extended")),
    "E13": Case(request(_S, says(0), when=flagged(CommandFlag.PAYLOAD_LEN), mode="extended")),
    "E14": Case(flags(lambda _connection, told: told | F.BLOCK_STATUS_PAYLOAD)),
    "E15": Case(request(_R, says(Error.EIO), when=lambda _c, found: found.length > 1 << 40)),
    "E16": Case(request(_R, _swapped, when=lambda _c, found: found.length == 512, mode="extended")),
    "E17": Case(request(_R, says(Error.EIO), when=outside, mode="extended")),
    "E18": Case(option(Option.GO, enters, when=lambda data: data == b"")),
    # -- limits
    "L01": Case(Fault(patient=True), silent=True),
    "L02": Case(Fault(patient=True), silent=True),
    "L03": Case(Fault(patient=True), silent=True),
    "L04": Case(Fault(endless=True)),
    "L05": Case(Fault(any_magic=True)),
    "L06": Case(Fault(any_magic=True), silent=True),
    "L07": Case(Fault(patient=True), silent=True),
    "L08": Case(Fault(fragile=True)),
    "L09": Case(Fault(greedy=True), silent=True),
    "L10": Case(Fault(fragile=True)),
    "L11": Case(Fault(), silent=True),
    "L12": Case(Fault(), silent=True),
}
"""A fault for each check."""
