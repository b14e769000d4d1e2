"""Compressed streams, told by their first bytes and decoded once, in a thread of their own.

The decoders are C libraries that release the interpreter's lock, so decoding goes on while whoever reads works on
what came before. Output comes in chunks of a bounded size, a few ahead: memory does not follow what the input claims.

Knows: magics, frame behind frame, and when a stream is cut or corrupt. Refuses to know: what is inside, and names.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol, Self

from blockwright.codec import zstd
from blockwright.errors import BlockwrightError, Closed, Corrupt, FormatError, LimitExceeded
from blockwright.tree.readahead import ReadAhead
from blockwright.tree.rules import DEFAULT_RULES, ArchiveRules, Budget
from blockwright.units import MiB

INPUT_CHUNK: Final = MiB
"""Enough that most calls of a decoder fill an output chunk: each call must get the interpreter's lock back several
times from a thread that computes."""
FIRST_PIECE: Final = 512
"""Bytes of the input that the decoder of a frame behind a short one gets first. A decoder hands back what lies behind
its frame as a copy: with all that was read, many short frames would each copy the rest."""
OUTPUT_CHUNK: Final = 4 * MiB
READ_AHEAD: Final = 8
"""Chunks decoded before they are asked for."""
MAGIC_LENGTH: Final = 6

_GZIP: Final = b"\x1f\x8b\x08"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = tuple(bytes([0x50 + i]) + b"\x2a\x4d\x18" for i in range(16))
_XZ: Final = b"\xfd7zXZ\0"
_BZIP2: Final = tuple(b"BZh%d" % level for level in range(1, 10))
_NOT_NULL: Final = re.compile(rb"[^\0]")


def compression_of(head: bytes) -> str | None:
    """Return ``gzip``, ``zstd``, ``xz`` or ``bzip2`` by the first six bytes of a stream; None for none of them."""
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith((_ZSTD, *_ZSTD_SKIPPABLE)):
        return "zstd"
    if head.startswith(_XZ):
        return "xz"
    if head.startswith(_BZIP2):
        return "bzip2"
    return None


class DecodedStream:
    """A stream's bytes as they were before compression; what is not compressed passes through.

    ``read(n)`` returns up to n bytes of the input, none at its end; ``close`` is called when the input is needed no
    more. ``compression`` is what was found: ``gzip``, ``zstd``, ``xz``, ``bzip2`` or None. ``rules`` bound the bytes
    that come out, their ratio to what went in, the decoder's memory and the time. For one reading thread.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        *,
        source: str = "stream",
        close: Callable[[], object] | None = None,
        rules: ArchiveRules = DEFAULT_RULES,
    ) -> None:
        self._input = _Input(read)
        self._source = source
        self._budget = Budget(rules, source)
        self._came_out = 0
        self._close_input = close
        self._closed = False
        self._left = memoryview(b"")
        self._failed: BlockwrightError | None = None
        self._ahead: ReadAhead | None = None
        self.compression = compression_of(self._input.head(MAGIC_LENGTH))
        if self.compression is None:
            self._left = memoryview(self._input.take(self._input.consumed))
        else:
            self._input.watch = self._watch
            chunks = _decode(self._input, self.compression, rules.memory)
            self._ahead = ReadAhead(chunks, READ_AHEAD, finished=close)

    @property
    def consumed(self) -> int:
        """Bytes taken from the input so far."""
        return self._input.consumed

    def read(self, length: int) -> bytes:
        """Return up to ``length`` bytes, none at the end.

        Raises Corrupt with the byte of the compressed stream where the piece begins in which decoding failed, or
        where a cut stream ends; LimitExceeded where the decoder needs too much memory; ArchiveRejected where another
        of the rules is broken; what reading raises.
        """
        if self._closed:
            raise Closed(f"{self._source}: is closed")
        if not self._left:
            if self._failed is not None:
                raise self._failed
            if self._ahead is None:
                data = self._input.read(length)
                self._budget.check(self._input.consumed, self._input.consumed)
                return data
            chunk = self._next(self._ahead)
            self._came_out += len(chunk)
            self._budget.check(self._came_out, self._input.consumed)
            if len(chunk) <= length:
                return chunk
            self._left = memoryview(chunk)
        part = bytes(self._left[:length])
        self._left = self._left[length:]
        return part

    def peek(self, length: int) -> bytes:
        """Return the next ``length`` bytes, fewer where the stream ends or fails; ``read`` returns or raises them."""
        kept = b""
        while len(kept) < length:
            try:
                part = self.read(length - len(kept))
            except BlockwrightError as error:
                self._failed = error
                break
            if not part:
                break
            kept += part
        self._left = memoryview(kept + bytes(self._left))
        return kept

    def _watch(self, consumed: int) -> None:
        """Bound, in the thread that decodes, what goes in and never comes out: frames may be empty, and many."""
        if self._closed:
            raise Closed(f"{self._source}: is closed")
        self._budget.check(0, consumed)

    def _next(self, ahead: ReadAhead) -> bytes:
        try:
            return ahead.get()
        except FormatError as error:
            error.source = error.source or self._source
            raise

    def close(self) -> None:
        """Stop decoding and let go of the input. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._ahead is not None:
            self._ahead.stop()
        elif self._close_input is not None:
            self._close_input()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def decode(read: Callable[[int], bytes], compression: str, memory: int) -> Iterator[bytes]:
    """Yield what frame behind frame decodes to, in chunks of at most OUTPUT_CHUNK bytes, as they are asked for.

    ``read`` is as for DecodedStream, ``memory`` bounds the decoder's window. Raises Corrupt, LimitExceeded.
    """
    yield from _decode(_Input(read), compression, memory)


class _Input:
    """The compressed bytes, counted, with what was read and is not taken yet. ``watch`` is told of every read."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._kept = b""
        self._at = 0
        self.consumed = 0
        self.watch: Callable[[int], object] = lambda _consumed: None

    @property
    def offset(self) -> int:
        """Where in the stream the next byte lies that nobody took."""
        return self.consumed - (len(self._kept) - self._at)

    def read(self, length: int = INPUT_CHUNK) -> bytes:
        data = self._read(length)
        self.consumed += len(data)
        self.watch(self.consumed)
        return data

    def head(self, length: int) -> bytes:
        """Return the next bytes without taking them, fewer only where the input ends."""
        while len(self._kept) - self._at < length:
            more = self.read()
            if not more:
                break
            self._kept, self._at = self._kept[self._at :] + more, 0
        return self._kept[self._at : self._at + length]

    def take(self, length: int) -> bytes:
        """Take up to so many bytes of what was read last, or is read now where nothing is left; none at the end."""
        if self._at == len(self._kept):
            self._kept, self._at = self.read(), 0
        data = self._kept[self._at : self._at + length]
        self._at += len(data)
        return data

    def give_back(self, length: int) -> None:
        """Have the last bytes that were taken be the next ones again."""
        self._at -= length

    def skip_nulls(self) -> None:
        while self.head(1) == b"\0":
            other = _NOT_NULL.search(self._kept, self._at)
            self._at = len(self._kept) if other is None else other.start()


class _Decoder(Protocol):
    """One frame's decoder: what ``bz2``, ``lzma``, ``isal`` and ``compression.zstd`` agree on."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def _decode(source: _Input, compression: str, memory: int) -> Iterator[bytes]:
    """Yield what frame behind frame decodes to, in chunks of at most OUTPUT_CHUNK bytes."""
    make = _DECODERS[compression]
    piece = INPUT_CHUNK
    while head := source.head(MAGIC_LENGTH):
        begin = source.offset
        if compression_of(head) != compression:
            raise Corrupt(f"{compression}: expected the end or another frame, found {head!r}", offset=begin)
        yield from _frame(source, make(memory), compression, piece)
        # What the next decoder hands back is bounded by what this one used, and so in all by the stream's length.
        piece = min(max(FIRST_PIECE, 2 * (source.offset - begin)), INPUT_CHUNK)
        if compression in ("gzip", "xz"):  # gzip files come padded from tapes, and xz has stream padding
            source.skip_nulls()


def _frame(source: _Input, decoder: _Decoder, compression: str, piece: int) -> Iterator[bytes]:
    """Yield what one frame decodes to. Its decoder gets ``piece`` bytes first, then twice as many, and so on."""
    start, data = source.offset, source.take(piece)
    while True:
        try:
            decoded = decoder.decompress(data, OUTPUT_CHUNK)
        except Exception as error:  # each library has its own kind, and bz2's is OSError
            raise _broken(compression, error, start) from error
        if decoded:
            yield decoded
        if decoder.eof:
            source.give_back(len(decoder.unused_data))
            return
        if decoder.needs_input:
            piece = min(2 * piece, INPUT_CHUNK)
            start, data = source.offset, source.take(piece)
            if not data:
                raise Corrupt(f"{compression}: expected more of a frame, found the end", offset=start)
        elif decoded or data:
            data = b""
        else:
            raise Corrupt(f"{compression}: expected the frame to go on or end, found neither", offset=start)


def _broken(compression: str, error: Exception, start: int) -> FormatError:
    """Return the error for what a decoder said; only its text tells a limit from damage."""
    text = str(error)
    kind = LimitExceeded if "memory" in text.lower() else Corrupt
    return kind(f"{compression}: {text}", offset=start)


class _ZlibGzip:
    """zlib's decoder of one gzip member, with the interface of the others."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.eof and not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def _gzip(_memory: int) -> _Decoder:
    try:
        from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor
    except ImportError:  # no wheel for this machine
        return _ZlibGzip()
    decoder: _Decoder = IgzipDecompressor(flag=DECOMP_GZIP)
    return decoder


def _zstd(memory: int) -> _Decoder:
    library = zstd.library()
    window_log = min(max(memory.bit_length() - 1, 10), 31)  # what the library takes
    decoder: _Decoder = library.ZstdDecompressor(options={library.DecompressionParameter.window_log_max: window_log})
    return decoder


def _bzip2(_memory: int) -> _Decoder:
    return bz2.BZ2Decompressor()


def _xz(memory: int) -> _Decoder:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=2 * memory)  # a dictionary takes more than itself


_DECODERS: Final[dict[str, Callable[[int], _Decoder]]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "xz": _xz,
    "bzip2": _bzip2,
}
