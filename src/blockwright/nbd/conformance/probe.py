"""What a check holds in its hand: connections to the server, at whichever stage it wants them.

Knows: the lawful way to each stage, and how the content of an export is saved and put back.
Refuses to know: the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from blockwright.errors import NotFound
from blockwright.nbd import wire
from blockwright.nbd.conformance.facts import Facts
from blockwright.nbd.conformance.link import Link, Moment, context_data, info_data
from blockwright.nbd.conformance.model import Failed, NotApplicable, fail
from blockwright.nbd.conformance.session import Session
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.transport import Stream, TlsStarter
from blockwright.nbd.uri import NbdUri
from blockwright.nbd.wire import Command, HandshakeFlag, InfoType, Option, ReplyType, TransmissionFlag
from blockwright.units import KiB, align_down, align_up

Dial = Callable[[], Stream]

ODD_NAME: Final = b"blockwright-conformance-no-such-export"
"""An export that no server has, unless it takes every name."""
_SCRATCH: Final = 64 * KiB
_ENTERED: Final = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES


class Lost(Exception):
    """What a check had overwritten could not be put back: the message says where, and what was there is in it."""


@dataclass(slots=True)
class Export:
    """What INFO or GO told: INFO_EXPORT's two fields, block sizes, and all records as they came."""

    size: int
    flags: int
    blocks: BlockSizes | None
    records: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class Scratch:
    """A range of the export that a check may write to; ``before`` is what it held."""

    offset: int
    before: bytes

    @property
    def length(self) -> int:
        """Bytes of the range."""
        return len(self.before)


class Probe:
    """The server under test, as one check sees it. Every connection ends with ``close``."""

    def __init__(self, uri: NbdUri, dial: Dial, start_tls: TlsStarter | None, facts: Facts, timeout_s: float) -> None:
        self.uri = uri
        self.name = uri.export.encode("utf-8", "surrogateescape")
        self.facts = facts
        self.moment = Moment(timeout_s)
        self._dial = dial
        self._start_tls = start_tls
        self._links: list[Link] = []

    def close(self) -> None:
        """Close every connection that the check opened."""
        while self._links:
            with suppress(OSError):
                self._links.pop().close()

    def connect(self) -> Link:
        """Return a new connection on which nothing was said; those before it are closed first.

        Raises OSError, NotFound.
        """
        self.close()  # a server may take one client at a time
        link = Link(self._dial(), self.moment)
        self._links.append(link)
        return link

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Within it, new connections leave those open that were there before."""
        before, self._links = self._links, []
        try:
            yield
        finally:
            self._links += before

    @contextmanager
    def still_served(self) -> Iterator[None]:
        """Fail where the server is gone altogether by now."""
        try:
            yield
        except (NotFound, ConnectionError) as error:
            raise Failed("a server that still answers", str(error)) from error

    def greeted(self, flags: int | None = None) -> Link:
        """Return a connection whose greeting was read and answered, with all flags that were offered by default."""
        link = self.connect()
        offered = link.receive_greeting()
        link.send_flags(offered & _ENTERED if flags is None else flags)
        return link

    def haggling(self, flags: int | None = None) -> Link:
        """Return a connection where options are expected; inside TLS where the address says so."""
        link = self.greeted(flags)
        return self.secure(link) if self.uri.tls else link

    def secure(self, link: Link) -> Link:
        """Put TLS around a connection and return it."""
        link.ask(Option.STARTTLS).expect(ReplyType.ACK)
        self.begin_tls(link)
        return link

    def begin_tls(self, link: Link) -> None:
        """Do the TLS handshake on a connection where STARTTLS was acknowledged; fail where it does not succeed."""
        assert self._start_tls is not None, "who gives an address with TLS gives a way to start it"
        left = self.moment.remaining_s()
        link.stream.set_timeout(left, left)
        link.stream, _ = self._start_tls(link.stream, self.uri.expected_host)

    # -- the export ----------------------------------------------------------------------------------------------

    def describe(self, link: Link, option: Option, *infos: int, name: bytes | None = None) -> Export:
        """Ask INFO or GO, which must succeed, and return what was told."""
        answer = link.ask(option, info_data(self.name if name is None else name, infos)).expect(ReplyType.ACK)
        return read_export(answer.of(ReplyType.INFO))

    def enter(self, mode: str = "simple", *contexts: str, infos: tuple[int, ...] = (InfoType.BLOCK_SIZE,)) -> Session:
        """Return a new session in transmission, negotiated the usual way."""
        return self.go(self.haggling(), mode, *contexts, infos=infos)

    def go(
        self, link: Link, mode: str = "simple", *contexts: str, infos: tuple[int, ...] = (InfoType.BLOCK_SIZE,)
    ) -> Session:
        """Negotiate ``mode`` and ``contexts`` on a connection and enter the export, by EXPORT_NAME without GO."""
        if mode == "structured":
            link.ask(Option.STRUCTURED_REPLY).expect(ReplyType.ACK)
        elif mode == "extended":
            link.ask(Option.EXTENDED_HEADERS).expect(ReplyType.ACK)
        selected = self.select(link, *contexts) if contexts else {}
        if not self.facts.info:
            link.send(wire.OPTION.pack(wire.OPTION_MAGIC, Option.EXPORT_NAME, len(self.name)) + self.name)
            size, flags = wire.EXPORT_NAME_REPLY.unpack(link.receive(wire.EXPORT_NAME_REPLY.size))
            if not link.handshake_flags & HandshakeFlag.NO_ZEROES:
                link.receive(wire.EXPORT_NAME_PADDING)
            return Session(link, mode, size, flags, None, selected)
        export = self.describe(link, Option.GO, *infos)
        return Session(link, mode, export.size, export.flags, export.blocks, selected)

    def select(self, link: Link, *contexts: str) -> dict[int, str]:
        """Select metadata contexts; return their names by id."""
        answer = link.ask(Option.SET_META_CONTEXT, context_data(self.name, *(each.encode() for each in contexts)))
        return read_contexts(answer.expect(ReplyType.ACK).of(ReplyType.META_CONTEXT))

    def blocks_of(self, length: int, *, least: int = 1) -> int:
        """Return ``length`` in whole blocks, up to the export's size and the longest request.

        NotApplicable where ``least`` do not fit.
        """
        blocks = self.facts.blocks
        block, most = (blocks.minimum, max(blocks.maximum, blocks.minimum)) if blocks else (1, length)
        fitting = align_down(min(align_up(length, block), self.facts.size, most), block)
        if fitting < max(least, 1):
            raise NotApplicable(f"needs an export of {max(least, block)} bytes, which has {self.facts.size}")
        return fitting

    def past_end(self) -> tuple[int, int]:
        """Return offset and length of a range whose first half lies in the export, and the second behind it."""
        block = self.blocks_of(512)
        return align_down(self.facts.size, self.blocks_of(1)) - block, 2 * block

    @contextmanager
    def scratch(self, length: int = _SCRATCH) -> Iterator[Scratch]:
        """Give a range in the middle of the export; what it held is there again afterwards.

        Raises Lost where it could not be put back.
        """
        length = self.blocks_of(length)
        block = self.facts.blocks.minimum if self.facts.blocks else 1
        middle = (self.facts.size - length) // 2
        offset = align_down(middle, max(4 * KiB, block)) if middle >= 4 * KiB else align_down(middle, block)
        with self.kept(offset, length) as scratch:
            yield scratch

    @contextmanager
    def kept(self, offset: int, length: int) -> Iterator[Scratch]:
        """Give a range of the export, and put back what it held."""
        scratch = Scratch(offset, self.enter().read(offset, length))
        try:
            yield scratch
        finally:
            self._put_back(scratch)

    def _put_back(self, scratch: Scratch) -> None:
        """Write back what a range held where it holds something else, on a connection and in a time of its own."""
        self.moment = Moment(self.moment.seconds)
        try:
            session = self.enter()
            if session.read(scratch.offset, scratch.length) == scratch.before:
                return
            session.write(scratch.offset, scratch.before).expect(0)
            if TransmissionFlag.SEND_FLUSH in session.flags:
                session.ask(Command.FLUSH).expect(0)
            if session.read(scratch.offset, scratch.length) != scratch.before:
                fail("what was there before", "something else")
        except (Failed, OSError) as error:
            place = f"{scratch.length} bytes at {scratch.offset}"
            raise Lost(
                f"{place} could not be put back as they were: {str(error) or 'the server did not answer'}"
            ) from error


def read_export(records: list[bytes]) -> Export:
    """Return what INFO's records tell; fail where the one that is mandatory is missing or one is malformed."""
    export: Export | None = None
    blocks = None
    for record in records:
        if len(record) < wire.U16.size:
            fail("an information record of at least 2 bytes", f"one of {len(record)}")
        kind = wire.U16.unpack_from(record)[0]
        if kind == InfoType.EXPORT:
            if len(record) != wire.INFO_EXPORT.size:
                fail(f"NBD_INFO_EXPORT of {wire.INFO_EXPORT.size} bytes", f"one of {len(record)}")
            _, size, flags = wire.INFO_EXPORT.unpack(record)
            export = Export(size, flags, None)
        elif kind == InfoType.BLOCK_SIZE:
            if len(record) != wire.INFO_BLOCK_SIZE.size:
                fail(f"NBD_INFO_BLOCK_SIZE of {wire.INFO_BLOCK_SIZE.size} bytes", f"one of {len(record)}")
            _, minimum, preferred, maximum = wire.INFO_BLOCK_SIZE.unpack(record)
            blocks = BlockSizes(minimum, preferred, maximum)
    if export is None:
        fail("NBD_INFO_EXPORT before the ACK", "none")
    export.blocks, export.records = blocks, records
    return export


def read_contexts(records: list[bytes]) -> dict[int, str]:
    """Return contexts by id; fail where a record has no id or ids repeat."""
    found: dict[int, str] = {}
    for record in records:
        if len(record) < wire.U32.size:
            fail("a metadata context of at least 4 bytes", f"one of {len(record)}")
        number = wire.U32.unpack_from(record)[0]
        if number in found:
            fail("a unique id for each context", f"{number} twice")
        found[number] = record[wire.U32.size :].decode("utf-8", "replace")
    return found
