"""T: requests and simple replies; everything that needs no write.

Knows: sections "Request message" to "Error values" for sessions where nothing more was negotiated.
Refuses to know: writing, structured replies.
"""

from __future__ import annotations

from blockwright.nbd import wire
from blockwright.nbd.conformance.facts import LARGE_READ
from blockwright.nbd.conformance.model import Ended, Level, Need, NotApplicable, fail, rule
from blockwright.nbd.conformance.probe import Probe
from blockwright.nbd.conformance.session import Session, error_name
from blockwright.nbd.wire import Command, CommandFlag, Error, TransmissionFlag
from blockwright.units import KiB, MiB

UNKNOWN_COMMAND = 0x7AB
UNKNOWN_FLAG = 1 << 14
_ERRORS = "Error values"
_TYPES = "Request types"
_FLAGS = "Command flags"
_PIPELINED = 32


def without_ending(session: Session, command: Command, offset: int = 0, length: int = 0) -> None:
    """Fail where a lawful but odd request is not answered, by success or error, or ends the connection."""
    session.ask(command, offset, length)
    session.in_step()


@rule("T01", "a reply has the cookie of its request, whatever that is", Level.MUST, "Transmission", Need.EXPORT)
def _cookies(probe: Probe) -> None:
    session = probe.enter()
    length = probe.blocks_of(512)
    for cookie in (0, 1, (1 << 64) - 1, 0x8000_0000_0000_0000, wire.U64.unpack(wire.U32.pack(0x67446698) * 2)[0]):
        _, data = session.prepare(Command.READ, 0, length, cookie=cookie)
        session.link.send(data)
        session.collect(cookie).expect(0)


@rule("T02", "replies are simple where nothing else was negotiated", Level.MUST, "Simple reply message", Need.EXPORT)
def _simple(probe: Probe) -> None:
    session = probe.enter()
    session.read(0, probe.blocks_of(4 * KiB))
    session.ask(UNKNOWN_COMMAND)


@rule("T03", "a READ past the end is EINVAL", Level.SHOULD, _ERRORS, Need.EXPORT)
def _past_end(probe: Probe) -> None:
    session = probe.enter()
    offset, length = probe.past_end()
    session.ask(Command.READ, offset, length).expect(Error.EINVAL)


@rule("T04", "a READ at the end is EINVAL", Level.SHOULD, _ERRORS, Need.EXPORT)
def _at_end(probe: Probe) -> None:
    session = probe.enter()
    offset, length = probe.past_end()
    session.ask(Command.READ, offset + length // 2, length // 2).expect(Error.EINVAL)


@rule("T05", "a READ whose end is over 64 bits is EINVAL", Level.SHOULD, _ERRORS, Need.EXPORT)
def _overflow(probe: Probe) -> None:
    session = probe.enter()
    length = probe.blocks_of(4 * KiB)
    for offset in ((1 << 64) - length, (1 << 63) - length, 1 << 63):
        session.ask(Command.READ, offset, 2 * length).expect(Error.EINVAL)


@rule("T06", "a READ of 4 GiB past the end is EINVAL", Level.SHOULD, _ERRORS, Need.EXPORT)
def _huge(probe: Probe) -> None:
    session = probe.enter()
    length = 0xFFFF_FFFF - 0xFFFF_FFFF % probe.blocks_of(1)
    if session.size >= length:
        raise NotApplicable("the export is larger than that")
    session.ask(Command.READ, 0, length).expect(Error.EINVAL)


@rule("T07", "an error in reply to READ comes without data", Level.MUST, _TYPES, Need.EXPORT)
def _error_without_data(probe: Probe) -> None:
    session = probe.enter()
    offset, length = probe.past_end()
    try:
        session.ask(Command.READ, offset, length).expect_error()
        session.in_step()
    except Ended:
        return  # it may also end the connection


@rule("T08", "an unknown command is EINVAL", Level.SHOULD, _ERRORS, Need.EXPORT)
def _unknown_command(probe: Probe) -> None:
    probe.enter().ask(UNKNOWN_COMMAND).expect(Error.EINVAL)


@rule(
    "T09", "the length of an unknown command is not taken for a payload", Level.MUST, "Request message", Need.EXPORT
)
def _no_payload(probe: Probe) -> None:
    session = probe.enter()
    session.ask(UNKNOWN_COMMAND, 0, probe.blocks_of(4 * KiB))
    session.in_step()


@rule("T10", "an unknown command flag is EINVAL", Level.SHOULD, _ERRORS, Need.EXPORT)
def _unknown_flag(probe: Probe) -> None:
    session = probe.enter()
    session.ask(Command.READ, 0, probe.blocks_of(512), flags=UNKNOWN_FLAG).expect(Error.EINVAL)
    session.in_step()


@rule("T11", "NO_HOLE, REQ_ONE and FAST_ZERO with READ are EINVAL", Level.SHOULD, _ERRORS, Need.EXPORT)
def _other_flags(probe: Probe) -> None:
    session = probe.enter()
    for flag in (CommandFlag.NO_HOLE, CommandFlag.REQ_ONE, CommandFlag.FAST_ZERO):
        session.ask(Command.READ, 0, probe.blocks_of(512), flags=flag).expect(Error.EINVAL)


@rule("T12", "DF without structured replies is EINVAL", Level.SHOULD, _ERRORS, Need.EXPORT)
def _df(probe: Probe) -> None:
    session = probe.enter()
    session.ask(Command.READ, 0, probe.blocks_of(512), flags=CommandFlag.DF).expect(Error.EINVAL)


@rule("T13", "READ with FUA is served", Level.MUST, _FLAGS, Need.FUA)
def _read_fua(probe: Probe) -> None:
    session = probe.enter()
    session.ask(Command.READ, 0, probe.blocks_of(512), flags=CommandFlag.FUA).expect(0)


@rule("T14", "FLUSH with FUA is served", Level.MUST, _FLAGS, Need.FUA, Need.FLUSH)
def _flush_fua(probe: Probe) -> None:
    probe.enter().ask(Command.FLUSH, flags=CommandFlag.FUA).expect(0)


@rule("T15", "FLUSH is served where it is advertised", Level.MUST, "Transmission flags", Need.FLUSH)
def _flush(probe: Probe) -> None:
    session = probe.enter()
    session.ask(Command.FLUSH).expect(0)
    session.in_step()


@rule("T16", "a READ of no bytes does not end the connection", Level.SHOULD, _TYPES, Need.EXPORT)
def _empty(probe: Probe) -> None:
    without_ending(probe.enter(), Command.READ)


@rule("T17", "DISC ends the connection without a reply", Level.MUST, _TYPES, Need.EXPORT)
def _disc(probe: Probe) -> None:
    session = probe.enter()
    session.in_step()
    session.link.send(session.header(Command.DISC, 0, 0, 0, 7))
    session.link.expect_end("DISC")


@rule("T18", "what was asked before DISC is answered before the end", Level.MUST, _TYPES, Need.EXPORT)
def _disc_last(probe: Probe) -> None:
    session = probe.enter()
    length = probe.blocks_of(64 * KiB)
    requests = [session.prepare(Command.READ, 0, length) for _ in range(8)]
    session.link.send(b"".join(data for _, data in requests) + session.header(Command.DISC, 0, 0, 0, 7))
    for cookie, _ in requests:
        session.collect(cookie)  # an error is an answer too
    session.link.expect_end("DISC")


@rule("T19", "many READs at once are each answered with their own data", Level.MUST, "Transmission", Need.EXPORT)
def _pipelined(probe: Probe) -> None:
    pipelined_reads(probe, probe.enter())


def pipelined_reads(probe: Probe, session: Session) -> None:
    """Read the first blocks one by one and all at once; fail where the two differ."""
    block = probe.blocks_of(512)
    count = min(_PIPELINED, session.size // block)
    whole = session.read(0, count * block)
    requests = [session.prepare(Command.READ, number * block, block) for number in range(count)]
    session.link.send(b"".join(data for _, data in requests))
    for number, (cookie, _) in reversed(list(enumerate(requests))):
        if session.collect(cookie).content() != whole[number * block : (number + 1) * block]:
            fail(f"the bytes at {number * block}", "others")


@rule(
    "T20",
    "a READ that is not aligned to the minimum block is EINVAL",
    Level.SHOULD,
    _ERRORS,
    Need.EXPORT,
    Need.COARSE_BLOCKS,
)
def _unaligned(probe: Probe) -> None:
    session = probe.enter()
    block = probe.blocks_of(1)
    for offset, length in ((block // 2, block), (0, block // 2)):
        session.ask(Command.READ, offset, length).expect(Error.EINVAL)


@rule(
    "T21", "a READ over the advertised maximum is EINVAL", Level.SHOULD, "Block size constraints", Need.SMALL_MAXIMUM
)
def _over_maximum(probe: Probe) -> None:
    session = probe.enter()
    blocks = probe.facts.blocks
    assert blocks is not None, "that there is a maximum is needed"
    session.ask(Command.READ, 0, blocks.maximum + blocks.minimum).expect(Error.EINVAL)


@rule(
    "T22",
    "without an advertised maximum a READ of 33 MiB is served",
    Level.SHOULD,
    "Block size constraints",
    Need.NO_MAXIMUM,
)
def _large(probe: Probe) -> None:
    probe.enter().read(0, LARGE_READ)


@rule("T23", "a READ below 32 MiB does not end the connection", Level.SHOULD, "Block size constraints", Need.EXPORT)
def _large_enough(probe: Probe) -> None:
    session = probe.enter()
    length = probe.blocks_of(32 * MiB)
    if length == 32 * MiB:
        length -= probe.blocks_of(1)
    without_ending(session, Command.READ, 0, length)


@rule("T24", "requests that arrive byte by byte are answered", Level.MUST, "Request message", Need.EXPORT)
def _dripping(probe: Probe) -> None:
    session = probe.enter()
    cookie, data = session.prepare(Command.READ, 0, probe.blocks_of(512))
    session.link.drip(data)
    session.collect(cookie).expect(0)


@rule("T25", "CACHE changes nothing and is answered", Level.MUST, _TYPES, Need.CACHE)
def _cache(probe: Probe) -> None:
    session = probe.enter()
    length = probe.blocks_of(64 * KiB)
    before = session.read(0, length)
    session.ask(Command.CACHE, 0, length)
    if session.read(0, length) != before:
        fail("the same bytes as before", "others")


@rule("T26", "CACHE with an unknown flag is refused", Level.MUST, _TYPES, Need.CACHE)
def _cache_flag(probe: Probe) -> None:
    probe.enter().ask(Command.CACHE, 0, probe.blocks_of(512), flags=UNKNOWN_FLAG).expect_error()


@rule("T27", "CACHE that is not advertised is answered", Level.SHOULD, _ERRORS, Need.NO_CACHE)
def _cache_unknown(probe: Probe) -> None:
    session = probe.enter()
    session.ask(Command.CACHE, 0, probe.blocks_of(512)).expect(0, Error.EINVAL)
    session.in_step()


@rule("T28", "BLOCK_STATUS without a context is EINVAL", Level.SHOULD, "Metadata querying", Need.EXPORT)
def _status(probe: Probe) -> None:
    session = probe.enter()
    session.ask(Command.BLOCK_STATUS, 0, probe.blocks_of(512)).expect(Error.EINVAL)
    session.in_step()


@rule("T29", "errors are those of the document", Level.MUST, _ERRORS, Need.EXPORT)
def _known_errors(probe: Probe) -> None:
    session = probe.enter()
    offset, length = probe.past_end()
    asked = ((UNKNOWN_COMMAND, 0, 0), (Command.READ, offset, length), (Command.BLOCK_STATUS, 0, length // 2))
    for command, start, count in asked:
        error = session.ask(command, start, count).error
        if error and error not in set(Error):
            fail("an error of the list", error_name(error))


@rule(
    "T30",
    "an export's size and flags are the same on every connection",
    Level.ADVICE,
    "Transmission flags",
    Need.EXPORT,
)
def _steady(probe: Probe) -> None:
    first = probe.enter()
    second = probe.enter()
    if first.flags != second.flags:
        fail(f"the flags {int(first.flags):#06x}", f"{int(second.flags):#06x}")
    if first.size != second.size and not first.flags & TransmissionFlag.SEND_RESIZE:
        fail(f"the size {first.size}", f"{second.size}")
