"""H: the greeting, the client's flags, and EXPORT_NAME.

Knows: sections "Newstyle negotiation" to "Client flags". Refuses to know: other options.
"""

from __future__ import annotations

from blockwright.nbd import wire
from blockwright.nbd.conformance.link import Link, option_bytes
from blockwright.nbd.conformance.model import Ended, Level, Need, NotApplicable, fail, rule
from blockwright.nbd.conformance.probe import ODD_NAME, Probe
from blockwright.nbd.conformance.session import Session
from blockwright.nbd.wire import HandshakeFlag, Option

# A plain number: the complement of a flag of the enumeration has no bits that the enumeration does not know.
_KNOWN = int(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)


@rule("H01", "the greeting is NBDMAGIC, IHAVEOPT and flags", Level.MUST, "Newstyle negotiation")
def _greets(probe: Probe) -> None:
    probe.connect().receive_greeting()


@rule("H02", "FIXED_NEWSTYLE is offered", Level.MUST, "Handshake flags")
def _fixed(probe: Probe) -> None:
    flags = probe.connect().receive_greeting()
    if not flags & HandshakeFlag.FIXED_NEWSTYLE:
        fail("NBD_FLAG_FIXED_NEWSTYLE", f"the flags {flags:#06x}")


@rule("H03", "no handshake flag is set that the document does not know", Level.MUST, "Handshake flags")
def _no_more_flags(probe: Probe) -> None:
    flags = probe.connect().receive_greeting()
    if flags & ~_KNOWN:
        fail(f"no flags but {_KNOWN:#06x}", f"{flags:#06x}")


@rule("H04", "an unknown client flag ends the connection", Level.MUST, "Client flags")
def _unknown_flag(probe: Probe) -> None:
    link = probe.greeted(HandshakeFlag.FIXED_NEWSTYLE | 1 << 17)
    _expect_refused_flags(link, "the unknown client flag 0x20000")


@rule("H05", "NO_ZEROES ends the connection where it was not offered", Level.MUST, "Client flags", Need.ZEROES_KEPT)
def _unoffered_flag(probe: Probe) -> None:
    link = probe.greeted(HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
    _expect_refused_flags(link, "NBD_FLAG_C_NO_ZEROES, which was not offered")


def _expect_refused_flags(link: Link, flag: str) -> None:
    """A server that took the flag would wait for an option, so one is sent for it to answer."""
    try:
        link.send(option_bytes(Option.LIST))
    except Ended:
        return
    link.expect_end(flag)


@rule(
    "H06",
    "EXPORT_NAME is followed by no zeros where both sides said NO_ZEROES",
    Level.MUST,
    "Client flags",
    Need.EXPORT,
)
def _without_zeroes(probe: Probe) -> None:
    link = probe.haggling()
    if not link.handshake_flags & HandshakeFlag.NO_ZEROES:
        raise NotApplicable("NO_ZEROES is not offered")
    _enter_by_name(probe, link).in_step()


@rule("H07", "EXPORT_NAME is followed by 124 zeros otherwise", Level.MUST, "Newstyle negotiation", Need.EXPORT)
def _with_zeroes(probe: Probe) -> None:
    link = probe.haggling(HandshakeFlag.FIXED_NEWSTYLE)
    session = _enter_by_name(probe, link)
    padding = link.receive(wire.EXPORT_NAME_PADDING)
    if any(padding):
        fail("zeros", padding.lstrip(b"\0")[:16].hex())
    session.in_step()


@rule("H08", "EXPORT_NAME of no export ends the connection", Level.MUST, "Option types", Need.STRICT_NAMES)
def _unknown_name(probe: Probe) -> None:
    link = probe.haggling()
    link.send(option_bytes(Option.EXPORT_NAME, ODD_NAME))
    link.expect_end("EXPORT_NAME of an export that does not exist")


@rule(
    "H09", "EXPORT_NAME works for a client without FIXED_NEWSTYLE", Level.SHOULD, "Newstyle negotiation", Need.EXPORT
)
def _not_fixed(probe: Probe) -> None:
    if probe.uri.tls:
        raise NotApplicable("TLS is for fixed newstyle only")
    link = probe.greeted(0)
    session = _enter_by_name(probe, link)
    link.receive(wire.EXPORT_NAME_PADDING)
    session.in_step()


@rule(
    "H10",
    "EXPORT_NAME and INFO tell the same size and flags",
    Level.MUST,
    "Option reply types",
    Need.EXPORT,
    Need.INFO,
)
def _same_by_name(probe: Probe) -> None:
    told = probe.describe(probe.haggling(), Option.INFO)
    session = _enter_by_name(probe, probe.haggling())
    if (told.size, told.flags) != (session.size, session.flags):
        fail(
            f"size {told.size} and flags {told.flags:#06x}, as INFO has them",
            f"{session.size} and {int(session.flags):#06x}",
        )


@rule("H11", "client flags that arrive byte by byte are taken", Level.MUST, "Newstyle negotiation")
def _dripping(probe: Probe) -> None:
    link = probe.connect()
    offered = link.receive_greeting()
    link.drip(wire.CLIENT_FLAGS.pack(offered & _KNOWN))
    link.drip(option_bytes(Option.LIST))
    link.answer(Option.LIST)


def _enter_by_name(probe: Probe, link: Link) -> Session:
    link.send(option_bytes(Option.EXPORT_NAME, probe.name))
    size, flags = wire.EXPORT_NAME_REPLY.unpack(link.receive(wire.EXPORT_NAME_REPLY.size))
    # EXPORT_NAME tells no block sizes, and a server may hold to those that INFO tells all the same.
    return Session(link, "simple", size, flags, probe.facts.blocks, {})
