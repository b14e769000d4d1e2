"""The client's side of the handshake, as generators of steps.

``enter`` ends in transmission; ``describe`` and ``listing`` ask and stay in the handshake. All begin with the
greeting, and with TLS where it is wanted: nothing is said in the clear then but the request for TLS, and a server
that refuses it is not talked to.

Knows: which options are asked in which order, and what their answers must look like. Refuses to know: sockets,
and transmission.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from blockwright.errors import NotFound, Refused, RemoteProtocolError
from blockwright.nbd.protocol.option import (
    Answer,
    ask,
    error_name,
    packed_infos,
    packed_queries,
    text_of,
)
from blockwright.nbd.protocol.session import BlockSizes, ExportInfo, Session
from blockwright.nbd.protocol.steps import Handshake, Send, Skip, StartTls, receive
from blockwright.nbd.wire import (
    BASE_ALLOCATION,
    CLIENT_FLAGS,
    EXPORT_NAME_PADDING,
    EXPORT_NAME_REPLY,
    INFO_BLOCK_SIZE,
    INFO_EXPORT,
    INIT_MAGIC,
    OLDSTYLE_MAGIC,
    OPTION,
    OPTION_MAGIC,
    U16,
    U32,
    U64,
    HandshakeFlag,
    InfoType,
    Option,
    ReplyType,
    TransmissionFlag,
)
from blockwright.units import MAX_SIZE, KiB

ABORT: Final = OPTION.pack(OPTION_MAGIC, Option.ABORT, 0)
"""Ends a handshake. Whoever sends it need not wait for the answer."""

MAX_MINIMUM_BLOCK: Final = 64 * KiB
"""The largest minimum block that a server may advertise."""

MAX_DETAILED: Final = 1000
"""Exports of a list of which more than the name is asked, each by an exchange of its own."""

_ALL_INFOS: Final = (InfoType.NAME, InfoType.DESCRIPTION, InfoType.BLOCK_SIZE)
_KNOWN_FLAGS: Final = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asks of a server.

    ``tls`` is required where it is true and never begun where it is not; ``host`` is the name that the certificate
    must carry. ``contexts`` are the meta contexts to select. ``framing`` is the most that is asked for, and what the
    server has of it is taken.
    """

    export: str = ""
    tls: bool = False
    host: str | None = None
    contexts: tuple[str, ...] = (BASE_ALLOCATION,)
    framing: Literal["simple", "structured", "extended"] = "extended"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What is settled before the first option: ``fixed`` allows options at all, ``padded`` adds zeros."""

    fixed: bool
    padded: bool
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """What a server tells of an export: the session it would have, and every meta context it knows there.

    ``entered`` says that there was no other way to ask than to begin transmission.
    """

    session: Session
    contexts: tuple[str, ...]
    greeting: Greeting
    entered: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """A name that a server lists; ``info`` is None where it tells no more, and ``problem`` has its reason."""

    name: str
    description: str = ""
    info: ExportInfo | None = None
    problem: str = ""


def enter(wanted: Wanted) -> Handshake[Session]:
    """Negotiate all that both sides have and begin transmission on the export; return the session.

    Raises NotFound where the server has no such export, Refused with its reason, RemoteProtocolError.
    """
    greeting = yield from _greet(wanted)
    if not greeting.fixed:
        return Session((yield from _export_name(wanted, greeting)), tls=greeting.tls)
    session = yield from _framing(wanted, greeting)
    if session.structured and wanted.contexts:
        session = replace(session, contexts=(yield from _select(wanted)))
    answer = yield from _info(Option.GO, wanted.export, (InfoType.BLOCK_SIZE,))
    if answer.error == ReplyType.ERR_UNSUP and not session.extended:
        # Contexts hold for the GO that they were set for.
        return replace(session, export=(yield from _export_name(wanted, greeting)), contexts={})
    return replace(session, export=_export_of(answer, wanted.export))


def describe(wanted: Wanted) -> Handshake[Description]:
    """Return what the server tells of the export. The connection is at its end then: ABORT, or DISC if entered.

    Raises as ``enter`` does.
    """
    greeting = yield from _greet(wanted)
    if not greeting.fixed:
        export = yield from _export_name(wanted, greeting)
        return Description(Session(export, tls=greeting.tls), (), greeting, entered=True)
    session = yield from _framing(wanted, greeting)
    names: tuple[str, ...] = ()
    if session.structured:
        listed = yield from ask(
            Option.LIST_META_CONTEXT, packed_queries(wanted.export, ()), kind=ReplyType.META_CONTEXT
        )
        names = tuple(name for _, name in map(_context, listed.replies))
    answer = yield from _info(Option.INFO, wanted.export, _ALL_INFOS)
    if answer.error == ReplyType.ERR_UNSUP and not session.extended:
        export = yield from _export_name(wanted, greeting)
        return Description(replace(session, export=export), names, greeting, entered=True)
    return Description(replace(session, export=_export_of(answer, wanted.export)), names, greeting)


def listing(wanted: Wanted, *, details: bool = True) -> Handshake[tuple[Listed, ...]]:
    """Return what the server lists, with ``details`` as INFO tells them for the first MAX_DETAILED.

    The connection waits for ABORT then. Raises Refused where the server lists nothing by policy or cannot,
    RemoteProtocolError.
    """
    greeting = yield from _greet(wanted)
    if not greeting.fixed:
        raise Refused("list: the server's handshake has no options (it is not fixed newstyle)")
    answer = yield from ask(Option.LIST, kind=ReplyType.SERVER)
    if answer.error:
        raise _refusal("list", answer)
    found = [_listed(reply) for reply in answer.replies]
    if not details:
        return tuple(found)
    for index, each in enumerate(found[:MAX_DETAILED]):
        answer = yield from _info(Option.INFO, each.name, _ALL_INFOS)
        if answer.error:
            found[index] = replace(each, problem=_reason(answer))
        else:
            info = _export_of(answer, each.name)
            found[index] = replace(each, info=info, description=each.description or info.description)
    return tuple(found)


# -- the beginning ---------------------------------------------------------------------------------------------


def _greet(wanted: Wanted) -> Handshake[Greeting]:
    """Read the greeting, answer it, and begin TLS where it is wanted."""
    magic = U64.unpack((yield from receive(U64.size)))[0]
    if magic != INIT_MAGIC:
        raise RemoteProtocolError(f"greeting: expected the magic {INIT_MAGIC:#x}, found {magic:#x}: no NBD server")
    magic = U64.unpack((yield from receive(U64.size)))[0]
    if magic == OLDSTYLE_MAGIC:
        raise RemoteProtocolError(
            "greeting: the server speaks the oldstyle handshake, which has no options and no names: expected newstyle"
        )
    if magic != OPTION_MAGIC:
        raise RemoteProtocolError(f"greeting: expected the magic {OPTION_MAGIC:#x}, found {magic:#x}")
    offered = HandshakeFlag(U16.unpack((yield from receive(U16.size)))[0] & _KNOWN_FLAGS)
    if not offered & HandshakeFlag.FIXED_NEWSTYLE and wanted.tls:
        raise Refused("TLS: the server's handshake has no options (it is not fixed newstyle), so no TLS")
    yield Send(CLIENT_FLAGS.pack(offered))
    greeting = Greeting(
        fixed=bool(offered & HandshakeFlag.FIXED_NEWSTYLE), padded=not offered & HandshakeFlag.NO_ZEROES
    )
    if not wanted.tls:
        return greeting
    answer = yield from ask(Option.STARTTLS)
    if answer.error:
        raise Refused(f"TLS: the address asks for it and the server refuses: {_reason(answer)}")
    yield StartTls(wanted.host)
    return replace(greeting, tls=True)


def _framing(wanted: Wanted, greeting: Greeting) -> Handshake[Session]:
    """Agree on the best framing of replies that both have; the session's export is not known yet."""
    session = Session(ExportInfo(wanted.export, 0, TransmissionFlag(0)), tls=greeting.tls)
    if wanted.framing == "extended":
        answer = yield from ask(Option.EXTENDED_HEADERS)
        if not answer.error:
            return replace(session, structured=True, extended=True)
        _check_usable("extended headers", answer)
    if wanted.framing != "simple":
        answer = yield from ask(Option.STRUCTURED_REPLY)
        if not answer.error:
            return replace(session, structured=True)
        _check_usable("structured replies", answer)
    return session


def _check_usable(what: str, answer: Answer) -> None:
    """Raise Refused for the errors after which no other option helps."""
    if answer.error in (ReplyType.ERR_TLS_REQD, ReplyType.ERR_SHUTDOWN):
        raise _refusal(what, answer)


def _select(wanted: Wanted) -> Handshake[dict[int, str]]:
    data = packed_queries(wanted.export, wanted.contexts)
    answer = yield from ask(Option.SET_META_CONTEXT, data, kind=ReplyType.META_CONTEXT)
    if answer.error:
        return {}  # without the option, without such an export: GO will tell
    contexts: dict[int, str] = {}
    for number, name in map(_context, answer.replies):
        if name not in wanted.contexts:
            raise RemoteProtocolError(f"meta context: expected one of those asked for, found {name[:200]!r}")
        if number in contexts or name in contexts.values():
            raise RemoteProtocolError(f"meta context: expected each once, found {name[:200]!r} (id {number}) again")
        contexts[number] = name
    return contexts


def _context(reply: bytes) -> tuple[int, str]:
    if len(reply) < U32.size:
        raise RemoteProtocolError(f"meta context: expected at least {U32.size} bytes, found {len(reply)}")
    return U32.unpack_from(reply)[0], text_of(reply[U32.size :], "meta context")


# -- exports ---------------------------------------------------------------------------------------------------


def _info(option: Option, name: str, infos: tuple[InfoType, ...]) -> Handshake[Answer]:
    return (yield from ask(option, packed_infos(name, infos), kind=ReplyType.INFO))


def _export_name(wanted: Wanted, greeting: Greeting) -> Handshake[ExportInfo]:
    """Begin transmission in the way that cannot fail but by being hung up on."""
    name = wanted.export.encode("utf-8", "surrogateescape")
    yield Send(OPTION.pack(OPTION_MAGIC, Option.EXPORT_NAME, len(name)) + name)
    size, flags = EXPORT_NAME_REPLY.unpack((yield from receive(EXPORT_NAME_REPLY.size)))
    if greeting.padded:
        yield Skip(EXPORT_NAME_PADDING)
    return ExportInfo(wanted.export, _checked_size(size), TransmissionFlag(flags))


def _export_of(answer: Answer, name: str) -> ExportInfo:
    """Return the export that INFO or GO tells of, or raise what its error means."""
    if answer.error == ReplyType.ERR_UNKNOWN:
        raise NotFound(
            f"export {name!r}: the server has no such export" + (f": {answer.text}" if answer.text else "")
        )
    if answer.error:
        raise _refusal(f"export {name!r}", answer)
    found: tuple[int, int] | None = None
    blocks: BlockSizes | None = None
    told, description = name, ""
    for reply in answer.replies:
        if len(reply) < U16.size:
            raise RemoteProtocolError(f"export info: expected at least {U16.size} bytes, found {len(reply)}")
        kind = U16.unpack_from(reply)[0]
        if kind == InfoType.EXPORT:
            _check_length("export info", reply, INFO_EXPORT.size)
            found = INFO_EXPORT.unpack(reply)[1:]
        elif kind == InfoType.BLOCK_SIZE:
            _check_length("block sizes", reply, INFO_BLOCK_SIZE.size)
            blocks = _checked_blocks(*INFO_BLOCK_SIZE.unpack(reply)[1:])
        elif kind == InfoType.NAME:
            told = text_of(reply[U16.size :], "export name")
        elif kind == InfoType.DESCRIPTION:
            description = text_of(reply[U16.size :], "export description")
    if found is None:
        raise RemoteProtocolError("export info: expected size and flags before the ACK, found none (NBD_OPT_GO)")
    size, flags = found
    return ExportInfo(told, _checked_size(size), TransmissionFlag(flags), blocks, description)


def _listed(reply: bytes) -> Listed:
    length = U32.unpack_from(reply)[0] if len(reply) >= U32.size else None
    if length is None or length > len(reply) - U32.size:
        raise RemoteProtocolError(f"list: expected a name of at most {len(reply) - U32.size} bytes, found {length}")
    name, description = reply[U32.size : U32.size + length], reply[U32.size + length :]
    return Listed(text_of(name, "export name"), text_of(description, "export description"))


def _check_length(what: str, reply: bytes, expected: int) -> None:
    if len(reply) != expected:
        raise RemoteProtocolError(f"{what}: expected {expected} bytes, found {len(reply)}")


def _checked_size(size: int) -> int:
    if size > MAX_SIZE:
        raise RemoteProtocolError(f"export size: expected at most {MAX_SIZE} bytes, found {size}")
    return size


def _checked_blocks(minimum: int, preferred: int, maximum: int) -> BlockSizes:
    """Hold what a server says of its blocks to "Block size constraints"."""
    sound = 1 <= minimum <= MAX_MINIMUM_BLOCK and not minimum & (minimum - 1)
    sound = sound and preferred >= minimum and not preferred & (preferred - 1)
    sound = sound and maximum >= minimum and (maximum == 0xFFFFFFFF or not maximum % minimum)
    if not sound:
        raise RemoteProtocolError(
            f"block sizes: expected powers of two, the minimum up to {MAX_MINIMUM_BLOCK} and the maximum a multiple "
            f"of it, found {minimum}, {preferred}, {maximum} (Block size constraints)"
        )
    return BlockSizes(minimum, preferred, maximum)


def _refusal(what: str, answer: Answer) -> Refused:
    hint = "; nbds:// asks for TLS" if answer.error == ReplyType.ERR_TLS_REQD else ""
    return Refused(f"{what}: the server refuses: {_reason(answer)}{hint}")


def _reason(answer: Answer) -> str:
    return error_name(answer.error) + (f": {answer.text}" if answer.text else "")
