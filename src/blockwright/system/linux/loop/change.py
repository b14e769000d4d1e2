"""Changes an attached loop device while it is in use.

Knows: what the driver changes in place. Refuses to know: attaching and detaching.
"""

from __future__ import annotations

import errno
import os

from blockwright.errors import KernelError, NotFound
from blockwright.system.linux import blkdev
from blockwright.system.linux.ioctl import call, opened, require_linux
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.loop import layout, state


def refresh(device: str | int, *, logger: Logger | None = None) -> int:
    """Have the device's size follow that of its image, which may have grown or shrunk; return it in bytes.

    Raises NotFound for a device that is free; Unavailable, KernelError.
    """
    path = _change(device, layout.SET_CAPACITY, 0, "LOOP_SET_CAPACITY")
    with opened(path, os.O_RDONLY) as fd:
        size = blkdev.size(fd, path)
    told(logger).info("%s has %d bytes", path, size)
    return size


def set_direct_io(device: str | int, wanted: bool, *, logger: Logger | None = None) -> None:  # noqa: FBT001 - the point
    """Have the device read and write past the page cache, or through it.

    Raises NotFound for a device that is free; KernelError (EINVAL) where the file system under the image, or the
    device's offset, does not allow it; Unavailable.
    """
    path = _change(device, layout.SET_DIRECT_IO, int(wanted), "LOOP_SET_DIRECT_IO")
    told(logger).info("%s: direct I/O is %s", path, "on" if wanted else "off")


def _change(device: str | int, request: int, argument: int, operation: str) -> str:
    require_linux(operation, str(device))
    path = state.node(state.number_of(device))
    with opened(path, os.O_RDONLY) as fd:
        try:
            call(fd, request, argument, operation=operation, device=path)
        except KernelError as error:
            if error.errno == errno.ENXIO:
                raise NotFound(f"{path}: is not attached to anything") from None
            raise
    return path
