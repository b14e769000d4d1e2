"""Compressed streams, told by their first bytes and decoded once, in a thread of their own.

The decoders are C libraries that release the interpreter's lock, so decoding goes on while whoever reads works on
what came before. Output comes in chunks of a bounded size, a few ahead: memory does not follow what the input claims.

Knows: magics, frame behind frame, and when a stream is cut or corrupt. Refuses to know: what is inside, and names.
"""

from __future__ import annotations

import bz2
import lzma
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
OUTPUT_CHUNK: Final = 4 * MiB
READ_AHEAD: Final = 8
"""Chunks decoded before they are asked for."""
MAGIC_LENGTH: Final = 6

_GZIP: Final = b"\x1f\x8b\x08"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = tuple(bytes([0x50 + i]) + b"\x2a\x4d\x18" for i in range(16))
_XZ: Final = b"\xfd7zXZ\0"
_BZIP2: Final = tuple(b"BZh%d" % level for level in range(1, 10))


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
        head = self._input.at_least(MAGIC_LENGTH, b"")
        self.compression = compression_of(head)
        if self.compression is None:
            self._left = memoryview(head)
        else:
            chunks = _decode(self._input, head, self.compression, rules.memory)
            self._ahead = ReadAhead(chunks, READ_AHEAD, finished=close)

    @property
    def consumed(self) -> int:
        """Bytes taken from the input so far."""
        return self._input.consumed

    def read(self, length: int) -> bytes:
        """Return up to ``length`` bytes, none at the end.

        Raises Corrupt with the byte of the compressed stream where the 1 MiB begins in which decoding failed, or
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
    source = _Input(read)
    yield from _decode(source, source.at_least(MAGIC_LENGTH, b""), compression, memory)


class _Input:
    """The compressed bytes, counted."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.consumed = 0

    def read(self, length: int = INPUT_CHUNK) -> bytes:
        data = self._read(length)
        self.consumed += len(data)
        return data

    def at_least(self, length: int, data: bytes) -> bytes:
        """Return ``data`` and what follows until it is so long, or the input ends."""
        while len(data) < length:
            more = self.read()
            if not more:
                break
            data += more
        return data


class _Decoder(Protocol):
    """One frame's decoder: what ``bz2``, ``lzma``, ``isal`` and ``compression.zstd`` agree on."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def _decode(source: _Input, data: bytes, compression: str, memory: int) -> Iterator[bytes]:
    """Yield what frame behind frame decodes to, in chunks of at most OUTPUT_CHUNK bytes."""
    make = _DECODERS[compression]
    while data:
        if compression_of(data) != compression:
            raise Corrupt(
                f"{compression}: expected the end or another frame, found {data[:MAGIC_LENGTH]!r}",
                offset=source.consumed - len(data),
            )
        decoder = make(memory)
        yield from _frame(source, data, decoder, compression)
        data = source.at_least(MAGIC_LENGTH, decoder.unused_data)
        # gzip files come padded from tapes, and xz has stream padding.
        while compression in ("gzip", "xz") and data[:1] == b"\0":
            data = source.at_least(MAGIC_LENGTH, data.lstrip(b"\0"))


def _frame(source: _Input, data: bytes, decoder: _Decoder, compression: str) -> Iterator[bytes]:
    start = source.consumed - len(data)
    while True:
        try:
            decoded = decoder.decompress(data, OUTPUT_CHUNK)
        except Exception as error:  # each library has its own kind, and bz2's is OSError
            raise _broken(compression, error, start) from error
        if decoded:
            yield decoded
        if decoder.eof:
            return
        if decoder.needs_input:
            start = source.consumed
            data = source.read()
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
