"""Fuzz target: any bytes as what a client of NBD sends, from the first byte on or behind a sound handshake."""

import re
import struct
import threading
from dataclasses import replace

from blockwright.device.base import BlockDevice, Waits
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.server.catalogue import Catalogue
from blockwright.nbd.server.connection import Connection, Options
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.limits import ByteBudget, Limits
from blockwright.nbd.server.peer import Peer
from blockwright.nbd.server.processes import Processes
from tests.support.memorystream import MemoryStream

MAX_BYTES = 1 << 16
SIZE = 1 << 20
LIMITS = Limits(request_s=5, handshake_s=5, request_bytes=1 << 18)
BUG = re.compile(r"internal error|^[A-Z]\w*(Error|Exception)?: ")
GO = struct.pack(">QII", 0x49484156454F5054, 7, 6) + b"\0\0\0\0\0\0"
META = b"\0\0\0\0\0\0\0\1\0\0\0\x0fbase:allocation"
RECORD = struct.Struct(">HBQQI")
"""A request as the fuzzer says it: flags, command, cookie, offset, length."""


class Kind(ForwardingDevice):
    """Memory that claims to wait, to be slow, to be a plain file: every way that a server serves a device."""

    def __init__(self, inner: BlockDevice, **traits: object) -> None:
        super().__init__(inner, traits=replace(inner.traits, **traits))


def device(number: int) -> BlockDevice:
    """Return one of the kinds of devices that are served differently."""
    memory = MemoryDevice(SIZE)
    memory.write(0, bytes(range(256)) * 256)
    memory.write(SIZE - 4096, b"end" * 1365)
    kinds = [
        {},
        {"known_extents": False},
        {"waits": Waits.SOMETIMES, "known_extents": False},
        {"waits": Waits.ALWAYS, "known_extents": False},
        {"parallelism": 1, "waits": Waits.ALWAYS},
        {"minimum_block": 512},
        {"writable": False},
    ]
    return Kind(memory, **kinds[number % len(kinds)])


def fuzz_one(data: bytes) -> None:
    """Lets no exception but the protocol's out, and holds every reply to its frame."""
    if len(data) < 3:
        return
    how, kind, piece = data[0], data[1], data[2] or 1 << 30
    rest = data[3:MAX_BYTES]
    mode, framing = how % 3, how // 3 % 4
    head = struct.pack(">I", 3)
    if mode:
        head += [b"", option(8), option(11), option(8)][framing]
        head += option(10, META) if framing == 3 or (framing == 2 and how & 128) else b""
        head += GO
    if mode == 2:
        rest = requests(rest, extended=framing == 2)
    stream = MemoryStream(head * bool(mode) + rest, piece=piece)
    serve(stream, device(kind), resizable=bool(how & 64))
    if mode and framing:
        check_chunks(stream.sent, extended=framing == 2)


def option(number: int, data: bytes = b"") -> bytes:
    return struct.pack(">QII", 0x49484156454F5054, number, len(data)) + data


def requests(data: bytes, *, extended: bool) -> bytes:
    """Return requests that have the right magic and, where that is short, a payload of the right length."""
    made = bytearray()
    for said, command, cookie, place, size in RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]):
        sane = not said & 1 << 14
        offset, length = (place % (SIZE + 4096), size % (SIZE // 2)) if sane else (place, size)
        flags = said & (0x3F if said & 1 << 15 else 0x3FFF)
        payload = b""
        if command % 10 == 1 or (extended and flags & 32):
            payload = bytes(length % 70_000)
            length = len(payload)
        if extended:
            made += struct.pack(">IHHQQQ", 0x21E41C71, flags, command % 10, cookie, offset, length) + payload
        else:
            made += struct.pack(">IHHQQI", 0x25609513, flags, command % 10, cookie, offset, length) + payload
    return bytes(made)


def serve(stream: MemoryStream, served: BlockDevice, *, resizable: bool) -> None:
    """Serve the stream to its end; a failure that is not the client's raises AssertionError."""
    bugs: list[str] = []

    def log(event: str, /, **fields: object) -> None:
        if BUG.search(str(fields.get("reason", ""))):
            bugs.append(f"{event}: {fields}")

    blocks = BlockSizes(served.traits.minimum_block, 4096, 1 << 18)
    catalogue = Catalogue([Export("", served, blocks=blocks, resizable=resizable)])
    options = Options(limits=LIMITS, log=log)
    budget = ByteBudget(1 << 24)
    connection = Connection(stream, Peer("pipe"), catalogue, options, budget, threading.Event(), Processes(0, budget))
    connection.serve()
    catalogue.close()
    if bugs:
        raise AssertionError(bugs[0])
    if not stream.closed:
        raise AssertionError("the stream is open")


def check_chunks(sent: bytes, *, extended: bool) -> None:
    """Walk what was sent behind the handshake: whole chunks of known kinds, and nothing else."""
    position = 18
    while sent[position : position + 8] == b"\x00\x03\xe8\x89\x04\x55\x65\xa9":
        position += 20 + struct.unpack_from(">I", sent, position + 16)[0]
    magic, head = (0x6E8A278C, 32) if extended else (0x668E33EF, 20)
    while position < len(sent):
        found, flags, kind = struct.unpack_from(">IHH", sent, position)
        if found != magic or flags > 1 or kind not in (0, 1, 2, 5, 6, 0x8001, 0x8002):
            raise AssertionError(f"no chunk at {position}: {sent[position : position + 32].hex()}")
        (length,) = struct.unpack_from(">Q" if extended else ">I", sent, position + head - (8 if extended else 4))
        position += head + length
    if position != len(sent):
        raise AssertionError("a chunk ends early")


def seeds() -> list[bytes]:
    """Return inputs that reach every command in every framing."""
    found = [struct.pack(">BBBI", 0, 0, 0, 3) + option(3) + option(6, b"\0\0\0\0\0\1\0\3") + GO]
    for how in range(1, 12):
        body = b"".join(
            RECORD.pack(flags, command, number, number * 4096, 70_000 >> number % 5)
            for number, (command, flags) in enumerate((c, f) for c in range(10) for f in (0, 1, 4, 8, 32))
        )
        found += [bytes([how | 64, kind, 0]) + body for kind in range(7)]
    return found
