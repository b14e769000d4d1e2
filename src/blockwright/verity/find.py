"""Finds the hash area that lies directly behind its data, and ends where the device does.

Knows: that a device's size leaves few places for it. Refuses to know: what the area proves.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import product

from blockwright.device.base import BlockDevice
from blockwright.errors import FormatError, NotThisFormat
from blockwright.verity.format import HashArea, read_area, read_bytes
from blockwright.verity.layout import MAGIC, MAX_BLOCK, MAX_DATA, MIN_BLOCK, Parameters
from blockwright.verity.plan import area_end


def find_behind(device: BlockDevice) -> tuple[int, HashArea] | None:
    """Return the byte where a superblock lies right behind its data, and what it says; None where there is none.

    Reads less than a hash block for each pair of block sizes.
    """
    for offset in _magics(device):
        try:
            area = read_area(device, offset)
        except FormatError:
            continue
        ends = area_end(area.parameters, offset, superblock=True)
        if area.parameters.data_size == offset and ends == device.size:
            return offset, area
    return None


def _magics(device: BlockDevice) -> Iterator[int]:
    """Yield where superblocks begin, each once, among the places where one could be."""
    seen: set[int] = set()
    for first, last in sorted(set(_places(device.size))):
        content = read_bytes(device, first, last - first + len(MAGIC))
        for within in range(0, last - first + 1, MIN_BLOCK):
            if content.startswith(MAGIC, within) and first + within not in seen:
                seen.add(first + within)
                yield first + within


def area_of(hashes: BlockDevice, hash_offset: int | None, *, behind: bool) -> HashArea:
    """Return what the superblock at ``hash_offset`` says; where that is None, at byte 0, or ``behind`` the data.

    Raises FormatError where there is none.
    """
    if hash_offset is not None or not behind:
        return read_area(hashes, hash_offset or 0)
    found = find_behind(hashes)
    if found is None:
        raise NotThisFormat("expected hashes that begin behind the data and end with the device, found none")
    return found[1]


def _places(size: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last place, in bytes, of areas of each kind that end at ``size``.

    There are several where a hash block is larger than a data block: the tree begins at a hash block.
    """
    powers = range(MIN_BLOCK.bit_length() - 1, MAX_BLOCK.bit_length())
    for data_power, hash_power, algorithm in product(powers, powers, ("sha256", "sha512")):  # both sizes of slots
        data_block = 1 << data_power

        def end(count: int, kind: tuple[str, int, int] = (algorithm, data_block, 1 << hash_power)) -> int:
            given = Parameters(count, kind[0], b"", kind[1], kind[2])
            return area_end(given, given.data_size, superblock=True)

        counts = range(1, min(size, MAX_DATA) // data_block + 1)
        first, behind = bisect_left(counts, size, key=end), bisect_right(counts, size, key=end)
        if first < behind:
            yield counts[first] * data_block, counts[behind - 1] * data_block
