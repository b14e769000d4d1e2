"""L: what a hostile client may cost. The document leaves it to the server, so these are advice.

Knows: lengths that lie, floods, silence, and replies that nobody reads. Refuses to know: how a server limits itself.
"""

from __future__ import annotations

from typing import Final

from blockwright.nbd import wire
from blockwright.nbd.conformance.link import Link, Moment, option_bytes
from blockwright.nbd.conformance.model import Ended, Level, Need, fail, rule
from blockwright.nbd.conformance.probe import Probe
from blockwright.nbd.wire import Command, Option, ReplyType
from blockwright.units import MiB

_END = "Termination of the session during option haggling"
_REQUEST = "Terminating the transmission phase"
_HUGE = 0xFFFF_FFFF
_UNKNOWN = 0x7F00_BEEF
FLOOD: Final = 5000
"""Options that no client needs."""
PATIENCE_S: Final = 30.0
"""Seconds after which a client that says nothing should be gone."""
_UNREAD = 64


def _refuses_length(probe: Probe, option: int) -> None:
    """Send an option that claims 4 GiB, and none of them; the server should not wait for them."""
    link = probe.haggling()
    try:
        link.send(option_bytes(option, length=_HUGE))
        link.answer(option).expect_error()
    except TimeoutError:
        fail("an error, or the connection closed", f"4 GiB waited for {link.moment.seconds:g} s")
    except Ended:
        return


@rule("L01", "an unknown option of 4 GiB is not waited for", Level.ADVICE, _END)
def _unknown_option(probe: Probe) -> None:
    _refuses_length(probe, _UNKNOWN)


@rule("L02", "INFO of 4 GiB is not waited for", Level.ADVICE, _END)
def _info(probe: Probe) -> None:
    _refuses_length(probe, Option.INFO)


@rule("L03", "EXPORT_NAME of 4 GiB ends the connection", Level.ADVICE, _END)
def _export_name(probe: Probe) -> None:
    link = probe.haggling()
    link.send(option_bytes(Option.EXPORT_NAME, length=_HUGE))
    link.expect_end("a name of 4 GiB")


@rule("L04", f"{FLOOD} options end the connection", Level.ADVICE, _END)
def _flood(probe: Probe) -> None:
    link = probe.haggling()
    for _ in range(FLOOD):
        try:
            final = link.ask(_UNKNOWN).final
        except Ended:
            return
        if final.kind == ReplyType.ERR_SHUTDOWN:
            return
    fail("the connection closed", f"{FLOOD} options answered")


@rule("L05", "a wrong magic in place of an option ends the connection", Level.ADVICE, _END)
def _option_magic(probe: Probe) -> None:
    link = probe.haggling()
    link.send(option_bytes(Option.LIST, magic=0x4141414141414141))
    link.expect_end("an option with a wrong magic")


@rule("L06", "a wrong magic in place of a request ends the connection", Level.ADVICE, _REQUEST, Need.EXPORT)
def _request_magic(probe: Probe) -> None:
    session = probe.enter()
    session.link.send(session.header(Command.READ, 0, probe.blocks_of(512), 0, 1, magic=0x12560953))
    if not session.link.drain()[1]:  # an error may be told first
        fail("the connection closed after a request with a wrong magic", "it open")


@rule("L07", "a WRITE of 4 GiB is refused without its payload", Level.ADVICE, _REQUEST, Need.WRITABLE, writes=True)
def _write(probe: Probe) -> None:
    session = probe.enter()
    length = _HUGE - _HUGE % probe.blocks_of(1)
    cookie, data = session.prepare(Command.WRITE, 0, length)
    session.link.send(data)
    try:
        session.collect(cookie).expect_error()
    except TimeoutError:
        fail("an error, or the connection closed", f"4 GiB waited for {session.link.moment.seconds:g} s")
    except Ended:
        return


@rule("L08", "a client that leaves in the middle of a request harms nobody", Level.ADVICE, _REQUEST, Need.EXPORT)
def _half_a_request(probe: Probe) -> None:
    with probe.still_served():
        for part in (1, 13, 27):
            session = probe.enter()
            _, data = session.prepare(Command.READ, 0, probe.blocks_of(512))
            session.link.send(data[:part])
            session.link.close()
        probe.enter().in_step()


@rule("L09", "replies that nobody reads hold up nobody else", Level.ADVICE, _REQUEST, Need.EXPORT, Need.MANY)
def _unread(probe: Probe) -> None:
    greedy = probe.enter()
    length = probe.blocks_of(MiB)
    for _ in range(_UNREAD):
        _, data = greedy.prepare(Command.READ, 0, length)
        try:
            greedy.link.send(data)
        except (Ended, TimeoutError):
            break  # it may also stop to listen
    with probe.beside():
        probe.enter().in_step()


@rule("L10", "a client that goes away with replies unread harms nobody", Level.ADVICE, _REQUEST, Need.EXPORT)
def _gone(probe: Probe) -> None:
    session = probe.enter()
    length = probe.blocks_of(MiB)
    session.link.send(b"".join(session.prepare(Command.READ, 0, length)[1] for _ in range(_UNREAD)))
    session.link.receive(4)  # the replies are on their way
    session.link.close()
    with probe.still_served():
        probe.enter().in_step()


@rule("L11", f"a client that says nothing is gone after {PATIENCE_S:g} s", Level.ADVICE, _END, slow=True)
def _silent(probe: Probe) -> None:
    link = probe.connect()
    link.receive_greeting()
    _gone_in_time(link, "a client that never says its flags")


@rule("L12", f"a client that asks for nothing is gone after {PATIENCE_S:g} s", Level.ADVICE, _END, slow=True)
def _idle(probe: Probe) -> None:
    link = probe.haggling()
    link.ask(_UNKNOWN)
    link.send(wire.U64.pack(wire.OPTION_MAGIC)[:5])
    _gone_in_time(link, "a client that never ends its option")


def _gone_in_time(link: Link, who: str) -> None:
    link.moment = Moment(min(PATIENCE_S, link.moment.remaining_s()))
    link.expect_end(who)
