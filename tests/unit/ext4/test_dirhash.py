"""Directory hashes: known values, and lanes against a plain computation of one name."""

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.fs.ext4.dirhash import effective_version, hash_name, hash_names
from blockwright.fs.ext4.layout import HashVersion

SEED = bytes.fromhex("0123456789abcdeffedcba9876543210")
NAMES = st.binary(min_size=1, max_size=255)
MASK = 0xFFFFFFFF

# `debugfs -R "dx_hash -h half_md4 -s 01234567-89ab-cdef-fedc-ba9876543210 NAME"` of e2fsprogs 1.47.0.
KNOWN = [
    (HashVersion.legacy, bytes(16), b"\xfe\xf3", 0xE3D625D2, 0),
    (HashVersion.half_md4, bytes(16), b"\xfe\xf3", 0x98B696F8, 0x3C04043D),
    (HashVersion.tea, bytes(16), b"\xfe\xf3", 0x34EF107C, 0x77AEA37E),
    (HashVersion.half_md4, bytes(16), b"\xfe", 0xEFD5CEF8, 0x0310871F),
    (HashVersion.tea, bytes(16), b"\xfe", 0xAF627E56, 0x7FBE89C3),
    (HashVersion.legacy, SEED, b"e", 0xE2B23AFA, 0),
]


@pytest.mark.parametrize(("version", "seed", "name", "major", "minor"), KNOWN)
def test_known_values(version, seed, name, major, minor):
    assert hash_name(name, version, seed) == (major, minor)


def words_of(name: bytes, count: int, *, signed: bool) -> list[int]:
    """One block of a name as the format fills words: filler, then bytes from the left."""
    filler = len(name) * 0x01010101 & MASK
    words, value = [], filler
    for index, byte in enumerate(name[: 4 * count]):
        value = ((byte - 256 if signed and byte > 127 else byte) + (value << 8)) & MASK
        if index % 4 == 3:
            words.append(value)
            value = filler
    if len(words) < count:
        words.append(value)
    return words + [filler] * (count - len(words))


def rotate(value: int, by: int) -> int:
    value &= MASK
    return (value << by | value >> 32 - by) & MASK


def plain_half_md4(name: bytes, seed: bytes, *, signed: bool) -> tuple[int, int]:
    start = list(struct.unpack("<4I", seed)) if any(seed) else [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476]
    rounds = (
        (lambda x, y, z: z ^ (x & (y ^ z)), 0, (0, 1, 2, 3, 4, 5, 6, 7), (3, 7, 11, 19)),
        (lambda x, y, z: (x & y) + ((x ^ y) & z), 0x5A827999, (1, 3, 5, 7, 0, 2, 4, 6), (3, 5, 9, 13)),
        (lambda x, y, z: x ^ y ^ z, 0x6ED9EBA1, (3, 7, 2, 6, 1, 5, 0, 4), (3, 9, 11, 15)),
    )
    for at in range(0, len(name), 32):
        words = words_of(name[at:], 8, signed=signed)
        state = list(start)
        for mix, constant, order, shifts in rounds:
            for step, word in enumerate(order):
                a, b, c, d = (state[(i - step) % 4] for i in range(4))
                state[-step % 4] = rotate(a + mix(b, c, d) + words[word] + constant, shifts[step % 4])
        start = [(a + b) & MASK for a, b in zip(start, state, strict=True)]
    return start[1] & ~1, start[2]


def plain_tea(name: bytes, seed: bytes, *, signed: bool) -> tuple[int, int]:
    start = list(struct.unpack("<4I", seed)) if any(seed) else [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476]
    for at in range(0, len(name), 16):
        a, b, c, d = words_of(name[at:], 4, signed=signed)
        y, z = start[0], start[1]
        total = 0
        for _ in range(16):
            total = total + 0x9E3779B9 & MASK
            y = y + ((z << 4) + a ^ z + total ^ (z >> 5) + b) & MASK
            z = z + ((y << 4) + c ^ y + total ^ (y >> 5) + d) & MASK
        start[0], start[1] = start[0] + y & MASK, start[1] + z & MASK
    return start[0] & ~1, start[1]


@given(st.lists(NAMES, min_size=1, max_size=20), st.sampled_from([SEED, bytes(16)]), st.booleans())
def test_lanes_hash_as_one_name_does(names, seed, signed):
    shift = 0 if signed else 3
    for version, plain in ((HashVersion.half_md4, plain_half_md4), (HashVersion.tea, plain_tea)):
        majors, minors = hash_names(names, version + shift, seed)
        wanted = [plain(name, seed, signed=signed) for name in names]
        assert list(zip(majors, minors, strict=True)) == wanted


def test_more_names_than_lanes_keep_their_order():
    rng = random.Random(2)
    names = [rng.randbytes(rng.randrange(1, 256)) for _ in range(3000)]
    for version in HashVersion:
        if version != HashVersion.siphash:
            majors, minors = hash_names(names, version, SEED)
            for index in range(0, 3000, 97):
                assert (majors[index], minors[index]) == hash_name(names[index], version, SEED)


def test_no_names():
    assert [list(column) for column in hash_names([], HashVersion.half_md4, SEED)] == [[], []]


def test_signed_and_unsigned_differ_only_above_127():
    for version in (HashVersion.legacy, HashVersion.half_md4, HashVersion.tea):
        unsigned = effective_version(version, unsigned=True)
        assert unsigned == version + 3
        assert effective_version(unsigned, unsigned=True) == unsigned
        assert effective_version(version, unsigned=False) == version
        assert hash_name(b"plain", version, SEED) == hash_name(b"plain", unsigned, SEED)
        assert hash_name(b"\x80", version, SEED) != hash_name(b"\x80", unsigned, SEED)


def test_the_mark_of_the_end_is_nobodys_hash(monkeypatch):
    monkeypatch.setattr("blockwright.fs.ext4.dirhash._legacy", lambda name, *, signed: MASK)
    assert hash_name(b"x", HashVersion.legacy, SEED) == (0xFFFFFFFC, 0)
