"""The nbd driver's requests as bytes, its answers as values, and answers that say what is not so."""

import contextlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.errors import Corrupt, UsageError
from blockwright.system.linux import netlink
from blockwright.system.linux.nbd import layout
from blockwright.system.linux.nbd.layout import ServerFlag, Settings
from blockwright.system.linux.netlink import Reply

little = pytest.mark.skipif(sys.byteorder != "little", reason="bytes as a little-endian machine has them")


@little
def test_connect():
    settings = Settings(
        4096, 512, ServerFlag.HAS_FLAGS | ServerFlag.SEND_FLUSH, timeout_s=3, dead_timeout_s=9, identifier="ab"
    )
    expected = """
        0800 0100 05000000
        0c00 0200 0010000000000000
        0c00 0300 0002000000000000
        0c00 0500 0500000000000000
        0c00 0600 0000000000000000
        0c00 0400 0300000000000000
        0c00 0800 0900000000000000
        0700 0a00 616200 00
        1c00 0700 0c00 0100 0800 0100 07000000 0c00 0100 0800 0100 08000000
    """
    assert layout.connect_request(settings, [7, 8], 5) == bytes.fromhex(expected)
    shorter = dict(netlink.attributes(layout.connect_request(Settings(4096), [7], None)))
    assert sorted(shorter) == [2, 3, 5, 6, 7], "the driver chooses the device where no number is told"


@little
def test_reconfigure_and_the_rest():
    assert layout.reconfigure_request(5, "ab", size=8192, sockets=[7]) == bytes.fromhex(
        "0800 0100 05000000 0c00 0200 0020000000000000 0700 0a00 616200 00 1000 0700 0c00 0100 0800 0100 07000000"
    )
    assert layout.reconfigure_request(5, "") == layout.index_request(5) == bytes.fromhex("0800 0100 05000000")
    assert layout.index_request(None) == b""


def device(*fields):
    return netlink.attribute(1, b"".join(fields))


def test_answers():
    assert layout.index_of(Reply(1, netlink.u32(1, 12))) == 12
    items = device(netlink.u32(1, 0), netlink.attribute(2, b"\0")) + device(
        netlink.u32(1, 3), netlink.attribute(2, b"\1")
    )
    assert layout.connected_of(Reply(5, netlink.attribute(9, items))) == {0: False, 3: True}
    assert layout.connected_of(Reply(5, b"")) == {}


@pytest.mark.parametrize(
    ("read", "attributes"),
    [
        (layout.index_of, b""),
        (layout.index_of, netlink.u64(1, 1)),
        (layout.connected_of, netlink.attribute(9, device(netlink.u32(1, 0)))),
        (layout.connected_of, netlink.attribute(9, device(netlink.u32(1, 0), netlink.u32(2, 1)))),
        (layout.connected_of, netlink.attribute(9, b"\1\2\3")),
    ],
)
def test_what_is_not_so_is_an_error(read, attributes):
    with pytest.raises(Corrupt):
        read(Reply(5, attributes))


@given(st.binary(max_size=100))
def test_any_bytes_give_values_or_corrupt(data):
    for read in (layout.index_of, layout.connected_of):
        with contextlib.suppress(Corrupt):
            read(Reply(5, data))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"block_size": 0}, "block size: expected a power of two from 512 on, found 0"),
        ({"block_size": 768}, "found 768"),
        ({"size": -1}, "size: expected less than 2.63 bytes, found -1"),
        ({"size": 1 << 63}, "size: expected"),
        ({"timeout_s": -1}, "times: expected 0 or more seconds, found -1 and 0"),
        ({"dead_timeout_s": 1 << 31}, "times: expected"),
        ({"identifier": "a\0b"}, "identifier: expected text"),
        ({"identifier": "x" * 513}, "identifier: expected text"),
    ],
)
def test_settings_that_cannot_be(wrong, text):
    with pytest.raises(UsageError, match=text):
        Settings(**{"size": 4096, **wrong})


def test_the_size_that_is_kept_is_whole_blocks():
    assert Settings(10_000, 4096).kept_size == 8192
    assert Settings(10_000).kept_size == 9728
