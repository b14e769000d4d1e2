"""W: all that writes. Each check puts back what the export held.

Knows: sections "Request types", "Command flags" and "Error values" for WRITE, TRIM, WRITE_ZEROES, RESIZE.
Refuses to know: structured replies.
"""

from __future__ import annotations

from blockwright.nbd.conformance.model import Level, Need, fail, rule
from blockwright.nbd.conformance.probe import Probe, Scratch
from blockwright.nbd.conformance.session import Session
from blockwright.nbd.conformance.transmission import UNKNOWN_FLAG
from blockwright.nbd.wire import Command, CommandFlag, Error, TransmissionFlag
from blockwright.units import KiB

_ERRORS = "Error values"
_TYPES = "Request types"
_FLAGS = "Command flags"


def other_bytes(scratch: Scratch) -> bytes:
    """Return bytes that differ from what the range holds in every place, and are not 0."""
    return bytes(each ^ 0xFF or 0x55 for each in scratch.before)


def expect_holds(session: Session, offset: int, data: bytes, what: str) -> None:
    """Fail unless the export holds ``data``; where that is no bytes, nothing is asked."""
    if not data:
        return
    found = session.read(offset, len(data))
    if found != data:
        place = next(number for number, pair in enumerate(zip(found, data, strict=True)) if pair[0] != pair[1])
        fail(f"{what}", f"{found[place]:#04x} for {data[place]:#04x} at {offset + place}")


def _two(probe: Probe) -> tuple[Session, Session]:
    first = probe.enter()
    with probe.beside():
        return first, probe.enter()


def _middle(probe: Probe, scratch: Scratch) -> slice:
    """Return the part of a range that has at least a block on each side, the whole where there is no room."""
    block = probe.blocks_of(512)
    return slice(block, scratch.length - block) if scratch.length >= 3 * block else slice(0, scratch.length)


@rule(
    "W01",
    "a READ gives what a WRITE wrote, and its neighbours are untouched",
    Level.MUST,
    _TYPES,
    Need.WRITABLE,
    writes=True,
)
def _write(probe: Probe) -> None:
    _write_with(probe, 0)


def _write_with(probe: Probe, flags: int) -> None:
    with probe.scratch() as scratch:
        session = probe.enter()
        part = _middle(probe, scratch)
        new = other_bytes(scratch)[part]
        session.write(scratch.offset + part.start, new, flags=flags).expect(0)
        whole = scratch.before[: part.start] + new + scratch.before[part.stop :]
        expect_holds(session, scratch.offset, whole, "what was written, and nothing else changed")


@rule("W02", "a WRITE past the end is ENOSPC", Level.SHOULD, _ERRORS, Need.WRITABLE, writes=True)
def _past_end(probe: Probe) -> None:
    _refuse_past_end(probe, Error.ENOSPC)


def _refuse_past_end(probe: Probe, *errors: Error) -> None:
    offset, length = probe.past_end()
    with probe.kept(offset, length // 2) as kept:
        session = probe.enter()
        reply = session.write(offset, kept.before * 2)
        reply.expect(*errors) if errors else reply.expect_error()
        session.in_step()


@rule(
    "W03",
    "a WRITE past the end is refused, and its payload is not taken for requests",
    Level.MUST,
    "Request message",
    Need.WRITABLE,
    writes=True,
)
def _payload_consumed(probe: Probe) -> None:
    _refuse_past_end(probe)


@rule(
    "W04",
    "NO_HOLE, DF, REQ_ONE and FAST_ZERO with WRITE are EINVAL",
    Level.SHOULD,
    _ERRORS,
    Need.WRITABLE,
    writes=True,
)
def _other_flags(probe: Probe) -> None:
    for flag in (CommandFlag.NO_HOLE, CommandFlag.DF, CommandFlag.REQ_ONE, CommandFlag.FAST_ZERO):
        _refuse_flag(probe, flag)


@rule("W05", "an unknown flag with WRITE is EINVAL", Level.SHOULD, _ERRORS, Need.WRITABLE, writes=True)
def _unknown_flag(probe: Probe) -> None:
    _refuse_flag(probe, UNKNOWN_FLAG)


def _refuse_flag(probe: Probe, flag: int) -> None:
    with probe.scratch(4 * KiB) as scratch:
        session = probe.enter()
        session.write(scratch.offset, scratch.before, flags=flag).expect(Error.EINVAL)
        session.in_step()


@rule("W06", "WRITE with FUA is served", Level.MUST, _FLAGS, Need.WRITABLE, Need.FUA, writes=True)
def _fua(probe: Probe) -> None:
    _write_with(probe, CommandFlag.FUA)


@rule("W07", "a WRITE of no bytes does not end the connection", Level.SHOULD, _TYPES, Need.WRITABLE, writes=True)
def _empty(probe: Probe) -> None:
    session = probe.enter()
    session.write(0, b"")
    session.in_step()


@rule(
    "W08",
    "what WRITE_ZEROES zeroed reads as zeros, and its neighbours are untouched",
    Level.MUST,
    _TYPES,
    Need.WRITABLE,
    Need.ZEROES,
    writes=True,
)
def _zeroes(probe: Probe) -> None:
    _zero_with(probe, 0)


@rule("W09", "WRITE_ZEROES with NO_HOLE is served", Level.MUST, _FLAGS, Need.WRITABLE, Need.ZEROES, writes=True)
def _zeroes_no_hole(probe: Probe) -> None:
    _zero_with(probe, CommandFlag.NO_HOLE)


@rule("W10", "WRITE_ZEROES with FUA is served", Level.MUST, _FLAGS, Need.WRITABLE, Need.ZEROES, Need.FUA, writes=True)
def _zeroes_fua(probe: Probe) -> None:
    _zero_with(probe, CommandFlag.FUA)


def _zero_with(probe: Probe, flags: int) -> None:
    with probe.scratch() as scratch:
        session = probe.enter()
        part, data = _filled(probe, session, scratch)
        session.ask(Command.WRITE_ZEROES, scratch.offset + part.start, part.stop - part.start, flags=flags).expect(0)
        whole = data[: part.start] + bytes(part.stop - part.start) + data[part.stop :]
        expect_holds(session, scratch.offset, whole, "zeros, and nothing else changed")


def _filled(probe: Probe, session: Session, scratch: Scratch) -> tuple[slice, bytes]:
    """Fill a range with bytes that are not 0; return the part to work on, and what was written."""
    data = other_bytes(scratch)
    session.write(scratch.offset, data).expect(0)
    return _middle(probe, scratch), data


@rule("W11", "WRITE_ZEROES past the end is ENOSPC", Level.SHOULD, _TYPES, Need.WRITABLE, Need.ZEROES, writes=True)
def _zeroes_past_end(probe: Probe) -> None:
    offset, length = probe.past_end()
    with probe.kept(offset, length // 2):
        session = probe.enter()
        session.ask(Command.WRITE_ZEROES, offset, length).expect(Error.ENOSPC)


@rule(
    "W12",
    "WRITE_ZEROES with FAST_ZERO zeroes, or is ENOTSUP and changes nothing",
    Level.MUST,
    _TYPES,
    Need.WRITABLE,
    Need.FAST_ZERO,
    writes=True,
)
def _fast_zero(probe: Probe) -> None:
    with probe.scratch() as scratch:
        session = probe.enter()
        part, data = _filled(probe, session, scratch)
        length = part.stop - part.start
        reply = session.ask(Command.WRITE_ZEROES, scratch.offset + part.start, length, flags=CommandFlag.FAST_ZERO)
        reply.expect(0, Error.ENOTSUP)
        if not reply.error:
            data = data[: part.start] + bytes(length) + data[part.stop :]
        expect_holds(session, scratch.offset, data, f"what follows from {reply.outcome}")


@rule(
    "W13",
    "FAST_ZERO that is not advertised is EINVAL",
    Level.SHOULD,
    _TYPES,
    Need.WRITABLE,
    Need.NO_FAST_ZERO,
    writes=True,
)
def _no_fast_zero(probe: Probe) -> None:
    with probe.scratch(4 * KiB) as scratch:
        session = probe.enter()
        flags = CommandFlag.FAST_ZERO
        session.ask(Command.WRITE_ZEROES, scratch.offset, scratch.length, flags=flags).expect(Error.EINVAL)


@rule(
    "W14",
    "TRIM is served, and its neighbours are untouched",
    Level.MUST,
    "Transmission flags",
    Need.WRITABLE,
    Need.TRIM,
    writes=True,
)
def _trim(probe: Probe) -> None:
    _trim_with(probe, 0)


@rule("W15", "TRIM with FUA is served", Level.MUST, _FLAGS, Need.WRITABLE, Need.TRIM, Need.FUA, writes=True)
def _trim_fua(probe: Probe) -> None:
    _trim_with(probe, CommandFlag.FUA)


def _trim_with(probe: Probe, flags: int) -> None:
    with probe.scratch() as scratch:
        session = probe.enter()
        part, data = _filled(probe, session, scratch)
        session.ask(Command.TRIM, scratch.offset + part.start, part.stop - part.start, flags=flags).expect(0)
        expect_holds(session, scratch.offset, data[: part.start], "the bytes in front of what was trimmed")
        expect_holds(session, scratch.offset + part.stop, data[part.stop :], "the bytes behind what was trimmed")


@rule("W16", "TRIM past the end is EINVAL", Level.SHOULD, _ERRORS, Need.WRITABLE, Need.TRIM, writes=True)
def _trim_past_end(probe: Probe) -> None:
    offset, length = probe.past_end()
    with probe.kept(offset, length // 2):
        session = probe.enter()
        session.ask(Command.TRIM, offset, length).expect(Error.EINVAL)


@rule("W17", "NO_HOLE with TRIM is EINVAL", Level.SHOULD, _ERRORS, Need.WRITABLE, Need.TRIM, writes=True)
def _trim_flag(probe: Probe) -> None:
    with probe.scratch(4 * KiB) as scratch:
        session = probe.enter()
        flags = CommandFlag.NO_HOLE
        session.ask(Command.TRIM, scratch.offset, scratch.length, flags=flags).expect(Error.EINVAL)


@rule(
    "W18",
    "TRIM and WRITE_ZEROES of no bytes do not end the connection",
    Level.SHOULD,
    _TYPES,
    Need.WRITABLE,
    writes=True,
)
def _empty_others(probe: Probe) -> None:
    session = probe.enter()
    for command, flag in (
        (Command.TRIM, TransmissionFlag.SEND_TRIM),
        (Command.WRITE_ZEROES, TransmissionFlag.SEND_WRITE_ZEROES),
    ):
        if flag in session.flags:
            session.ask(command)
            session.in_step()


@rule(
    "W19",
    "a read-only export refuses WRITE, and its payload is not taken for requests",
    Level.MUST,
    "Transmission flags",
    Need.READ_ONLY,
    writes=True,
)
def _read_only(probe: Probe) -> None:
    session = probe.enter()
    data = session.read(0, probe.blocks_of(4 * KiB))
    session.write(0, data).expect_error()
    session.in_step()


@rule(
    "W20",
    "a read-only export answers WRITE, TRIM and WRITE_ZEROES with EPERM",
    Level.SHOULD,
    _ERRORS,
    Need.READ_ONLY,
    writes=True,
)
def _eperm(probe: Probe) -> None:
    session = probe.enter()
    data = session.read(0, probe.blocks_of(512))
    session.write(0, data).expect(Error.EPERM)
    for command, flag in (
        (Command.TRIM, TransmissionFlag.SEND_TRIM),
        (Command.WRITE_ZEROES, TransmissionFlag.SEND_WRITE_ZEROES),
    ):
        if flag in session.flags:
            session.ask(command, 0, len(data)).expect(Error.EPERM)


@rule(
    "W21",
    "what was flushed on one connection is seen on another",
    Level.MUST,
    "Transmission flags",
    Need.WRITABLE,
    Need.MULTI_CONN,
    Need.MANY,
    Need.FLUSH,
    writes=True,
)
def _multi_conn(probe: Probe) -> None:
    with probe.scratch() as scratch:
        writer, reader = _two(probe)
        reader.read(scratch.offset, scratch.length)  # so that a cache of its own would hold it
        writer.write(scratch.offset, other_bytes(scratch)).expect(0)
        writer.ask(Command.FLUSH).expect(0)
        expect_holds(reader, scratch.offset, other_bytes(scratch), "what the other connection wrote")


@rule(
    "W22",
    "what was written with FUA on one connection is seen on another",
    Level.MUST,
    "Transmission flags",
    Need.WRITABLE,
    Need.MULTI_CONN,
    Need.MANY,
    Need.FUA,
    writes=True,
)
def _multi_conn_fua(probe: Probe) -> None:
    with probe.scratch() as scratch:
        writer, reader = _two(probe)
        reader.read(scratch.offset, scratch.length)
        writer.write(scratch.offset, other_bytes(scratch), flags=CommandFlag.FUA).expect(0)
        expect_holds(reader, scratch.offset, other_bytes(scratch), "what the other connection wrote")


@rule(
    "W23",
    "a WRITE that is not aligned to the minimum block is EINVAL",
    Level.SHOULD,
    _ERRORS,
    Need.WRITABLE,
    Need.COARSE_BLOCKS,
    writes=True,
)
def _unaligned(probe: Probe) -> None:
    with probe.scratch(4 * KiB) as scratch:
        session = probe.enter()
        half = probe.blocks_of(1) // 2
        session.write(scratch.offset, scratch.before[:half]).expect(Error.EINVAL)
        session.in_step()


@rule(
    "W24",
    "a WRITE whose end is over 64 bits is refused, and its payload is not taken for requests",
    Level.MUST,
    "Request message",
    Need.WRITABLE,
    writes=True,
)
def _overflow(probe: Probe) -> None:
    length = probe.blocks_of(4 * KiB)
    with probe.kept(0, length) as kept:  # where an offset that wrapped around would lead
        session = probe.enter()
        session.write((1 << 64) - length, kept.before * 2).expect_error()
        session.in_step()


@rule(
    "W25",
    "RESIZE that is not advertised is EINVAL",
    Level.SHOULD,
    _ERRORS,
    Need.WRITABLE,
    Need.RESIZE_UNKNOWN,
    writes=True,
)
def _resize(probe: Probe) -> None:
    session = probe.enter()
    session.ask(Command.RESIZE, session.size).expect(Error.EINVAL)  # to the size it has
    session.in_step()


@rule(
    "W26", "a payload that arrives byte by byte is written", Level.MUST, "Request message", Need.WRITABLE, writes=True
)
def _dripping(probe: Probe) -> None:
    with probe.scratch(512) as scratch:
        session = probe.enter()
        new = other_bytes(scratch)
        cookie, data = session.prepare(Command.WRITE, scratch.offset, len(new), payload=new)
        session.link.drip(data[:64])
        session.link.send(data[64:])
        session.collect(cookie).expect(0)
        expect_holds(session, scratch.offset, new, "what was written")


@rule("W27", "many WRITEs at once are each done and answered", Level.MUST, "Transmission", Need.WRITABLE, writes=True)
def _pipelined(probe: Probe) -> None:
    with probe.scratch() as scratch:
        session = probe.enter()
        block, new = probe.blocks_of(512), other_bytes(scratch)
        requests = [
            session.prepare(Command.WRITE, scratch.offset + start, block, payload=new[start : start + block])
            for start in range(0, scratch.length - block + 1, block)
        ]
        session.link.send(b"".join(data for _, data in requests))
        for cookie, _ in requests:
            session.collect(cookie).expect(0)
        length = len(requests) * block
        expect_holds(session, scratch.offset, new[:length], "what was written")
