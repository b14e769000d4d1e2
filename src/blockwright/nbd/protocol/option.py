"""One option and its answers, as a client sees them: the exchange that every part of its handshake is made of.

Knows: how options and their replies are framed, and how much a server may say. Refuses to know: which options
are asked in which order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from blockwright.errors import RemoteProtocolError
from blockwright.nbd.protocol.steps import Handshake, Send, receive
from blockwright.nbd.wire import (
    ERROR_BIT,
    MAX_STRING,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    U16,
    U32,
    Option,
    ReplyType,
)
from blockwright.units import KiB, MiB

MAX_REPLY: Final = 64 * KiB
"""Bytes of one reply: a name and a description of MAX_STRING each, and room for what is not known yet."""
MAX_ANSWER: Final = 16 * MiB
"""Bytes of all replies to one option."""
MAX_REPLIES: Final = 1 << 16
"""Replies to one option: exports of a list."""


class Answer(NamedTuple):
    """All replies to one option: the data of those in front, and the error that ended it (0 where none did)."""

    replies: list[bytes]
    error: int = 0
    text: str = ""


def ask(option: Option, data: bytes = b"", *, kind: ReplyType | None = None) -> Handshake[Answer]:
    """Send an option and return its answer, in which all replies before the last are of ``kind``.

    Raises RemoteProtocolError for replies to another option, of another kind, and over the limits.
    """
    yield Send(OPTION.pack(OPTION_MAGIC, option, len(data)) + data)
    replies: list[bytes] = []
    said = 0
    while True:
        magic, echoed, reply, length = OPTION_REPLY.unpack((yield from receive(OPTION_REPLY.size)))
        if magic != OPTION_REPLY_MAGIC:
            raise RemoteProtocolError(
                f"option {option.name}: expected {OPTION_REPLY_MAGIC:#x}, found {magic:#x} (Option haggling)"
            )
        if echoed != option:
            raise RemoteProtocolError(f"option {option.name}: expected its answer, found one to option {echoed}")
        said += length + OPTION_REPLY.size
        if length > MAX_REPLY or said > MAX_ANSWER or len(replies) > MAX_REPLIES:
            raise RemoteProtocolError(
                f"option {option.name}: expected at most {MAX_REPLY} bytes in a reply, {MAX_ANSWER} and "
                f"{MAX_REPLIES} replies in all, found {length} bytes, {said} and {len(replies) + 1}"
            )
        if reply == ReplyType.ACK:
            if length:
                raise RemoteProtocolError(f"option {option.name}: expected an empty ACK, found {length} bytes in it")
            return Answer(replies)
        body = (yield from receive(length)) if length else b""
        if reply & ERROR_BIT:
            return Answer(replies, reply, body[:MAX_STRING].decode("utf-8", "replace"))
        if reply != kind:
            raise RemoteProtocolError(
                f"option {option.name}: found a reply of type {reply}, which does not answer it"
            )
        replies.append(body)


def error_name(reply: int) -> str:
    """Return what an error reply is called in the protocol's document, for messages."""
    try:
        return ReplyType(reply).name
    except ValueError:
        return f"error {reply - ERROR_BIT}"


def packed_string(text: str) -> bytes:
    """Return a string behind its length."""
    data = text.encode("utf-8", "surrogateescape")
    return U32.pack(len(data)) + data


def packed_infos(name: str, infos: Sequence[int]) -> bytes:
    """Return the data of INFO and GO."""
    return packed_string(name) + U16.pack(len(infos)) + b"".join(map(U16.pack, infos))


def packed_queries(name: str, queries: Sequence[str]) -> bytes:
    """Return the data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    return packed_string(name) + U32.pack(len(queries)) + b"".join(map(packed_string, queries))


def text_of(data: bytes, what: str) -> str:
    """Return a server's string; bytes that are not UTF-8 survive as surrogates. Raises RemoteProtocolError."""
    if len(data) > MAX_STRING:
        raise RemoteProtocolError(f"{what}: expected at most {MAX_STRING} bytes, found {len(data)} (Values)")
    if b"\0" in data:
        raise RemoteProtocolError(f"{what}: expected no NUL, found one (Values)")
    return data.decode("utf-8", "surrogateescape")
