"""An export of an NBD server as a device.

Knows: which requests make a call, and what becomes of a call whose connection ended. Refuses to know: sockets,
framing, and how connections are made.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from blockwright.device.base import BlockDevice, ResizableDevice, Traits, Waits
from blockwright.device.extent import DATA, HOLE, ZERO, Extent
from blockwright.device.vector import Cutter, total, zeros
from blockwright.errors import Cancelled, ConnectionLost, NotSupported, PeerError, ReadOnly, RemoteProtocolError
from blockwright.nbd.client.connection import Connection, PendingCall
from blockwright.nbd.client.options import ClientOptions
from blockwright.nbd.client.pool import Dial, Pool, Promise, again
from blockwright.nbd.client.unflushed import Unflushed
from blockwright.nbd.protocol.session import BlockSizes, Session
from blockwright.nbd.wire import BASE_ALLOCATION, Command, CommandFlag, Error, TransmissionFlag, from_wire
from blockwright.units import GiB, MiB, align_down

MAX_PAYLOAD: Final = 32 * MiB
"""Bytes of one read or write, whatever the server would take: every server takes as much."""
MAX_EFFECT: Final = GiB
"""Bytes of one request without data, so that none takes for ever."""
MAX_WINDOW: Final = 64
"""Requests of one call that are out at once."""
MAX_EXTENTS: Final = 1 << 18
"""Extents of one walk's slice that are kept; what a server tells beyond counts as data, which is never wrong."""
PARALLELISM: Final = 16
"""Calls in flight that help, for each connection."""
_KNOWN_STATES: Final = HOLE | ZERO


class NbdDevice(BlockDevice):
    """An NBD export, of the size and with the capabilities that the server tells. Made by ``connect``.

    Any number of threads may call at once: their requests are in flight together, over as many connections as the
    server allows and ``connect`` was told. A read fills the caller's buffers as it arrives; what is longer than the
    server takes at once is cut, and its parts are in flight together too.

    A call ends within ``timeout_s`` (``time_limit`` sets another for one thread) or raises TimeoutError, and
    ``cancel`` ends those under way. A connection that ends is made again for up to ``reconnect_s``, and what was
    under way is asked again. Writes that the server acknowledged and no flush has covered are made again first, as
    far as they fitted the budget; if they did not, the next ``flush`` raises ConnectionLost. A server without FLUSH
    is taken at its word.

    What a server that lives on still does for a connection that was given up is beyond anybody's knowledge: behind
    a TimeoutError or Cancelled the range of a write is unspecified until it is written again and flushed.

    Raises PeerError with the server's error; ConnectionLost when the server is gone for good or comes back as
    another; RemoteProtocolError, from then on with every call, when it breaks the protocol.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        options: ClientOptions,
        *,
        dial: Dial | None = None,
        writable: bool = False,
    ) -> None:
        export = connection.session.export
        flags = export.flags
        if writable and flags & TransmissionFlag.READ_ONLY:
            raise ReadOnly(f"{name}: the server offers the export read-only")
        blocks = export.blocks or BlockSizes()
        self.session: Session = connection.session
        self.name = name
        self._flags = flags
        self._timeout_s = options.timeout_s
        self._local = threading.local()
        self._block = blocks.minimum
        self._payload = align_down(min(blocks.maximum, MAX_PAYLOAD), blocks.minimum)
        self._flushes = bool(flags & TransmissionFlag.SEND_FLUSH)
        several = max(1, options.connections) if flags & TransmissionFlag.CAN_MULTI_CONN else 1
        size = align_down(export.size, blocks.minimum)
        self._unflushed = Unflushed(options.unflushed_budget)
        contexts = frozenset(self.session.contexts.values())
        promise = Promise(size, flags, blocks.minimum, self._payload, writable, contexts)
        self._pool = Pool(connection, dial, promise, self._unflushed, limit=several, reconnect_s=options.reconnect_s)
        super().__init__(
            size,
            Traits(
                writable=writable,
                discard=writable and bool(flags & TransmissionFlag.SEND_TRIM),
                fast_zero=writable and bool(flags & TransmissionFlag.SEND_FAST_ZERO),
                fua=writable and bool(flags & TransmissionFlag.SEND_FUA),
                parallelism=PARALLELISM * several,
                minimum_block=blocks.minimum,
                preferred_block=min(max(blocks.preferred, blocks.minimum), MAX_PAYLOAD),
                maximum_block=self._payload,
                waits=Waits.PEER,
            ),
        )

    @property
    def reconnects(self) -> int:
        """How often a lost connection was replaced."""
        return self._pool.reconnects

    @contextmanager
    def time_limit(self, timeout_s: float | None) -> Iterator[None]:
        """Within the context, calls of this thread end within ``timeout_s``; None lifts the limit."""
        before = getattr(self._local, "timeout_s", self._timeout_s)
        self._local.timeout_s = timeout_s
        try:
            yield
        finally:
            self._local.timeout_s = before

    def context_extents(self, context: str, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """Yield the extents of a selected meta context, such as ``qemu:dirty-bitmap:NAME``, with its own flags.

        Neighbours of equal flags may come apart. Raises NotSupported where ``connect`` was not told to select it,
        or the server does not have it.
        """
        end = self.size if length is None else offset + length
        self._check(offset, end - offset)
        self.check_context(context)
        while offset < end:
            for extent in self._status(context, offset, end - offset):
                yield extent
                offset = extent.end

    def check_context(self, context: str) -> None:
        """Raise NotSupported unless ``context`` is selected."""
        if context not in self.session.contexts.values():
            have = ", ".join(sorted(self.session.contexts.values())) or "none"
            raise NotSupported(f"{self.name}: expected the meta context {context}, found {have}")

    # -- primitives --------------------------------------------------------------------------------------------

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        length = total(buffers)
        if length <= self._payload:
            if length:
                self._perform([PendingCall(Command.READ, offset, length, buffers=buffers)])
        else:
            self._transfer(Command.READ, offset, buffers, length, 0)

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        length = total(buffers)
        flags, then_flush = self._durably(durable)
        if length <= self._payload:
            if length:
                self._perform([PendingCall(Command.WRITE, offset, length, flags=flags, buffers=buffers)])
        else:
            self._transfer(Command.WRITE, offset, buffers, length, flags)
        if then_flush:
            self._flush()

    def _zero(self, offset: int, length: int, *, may_unmap: bool, fast_only: bool, durable: bool) -> None:
        flags, then_flush = self._durably(durable)
        if not self._flags & TransmissionFlag.SEND_WRITE_ZEROES:
            for position in range(offset, offset + length, MAX_PAYLOAD):
                part = min(MAX_PAYLOAD, offset + length - position)
                self._transfer(Command.WRITE, position, zeros(part), part, flags)
        elif length:
            flags |= 0 if may_unmap else CommandFlag.NO_HOLE
            if fast_only:  # the first part decides for all
                part = min(length, MAX_EFFECT)
                self._perform([PendingCall(Command.WRITE_ZEROES, offset, part, flags=flags | CommandFlag.FAST_ZERO)])
                offset, length = offset + part, length - part
            self._effect(Command.WRITE_ZEROES, offset, length, flags)
        if then_flush:
            self._flush()

    def _discard(self, offset: int, length: int, *, durable: bool) -> None:
        if length and self._traits.discard:
            flags, then_flush = self._durably(durable)
            self._effect(Command.TRIM, offset, length, flags)
            if then_flush:
                self._flush()

    def _flush(self) -> None:
        if not self._flushes or self._flags & TransmissionFlag.READ_ONLY:
            return
        mark = self._unflushed.mark()
        self._perform([PendingCall(Command.FLUSH, 0, 0)])
        self._unflushed.flushed(mark)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        if BASE_ALLOCATION not in self.session.contexts.values():
            yield Extent(offset, length, DATA)
            return
        end = offset + length
        told = 0
        while offset < end:
            for start, part, flags in self._status(BASE_ALLOCATION, offset, end - offset):
                yield Extent(start, part, flags & _KNOWN_STATES)
                offset = start + part
                told += 1
                if told == MAX_EXTENTS and offset < end:
                    yield Extent(offset, end - offset, DATA)
                    return

    def _prefetch(self, offset: int, length: int) -> None:
        if length and self._flags & TransmissionFlag.SEND_CACHE:
            connection = self._pool.idle()
            if connection is not None and connection.load < PARALLELISM:
                connection.start_unwaited(PendingCall(Command.CACHE, offset, min(length, self._payload)))

    def _cancel(self) -> None:
        self._pool.cancel()

    def _close(self) -> None:
        self._pool.close()

    # -- calls -------------------------------------------------------------------------------------------------

    def _durably(self, durable: bool) -> tuple[int, bool]:  # noqa: FBT001 - private
        """Return the flags of a durable request, and whether a flush must follow instead."""
        if not durable:
            return 0, False
        if self._flags & TransmissionFlag.SEND_FUA:
            return int(CommandFlag.FUA), False
        return 0, True

    def _transfer(
        self, command: Command, offset: int, buffers: Sequence[memoryview], length: int, flags: int
    ) -> None:
        """Read or write what is longer than one request, a window of requests at a time."""
        cutter = Cutter(buffers)
        calls: list[PendingCall] = []
        while length:
            part = min(length, self._payload)
            calls.append(PendingCall(command, offset, part, flags=flags, buffers=cutter.take(part)))
            offset, length = offset + part, length - part
            if len(calls) == MAX_WINDOW or not length:
                self._perform(calls)
                calls = []

    def _effect(self, command: Command, offset: int, length: int, flags: int) -> None:
        """Have a range of any length zeroed or discarded, a request at a time: each may be much work."""
        while length:
            part = min(length, MAX_EFFECT)
            self._perform([PendingCall(command, offset, part, flags=flags)])
            offset, length = offset + part, length - part

    def _status(self, context: str, offset: int, length: int) -> Iterator[Extent]:
        """Yield what one block status request tells of a context: at least one extent, within the device."""
        longest = 1 << 62 if self.session.extended else align_down((1 << 32) - 1, self._block)
        call = PendingCall(Command.BLOCK_STATUS, offset, min(length, longest))
        connection = self._perform([call])
        for number, name in connection.session.contexts.items():
            if name == context:
                for part, flags in call.statuses[number]:
                    part = min(part, self._size - offset)  # noqa: PLW2901 - the server may tell of more than there is
                    yield Extent(offset, part, flags)
                    offset += part
                    if offset == self._size:
                        return
                return
        raise AssertionError("every session of a device has its contexts")

    def _perform(self, calls: list[PendingCall]) -> Connection:
        """Have all calls done, over as many connections as it takes; return the last. Raises what any met."""
        timeout_s = getattr(self._local, "timeout_s", self._timeout_s)
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        cancellations = self._pool.cancellations
        left = calls
        while True:
            try:
                connection = self._pool.pick(ends, cancellations)
            except (OSError, Cancelled, RemoteProtocolError) as error:
                raise self._named(error) from None
            self._check_kept(left)
            connection.start(left, ends)
            for call in left:
                connection.wait(call, ends)
            left = self._not_done(left, connection)
            if not left:
                break
            if self._pool.cancellations != cancellations:
                raise Cancelled(f"{self.name}: {_what(left[0])}: the call was cancelled")
            if ends is not None and time.monotonic() > ends:
                text = f"{_what(left[0])}: no answer within {timeout_s:g} s"
                raise TimeoutError(errno.ETIMEDOUT, text, self.name)
            if left[0].command == Command.RESIZE:
                assert left[0].lost is not None, "what is left was lost"
                raise self._named(again(left[0].lost))
            for call in left:
                call.reset()
        for call in calls:
            if call.error:
                raise self._error(call)
        return connection

    def _not_done(self, calls: list[PendingCall], connection: Connection) -> list[PendingCall]:
        """Return the calls that must be made again, having noted the writes that need not."""
        if not self._flushes or calls[0].command not in (Command.WRITE, Command.WRITE_ZEROES):
            return [call for call in calls if call.lost is not None]
        with self._unflushed.lock:
            # A write whose acknowledgement came in time counts only if nobody has looked yet for what to make again.
            if connection.failure is not None or any(call.lost is not None for call in calls):
                return calls
            self._unflushed.note([call for call in calls if not call.error])
        return []

    def _check_kept(self, calls: list[PendingCall]) -> None:
        """Raise ConnectionLost before a flush that would vouch for writes that are gone."""
        if calls[0].command == Command.FLUSH and self._unflushed.take_forgotten():
            raise ConnectionLost(
                f"{self.name}: the connection was lost and made again, and writes that the server had acknowledged "
                "and not flushed were too many to keep: what was written since the last flush may be missing"
            )

    def _error(self, call: PendingCall) -> Exception:
        said = f": {call.message}" if call.message else ""
        if call.error == Error.ENOTSUP:
            return NotSupported(f"{self.name}: {_what(call)}: the server cannot do it{said}")
        if call.error == Error.EPERM and call.command in (Command.WRITE, Command.WRITE_ZEROES, Command.TRIM):
            return ReadOnly(f"{self.name}: {_what(call)}: the server allows no writes{said}")
        number = from_wire(call.error)
        name = Error(call.error).name if call.error in _ERRORS else f"error {call.error}"
        return PeerError(number, f"{self.name}: {_what(call)}: the server answers {name}{said}")

    def _named(self, error: Exception) -> Exception:
        """Return the error of a connection with the device's name in front."""
        if isinstance(error, TimeoutError):
            return TimeoutError(errno.ETIMEDOUT, str(error), self.name)
        text = str(error) if str(error).startswith(f"{self.name}: ") else f"{self.name}: {error}"
        if isinstance(error, Cancelled):
            return Cancelled(text)
        if isinstance(error, RemoteProtocolError):
            return RemoteProtocolError(text)
        return ConnectionLost(text)


class ResizableNbdDevice(NbdDevice, ResizableDevice):
    """An export of a server that offers RESIZE, which is a draft of the protocol."""

    def _resize(self, size: int) -> None:
        if size % self._block:
            raise NotSupported(f"{self.name}: resize: expected a multiple of {self._block} bytes, found {size}")
        if size < self._size:
            # What is cut off must not be made again behind a reconnect: no server would take it, or it would be back
            # when the disk grows.
            self._flush()
        self._perform([PendingCall(Command.RESIZE, size, 0)])
        self._pool.resized(size)


_ERRORS: Final = frozenset(Error)


def _what(call: PendingCall) -> str:
    if call.command == Command.FLUSH:
        return "FLUSH"
    if call.command == Command.RESIZE:
        return f"RESIZE to {call.offset} bytes"
    return f"{call.command.name} of {call.length} bytes at {call.offset}"
