"""What a client is told when a device fails.

Knows: errors of both worlds. Refuses to know: replies.
"""

from __future__ import annotations

from blockwright.errors import BlockwrightError, PeerError
from blockwright.nbd.wire import Error, to_wire


def failure(error: Exception) -> tuple[Error, str]:
    """Return the wire's number and a text; ENOTSUP is kept for FAST_ZERO, "NBD_CMD_WRITE_ZEROES"."""
    if isinstance(error, PeerError):  # an export of another server: what it said
        return to_wire(error.errno or Error.EIO), str(error)
    if isinstance(error, BlockwrightError):
        return to_wire(error.nbd_errno), str(error)
    if isinstance(error, MemoryError):
        return Error.ENOMEM, "out of memory"
    if isinstance(error, OSError) and error.errno:
        return to_wire(error.errno), (error.strerror or str(error)).lower()
    return Error.EIO, f"{type(error).__name__}: {error}"
