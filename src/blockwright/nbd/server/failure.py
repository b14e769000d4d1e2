"""What is said when a device fails: to the log all of it, to the client what concerns it.

An error of a device names files, servers and users of this host, which are nobody's business but its own.

Knows: errors of both worlds. Refuses to know: replies.
"""

from __future__ import annotations

import os
from typing import Final

from blockwright.errors import BlockwrightError, PeerError, UsageError
from blockwright.nbd.wire import Error, to_wire

_TEXTS: Final[dict[Error, str]] = {
    Error.EPERM: "the device does not allow it",
    Error.EIO: "the device failed",
    Error.ENOMEM: "the server has no memory for it",
    Error.EINVAL: "the device cannot do it",
    Error.ENOSPC: "no space is left on the device",
    Error.EOVERFLOW: "the device cannot do as much",
    Error.ENOTSUP: "the device cannot do it, or not fast",
    Error.ESHUTDOWN: "the device is closed",
}


class Unfit(UsageError):
    """A request that cannot be done as it stands. Its text is for the client, and names nothing of this host."""


def failure(error: Exception) -> tuple[Error, str]:
    """Return the wire's number and a text for the log; ENOTSUP is kept for FAST_ZERO, "NBD_CMD_WRITE_ZEROES"."""
    if isinstance(error, PeerError):  # an export of another server: what it said
        return to_wire(error.errno or Error.EIO), str(error)
    if isinstance(error, BlockwrightError):
        return to_wire(error.nbd_errno), str(error)
    if isinstance(error, MemoryError):
        return Error.ENOMEM, "out of memory"
    if isinstance(error, OSError) and error.errno:
        return to_wire(error.errno), (error.strerror or str(error)).lower()
    return Error.EIO, f"{type(error).__name__}: {error}"


def for_client(error: Exception) -> tuple[Error, str]:
    """Return the wire's number and a text for the client."""
    number, text = failure(error)
    if isinstance(error, Unfit):
        return number, text
    if isinstance(error, OSError) and not isinstance(error, BlockwrightError) and error.errno:
        return number, os.strerror(error.errno).lower()  # what the system calls it, without the file
    return number, _TEXTS[number]
