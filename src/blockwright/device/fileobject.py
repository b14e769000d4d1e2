"""A device as a file object, for the many libraries that read and write those; the other way is ``adapter``.

Knows: the cursor, and that a device does not grow. Refuses to know: where bytes live.
"""

from __future__ import annotations

import errno
import io
import os
from typing import Any

from blockwright.device.base import BlockDevice
from blockwright.errors import UsageError


class DeviceFile(io.RawIOBase):
    """An unbuffered binary file over a device: seekable, of the device's size, writable where the device is.

    Reading ends at the device's end, and writing there raises OSError (ENOSPC), as block devices of the host do.
    ``flush`` makes durable what was written. Closing flushes and closes the device, unless ``owns`` is False. One
    cursor, so not for several threads; a device of several file objects is. ``io.BufferedReader`` and its kin add
    buffers.
    """

    def __init__(self, device: BlockDevice, *, owns: bool = True) -> None:
        if device.traits.minimum_block > 1:
            raise UsageError(
                f"file object: expected a device of single bytes, found blocks of {device.traits.minimum_block}"
            )
        super().__init__()
        self._device = device
        self._owns = owns
        self._position = 0

    def readable(self) -> bool:
        """Say yes while it is open."""
        self._check_open()
        return True

    def writable(self) -> bool:
        """Say whether the device takes writes."""
        self._check_open()
        return self._device.traits.writable

    def seekable(self) -> bool:
        """Say yes while it is open."""
        self._check_open()
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position, which may lie behind the end, and return it."""
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._device.size}.get(whence)
        if base is None:
            raise UsageError(f"seek: expected 0, 1 or 2 to say from where, found {whence}")
        if base + offset < 0:
            raise UsageError(f"seek: expected a position from 0 on, found {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer as far as the device has bytes, and return how many."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._device.size - self._position))
        if count:
            self._device.read_into(self._position, view[:count])
            self._position += count
        return count

    def write(self, data: Any, /) -> int:
        """Write as much as fits before the end, and return how many bytes. Raises OSError where nothing does."""
        self._check_open()
        if not self._device.traits.writable:
            raise io.UnsupportedOperation("write: the device is read-only")
        view = memoryview(data).cast("B")
        count = max(0, min(len(view), self._device.size - self._position))
        if len(view) and not count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._device.write(self._position, view[:count])
        self._position += count
        return count

    def truncate(self, size: int | None = None, /) -> int:
        """Refuse: a device keeps its size."""
        raise io.UnsupportedOperation("truncate: a device keeps its size")

    def flush(self) -> None:
        """Make durable what was written."""
        super().flush()
        if self._device.traits.writable and not self._device.closed:
            self._device.flush()

    def close(self) -> None:
        """Flush, and close the device where it is this file's own. Idempotent."""
        if self.closed:
            return
        try:
            super().close()  # flushes
        finally:
            if self._owns:
                self._device.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("file object: is closed")  # as io has it
