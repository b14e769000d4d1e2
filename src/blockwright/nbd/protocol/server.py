"""The server's side of the handshake, "Newstyle negotiation" and "Option types" of doc/proto.md, without I/O.

Knows: what may be asked in which state, and how it is answered. Refuses to know: where exports come from
(``Offers``), sockets, and TLS itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Protocol

from blockwright.errors import ProtocolError, RemoteProtocolError
from blockwright.nbd import wire
from blockwright.nbd.protocol.session import BlockSizes, ExportInfo, Session
from blockwright.nbd.protocol.steps import Handshake, Identity, Send, Skip, StartTls, Step, receive
from blockwright.nbd.wire import HandshakeFlag, InfoType, Option, ReplyType, TransmissionFlag
from blockwright.units import KiB

MAX_OPTION: Final = 64 * KiB
"""Bytes of one option's data: a name and some dozen queries of the longest kind."""
MAX_QUERIES: Final = 64
"""Queries of one meta context option."""

_OFFERED: Final = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
_Steps = Generator[Step, "bytes | Identity | None", None]
_Answer = Callable[[bytes], _Steps]


class Tls(Enum):
    """Whether clients may, must or cannot use TLS."""

    OFF = "off"
    ALLOW = "allow"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class HandshakeLimits:
    """What one handshake may cost: options in all, and bytes of their data in all."""

    options: int = 128
    bytes: int = 256 * KiB


class OptionRefused(ProtocolError):
    """An option is answered with an error: ``reply`` and a text for the client."""

    def __init__(self, reply: ReplyType, message: str) -> None:
        super().__init__(message)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Offer:
    """An export as this client gets it, and the meta contexts that it has."""

    info: ExportInfo
    contexts: tuple[str, ...] = (wire.BASE_ALLOCATION,)


class Offers(Protocol):
    """The exports, as far as this client may know of them."""

    def listed(self) -> Iterable[tuple[str, str]]:
        """Return (name, description) of each export that the client may see."""

    def find(self, name: str) -> Offer:
        """Return the export; opens what it stands on. Raises OptionRefused."""

    def begin(self, info: ExportInfo) -> None:
        """Count a session on an export that was found: the client hears next that it has it. Raises OptionRefused."""

    def authenticated(self, identity: Identity) -> None:
        """Take note of who the client proved to be, inside TLS."""

    def refused(self, option: int, reply: ReplyType, message: str) -> None:
        """Take note that the client was refused something."""

    @property
    def stopping(self) -> bool:
        """Whether the server is about to end."""


@dataclass(slots=True)
class _State:
    """What was negotiated so far; STARTTLS forgets all of it."""

    structured: bool = False
    extended: bool = False
    contexts_of: str | None = None
    contexts: dict[int, str] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)


def handshake(
    offers: Offers, *, tls: Tls = Tls.OFF, limits: HandshakeLimits | None = None
) -> Handshake[Session | None]:
    """Negotiate with a client; the result is the session, or None where the client ended it by ABORT.

    Raises RemoteProtocolError for a client that breaks the rules or goes over the limits, and OptionRefused where the
    only way to refuse is to hang up.
    """
    yield Send(wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, _OFFERED))
    (flags,) = wire.CLIENT_FLAGS.unpack((yield from receive(wire.CLIENT_FLAGS.size)))
    if flags & ~int(_OFFERED):  # the complement of a flag has only bits that its class names
        raise RemoteProtocolError(f"client flags: expected at most {int(_OFFERED):#x}, found {flags:#x}")
    session = yield from _Server(offers, tls, limits or HandshakeLimits(), HandshakeFlag(flags)).options()
    return session


class _Server:
    """One handshake behind its greeting."""

    def __init__(self, offers: Offers, tls: Tls, limits: HandshakeLimits, client: HandshakeFlag) -> None:
        self._offers = offers
        self._tls = tls
        self._limits = limits
        self._client = client
        self._state = _State()
        self._encrypted = False
        self._answers: dict[int, _Answer] = {
            Option.LIST: self._list,
            Option.STARTTLS: self._start_tls,
            Option.INFO: self._info,
            Option.STRUCTURED_REPLY: self._structured_reply,
            Option.LIST_META_CONTEXT: self._list_meta_context,
            Option.SET_META_CONTEXT: self._set_meta_context,
            Option.EXTENDED_HEADERS: self._extended_headers,
        }

    def options(self) -> Handshake[Session | None]:
        """Answer options until one of them ends the handshake."""
        spent = 0
        for _ in range(self._limits.options):
            magic, option, length = wire.OPTION.unpack((yield from receive(wire.OPTION.size)))
            if magic != wire.OPTION_MAGIC:
                raise RemoteProtocolError(f"option: expected {wire.OPTION_MAGIC:#x}, found {magic:#x}")
            spent += length
            if length > MAX_OPTION or spent > self._limits.bytes:
                raise RemoteProtocolError(
                    f"option {option}: expected at most {min(MAX_OPTION, self._limits.bytes)} bytes, found {length}"
                )
            if not self._client & HandshakeFlag.FIXED_NEWSTYLE and option != Option.EXPORT_NAME:
                raise RemoteProtocolError(
                    f"option {option}: expected EXPORT_NAME of a client that is not fixed newstyle"
                )
            if option == Option.ABORT:
                yield Skip(length)
                yield _reply(option, ReplyType.ACK)
                return None
            if option == Option.EXPORT_NAME:
                return (yield from self._export_name((yield from receive(length))))
            session = yield from self._answer(option, length)
            if session is not None:
                return session
        raise RemoteProtocolError(f"handshake: expected at most {self._limits.options} options, found more")

    def _answer(self, option: int, length: int) -> Handshake[Session | None]:
        """Answer an option that can be refused."""
        try:
            if self._tls is Tls.REQUIRE and not self._encrypted and option != Option.STARTTLS:
                yield Skip(length)  # of an option that nobody knows, too: "FORCEDTLS mode"
                raise OptionRefused(ReplyType.ERR_TLS_REQD, "TLS comes first: use STARTTLS")
            if option not in self._answers and option != Option.GO:
                yield Skip(length)
                raise OptionRefused(ReplyType.ERR_UNSUP, f"option {option} is not known")
            data = yield from receive(length)
            if self._offers.stopping:
                raise OptionRefused(ReplyType.ERR_SHUTDOWN, "the server is shutting down")
            if option == Option.GO:
                return (yield from self._go(data))
            yield from self._answers[option](data)
        except OptionRefused as refused:
            self._offers.refused(option, refused.reply, str(refused))
            yield _reply(option, refused.reply, str(refused).encode()[: wire.MAX_STRING])
        return None

    # -- one option each -------------------------------------------------------------------------------------

    def _export_name(self, data: bytes) -> Handshake[Session | None]:
        if self._tls is Tls.REQUIRE and not self._encrypted:
            raise OptionRefused(ReplyType.ERR_TLS_REQD, "EXPORT_NAME: TLS comes first")
        if self._state.extended:
            raise OptionRefused(ReplyType.ERR_INVALID, "EXPORT_NAME: cannot be used with extended headers")
        if self._offers.stopping:
            raise OptionRefused(ReplyType.ERR_SHUTDOWN, "EXPORT_NAME: the server is shutting down")
        name = _name(data)
        session = self._session(name, self._offer(name))
        self._offers.begin(session.export)
        padding = b"" if self._client & HandshakeFlag.NO_ZEROES else bytes(wire.EXPORT_NAME_PADDING)
        yield Send(wire.EXPORT_NAME_REPLY.pack(session.export.size, session.export.flags) + padding)
        return session

    def _list(self, data: bytes) -> _Steps:
        _expect_no_data(data)
        for name, description in self._offers.listed():
            encoded = name.encode()
            payload = wire.U32.pack(len(encoded)) + encoded + description.encode()
            yield _reply(Option.LIST, ReplyType.SERVER, payload)
        yield _reply(Option.LIST, ReplyType.ACK)

    def _start_tls(self, data: bytes) -> _Steps:
        _expect_no_data(data)
        if self._encrypted:
            raise OptionRefused(ReplyType.ERR_INVALID, "STARTTLS: TLS is in use already")
        if self._tls is Tls.OFF:
            raise OptionRefused(ReplyType.ERR_UNSUP, "STARTTLS: this server has no TLS")
        yield _reply(Option.STARTTLS, ReplyType.ACK)
        identity = yield StartTls()
        assert isinstance(identity, Identity), "the driver answers StartTls with an Identity"
        self._encrypted = True
        self._state = _State()
        self._offers.authenticated(identity)

    def _info(self, data: bytes) -> _Steps:
        name, wanted = _parse_info(data)
        yield from self._tell(Option.INFO, self._offer(name), wanted)
        yield _reply(Option.INFO, ReplyType.ACK)

    def _go(self, data: bytes) -> Handshake[Session | None]:
        name, wanted = _parse_info(data)
        offer = self._offer(name)
        self._offers.begin(offer.info)
        yield from self._tell(Option.GO, offer, wanted)
        yield _reply(Option.GO, ReplyType.ACK)
        return self._session(name, offer)

    def _tell(self, option: Option, offer: Offer, wanted: Sequence[int]) -> _Steps:
        info = self._told(offer)
        yield _reply(option, ReplyType.INFO, wire.INFO_EXPORT.pack(InfoType.EXPORT, info.size, info.flags))
        if InfoType.NAME in wanted:
            yield _reply(option, ReplyType.INFO, wire.U16.pack(InfoType.NAME) + info.name.encode())
        if InfoType.DESCRIPTION in wanted and info.description:
            yield _reply(option, ReplyType.INFO, wire.U16.pack(InfoType.DESCRIPTION) + info.description.encode())
        blocks = info.blocks or BlockSizes()
        if InfoType.BLOCK_SIZE in wanted or blocks.minimum > 1:
            sizes = wire.INFO_BLOCK_SIZE.pack(InfoType.BLOCK_SIZE, blocks.minimum, blocks.preferred, blocks.maximum)
            yield _reply(option, ReplyType.INFO, sizes)

    def _structured_reply(self, data: bytes) -> _Steps:
        _expect_no_data(data)
        if self._state.extended:
            raise OptionRefused(
                ReplyType.ERR_EXT_HEADER_REQD, "STRUCTURED_REPLY: extended headers are in use already"
            )
        self._state.structured = True
        yield _reply(Option.STRUCTURED_REPLY, ReplyType.ACK)

    def _extended_headers(self, data: bytes) -> _Steps:
        _expect_no_data(data)
        self._state.structured = self._state.extended = True
        yield _reply(Option.EXTENDED_HEADERS, ReplyType.ACK)

    def _list_meta_context(self, data: bytes) -> _Steps:
        name, queries = self._parse_queries(data)
        for context in self._offer(name).contexts:
            namespace = context.partition(":")[0] + ":"
            if not queries or context in queries or namespace in queries:
                payload = wire.U32.pack(0) + context.encode()
                yield _reply(Option.LIST_META_CONTEXT, ReplyType.META_CONTEXT, payload)
        yield _reply(Option.LIST_META_CONTEXT, ReplyType.ACK)

    def _set_meta_context(self, data: bytes) -> _Steps:
        self._state.contexts_of = None
        self._state.contexts = {}
        name, queries = self._parse_queries(data)
        selected = [context for context in self._offer(name).contexts if context in queries]
        self._state.contexts_of = name
        self._state.contexts = dict(enumerate(selected, 1))
        for number, context in self._state.contexts.items():
            payload = wire.U32.pack(number) + context.encode()
            yield _reply(Option.SET_META_CONTEXT, ReplyType.META_CONTEXT, payload)
        yield _reply(Option.SET_META_CONTEXT, ReplyType.ACK)

    # -- what they share -------------------------------------------------------------------------------------

    def _offer(self, name: str) -> Offer:
        """Return the export, the same each time it is asked for in one handshake."""
        found = self._state.offers.get(name)
        if found is None:
            found = self._state.offers[name] = self._offers.find(name)
        return found

    def _told(self, offer: Offer) -> ExportInfo:
        """Return the export with the flags that fit what was negotiated."""
        flags = offer.info.flags
        if not self._state.structured:
            flags &= ~TransmissionFlag.SEND_DF
        if not self._state.extended:
            flags &= ~TransmissionFlag.BLOCK_STATUS_PAYLOAD
        return replace(offer.info, flags=flags)

    def _session(self, name: str, offer: Offer) -> Session:
        """Return the session; contexts count where they were selected under the same name, which may be an alias."""
        state = self._state
        contexts = state.contexts if state.contexts_of == name else {}
        return Session(self._told(offer), state.structured, state.extended, contexts, self._encrypted)

    def _parse_queries(self, data: bytes) -> tuple[str, list[str]]:
        if not self._state.structured:
            raise OptionRefused(
                ReplyType.ERR_INVALID, "meta context: needs structured replies or extended headers first"
            )
        name, rest = _parse_name(data)
        if len(rest) < wire.U32.size:
            raise OptionRefused(ReplyType.ERR_INVALID, "meta context: the data ends before the count of queries")
        (count,) = wire.U32.unpack_from(rest)
        if count > MAX_QUERIES:
            raise OptionRefused(
                ReplyType.ERR_TOO_BIG, f"meta context: expected at most {MAX_QUERIES} queries, found {count}"
            )
        rest = rest[wire.U32.size :]
        queries = []
        for _ in range(count):
            query, rest = _parse_name(rest)
            queries.append(query)
        if rest:
            raise OptionRefused(ReplyType.ERR_INVALID, f"meta context: {len(rest)} bytes behind the last query")
        return name, queries


def _reply(option: int, reply: ReplyType, data: bytes = b"") -> Send:
    return Send(wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, reply, len(data)) + data)


def _expect_no_data(data: bytes) -> None:
    if data:
        raise OptionRefused(ReplyType.ERR_INVALID, f"the option takes no data, found {len(data)} bytes")


def _name(data: bytes) -> str:
    """Return a string of the wire. Raises OptionRefused for one that is too long, is not UTF-8 or holds a NUL."""
    if len(data) > wire.MAX_STRING:
        raise OptionRefused(
            ReplyType.ERR_TOO_BIG, f"name: expected at most {wire.MAX_STRING} bytes, found {len(data)}"
        )
    try:
        name = data.decode()
    except UnicodeDecodeError:
        raise OptionRefused(ReplyType.ERR_INVALID, "name: expected UTF-8") from None
    if "\0" in name:
        raise OptionRefused(ReplyType.ERR_INVALID, "name: holds a NUL")
    return name


def _parse_name(data: bytes) -> tuple[str, bytes]:
    """Return a string with its length in front, and what follows it."""
    if len(data) < wire.U32.size:
        raise OptionRefused(
            ReplyType.ERR_INVALID, f"name: expected a length of {wire.U32.size} bytes, found {len(data)}"
        )
    (length,) = wire.U32.unpack_from(data)
    rest = data[wire.U32.size :]
    if length > len(rest):
        raise OptionRefused(
            ReplyType.ERR_INVALID, f"name: expected at most {len(rest)} bytes, found a length of {length}"
        )
    return _name(rest[:length]), rest[length:]


def _parse_info(data: bytes) -> tuple[str, tuple[int, ...]]:
    """Return the name and the kinds of information that INFO or GO asks for."""
    name, rest = _parse_name(data)
    if len(rest) < wire.U16.size:
        raise OptionRefused(ReplyType.ERR_INVALID, "info: the data ends before the count of requests")
    (count,) = wire.U16.unpack_from(rest)
    rest = rest[wire.U16.size :]
    if len(rest) != count * wire.U16.size:
        raise OptionRefused(
            ReplyType.ERR_INVALID, f"info: expected {count * wire.U16.size} bytes of requests, found {len(rest)}"
        )
    return name, tuple(each for (each,) in wire.U16.iter_unpack(rest))
