"""A checkpoint in a file: one versioned, checksummed record, replaced as a whole.

    0   magic "BWCHANGE"                           8   version, u16: 1
    10  flags, u16: 1 closed cleanly               12  log2 of the block, u32
    16  size of the device, u64                    24  witness, 32 bytes
    56  bytes of the name, u32                     60  number of pages, u32
    64  CRC-32C of bytes 0 to 63 and from 72 on    68  zero, u32
    72  the name; then pages, ascending: index, u64; kind, u32: 1 all changed, 2 a bitmap of 2048 bytes follows

Little-endian. A page is 16384 blocks, the lowest in the lowest bit; what no page tells has not changed.

Knows: those bytes. Refuses to know: devices.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blockwright.codec.checksum import crc32c
from blockwright.codec.record import Record, raw, u16, u32, u64
from blockwright.device.blockmap import PAGE
from blockwright.device.checkpoint import CHANGED, MAX_BLOCKS, MAX_NAME, Checkpoint, bits_of, states_of
from blockwright.device.descriptor import Path
from blockwright.device.output import OutputFile
from blockwright.errors import Corrupt, LimitExceeded, NotThisFormat, Unsupported, UsageError
from blockwright.units import MAX_SIZE, MiB, ceil_div

WITNESS: Final = 32
"""Bytes that tell whether the device is still what it was."""
MAX_FILE: Final = 16 * MiB
"""Bytes of a file: all pages of all blocks, and more."""

_MAGIC: Final = b"BWCHANGE"
_VERSION: Final = 1
_CLEAN: Final = 1
_ALL, _BITS = 1, 2
_ENTRY: Final = struct.Struct("<QI")
_BITMAP: Final = PAGE // 8


class Header(Record, size=72, byte_order="<"):
    """The first bytes of the file."""

    magic: bytes = raw(0, 8)
    version: int = u16(8)
    flags: int = u16(10)
    block_shift: int = u32(12)
    size: int = u64(16)
    witness: bytes = raw(24, WITNESS)
    name_length: int = u32(56)
    pages: int = u32(60)
    checksum: int = u32(64)


@dataclass(frozen=True, slots=True)
class Saved:
    """A file's content. ``clean`` says that the device was closed since; ``pages`` are as Checkpoint has them."""

    name: str
    size: int
    block_shift: int
    witness: bytes
    clean: bool
    pages: tuple[tuple[int, bytes | int], ...]


def load(path: Path, name: str, size: int, witness: bytes) -> Checkpoint | None:
    """Return the checkpoint in the file, all of it changed where it cannot be known; None where there is no file.

    Raises UsageError for a checkpoint of another name, FormatError for what is none.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return None
    saved = decode(data, os.fsdecode(path))
    if saved.name != name:
        raise UsageError(f"{os.fsdecode(path)}: expected the checkpoint {name!r}, found {saved.name!r}")
    checkpoint = Checkpoint(name, size, block=1 << saved.block_shift)
    if not saved.clean or saved.size != size or saved.witness != witness:
        checkpoint.mark(0, size)
        return checkpoint
    for index, states in saved.pages:
        checkpoint.put_page(index, states)
    return checkpoint


def save(path: Path, checkpoint: Checkpoint, size: int, witness: bytes, *, clean: bool) -> None:
    """Put the checkpoint of a device of ``size`` bytes into the file, durably and as a whole. Raises OSError."""
    data = encode(checkpoint, size, witness, clean=clean)
    with OutputFile(path, force=True, size=len(data)) as output:
        output.device.write(0, data)


def encode(checkpoint: Checkpoint, size: int, witness: bytes, *, clean: bool) -> bytes:
    """Return the file's bytes; only a clean one tells blocks."""
    block = checkpoint.block
    pages = [_entry(*page) for page in checkpoint.pages()] if clean else []
    name = checkpoint.name.encode()
    header = Header(
        magic=_MAGIC,
        version=_VERSION,
        flags=_CLEAN if clean else 0,
        block_shift=block.bit_length() - 1,
        size=size,
        witness=witness,
        name_length=len(name),
        pages=len(pages),
    )
    rest = b"".join([name, *pages])
    return header.replace(checksum=_checksum(header.pack(), rest)).pack() + rest


def decode(data: bytes, source: str) -> Saved:
    """Return what the bytes of a file say. Raises NotThisFormat, Unsupported, Corrupt, LimitExceeded."""
    if not data.startswith(_MAGIC):
        raise NotThisFormat("expected a checkpoint of blockwright, found another file", source=source)
    if len(data) > MAX_FILE:
        raise LimitExceeded(f"expected at most {MAX_FILE} bytes, found more", source=source)
    if len(data) < Header.SIZE:
        raise Corrupt(f"expected at least {Header.SIZE} bytes, found {len(data)}", source=source)
    header = Header.parse(data)
    if header.version != _VERSION:
        raise Unsupported(f"expected version {_VERSION}, found {header.version}", source=source, offset=8)
    rest = data[Header.SIZE :]
    found = _checksum(data[: Header.SIZE], rest)
    if found != header.checksum:
        raise Corrupt(f"checksum: expected {header.checksum:#x}, found {found:#x}", source=source, offset=64)
    _check(header, source)
    try:
        name = rest[: header.name_length].decode()
    except UnicodeDecodeError:
        raise Corrupt("name: expected UTF-8", source=source, offset=Header.SIZE) from None
    pages = tuple(_pages(header, rest[header.name_length :], source))
    return Saved(name, header.size, header.block_shift, header.witness, bool(header.flags & _CLEAN), pages)


def _check(header: Header, source: str) -> None:
    if not 0 < header.name_length <= MAX_NAME:
        raise Corrupt(f"name: expected 1 to {MAX_NAME} bytes, found {header.name_length}", source=source, offset=56)
    if header.size > MAX_SIZE:
        raise LimitExceeded(f"size: expected at most {MAX_SIZE}, found {header.size}", source=source, offset=16)
    if header.block_shift > 62 or ceil_div(header.size, 1 << header.block_shift) > MAX_BLOCKS:
        raise LimitExceeded(
            f"block: expected at most {MAX_BLOCKS} of them, found blocks of 2^{header.block_shift} bytes",
            source=source,
            offset=12,
        )


def _checksum(head: bytes, rest: bytes) -> int:
    return crc32c(head[:64] + rest)


def _entry(index: int, states: bytes | int) -> bytes:
    """Return a page's bytes."""
    if isinstance(states, int):
        return _ENTRY.pack(index, _ALL)
    return _ENTRY.pack(index, _BITS) + bits_of(states)


def _pages(header: Header, data: bytes, source: str) -> Iterator[tuple[int, bytes | int]]:
    """Yield the pages. Raises Corrupt."""
    last, position = -1, 0
    for _ in range(header.pages):
        if len(data) - position < _ENTRY.size:
            raise Corrupt("pages: the file ends within one", source=source)
        index, kind = _ENTRY.unpack_from(data, position)
        position += _ENTRY.size
        if not last < index < MAX_BLOCKS // PAGE:
            raise Corrupt(f"pages: expected one behind {last}, found {index}", source=source)
        last = index
        if kind == _ALL:
            yield index, CHANGED
        elif kind == _BITS and len(data) - position >= _BITMAP:
            yield index, states_of(data[position : position + _BITMAP])
            position += _BITMAP
        else:
            raise Corrupt(f"pages: expected kind {_ALL} or {_BITS} and its bytes, found {kind}", source=source)
    if position != len(data):
        raise Corrupt(f"pages: {len(data) - position} bytes behind the last", source=source)
