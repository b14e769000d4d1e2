"""B: BLOCK_STATUS.

Knows: sections "Metadata querying" and "Structured reply types" for it. Refuses to know: how contexts are selected.
"""

from __future__ import annotations

from itertools import pairwise

from blockwright.nbd import wire
from blockwright.nbd.conformance.model import Level, Need, NotApplicable, fail, rule
from blockwright.nbd.conformance.probe import Probe
from blockwright.nbd.conformance.session import Chunk, Request, Session
from blockwright.nbd.wire import BASE_ALLOCATION, ChunkType, Command, CommandFlag, Error
from blockwright.units import MiB

_TYPES = "Structured reply types"
_REQUESTS = "Request types"
_HOLE_OR_ZERO = 3
_ZERO = 2
_STATUS = (ChunkType.BLOCK_STATUS, ChunkType.BLOCK_STATUS_EXT)


def status_chunks(request: Request) -> list[Chunk]:
    """Return the chunks that tell a status."""
    return [each for each in request.chunks if each.kind in _STATUS]


def extents(chunk: Chunk) -> list[tuple[int, int]]:
    """Return the (length, flags) of a status chunk; fail where it does not hold at least one, whole."""
    wide = chunk.kind == ChunkType.BLOCK_STATUS_EXT
    head = wire.EXTENDED_STATUS_HEAD.size if wide else wire.U32.size
    entry = wire.EXTENDED_STATUS_ENTRY if wide else wire.STATUS_ENTRY
    size = len(chunk.payload)
    if size <= head or (size - head) % entry.size:
        fail(f"a status chunk of {head} bytes and a multiple of {entry.size}", f"one of {size}")
    found: list[tuple[int, int]] = list(entry.iter_unpack(chunk.payload[head:]))
    return found


def context_of(chunk: Chunk) -> int:
    """Return the id of a status chunk's context."""
    if len(chunk.payload) < wire.U32.size:
        fail("a status chunk of at least 4 bytes", f"one of {len(chunk.payload)}")
    return int(wire.U32.unpack_from(chunk.payload)[0])


def check_contexts(session: Session, request: Request, ids: set[int] | None = None) -> None:
    """Fail unless each selected context is answered by exactly one chunk."""
    found = sorted(context_of(each) for each in status_chunks(request))
    wanted = sorted(session.contexts if ids is None else ids)
    if found != wanted:
        fail(f"one chunk for each of the contexts {wanted}", f"chunks for {found}")


def _ask(probe: Probe, *, flags: int = 0, length: int | None = None) -> tuple[Session, Request]:
    session = probe.enter("structured", BASE_ALLOCATION)
    count = probe.blocks_of(session.size if length is None else length)
    count = min(count, (1 << 32) - max(1, probe.blocks_of(1)))
    return session, session.ask(Command.BLOCK_STATUS, 0, count, flags=flags).expect(0)


@rule("B01", "each context is answered by one chunk", Level.MUST, _REQUESTS, Need.ALLOCATION)
def _one_chunk(probe: Probe) -> None:
    check_contexts(*_ask(probe))


@rule("B02", "a chunk has one extent or more, and none is empty", Level.MUST, _TYPES, Need.ALLOCATION)
def _extents(probe: Probe) -> None:
    _, request = _ask(probe)
    for chunk in status_chunks(request):
        if any(not length for length, _ in extents(chunk)):
            fail("extents of at least 1 byte", "one of 0")


@rule("B03", "REQ_ONE gives one extent, which stays within the request", Level.MUST, _TYPES, Need.ALLOCATION)
def _req_one(probe: Probe) -> None:
    for length in (512, MiB, None):
        _, request = _ask(probe, flags=CommandFlag.REQ_ONE, length=length)
        for chunk in status_chunks(request):
            found = extents(chunk)
            if len(found) != 1 or found[0][0] > request.length:
                fail(f"one extent of at most {request.length} bytes", f"{len(found)}, the first of {found[0][0]}")


@rule("B04", "only the last extent reaches past the request", Level.MUST, _TYPES, Need.ALLOCATION)
def _only_last(probe: Probe) -> None:
    for length in (512, MiB, None):
        _, request = _ask(probe, length=length)
        for chunk in status_chunks(request):
            before_last = sum(count for count, _ in extents(chunk)[:-1])
            if before_last >= request.length:
                fail(f"extents before the last of less than {request.length} bytes", f"{before_last}")


@rule("B05", "extents are multiples of the minimum block", Level.MUST, _REQUESTS, Need.ALLOCATION, Need.COARSE_BLOCKS)
def _multiples(probe: Probe) -> None:
    _, request = _ask(probe)
    block = probe.blocks_of(1)
    for chunk in status_chunks(request):
        for length, _flags in extents(chunk):
            if length % block:
                fail(f"multiples of {block}", f"{length}")


@rule("B06", "a BLOCK_STATUS past the end is EINVAL", Level.SHOULD, _REQUESTS, Need.ALLOCATION)
def _past_end(probe: Probe) -> None:
    session = probe.enter("structured", BASE_ALLOCATION)
    offset, length = probe.past_end()
    session.ask(Command.BLOCK_STATUS, offset, length).expect(Error.EINVAL)


@rule(
    "B07",
    "base:allocation has no flags but HOLE and ZERO",
    Level.SHOULD,
    "`base:allocation` metadata context",
    Need.ALLOCATION,
)
def _known_flags(probe: Probe) -> None:
    _, request = _ask(probe)
    for chunk in status_chunks(request):
        for _, flags in extents(chunk):
            if flags & ~_HOLE_OR_ZERO:
                fail("no flags but 1 and 2", f"{flags:#x}")


@rule("B08", "what is said to read as zeros does", Level.MUST, "`base:allocation` metadata context", Need.ALLOCATION)
def _zeros(probe: Probe) -> None:
    session, request = _ask(probe)
    offset = 0
    for chunk in status_chunks(request):
        for length, flags in extents(chunk)[:64]:
            count = min(length, session.size - offset, probe.blocks_of(MiB))
            if flags & _ZERO and count > 0 and any(session.read(offset, count)):
                fail(f"zeros at {offset}", "others")
            offset += length


@rule("B09", "a BLOCK_STATUS of no bytes does not end the connection", Level.SHOULD, _REQUESTS, Need.ALLOCATION)
def _empty(probe: Probe) -> None:
    session = probe.enter("structured", BASE_ALLOCATION)
    session.ask(Command.BLOCK_STATUS)
    session.in_step()


@rule("B10", "BLOCK_STATUS with FUA is served", Level.MUST, "Command flags", Need.ALLOCATION, Need.FUA)
def _fua(probe: Probe) -> None:
    _ask(probe, flags=CommandFlag.FUA)


@rule("B11", "NO_HOLE with BLOCK_STATUS is EINVAL", Level.SHOULD, "Error values", Need.ALLOCATION)
def _other_flag(probe: Probe) -> None:
    session = probe.enter("structured", BASE_ALLOCATION)
    length = probe.blocks_of(512)
    session.ask(Command.BLOCK_STATUS, 0, length, flags=CommandFlag.NO_HOLE).expect(Error.EINVAL)


@rule("B12", "extents beside each other differ", Level.SHOULD, _REQUESTS, Need.ALLOCATION)
def _merged(probe: Probe) -> None:
    _, request = _ask(probe)
    for chunk in status_chunks(request):
        if any(first[1] == second[1] for first, second in pairwise(extents(chunk))):
            fail("other flags in the next extent", "the same")


@rule("B13", "every selected context is answered by one chunk", Level.MUST, _REQUESTS, Need.ALLOCATION)
def _all_contexts(probe: Probe) -> None:
    if len(probe.facts.contexts) < 2:
        raise NotApplicable("needs two contexts")
    session = probe.enter("structured", *probe.facts.contexts)
    check_contexts(session, session.ask(Command.BLOCK_STATUS, 0, probe.blocks_of(MiB)).expect(0))


@rule("B14", "success is never told by a simple reply", Level.MUST, "Metadata querying", Need.ALLOCATION)
def _never_simple(probe: Probe) -> None:
    _, request = _ask(probe, length=MiB)
    if request.simple:
        fail("chunks", "a simple reply")


@rule("B15", "without extended headers the chunk is BLOCK_STATUS", Level.MUST, _TYPES, Need.ALLOCATION)
def _compact(probe: Probe) -> None:
    _, request = _ask(probe)
    if any(each.kind == ChunkType.BLOCK_STATUS_EXT for each in request.chunks):
        fail("BLOCK_STATUS", "BLOCK_STATUS_EXT without extended headers")
