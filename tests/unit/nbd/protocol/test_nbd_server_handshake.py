"""The server's handshake as pairs of bytes: what a client sends, what it is answered (doc/proto.md)."""

import struct

import pytest

from blockwright.errors import RemoteProtocolError
from blockwright.nbd.protocol.server import MAX_OPTION, HandshakeLimits, Offer, OptionRefused, Tls
from blockwright.nbd.protocol.session import BlockSizes, ExportInfo
from blockwright.nbd.protocol.steps import Identity
from blockwright.nbd.wire import ReplyType, TransmissionFlag
from tests.support.runningserver import Fed

ALL = TransmissionFlag(0xDFF & ~TransmissionFlag.READ_ONLY) | TransmissionFlag.BLOCK_STATUS_PAYLOAD
INFO = ExportInfo("disk", 1 << 30, ALL, BlockSizes(512, 4096, 1 << 20), "a disk")
ACK, SERVER, INFO_REPLY, META = 1, 2, 3, 4
ERR = 1 << 31
EXPORT_NAME, ABORT, LIST, PEEK, STARTTLS, INFO_OPT, GO, STRUCTURED, LIST_META, SET_META, EXTENDED = range(1, 12)


class Exports:
    """One disk, which an empty name asks for too."""

    stopping = False

    def __init__(self, info=INFO):
        self.info = info
        self.refusals = []
        self.identity = None
        self.asked = []
        self.begun = []
        self.full = False

    def listed(self):
        return [("disk", "a disk"), ("other", "")]

    def find(self, name):
        self.asked.append(name)
        if name not in ("", "disk"):
            raise OptionRefused(ReplyType.ERR_UNKNOWN, f"there is no export {name!r}")
        return Offer(self.info, ("base:allocation", "blockwright:dirty"))

    def begin(self, info):
        self.begun.append(info)
        if self.full:
            raise OptionRefused(ReplyType.ERR_POLICY, "full")

    def authenticated(self, identity):
        self.identity = identity

    def refused(self, option, reply, message):
        self.refusals.append((option, reply, message))


def option(number, data=b"", length=None):
    return struct.pack(">QII", 0x49484156454F5054, number, len(data) if length is None else length) + data


def named(name, *infos):
    encoded = name.encode() if isinstance(name, str) else name
    return struct.pack(">I", len(encoded)) + encoded + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def queries(name, *texts):
    data = struct.pack(">I", len(name)) + name.encode() + struct.pack(">I", len(texts))
    return data + b"".join(struct.pack(">I", len(text)) + text.encode() for text in texts)


def feed(*parts, flags=3, exports=None, **more):
    fed = Fed(exports or Exports(), struct.pack(">I", flags) + b"".join(parts), **more)
    assert fed.sent[:18] == b"NBDMAGICIHAVEOPT\0\3"
    fed.replies = []
    data = bytes(fed.sent[18:])
    while data[:8] == struct.pack(">Q", 0x3E889045565A9):
        _, number, kind, length = struct.unpack_from(">QIII", data)
        fed.replies.append((number, kind, data[20 : 20 + length]))
        data = data[20 + length :]
    fed.tail = data
    return fed


def kinds(fed):
    return [(number, kind) for number, kind, _ in fed.replies]


# -- the beginning ("Newstyle negotiation") -----------------------------------------------------------------------


@pytest.mark.parametrize("flags", [4, 1 << 31, 0xFFFFFFFF])
def test_an_unknown_client_flag_ends_it(flags):
    fed = feed(option(LIST), flags=flags)
    assert isinstance(fed.error, RemoteProtocolError)
    assert "client flags" in str(fed.error)


def test_a_client_that_is_not_fixed_newstyle_may_only_ask_by_name():
    assert "expected EXPORT_NAME" in str(feed(option(LIST), flags=0).error)
    fed = feed(option(EXPORT_NAME, b"disk"), flags=0)
    assert fed.result.export.size == 1 << 30
    assert fed.tail == struct.pack(">QH", 1 << 30, fed.result.export.flags) + bytes(124)


def test_a_bad_option_magic_ends_it():
    assert "expected 0x49484156454f5054" in str(feed(b"\0" * 16).error)


# -- options that are answered whatever they hold ("Option types") ------------------------------------------------


def test_an_unknown_option_is_skipped_and_the_stream_stays_in_step():
    fed = feed(option(77, b"x" * 1000), option(PEEK, b"y"), option(LIST))
    assert kinds(fed) == [(77, ERR + 1), (PEEK, ERR + 1), (LIST, SERVER), (LIST, SERVER), (LIST, ACK)]


def test_abort_is_acknowledged_and_ends_it():
    fed = feed(option(ABORT, b"whatever"))
    assert kinds(fed) == [(ABORT, ACK)]
    assert fed.result is None
    assert fed.error is None


def test_list_names_what_is_listed():
    fed = feed(option(LIST))
    assert [data for _, kind, data in fed.replies if kind == SERVER] == [b"\0\0\0\4diska disk", b"\0\0\0\5other"]
    assert kinds(feed(option(LIST, b"x"))) == [(LIST, ERR + 3)]


def test_a_session_begins_before_its_client_hears_of_it():
    exports = Exports()
    assert feed(option(INFO_OPT, named("disk")), exports=exports).replies
    assert exports.begun == []
    exports.full = True
    fed = feed(option(GO, named("disk", 1, 2)), option(LIST), exports=exports)
    assert kinds(fed) == [(GO, ERR + 2), (LIST, SERVER), (LIST, SERVER), (LIST, ACK)]
    fed = feed(option(EXPORT_NAME, b"disk"), exports=exports)
    assert str(fed.error) == "full"
    assert fed.tail == b""
    assert [info.name for info in exports.begun] == ["disk", "disk"]


def test_info_and_go_tell_the_same():
    fed = feed(option(INFO_OPT, named("disk", 1, 2, 3, 99)), option(GO, named("disk", 1, 2, 3, 99)))
    half = len(fed.replies) // 2
    assert [reply[1:] for reply in fed.replies[:half]] == [reply[1:] for reply in fed.replies[half:]]
    told = {struct.unpack(">H", data[:2])[0]: data[2:] for _, kind, data in fed.replies if kind == INFO_REPLY}
    assert told[0] == struct.pack(">QH", 1 << 30, fed.result.export.flags)
    assert told[1] == b"disk"
    assert told[2] == b"a disk"
    assert told[3] == struct.pack(">III", 512, 4096, 1 << 20)
    assert fed.result.export.name == "disk"


def test_a_minimum_above_one_is_told_unasked():
    told = [data[:2] for _, kind, data in feed(option(GO, named("disk"))).replies if kind == INFO_REPLY]
    assert told == [b"\0\0", b"\0\3"]


def test_an_unknown_export_is_refused_and_asking_goes_on():
    fed = feed(option(GO, named("missing")), option(GO, named("")))
    assert kinds(fed)[0] == (GO, ERR + 6)
    assert fed.result.export.name == "disk"


def test_an_unknown_export_by_export_name_can_only_hang_up():
    assert isinstance(feed(option(EXPORT_NAME, b"missing")).error, OptionRefused)


def test_export_name_saves_zeros_where_both_want():
    fed = feed(option(EXPORT_NAME, b"disk"))
    assert fed.tail == struct.pack(">QH", 1 << 30, fed.result.export.flags)
    assert not fed.result.structured


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\4dis",
        b"\xff\xff\xff\xffdisk",
        b"\0\0\0\4disk",
        b"\0\0\0\4disk\0",
        b"\0\0\0\4disk\0\1",
        b"\0\0\0\4disk\0\0x",
        b"\0\0\0\4d\0sk\0\0",
        b"\0\0\0\2\xff\xfe\0\0",
        b"\0\0\0\4disk\xff\xff" + bytes(100),
    ],
)
@pytest.mark.parametrize("number", [INFO_OPT, GO])
def test_malformed_info_is_invalid_and_the_stream_stays_in_step(number, data):
    assert kinds(feed(option(number, data), option(ABORT))) == [(number, ERR + 3), (ABORT, ACK)]


def test_a_long_name_is_too_big():
    assert kinds(feed(option(GO, named("n" * 4097)), option(ABORT)))[0] == (GO, ERR + 9)
    assert kinds(feed(option(GO, named("n" * 4096)), option(ABORT)))[0] == (GO, ERR + 6)


# -- what is negotiated -------------------------------------------------------------------------------------------


def test_df_and_payloads_are_offered_to_those_who_can():
    plain = feed(option(GO, named("disk"))).result
    structured = feed(option(STRUCTURED), option(GO, named("disk"))).result
    extended = feed(option(EXTENDED), option(GO, named("disk"))).result
    assert [bool(each.export.flags & TransmissionFlag.SEND_DF) for each in (plain, structured, extended)] == [
        False,
        True,
        True,
    ]
    assert [
        bool(each.export.flags & TransmissionFlag.BLOCK_STATUS_PAYLOAD) for each in (plain, structured, extended)
    ] == [False, False, True]
    assert (extended.structured, extended.extended) == (True, True)


def test_structured_replies_may_be_asked_for_twice_and_not_behind_extended_headers():
    assert kinds(feed(option(STRUCTURED), option(STRUCTURED))) == [(STRUCTURED, ACK)] * 2
    assert kinds(feed(option(EXTENDED), option(STRUCTURED))) == [(EXTENDED, ACK), (STRUCTURED, ERR + 10)]
    assert kinds(feed(option(STRUCTURED), option(EXTENDED), option(EXTENDED)))[1:] == [(EXTENDED, ACK)] * 2
    assert kinds(feed(option(STRUCTURED, b"x"), option(EXTENDED, b"x"))) == [
        (STRUCTURED, ERR + 3),
        (EXTENDED, ERR + 3),
    ]


def test_export_name_is_forbidden_behind_extended_headers():
    assert isinstance(feed(option(EXTENDED), option(EXPORT_NAME, b"disk")).error, OptionRefused)


def test_contexts_need_structured_replies():
    assert kinds(feed(option(SET_META, queries("disk", "base:allocation")))) == [(SET_META, ERR + 3)]


def test_contexts_are_listed_by_name_namespace_or_all():
    both = [b"\0\0\0\0base:allocation", b"\0\0\0\0blockwright:dirty"]
    for wanted, found in (
        ((), both),
        (("base:",), both[:1]),
        (("base:allocation", "base:allocation"), both[:1]),
        (("nobody:x", "blockwright:"), both[1:]),
        (("base:other", "x"), []),
    ):
        fed = feed(option(STRUCTURED), option(LIST_META, queries("disk", *wanted)))
        assert [data for _, kind, data in fed.replies if kind == META] == found
        assert kinds(fed)[-1] == (LIST_META, ACK)


def test_contexts_are_selected_by_whole_names_with_ids_of_their_own():
    fed = feed(
        option(STRUCTURED),
        option(SET_META, queries("disk", "blockwright:dirty", "base:allocation", "base:", "nobody:x")),
        option(GO, named("disk")),
    )
    assert fed.result.contexts == {1: "base:allocation", 2: "blockwright:dirty"}
    assert kinds(feed(option(STRUCTURED), option(SET_META, queries("disk", "base:"))))[1:] == [(SET_META, ACK)]


@pytest.mark.parametrize("second", [queries("disk"), queries("missing", "base:allocation"), b"bad"])
def test_a_second_selection_replaces_the_first_even_where_it_fails(second):
    fed = feed(
        option(STRUCTURED),
        option(SET_META, queries("disk", "base:allocation")),
        option(SET_META, second),
        option(GO, named("disk")),
    )
    assert fed.result.contexts == {}


def test_contexts_count_for_the_name_they_were_selected_for():
    select = option(STRUCTURED), option(SET_META, queries("", "base:allocation"))
    assert feed(*select, option(GO, named(""))).result.contexts == {1: "base:allocation"}
    assert feed(*select, option(GO, named("disk"))).result.contexts == {}


@pytest.mark.parametrize(
    "data",
    [b"", b"\0\0\0\4disk", b"\0\0\0\4disk\0\0\0\1", b"\0\0\0\4disk\0\0\0\1\0\0\0\5base", b"\0\0\0\4disk\0\0\0\0x"],
)
@pytest.mark.parametrize("number", [LIST_META, SET_META])
def test_malformed_queries_are_invalid(number, data):
    fed = feed(option(STRUCTURED), option(number, data), option(ABORT))
    assert kinds(fed)[1:] == [(number, ERR + 3), (ABORT, ACK)]


def test_many_queries_are_too_big():
    fed = feed(option(STRUCTURED), option(SET_META, queries("disk")[:-4] + b"\xff\xff\xff\xff"), option(ABORT))
    assert kinds(fed)[1:] == [(SET_META, ERR + 9), (ABORT, ACK)]


# -- TLS ("NBD_OPT_STARTTLS", "The NBD protocol over TLS") --------------------------------------------------------


def test_tls_that_nobody_offers_is_refused():
    assert kinds(feed(option(STARTTLS))) == [(STARTTLS, ERR + 1)]


def test_starttls_forgets_all_that_was_negotiated():
    exports = Exports()
    fed = feed(
        option(STRUCTURED),
        option(SET_META, queries("disk", "base:allocation")),
        option(INFO_OPT, named("disk")),
        option(STARTTLS),
        option(GO, named("disk")),
        exports=exports,
        tls=Tls.ALLOW,
        identity=Identity(names=("alice",)),
    )
    assert (fed.result.structured, fed.result.contexts, fed.result.tls) == (False, {}, True)
    assert exports.identity == Identity(names=("alice",))
    assert exports.asked == ["disk", "disk"]  # asked again for whom it is now


def test_tls_is_required_of_all_but_starttls_and_abort():
    options = [LIST, INFO_OPT, GO, STRUCTURED, LIST_META, SET_META, EXTENDED]
    exports = Exports()
    fed = feed(*(option(number, b"") for number in options), option(ABORT), tls=Tls.REQUIRE, exports=exports)
    assert kinds(fed) == [(number, ERR + 5) for number in options] + [(ABORT, ACK)]
    assert exports.asked == []
    assert isinstance(feed(option(EXPORT_NAME, b"disk"), tls=Tls.REQUIRE).error, OptionRefused)
    inside = feed(option(STARTTLS), option(GO, named("disk")), tls=Tls.REQUIRE)
    assert inside.result.tls


def test_tls_within_tls_is_invalid():
    assert kinds(feed(option(STARTTLS), option(STARTTLS), tls=Tls.ALLOW)) == [(STARTTLS, ACK), (STARTTLS, ERR + 3)]
    assert kinds(feed(option(STARTTLS, b"x"), tls=Tls.ALLOW)) == [(STARTTLS, ERR + 3)]


# -- limits and the end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [LIST, GO, 77])
@pytest.mark.parametrize("length", [MAX_OPTION + 1, 0xFFFFFFFF])
def test_an_option_s_data_has_a_limit(number, length):
    fed = feed(option(number, length=length))
    assert isinstance(fed.error, RemoteProtocolError)
    assert "expected at most" in str(fed.error)


def test_options_have_a_limit_in_all_and_so_have_their_bytes():
    limits = HandshakeLimits(options=5, bytes=1000)
    assert "at most 5 options" in str(feed(*[option(77)] * 6, limits=limits).error)
    assert "at most 1000 bytes" in str(feed(*[option(77, bytes(300))] * 4, limits=limits).error)


def test_a_server_that_ends_says_so():
    exports = Exports()
    exports.stopping = True
    assert kinds(feed(option(GO, named("disk")), option(ABORT), exports=exports)) == [(GO, ERR + 7), (ABORT, ACK)]
    assert isinstance(feed(option(EXPORT_NAME, b"disk"), exports=exports).error, OptionRefused)


def test_every_refusal_is_noted_with_its_reason():
    exports = Exports()
    feed(option(GO, named("missing")), option(77), exports=exports)
    assert exports.refusals == [
        (GO, ReplyType.ERR_UNKNOWN, "there is no export 'missing'"),
        (77, ReplyType.ERR_UNSUP, "option 77 is not known"),
    ]
