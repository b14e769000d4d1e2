"""Device-mapper's numbers and structures (linux/dm-ioctl.h), as bytes and values.

What the kernel answers is walked within its own length, whatever it says of itself.

Knows: fields, lists, requests. Refuses to know: when they are used, and what a target's parameters mean.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

from blockwright.codec.record import Record, raw, u32, u64
from blockwright.errors import Corrupt
from blockwright.units import align_up

CONTROL: Final = "/dev/mapper/control"
KIND: Final = 0xFD
VERSION: Final = (4, 0, 0)
"""The interface that is asked for: the oldest of version 4, which every kernel since 2.6 answers."""
NAME_SIZE: Final = 128
UUID_SIZE: Final = 129
TYPE_SIZE: Final = 16
SECTOR: Final = 512
MAX_REPLY: Final = 64 << 20
"""Bytes of an answer that are waited for; the largest that is known, a list of ten thousand devices, has 2 MiB."""


class Command(IntEnum):
    """What is asked; the names are the kernel's without DM_."""

    VERSION = 0
    REMOVE_ALL = 1
    LIST_DEVICES = 2
    DEV_CREATE = 3
    DEV_REMOVE = 4
    DEV_RENAME = 5
    DEV_SUSPEND = 6
    DEV_STATUS = 7
    DEV_WAIT = 8
    TABLE_LOAD = 9
    TABLE_CLEAR = 10
    TABLE_DEPS = 11
    TABLE_STATUS = 12
    LIST_VERSIONS = 13
    TARGET_MSG = 14
    DEV_SET_GEOMETRY = 15
    DEV_ARM_POLL = 16
    GET_TARGET_VERSION = 17


class Flag(IntFlag):
    """What a request wants, and what an answer says."""

    READ_ONLY = 1
    SUSPEND = 2
    PERSISTENT_DEVICE = 8
    STATUS_TABLE = 0x10
    ACTIVE_PRESENT = 0x20
    INACTIVE_PRESENT = 0x40
    BUFFER_FULL = 0x100
    SKIP_LOCKFS = 0x400
    NO_FLUSH = 0x800
    QUERY_INACTIVE_TABLE = 0x1000
    UEVENT_GENERATED = 0x2000
    UUID = 0x4000
    SECURE_DATA = 0x8000
    DATA_OUT = 0x10000
    DEFERRED_REMOVE = 0x20000
    INTERNAL_SUSPEND = 0x40000


UDEV_PRIMARY_SOURCE: Final = 0x40 << 16
"""Set in the event number of what changes a device: udev's rules make links for such changes only."""


class Header(Record, size=312, byte_order="="):
    """struct dm_ioctl, in front of every request and answer."""

    version_major: int = u32(0, VERSION[0])
    version_minor: int = u32(4, VERSION[1])
    version_patch: int = u32(8, VERSION[2])
    data_size: int = u32(12)
    data_start: int = u32(16, 312)
    target_count: int = u32(20)
    open_count: int = u32(24)
    flags: int = u32(28)
    event_nr: int = u32(32)
    dev: int = u64(40)
    name: bytes = raw(48, NAME_SIZE)
    uuid: bytes = raw(176, UUID_SIZE)


class TargetSpec(Record, size=40, byte_order="="):
    """struct dm_target_spec: sectors; ``next`` is relative to this one in a request, to the first in an answer."""

    sector_start: int = u64(0)
    length: int = u64(8)
    status: int = u32(16)
    next: int = u32(20)
    target_type: bytes = raw(24, TYPE_SIZE)


class _Name(Record, size=12, byte_order="="):
    dev: int = u64(0)
    next: int = u32(8)


class _Count(Record, size=8, byte_order="="):
    count: int = u32(0)


class _Number(Record, size=8, byte_order="="):
    value: int = u64(0)


class _Tail(Record, size=8, byte_order="="):
    event_nr: int = u32(0)
    flags: int = u32(4)


class _Version(Record, size=16, byte_order="="):
    next: int = u32(0)
    major: int = u32(4)
    minor: int = u32(8)
    patch: int = u32(12)


class Line(NamedTuple):
    """One target of a table: sectors, type, and its parameters or status as text."""

    start_sector: int
    length_sectors: int
    type: str
    text: str


class Entry(NamedTuple):
    """A device in the list: its number as os.makedev has it; event and UUID are None where the kernel is too old."""

    name: str
    dev: int
    event_nr: int | None
    uuid: str | None


def text_of(data: bytes) -> str:
    """Return the bytes up to the first NUL as text; what is not UTF-8 is kept as surrogates."""
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """Return what ``text_of`` reads again."""
    return text.encode("utf-8", "surrogateescape")


def pack_targets(lines: Sequence[Line]) -> bytes:
    """Return the targets as TABLE_LOAD takes them."""
    parts = []
    for line in lines:
        body = bytes_of(line.text) + b"\0"
        size = align_up(TargetSpec.SIZE + len(body), 8)
        spec = TargetSpec(
            sector_start=line.start_sector,
            length=line.length_sectors,
            next=size,
            target_type=bytes_of(line.type),
        )
        parts.append((spec.pack() + body).ljust(size, b"\0"))
    return b"".join(parts)


def parse_targets(data: bytes, count: int) -> list[Line]:
    """Return the targets of a TABLE_STATUS answer. Raises Corrupt where they leave it."""
    found: list[Line] = []
    position = 0
    while len(found) < count:
        _within(data, position, TargetSpec.SIZE)
        spec = TargetSpec.parse(data, position)
        end = spec.next if position + TargetSpec.SIZE <= spec.next <= len(data) else len(data)
        text = text_of(data[position + TargetSpec.SIZE : end])
        found.append(Line(spec.sector_start, spec.length, text_of(spec.target_type), text))
        position = end
    return found


def parse_names(data: bytes) -> list[Entry]:
    """Return the devices of a LIST_DEVICES answer. Raises Corrupt where they leave it."""
    found = []
    for position, end in _chain(data, _Name.SIZE, 8):
        dev = int.from_bytes(data[position : position + 8], sys.byteorder)  # there may be thousands
        if not dev:
            break
        stop = data.find(b"\0", position + _Name.SIZE, end)
        name = data[position + _Name.SIZE : stop if stop >= 0 else end]
        tail = align_up(position + _Name.SIZE + len(name) + 1, 8)
        event: int | None = None
        uuid: str | None = None
        if tail + _Tail.SIZE <= end:
            more = _Tail.parse(data, tail)
            event = more.event_nr
            uuid = text_of(data[tail + _Tail.SIZE : end]) if more.flags & 1 else ""
        elif tail + 4 <= end:
            event = int.from_bytes(data[tail : tail + 4], sys.byteorder)
        found.append(Entry(text_of(name), dev, event, uuid))
    return found


def parse_versions(data: bytes) -> dict[str, tuple[int, int, int]]:
    """Return the targets of a LIST_VERSIONS answer with their versions. Raises Corrupt where they leave it."""
    found = {}
    for position, end in _chain(data, _Version.SIZE, 0):
        entry = _Version.parse(data, position)
        name = text_of(data[position + _Version.SIZE : end])
        if name:
            found[name] = (entry.major, entry.minor, entry.patch)
    return found


def parse_dependencies(data: bytes) -> list[int]:
    """Return the device numbers of a TABLE_DEPS answer. Raises Corrupt where they leave it."""
    _within(data, 0, _Count.SIZE)
    count = _Count.parse(data).count
    _within(data, _Count.SIZE, count * _Number.SIZE)
    return [_Number.parse(data, _Count.SIZE + 8 * index).value for index in range(count)]


def _chain(data: bytes, size: int, next_offset: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each entry of a list whose entries say how far it is to the next."""
    position = 0
    while position < len(data):
        _within(data, position, size)
        length = int.from_bytes(data[position + next_offset : position + next_offset + 4], sys.byteorder)
        yield position, min(position + length, len(data)) if length else len(data)
        if length < size:
            break
        position += length


def _within(data: bytes, position: int, size: int) -> None:
    if position + size > len(data):
        raise Corrupt(
            f"device-mapper: expected {size} bytes at {position} of the answer, found {len(data) - position}"
        )
