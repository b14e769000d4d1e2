"""Tar archives made header by header, so that any of them can be wrong."""

import stat

from blockwright.tree.node import Directory, File, Special, Symlink, walk
from tests.support.trees import content_bytes

USTAR = b"ustar\x0000"
GNU = b"ustar  \0"
V7 = bytes(8)
END = bytes(1024)


def octal(value: int, width: int) -> bytes:
    """A number as POSIX has it: octal digits and a NUL."""
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    """A number as GNU tar writes what octal cannot hold: two's complement, the first byte 0x80 or 0xff."""
    field = bytearray(value.to_bytes(width, "big", signed=True))
    field[0] = 0xFF if value < 0 else 0x80
    return bytes(field)


def checksummed(block: bytes) -> bytes:
    """The block with the checksum that makes it a header."""
    total = sum(block[:148]) + 8 * 32 + sum(block[156:])
    return block[:148] + b"%06o\0 " % total + block[156:]


def header(
    name: bytes,
    *,
    kind: bytes = b"0",
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    link: bytes = b"",
    magic: bytes = USTAR,
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
    patches: dict[int, bytes] | None = None,
) -> bytes:
    """One header of 512 bytes; a field given as bytes is taken as it is, `patches` put bytes at offsets."""

    def field(value: int | bytes, width: int) -> bytes:
        return octal(value, width) if isinstance(value, int) else value.ljust(width, b"\0")

    block = bytearray(512)
    for at, value in [
        (0, name),
        (100, field(mode, 8)),
        (108, field(uid, 8)),
        (116, field(gid, 8)),
        (124, field(size, 12)),
        (136, field(mtime, 12)),
        (156, kind),
        (157, link),
        (257, magic),
        (329, field(major, 8) if magic != V7 else b""),
        (337, field(minor, 8) if magic != V7 else b""),
        (345, prefix),
        *(patches or {}).items(),
    ]:
        block[at : at + len(value)] = value
    assert len(block) == 512
    return checksummed(bytes(block))


def padded(data: bytes) -> bytes:
    """The data with zeros up to the next multiple of 512."""
    return data + bytes(-len(data) % 512)


def member(name: bytes, body: bytes = b"", **fields: object) -> bytes:
    """A header and the body behind it."""
    return header(name, **{"size": len(body), **fields}) + padded(body)  # type: ignore[arg-type]  # of header


def record(keyword: bytes, value: bytes) -> bytes:
    """One record of an extended header, which counts its own length."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header for the next member, or with `kind` g for all."""
    return member(b"PaxHeaders/x", b"".join(record(*pair) for pair in records), kind=kind)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """A GNU long name (L) or long link target (K)."""
    return member(b"././@LongLink", name + b"\0", kind=kind, magic=GNU)


def archive(*members: bytes, end: bytes = END) -> bytes:
    """Members with the archive's end behind them."""
    return b"".join(members) + end


def tar_of(root: Directory) -> bytes:
    """A pax archive that says all of a tree; holes are written out."""
    first: dict[int, bytes] = {}
    members = []
    for path, node in walk(root):
        name = path or b"./"
        if id(node) in first:
            members.append(pax((b"path", name), (b"linkpath", first[id(node)])) + header(b"l", kind=b"1"))
            continue
        first[id(node)] = name
        records = [(b"path", name), (b"mtime", _time(node.mtime_ns)), (b"uid", b"%d" % node.uid)]
        records += [(b"gid", b"%d" % node.gid)]
        records += [(b"SCHILY.xattr." + key, value) for key, value in node.xattrs.items()]
        body, fields = b"", {"mode": node.permissions}
        if isinstance(node, File):
            body = content_bytes(node.content)
        elif isinstance(node, Directory):
            fields["kind"] = b"5"
        elif isinstance(node, Symlink):
            records.append((b"linkpath", node.target))
            fields["kind"] = b"2"
        elif isinstance(node, Special):
            fields["kind"] = {stat.S_IFCHR: b"3", stat.S_IFBLK: b"4", stat.S_IFIFO: b"6"}[node.kind]
            fields |= {"major": node.major, "minor": node.minor}
        members.append(pax(*records) + member(b"m", body, **fields))
    return archive(*members)


def _time(nanoseconds: int) -> bytes:
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return b"%s%d.%09d" % (b"-" if nanoseconds < 0 else b"", seconds, rest)
