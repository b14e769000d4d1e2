"""The log of an unclean journal: which of its blocks count, in every version, against a model."""

import random

import pytest

from blockwright.device.extent import DATA
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, NotSupported, ReadOnly, Unsupported
from blockwright.fs.ext4 import read
from blockwright.fs.ext4.check import check
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.journal import crc32_be
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.replay import Patch, ReplayedDevice
from blockwright.tree.node import Directory
from tests.support.ext4_journal import INCOMPAT, MAGIC, JournalWriter, Transaction

with open_plan(
    plan(Directory(), Ext4Options(block_size=1024, seed=b"log", size=8 << 20, journal=1 << 20))
) as _device:
    CLEAN = _device.read(0, _device.size)
FREE = range(5000, 5200)


def blocks(data: bytes) -> bytes:
    with read.open(MemoryDevice(content=data)) as fs:
        return fs.volume.device.read(FREE[0] * 1024, len(FREE) * 1024)


def block(found: bytes, number: int) -> bytes:
    return found[(number - FREE[0]) * 1024 : (number - FREE[0] + 1) * 1024]


@pytest.mark.parametrize("version", INCOMPAT)
@pytest.mark.parametrize("seed", range(8))
def test_against_a_model(version, seed):
    rng = random.Random(f"{version}.{seed}")
    sequence = 0xFFFFFFF0 if seed == 7 and version == "none" else rng.randrange(1, 1000)
    writer = JournalWriter(CLEAN, version, start=rng.choice([1, 900, 1000]), sequence=sequence)
    model: dict[int, bytes] = {}
    for _ in range(rng.randrange(1, 9)):
        writes = {}
        for number in rng.sample(FREE, rng.randrange(25)):
            body = rng.randbytes(1020)
            writes[number] = (MAGIC.to_bytes(4, "big") if rng.random() < 0.3 else body[:4]) + body
        revokes = rng.sample(FREE, rng.randrange(10)) if rng.random() < 0.7 else []
        committed = True
        writer.add(Transaction(writes, revokes, committed=committed))
        for number in revokes:  # a revocation counts for its own transaction too
            model.pop(number, None)
        model.update({number: body for number, body in writes.items() if number not in revokes})
    found = blocks(writer.finish())
    for number in FREE:
        assert block(found, number) == model.get(number, bytes(1024)), number


@pytest.mark.parametrize("version", INCOMPAT)
def test_what_was_not_committed_does_not_count(version):
    writer = JournalWriter(CLEAN, version)
    writer.add(Transaction({5000: b"a" * 1024}))
    writer.add(Transaction({5000: b"b" * 1024, 5001: b"b" * 1024}, committed=False))
    found = blocks(writer.finish())
    assert block(found, 5000) == b"a" * 1024
    assert block(found, 5001) == bytes(1024)


def test_old_transactions_behind_the_end_do_not_count():
    writer = JournalWriter(CLEAN, "v3", sequence=50)
    writer.add(Transaction({5000: b"a" * 1024}))
    writer.sequence = 40
    writer.add(Transaction({5000: b"old" + bytes(1021)}))
    assert block(blocks(writer.finish()), 5000) == b"a" * 1024


@pytest.mark.parametrize(("version", "match"), [("v2", "logged block"), ("v3-64", "logged block"), ("v1", None)])
def test_a_damaged_body(version, match):
    writer = JournalWriter(CLEAN, version)
    writer.add(Transaction({5000: b"a" * 1024}))
    data = writer.finish()
    data[data.index(b"a" * 1024) + 5] ^= 1
    if match is None:  # the checksum of the whole transaction does not hold: as if it was not committed
        assert block(blocks(data), 5000) == bytes(1024)
        return
    with pytest.raises(Corrupt, match=match):
        read.open(MemoryDevice(content=data))


def test_a_damaged_descriptor_of_a_committed_transaction():
    writer = JournalWriter(CLEAN, "v3")
    writer.add(Transaction({5000: b"a" * 1024}))
    data = writer.finish()
    data[writer.places[1] * 1024 + 500] ^= 1
    with pytest.raises(Corrupt, match="descriptor"):
        read.open(MemoryDevice(content=data))


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        (0x0, 0, "superblock"),
        (0xC, 4096, "block size"),
        (0x10, 1 << 20, "length"),
        (0x14, 0, "first block"),
        (0x14, 5000, "first block"),
        (0x1C, 5000, "start"),
    ],
)
def test_a_superblock_that_leads_astray(field, value, match):
    writer = JournalWriter(CLEAN, "none")
    writer.add(Transaction({5000: b"a" * 1024}))
    data = writer.finish()
    at = writer.places[0] * 1024 + field
    data[at : at + 4] = value.to_bytes(4, "big")
    with pytest.raises(Corrupt, match=match):
        read.open(MemoryDevice(content=data))


def test_unknown_features_and_blocks_outside():
    writer = JournalWriter(CLEAN, "none")
    writer.add(Transaction({1 << 20: b"a" * 1024}))
    with pytest.raises(Corrupt, match="tag"):
        read.open(MemoryDevice(content=writer.finish()))
    writer.incompat |= 0x80
    with pytest.raises(Unsupported, match="0x80"):
        read.open(MemoryDevice(content=writer.finish()))


@pytest.mark.parametrize("filled", [True, False])
def test_fast_commits_are_refused_where_they_hold_something(filled):
    with open_plan(plan(Directory(), Ext4Options(block_size=1024, size=8 << 20, journal=2 << 20))) as device:
        clean = device.read(0, device.size)
    writer = JournalWriter(clean, "v3")
    writer.incompat |= 0x20
    writer.last -= 256
    writer.add(Transaction({5000: b"a" * 1024}))
    head = (9).to_bytes(2, "little") + (8).to_bytes(2, "little") + bytes(4) + (2).to_bytes(4, "little")
    tail = (8).to_bytes(2, "little") + (8).to_bytes(2, "little") + (2).to_bytes(4, "little") + bytes(4)
    if filled:
        writer.put(writer.last + 1, (head + tail).ljust(1024, b"\0"))
        with pytest.raises(Unsupported, match="fast commits"):
            read.open(MemoryDevice(content=writer.finish()))
        return
    assert block(blocks(writer.finish()), 5000) == b"a" * 1024


def test_check_looks_at_what_is_replayed():
    with read.open(MemoryDevice(content=CLEAN)) as fs:
        bitmap = fs.volume.descriptor(0).block_bitmap
    writer = JournalWriter(CLEAN, "v3")
    writer.add(Transaction({bitmap: bytes(1024)}))
    found = {finding.rule for finding in check(MemoryDevice(content=writer.finish()), now=1 << 40)}
    assert "ext4.block-bitmap.bits" in found
    healed = JournalWriter(CLEAN, "v3")
    healed.add(Transaction({bitmap: CLEAN[bitmap * 1024 : (bitmap + 1) * 1024]}))
    data = healed.finish()
    data[bitmap * 1024 : (bitmap + 1) * 1024] = bytes(1024)
    assert check(MemoryDevice(content=data), now=1 << 40) == []


def test_the_device_over_it():
    inner = MemoryDevice(64 * 1024)
    inner.write(0, bytes(range(256)) * 32)
    inner.write(40 * 1024, b"J" * 1024, b"K" * 1024)
    device = ReplayedDevice(inner, 1024, {2: Patch(40, escaped=False), 60: Patch(41, escaped=True)})
    expected = bytearray(inner.read(0, inner.size))
    expected[2048:3072] = b"J" * 1024
    expected[60 * 1024 : 61 * 1024] = MAGIC.to_bytes(4, "big") + b"K" * 1020
    rng = random.Random(2)
    for _ in range(300):
        start = rng.randrange(device.size)
        length = rng.randrange(min(5000, device.size - start) + 1)
        assert device.read(start, length) == expected[start : start + length]
    told = list(device.extents())
    assert told[0].offset == 0
    assert sum(extent.length for extent in told) == device.size
    assert any(extent.offset <= 60 * 1024 < extent.end and extent.flags == DATA for extent in told)
    with device.backing(2048, 10) as runs:
        assert runs is None
    with pytest.raises((ReadOnly, NotSupported)):
        device.write(0, b"x")


def test_the_crc_that_takes_the_high_bit_first():
    register = 0xFFFFFFFF
    data = random.Random(1).randbytes(100)
    for byte in data:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ 0x04C11DB7 if register & 1 << 31 else register << 1) & 0xFFFFFFFF
    assert crc32_be(0xFFFFFFFF, data) == register
    assert crc32_be(crc32_be(0xFFFFFFFF, data[:50]), data[50:]) == register
