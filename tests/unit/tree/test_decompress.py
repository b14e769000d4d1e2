"""Compressed streams: told apart, decoded in bounded pieces, and never cut in silence."""

import bz2
import gzip
import itertools
import lzma
import random
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.errors import ArchiveRejected, Closed, ConnectionLost, Corrupt, LimitExceeded, Rejection
from blockwright.tree import decompress
from blockwright.tree import rules as rules_of
from blockwright.tree.decompress import OUTPUT_CHUNK, DecodedStream, compression_of
from blockwright.tree.rules import DEFAULT_RULES, ArchiveRules

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SKIPPABLE = b"\x53\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"skipped"
ENCODERS = {
    "gzip": gzip.compress,
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    None: bytes,
}
COMPRESSED = [name for name in ENCODERS if name]
every = pytest.mark.parametrize("name", ENCODERS)
compressed = pytest.mark.parametrize("name", COMPRESSED)

TEXT = b"".join(b"line %d of some text\n" % i for i in range(20_000))


def reader_of(data: bytes, step: int = 1 << 30):
    position = 0

    def read(length: int) -> bytes:
        nonlocal position
        part = data[position : position + min(length, step)]
        position += len(part)
        return part

    return read


def decode(data: bytes, *, step: int = 1 << 30, length: int = 1 << 20, rules: ArchiveRules = DEFAULT_RULES) -> bytes:
    with DecodedStream(reader_of(data, step), source="x", rules=rules) as stream:
        parts = []
        while part := stream.read(length):
            assert len(part) <= length
            parts.append(part)
        assert stream.read(length) == b""
        assert stream.consumed == len(data)
    return b"".join(parts)


@every
@pytest.mark.parametrize("step", [1 << 30, 1000, 1])
@pytest.mark.parametrize("length", [1 << 20, 777])
def test_what_was_compressed_comes_back(name: str | None, step: int, length: int) -> None:
    plain = TEXT if step > 1 else TEXT[:3000]
    assert decode(ENCODERS[name](plain), step=step, length=length) == plain


@every
def test_the_format_is_told_by_content(name: str | None) -> None:
    data = ENCODERS[name](TEXT)
    assert compression_of(data[:6]) == name
    with DecodedStream(reader_of(data, 1)) as stream:
        assert stream.compression == name


@pytest.mark.parametrize(
    "data", [b"", b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x07", b"BZh", b"BZh0", b"BZhx", b"\xfd7zX", b"\x4f\x2a\x4d\x18"]
)
def test_what_is_no_magic(data: bytes) -> None:
    assert compression_of(data) is None
    assert decode(data) == data


@compressed
@given(pieces=st.lists(st.binary(max_size=50), min_size=1, max_size=5))
@settings(max_examples=20)
def test_frames_behind_one_another(name: str, pieces: list[bytes]) -> None:
    data = b"".join(ENCODERS[name](piece) for piece in pieces)
    for step in (1 << 30, 1, 7):
        assert decode(data, step=step) == b"".join(pieces)


def test_skippable_frames() -> None:
    frame = zstd.compress(b"body")
    for data in (SKIPPABLE + frame, frame + SKIPPABLE, frame + SKIPPABLE + frame):
        assert decode(data) == b"body" * data.count(frame)


@pytest.mark.parametrize("name", ["gzip", "xz"])
@pytest.mark.parametrize("padding", [4, 512, 1 << 20])
def test_padding_behind_a_frame(name: str, padding: int) -> None:
    frame = ENCODERS[name](b"body")
    assert decode(frame + bytes(padding)) == b"body"
    assert decode(frame + bytes(padding) + frame, step=100) == b"bodybody"


@compressed
@pytest.mark.parametrize("tail", [b"junk", b"j" * 300_000])
def test_something_else_behind_a_frame(name: str, tail: bytes) -> None:
    frame = ENCODERS[name](b"body")
    with pytest.raises(Corrupt, match="expected the end or another frame") as caught:
        decode(frame + tail)
    assert caught.value.offset == len(frame)
    assert caught.value.source == "x"


@compressed
def test_a_cut_stream_is_corrupt_wherever_it_is_cut(name: str) -> None:
    data = ENCODERS[name](TEXT[:20_000])
    for cut in {7, 8, 20, len(data) // 2, len(data) - 9, len(data) - 8, len(data) - 4, len(data) - 1}:
        with pytest.raises(Corrupt, match="found the end") as caught:
            decode(data[:cut])
        assert caught.value.offset == cut


@compressed
def test_changed_bytes_are_never_taken_for_the_same(name: str) -> None:
    source = random.Random(name)
    data = ENCODERS[name](source.randbytes(5000) + TEXT[:5000])
    for at in source.sample(range(len(data)), 60):
        damaged = data[:at] + bytes([data[at] ^ 1 << source.randrange(8)]) + data[at + 1 :]
        try:
            assert decode(damaged) in (decode(data), damaged)  # a header's time or name says nothing; or no magic
        except (Corrupt, LimitExceeded) as error:
            assert error.offset is not None  # noqa: PT017 - either outcome is right


@compressed
def test_output_comes_in_bounded_pieces(name: str) -> None:
    data = ENCODERS[name](bytes(30 << 20))
    with DecodedStream(reader_of(data)) as stream:
        lengths = []
        while part := stream.read(1 << 30):
            lengths.append(len(part))
    assert sum(lengths) == 30 << 20
    assert max(lengths) <= OUTPUT_CHUNK


@compressed
def test_no_more_is_decoded_than_may_be_kept(name: str) -> None:
    data = ENCODERS[name](bytes(40 << 20))
    with DecodedStream(reader_of(data)) as stream:
        assert stream._ahead is not None
        deadline = time.monotonic() + 60
        while len(stream._ahead._ready) < decompress.READ_AHEAD and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(stream._ahead._ready) == decompress.READ_AHEAD


def test_memory_that_a_frame_asks_for_is_limited() -> None:
    options = {zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.enable_long_distance_matching: 1}
    compressor = zstd.ZstdCompressor(options=options)
    data = compressor.compress(random.Random(1).randbytes(1 << 16)) + compressor.flush()
    with pytest.raises(LimitExceeded, match="memory"):
        decode(data)


def test_memory_of_xz_is_limited() -> None:
    with pytest.raises(LimitExceeded, match=r"(?i)memory"):
        decode(lzma.compress(TEXT, preset=9), rules=ArchiveRules(memory=1 << 20))


def test_memory_of_zstd_is_limited() -> None:
    window = {zstd.CompressionParameter.window_log: 24}
    data = zstd.ZstdCompressor(options=window).compress(TEXT, zstd.ZstdCompressor.FLUSH_FRAME)
    assert decode(data) == TEXT
    data = zstd.ZstdCompressor(options=window).compress(TEXT)
    with pytest.raises(LimitExceeded, match="memory"):
        decode(data, rules=ArchiveRules(memory=1 << 20))


@compressed
def test_what_comes_out_is_limited(name: str) -> None:
    data = ENCODERS[name](bytes(30 << 20))
    for rules, reason in (
        (ArchiveRules(size=20 << 20), Rejection.BYTES),
        (ArchiveRules(ratio=2, ratio_from=10 << 20), Rejection.RATIO),
        (ArchiveRules(time_s=0), Rejection.SECONDS),
    ):
        with pytest.raises(ArchiveRejected) as caught:
            decode(data, rules=rules)
        assert caught.value.reason is reason
    assert len(decode(data, rules=ArchiveRules(size=30 << 20, ratio=2, ratio_from=30 << 20))) == 30 << 20


class Weighed:
    """A decoder that notes how many bytes it gets and hands back."""

    def __init__(self, inner, moved: list[int]) -> None:
        self._inner, self._moved = inner, moved

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    @property
    def unused_data(self) -> bytes:
        self._moved.append(len(self._inner.unused_data))
        return self._inner.unused_data

    def decompress(self, data: bytes, length: int) -> bytes:
        self._moved.append(len(data))
        return self._inner.decompress(data, length)


@pytest.mark.parametrize(("name", "between"), [*((name, b"") for name in COMPRESSED), ("gzip", b"\0")])
def test_many_small_frames_take_no_more_work_than_their_length(
    name: str, between: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    make = decompress._DECODERS[name]
    monkeypatch.setitem(decompress._DECODERS, name, lambda memory: Weighed(make(memory), moved))
    small, big = ENCODERS[name](b"") + between, ENCODERS[name](random.Random(1).randbytes(100_000))
    count = 100_000 // len(small)
    data = small * count + big + small * count + big
    assert len(decode(data)) == 200_000
    assert sum(moved) < 2 * len(data) + (2 * count + 2) * 2 * decompress.FIRST_PIECE + 8 * len(big)


def forever(data: bytes, reads: int = 200):
    """Return a reader of the same again and again, which a test is not to read to this end."""
    times = iter(range(reads))

    def read(_length: int) -> bytes:
        if next(times, None) is None:
            raise AssertionError("read on and on")
        return data

    return read


@compressed
def test_empty_frames_without_end_are_ended_by_the_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(rules_of, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    read = forever(ENCODERS[name](b"") * 50)
    with DecodedStream(read, rules=ArchiveRules(time_s=20)) as stream, pytest.raises(ArchiveRejected) as caught:
        stream.read(1)
    assert caught.value.reason is Rejection.SECONDS
    assert caught.value.offset == stream.consumed


@compressed
def test_closing_ends_empty_frames_without_end(name: str) -> None:
    streams: list[DecodedStream] = []
    again = forever(ENCODERS[name](b"") * 50)

    def read(length: int) -> bytes:
        while streams and not streams[0]._closed:
            time.sleep(0.001)
        return again(length)

    stream = DecodedStream(read)
    streams.append(stream)
    stream.close()
    assert stream._ahead is not None
    stream._ahead._thread.join(60)
    assert isinstance(stream._ahead._error, Closed)


def test_gzip_without_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal.igzip_lib", None)
    assert isinstance(decompress._gzip(0), decompress._ZlibGzip)
    frame = gzip.compress(TEXT)
    assert decode(frame + bytes(512) + frame, step=1000, length=100) == TEXT + TEXT
    big = gzip.compress(bytes(30 << 20))
    assert decode(big) == bytes(30 << 20)
    with pytest.raises(Corrupt):
        decode(frame[:-9] + b"\0" + frame[-8:])
    with pytest.raises(Corrupt, match="found the end"):
        decode(frame[:-1])


@every
def test_what_reading_raises_is_raised(name: str | None) -> None:
    data = ENCODERS[name](random.Random(1).randbytes(1 << 20))
    parts = iter([data[:500_000]])

    def read(length: int) -> bytes:
        for part in parts:
            return part
        raise OSError(5, "Input/output error")

    def read_all() -> None:
        with DecodedStream(read) as stream:
            while stream.read(1 << 20):
                pass

    with pytest.raises(OSError, match="Input/output"):
        read_all()


@every
def test_closing_early(name: str | None) -> None:
    closed = []
    data = itertools.repeat(ENCODERS[name](TEXT))
    stream = DecodedStream(lambda length: next(data), close=lambda: closed.append(True))
    assert stream.read(10) == TEXT[:10]
    stream.close()
    stream.close()
    assert closed == [True]
    assert stream._ahead is None or not stream._ahead._thread.is_alive()
    with pytest.raises(Closed):
        stream.read(1)


def test_closing_while_the_input_hangs() -> None:
    go = threading.Event()
    head = gzip.compress(TEXT)[:1000]
    parts = iter([head])

    def read(length: int) -> bytes:
        for part in parts:
            return part
        go.wait(120)
        return b""

    stream = DecodedStream(read)
    assert stream._ahead is not None
    stream._ahead.stop(wait_s=0.05)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 60
    go.set()


def test_what_is_not_compressed_has_the_same_limits() -> None:
    with pytest.raises(ArchiveRejected) as caught:
        decode(TEXT, rules=ArchiveRules(size=len(TEXT) - 1), step=1000)
    assert caught.value.reason is Rejection.BYTES
    assert decode(TEXT, rules=ArchiveRules(size=len(TEXT)), step=1000) == TEXT


def test_what_fails_while_it_is_looked_at_fails_when_it_is_read() -> None:
    """Also where the input would be at its end when it is asked once more."""
    parts = iter([b"plain text", ConnectionLost("broke off"), b""])

    def read(_length: int) -> bytes:
        part = next(parts)
        if isinstance(part, Exception):
            raise part
        return part

    with DecodedStream(read) as stream:
        assert stream.peek(100) == b"plain text"
        assert stream.read(100) == b"plain text"
        with pytest.raises(ConnectionLost):
            stream.read(100)
