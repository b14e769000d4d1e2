"""Netlink's bytes and values, and replies that say what is not so."""

import contextlib
import errno
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import Corrupt
from blockwright.system.linux import netlink
from blockwright.system.linux.netlink import Message, Reply

little = pytest.mark.skipif(sys.byteorder != "little", reason="bytes as a little-endian machine has them")

PAIRS = [
    (netlink.u32(1, 0x01020304), "0800 0100 04030201"),
    (netlink.u64(2, 5), "0c00 0200 0500000000000000"),
    (netlink.text(10, "abc"), "0800 0a00 61626300"),
    (netlink.text(10, "abcd"), "0900 0a00 6162636400 000000"),
    (netlink.attribute(7, netlink.attribute(1, netlink.u32(1, 9))), "1000 0700 0c00 0100 0800 0100 09000000"),
    (
        netlink.message(0x1B, 7, 5, 1, netlink.u32(1, 3)),
        "1c000000 1b00 0500 07000000 00000000 05 01 0000 0800 0100 03000000",
    ),
]


@little
@pytest.mark.parametrize(("packed", "expected"), PAIRS)
def test_bytes(packed, expected):
    assert packed == bytes.fromhex(expected)


def test_attributes_are_read_back():
    data = netlink.u32(1, 7) + netlink.text(10, "x") + netlink.attribute(0x8009, b"\1\2\3\4\5")
    assert netlink.attributes(data) == [(1, (7).to_bytes(4, sys.byteorder)), (10, b"x\0"), (9, b"\1\2\3\4\5")]
    assert netlink.attributes(b"") == []
    assert netlink.attributes(netlink.text(3, "")[:-3]) == [(3, b"\0")], "padding may be missing at the end"


def test_messages_are_read_back():
    one, two = netlink.message(27, 1, 2, 3, b""), netlink.message(27, 2, 5, 1, netlink.u32(1, 9))
    first, second = netlink.messages(one + two)
    assert (first.kind, first.sequence, second.sequence) == (27, 1, 2)
    assert netlink.reply(first) == Reply(2, b"")
    assert netlink.reply(second) == Reply(5, netlink.u32(1, 9))


def acknowledgement(code, text=None, *, capped=True, request=b""):
    head = struct.pack("=IHHII", 16 + len(request), 27, 5, 1, 0)
    body = struct.pack("=i", -code) + head + (b"" if capped else request + bytes(-len(request) % 4))
    flags = 0x100 if capped else 0
    if text is not None:
        body += netlink.u32(2, 5) + netlink.text(1, text)
        flags |= 0x200
    return Message(2, flags, 1, body)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (acknowledgement(0), (0, "")),
        (acknowledgement(errno.EBUSY), (errno.EBUSY, "")),
        (acknowledgement(errno.EINVAL, "backend must match"), (errno.EINVAL, "backend must match")),
        (acknowledgement(errno.EINVAL, "why", capped=False, request=b"abcde"), (errno.EINVAL, "why")),
        (Message(2, 0x200, 1, struct.pack("=i", -1)), (1, "")),
        (acknowledgement(5, "\udcff"), (5, "\ufffd")),
    ],
)
def test_outcomes(found, expected):
    assert netlink.outcome(found) == expected


HOSTILE = [
    (netlink.attributes, b"\3\0\1\0", "expected a length from 4 to 4, found 3"),
    (netlink.attributes, struct.pack("=HH", 9, 1) + b"1234", "expected a length from 4 to 8, found 9"),
    (netlink.attributes, netlink.u32(1, 1) + b"\1\1", "expected 4 bytes, found 2"),
    (netlink.messages, bytes(15), "expected a length from 16 to 15, found 15"),
    (netlink.messages, bytes(16), "expected a length from 16 to 16, found 0"),
    (netlink.messages, struct.pack("=IHHII", 1 << 31, 2, 0, 1, 0), "found 2147483648"),
    (netlink.reply, Message(27, 0, 1, b"abc"), "expected 4 bytes, found 3"),
    (netlink.outcome, Message(2, 0, 1, b"abc"), "expected 4 bytes, found 3"),
    (netlink.outcome, Message(2, 0, 1, struct.pack("=i", 7)), "expected an errno, found -7"),
    (netlink.outcome, Message(2, 0, 1, struct.pack("=i", -(1 << 31))), "expected an errno, found 2147483648"),
    (lambda data: netlink.number(data, 4), b"12345", "expected 4 bytes, found 5"),
]


@pytest.mark.parametrize(("read", "data", "text"), HOSTILE, ids=[text for _, _, text in HOSTILE])
def test_what_is_not_so_is_an_error(read, data, text):
    with pytest.raises(Corrupt, match=text):
        read(data)


@given(st.binary(max_size=200), st.integers(0, 0xFFFF))
def test_any_bytes_give_values_or_corrupt(data, flags):
    for read in (netlink.attributes, netlink.messages, lambda data: netlink.outcome(Message(2, flags, 1, data))):
        with contextlib.suppress(Corrupt):
            read(data)


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_whatever_is_packed_is_read(wanted):
    assert netlink.attributes(b"".join(netlink.attribute(*each) for each in wanted)) == wanted
