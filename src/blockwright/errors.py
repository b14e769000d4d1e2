"""Every exception that blockwright raises, and what each one means to the command and to NBD.

Knows: the classes, their exit codes and their NBD error numbers.
Refuses to know: who raises them. A plain ``OSError`` from the host passes through untouched.

A message reads ``thing: what is wrong: expected X, found Y (byte N; spec section)``, lower-case.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar


class BlockwrightError(Exception):
    """The base of all errors of this package.

    ``exit_code`` is what the command exits with: 1 failed, 2 usage, 3 a check found damage,
    4 missing privilege or kernel support, 5 not found. ``nbd_errno`` is what an NBD client is told.
    """

    exit_code: ClassVar[int] = 1
    nbd_errno: ClassVar[int] = errno.EIO


class UsageError(BlockwrightError, ValueError):
    """The caller broke a documented rule; nothing was changed."""

    exit_code = 2
    nbd_errno = errno.EINVAL


class OutOfRange(UsageError):
    """The range does not lie within the device."""


class ReadOnly(UsageError):
    """The device, or what it stands on, takes no writes."""

    nbd_errno = errno.EPERM


class Closed(UsageError):
    """The object was closed before the call."""

    nbd_errno = errno.ESHUTDOWN


class Misaligned(UsageError):
    """Offset or length is no multiple of the device's minimum block."""


class NotSupported(UsageError):
    """The device cannot do this, or not faster than writing; nothing was changed."""

    nbd_errno = errno.ENOTSUP


class InUse(UsageError):
    """Somebody else holds what was to be opened; the message names the holder."""

    exit_code = 1
    nbd_errno = errno.EBUSY


class NotAllowed(UsageError):
    """What an input names may not be opened by the caller's policy; nothing was."""

    exit_code = 1
    nbd_errno = errno.EPERM


class NotFound(BlockwrightError):
    """What was named does not exist: a path within a file system, a partition, an object."""

    exit_code = 5
    nbd_errno = errno.ENOENT


class NoSpace(BlockwrightError):
    """The content does not fit the size that was asked for; the message names both."""

    nbd_errno = errno.ENOSPC


class FormatError(BlockwrightError):
    """Input bytes are not what they claim to be.

    ``source`` names the input, ``offset`` is the byte within it, ``spec`` the rule it breaks;
    each is None where it is not known.
    """

    def __init__(
        self, message: str, *, source: str | None = None, offset: int | None = None, spec: str | None = None
    ) -> None:
        super().__init__(message)
        self.source = source
        self.offset = offset
        self.spec = spec

    def __str__(self) -> str:
        text = str(self.args[0])
        if self.source is not None:
            text = f"{self.source}: {text}"
        where = [] if self.offset is None else [f"byte {self.offset}"]
        if self.spec is not None:
            where.append(self.spec)
        return f"{text} ({'; '.join(where)})" if where else text


class NotThisFormat(FormatError):
    """The input carries no sign of the format that was asked for."""


class Corrupt(FormatError):
    """The input is of the format, and breaks its rules."""


class Damaged(Corrupt):
    """What was to be used was checked first, and is not used."""

    exit_code = 3


class Unsupported(FormatError):
    """The input is sound and uses something that is refused by name."""

    nbd_errno = errno.ENOTSUP


class LimitExceeded(FormatError):
    """A count or length in the input is over a named limit of ours."""


class Rejection(Enum):
    """Why an archive was refused. The last eight are budgets of ``tree.rules`` that it went over."""

    NAME = "name"
    PLACE = "place"
    LINK = "link"
    TYPE = "type"
    SIZE = "size"
    HEADER = "header"
    EXTENDED = "extended header"
    SPARSE = "sparse map"
    OWNER = "owner"
    DEVICE = "device"
    TIME = "time"
    XATTR = "extended attribute"
    TRUNCATED = "truncated"
    COMPRESSION = "compression"
    WHITEOUT = "whiteout"
    DIGEST = "digest"
    MANIFEST = "manifest"
    BYTES = "bytes"
    RATIO = "ratio"
    ENTRIES = "entries"
    DEPTH = "depth"
    HEADER_BYTES = "header bytes"
    METADATA_BYTES = "metadata bytes"
    MEMORY = "memory"
    SECONDS = "seconds"


class ArchiveRejected(FormatError):
    """An archive is not taken in, as a whole: it breaks its format, could be read in two ways, or is over a budget.

    ``reason`` says why, ``layer`` is the number of the layer from 0 on where there are several, ``entry`` the name of
    the member, ``offset`` the byte of the archive where that member's headers begin; None where not known.
    """

    def __init__(
        self,
        reason: Rejection,
        message: str,
        *,
        source: str | None = None,
        offset: int | None = None,
        spec: str | None = None,
        layer: int | None = None,
        entry: bytes | None = None,
    ) -> None:
        super().__init__(message, source=source, offset=offset, spec=spec)
        self.reason = reason
        self.layer = layer
        self.entry = entry


class ProtocolError(BlockwrightError):
    """A rule of a protocol was broken."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol."""


class Refused(BlockwrightError):
    """The peer keeps the protocol and will not do what was asked; the message has its reason."""

    exit_code = 4
    nbd_errno = errno.EPERM


class PeerError(BlockwrightError, OSError):
    """The peer tried what was asked and failed; ``errno`` is the host's number for what it said."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number, message)

    def __str__(self) -> str:
        return str(self.args[1])


class ConnectionLost(PeerError):
    """The connection to the peer ended, and no other took its place in time."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.ECONNRESET, message)


class Cancelled(BlockwrightError):
    """Another thread cancelled the call; whether it had an effect is not known."""

    nbd_errno = errno.ESHUTDOWN


class NotTrusted(RemoteProtocolError):
    """The peer did not prove that it is who it must be: its certificate, or the key it should know."""


class IntegrityError(BlockwrightError):
    """Two values that must agree do not; the message names both values and both sources."""


class SourceChanged(IntegrityError):
    """A file changed, vanished or could not be read between planning and copying."""


class StoreError(BlockwrightError):
    """Object storage failed. ``permanent`` says whether trying again is pointless."""

    def __init__(self, message: str, *, permanent: bool = True) -> None:
        super().__init__(message)
        self.permanent = permanent


class ObjectNotFound(StoreError, NotFound):
    """The bucket holds no such object."""

    exit_code = 5


class PreconditionFailed(StoreError):
    """A conditional put or get met another version."""


class Throttled(StoreError):
    """The store asked for fewer requests; not permanent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=False)


class ScanFailed(BlockwrightError):
    """A scan came to no answer that can be relied on, or there is none to run, where one is demanded.

    ``verdict`` is what is known of it, as a JSON object; None where nothing is.
    """

    def __init__(self, message: str, *, verdict: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.verdict = verdict


class PolicyViolated(ScanFailed):
    """A scan found what the policy does not accept; ``verdict`` has it."""

    exit_code = 3


class KernelError(BlockwrightError, OSError):
    """The kernel refused an operation on a device.

    ``operation`` is what was asked, in the kernel's own words, ``device`` the node or name it was asked of, ``errno``
    the kernel's answer, ``remedy`` what to do where that is certain, else empty.
    """

    def __init__(self, operation: str, device: str, number: int, message: str, *, remedy: str = "") -> None:
        super().__init__(number, message)
        self.operation = operation
        self.device = device
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.device}: {self.operation}: {self.args[1]}"
        return f"{text}: {self.remedy}" if self.remedy else text


class Unavailable(KernelError):
    """The kernel lacks what the operation needs, or the caller lacks the privilege; nothing was changed."""

    exit_code = 4
    nbd_errno = errno.EPERM
