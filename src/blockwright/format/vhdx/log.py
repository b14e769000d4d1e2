"""The log of a VHDX image: entries as bytes, which of them are in force, and what they say.

Knows: entries, descriptors, sequences. Refuses to know: files, and when something is logged. Source: [MS-VHDX] 2.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from blockwright.codec.checksum import crc32c
from blockwright.codec.record import Record, raw, u32, u64
from blockwright.errors import Corrupt, LimitExceeded
from blockwright.format.vhdx.layout import SPEC, sealed
from blockwright.units import GiB, KiB, MiB, align_up

SECTOR: Final = 4 * KiB
MAX_ZEROED: Final = GiB
"""Bytes that all entries together may say are zeros."""
MAX_SUMMED: Final = 4
"""How many times the log's length is summed in the search for entries."""
MAX_HEADS: Final = 64
"""Entries that are tried as the last one."""


class EntryHeader(Record, size=64):
    """The beginning of an entry."""

    signature: bytes = raw(0, 4)
    checksum: int = u32(4)
    length: int = u32(8)
    tail: int = u32(12)
    sequence: int = u64(16)
    count: int = u32(24)
    guid: bytes = raw(32, 16)
    flushed_size: int = u64(48)
    last_size: int = u64(56)


class Descriptor(Record, size=32):
    """What an entry says of some bytes: data (``trailing``, ``leading``), or zeros (``leading`` has the length)."""

    signature: bytes = raw(0, 4)
    trailing: bytes = raw(4, 4)
    leading: bytes = raw(8, 8)
    offset: int = u64(16)
    sequence: int = u64(24)


class Entry(NamedTuple):
    """An entry that holds, at ``position`` of the log."""

    position: int
    header: EntryHeader
    data: bytes


class Replay(NamedTuple):
    """What the log says: sectors of the file by number, None for zeros; the sizes the file has to have had and has.

    ``end`` is where in the log the next entry goes, ``sequence`` its number.
    """

    sectors: Mapping[int, bytes | None]
    flushed_size: int
    last_size: int
    end: int
    sequence: int


def pack_entry(
    sectors: Sequence[tuple[int, bytes]], *, position: int, sequence: int, guid: bytes, file_size: int
) -> bytes:
    """Return an entry that is its own tail and says that sectors, by offset, have these bytes."""
    area = align_up(EntryHeader.SIZE + Descriptor.SIZE * len(sectors), SECTOR)
    header = EntryHeader(
        signature=b"loge",
        length=area + SECTOR * len(sectors),
        tail=position,
        sequence=sequence,
        count=len(sectors),
        guid=guid,
        flushed_size=file_size,
        last_size=file_size,
    )
    parts = [header.pack()]
    high, low = (sequence >> 32).to_bytes(4, "little"), (sequence & 0xFFFF_FFFF).to_bytes(4, "little")
    for offset, data in sectors:
        parts.append(
            Descriptor(
                signature=b"desc", trailing=data[-4:], leading=data[:8], offset=offset, sequence=sequence
            ).pack()
        )
    described = b"".join(parts).ljust(area, b"\0")
    return sealed(described + b"".join(b"data" + high + data[8:-4] + low for _, data in sectors))


def find_replay(log: bytes, guid: bytes) -> Replay | None:
    """Return what the entries in force say, None where the log has none of ``guid``.

    Those are the ones of the whole sequence that ends with the highest number. Raises Corrupt, LimitExceeded.
    """
    found = _find_entries(log, guid)
    heads = sorted(found.values(), key=lambda entry: -entry.header.sequence)
    for head in heads[:MAX_HEADS]:
        chain = _chain(found, head, len(log))
        if chain is not None:
            return _replay(chain, len(log))
    return None


def _find_entries(log: bytes, guid: bytes) -> dict[int, Entry]:
    found, position, summed = {}, 0, 0
    while position < len(log):
        entry = None
        if log.startswith(b"loge", position):
            header = EntryHeader.parse(log, position)
            if _plausible(header, len(log)) and header.guid == guid:
                summed += header.length
                if summed > MAX_SUMMED * len(log):
                    raise LimitExceeded("vhdx log: expected entries apart, found too many over one another")
                entry = _entry(log, position, header)
        if entry is None:
            position += SECTOR
        else:
            found[position] = entry
            position += entry.header.length
    return found


def _plausible(header: EntryHeader, length: int) -> bool:
    area = align_up(EntryHeader.SIZE + Descriptor.SIZE * header.count, SECTOR)
    return (
        header.length % SECTOR == 0
        and area <= header.length <= length
        and header.tail % SECTOR == 0
        and header.tail < length
        and header.sequence > 0
    )


def _entry(log: bytes, position: int, header: EntryHeader) -> Entry | None:
    """Return the entry at a position, which may go on at the log's beginning, None where it does not hold."""
    data = log[position : position + header.length]
    data += log[: header.length - len(data)]
    if crc32c(data[:4] + bytes(4) + data[8:]) != header.checksum:
        return None
    return Entry(position, header, data)


def _chain(found: Mapping[int, Entry], head: Entry, length: int) -> list[Entry] | None:
    """Return the entries from the head's tail to the head, None where one is missing."""
    chain: list[Entry] = []
    position = head.header.tail
    while len(chain) <= len(found):
        entry = found.get(position)
        if entry is None or (chain and entry.header.sequence != chain[-1].header.sequence + 1):
            return None
        chain.append(entry)
        if entry is head:
            return chain
        position = (position + entry.header.length) % length
    return None


def _replay(chain: Sequence[Entry], length: int) -> Replay:
    sectors: dict[int, bytes | None] = {}
    zeroed = 0
    for entry in chain:
        zeroed = _apply(entry, sectors, zeroed)
    head = chain[-1]
    flushed = max(entry.header.flushed_size for entry in chain)
    last = max(entry.header.last_size for entry in chain)
    end = (head.position + head.header.length) % length
    return Replay(sectors, flushed, last, end, head.header.sequence + 1)


def _apply(entry: Entry, sectors: dict[int, bytes | None], zeroed: int) -> int:
    """Note what one entry says, and return how many bytes were said to be zeros by now."""
    header, data = entry.header, entry.data
    at = align_up(EntryHeader.SIZE + Descriptor.SIZE * header.count, SECTOR)
    for number in range(header.count):
        found = Descriptor.parse(data, EntryHeader.SIZE + Descriptor.SIZE * number)
        if found.sequence != header.sequence or found.offset % SECTOR:
            raise Corrupt(f"vhdx log entry {header.sequence}: descriptor {number} is not of it", spec=SPEC)
        first = found.offset // SECTOR
        if found.signature == b"desc":
            sector = data[at : at + SECTOR]
            at += SECTOR
            if len(sector) < SECTOR or not _is_of(sector, header.sequence):
                raise Corrupt(f"vhdx log entry {header.sequence}: data {number} is not of it", spec=SPEC)
            sectors[first] = found.leading + sector[8:-4] + found.trailing
        elif found.signature == b"zero":
            length = int.from_bytes(found.leading, "little")
            zeroed += length
            if zeroed > MAX_ZEROED:
                raise LimitExceeded(f"vhdx log: expected at most {MAX_ZEROED} bytes of zeros, found {zeroed}")
            if length % SECTOR:
                raise Corrupt(f"vhdx log entry {header.sequence}: expected whole sectors of zeros", spec=SPEC)
            sectors.update(dict.fromkeys(range(first, first + length // SECTOR)))
        else:
            raise Corrupt(
                f"vhdx log entry {header.sequence}: expected a descriptor, found {found.signature!r}", spec=SPEC
            )
    return zeroed


def _is_of(sector: bytes, sequence: int) -> bool:
    high, low = int.from_bytes(sector[4:8], "little"), int.from_bytes(sector[-4:], "little")
    return sector.startswith(b"data") and high << 32 | low == sequence


def entry_room(log_length: int) -> int:
    """Return how many sectors one entry may hold so that the one before it is never written over."""
    return max(1, min(MiB, log_length) // 3 // SECTOR - 4)
