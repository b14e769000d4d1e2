"""S: structured replies.

Knows: sections "Structured reply chunk message", "Structured reply flags" and "Structured reply types".
Refuses to know: BLOCK_STATUS.
"""

from __future__ import annotations

from collections.abc import Callable

from blockwright.nbd import wire
from blockwright.nbd.conformance.model import Level, Need, fail, rule
from blockwright.nbd.conformance.options import check_string
from blockwright.nbd.conformance.probe import Probe
from blockwright.nbd.conformance.session import Chunk, Request
from blockwright.nbd.conformance.transmission import (
    UNKNOWN_COMMAND,
    UNKNOWN_FLAG,
    pipelined_reads,
    without_ending,
)
from blockwright.nbd.wire import ChunkFlag, ChunkType, Command, CommandFlag, Error
from blockwright.units import KiB, MiB

_MESSAGE = "Structured reply chunk message"
_TYPES = "Structured reply types"
_REQUESTS = "Request types"
_DF_AT_LEAST = 64 * KiB


def check_coverage(request: Request) -> None:
    """Fail unless content chunks cover the request."""
    covered = sum(chunk.span[1] for chunk in request.chunks if chunk.is_content)
    if covered < request.length:
        fail(f"chunks for {request.length} bytes", f"chunks for {covered}")


def check_bounds(request: Request) -> None:
    """Fail where a content chunk leaves the request."""
    for chunk in request.chunks:
        if chunk.is_content:
            offset, length = chunk.span
            if offset < request.offset or offset + length > request.offset + request.length:
                fail(f"content within {request.length} bytes at {request.offset}", f"{length} bytes at {offset}")


def check_overlap(request: Request) -> None:
    """Fail where content chunks overlap."""
    end = 0
    for offset, length in sorted(chunk.span for chunk in request.chunks if chunk.is_content):
        if offset < end:
            fail(f"content that starts at {end} or later", f"some at {offset}")
        end = offset + length


def check_sizes(request: Request) -> None:
    """Fail where a chunk's length is not that of its type."""
    for chunk in request.chunks:
        size = len(chunk.payload)
        if chunk.kind == ChunkType.OFFSET_DATA and size < 9:
            fail("OFFSET_DATA of at least 9 bytes", f"one of {size}")
        if chunk.kind == ChunkType.OFFSET_HOLE:
            if size != wire.HOLE.size:
                fail(f"OFFSET_HOLE of {wire.HOLE.size} bytes", f"one of {size}")
            if not chunk.span[1]:
                fail("a hole of at least 1 byte", "one of 0")
        if chunk.kind == ChunkType.NONE and size:
            fail("NONE without a payload", f"one of {size} bytes")


def check_flags(request: Request) -> None:
    """Fail where a chunk has other flags than DONE, or NONE is without it."""
    for chunk in request.chunks:
        if chunk.flags & ~int(ChunkFlag.DONE):
            fail("no flag but DONE", f"{chunk.flags:#06x}")
        if chunk.kind == ChunkType.NONE and not chunk.flags & ChunkFlag.DONE:
            fail("NONE with DONE", "NONE without")


def check_kinds(request: Request) -> None:
    """Fail where a READ is answered by a type that is not for it."""
    for chunk in request.chunks:
        if not (chunk.is_content or chunk.is_error or chunk.kind == ChunkType.NONE):
            fail("OFFSET_DATA, OFFSET_HOLE, NONE or an error", f"a chunk of type {chunk.kind:#06x}")


def check_error_chunk(chunk: Chunk, request: Request) -> None:
    """Fail where an error chunk is not laid out as one."""
    least = wire.ERROR_HEAD.size + (wire.U64.size if chunk.kind == ChunkType.ERROR_OFFSET else 0)
    size = len(chunk.payload)
    if size < least:
        fail(f"an error chunk of at least {least} bytes", f"one of {size}")
    error, length = wire.ERROR_HEAD.unpack_from(chunk.payload)
    if not error:
        fail("an error that is not 0", "0")
    if length > size - least:
        fail(f"a text of at most {size - least} bytes", f"one of {length}")
    check_string(chunk.payload[wire.ERROR_HEAD.size : wire.ERROR_HEAD.size + length], "an error's text")
    if chunk.kind == ChunkType.ERROR_OFFSET:
        offset = wire.U64.unpack_from(chunk.payload, wire.ERROR_HEAD.size + length)[0]
        if not request.offset <= offset <= request.offset + request.length:
            fail("an offset within the request", f"{offset}")


def _each_read(probe: Probe, look: Callable[[Request], None], mode: str = "structured") -> None:
    """Look at the replies to READs of several lengths."""
    session = probe.enter(mode)
    for length in (512, 4 * KiB, MiB):
        request = session.ask(Command.READ, 0, probe.blocks_of(length)).expect(0)
        look(request)


@rule("S01", "READ is answered by chunks and never by a simple reply", Level.MUST, _MESSAGE, Need.STRUCTURED)
def _chunks(probe: Probe) -> None:
    session = probe.enter("structured")
    offset, length = probe.past_end()
    for start, count, flags in ((0, length // 2, 0), (offset, length, 0), (0, length // 2, UNKNOWN_FLAG)):
        if session.ask(Command.READ, start, count, flags=flags).simple:
            fail("chunks", "a simple reply to READ")


@rule("S02", "chunks cover the whole request", Level.MUST, _REQUESTS, Need.STRUCTURED)
def _coverage(probe: Probe) -> None:
    _each_read(probe, check_coverage)


@rule("S03", "chunks do not overlap", Level.MUST, _TYPES, Need.STRUCTURED)
def _overlap(probe: Probe) -> None:
    _each_read(probe, check_overlap)


@rule("S04", "chunks stay within the request", Level.MUST, _TYPES, Need.STRUCTURED)
def _bounds(probe: Probe) -> None:
    _each_read(probe, check_bounds)


@rule("S05", "chunks have the sizes of their types", Level.MUST, _TYPES, Need.STRUCTURED)
def _sizes(probe: Probe) -> None:
    _each_read(probe, check_sizes)


@rule("S06", "chunks have no flag but DONE, and NONE has that", Level.MUST, "Structured reply flags", Need.STRUCTURED)
def _flags(probe: Probe) -> None:
    _each_read(probe, check_flags)


@rule("S07", "READ is answered by types that are for it", Level.MUST, _TYPES, Need.STRUCTURED)
def _kinds(probe: Probe) -> None:
    _each_read(probe, check_kinds)


@rule("S08", "a READ that fails is answered by an error chunk, as it should be", Level.MUST, _TYPES, Need.STRUCTURED)
def _errors(probe: Probe) -> None:
    session = probe.enter("structured")
    offset, length = probe.past_end()
    request = session.ask(Command.READ, offset, length).expect_error()
    for chunk in request.chunks:
        if chunk.is_error:
            check_error_chunk(chunk, request)


@rule("S09", "a READ past the end is EINVAL", Level.SHOULD, "Error values", Need.STRUCTURED)
def _past_end(probe: Probe) -> None:
    session = probe.enter("structured")
    offset, length = probe.past_end()
    session.ask(Command.READ, offset, length).expect(Error.EINVAL)
    session.in_step()


@rule("S10", "structured and simple replies give the same bytes", Level.MUST, _REQUESTS, Need.STRUCTURED)
def _same_bytes(probe: Probe) -> None:
    length = probe.blocks_of(MiB)
    plain = probe.enter().read(0, length)
    chunked = probe.enter("structured").read(0, length)
    if plain != chunked:
        fail("the bytes of a simple reply", "others")


@rule("S11", "DF gives one content chunk at most", Level.MUST, _REQUESTS, Need.DF)
def _df(probe: Probe) -> None:
    session = probe.enter("structured")
    for length in (512, _DF_AT_LEAST, MiB):
        request = session.ask(Command.READ, 0, probe.blocks_of(length), flags=CommandFlag.DF)
        count = sum(chunk.is_content for chunk in request.expect(0, Error.EOVERFLOW).chunks)
        if count > (0 if request.error else 1):
            fail("one content chunk, or EOVERFLOW and none", f"{count}, and {request.outcome}")


@rule("S12", "DF is served up to 65,536 bytes", Level.MUST, _REQUESTS, Need.DF)
def _df_served(probe: Probe) -> None:
    session = probe.enter("structured")
    request = session.ask(Command.READ, 0, probe.blocks_of(_DF_AT_LEAST), flags=CommandFlag.DF).expect(0)
    check_coverage(request)


@rule("S13", "DF that is not advertised is EINVAL", Level.SHOULD, "Error values", Need.NO_DF)
def _df_refused(probe: Probe) -> None:
    session = probe.enter("structured")
    session.ask(Command.READ, 0, probe.blocks_of(512), flags=CommandFlag.DF).expect(Error.EINVAL)


@rule("S14", "many READs at once are each answered with their own data", Level.MUST, "Transmission", Need.STRUCTURED)
def _pipelined(probe: Probe) -> None:
    pipelined_reads(probe, probe.enter("structured"))


@rule("S15", "FLUSH is answered without content", Level.MUST, _TYPES, Need.STRUCTURED, Need.FLUSH)
def _flush(probe: Probe) -> None:
    request = probe.enter("structured").ask(Command.FLUSH).expect(0)
    if any(chunk.kind != ChunkType.NONE for chunk in request.chunks):
        fail("a simple reply, or NONE", f"a chunk of type {request.chunks[0].kind:#06x}")


@rule("S16", "errors come as chunks, which have room for a text", Level.SHOULD, _MESSAGE, Need.STRUCTURED)
def _error_chunks(probe: Probe) -> None:
    if probe.enter("structured").ask(UNKNOWN_COMMAND).expect_error().simple:
        fail("an error chunk", "a simple reply")


@rule("S17", "a READ of no bytes does not end the connection", Level.SHOULD, _REQUESTS, Need.STRUCTURED)
def _empty(probe: Probe) -> None:
    without_ending(probe.enter("structured"), Command.READ)


@rule("S18", "content starts and ends at multiples of 512", Level.SHOULD, _REQUESTS, Need.STRUCTURED)
def _aligned(probe: Probe) -> None:
    length = probe.blocks_of(MiB)
    request = probe.enter("structured").ask(Command.READ, 0, length).expect(0)
    for chunk in request.chunks:
        if chunk.is_content:
            offset, count = chunk.span
            if offset % 512 or ((offset + count) % 512 and offset + count != length):
                fail("multiples of 512", f"{count} bytes at {offset}")


@rule("S19", "BLOCK_STATUS without a context is EINVAL", Level.SHOULD, "Metadata querying", Need.STRUCTURED)
def _no_context(probe: Probe) -> None:
    session = probe.enter("structured")
    session.ask(Command.BLOCK_STATUS, 0, probe.blocks_of(512)).expect(Error.EINVAL)
    session.in_step()
