"""One session's requests, from its reading thread's side: what is cheap is answered at once and in batches.

All requests that one receive brought are parsed together, small reads of what is ready go into one buffer behind
their headers, and one send answers them. Whatever may wait goes to ``commands``.

Knows: the loop, and which requests are cheap. Refuses to know: how the others are carried out, and the handshake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

from blockwright.device.base import Waits
from blockwright.device.extent import ZERO
from blockwright.errors import RemoteProtocolError
from blockwright.nbd.protocol.replies import ChunkedFraming, framing
from blockwright.nbd.protocol.requests import Refusal, Request, payload_length, refusal
from blockwright.nbd.protocol.session import Session
from blockwright.nbd.server.commands import Commands
from blockwright.nbd.server.inbox import Inbox
from blockwright.nbd.server.limits import PIECE, SMALL
from blockwright.nbd.server.longread import LongReads
from blockwright.nbd.server.metrics import ExportMetrics
from blockwright.nbd.server.outbox import Outbox
from blockwright.nbd.wire import Command, CommandFlag, Error
from blockwright.units import KiB

ARENA: Final = 512 * KiB
"""Bytes of replies that are sent together."""

_READ: Final = int(Command.READ)
_WRITE: Final = int(Command.WRITE)
_DISC: Final = int(Command.DISC)
_PLAIN_WRITE: Final = (0, int(CommandFlag.PAYLOAD_LEN))
_MAX_PAYLOAD_SKIPPED: Final = 1 << 32
"""Bytes of a payload that a refused request may make us read: what the classic header can announce."""

Requests = Iterable[tuple[int, int, int, int, int, int]]


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
        self._ready = self._device.ready_reader() if in_line and not traits.known_extents else None
        self._write = self._device.write if in_line else None
        chunked = self._framing if isinstance(self._framing, ChunkedFraming) else None
        self._long = LongReads(self._device, chunked) if in_line and chunked else None
        self._known = chunked if in_line and traits.known_extents else None
        self._arena = bytearray(SMALL)
        self._room = memoryview(self._arena)
        self._filled = 0
        self._finished = ""
        # What the batch under way has answered, to be counted when it is sent.
        self._counts = {_READ: [0, 0], _WRITE: [0, 0]}

    def serve(self) -> str:
        """Answer requests until the session ends, and return why it did.

        Raises RemoteProtocolError for a client that breaks the rules, TimeoutError, OSError.
        """
        inbox = self._inbox
        wanted = self._framing.request.size
        while inbox.fill(wanted):
            started = time.perf_counter_ns()
            wanted = self._batch()
            self._flush()
            self._count(started)
            if self._finished:
                return self._finished
        return "the client hung up" if not inbox.held else "the client hung up within a request"

    # -- the loop --------------------------------------------------------------------------------------------

    def _batch(self) -> int:
        """Answer what the inbox holds, and return how many bytes the next request needs at least."""
        inbox = self._inbox
        head = self._framing.request
        while not self._finished:
            count = inbox.held // head.size
            if not count:
                return head.size
            requests = head.iter_unpack(inbox.view[inbox.start : inbox.start + count * head.size])
            wanted = self._headers(requests)
            if wanted:
                return wanted
        return head.size

    def _headers(self, requests: Requests) -> int:
        """Answer requests up to the first that has a payload, which is answered too if it is here.

        Return 0, or how many bytes from the inbox's start on must be here before there is more to do.
        """
        inbox, framing = self._inbox, self._framing
        rules = self._commands.rules
        head_size, magic = framing.request.size, framing.request_magic
        ready, put_head, data_head = self._ready, framing.put_data_head, framing.data_head_size
        size, mask = rules.size, rules.minimum - 1
        arena, room, filled, capacity = self._arena, self._room, self._filled, len(self._arena)
        reads = read_bytes = 0
        if self._stopping():
            ready = None
        for found, flags, command, cookie, offset, length in requests:
            if found != magic:
                raise RemoteProtocolError(f"request: expected the magic {magic:#x}, found {found:#x}")
            if (
                command == _READ
                and ready is not None
                and not flags
                and 0 < length <= SMALL
                and offset + length <= size
                and not (offset | length) & mask
            ):
                data = filled + data_head
                end = data + length
                if end > capacity:
                    self._filled = filled
                    arena, room, filled, capacity = self._make_room(data_head + length)
                    data, end = filled + data_head, filled + data_head + length
                put_head(arena, filled, cookie, offset, offset, length)
                if ready(offset, (room[data:end],)):
                    filled = end
                    reads += 1
                    read_bytes += length
                    inbox.start += head_size
                    continue
            self._filled = filled
            wanted = self._one(Request(flags, command, cookie, offset, length))
            arena, room, filled, capacity = self._arena, self._room, self._filled, len(self._arena)
            if wanted or command == _WRITE or self._finished or rules is not self._commands.rules:
                break
        else:
            wanted = 0
        self._filled = filled
        counted = self._counts[_READ]
        counted[0] += reads
        counted[1] += read_bytes
        return wanted

    def _one(self, request: Request) -> int:
        """Answer or begin to answer one request, whose header is at the inbox's start.

        Return 0, or how many bytes must be here first; then nothing was taken.
        """
        inbox, framing = self._inbox, self._framing
        head_size = framing.request.size
        payload = payload_length(request, extended=framing.extended)
        refused = refusal(self._commands.rules, request) or self._refused_now(request)
        if payload and not refused and payload <= PIECE and inbox.held < head_size + payload and self._write:
            return head_size + payload
        inbox.start += head_size
        if refused:
            self._refuse(request, refused, payload)
        elif request.command == _DISC:
            self._finished = "the client disconnected"
        elif request.command == _WRITE and self._write and request.flags in _PLAIN_WRITE and payload <= PIECE:
            self._write_now(request)
        elif request.command == _READ and self._long and request.length > SMALL:
            self._flush()
            self._read_long(request)
        elif request.command == _READ and self._known and not request.flags:
            self._read_known(request, self._known)
        else:
            self._flush()
            self._commands.begin(request, inbox)
        return 0

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
            self._finished = "the client hung up within a request"

    # -- what is cheap ---------------------------------------------------------------------------------------

    def _write_now(self, request: Request) -> None:
        """Write a payload that the inbox holds."""
        assert self._write is not None
        inbox = self._inbox
        payload = inbox.view[inbox.start : inbox.start + request.length]
        inbox.start += request.length
        try:
            self._write(request.offset, payload)
        except Exception as error:  # noqa: BLE001 - whatever a device raises is the client's to know
            self._put(self._commands.failure(request, error))
            return
        self._put(self._framing.done(request.cookie, request.offset))
        counted = self._counts[_WRITE]
        counted[0] += 1
        counted[1] += request.length

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
        counted = self._counts[_READ]
        counted[0] += 1
        counted[1] += length

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
        else:
            self._flush()
        return self._arena, self._room, self._filled, len(self._arena)

    def _flush(self) -> None:
        """Send what is filled."""
        filled, self._filled = self._filled, 0
        if filled:
            with self._outbox as stream:
                stream.send(self._room[:filled])

    def _count(self, started: int) -> None:
        elapsed = 0
        for command, counted in self._counts.items():
            if counted[0]:
                elapsed = elapsed or time.perf_counter_ns() - started
                self._metrics.record(command, elapsed, counted[1], count=counted[0])
                counted[0] = counted[1] = 0
