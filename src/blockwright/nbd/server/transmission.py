"""One session's requests, from its reading thread's side: what is cheap is answered at once and in batches.

All requests that one receive brought are parsed together, small reads of what is ready go into one buffer behind
their headers, and one send answers them. Whatever may wait goes to ``commands``.

Knows: the loop, and which requests are cheap. Refuses to know: how the others are carried out, and the handshake.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from blockwright.device.base import Waits
from blockwright.device.extent import ZERO
from blockwright.errors import RemoteProtocolError
from blockwright.nbd.protocol.replies import ChunkedFraming, framing
from blockwright.nbd.protocol.requests import Refusal, Request, payload_length, refusal
from blockwright.nbd.protocol.session import Session
from blockwright.nbd.server.commands import Commands
from blockwright.nbd.server.ending import DISCONNECTED, HALF_A_REQUEST, HUNG_UP, STOPPED, Ending
from blockwright.nbd.server.inbox import Inbox
from blockwright.nbd.server.limits import PIECE, SMALL
from blockwright.nbd.server.longread import LongReads
from blockwright.nbd.server.metrics import ExportMetrics
from blockwright.nbd.server.outbox import Outbox
from blockwright.nbd.wire import Command, CommandFlag, Error, TransmissionFlag
from blockwright.units import KiB

ARENA: Final = 512 * KiB
"""Bytes of replies that are sent together."""

_READ: Final = int(Command.READ)
_WRITE: Final = int(Command.WRITE)
_DISC: Final = int(Command.DISC)
_TOUCHING: Final = frozenset({_READ, _WRITE, int(Command.WRITE_ZEROES), int(Command.TRIM)})
_MAX_PAYLOAD_SKIPPED: Final = 1 << 32
"""Bytes of a payload that a refused request may make us read: what the classic header can announce."""


class Transmission:
    """Serves one session until it ends. ``serve`` is called once, by the connection's thread."""

    def __init__(
        self,
        inbox: Inbox,
        outbox: Outbox,
        session: Session,
        commands: Commands,
        metrics: ExportMetrics,
        stopping: Callable[[], bool],
    ) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._commands = commands
        self._metrics = metrics
        self._stopping = stopping
        self._framing = framing(session)
        self._device = commands.served.device
        traits = self._device.traits
        in_line = traits.parallelism > 1 and traits.waits < Waits.ALWAYS
        unchecked = self._device.unchecked()
        writable = not session.export.flags & TransmissionFlag.READ_ONLY
        self._ready = unchecked.read_ready if in_line and not (traits.known_extents and session.structured) else None
        self._write = unchecked.write if in_line and writable else None
        self._heat = heat = metrics.begin_heat(commands.rules.size)
        if heat is not None:
            self._ready = self._ready and heat.reading(self._ready)
            self._write = self._write and heat.writing(self._write)
        self._plain_write = int(CommandFlag.PAYLOAD_LEN) if session.extended else 0
        chunked = self._framing if isinstance(self._framing, ChunkedFraming) else None
        self._long = LongReads(self._device, chunked) if in_line and chunked else None
        self._short = SMALL - 1 if self._long else SMALL  # of reads; a longer one is told its holes
        self._known = chunked if in_line and traits.known_extents else None
        self._arena = bytearray(SMALL)
        self._room = memoryview(self._arena)
        self._filled = 0
        self._scratch = memoryview(b"")
        self._finished: Ending | None = None
        # What the batch under way has answered, to be counted when it is sent.
        self._reads = self._read_bytes = self._writes = self._write_bytes = 0

    def serve(self) -> Ending:
        """Answer requests until the session ends, and return why it did.

        Raises RemoteProtocolError for a client that breaks the rules, TimeoutError, OSError.
        """
        try:
            return self._serve()
        finally:
            self._metrics.end_heat(self._heat)

    def _serve(self) -> Ending:
        inbox = self._inbox
        wanted = self._framing.request.size
        while inbox.fill(wanted):
            started = time.perf_counter_ns()
            try:
                wanted = self._batch()
                self._flush()
            except RemoteProtocolError:
                with suppress(OSError):  # what came before the request that broke the rules was done
                    self._flush()
                raise
            finally:
                self._count(started)
            if self._finished:
                return self._finished
        if inbox.held:
            raise RemoteProtocolError(HALF_A_REQUEST)
        return HUNG_UP

    # -- the loop --------------------------------------------------------------------------------------------

    def _batch(self) -> int:
        """Answer the requests that the inbox holds, and return how many bytes the next one needs at least."""
        inbox, framing = self._inbox, self._framing
        head_size: int = framing.request.size
        magic, unpack = framing.request_magic, framing.request.unpack_from
        stopping, short = self._stopping(), self._short
        while not self._finished:
            start = inbox.start
            held = inbox.end - start
            if held < head_size:
                return head_size
            found, flags, command, cookie, offset, length = unpack(inbox.data, start)
            if found != magic:
                raise RemoteProtocolError(f"request: expected the magic {magic:#x}, found {found:#x}")
            if 0 < length <= SMALL and not stopping:
                if command == _READ and length <= short and not flags and self._read_now(cookie, offset, length):
                    inbox.start = start + head_size
                    continue
                if command == _WRITE and flags == self._plain_write and self._write is not None:
                    if held < head_size + length:
                        return head_size + int(length)
                    payload = inbox.view[start + head_size : start + head_size + length]
                    if self._write_now(cookie, offset, payload):
                        inbox.start = start + head_size + length
                        continue
            self._one(Request(flags, command, cookie, offset, length))
        return head_size

    def _read_now(self, cookie: int, offset: int, length: int) -> bool:
        """Answer a short read of what is ready; False where it is not, or must be looked at more closely."""
        rules = self._commands.rules
        ready = self._ready
        if ready is None or offset + length > rules.size or (offset | length) & (rules.minimum - 1):
            return False
        framing, filled = self._framing, self._filled
        data = filled + framing.data_head_size
        end = data + length
        if end > len(self._arena):
            self._make_room(end - filled)
            filled = self._filled
            data = filled + framing.data_head_size
            end = data + length
        framing.put_data_head(self._arena, filled, cookie, offset, offset, length)
        try:
            if not ready(offset, (self._room[data:end],)):
                return False
        except Exception:  # noqa: BLE001 - whatever a device raises: it is read again, and then the client is told
            return False
        self._filled = end
        self._reads += 1
        self._read_bytes += length
        return True

    def _write_now(self, cookie: int, offset: int, payload: memoryview) -> bool:
        """Do a plain write whose payload is here; False, with nothing done, where it needs a closer look."""
        rules = self._commands.rules
        write, length = self._write, len(payload)
        if write is None or offset + length > rules.size or (offset | length) & (rules.minimum - 1):
            return False
        try:
            write(offset, (payload,), durable=False)
        except Exception as error:  # noqa: BLE001 - whatever a device raises is the client's to know
            request = Request(self._plain_write, _WRITE, cookie, offset, length)
            self._put(self._commands.failure(request, error))
            return True
        self._put(self._framing.done(cookie, offset))
        self._writes += 1
        self._write_bytes += length
        return True

    def _one(self, request: Request) -> None:
        """Answer or begin to answer one request, whose header is at the inbox's start."""
        inbox, framing = self._inbox, self._framing
        head_size = framing.request.size
        payload = payload_length(request, extended=framing.extended)
        if self._stopping() and framing.whole and request.command != _DISC:
            # The kernel, whose replies are simple, takes ESHUTDOWN for a broken disk, and asks another server again
            # for what one that hangs up has not answered.
            self._finished = STOPPED
            return
        refused = refusal(self._commands.rules, request) or self._refused_now(request)
        if refused and request.offset + request.length > self._commands.rules.size and self._commands.grew():
            refused = refusal(self._commands.rules, request) or self._refused_now(request)
        in_line = request.command == _WRITE and request.flags == self._plain_write and self._write is not None
        inbox.start += head_size
        if refused:
            self._refuse(request, refused, payload)
        elif request.command == _DISC:
            self._finished = DISCONNECTED
        elif in_line and payload <= PIECE:
            self._write_now(request.cookie, request.offset, self._payload(payload))
        else:
            if self._heat is not None and request.command in _TOUCHING:
                self._heat.touch(request.offset, request.length, written=request.command != _READ)
            self._begin(request)

    def _begin(self, request: Request) -> None:
        """Answer or begin to answer a request that is none of the cheapest."""
        if request.command == _READ and self._long and request.length > self._short:
            self._flush()
            self._read_long(request)
        elif request.command == _READ and self._known and not request.flags:
            self._read_known(request, self._known)
        else:
            self._flush()
            self._commands.begin(request, self._inbox)

    def _refused_now(self, request: Request) -> Refusal | None:
        if self._stopping() and request.command != _DISC:
            return Refusal(Error.ESHUTDOWN, "the server is shutting down")
        return None

    def _refuse(self, request: Request, refused: Refusal, payload: int) -> None:
        if payload > _MAX_PAYLOAD_SKIPPED:
            raise RemoteProtocolError(
                f"request: expected a payload of at most {_MAX_PAYLOAD_SKIPPED}, found {payload}"
            )
        self._metrics.record(request.command, 0, 0, errors=1)
        self._put(self._framing.error(request.cookie, request.offset, refused.number, refused.text))
        if payload > self._inbox.held:
            self._flush()
        if not self._inbox.skip(payload):
            raise RemoteProtocolError(HALF_A_REQUEST)

    # -- what is cheap ---------------------------------------------------------------------------------------

    def _payload(self, length: int) -> memoryview:
        """Take a payload: where it lies, or straight from the client into a buffer that is kept for the next one."""
        inbox = self._inbox
        if length <= inbox.held:
            inbox.start += length
            return inbox.view[inbox.start - length : inbox.start]
        if len(self._scratch) < length:
            self._scratch = memoryview(bytearray(length))
            self._inbox.let_go = self._shrink
        self._flush()  # what was answered need not wait for what the client has yet to send
        payload = self._scratch[:length]
        if not inbox.take_into(payload):
            raise RemoteProtocolError(HALF_A_REQUEST)
        return payload

    def _read_long(self, request: Request) -> None:
        """Answer a long read in chunks, the kernel moving the bytes where it can."""
        assert self._long is not None
        started = time.perf_counter_ns()
        with self._outbox as stream:
            end, error = self._long.answer(request, stream)
        self._put(end)
        elapsed = time.perf_counter_ns() - started
        if error is not None:
            self._commands.note_failure(request, error)
        self._metrics.record(_READ, elapsed, request.length, errors=error is not None)

    def _read_known(self, request: Request, framed: ChunkedFraming) -> None:
        """Answer a short read of memory: with a hole where all of it is one."""
        cookie, offset, length = request.cookie, request.offset, request.length
        try:
            if all(extent.flags & ZERO for extent in self._device.extents(offset, length)):
                self._put(framed.hole(cookie, offset, offset, length))
            else:
                data = bytearray(length)
                self._device.read_into(offset, data)
                self._put(framed.data_head(cookie, offset, offset, length) + data)
        except Exception as error:  # noqa: BLE001 - whatever a device raises is the client's to know
            self._put(self._commands.failure(request, error))
            return
        self._reads += 1
        self._read_bytes += length

    def _put(self, reply: bytes) -> None:
        """Add a short reply to those that are sent together."""
        end = self._filled + len(reply)
        if end > len(self._arena):
            self._make_room(len(reply))
            end = self._filled + len(reply)
        self._arena[self._filled : end] = reply
        self._filled = end

    def _make_room(self, needed: int) -> tuple[bytearray, memoryview, int, int]:
        """Send what is filled, or grow, so that ``needed`` bytes fit; return the arena's state."""
        size = len(self._arena)
        if size < ARENA:
            grown = bytearray(max(min(ARENA, size * 4), self._filled + needed))
            grown[: self._filled] = self._room[: self._filled]
            self._arena, self._room = grown, memoryview(grown)
            self._inbox.let_go = self._shrink
        else:
            self._flush()
        return self._arena, self._room, self._filled, len(self._arena)

    def _shrink(self) -> None:
        """Give back what a busy time took; nothing is filled while the client is waited for."""
        self._arena = bytearray(SMALL)
        self._room = memoryview(self._arena)
        self._scratch = memoryview(b"")

    def _flush(self) -> None:
        """Send what is filled."""
        filled, self._filled = self._filled, 0
        if filled:
            with self._outbox as stream:
                stream.send(self._room[:filled])

    def _count(self, started: int) -> None:
        """Count what the batch has answered: all of it was sent at once, and took as long."""
        if self._reads or self._writes:
            elapsed = time.perf_counter_ns() - started
            if self._reads:
                self._metrics.record(_READ, elapsed, self._read_bytes, count=self._reads)
            if self._writes:
                self._metrics.record(_WRITE, elapsed, self._write_bytes, count=self._writes)
            self._reads = self._read_bytes = self._writes = self._write_bytes = 0
