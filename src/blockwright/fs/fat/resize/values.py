"""The entries of an allocation table as numbers, all at once, and written where they differ.

Knows: entries of 12, 16 and 32 bits, of which the upper four of 32 are nobody's and stay. Refuses to know: chains.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

from blockwright.device.base import BlockDevice
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import unpack
from blockwright.fs.fat.geometry import Geometry
from blockwright.units import KiB, MiB, align_up, ceil_div

_CHUNK = 64 * KiB


def read_values(device: BlockDevice, geometry: Geometry) -> array[int]:
    """Return the entries of the first FAT, from entry 0 to the last cluster's."""
    length = align_up(ceil_div(geometry.end_cluster * geometry.bits, 8), geometry.sector_size)
    return unpack(device.read(geometry.fat_start(), length), geometry.bits, geometry.end_cluster)


def encode(values: array[int], bits: int) -> bytes:
    """Return the bytes of entries from 0 on."""
    if bits == 12:
        padded = [*values, 0] if len(values) & 1 else values
        pairs = zip(padded[::2], padded[1::2], strict=True)
        packed12 = b"".join([(low | high << 12).to_bytes(3, "little") for low, high in pairs])
        return packed12[: ceil_div(len(values) * 12, 8)]
    packed = array(values.typecode, values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def straddles(cluster: int, geometry: Geometry) -> bool:
    """Whether an entry lies in two sectors, of which one might arrive alone; only those of 12 bits do."""
    return geometry.bits == 12 and cluster * 3 // 2 % geometry.sector_size == geometry.sector_size - 1


def put(values: array[int], cluster: int, value: int, bits: int) -> None:
    """Have an entry say another cluster; the bits beside it stay."""
    values[cluster] = values[cluster] & ~layout.MASK[bits] | value


def link(values: array[int], chain: Sequence[int], following: int, bits: int) -> None:
    """Have the clusters follow one another, and ``following`` the last of them."""
    for cluster, value in zip(chain, [*chain[1:], following], strict=True):
        put(values, cluster, value, bits)


def write_values(device: BlockDevice, geometry: Geometry, values: array[int]) -> None:
    """Write the entries to every copy, in the sectors in which they differ."""
    data = encode(values, geometry.bits)
    for copy in range(geometry.fats):
        start = geometry.fat_start(copy)
        for at in range(0, len(data), MiB):
            part = data[at : at + MiB]
            write_differing(device, start + at, part, geometry.sector_size)


def write_differing(device: BlockDevice, offset: int, data: bytes, sector: int) -> None:
    """Write the sectors that differ; what lies behind the data in the last of them stays."""
    old = device.read(offset, align_up(len(data), sector))
    if old[: len(data)] == data:
        return
    new = data + old[len(data) :]
    begin = None
    for at in range(0, len(new) + sector, sector):
        differs = old[at : at + sector] != new[at : at + sector]
        if differs and begin is None:
            begin = at
        elif not differs and begin is not None:
            device.write(offset + begin, new[begin:at])
            begin = None


def write_new(device: BlockDevice, geometry: Geometry, values: array[int]) -> None:
    """Write whole FATs over anything: the entries, and no cluster in use behind them."""
    data = encode(values, geometry.bits)
    data += bytes(-len(data) % geometry.sector_size)
    device.zero(geometry.fat_start(), geometry.fats * geometry.fat_size)
    for copy in range(geometry.fats):
        start = geometry.fat_start(copy)
        for at in range(0, len(data), _CHUNK):
            part = data[at : at + _CHUNK]
            if part.strip(b"\0"):
                device.write(start + at, part)


def clear_entries(device: BlockDevice, geometry: Geometry, clusters: int, *, keep_bad: bool) -> None:
    """Have the entries behind the last cluster say that it is free, up to those of so many clusters.

    With ``keep_bad`` those that say that it is bad stay: the volume may have been larger before.
    """
    bits, sector = geometry.bits, geometry.sector_size
    first, end = geometry.end_cluster, clusters + layout.FIRST_CLUSTER
    step = MiB // sector * sector
    low = first * bits // 8 // sector * sector
    high = align_up(ceil_div(end * bits, 8), sector)
    for copy in range(geometry.fats):
        start = geometry.fat_start(copy)
        for at in range(low, high, step):
            old = device.read(start + at, min(step, high - at))
            if old.strip(b"\0"):
                new = _cleared(old, at, range(first, end), bits, keep_bad=keep_bad)
                write_differing(device, start + at, new, sector)


def _cleared(data: bytes, at: int, clusters: range, bits: int, *, keep_bad: bool) -> bytes:
    """Return bytes of a FAT, which lie in it from byte ``at`` on, with the entries of the clusters cleared."""
    if bits == 12:  # at most 6 KiB: one piece
        shifted = bytearray(at) + data
        for cluster in clusters:
            where = cluster * 3 // 2
            pair = int.from_bytes(shifted[where : where + 2], "little")
            value = pair >> 4 if cluster & 1 else pair & 0xFFF
            if not (keep_bad and value == layout.BAD[12]):
                shifted[where : where + 2] = (pair & 0xF if cluster & 1 else pair & 0xF000).to_bytes(2, "little")
        return bytes(shifted[at:])
    base = at * 8 // bits
    values = unpack(data, bits, len(data) * 8 // bits)
    mask, bad = layout.MASK[bits], layout.BAD[bits]
    for index in range(max(0, clusters.start - base), min(len(values), clusters.stop - base)):
        if values[index] and not (keep_bad and values[index] & mask == bad):
            values[index] &= ~mask
    return encode(values, bits)
