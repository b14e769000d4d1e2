"""Bytes to and from device-mapper: structures as linux/dm-ioctl.h has them, answers walked within their length."""

import random
import struct
import sys

import pytest

from blockwright.errors import Corrupt
from blockwright.system.linux.dm import layout
from blockwright.system.linux.dm.layout import Header, Line
from blockwright.system.linux.ioctl import join_device, split_device

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes here are little-endian")


def test_the_header_is_where_the_kernel_has_it():
    header = Header(flags=0x10, event_nr=7, dev=0xFE00, name=b"n", uuid=b"u", data_size=16384)
    data = header.pack()
    assert len(data) == 312
    assert struct.unpack_from("<3I", data) == (4, 0, 0)
    assert struct.unpack_from("<6I", data, 12) == (16384, 312, 0, 0, 0x10, 7)
    assert struct.unpack_from("<Q", data, 40) == (0xFE00,)
    assert (data[48:50], data[176:178]) == (b"n\0", b"u\0")


def test_targets_are_packed_one_behind_the_other():
    data = layout.pack_targets([Line(0, 8, "zero", ""), Line(8, 16, "linear", "7:0 2048")])
    assert struct.unpack_from("<QQiI", data) == (0, 8, 0, 48)
    assert data[24:40] == b"zero".ljust(16, b"\0")
    assert struct.unpack_from("<QQiI", data, 48) == (8, 16, 0, 56)
    assert data[88:97] == b"7:0 2048\0"
    assert len(data) == 104


def answer(*lines):
    """Targets as the kernel tells them: each says where the next begins, counted from the first."""
    data = b""
    for line in lines:
        body = line.text.encode() + b"\0"
        body += bytes(-len(body) % 8)
        spec = layout.TargetSpec(
            sector_start=line.start_sector,
            length=line.length_sectors,
            next=len(data) + 40 + len(body),
            target_type=line.type.encode(),
        )
        data += spec.pack() + body
    return data


def test_targets_of_an_answer():
    lines = [Line(0, 8, "zero", ""), Line(8, 16, "linear", "7:0 2048"), Line(24, 1, "error", "")]
    assert layout.parse_targets(answer(*lines) + bytes(100), 3) == lines
    with pytest.raises(Corrupt, match=r"expected 40 bytes at \d+ of the answer"):
        layout.parse_targets(answer(*lines[:2]), 3)


def name_entry(name, dev, event, uuid, *, last=False):
    body = struct.pack("<QI", dev, 0) + name + b"\0"
    body += bytes(-len(body) % 8)
    body += struct.pack("<II", event, 1 if uuid else 2) + (uuid + b"\0" if uuid else b"")
    body += bytes(-len(body) % 8)
    return body[:8] + struct.pack("<I", 0 if last else len(body)) + body[12:]


def test_names_with_uuids_and_without():
    data = name_entry(b"one", 0xFE00, 3, b"u-1") + name_entry(b"two-long-name", 0xFE01, 0, b"", last=True)
    assert layout.parse_names(data + bytes(64)) == [
        layout.Entry("one", 0xFE00, 3, "u-1"),
        layout.Entry("two-long-name", 0xFE01, 0, ""),
    ]
    assert layout.parse_names(bytes(64)) == []
    assert layout.parse_names(b"") == []


def test_names_of_kernels_that_tell_no_more():
    old = struct.pack("<QI", 0xFE00, 0) + b"old\0"
    assert layout.parse_names(old) == [layout.Entry("old", 0xFE00, None, None)]


def test_versions_and_dependencies():
    data = struct.pack("<4I", 24, 1, 2, 3) + b"linear\0\0" + struct.pack("<4I", 0, 4, 5, 6) + b"zero\0\0\0\0"
    assert layout.parse_versions(data) == {"linear": (1, 2, 3), "zero": (4, 5, 6)}
    assert layout.parse_dependencies(struct.pack("<IIQQ", 2, 0, 0x700, 0x701)) == [0x700, 0x701]
    with pytest.raises(Corrupt):
        layout.parse_dependencies(struct.pack("<IIQ", 1 << 31, 0, 0x700))


def test_any_bytes_are_a_value_or_corrupt():
    for seed in range(3000):
        source = random.Random(seed)
        data = bytearray(answer(Line(0, 8, "zero", ""), Line(8, 16, "linear", "7:0 2048")))
        data = data if source.random() < 0.5 else bytearray(name_entry(b"one", 1, 3, b"u-1") * 2)
        for _ in range(source.randrange(6)):
            data[source.randrange(len(data))] = source.choice([0, 1, 8, 255, source.randrange(256)])
        data = data[: source.randrange(len(data) + 1)]
        for read in (
            layout.parse_names,
            layout.parse_versions,
            layout.parse_dependencies,
            lambda each: layout.parse_targets(each, 1 << 31),
        ):
            try:
                read(bytes(data))
            except Corrupt:
                pass
            except Exception as error:
                raise AssertionError(f"replay: seed {seed}") from error


@pytest.mark.parametrize("pair", [(7, 0), (254, 255), (259, 256), (4095, (1 << 20) - 1), (8, 1 << 19)])
def test_device_numbers_are_those_of_os(pair):
    import os

    assert join_device(*pair) == os.makedev(*pair)
    assert split_device(os.makedev(*pair)) == pair
