"""O: options in general, ABORT, LIST, STRUCTURED_REPLY.

Knows: sections "Fixed newstyle negotiation" and "Option types". Refuses to know: INFO and GO, metadata, TLS.
"""

from __future__ import annotations

from blockwright.nbd import wire
from blockwright.nbd.conformance.link import Link, OptionReply, info_data, option_bytes
from blockwright.nbd.conformance.model import Ended, Level, Need, NotApplicable, fail, rule
from blockwright.nbd.conformance.probe import ODD_NAME, Probe
from blockwright.nbd.wire import Option, ReplyType

_UNKNOWN = 0x7F00_BEEF
_HAGGLING = "Fixed newstyle negotiation"


def check_string(data: bytes, what: str) -> None:
    """Fail unless ``data`` is a string as "Conventions" has it."""
    if len(data) > wire.MAX_STRING:
        fail(f"{what} of at most {wire.MAX_STRING} bytes", f"one of {len(data)}")
    if b"\0" in data:
        fail(f"{what} without NUL", repr(data[:64]))
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        fail(f"{what} in UTF-8", repr(data[:64]))


def refused_or_ended(link: Link, option: int, data: bytes) -> None:
    """Send an option that breaks a rule; fail where it is taken. The server may also end the connection."""
    try:
        link.send(data)
        link.answer(option).expect_error()
    except Ended:
        return


@rule("O01", "an unknown option is answered ERR_UNSUP", Level.MUST, "Baseline")
def _unknown(probe: Probe) -> None:
    _allowing_tls(probe.haggling().ask(_UNKNOWN).final, probe)


def _allowing_tls(reply: OptionReply, probe: Probe) -> None:
    if reply.kind == ReplyType.ERR_TLS_REQD and probe.facts.tls_forced and not probe.uri.tls:
        return
    if reply.kind != ReplyType.ERR_UNSUP:
        fail("NBD_REP_ERR_UNSUP", reply.name)


@rule("O02", "an unknown option's data is skipped, and the next option understood", Level.MUST, "Baseline")
def _unknown_data(probe: Probe) -> None:
    link = probe.haggling()
    _allowing_tls(link.ask(_UNKNOWN, b"\x49\x48\x41\x56" * 1000).final, probe)
    link.ask(Option.LIST)


@rule("O03", "options that arrive byte by byte are answered", Level.MUST, _HAGGLING)
def _dripping(probe: Probe) -> None:
    link = probe.haggling()
    for option, data in ((_UNKNOWN, b"abc"), (Option.INFO, info_data(probe.name))):
        link.drip(option_bytes(option, data))
        link.answer(option)


@rule("O04", "ABORT is acknowledged", Level.MUST, "Option types")
def _abort(probe: Probe) -> None:
    probe.haggling().ask(Option.ABORT).expect(ReplyType.ACK)


@rule("O05", "ABORT with data is acknowledged", Level.SHOULD, "Option types")
def _abort_with_data(probe: Probe) -> None:
    probe.haggling().ask(Option.ABORT, b"bye").expect(ReplyType.ACK)


@rule("O06", "LIST is known, though policy may forbid it", Level.MUST, "Baseline")
def _list(probe: Probe) -> None:
    answer = probe.haggling().ask(Option.LIST)
    if answer.final.kind in (ReplyType.ERR_UNSUP, ReplyType.ERR_INVALID, ReplyType.ERR_UNKNOWN):
        fail("NBD_REP_SERVER and NBD_REP_ACK, or why not", answer.final.name)
    strange = {each.kind for each in answer.replies[:-1]} - {ReplyType.SERVER}
    if strange:
        fail("NBD_REP_SERVER before the ACK", f"{min(strange):#x}")


@rule("O07", "each NBD_REP_SERVER holds a name that fits, as a string", Level.MUST, "Option reply types")
def _list_entries(probe: Probe) -> None:
    entries = probe.haggling().ask(Option.LIST).of(ReplyType.SERVER)
    if not entries:
        raise NotApplicable("no exports are listed")
    for entry in entries:
        if len(entry) < wire.U32.size:
            fail("NBD_REP_SERVER of at least 4 bytes", f"one of {len(entry)}")
        length = wire.U32.unpack_from(entry)[0]
        if length > len(entry) - wire.U32.size:
            fail(f"a name of at most {len(entry) - wire.U32.size} bytes", f"one of {length}")
        check_string(entry[wire.U32.size : wire.U32.size + length], "a name")
        check_string(entry[wire.U32.size + length :], "a description")


@rule("O08", "LIST with data is answered ERR_INVALID", Level.SHOULD, "Option types")
def _list_with_data(probe: Probe) -> None:
    answer = probe.haggling().ask(Option.LIST, b"data")
    if answer.final.kind in (ReplyType.ERR_TLS_REQD, ReplyType.ERR_POLICY):
        raise NotApplicable(f"LIST is refused by {answer.final.name}")
    answer.expect(ReplyType.ERR_INVALID)


@rule("O09", "NBD_REP_ACK has no data", Level.MUST, "Option reply types")
def _empty_ack(probe: Probe) -> None:
    for option, data in ((Option.LIST, b""), (Option.INFO, info_data(probe.name)), (Option.STRUCTURED_REPLY, b"")):
        final = probe.haggling().ask(option, data).final
        if final.kind == ReplyType.ACK and final.data:
            fail("an ACK without data", f"{len(final.data)} bytes in that to {option.name}")


@rule("O10", "the text of an error is a string", Level.MUST, "Conventions")
def _error_texts(probe: Probe) -> None:
    for option, data in ((_UNKNOWN, b""), (Option.LIST, b"data"), (Option.INFO, info_data(ODD_NAME))):
        final = probe.haggling().ask(option, data).final
        if final.kind & wire.ERROR_BIT:
            check_string(final.data, "an error's text")


@rule("O11", "STRUCTURED_REPLY with data is answered ERR_INVALID", Level.SHOULD, "Option types", Need.STRUCTURED)
def _structured_with_data(probe: Probe) -> None:
    probe.haggling().ask(Option.STRUCTURED_REPLY, b"data").expect(ReplyType.ERR_INVALID)


@rule(
    "O12", "a second STRUCTURED_REPLY is answered, and the first holds", Level.MUST, "Option types", Need.STRUCTURED
)
def _structured_twice(probe: Probe) -> None:
    link = probe.haggling()
    link.ask(Option.STRUCTURED_REPLY).expect(ReplyType.ACK)
    link.ask(Option.STRUCTURED_REPLY)
    session = probe.go(link)
    session.mode = "structured"
    session.in_step()


@rule("O13", "the withdrawn PEEK_EXPORT is answered with an error", Level.MUST, "Option types")
def _peek(probe: Probe) -> None:
    link = probe.haggling()
    link.ask(Option.PEEK_EXPORT).expect_error()
    link.ask(Option.LIST)


@rule("O14", "a client may go away in the middle of an option", Level.ADVICE, "Termination of the session")
def _half_an_option(probe: Probe) -> None:
    with probe.still_served():
        for part in (3, 12, 20):
            link = probe.haggling()
            link.send(option_bytes(Option.INFO, info_data(probe.name))[:part])
            link.close()
        probe.haggling().ask(Option.LIST)


@rule("O15", "ABORT without waiting for the reply harms nobody", Level.SHOULD, "Option types")
def _abort_and_close(probe: Probe) -> None:
    with probe.still_served():
        for _ in range(4):
            link = probe.haggling()
            link.send(option_bytes(Option.ABORT))
            link.close()
        probe.haggling().ask(Option.LIST)


@rule("O16", "nothing follows the error that refuses an option", Level.MUST, _HAGGLING)
def _error_is_last(probe: Probe) -> None:
    link = probe.haggling()
    link.ask(Option.LIST, b"data")
    link.ask(_UNKNOWN)
