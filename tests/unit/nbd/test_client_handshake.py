"""The client's handshake against what servers may say, byte for byte."""

import random

import pytest

from blockwright.errors import NotFound, Refused, RemoteProtocolError
from blockwright.nbd import wire
from blockwright.nbd.protocol import client, option
from blockwright.nbd.protocol.client import Wanted, describe, enter, listing
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.wire import Option, ReplyType
from tests.support.nbdserver import (
    GREETING,
    Ended,
    ack,
    context,
    drive,
    export,
    reply,
    unsupported,
)

BLOCKS = wire.INFO_BLOCK_SIZE.pack(wire.InfoType.BLOCK_SIZE, 512, 4096, 1 << 25)
BEST = (
    GREETING
    + ack(Option.EXTENDED_HEADERS)
    + context(Option.SET_META_CONTEXT, (7, "base:allocation"))
    + export(Option.GO, 1 << 20, 0x1, BLOCKS)
)
STRUCTURED = (
    GREETING
    + unsupported(Option.EXTENDED_HEADERS)
    + ack(Option.STRUCTURED_REPLY)
    + context(Option.SET_META_CONTEXT, (1, "base:allocation"))
    + export(Option.GO)
)
PLAINEST = (
    GREETING
    + b"".join(map(unsupported, (Option.EXTENDED_HEADERS, Option.STRUCTURED_REPLY, Option.GO)))
    + wire.EXPORT_NAME_REPLY.pack(5000, 3)
)


def test_the_best_that_both_have_is_taken():
    sent = bytearray()
    session = drive(enter(Wanted("disk")), BEST, sent=sent)
    assert (session.extended, session.structured, session.contexts) == (True, True, {7: "base:allocation"})
    assert session.export.size == 1 << 20
    assert session.export.blocks == BlockSizes(512, 4096, 1 << 25)
    query = b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x0fbase:allocation"
    go = b"\0\0\0\x04disk\0\x01\0\x03"
    head = [wire.OPTION.pack(wire.OPTION_MAGIC, number, length) for number, length in ((11, 0), (10, 31), (7, 12))]
    assert sent == b"\0\0\0\x03" + head[0] + head[1] + query + head[2] + go


def test_what_a_server_does_not_have_falls_back():
    session = drive(enter(Wanted()), STRUCTURED)
    assert (session.extended, session.structured) == (False, True)
    session = drive(enter(Wanted("x")), PLAINEST)
    assert (session.structured, session.contexts, session.export.size, session.export.flags) == (False, {}, 5000, 3)


def test_a_server_that_is_not_fixed_is_asked_by_name_only():
    greeting = wire.GREETING.pack(wire.INIT_MAGIC, wire.OPTION_MAGIC, 0)
    sent = bytearray()
    session = drive(enter(Wanted("x")), greeting + wire.EXPORT_NAME_REPLY.pack(5000, 3) + bytes(124), sent=sent)
    assert session.export.size == 5000
    assert sent == b"\0\0\0\0" + wire.OPTION.pack(wire.OPTION_MAGIC, 1, 1) + b"x"
    with pytest.raises(Refused, match="not fixed newstyle"):
        drive(listing(Wanted()), greeting)
    with pytest.raises(Refused, match="TLS"):
        drive(enter(Wanted(tls=True)), greeting)


def test_oldstyle_is_told_by_name():
    with pytest.raises(RemoteProtocolError, match="oldstyle"):
        drive(enter(Wanted()), wire.OLDSTYLE.pack(wire.INIT_MAGIC, wire.OLDSTYLE_MAGIC, 1 << 20, 1)[:16])


def test_tls_comes_before_all_else_and_is_never_gone_without():
    wanted = Wanted("x", tls=True, host="example.org")
    sent = bytearray()
    session = drive(enter(wanted), GREETING + ack(Option.STARTTLS) + BEST[18:], sent=sent, tls=["example.org"])
    assert session.tls
    assert sent[4:20] == wire.OPTION.pack(wire.OPTION_MAGIC, Option.STARTTLS, 0)
    for kind in (ReplyType.ERR_UNSUP, ReplyType.ERR_POLICY, ReplyType.ERR_INVALID):
        sent = bytearray()
        with pytest.raises(Refused, match="asks for it and the server refuses"):
            drive(enter(wanted), GREETING + reply(Option.STARTTLS, kind), sent=sent)
        assert len(sent) == 20, "nothing follows in the clear"


def test_a_server_that_wants_tls_says_so():
    answers = GREETING + reply(Option.EXTENDED_HEADERS, ReplyType.ERR_TLS_REQD, b"not in the clear")
    with pytest.raises(Refused, match=r"ERR_TLS_REQD: not in the clear; nbds:// asks for TLS"):
        drive(enter(Wanted()), answers)


def test_errors_of_go_become_errors_that_say_what_to_do():
    head = STRUCTURED[: -len(export(Option.GO))]
    with pytest.raises(NotFound, match="no such export: ask again"):
        drive(enter(Wanted("x")), head + reply(Option.GO, ReplyType.ERR_UNKNOWN, b"ask again"))
    with pytest.raises(Refused, match="ERR_POLICY"):
        drive(enter(Wanted("x")), head + reply(Option.GO, ReplyType.ERR_POLICY))
    with pytest.raises(Refused, match="error 77"):
        drive(enter(Wanted("x")), head + reply(Option.GO, wire.ERROR_BIT + 77))
    with pytest.raises(RemoteProtocolError, match="expected size and flags before the ACK"):
        drive(enter(Wanted("x")), head + ack(Option.GO))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (wire.OPTION_REPLY.pack(1, 11, 1, 0), "Option haggling"),
        (reply(Option.GO, ReplyType.ACK), "one to option 7"),
        (reply(Option.EXTENDED_HEADERS, ReplyType.ACK, b"x"), "empty ACK"),
        (reply(Option.EXTENDED_HEADERS, ReplyType.SERVER), "type 2"),
        (wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, 11, 1 << 31 | 1, option.MAX_REPLY + 1), "at most 65536"),
    ],
)
def test_replies_that_answer_nothing_are_refused(answer, said):
    with pytest.raises(RemoteProtocolError, match=said):
        drive(enter(Wanted()), GREETING + answer)


@pytest.mark.parametrize(
    "blocks",
    [
        (0, 4096, 4096),
        (3, 4096, 4098),
        (1 << 17, 1 << 17, 1 << 18),
        (4096, 512, 8192),
        (512, 4096, 1000),
        (512, 5000, 5120),
    ],
)
def test_block_sizes_that_break_the_rules_are_refused(blocks):
    info = wire.INFO_BLOCK_SIZE.pack(wire.InfoType.BLOCK_SIZE, *blocks)
    with pytest.raises(RemoteProtocolError, match="block sizes"):
        drive(enter(Wanted()), STRUCTURED[: -len(export(Option.GO))] + export(Option.GO, 1 << 20, 1, info))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ([(1, "base:allocation"), (1, "base:allocation")], "each once"),
        ([(1, "qemu:dirty-bitmap:x")], "one of those asked for"),
        ([(1, "base:\0")], "NUL"),
    ],
)
def test_contexts_that_nobody_asked_for_are_refused(named, said):
    answers = GREETING + ack(Option.EXTENDED_HEADERS) + context(Option.SET_META_CONTEXT, *named)
    with pytest.raises(RemoteProtocolError, match=said):
        drive(enter(Wanted()), answers)


def test_a_size_that_no_offset_reaches_is_refused():
    with pytest.raises(RemoteProtocolError, match="export size"):
        drive(enter(Wanted()), STRUCTURED[: -len(export(Option.GO))] + export(Option.GO, 1 << 63))


def test_a_list_has_what_info_tells():
    server = [wire.U32.pack(len(n)) + n + d for n, d in ((b"one", b"the first"), (b"", b""))]
    answers = GREETING + b"".join(reply(Option.LIST, ReplyType.SERVER, each) for each in server) + ack(Option.LIST)
    described = wire.U16.pack(wire.InfoType.DESCRIPTION) + b"the default"
    infos = reply(Option.INFO, ReplyType.ERR_POLICY, b"not you") + export(Option.INFO, 4096, 1, described)
    first, second = drive(listing(Wanted()), answers + infos)
    assert (first.name, first.description, first.info, first.problem) == (
        "one",
        "the first",
        None,
        "ERR_POLICY: not you",
    )
    assert (second.name, second.description, second.info.size) == ("", "the default", 4096)
    assert [each.name for each in drive(listing(Wanted(), details=False), answers)] == ["one", ""]


def test_lists_are_bounded(monkeypatch):
    monkeypatch.setattr(option, "MAX_REPLIES", 100)
    server = reply(Option.LIST, ReplyType.SERVER, wire.U32.pack(0))
    with pytest.raises(RemoteProtocolError, match="100 replies"):
        drive(listing(Wanted()), GREETING + server * 102)
    monkeypatch.undo()
    huge = reply(Option.LIST, ReplyType.SERVER, wire.U32.pack(4000) + bytes(8).replace(b"\0", b"x") * 8000)
    with pytest.raises(RemoteProtocolError, match="at most"):
        drive(listing(Wanted()), GREETING + huge * 300)
    with pytest.raises(RemoteProtocolError, match="a name of at most"):
        drive(
            listing(Wanted()),
            GREETING + reply(Option.LIST, ReplyType.SERVER, wire.U32.pack(5) + b"four") + ack(Option.LIST),
        )


def test_describing_tells_contexts_and_stays_outside():
    answers = GREETING + unsupported(Option.EXTENDED_HEADERS) + ack(Option.STRUCTURED_REPLY)
    answers += context(Option.LIST_META_CONTEXT, (0, "base:allocation"), (0, "qemu:dirty-bitmap:b"))
    found = drive(describe(Wanted("x")), answers + export(Option.INFO))
    assert found.contexts == ("base:allocation", "qemu:dirty-bitmap:b")
    assert not found.entered
    found = drive(describe(Wanted("x")), answers + unsupported(Option.INFO) + wire.EXPORT_NAME_REPLY.pack(512, 1))
    assert found.entered
    assert found.session.export.size == 512


@pytest.mark.parametrize("answers", [BEST, STRUCTURED, PLAINEST], ids=["best", "structured", "plainest"])
def test_a_server_that_hangs_up_anywhere_ends_the_handshake(answers):
    for cut in range(len(answers)):
        with pytest.raises(Ended):
            drive(enter(Wanted()), answers[:cut])


def test_a_client_wants_no_more_than_the_address_says():
    assert wire.OPTION.pack(wire.OPTION_MAGIC, 2, 0) == client.ABORT
    answers = GREETING + export(Option.GO)
    assert not drive(enter(Wanted(framing="simple")), answers).structured


def test_any_byte_changed_is_accepted_or_refused():
    chance = random.Random(3)
    for _ in range(3000):
        data = bytearray(chance.choice((BEST, STRUCTURED, PLAINEST)))
        for _ in range(chance.choice((1, 1, 3))):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 255, chance.randrange(256)))
        try:
            drive(enter(Wanted()), bytes(data), whole=False)
        except (RemoteProtocolError, Refused, NotFound):
            continue
