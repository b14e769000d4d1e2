"""Compressed images read as what was compressed, anywhere in them, and say what is wrong with their bytes."""

import gzip
import lzma
import random
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.device import hostfile
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Cancelled, Corrupt, FormatError, LimitExceeded, ReadOnly
from blockwright.format.open import open_image
from blockwright.format.packed import device, gzipped, xz, zst
from blockwright.format.packed.device import PackedDevice, SpooledDevice
from blockwright.tree import decompress
from blockwright.units import KiB, MiB

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHANCE = random.Random("packed")
DISK = b"".join(
    CHANCE.choice((CHANCE.randbytes, bytes, lambda n: (b"so many words " * n)[:n]))(
        CHANCE.choice((512, 70_000, 200_000))
    )
    for _ in range(60)
)[: 3 * MiB + 700]


def frames(compress, size):
    return b"".join(compress(DISK[at : at + size]) for at in range(0, len(DISK), size))


def seekable(size):
    """Return zstd's seekable format, as its specification has it."""
    parts = [zstd.compress(DISK[at : at + size]) for at in range(0, len(DISK), size)]
    sizes = [len(DISK[at : at + size]) for at in range(0, len(DISK), size)]
    table = b"".join(
        len(part).to_bytes(4, "little") + size.to_bytes(4, "little") for part, size in zip(parts, sizes, strict=True)
    )
    table += len(parts).to_bytes(4, "little") + b"\0" + (0x8F92EAB1).to_bytes(4, "little")
    return b"".join(parts) + (0x184D2A5E).to_bytes(4, "little") + len(table).to_bytes(4, "little") + table


def sizeless():
    compressor = zstd.ZstdCompressor()
    return compressor.compress(DISK) + compressor.flush()


def skippable(data):
    return (0x184D2A53).to_bytes(4, "little") + len(data).to_bytes(4, "little") + data


FILES = {
    "gzip": gzip.compress(DISK),
    "gzip members": frames(gzip.compress, MiB) + bytes(1000),
    "xz": lzma.compress(DISK),
    "xz streams": frames(lzma.compress, 300_000),
    "xz streams with padding": frames(lambda part: lzma.compress(part) + bytes(8), 700_000),
    "xz without a check": lzma.compress(DISK, check=lzma.CHECK_NONE),
    "zstd": zstd.compress(DISK),
    "zstd frames": frames(zstd.compress, 500_000) + skippable(b"x" * 100),
    "zstd with a seek table": seekable(256 * KiB),
    "zstd without sizes": sizeless(),
}


def opened(data):
    return open_image(MemoryDevice(content=data))


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()])
def test_what_was_not_kept_is_not_taken_for_zeros(error, monkeypatch):
    original, written = hostfile.write_full, []

    def fail_once(fd, offset, buffers, **options):
        written.append(offset)
        if len(written) == 3:
            raise error
        original(fd, offset, buffers, **options)

    monkeypatch.setattr("blockwright.device.hostfile.write_full", fail_once)
    monkeypatch.setattr(xz, "MAX_BLOCK", 0)
    with open_image(MemoryDevice(content=lzma.compress(DISK))) as disk:
        assert isinstance(disk, SpooledDevice)
        with pytest.raises(type(error)):
            disk.read(0, len(DISK))
        first = written[2] // device.PIECE * device.PIECE
        assert disk.read(0, first) == DISK[:first]
        for start in (first, first + device.PIECE, 0):
            with pytest.raises((OSError, Cancelled)):
                disk.read(start, first + 1 if not start else 100)


@pytest.mark.parametrize("kind", FILES)
def test_reads_anywhere(kind):
    chance = random.Random(kind)
    with opened(FILES[kind]) as disk:
        assert disk.size == len(DISK)
        for _ in range(40):
            offset = chance.randrange(len(DISK))
            length = min(len(DISK) - offset, chance.choice((1, 512, 4096, 300_000)))
            assert disk.read(offset, length) == DISK[offset : offset + length]
        assert disk.read(0, len(DISK)) == DISK
        for extent in disk.extents():
            if extent.flags:
                assert not any(DISK[extent.offset : extent.end])


class Weighed(MemoryDevice):
    """Memory that counts the bytes that are read from it."""

    weight = 0

    def _read_into(self, offset, buffers):
        self.weight += sum(map(len, buffers))
        super()._read_into(offset, buffers)


def test_many_small_members_are_not_read_again_and_again():
    small, big = gzip.compress(b"") + b"\0", gzip.compress(CHANCE.randbytes(100_000))
    count = 5000
    file = Weighed(content=small * count + big + small * count + big)
    disk = gzipped.open_gzip(file)
    assert disk.size == 200_000
    assert file.weight < 2 * file.size + 2 * count * 3 * gzipped.FIRST_INPUT + 8 * gzipped.INPUT


@pytest.mark.parametrize("kind", ["gzip", "gzip members"])
def test_states_stay_few(kind, monkeypatch):
    monkeypatch.setattr(gzipped, "MAX_STATES", 8)
    monkeypatch.setattr(device, "KEPT", 1)
    kept = []
    real = gzipped._States.note

    def note(states, *more):
        if not kept:
            states.distance = 1000
        kept.append(states)
        real(states, *more)

    monkeypatch.setattr(gzipped._States, "note", note)
    with opened(FILES[kind]) as disk:
        assert 4 <= len(kept[-1].found) <= 8
        for offset in range(len(DISK) - 1000, 0, -333_333):
            assert disk.read(offset, 1000) == DISK[offset : offset + 1000]


@pytest.mark.parametrize(("kind", "module", "name"), [("xz", xz, "MAX_BLOCK"), ("zstd", zst, "MAX_FRAME")])
def test_what_has_no_place_to_begin_is_kept_aside(kind, module, name, monkeypatch):
    with opened(FILES[kind]) as disk:
        assert isinstance(disk, PackedDevice)
    monkeypatch.setattr(module, name, MiB)
    with opened(FILES[kind]) as disk:
        assert isinstance(disk, SpooledDevice)
        assert disk.read(2 * MiB, 5000) == DISK[2 * MiB : 2 * MiB + 5000]
        assert disk.read(0, len(DISK)) == DISK
        assert all(not any(DISK[each.offset : each.end]) for each in disk.extents() if each.flags)
    monkeypatch.setattr(device, "MAX_SPOOL", MiB)
    with opened(FILES[kind]) as disk, pytest.raises(LimitExceeded, match="of data"):
        disk.read(0, len(DISK))


@pytest.mark.parametrize("kind", FILES)
def test_a_cut_file_is_an_error(kind):
    data = FILES[kind].rstrip(b"\0")
    for length in (len(data) - 1, len(data) // 2, 20):
        with pytest.raises(FormatError):
            all_of(data[:length])


def all_of(data):
    with opened(data) as disk:
        return disk.read(0, disk.size)


@pytest.mark.parametrize("kind", FILES)
def test_damage_is_an_error_or_none(kind):
    chance = random.Random(kind)
    for _ in range(20):
        data = bytearray(FILES[kind])
        data[chance.randrange(6, len(data))] ^= 1 << chance.randrange(8)
        try:
            assert len(all_of(bytes(data))) <= 4 * len(DISK)
        except FormatError:
            continue


def test_an_index_that_says_something_else_is_found():
    whole = FILES["xz"]
    with opened(whole) as disk:
        (block,) = xz.read_blocks(MemoryDevice(content=whole))
        pieces = xz._decoded(disk._file, block._replace(length=block.length - 1))
        with pytest.raises(Corrupt):
            list(pieces)


@pytest.mark.parametrize("spooled", [False, True])
def test_a_check_that_does_not_hold_is_found_by_who_reads_all(spooled, monkeypatch):
    if spooled:
        monkeypatch.setattr(xz, "MAX_BLOCK", 1000)
    data = bytearray(FILES["xz streams"])
    block = xz.read_blocks(MemoryDevice(content=bytes(data)))[-1]
    for piece in (decompress.OUTPUT_CHUNK, block.length):  # what is decoded may end before the check or behind it
        monkeypatch.setattr(decompress, "OUTPUT_CHUNK", piece)
        broken = data[:]
        broken[block.at + block.unpadded - 1] ^= 1
        with pytest.raises(Corrupt, match="xz"):
            all_of(bytes(broken))


def test_an_empty_one_is_an_empty_disk():
    for data in (gzip.compress(b""), lzma.compress(b""), zstd.compress(b"")):
        with opened(data) as disk:
            assert disk.size == 0


def test_they_are_only_read():
    with pytest.raises(ReadOnly, match="is compressed with gz"):
        open_image(MemoryDevice(content=FILES["gzip"]), writable=True)


def test_a_disk_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(gzipped, "MAX_DISK", MiB)
    monkeypatch.setattr(device, "MAX_DISK", MiB)
    for data in FILES.values():
        with pytest.raises(LimitExceeded):
            opened(data)


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(list(FILES)), st.integers(0, 1 << 20))
def test_any_bytes_give_a_disk_or_a_format_error(data, kind, at):
    base = FILES[kind]
    at %= len(base)
    for each in (data, base[:8] + data, base[:at] + data + base[at + len(data) :]):
        try:
            with opened(each) as disk:
                disk.read(0, min(disk.size, MiB))
        except FormatError:
            continue


def test_numbers_of_xz_without_end_are_refused():
    index = bytes([0]) + b"\xff" * 11
    index += zlib.crc32(index).to_bytes(4, "little")
    with pytest.raises(Corrupt, match="no end"):
        xz._records(index, 0)
