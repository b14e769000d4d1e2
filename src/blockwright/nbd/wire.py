"""NBD's bytes: magics, numbers and records, as doc/proto.md of the NBD project has them.

Everything on the wire is big-endian. Extended headers follow the branch extension-ext-header, RESIZE the branch
extension-resize; all else is in the document proper.

Knows: what each number is called and where each field lies. Refuses to know: who may send what and when
(``protocol``), and sockets.
"""

from __future__ import annotations

import errno
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

PORT: Final = 10809
"""The port that IANA assigned."""

MAX_STRING: Final = 4096
"""Bytes of a name, description or query: "Values", strings."""

# -- handshake -------------------------------------------------------------------------------------------------

INIT_MAGIC: Final = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC: Final = 0x49484156454F5054  # "IHAVEOPT"
OLDSTYLE_MAGIC: Final = 0x00420281861253
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9

GREETING: Final = Struct(">QQH")
"""INIT_MAGIC, OPTION_MAGIC, HandshakeFlag."""
OLDSTYLE: Final = Struct(">QQQI124x")
"""INIT_MAGIC, OLDSTYLE_MAGIC, size, flags."""
CLIENT_FLAGS: Final = Struct(">I")
OPTION: Final = Struct(">QII")
"""OPTION_MAGIC, Option, length; data follows."""
OPTION_REPLY: Final = Struct(">QIII")
"""OPTION_REPLY_MAGIC, Option, ReplyType, length; data follows."""
EXPORT_NAME_REPLY: Final = Struct(">QH")
"""size, TransmissionFlag; EXPORT_NAME_PADDING zeros follow unless both sides said NO_ZEROES."""
EXPORT_NAME_PADDING: Final = 124

U16: Final = Struct(">H")
U32: Final = Struct(">I")
U64: Final = Struct(">Q")
INFO_EXPORT: Final = Struct(">HQH")
"""InfoType.EXPORT, size, TransmissionFlag."""
INFO_BLOCK_SIZE: Final = Struct(">HIII")
"""InfoType.BLOCK_SIZE, minimum, preferred, maximum payload."""


class HandshakeFlag(IntFlag):
    """The server's flags in the greeting; the client answers with the same bits."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class Option(IntEnum):
    """What a client may ask for during the handshake."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    PEEK_EXPORT = 4
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


ERROR_BIT: Final = 1 << 31
"""Set in each ReplyType that refuses."""


class ReplyType(IntEnum):
    """How a server answers an option."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = ERROR_BIT + 1
    ERR_POLICY = ERROR_BIT + 2
    ERR_INVALID = ERROR_BIT + 3
    ERR_PLATFORM = ERROR_BIT + 4
    ERR_TLS_REQD = ERROR_BIT + 5
    ERR_UNKNOWN = ERROR_BIT + 6
    ERR_SHUTDOWN = ERROR_BIT + 7
    ERR_BLOCK_SIZE_REQD = ERROR_BIT + 8
    ERR_TOO_BIG = ERROR_BIT + 9
    ERR_EXT_HEADER_REQD = ERROR_BIT + 10


class InfoType(IntEnum):
    """What INFO and GO tell of an export."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class TransmissionFlag(IntFlag):
    """What an export can do."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_RESIZE = 1 << 9
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11
    BLOCK_STATUS_PAYLOAD = 1 << 12


# -- transmission ----------------------------------------------------------------------------------------------

REQUEST_MAGIC: Final = 0x25609513
EXTENDED_REQUEST_MAGIC: Final = 0x21E41C71
SIMPLE_REPLY_MAGIC: Final = 0x67446698
CHUNK_MAGIC: Final = 0x668E33EF
EXTENDED_CHUNK_MAGIC: Final = 0x6E8A278C

REQUEST: Final = Struct(">IHHQQI")
"""REQUEST_MAGIC, CommandFlag, Command, cookie, offset, length."""
EXTENDED_REQUEST: Final = Struct(">IHHQQQ")
"""EXTENDED_REQUEST_MAGIC, CommandFlag, Command, cookie, offset, length of the payload or of the effect."""
SIMPLE_REPLY: Final = Struct(">IIQ")
"""SIMPLE_REPLY_MAGIC, error, cookie; a read's data follows where the error is 0."""
CHUNK: Final = Struct(">IHHQI")
"""CHUNK_MAGIC, ChunkFlag, ChunkType, cookie, length of the payload."""
EXTENDED_CHUNK: Final = Struct(">IHHQQQ")
"""EXTENDED_CHUNK_MAGIC, ChunkFlag, ChunkType, cookie, offset of the request, length of the payload."""

DATA_OFFSET: Final = U64
"""In front of the data of OFFSET_DATA."""
HOLE: Final = Struct(">QI")
"""The payload of OFFSET_HOLE: offset, length."""
STATUS_ENTRY: Final = Struct(">II")
"""An extent of BLOCK_STATUS: length, flags."""
EXTENDED_STATUS_HEAD: Final = Struct(">II")
"""In front of the extents of BLOCK_STATUS_EXT: context, count."""
EXTENDED_STATUS_ENTRY: Final = Struct(">QQ")
"""An extent of BLOCK_STATUS_EXT: length, flags."""
ERROR_HEAD: Final = Struct(">IH")
"""The beginning of an error chunk: error, length of the text."""


class Command(IntEnum):
    """What a client asks for during transmission."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7
    RESIZE = 8


class CommandFlag(IntFlag):
    """How a client wants it done."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4
    PAYLOAD_LEN = 1 << 5


class ChunkFlag(IntFlag):
    """DONE marks the last chunk of a reply."""

    DONE = 1 << 0


CHUNK_ERROR_BIT: Final = 1 << 15
"""Set in each ChunkType that tells of an error."""


class ChunkType(IntEnum):
    """What a chunk of a structured reply holds."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    BLOCK_STATUS_EXT = 6
    ERROR = CHUNK_ERROR_BIT + 1
    ERROR_OFFSET = CHUNK_ERROR_BIT + 2


BASE_ALLOCATION: Final = "base:allocation"
"""The context whose flags are those of ``device.extent``: 1 for a hole, 2 for zeros."""
CHANGED_SINCE: Final = "blockwright:changed-since:"
"""What contexts of ours begin with, before a checkpoint's name: 1 for what may have changed since, else 0."""

MAX_EXTENTS: Final = 1 << 20
"""Extents of one BLOCK_STATUS reply that a client must take."""

# -- errors ----------------------------------------------------------------------------------------------------


class Error(IntEnum):
    """The error numbers of the wire, which are Linux's; the host's own may differ."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


_TO_WIRE: Final[dict[int, Error]] = {
    errno.EPERM: Error.EPERM,
    errno.EACCES: Error.EPERM,
    errno.EROFS: Error.EPERM,
    errno.EIO: Error.EIO,
    errno.ENOMEM: Error.ENOMEM,
    errno.EINVAL: Error.EINVAL,
    errno.ENOSPC: Error.ENOSPC,
    errno.EDQUOT: Error.ENOSPC,
    errno.EFBIG: Error.ENOSPC,
    errno.EOVERFLOW: Error.EOVERFLOW,
    errno.ENOTSUP: Error.ENOTSUP,
    errno.EOPNOTSUPP: Error.ENOTSUP,
    errno.ESHUTDOWN: Error.ESHUTDOWN,
}
_FROM_WIRE: Final[dict[int, int]] = {number: getattr(errno, number.name) for number in Error}


def to_wire(number: int) -> Error:
    """Return the wire's number for an errno of the host; what the protocol has no name for is EIO."""
    return _TO_WIRE.get(number, Error.EIO)


def from_wire(number: int) -> int:
    """Return the host's errno for the wire's number; an unknown one is EINVAL, as "Error values" says."""
    return _FROM_WIRE.get(number, errno.EINVAL) if number else 0


def is_string(text: str) -> bool:
    """Whether the protocol can carry ``text``: UTF-8 of at most MAX_STRING bytes, without NUL ("Values")."""
    try:
        return len(text.encode()) <= MAX_STRING and "\0" not in text
    except UnicodeEncodeError:  # bytes of a command line that were none
        return False
