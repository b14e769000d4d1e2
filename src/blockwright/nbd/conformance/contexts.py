"""M: LIST_META_CONTEXT and SET_META_CONTEXT.

Knows: section "Metadata querying" and the two options. Refuses to know: BLOCK_STATUS, beyond whether it is allowed.
"""

from __future__ import annotations

from blockwright.nbd import wire
from blockwright.nbd.conformance.link import Answer, Link, context_data
from blockwright.nbd.conformance.model import Level, Need, NotApplicable, fail, rule
from blockwright.nbd.conformance.options import check_string
from blockwright.nbd.conformance.probe import ODD_NAME, Probe, read_contexts
from blockwright.nbd.conformance.session import Session
from blockwright.nbd.wire import BASE_ALLOCATION, Command, Option, ReplyType

_OPTIONS = "Option types"
_BASE = "The `base:` metadata namespace"
_ALLOCATION = BASE_ALLOCATION.encode()
_FOREIGN = b"x-blockwright-nobody:nothing"


def _structured(probe: Probe) -> Link:
    link = probe.haggling()
    link.ask(Option.STRUCTURED_REPLY).expect(ReplyType.ACK)
    return link


def _ask(link: Link, option: Option, name: bytes, *queries: bytes) -> Answer:
    return link.ask(option, context_data(name, *queries))


def _names(answer: Answer) -> list[str]:
    return list(read_contexts(answer.expect(ReplyType.ACK).of(ReplyType.META_CONTEXT)).values())


def _expect_none(answer: Answer) -> None:
    names = _names(answer)
    if names:
        fail("no context", ", ".join(names))


def _expect_no_status(session: Session) -> None:
    """Fail where BLOCK_STATUS is answered though no context is selected."""
    length = min(session.size, 4096 if session.blocks is None else max(session.blocks.minimum, 4096))
    session.ask(Command.BLOCK_STATUS, 0, length).expect_error()
    session.in_step()


@rule("M01", "SET_META_CONTEXT before structured replies is ERR_INVALID", Level.SHOULD, _OPTIONS, Need.CONTEXTS)
def _too_early(probe: Probe) -> None:
    answer = _ask(probe.haggling(), Option.SET_META_CONTEXT, probe.name, _ALLOCATION)
    answer.expect(ReplyType.ERR_INVALID, ReplyType.ERR_EXT_HEADER_REQD)


@rule("M02", "`base:` selects nothing", Level.MUST, _BASE, Need.CONTEXTS)
def _base_selects_nothing(probe: Probe) -> None:
    _expect_none(_ask(_structured(probe), Option.SET_META_CONTEXT, probe.name, b"base:"))


@rule("M03", "`base:` lists base:allocation, where that can be selected", Level.MUST, _BASE, Need.ALLOCATION)
def _base_lists(probe: Probe) -> None:
    answer = _ask(_structured(probe), Option.LIST_META_CONTEXT, probe.name, b"base:").expect(ReplyType.ACK)
    names = [each[wire.U32.size :] for each in answer.of(ReplyType.META_CONTEXT)]
    if _ALLOCATION not in names:
        fail(BASE_ALLOCATION, repr(names))


@rule("M04", "an unknown namespace is ignored", Level.MUST, _OPTIONS, Need.CONTEXTS)
def _foreign(probe: Probe) -> None:
    for option in (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT):
        _expect_none(_ask(_structured(probe), option, probe.name, _FOREIGN))


@rule("M05", "an unknown name in `base` is ignored", Level.MUST, _BASE, Need.CONTEXTS)
def _unknown_leaf(probe: Probe) -> None:
    for option in (Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT):
        _expect_none(_ask(_structured(probe), option, probe.name, b"base:no-such-leaf"))


@rule("M06", "no query selects nothing", Level.MUST, _OPTIONS, Need.CONTEXTS)
def _no_query_selects_nothing(probe: Probe) -> None:
    _expect_none(_ask(_structured(probe), Option.SET_META_CONTEXT, probe.name))


@rule("M07", "no query lists every context", Level.MUST, _OPTIONS, Need.ALLOCATION)
def _no_query_lists_all(probe: Probe) -> None:
    answer = _ask(_structured(probe), Option.LIST_META_CONTEXT, probe.name).expect(ReplyType.ACK)
    names = [each[wire.U32.size :] for each in answer.of(ReplyType.META_CONTEXT)]
    if not any(each in (_ALLOCATION, b"base:") for each in names):
        fail(f"{BASE_ALLOCATION}, which can be selected", repr(names))


@rule("M08", "ids are 0 in a list", Level.SHOULD, _OPTIONS, Need.CONTEXTS)
def _listed_ids(probe: Probe) -> None:
    answer = _ask(_structured(probe), Option.LIST_META_CONTEXT, probe.name).expect(ReplyType.ACK)
    for record in answer.of(ReplyType.META_CONTEXT):
        if any(record[: wire.U32.size]):
            fail("the id 0", record[: wire.U32.size].hex())


@rule("M09", "names of contexts are a namespace, a colon and more", Level.MUST, "Metadata querying", Need.CONTEXTS)
def _wellformed(probe: Probe) -> None:
    answer = _ask(_structured(probe), Option.LIST_META_CONTEXT, probe.name).expect(ReplyType.ACK)
    for record in answer.of(ReplyType.META_CONTEXT):
        name = record[wire.U32.size :]
        check_string(name, "a context's name")
        if not name.partition(b":")[0] or b":" not in name:
            fail("a namespace and a colon", repr(name))


@rule("M10", "selected contexts have ids of their own", Level.MUST, _OPTIONS, Need.CONTEXTS)
def _unique_ids(probe: Probe) -> None:
    wanted = [each.encode() for each in probe.facts.contexts]
    _names(_ask(_structured(probe), Option.SET_META_CONTEXT, probe.name, *wanted))


@rule("M11", "a context asked for twice is selected once", Level.MUST, _OPTIONS, Need.ALLOCATION)
def _asked_twice(probe: Probe) -> None:
    answer = _ask(_structured(probe), Option.SET_META_CONTEXT, probe.name, _ALLOCATION, _ALLOCATION)
    records = answer.expect(ReplyType.ACK).of(ReplyType.META_CONTEXT)
    if len(records) != 1:
        fail("one reply", f"{len(records)}")


@rule("M12", "what is asked beside an unknown namespace is selected", Level.MUST, _OPTIONS, Need.ALLOCATION)
def _mixed(probe: Probe) -> None:
    answer = _ask(_structured(probe), Option.SET_META_CONTEXT, probe.name, _FOREIGN, _ALLOCATION, b"base:")
    names = _names(answer)
    if names != [BASE_ALLOCATION]:
        fail(BASE_ALLOCATION, repr(names))


@rule(
    "M13", "a query longer than its option is ERR_INVALID in LIST_META_CONTEXT", Level.MUST, _OPTIONS, Need.CONTEXTS
)
def _long_query_listed(probe: Probe) -> None:
    _long_query(probe, Option.LIST_META_CONTEXT)


@rule(
    "M14", "a query longer than its option is ERR_INVALID in SET_META_CONTEXT", Level.SHOULD, _OPTIONS, Need.CONTEXTS
)
def _long_query_set(probe: Probe) -> None:
    _long_query(probe, Option.SET_META_CONTEXT)


def _long_query(probe: Probe, option: Option) -> None:
    head = wire.U32.pack(len(probe.name)) + probe.name + wire.U32.pack(1)
    for length in (len(_ALLOCATION) + 1, 0xFFFF_FFFF):
        link = _structured(probe)
        link.ask(option, head + wire.U32.pack(length) + _ALLOCATION).expect(ReplyType.ERR_INVALID)
        link.ask(Option.LIST)


@rule("M15", "SET_META_CONTEXT replaces what was selected, though it fails", Level.MUST, _OPTIONS, Need.ALLOCATION)
def _replaced_by_failure(probe: Probe) -> None:
    link = _structured(probe)
    probe.select(link, BASE_ALLOCATION)
    broken = wire.U32.pack(len(probe.name)) + probe.name + wire.U32.pack(1) + wire.U32.pack(99) + b"base:"
    if link.ask(Option.SET_META_CONTEXT, broken).acknowledged:
        raise NotApplicable("SET_META_CONTEXT does not fail on a query that is too long")
    session = probe.go(link)
    session.mode = "structured"
    _expect_no_status(session)


@rule("M16", "SET_META_CONTEXT replaces what was selected", Level.MUST, _OPTIONS, Need.ALLOCATION)
def _replaced(probe: Probe) -> None:
    link = _structured(probe)
    probe.select(link, BASE_ALLOCATION)
    _expect_none(_ask(link, Option.SET_META_CONTEXT, probe.name, _FOREIGN))
    session = probe.go(link)
    session.mode = "structured"
    _expect_no_status(session)


@rule("M17", "contexts of one export are not those of another", Level.SHOULD, "Metadata querying", Need.ALLOCATION)
def _other_export(probe: Probe) -> None:
    link = _structured(probe)
    _ask(link, Option.SET_META_CONTEXT, ODD_NAME, _ALLOCATION)
    session = probe.go(link)
    session.mode = "structured"
    _expect_no_status(session)


@rule("M18", "a count of queries that cannot fit is refused", Level.MUST, _OPTIONS, Need.CONTEXTS)
def _many_queries(probe: Probe) -> None:
    link = _structured(probe)
    data = wire.U32.pack(len(probe.name)) + probe.name + wire.U32.pack(0xFFFF_FFFF)
    link.ask(Option.LIST_META_CONTEXT, data).expect(ReplyType.ERR_INVALID, ReplyType.ERR_TOO_BIG)
    link.ask(Option.LIST)
