"""E: extended headers, as the branch extension-ext-header has them.

Knows: the rules of 32-byte headers, PAYLOAD_LEN, BLOCK_STATUS_EXT. Refuses to know: what compact headers share.
"""

from __future__ import annotations

from blockwright.nbd import wire
from blockwright.nbd.conformance.link import option_bytes
from blockwright.nbd.conformance.model import Level, Need, fail, rule
from blockwright.nbd.conformance.options import refused_or_ended
from blockwright.nbd.conformance.probe import Probe
from blockwright.nbd.conformance.session import Request, Session
from blockwright.nbd.conformance.status import check_contexts, extents, status_chunks
from blockwright.nbd.conformance.structured import check_bounds, check_coverage, check_overlap
from blockwright.nbd.conformance.transmission import UNKNOWN_COMMAND, pipelined_reads
from blockwright.nbd.conformance.writing import expect_holds, other_bytes
from blockwright.nbd.wire import (
    BASE_ALLOCATION,
    ChunkType,
    Command,
    CommandFlag,
    Error,
    Option,
    ReplyType,
    TransmissionFlag,
)
from blockwright.units import MiB

_OPTION = "Option types (extension-ext-header)"
_REPLY = "Extended reply chunk message (extension-ext-header)"
_FLAGS = "Command flags (extension-ext-header)"
_STATUS = "Structured reply types (extension-ext-header)"
_REQUESTS = "Request types (extension-ext-header)"
_TERA = 1 << 40


@rule("E01", "EXTENDED_HEADERS with data is ERR_INVALID", Level.SHOULD, _OPTION, Need.EXTENDED)
def _with_data(probe: Probe) -> None:
    probe.haggling().ask(Option.EXTENDED_HEADERS, b"data").expect(ReplyType.ERR_INVALID)


@rule("E02", "READ is answered under extended headers, completely", Level.MUST, _REPLY, Need.EXTENDED)
def _read(probe: Probe) -> None:
    request = probe.enter("extended").ask(Command.READ, 0, probe.blocks_of(MiB)).expect(0)
    if request.simple:
        fail("extended chunks", "a simple reply")
    check_coverage(request)
    check_bounds(request)
    check_overlap(request)


@rule("E03", "a reply repeats the offset of its request", Level.MUST, _REPLY, Need.EXTENDED)
def _offset(probe: Probe) -> None:
    session = probe.enter("extended")
    block = probe.blocks_of(512)
    for offset in (0, min(block, session.size - block)):
        for chunk in session.ask(Command.READ, offset, block).chunks:
            if chunk.offset != offset:
                fail(f"the offset {offset}", f"{chunk.offset}")


@rule("E04", "no command is answered by a simple reply", Level.MUST, _REPLY, Need.EXTENDED)
def _never_simple(probe: Probe) -> None:
    session = probe.enter("extended")
    commands = [UNKNOWN_COMMAND, Command.BLOCK_STATUS]
    if TransmissionFlag.SEND_FLUSH in session.flags:
        commands.append(Command.FLUSH)
    for command in commands:
        if session.ask(command).simple:
            fail("extended chunks", f"a simple reply to command {int(command)}")


@rule("E05", "STRUCTURED_REPLY afterwards is ERR_EXT_HEADER_REQD", Level.SHOULD, _OPTION, Need.EXTENDED)
def _structured_afterwards(probe: Probe) -> None:
    link = probe.haggling()
    link.ask(Option.EXTENDED_HEADERS).expect(ReplyType.ACK)
    link.ask(Option.STRUCTURED_REPLY).expect(ReplyType.ERR_EXT_HEADER_REQD)


@rule(
    "E06",
    "extended headers win over structured replies asked for before",
    Level.MUST,
    _OPTION,
    Need.EXTENDED,
    Need.STRUCTURED,
)
def _precedence(probe: Probe) -> None:
    link = probe.haggling()
    link.ask(Option.STRUCTURED_REPLY).expect(ReplyType.ACK)
    probe.go(link, "extended").in_step()


@rule("E07", "EXPORT_NAME afterwards ends the connection", Level.ADVICE, _OPTION, Need.EXTENDED)
def _by_name(probe: Probe) -> None:
    link = probe.haggling()
    link.ask(Option.EXTENDED_HEADERS).expect(ReplyType.ACK)
    link.send(option_bytes(Option.EXPORT_NAME, probe.name))
    link.expect_end("EXPORT_NAME after extended headers")


@rule("E08", "a payload with READ is taken from the stream and EINVAL", Level.SHOULD, _FLAGS, Need.EXTENDED)
def _payload_with_read(probe: Probe) -> None:
    session = probe.enter("extended")
    payload = bytes(probe.blocks_of(512))
    request = session.ask(Command.READ, 0, len(payload), flags=CommandFlag.PAYLOAD_LEN, payload=payload)
    request.expect(Error.EINVAL)
    session.in_step()


@rule("E09", "WRITE with PAYLOAD_LEN is written", Level.MUST, _FLAGS, Need.EXTENDED, Need.WRITABLE, writes=True)
def _write(probe: Probe) -> None:
    with probe.scratch() as scratch:
        session = probe.enter("extended")
        new = other_bytes(scratch)
        session.write(scratch.offset, new).expect(0)
        expect_holds(session, scratch.offset, new, "what was written")


@rule("E10", "the status is told by BLOCK_STATUS_EXT", Level.MUST, _STATUS, Need.EXTENDED, Need.ALLOCATION)
def _status_kind(probe: Probe) -> None:
    session, request = _status(probe)
    if any(each.kind == ChunkType.BLOCK_STATUS for each in request.chunks):
        fail("BLOCK_STATUS_EXT", "BLOCK_STATUS")
    check_contexts(session, request)


def _status(probe: Probe) -> tuple[Session, Request]:
    session = probe.enter("extended", BASE_ALLOCATION)
    return session, session.ask(Command.BLOCK_STATUS, 0, probe.blocks_of(session.size)).expect(0)


@rule(
    "E11",
    "BLOCK_STATUS_EXT counts its extents right, or not at all",
    Level.MUST,
    _STATUS,
    Need.EXTENDED,
    Need.ALLOCATION,
)
def _count(probe: Probe) -> None:
    _, request = _status(probe)
    for chunk in status_chunks(request):
        found = extents(chunk)
        if chunk.kind == ChunkType.BLOCK_STATUS_EXT:
            _, count = wire.EXTENDED_STATUS_HEAD.unpack_from(chunk.payload)
            if count not in (0, len(found)):
                fail(f"a count of {len(found)}, or 0", f"{count}")
        if any(not length for length, _ in found):
            fail("extents of at least 1 byte", "one of 0")


def _filter(session: Session, probe: Probe, *ids: int) -> Request:
    payload = wire.U64.pack(probe.blocks_of(MiB)) + b"".join(wire.U32.pack(each) for each in ids)
    return session.ask(Command.BLOCK_STATUS, 0, len(payload), flags=CommandFlag.PAYLOAD_LEN, payload=payload)


@rule(
    "E12",
    "BLOCK_STATUS with a payload answers the contexts it names",
    Level.MUST,
    _REQUESTS,
    Need.PAYLOAD_FILTER,
    Need.ALLOCATION,
)
def _filtered(probe: Probe) -> None:
    session = probe.enter("extended", *probe.facts.contexts)
    for number in session.contexts:
        check_contexts(session, _filter(session, probe, number).expect(0), {number})


@rule(
    "E13",
    "a payload with unknown or repeated ids is taken from the stream and EINVAL",
    Level.MUST,
    _REQUESTS,
    Need.PAYLOAD_FILTER,
    Need.ALLOCATION,
)
def _bad_filter(probe: Probe) -> None:
    session = probe.enter("extended", BASE_ALLOCATION)
    known = next(iter(session.contexts))
    for ids in ((known ^ 0x5A5A5A5A,), (known, known)):
        _filter(session, probe, *ids).expect(Error.EINVAL)
        session.in_step()


@rule(
    "E14",
    "BLOCK_STATUS_PAYLOAD is clear without extended headers",
    Level.MUST,
    "Transmission flags (extension-ext-header)",
    Need.EXPORT,
)
def _clear(probe: Probe) -> None:
    modes = ["simple", "structured"] if probe.facts.structured else ["simple"]
    for mode in modes:
        flags = probe.enter(mode).flags
        if flags & TransmissionFlag.BLOCK_STATUS_PAYLOAD:
            fail("no NBD_FLAG_BLOCK_STATUS_PAYLOAD", f"the flags {int(flags):#06x}")


@rule("E15", "lengths over 32 bits are not cut", Level.SHOULD, "Error values", Need.EXTENDED)
def _long(probe: Probe) -> None:
    session = probe.enter("extended")
    length = _TERA + probe.blocks_of(512)
    if session.size < length:
        session.ask(Command.READ, 0, length).expect(Error.EINVAL)
        session.in_step()


@rule("E16", "many READs at once are each answered with their own data", Level.MUST, "Transmission", Need.EXTENDED)
def _pipelined(probe: Probe) -> None:
    pipelined_reads(probe, probe.enter("extended"))


@rule("E17", "a READ past the end is EINVAL", Level.SHOULD, "Error values", Need.EXTENDED)
def _past_end(probe: Probe) -> None:
    session = probe.enter("extended")
    offset, length = probe.past_end()
    session.ask(Command.READ, offset, length).expect(Error.EINVAL)
    session.in_step()


@rule("E18", "GO without data is refused after extended headers too", Level.MUST, _OPTION, Need.EXTENDED)
def _go_without_data(probe: Probe) -> None:
    link = probe.haggling()
    link.ask(Option.EXTENDED_HEADERS).expect(ReplyType.ACK)
    refused_or_ended(link, Option.GO, option_bytes(Option.GO))
