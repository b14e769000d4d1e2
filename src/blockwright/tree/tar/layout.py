"""Tar headers: the 512 bytes before each member, in all the dialects that are still met.

v7, ustar (POSIX.1-1988), pax (POSIX.1-2001), old GNU, GNU and star share one layout up to byte 257; what lies
behind depends on the magic. Numbers are octal text, or base-256 where the first bit of the field is set.

Knows: fields, numbers, the checksum. Refuses to know: what a member means, and members that describe others.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final, NamedTuple

from blockwright.errors import ArchiveRejected, Rejection

BLOCK: Final = 512
"""Bytes in a header, and what every member's body is padded to a multiple of."""
ZERO_BLOCK: Final = bytes(BLOCK)

SPEC: Final = "POSIX.1-2017 pax, ustar Interchange Format"
SPEC_GNU: Final = "GNU tar manual, Basic Tar Format"

REGULAR: Final = b"0"
OLD_REGULAR: Final = b"\0"
LINK: Final = b"1"
SYMLINK: Final = b"2"
CHARACTER: Final = b"3"
BLOCK_DEVICE: Final = b"4"
DIRECTORY: Final = b"5"
FIFO: Final = b"6"
CONTIGUOUS: Final = b"7"
PAX: Final = b"x"
PAX_GLOBAL: Final = b"g"
SOLARIS_PAX: Final = b"X"
GNU_LONG_NAME: Final = b"L"
GNU_LONG_LINK: Final = b"K"
GNU_SPARSE: Final = b"S"
GNU_DUMP_DIRECTORY: Final = b"D"
GNU_MULTI_VOLUME: Final = b"M"
GNU_VOLUME: Final = b"V"

_adler32: Final = zlib.adler32
_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12s").unpack
# name 0, mode 100, uid 108, gid 116, size 124, mtime 136, chksum 148, typeflag 156, linkname 157,
# magic and version 257, (uname 265, gname 297), devmajor 329, devminor 337, prefix 345, and 500 to the end

_OCTAL: Final = re.compile(rb" *([0-7]+)(?:[ \0].*)?|[ \0]*", re.DOTALL).fullmatch
_MAX_CACHE: Final = 4096


class Header(NamedTuple):
    """A header's fields: names without their padding, numbers as they are, the time in seconds.

    ``name`` has the prefix before it. ``major`` and ``minor`` are raw fields, since only devices fill them.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    link: bytes
    major: bytes
    minor: bytes


def parse_header(block: bytes) -> Header:
    """Return the fields of a 512-byte header. Raises ArchiveRejected for a wrong checksum and what is no number."""
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic, major, minor, prefix, tail = _FIELDS(block)
    # The low half of Adler-32 is one more than the sum of the bytes modulo 65521, which 256 bytes cannot reach.
    # The checksum counts its own eight bytes as blanks.
    total = (_adler32(block[:256]) & 0xFFFF) + (_adler32(block[256:]) & 0xFFFF) - 2 - sum(checksum) + 256
    if checksum != b"%06o\0 " % total and total != number(checksum, "checksum"):
        _check_signed(block, checksum, total)
    name = name.partition(b"\0")[0]
    if magic[:6] == b"ustar\0":
        if tail[8:] == b"tar\0":  # star keeps times in the last 24 bytes of the prefix
            prefix = prefix[:131]
        prefix = prefix.partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    return Header(
        name,
        _small[mode] if mode in _small else _recurring(mode, "mode"),
        _small[uid] if uid in _small else _recurring(uid, "uid"),
        _small[gid] if gid in _small else _recurring(gid, "gid"),
        number(size, "size"),
        number(mtime, "mtime"),
        kind,
        link.partition(b"\0")[0] if link[0] else b"",
        major,
        minor,
    )


def _check_signed(block: bytes, checksum: bytes, unsigned: int) -> None:
    """Raise Corrupt unless the checksum is the sum of signed bytes, as some old writers made it."""
    signed = unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
    expected = number(checksum, "checksum")
    if signed != expected:
        raise ArchiveRejected(
            Rejection.HEADER, f"tar header: checksum: expected {expected}, found {unsigned}", spec=SPEC
        )


def has_magic(block: bytes) -> bool:
    """Whether the block says that it is a ustar or GNU header; v7 headers have no magic."""
    return block[257:262] == b"ustar"


_small: dict[bytes, int] = {}
"""Numbers of 8-byte fields, which recur from member to member."""


def _recurring(field: bytes, what: str) -> int:
    if len(_small) >= _MAX_CACHE:
        _small.clear()
    value = _small[field] = number(field, what)
    return value


def number(field: bytes, what: str) -> int:
    """Return the number in a field: octal text, blank for 0, or base-256 in two's complement below the first bit."""
    digits = field.rstrip(b"\0 ")
    if digits.isdigit():
        try:
            return int(digits, 8)
        except ValueError:  # an 8 or a 9
            pass
    return _number(field, what)


def _number(field: bytes, what: str) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << bits - 1)
    match = _OCTAL(field)
    if match is None:
        raise ArchiveRejected(
            Rejection.HEADER, f"tar header: {what}: expected an octal number, found {field!r}", spec=SPEC
        )
    return int(match[1], 8) if match[1] else 0
