"""Requests that may wait: carried out by the export's workers and answered in any order, or in line.

Long reads and writes are cut into pieces, each of them a job; the last one to end sends the end of the reply.

Knows: what each command means to a device. Refuses to know: which requests are cheap enough not to come here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from blockwright.device.base import ResizableDevice
from blockwright.device.extent import ZERO
from blockwright.errors import NoSpace, OutOfRange, RemoteProtocolError
from blockwright.nbd import wire
from blockwright.nbd.protocol.replies import DONE, ChunkedFraming, framing
from blockwright.nbd.protocol.requests import Request, Rules
from blockwright.nbd.protocol.session import Session
from blockwright.nbd.server.ending import HALF_A_REQUEST
from blockwright.nbd.server.export import Served
from blockwright.nbd.server.failure import Unfit, failure, for_client
from blockwright.nbd.server.flight import InFlight
from blockwright.nbd.server.inbox import Inbox
from blockwright.nbd.server.limits import PIECE
from blockwright.nbd.server.log import Log, log_bug
from blockwright.nbd.server.longread import chunks
from blockwright.nbd.server.metrics import ExportMetrics
from blockwright.nbd.server.outbox import Outbox
from blockwright.nbd.server.status import MAX_TOLD, told, whole_blocks
from blockwright.nbd.wire import Command, CommandFlag, Error
from blockwright.units import ceil_div

MAX_STATUS_PAYLOAD: Final = 8 + 4 * 256
"""Bytes of a BLOCK_STATUS request's payload: a length, and more context ids than anybody has."""

_NO_ROOM: Final = "the server has no memory for the request"


class _Reply:
    """A reply under way: the last of its ``parts`` to end finishes it, with the first failure where there was one.

    ``turn`` is held by a part that has bytes of its own from its end until they are queued: nothing may be queued
    behind what the last one sends.
    """

    def __init__(self, request: Request, parts: int) -> None:
        self.request = request
        self.started = time.perf_counter_ns()
        self._parts = parts
        self._lock = threading.Lock()
        self.turn = threading.Lock()
        self.error: Exception | None = None

    def ended(self, error: Exception | None, parts: int = 1) -> bool:
        """Take note that some parts have ended; whether all have now."""
        if error is not None:
            log_bug(error)
            # Its frames know this reply: together they would keep each other, and the session's buffers, for long.
            error.with_traceback(None)
        with self._lock:
            self.error = self.error or error
            self._parts -= parts
            return not self._parts


class Commands:
    """Carries out one session's requests. ``begin`` is called by the connection's thread only."""

    def __init__(
        self, session: Session, served: Served, outbox: Outbox, flight: InFlight, metrics: ExportMetrics, log: Log
    ) -> None:
        blocks = session.export.blocks
        assert blocks is not None, "the server's own session says which blocks it enforces"
        self.rules = Rules.of(session, minimum=blocks.minimum, maximum=blocks.maximum)
        self.served = served
        self._session = session
        self._device = served.device
        self._pooled = served.pooled
        self._framing = framing(session)
        self._outbox = outbox
        self._flight = flight
        self._metrics = metrics
        self._log = log
        self._jobs: dict[int, Callable[[Request], bytes]] = {
            Command.FLUSH: self._flush,
            Command.TRIM: self._trim,
            Command.CACHE: self._cache,
            Command.WRITE_ZEROES: self._write_zeroes,
            Command.RESIZE: self._resize,
        }

    def begin(self, request: Request, inbox: Inbox) -> None:
        """Take the request's payload and see to it that the request is answered.

        Raises RemoteProtocolError where the client ends within the payload, TimeoutError where it stalls.
        """
        if request.command == Command.READ:
            self._begin_read(request)
        elif request.command == Command.WRITE:
            self._begin_write(request, inbox)
        elif request.flags & CommandFlag.PAYLOAD_LEN:
            self._begin_status_of(request, inbox)
        elif request.command == Command.BLOCK_STATUS:
            self._begin(request, self._block_status, self._status_cost(request))
        else:
            self._begin(request, self._jobs[request.command])

    def grew(self) -> bool:
        """Take note where the device has become larger than the session began with, and say whether it has.

        Somebody else tells the client of that, as the kernel is told of a device that grows while it is attached.
        """
        if not self.served.export.growing:
            return False
        try:
            size = self._device.refresh()
        except Exception as error:  # noqa: BLE001 - the request is refused, which costs no session
            log_bug(error)
            return False
        if size <= self.rules.size:
            return False
        self.rules = replace(self.rules, size=size)
        return True

    def note_failure(self, request: Request, error: Exception) -> None:
        """Log that a device failed a request."""
        log_bug(error)
        _, text = failure(error)
        name = Command(request.command).name
        self._log("request failed", command=name, offset=request.offset, length=request.length, reason=text)

    def failure(self, request: Request, error: Exception) -> bytes:
        """Log that a device failed a request, count it, and return the answer."""
        self.note_failure(request, error)
        self._metrics.record(request.command, 0, 0, errors=1)
        return self._error(request, error)

    # -- jobs ------------------------------------------------------------------------------------------------

    def _run(self, cost: int, job: Callable[[int], None]) -> bool:
        """Have the job done, which takes its ticket along; False where there is no room for it."""
        ticket = self._flight.enter(cost)
        if ticket is None:
            return False
        self._do(partial(job, ticket))
        return True

    def _do(self, job: Callable[[], None]) -> None:
        """Have a job done that has its ticket, by a worker or at once.

        A job holds ``served.calls`` while it calls the device and not while it sends: a client that takes nothing
        must not keep others from a device that takes one call at a time.
        """
        if self._pooled:
            self.served.workers.submit(job, self)
        else:
            job()

    def _send(self, data: bytes | bytearray | memoryview, ticket: int) -> None:
        """Send a whole reply or chunk; its room is given back when it is out."""
        if self._pooled:
            self._outbox.post(data, partial(self._flight.leave, ticket))
            return
        try:
            with self._outbox as stream:
                stream.send(data)
        finally:
            self._flight.leave(ticket)

    def _begin(self, request: Request, work: Callable[[Request], bytes], cost: int = 0) -> None:
        """Do a request that has neither data nor payload, whose answer takes ``cost`` bytes at most."""
        reply = _Reply(request, 1)

        def job(ticket: int) -> None:
            try:
                with self.served.calls():
                    answer = work(request)
            except Exception as error:  # noqa: BLE001 - whatever a device raises is the client's to know
                reply.ended(error)
                answer = b""
            self._record(reply, 0 if request.command == Command.BLOCK_STATUS else request.length)
            self._send(answer or self._end(reply), ticket)

        if not self._run(cost, job):
            self._refuse(request)

    def _record(self, reply: _Reply, length: int) -> None:
        elapsed = time.perf_counter_ns() - reply.started
        self._metrics.record(reply.request.command, elapsed, length, errors=reply.error is not None)

    def _end(self, reply: _Reply) -> bytes:
        """Return the last bytes of a reply: success or its failure."""
        request = reply.request
        if reply.error is None:
            return self._framing.done(request.cookie, request.offset)
        self.note_failure(request, reply.error)
        return self._error(request, reply.error)

    def _error(self, request: Request, error: Exception) -> bytes:
        number, text = for_client(error)
        if number == Error.ENOTSUP and not request.flags & CommandFlag.FAST_ZERO:
            number = Error.EINVAL  # "NBD_CMD_WRITE_ZEROES": ENOTSUP answers FAST_ZERO and nothing else
        return self._framing.error(request.cookie, request.offset, number, text)

    def _refuse(self, request: Request) -> None:
        self._log("request refused", command=Command(request.command).name, reason=_NO_ROOM)
        self._metrics.record(request.command, 0, 0, errors=1)
        with self._outbox as stream:
            stream.send(self._framing.error(request.cookie, request.offset, Error.ENOMEM, _NO_ROOM))

    # -- READ ------------------------------------------------------------------------------------------------

    def _begin_read(self, request: Request) -> None:
        at_once = self._framing.whole or request.flags & CommandFlag.DF
        step = request.length if at_once else PIECE
        starts = range(request.offset, request.offset + request.length, step)
        reply = _Reply(request, len(starts))
        for done, offset in enumerate(starts):
            length = min(step, request.offset + request.length - offset)
            if not self._run(length, partial(self._read_piece, reply, offset, length)):
                with reply.turn:
                    if reply.ended(MemoryError(_NO_ROOM), len(starts) - done):
                        self._refuse(request)
                return

    def _read_piece(self, reply: _Reply, offset: int, length: int, ticket: int) -> None:
        request = reply.request
        failed: Exception | None = None
        try:
            with self.served.calls():
                data = self._read(request, offset, length)
        except Exception as error:  # noqa: BLE001 - whatever a device raises is the client's to know
            data, failed = bytearray(), error
        with reply.turn:
            if reply.ended(failed):
                if not self._framing.whole or reply.error is not None:
                    data += self._end(reply)
                self._record(reply, request.length)
            self._send(data, ticket)

    def _read(self, request: Request, offset: int, length: int) -> bytearray:
        """Return the chunks that answer a piece of a read, without the end of the reply."""
        framed, cookie, start = self._framing, request.cookie, request.offset
        head = framed.data_head_size
        piece = request._replace(offset=offset, length=length)
        if not isinstance(framed, ChunkedFraming):
            data = bytearray(head + length)
            framed.put_data_head(data, 0, cookie, start, offset, length)
            self._device.read_into(offset, memoryview(data)[head:])
            return data
        runs = chunks(self._device, piece)
        data = bytearray(sum(length + head for _, length, flags in runs if not flags & ZERO))
        room, position, holes = memoryview(data), 0, []
        for place, count, flags in runs:
            if flags & ZERO:
                holes.append(framed.hole(cookie, start, place, count, 0))
                continue
            framed.put_data_head(data, position, cookie, start, place, count, 0)
            self._device.read_into(place, room[position + head : position + head + count])
            position += head + count
        room.release()
        data += b"".join(holes)
        return data

    # -- WRITE -----------------------------------------------------------------------------------------------

    def _begin_write(self, request: Request, inbox: Inbox) -> None:
        """Take the payload piece by piece, each straight into a buffer of its own."""
        starts = range(request.offset, request.offset + max(1, request.length), PIECE)
        reply = _Reply(request, len(starts))
        for done, offset in enumerate(starts):
            length = min(PIECE, request.offset + request.length - offset)
            ticket = self._flight.enter(length)
            if ticket is None:
                rest = request.offset + request.length - offset
                if not inbox.skip(rest):
                    raise RemoteProtocolError(HALF_A_REQUEST)
                if reply.ended(MemoryError(_NO_ROOM), len(starts) - done):
                    self._refuse(request)
                return
            try:
                payload = bytearray(length)
                whole = inbox.take_into(memoryview(payload))
            except BaseException:
                self._flight.leave(ticket)
                raise
            if not whole:
                self._flight.leave(ticket)
                raise RemoteProtocolError(HALF_A_REQUEST)
            self._do(partial(self._write_piece, reply, offset, payload, ticket))

    def _write_piece(self, reply: _Reply, offset: int, payload: bytearray, ticket: int) -> None:
        try:
            with self.served.calls():
                self._device.write(offset, payload, durable=bool(reply.request.flags & CommandFlag.FUA))
        except Exception as error:  # noqa: BLE001 - whatever a device raises is the client's to know
            last = reply.ended(error)
        else:
            last = reply.ended(None)
        if last:
            self._record(reply, reply.request.length)
            self._send(self._end(reply), ticket)
        else:
            self._flight.leave(ticket)

    # -- the others, each returning its reply where that is more than success ---------------------------------

    def _flush(self, request: Request) -> bytes:
        self._device.flush()
        return b""

    def _trim(self, request: Request) -> bytes:
        self._device.discard(request.offset, request.length, durable=bool(request.flags & CommandFlag.FUA))
        return b""

    def _cache(self, request: Request) -> bytes:
        self._device.prefetch(request.offset, request.length)
        return b""

    def _write_zeroes(self, request: Request) -> bytes:
        flags = request.flags
        self._device.zero(
            request.offset,
            request.length,
            may_unmap=not flags & CommandFlag.NO_HOLE,
            fast_only=bool(flags & CommandFlag.FAST_ZERO),
            durable=bool(flags & CommandFlag.FUA),
        )
        return b""

    def _resize(self, request: Request) -> bytes:
        """Give the device the size that stands in the offset ("NBD_CMD_RESIZE", extension-resize)."""
        assert isinstance(self._device, ResizableDevice), "RESIZE was not offered, and is refused then"
        if request.offset % self.rules.minimum:
            raise Unfit(f"resize: expected a multiple of {self.rules.minimum} bytes, found {request.offset}")
        try:
            self._device.resize(request.offset)
        except OutOfRange as error:
            raise NoSpace(str(error)) from None  # a size that nothing can have is no fault of the request's form
        self.rules = replace(self.rules, size=request.offset)
        return b""

    def _block_status(self, request: Request, wanted: tuple[int, ...] | None = None) -> bytes:
        """Return one chunk for each context that was selected, or of those in ``wanted``."""
        framed = self._framing
        assert isinstance(framed, ChunkedFraming), "contexts are selected with structured replies only"
        start, end = request.offset, request.offset + request.length
        numbers = [each for each in self._session.contexts if wanted is None or each in wanted]
        found = []
        for number in numbers:
            extents = self.served.context(self._session.contexts[number]).extents(start, request.length)
            runs = told(
                whole_blocks(extents, start, end, self.rules.minimum),
                wide=framed.extended,
                block=self.rules.minimum,
                one=bool(request.flags & CommandFlag.REQ_ONE),
            )
            found.append(framed.status(request.cookie, start, number, runs, DONE if number == numbers[-1] else 0))
        return b"".join(found)

    def _status_cost(self, request: Request) -> int:
        """Return how many bytes the answer may take: a client may ask a lot and take nothing of what it is told."""
        one = request.flags & CommandFlag.REQ_ONE
        extents = 1 if one else min(MAX_TOLD, ceil_div(request.length, self.rules.minimum))
        entry = wire.EXTENDED_STATUS_ENTRY if self._framing.extended else wire.STATUS_ENTRY
        return extents * entry.size * len(self._session.contexts)

    def _begin_status_of(self, request: Request, inbox: Inbox) -> None:
        """Take a payload that names contexts, "NBD_CMD_BLOCK_STATUS" with extended headers."""
        size = request.length
        if not (wire.U64.size < size <= MAX_STATUS_PAYLOAD and size % wire.U32.size == 0):
            if not inbox.skip(size):
                raise RemoteProtocolError(HALF_A_REQUEST)
            self._begin(request, _raise(Unfit(f"block status: {size} bytes are no payload")))
            return
        payload = bytearray(size)
        if not inbox.take_into(memoryview(payload)):
            raise RemoteProtocolError(HALF_A_REQUEST)
        (length,) = wire.U64.unpack_from(payload)
        wanted = tuple(number for (number,) in wire.U32.iter_unpack(payload[wire.U64.size :]))
        offset, minimum = request.offset, self.rules.minimum
        if not length or offset + length > self.rules.size or (offset | length) & (minimum - 1):
            work = _raise(Unfit(f"range: expected to lie in {self.rules.size} bytes, found {length} at {offset}"))
        elif len(set(wanted)) < len(wanted) or not set(wanted) <= set(self._session.contexts):
            work = _raise(Unfit("block status: names a context twice, or one that was not selected"))
        else:
            work = partial(self._block_status, wanted=wanted)
        request = request._replace(length=length)
        self._begin(request, work, self._status_cost(request))


def _raise(error: Exception) -> Callable[[Request], bytes]:
    def work(_request: Request) -> bytes:
        raise error

    return work
