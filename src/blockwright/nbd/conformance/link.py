"""One connection, byte by byte: what a probe sends may be illegal, and what it receives is not believed.

Knows: how to send, receive and wait for the end, all before one moment. Refuses to know: what the bytes mean,
beyond the greeting and the framing of options.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from blockwright.nbd import wire
from blockwright.nbd.conformance.model import Ended, Failed, fail
from blockwright.nbd.transport import Stream
from blockwright.units import KiB

MAX_OPTION_REPLY: Final = 64 * KiB
"""Bytes of one option reply: a name, a description and change."""
MAX_OPTION_REPLIES: Final = 16_384
"""Replies to one option: exports or contexts."""
_AT_ONCE: Final = 64 * KiB


class Moment:
    """The end of the time that a check has."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining_s(self) -> float:
        """Return the seconds left. Raises TimeoutError where there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(frozen=True, slots=True)
class OptionReply:
    """One reply: its type, which may be none that is known, and its data."""

    kind: int
    data: bytes

    @property
    def name(self) -> str:
        """Return the type for people, with the text of an error."""
        text = self.data[:200].decode("utf-8", "replace") if self.kind & wire.ERROR_BIT and self.data else ""
        return reply_name(self.kind) + (f" ({text})" if text else "")


@dataclass(frozen=True, slots=True)
class Answer:
    """All replies to one option; the last is the final one."""

    replies: tuple[OptionReply, ...]

    @property
    def final(self) -> OptionReply:
        """The ACK or the error that ended it."""
        return self.replies[-1]

    @property
    def acknowledged(self) -> bool:
        """Whether the option was taken."""
        return self.final.kind == wire.ReplyType.ACK

    def of(self, kind: wire.ReplyType) -> list[bytes]:
        """Return the data of each reply of a type."""
        return [each.data for each in self.replies if each.kind == kind]

    def expect(self, *kinds: wire.ReplyType) -> Answer:
        """Return itself where the final reply is one of ``kinds``; fail otherwise."""
        if self.final.kind not in kinds:
            fail(" or ".join(reply_name(each) for each in kinds), self.final.name)
        return self

    def expect_error(self) -> Answer:
        """Return itself where the option was refused; fail otherwise."""
        if not self.final.kind & wire.ERROR_BIT:
            fail("an error", self.final.name)
        return self


def reply_name(kind: int) -> str:
    """Return the name of an option reply's type."""
    try:
        return f"NBD_REP_{wire.ReplyType(kind).name}"
    except ValueError:
        return f"a reply of type {kind:#x}"


class Link:
    """A connection to the server under test. What takes longer than its moment raises TimeoutError."""

    def __init__(self, stream: Stream, moment: Moment) -> None:
        self.stream = stream
        self.moment = moment
        self.handshake_flags = 0

    def close(self) -> None:
        """Close the connection without a word."""
        self.stream.close()

    def send(self, data: bytes) -> None:
        """Send all of ``data``. Raises Ended where the server is gone."""
        left = self.moment.remaining_s()
        self.stream.set_timeout(left, left)
        try:
            self.stream.send(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise Ended("the server to read on") from error

    def drip(self, data: bytes) -> None:
        """Send ``data`` in as many segments as it has bytes."""
        for position in range(len(data)):
            self.send(data[position : position + 1])

    def receive(self, length: int) -> bytes:
        """Return exactly ``length`` bytes. Raises Ended where the server closes before."""
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = self._receive_some(view[:_AT_ONCE])
            if not count:
                missing = f"the connection closed after {length - len(view)} of {length} bytes"
                raise Ended("an answer", "the connection closed" if len(view) == length else missing)
            view = view[count:]
        return bytes(data)

    def _receive_some(self, view: memoryview) -> int:
        left = self.moment.remaining_s()
        self.stream.set_timeout(left, left)
        try:
            return self.stream.receive_into(view)
        except TimeoutError:
            raise
        except OSError:  # a reset is an end too
            return 0

    def expect_end(self, after: str) -> None:
        """Return when the server has closed the connection; fail where it sends anything before.

        ``after`` says what it should have closed for.
        """
        buffer = bytearray(16)
        try:
            count = self._receive_some(memoryview(buffer))
        except TimeoutError:
            fail(f"the connection closed after {after}", f"it open {self.moment.seconds:g} s later")
        if count:
            fail(f"the connection closed after {after}", f"an answer that begins {buffer[:count].hex()}")

    def drain(self) -> tuple[bytes, bool]:
        """Return what the server still sends, 64 KiB at most, and whether it closed before the moment was over."""
        found = bytearray()
        buffer = bytearray(_AT_ONCE)
        try:
            while len(found) < _AT_ONCE:
                count = self._receive_some(memoryview(buffer))
                if not count:
                    return bytes(found), True
                found += buffer[:count]
        except TimeoutError:
            pass
        return bytes(found), False

    # -- the handshake -----------------------------------------------------------------------------------------

    def receive_greeting(self) -> int:
        """Return the handshake flags of a newstyle greeting, and keep them; fail for any other."""
        first, second, self.handshake_flags = wire.GREETING.unpack(self.receive(wire.GREETING.size))
        if first != wire.INIT_MAGIC:
            fail("NBDMAGIC", f"{first:#018x}")
        if second == wire.OLDSTYLE_MAGIC:
            fail("the newstyle negotiation", "the oldstyle one")
        if second != wire.OPTION_MAGIC:
            fail("IHAVEOPT", f"{second:#018x}")
        return self.handshake_flags

    def send_flags(self, flags: int) -> None:
        """Send the client's flags."""
        self.send(wire.CLIENT_FLAGS.pack(flags))

    def ask(self, option: int, data: bytes = b"") -> Answer:
        """Send an option and return its answer."""
        self.send(option_bytes(option, data))
        return self.answer(option)

    def answer(self, option: int) -> Answer:
        """Return the replies up to the final one. Fails where they are not framed as replies to ``option``."""
        replies: list[OptionReply] = []
        while len(replies) < MAX_OPTION_REPLIES:
            magic, echoed, kind, length = wire.OPTION_REPLY.unpack(self.receive(wire.OPTION_REPLY.size))
            if magic != wire.OPTION_REPLY_MAGIC:
                fail(f"an option reply ({wire.OPTION_REPLY_MAGIC:#x})", f"{magic:#x}")
            if echoed != option:
                fail(f"a reply to option {option}", f"one to option {echoed}")
            if length > MAX_OPTION_REPLY:
                fail(f"a reply of at most {MAX_OPTION_REPLY} bytes", f"one of {length}")
            replies.append(OptionReply(kind, self.receive(length)))
            if kind == wire.ReplyType.ACK or kind & wire.ERROR_BIT:
                return Answer(tuple(replies))
        raise Failed(f"at most {MAX_OPTION_REPLIES} replies", "more")


def option_bytes(
    option: int, data: bytes = b"", *, length: int | None = None, magic: int = wire.OPTION_MAGIC
) -> bytes:
    """Return an option as it is sent; ``length`` may lie."""
    return wire.OPTION.pack(magic, option, len(data) if length is None else length) + data


def info_data(name: bytes, infos: Iterable[int] = ()) -> bytes:
    """Return the data of INFO and GO."""
    asked = list(infos)
    words = b"".join(wire.U16.pack(each) for each in asked)
    return wire.U32.pack(len(name)) + name + wire.U16.pack(len(asked)) + words


def context_data(name: bytes, *queries: bytes) -> bytes:
    """Return the data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    texts = b"".join(wire.U32.pack(len(each)) + each for each in queries)
    return wire.U32.pack(len(name)) + name + wire.U32.pack(len(queries)) + texts
