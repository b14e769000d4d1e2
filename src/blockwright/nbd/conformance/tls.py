"""P: STARTTLS, before TLS and inside it.

Knows: section "TLS support". Refuses to know: TLS itself, but for one look at which version a server takes.
"""

from __future__ import annotations

from contextlib import suppress

from blockwright.errors import ProtocolError
from blockwright.nbd import wire
from blockwright.nbd.conformance.link import Link, context_data, info_data, option_bytes
from blockwright.nbd.conformance.model import Ended, Level, Need, NotApplicable, fail, rule
from blockwright.nbd.conformance.probe import Probe
from blockwright.nbd.wire import BASE_ALLOCATION, HandshakeFlag, Option, ReplyType

_UNKNOWN = 0x7F00_BEEF
_REPLY = wire.U64.pack(wire.OPTION_REPLY_MAGIC)
_ALERT = 21
_HANDSHAKE = 22
_PROTOCOL_VERSION = 70


def _harmless(probe: Probe) -> list[tuple[int, bytes]]:
    """Return options of every kind that any server may refuse and none must take."""
    return [
        (Option.LIST, b""),
        (Option.INFO, info_data(probe.name)),
        (Option.STRUCTURED_REPLY, b""),
        (Option.LIST_META_CONTEXT, context_data(probe.name)),
        (Option.SET_META_CONTEXT, context_data(probe.name, BASE_ALLOCATION.encode())),
        (Option.EXTENDED_HEADERS, b""),
        (_UNKNOWN, b"data"),
    ]


@rule("P01", "STARTTLS without TLS is refused, and the connection goes on", Level.MUST, "NOTLS mode", Need.NO_TLS)
def _refused(probe: Probe) -> None:
    link = probe.greeted()
    allowed = (ReplyType.ERR_POLICY, ReplyType.ERR_UNSUP, ReplyType.ERR_PLATFORM, ReplyType.ERR_SHUTDOWN)
    link.ask(Option.STARTTLS).expect(*allowed)
    link.ask(Option.LIST)


@rule("P02", "a server without TLS never answers ERR_TLS_REQD", Level.MUST, "NOTLS mode", Need.NO_TLS)
def _never_required(probe: Probe) -> None:
    _expect_no_demand(probe.greeted(), _harmless(probe))


def _expect_no_demand(link: Link, options: list[tuple[int, bytes]]) -> None:
    for option, data in options:
        final = link.ask(option, data).final
        if final.kind == ReplyType.ERR_TLS_REQD:
            fail(f"anything else in reply to option {option}", final.name)


@rule("P03", "STARTTLS with data is refused", Level.SHOULD, "Option types", Need.OFFERS_TLS)
def _with_data(probe: Probe) -> None:
    probe.greeted().ask(Option.STARTTLS, b"data").expect_error()


@rule("P04", "no TLS for a client without FIXED_NEWSTYLE", Level.MUST, "Server-side requirements", Need.OFFERS_TLS)
def _not_fixed(probe: Probe) -> None:
    try:
        answer = probe.greeted(0).ask(Option.STARTTLS)
    except Ended:
        return
    answer.expect_error()


@rule("P05", "every option but STARTTLS and ABORT is ERR_TLS_REQD", Level.MUST, "FORCEDTLS mode", Need.FORCED_TLS)
def _required(probe: Probe) -> None:
    link = probe.greeted()
    for option, data in [*_harmless(probe), (Option.GO, info_data(probe.name))]:
        answer = link.ask(option, data)
        answer.expect(ReplyType.ERR_TLS_REQD)
        if len(answer.replies) > 1:
            fail("nothing but the error", f"{len(answer.replies)} replies to option {option}")


@rule("P06", "EXPORT_NAME before TLS ends the connection", Level.MUST, "FORCEDTLS mode", Need.FORCED_TLS)
def _by_name(probe: Probe) -> None:
    link = probe.greeted()
    link.send(option_bytes(Option.EXPORT_NAME, probe.name))
    link.expect_end("EXPORT_NAME before TLS")


@rule("P07", "ABORT before TLS is acknowledged", Level.MUST, "Server-side requirements", Need.FORCED_TLS)
def _abort(probe: Probe) -> None:
    probe.greeted().ask(Option.ABORT).expect(ReplyType.ACK)


@rule("P08", "plain options after STARTTLS's ACK are not answered", Level.MUST, "FORCEDTLS mode", Need.OFFERS_TLS)
def _plain_afterwards(probe: Probe) -> None:
    link = probe.greeted()
    link.ask(Option.STARTTLS).expect(ReplyType.ACK)
    with suppress(Ended):
        link.send(option_bytes(Option.LIST) * 4)
    _expect_no_plain_reply(link)


@rule(
    "P09",
    "plain options in one segment with STARTTLS are not answered",
    Level.MUST,
    "FORCEDTLS mode",
    Need.OFFERS_TLS,
)
def _plain_along(probe: Probe) -> None:
    link = probe.greeted()
    link.send(option_bytes(Option.STARTTLS) + option_bytes(Option.LIST) * 4)
    link.answer(Option.STARTTLS).expect(ReplyType.ACK)
    _expect_no_plain_reply(link)


def _expect_no_plain_reply(link: Link) -> None:
    said, _ = link.drain()
    if _REPLY in said:
        fail("TLS, or the connection closed", "an option reply in the clear")


@rule("P10", "ERR_TLS_REQD comes for INFO and GO only", Level.MUST, "SELECTIVETLS mode", Need.SELECTIVE_TLS)
def _selective(probe: Probe) -> None:
    _expect_no_demand(probe.greeted(), [each for each in _harmless(probe) if each[0] != Option.INFO])


@rule("P11", "a second STARTTLS is ERR_INVALID", Level.MUST, "FORCEDTLS mode", Need.TLS)
def _twice(probe: Probe) -> None:
    link = probe.haggling()
    link.ask(Option.STARTTLS).expect(ReplyType.ERR_INVALID)
    link.ask(Option.LIST)


@rule("P12", "ERR_TLS_REQD never comes inside TLS", Level.MUST, "FORCEDTLS mode", Need.TLS)
def _satisfied(probe: Probe) -> None:
    _expect_no_demand(probe.haggling(), _harmless(probe))


@rule(
    "P13", "structured replies asked for before TLS are forgotten", Level.MUST, "Option types", Need.TLS, Need.EXPORT
)
def _forgotten(probe: Probe) -> None:
    link = probe.greeted()
    link.ask(Option.STRUCTURED_REPLY)
    session = probe.go(probe.secure(link))
    if session.flags & wire.TransmissionFlag.SEND_DF:
        fail("no NBD_FLAG_SEND_DF, as structured replies were not asked for inside TLS", f"{int(session.flags):#06x}")
    session.in_step()


@rule(
    "P14", "extended headers asked for before TLS are forgotten", Level.MUST, "Option types", Need.TLS, Need.EXTENDED
)
def _extended_forgotten(probe: Probe) -> None:
    link = probe.greeted()
    link.ask(Option.EXTENDED_HEADERS)
    probe.go(probe.secure(link)).in_step()


@rule(
    "P15", "what came in the clear behind STARTTLS is not executed", Level.MUST, "Option types", Need.TLS, Need.EXPORT
)
def _injected(probe: Probe) -> None:
    link = probe.greeted()
    link.send(option_bytes(Option.STARTTLS) + option_bytes(Option.STRUCTURED_REPLY))
    link.answer(Option.STARTTLS).expect(ReplyType.ACK)
    try:
        probe.begin_tls(link)
    except (OSError, ProtocolError):
        return  # it was taken for a part of the TLS handshake, which is as good
    link.ask(Option.LIST)
    probe.go(link).in_step()


@rule("P16", "TLS 1.2 is spoken", Level.MUST, "TLS versions", Need.OFFERS_TLS)
def _version(probe: Probe) -> None:
    import ssl

    if probe.uri.tls_type != "x509":
        raise NotApplicable("asks with a certificate's ciphers, which are not those of this address")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is said inside
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    link = probe.greeted(HandshakeFlag.FIXED_NEWSTYLE)
    link.ask(Option.STARTTLS).expect(ReplyType.ACK)
    link.send(outgoing.read())
    record = link.receive(7)  # type, version, length, and either an alert's two bytes or a message's first
    kind, description = record[0], record[6]
    if kind == _ALERT and description == _PROTOCOL_VERSION:
        fail("a handshake in TLS 1.2", "the alert protocol_version")
    if kind == _ALERT:
        raise NotApplicable(f"the server knows no cipher that we offer (alert {description})")
    if kind != _HANDSHAKE:
        fail("a TLS handshake", f"a record of type {kind}")
