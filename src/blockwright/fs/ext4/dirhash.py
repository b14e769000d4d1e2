"""The hashes that order the names of an indexed directory: legacy, half MD4 and TEA, with signed or unsigned bytes.

Names are hashed many at a time: each step of half MD4 and TEA runs on one large integer whose 64-bit lanes hold
32-bit words of different names, so a directory of a million names costs about a microsecond a name.

Knows: names and seeds in, hashes out. Refuses to know: directories, blocks, and case folding.

Source: Linux 6.1, Documentation/filesystems/ext4/directory.rst ("Hash Tree Directories"); the rounds of half MD4
are those of RFC 1320 section 3.4, of TEA those of Wheeler and Needham, "TEA, a Tiny Encryption Algorithm" (1994).
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from blockwright.fs.ext4.layout import HashVersion

_INITIAL: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_HTREE_EOF: Final = 0x7FFFFFFF
_LANES: Final = 512
"""Names hashed at once: integers of 4 KiB, which stay in the processor's first cache."""
_UNSIGNED: Final = 3
"""What HashVersion adds for unsigned bytes."""

Hashes: TypeAlias = "tuple[array[int], array[int]]"
"""Two columns of 32-bit numbers: the hash, whose lowest bit is 0, and the minor hash."""


def hash_names(names: Sequence[bytes], version: int, seed: bytes) -> Hashes:
    """Return the hash and the minor hash of each name, which is 1 to 255 bytes.

    ``version`` is a HashVersion from 0 to 5: the directory's own, plus 3 where the superblock's flags say that
    bytes are unsigned and the version is below 3. ``seed`` is s_hash_seed, 16 bytes; all zeros means the default.
    """
    signed = version < HashVersion.legacy_unsigned
    kind = version if signed else version - _UNSIGNED
    if kind == HashVersion.legacy:
        major = array("I", [_final(_legacy(name, signed=signed)) for name in names])
        return major, array("I", bytes(4 * len(names)))
    assert kind in (HashVersion.half_md4, HashVersion.tea), f"directory hash: version {version}"
    words = tuple(int.from_bytes(seed[i : i + 4], "little") for i in range(0, 16, 4))
    start = words if any(words) else _INITIAL
    width = 8 if kind == HashVersion.half_md4 else 4
    if len(names) <= _LANES and len({(len(name) - 1) // (4 * width) for name in names}) <= 1:
        return _hash_alike(names, width, start, signed=signed)
    return _hash_mixed(names, width, start, signed=signed)


def hash_name(name: bytes, version: int, seed: bytes) -> tuple[int, int]:
    """Return the hash and the minor hash of one name, as ``hash_names`` does."""
    major, minor = hash_names([name], version, seed)
    return major[0], minor[0]


def effective_version(version: int, *, unsigned: bool) -> int:
    """Return the HashVersion to hash with: a directory's own, as the superblock's unsigned flag modifies it."""
    return version + _UNSIGNED if unsigned and version <= HashVersion.tea else version


def _final(value: int) -> int:
    """Clear the lowest bit, and keep clear of the value that stands for the end of a directory."""
    value &= 0xFFFFFFFE
    return value - 2 if value == _HTREE_EOF << 1 else value


def _legacy(name: bytes, *, signed: bool) -> int:
    before, last = 0x37ABE8F9, 0x12A3FE2D
    for byte in name:
        value = byte - 256 if signed and byte > 127 else byte
        mixed = (before + (last ^ value * 7152373 & 0xFFFFFFFF)) & 0xFFFFFFFF
        if mixed & 0x80000000:
            mixed -= 0x7FFFFFFF
        before, last = last, mixed
    return last << 1 & 0xFFFFFFFF


# -- lanes -----------------------------------------------------------------------------------------------------


class _Lanes(NamedTuple):
    """Constants for ``count`` 64-bit lanes: 1, 32 one bits, the sign bits of bytes, a borrow, in each of them."""

    one: int
    mask: int
    signs: int
    borrow: int


@lru_cache(maxsize=32)
def _lanes(count: int) -> _Lanes:
    one = int.from_bytes(b"\1\0\0\0\0\0\0\0" * count, "little")
    return _Lanes(one, one * 0xFFFFFFFF, one * 0x80808080, one << 33)


@lru_cache(maxsize=2)
def _padding(width: int) -> tuple[list[bytes], list[bytes]]:
    """What goes before the last, partial word of a name, and behind it, by the bytes in the name's last block.

    A block is ``width`` words. The filler is the number of the name's bytes that lie in the block.
    """
    size = 4 * width
    before, behind = [], []
    for length in range(size + 1):
        partial = length % 4
        front = 4 - partial if partial else 0
        before.append(bytes([length]) * front)
        behind.append(bytes([length]) * (size - length - front))
    return before, behind


def _hash_mixed(names: Sequence[bytes], width: int, start: tuple[int, ...], *, signed: bool) -> Hashes:
    """Group names by the blocks they fill, and hash each group in slices."""
    major, minor = array("I", bytes(4 * len(names))), array("I", bytes(4 * len(names)))
    groups: dict[int, list[int]] = {}
    size = 4 * width
    for index, name in enumerate(names):
        groups.setdefault((len(name) - 1) // size, []).append(index)
    for members in groups.values():
        for first in range(0, len(members), _LANES):
            part = members[first : first + _LANES]
            found = _hash_alike([names[index] for index in part], width, start, signed=signed)
            for index, high, low in zip(part, *found, strict=True):
                major[index], minor[index] = high, low
    return major, minor


def _hash_alike(names: Sequence[bytes], width: int, start: tuple[int, ...], *, signed: bool) -> Hashes:
    """Hash at most ``_LANES`` names that fill equally many blocks."""
    count = len(names)
    if not count:
        return array("I"), array("I")
    before, behind = _padding(width)
    size = 4 * width
    pieces: list[bytes] = []
    for name in names:
        length = len(name)
        cut = length & ~3
        rest = (length - 1) % size + 1
        pieces += (name[:cut], before[rest], name[cut:], behind[rest])
    words = array("I", b"".join(pieces))
    if sys.byteorder == "little":
        words.byteswap()
    lanes = _lanes(count)
    state = [lanes.one * value for value in start]
    stride = len(words) // count
    source = memoryview(words)
    adjust = signed and not all(map(bytes.isascii, names))
    for block in range(0, stride, width):
        columns = [_column(source[block + word :: stride], count) for word in range(width)]
        if adjust:
            columns = [(x + lanes.borrow - ((x & lanes.signs) << 1)) & lanes.mask for x in columns]
        (_half_md4 if width == 8 else _tea)(state, columns, lanes)
    if width == 8:
        return array("I", map(_final, _values(state[1], count))), array("I", _values(state[2], count))
    return array("I", map(_final, _values(state[0], count))), array("I", _values(state[1], count))


def _column(words: memoryview, count: int) -> int:
    """Put one word of each name into the lanes."""
    wide = bytearray(8 * count)
    view = memoryview(wide).cast("I")
    if sys.byteorder == "little":
        view[::2] = words
        return int.from_bytes(wide, "little")
    view[1::2] = words[::-1]
    return int.from_bytes(wide, "big")


def _values(lanes: int, count: int) -> memoryview:
    return memoryview(lanes.to_bytes(8 * count, sys.byteorder)).cast("Q")[:: 1 if sys.byteorder == "little" else -1]


_SECOND: Final = (1, 3, 5, 7, 0, 2, 4, 6)
_THIRD: Final = (3, 7, 2, 6, 1, 5, 0, 4)
_K2: Final = 0x5A827999
_K3: Final = 0x6ED9EBA1


def _half_md4(state: list[int], words: list[int], lanes: _Lanes) -> None:
    """Mix a block of eight words into the state: eight steps of each round of MD4 instead of sixteen."""
    mask = lanes.mask
    a, b, c, d = state
    for i in (0, 4):
        a = (a + (d ^ b & (c ^ d)) + words[i]) & mask
        a = (a << 3 | a >> 29) & mask
        d = (d + (c ^ a & (b ^ c)) + words[i + 1]) & mask
        d = (d << 7 | d >> 25) & mask
        c = (c + (b ^ d & (a ^ b)) + words[i + 2]) & mask
        c = (c << 11 | c >> 21) & mask
        b = (b + (a ^ c & (d ^ a)) + words[i + 3]) & mask
        b = (b << 19 | b >> 13) & mask
    k = lanes.one * _K2
    for i in (0, 4):
        a = (a + (b & c | d & (b | c)) + words[_SECOND[i]] + k) & mask
        a = (a << 3 | a >> 29) & mask
        d = (d + (a & b | c & (a | b)) + words[_SECOND[i + 1]] + k) & mask
        d = (d << 5 | d >> 27) & mask
        c = (c + (d & a | b & (d | a)) + words[_SECOND[i + 2]] + k) & mask
        c = (c << 9 | c >> 23) & mask
        b = (b + (c & d | a & (c | d)) + words[_SECOND[i + 3]] + k) & mask
        b = (b << 13 | b >> 19) & mask
    k = lanes.one * _K3
    for i in (0, 4):
        a = (a + (b ^ c ^ d) + words[_THIRD[i]] + k) & mask
        a = (a << 3 | a >> 29) & mask
        d = (d + (a ^ b ^ c) + words[_THIRD[i + 1]] + k) & mask
        d = (d << 9 | d >> 23) & mask
        c = (c + (d ^ a ^ b) + words[_THIRD[i + 2]] + k) & mask
        c = (c << 11 | c >> 21) & mask
        b = (b + (c ^ d ^ a) + words[_THIRD[i + 3]] + k) & mask
        b = (b << 15 | b >> 17) & mask
    state[0] = (state[0] + a) & mask
    state[1] = (state[1] + b) & mask
    state[2] = (state[2] + c) & mask
    state[3] = (state[3] + d) & mask


def _tea(state: list[int], words: list[int], lanes: _Lanes) -> None:
    """Mix a block of four words, as the key, into the first two words of the state, in sixteen cycles."""
    mask, one = lanes.mask, lanes.one
    k0, k1, k2, k3 = words
    y, z = state[0], state[1]
    total = 0
    for _ in range(16):
        total = (total + 0x9E3779B9) & 0xFFFFFFFF
        s = one * total
        y = (y + ((z << 4) + k0 ^ z + s ^ (z >> 5) + k1)) & mask
        z = (z + ((y << 4) + k2 ^ y + s ^ (y >> 5) + k3)) & mask
    state[0] = (state[0] + y) & mask
    state[1] = (state[1] + z) & mask
