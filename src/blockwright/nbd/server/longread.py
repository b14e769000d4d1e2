"""Long reads, answered chunk by chunk while the client takes them: holes as holes, files by the kernel.

A chunk's length is announced before its bytes are read, so a read that fails half-way is padded with zeros and
followed by an error chunk, as "Structured reply message" allows. However long a read is, it holds one step.

Knows: chunks, and sendfile. Refuses to know: turns, counting, and the loop.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Final

from blockwright.device.base import BlockDevice, FileRun
from blockwright.device.extent import ZERO, Extent, merge
from blockwright.device.vector import zeros
from blockwright.errors import SourceChanged
from blockwright.nbd.protocol.replies import ChunkedFraming
from blockwright.nbd.protocol.requests import Request
from blockwright.nbd.server.failure import for_client
from blockwright.nbd.server.limits import SMALL
from blockwright.nbd.transport import Stream
from blockwright.nbd.wire import CommandFlag
from blockwright.units import KiB

STEP: Final = 256 * KiB
"""Bytes that are read and sent at once where the kernel cannot move them: they stay in the processor's cache."""

MIN_HOLE: Final = 32 * KiB
"""Zeros within a read that are worth a chunk of their own."""

_DF: Final = int(CommandFlag.DF)
_own = threading.local()


class _DeviceFailed(Exception):
    """Reading the device failed at ``offset``."""

    def __init__(self, error: Exception, offset: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.offset = offset


def chunks(device: BlockDevice, request: Request) -> list[Extent]:
    """Return what a read's reply consists of: data and zeros, as far as the device tells and DF allows."""
    whole = Extent(request.offset, request.length, 0)
    if request.flags & _DF:
        return [whole]
    try:
        found = list(device.extents(request.offset, request.length))
    except Exception:  # noqa: BLE001 - a hint; the read itself tells what is wrong
        return [whole]
    return list(merge(_without_short_holes(found, request.length)))


def _without_short_holes(extents: Iterable[Extent], length: int) -> Iterator[Extent]:
    for extent in extents:
        told = extent.flags & ZERO and (extent.length >= MIN_HOLE or extent.length == length)
        yield extent._replace(flags=ZERO if told else 0)


class LongReads:
    """Answers reads of one session by chunks of any length."""

    def __init__(self, device: BlockDevice, framing: ChunkedFraming) -> None:
        self._device = device
        self._framing = framing

    def answer(self, request: Request, stream: Stream) -> tuple[bytes, Exception | None]:
        """Send all of the reply but its last chunk; return that, and the device's error where it failed.

        Raises what the stream raises.
        """
        framing = self._framing
        cookie, start = request.cookie, request.offset
        try:
            for offset, length, flags in chunks(self._device, request):
                if flags & ZERO:
                    stream.send(framing.hole(cookie, start, offset, length, 0), more=True)
                else:
                    stream.send(framing.data_head(cookie, start, offset, length, 0), more=True)
                    self._send_data(stream, offset, offset + length)
        except _DeviceFailed as failed:
            number, text = for_client(failed.error)
            return framing.error(cookie, start, number, text, failed.offset), failed.error
        return framing.done(cookie, start), None

    def _send_data(self, stream: Stream, offset: int, end: int) -> None:
        """Send the bytes [offset, end), or zeros from where the device fails; raise _DeviceFailed then."""
        try:
            while offset < end:
                offset += self._by_kernel(stream, offset, end) or self._by_reading(stream, offset, end)
        except _DeviceFailed as failed:
            for part in zeros(end - failed.offset):
                stream.send(part)
            raise

    def _by_kernel(self, stream: Stream, offset: int, end: int) -> int:
        """Let the kernel send the first bytes and return how many; 0 where it cannot."""
        if end - offset <= SMALL:
            return 0
        with ExitStack() as stack:
            try:
                runs = stack.enter_context(self._device.backing(offset, end - offset))
            except Exception:  # noqa: BLE001 - a hint; the read itself tells what is wrong, and where
                return 0
            return _send_run(stream, runs[0], offset) if runs else 0

    def _by_reading(self, stream: Stream, offset: int, end: int) -> int:
        """Read a step, send it, and return its length."""
        buffer: memoryview | None = getattr(_own, "buffer", None)
        if buffer is None:
            buffer = _own.buffer = memoryview(bytearray(STEP))
        part = buffer[: min(STEP, end - offset)]
        try:
            self._device.read_into(offset, part)
        except Exception as error:  # noqa: BLE001 - whatever a device raises is the client's to know
            raise _DeviceFailed(error, offset) from None
        stream.send(part)
        return len(part)


def _send_run(stream: Stream, run: FileRun, offset: int) -> int:
    """Send what the kernel sends of a run, which is at ``offset`` of the device, and return how many bytes."""
    done = 0
    while done < run.length:
        try:
            count = stream.send_file(run.fd, run.offset + done, run.length - done)
        except OSError as error:
            if isinstance(error, ConnectionError | TimeoutError):
                raise
            if error.errno == errno.EIO:  # the file's: no stream says that, and a disk need not try again
                raise _DeviceFailed(error, offset + done) from None
            return done  # no sendfile here, or the file's, or the stream's: who reads and sends learns which
        if count is None:
            return done
        if not count:
            changed = SourceChanged(f"the file ends early, {done} bytes into {run.length}")
            raise _DeviceFailed(changed, offset + done)
        done += count
    return done
