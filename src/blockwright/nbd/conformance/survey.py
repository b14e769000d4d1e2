"""A first look at a server: what it offers, asked lawfully and one question a connection.

Knows: what to ask. Refuses to know: whether an answer breaks a rule; what is refused or garbled is not offered.
"""

from __future__ import annotations

from collections.abc import Callable

from blockwright.nbd import wire
from blockwright.nbd.conformance.facts import Facts
from blockwright.nbd.conformance.link import context_data, info_data
from blockwright.nbd.conformance.model import Failed
from blockwright.nbd.conformance.probe import ODD_NAME, Probe, read_contexts
from blockwright.nbd.wire import BASE_ALLOCATION, InfoType, Option, ReplyType, TransmissionFlag

Step = Callable[[Probe, Facts], None]


def survey(make: Callable[[], Probe], facts: Facts) -> None:
    """Fill ``facts`` in; ``make`` gives a probe that has a time of its own.

    Raises OSError and NotFound where the server cannot be reached at all.
    """
    first = make()
    try:
        first.connect()
    finally:
        first.close()
    for step in (_greeting, _many, _tls, _info, _names, _enter, _structured, _contexts, _extended):
        probe = make()
        try:
            step(probe, facts)
        except (Failed, OSError) as error:
            if step is _greeting:
                return  # nothing else will be answered
            if step is _enter:
                facts.why_not_entered = str(error) or "the server did not answer in time"
        finally:
            probe.close()


def _greeting(probe: Probe, facts: Facts) -> None:
    facts.handshake_flags = probe.connect().receive_greeting()


def _many(probe: Probe, facts: Facts) -> None:
    probe.connect().receive_greeting()
    with probe.beside():
        probe.connect().receive_greeting()
    facts.many = True


def _tls(probe: Probe, facts: Facts) -> None:
    facts.tls_inside = probe.uri.tls
    facts.tls_offered = probe.greeted().ask(Option.STARTTLS).acknowledged
    if facts.tls_offered:
        answers = [probe.greeted().ask(option).final.kind for option in (Option.LIST, Option.STRUCTURED_REPLY)]
        facts.tls_forced = all(each == ReplyType.ERR_TLS_REQD for each in answers)


def _info(probe: Probe, facts: Facts) -> None:
    export = probe.describe(probe.haggling(), Option.INFO, InfoType.BLOCK_SIZE)
    facts.info = True
    facts.blocks = export.blocks


def _names(probe: Probe, facts: Facts) -> None:
    facts.strict_names = not probe.haggling().ask(Option.INFO, info_data(ODD_NAME)).acknowledged


def _enter(probe: Probe, facts: Facts) -> None:
    session = probe.enter()
    facts.size, facts.flags = session.size, session.flags
    facts.blocks = session.blocks or facts.blocks
    least = facts.blocks.minimum if facts.blocks else 1
    facts.entered = session.size >= least  # whether it is served is seen by reading a block of it
    if not facts.entered:
        facts.why_not_entered = f"it is there, and holds no block of {least} bytes"


def _structured(probe: Probe, facts: Facts) -> None:
    session = probe.enter("structured")
    facts.structured, facts.structured_flags = True, session.flags


def _contexts(probe: Probe, facts: Facts) -> None:
    link = probe.haggling()
    link.ask(Option.STRUCTURED_REPLY).expect(ReplyType.ACK)
    answer = link.ask(Option.LIST_META_CONTEXT, context_data(probe.name)).expect(ReplyType.ACK)
    listed = [each[wire.U32.size :].decode("utf-8", "replace") for each in answer.of(ReplyType.META_CONTEXT)]
    for name in dict.fromkeys([BASE_ALLOCATION, *listed]):
        query = context_data(probe.name, name.encode())
        found = read_contexts(link.ask(Option.SET_META_CONTEXT, query).of(ReplyType.META_CONTEXT))
        if name in found.values():
            facts.contexts.append(name)


def _extended(probe: Probe, facts: Facts) -> None:
    link = probe.haggling()
    link.ask(Option.EXTENDED_HEADERS).expect(ReplyType.ACK)
    facts.extended = True
    if facts.contexts:
        probe.select(link, *facts.contexts)
    export = probe.describe(link, Option.GO, InfoType.BLOCK_SIZE)
    facts.extended_flags = TransmissionFlag(export.flags)
