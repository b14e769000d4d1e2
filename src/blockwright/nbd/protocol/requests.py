"""What a server may be asked in a session, and why it refuses what it refuses.

Knows: commands, their flags, ranges and sizes. Refuses to know: how any of them is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from blockwright.nbd.protocol.session import Session
from blockwright.nbd.wire import Command, CommandFlag, Error, TransmissionFlag

_FUA: Final = int(CommandFlag.FUA)
_PAYLOAD_LEN: Final = int(CommandFlag.PAYLOAD_LEN)

_FLAGS: Final[dict[int, int]] = {
    Command.READ: int(CommandFlag.DF),
    Command.WRITE: 0,
    Command.DISC: 0,
    Command.FLUSH: 0,
    Command.TRIM: 0,
    Command.CACHE: 0,
    Command.WRITE_ZEROES: int(CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO),
    Command.BLOCK_STATUS: int(CommandFlag.REQ_ONE),
    Command.RESIZE: 0,
}
"""The flags of each command beside FUA, which "Command flags" allows on all, and PAYLOAD_LEN.

Plain numbers: the complement of a ``CommandFlag`` has no bits but those that the class names.
"""

_NEEDS: Final[dict[int, TransmissionFlag]] = {
    Command.FLUSH: TransmissionFlag.SEND_FLUSH,
    Command.TRIM: TransmissionFlag.SEND_TRIM,
    Command.WRITE_ZEROES: TransmissionFlag.SEND_WRITE_ZEROES,
    Command.RESIZE: TransmissionFlag.SEND_RESIZE,
}
_WRITES: Final = frozenset({Command.WRITE, Command.TRIM, Command.WRITE_ZEROES, Command.RESIZE})
_BEYOND_END: Final[dict[int, Error]] = {Command.WRITE: Error.ENOSPC, Command.WRITE_ZEROES: Error.ENOSPC}


class Request(NamedTuple):
    """A request's header. ``length`` is that of the effect, or of the payload where it announces one."""

    flags: int
    command: int
    cookie: int
    offset: int
    length: int


class Refusal(NamedTuple):
    """Why a request is answered with an error."""

    number: Error
    text: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What a session allows: what was told to the client, as numbers."""

    size: int
    flags: TransmissionFlag
    minimum: int
    maximum: int
    structured: bool
    extended: bool
    statuses: bool

    @classmethod
    def of(cls, session: Session, *, minimum: int, maximum: int) -> Rules:
        """Return the rules of a session; ``minimum`` and ``maximum`` are the export's, told or not."""
        return cls(
            session.export.size,
            session.export.flags,
            minimum,
            maximum,
            session.structured,
            session.extended,
            bool(session.contexts),
        )


def payload_length(request: Request, *, extended: bool) -> int:
    """Return how many bytes follow the header, whatever becomes of the request.

    Only a WRITE has a payload, and with extended headers whatever says so by PAYLOAD_LEN.
    """
    if request.command == Command.WRITE or (extended and request.flags & _PAYLOAD_LEN):
        return request.length
    return 0


def refusal(rules: Rules, request: Request) -> Refusal | None:
    """Return why the request is refused, None where it is not. "Request types", "Command flags"."""
    command = request.command
    flags = request.flags
    if command not in _FLAGS:
        return Refusal(Error.EINVAL, f"command {command} is not known")
    allowed = _FLAGS[command]
    if rules.flags & TransmissionFlag.SEND_FUA:
        allowed |= _FUA
    if rules.extended and command in (Command.WRITE, Command.BLOCK_STATUS):
        allowed |= _PAYLOAD_LEN
    if flags & ~allowed:
        return Refusal(Error.EINVAL, f"flags {flags & ~allowed:#x} are not allowed on command {command}")
    if command in _WRITES and rules.flags & TransmissionFlag.READ_ONLY:
        return Refusal(Error.EPERM, "the export is read-only")
    if command in _NEEDS and not rules.flags & _NEEDS[command]:
        return Refusal(Error.EINVAL, f"command {command} was not offered")
    if command in (Command.FLUSH, Command.DISC, Command.RESIZE):
        return None
    return _refused_kind(rules, request) or _refused_range(rules, request)


def _refused_kind(rules: Rules, request: Request) -> Refusal | None:
    """Return why a command is refused for what was negotiated."""
    if request.command == Command.WRITE and rules.extended and not request.flags & _PAYLOAD_LEN:
        return Refusal(Error.EINVAL, "a write with extended headers announces its payload")
    if request.command == Command.BLOCK_STATUS:
        if not rules.statuses:
            return Refusal(Error.EINVAL, "block status: no context was selected")
        if request.flags & _PAYLOAD_LEN and not rules.flags & TransmissionFlag.BLOCK_STATUS_PAYLOAD:
            return Refusal(Error.EINVAL, "block status: a payload was not offered")
    if request.command == Command.READ and request.flags & CommandFlag.DF and not rules.structured:
        return Refusal(Error.EINVAL, "DF needs structured replies")
    if (
        request.command == Command.WRITE_ZEROES
        and request.flags & CommandFlag.FAST_ZERO
        and not rules.flags & TransmissionFlag.SEND_FAST_ZERO
    ):
        return Refusal(Error.EINVAL, "FAST_ZERO was not offered")
    return None


def _refused_range(rules: Rules, request: Request) -> Refusal | None:
    """Return why a range is refused; one of a status payload is looked at when the payload was read."""
    offset, length = request.offset, request.length
    if request.command == Command.BLOCK_STATUS and request.flags & _PAYLOAD_LEN:
        return None
    if offset + length > rules.size:
        number = _BEYOND_END.get(request.command, Error.EINVAL)
        return Refusal(number, f"range: expected to lie in {rules.size} bytes, found {length} bytes at {offset}")
    if (offset | length) & (rules.minimum - 1):
        return Refusal(
            Error.EINVAL,
            f"range: expected multiples of {rules.minimum} bytes, found {length} bytes at {offset}",
        )
    if request.command in (Command.READ, Command.WRITE) and length > rules.maximum:
        return Refusal(Error.EINVAL, f"length: expected at most {rules.maximum} bytes, found {length}")
    if not length and request.command != Command.WRITE:
        return Refusal(Error.EINVAL, "length: expected at least 1 byte, found 0")
    return None
