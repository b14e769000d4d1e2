"""Bodies of a stream kept aside, for those who must read them later, anywhere, and more than once.

Knows: where each body lies in the device it is given. Refuses to know: whose bodies they are, and what kind of
device keeps them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Final

from blockwright.device.base import ResizableDevice
from blockwright.device.file import FileDevice
from blockwright.device.spool import kept_meanwhile, read_some, read_up_to
from blockwright.tree.content import BytesContent, Content, DeviceContent, DeviceRange, Fill, Runs
from blockwright.units import MiB

KEPT_IN_MEMORY: Final = MiB
"""Bytes of a stream that are kept in memory; more goes to a temporary file."""


class Spool:
    """A place for streamed bodies: data goes to ``device``, one body behind the other from its present end on.

    The device (a temporary file, memory) stays the caller's and must outlive the contents.
    """

    def __init__(self, device: ResizableDevice) -> None:
        self._device = device
        self._buffer = memoryview(bytearray(MiB))

    def place(self, size: int, runs: Runs, fill: Fill, /) -> Content:
        """Keep a body's data, and return a content that reads it. Raises what writing to the device raises."""
        device, starts = self._device, []
        position = device.size
        device.resize(position + sum(length for _, length in runs))
        for _, length in runs:
            starts.append(position)
            end = position + length
            while position < end:
                part = self._buffer[: min(len(self._buffer), end - position)]
                fill(part)
                device.write(position, part)
                position += len(part)
        if tuple(runs) == ((0, size),):
            return DeviceRange(device, size, starts[0])
        return DeviceContent(device, size, runs, starts)


@contextmanager
def spooled(source: BinaryIO) -> Iterator[Content]:
    """Have everything that ``source`` still gives as a content, in memory while it is little, else in a file.

    ``source`` may give less than it is asked for before its end, as a pipe does that nothing buffers.
    """
    head = read_up_to(source, KEPT_IN_MEMORY)
    if len(head) < KEPT_IN_MEMORY:
        yield BytesContent(head)
        return
    with tempfile.TemporaryFile() as file:
        with kept_meanwhile("the stream"):
            while head:
                file.write(head)
                head = read_some(source, KEPT_IN_MEMORY)
            file.flush()
        with FileDevice.adopt(os.dup(file.fileno()), "the stream's temporary file", writable=False) as device:
            yield DeviceRange(device, device.size, 0)
