"""Fuzz target: any bytes as a tar archive, from a device and from a stream, plain or compressed."""

import gzip

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent, Content, Fill, Runs
from blockwright.tree.decompress import DecodedStream
from blockwright.tree.digest import tree_digest
from blockwright.tree.node import Directory, File, walk
from blockwright.tree.tar import read_tar, read_tar_stream
from tests.support.tarmaker import GNU, V7, archive, base256, header, long_name, member, octal, padded, pax

MAX_BYTES = 1 << 18


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out, of either reader; and what one of them takes, the other takes as the same."""
    data = data[:MAX_BYTES]
    found = _attempt(lambda: read_tar(MemoryDevice(content=data)))
    position = 0

    def read(length: int) -> bytes:
        nonlocal position
        part = data[position : position + min(length, 4096)]
        position += len(part)
        return part

    with DecodedStream(read) as stream:
        streamed = _attempt(lambda: read_tar_stream(stream.read, _consume))
        if stream.compression is not None:
            return
    if (found is None) != (streamed is None):
        raise AssertionError("one reader took what the other refused")
    if found is not None and streamed is not None:
        if differences := compare_trees(found, streamed):
            raise AssertionError(f"the readers differ: {differences[0]}")
        _use(found)


def _attempt(read) -> Directory | None:
    try:
        return read()
    except FormatError as error:
        if error.offset is None or not str(error):
            raise AssertionError("an error without a place") from error
        return None


def _consume(size: int, runs: Runs, fill: Fill) -> Content:
    buffer = memoryview(bytearray(65536))
    for _, length in runs:
        left = length
        while left:
            fill(buffer[: min(left, len(buffer))])
            left -= min(left, len(buffer))
    return _Gone(size)


class _Gone(BytesContent):
    __slots__ = ()

    def __init__(self, size: int) -> None:
        super().__init__(b"")
        self.size = size


def _use(root: Directory) -> None:
    """Do what everybody does with a tree."""
    tree_digest(root)
    for _, node in walk(root):
        if isinstance(node, File) and node.content.runs():
            start, length = node.content.runs()[-1]
            node.content.read_into(start, memoryview(bytearray(min(length, 4096))))


def seeds() -> list[bytes]:
    """Archives that reach every part of the reader."""
    sparse_header = {386: octal(512, 12) + octal(4, 12), 482: b"\1", 483: octal(9000, 12)}
    sparse_more = (octal(600, 12) + octal(3, 12) + octal(9000, 12) + octal(0, 12)).ljust(512, b"\0")
    text_map = padded(b"2\n0\n3\n600\n2\n")
    pieces = [
        archive(
            header(b"d/", kind=b"5"),
            member(b"d/f", b"body"),
            header(b"l", kind=b"2", link=b"d"),
            member(b"l/g", b"x" * 700),
            header(b"h", kind=b"1", link=b"l/g"),
            header(b"c", kind=b"3", major=1, minor=3),
            header(b"p", kind=b"6"),
        ),
        archive(
            pax((b"comment", b"x"), (b"uid", b"7"), kind=b"g"),
            pax(
                (b"path", b"name"),
                (b"mtime", b"-1.5"),
                (b"size", b"4"),
                (b"SCHILY.xattr.user.a", b"1"),
                (b"LIBARCHIVE.xattr.user.b%20", b"AAEC"),
                (b"RHT.security.selinux", b"label"),
                (b"SCHILY.acl.access", b"user::rwx,user:5:r--,group::r-x,mask::rwx,other::---"),
            )
            + member(b"f", b"body"),
            long_name(b"n" * 150) + long_name(b"t" * 150, b"K") + header(b"f", kind=b"2", magic=GNU),
        ),
        archive(
            header(b"s", kind=b"S", size=7, magic=GNU, patches=sparse_header) + sparse_more + padded(b"1234567"),
            pax((b"GNU.sparse.size", b"99"), (b"GNU.sparse.map", b"3,4,50,2")) + member(b"t", b"123456"),
            pax(
                (b"GNU.sparse.size", b"99"),
                (b"GNU.sparse.offset", b"0"),
                (b"GNU.sparse.numbytes", b"3"),
                (b"GNU.sparse.offset", b"9"),
                (b"GNU.sparse.numbytes", b"3"),
            )
            + member(b"u", b"123456"),
            pax(
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", b"v"),
                (b"GNU.sparse.realsize", b"602"),
            )
            + member(b"x", text_map + b"12345"),
        ),
    ]
    body = archive(member(b"inner", b"x"))
    size = b"%d" % len(body)
    pieces.append(
        archive(
            pax((b"comment", b"0123"), kind=b"g"),
            pax((b"size", size)) + header(b"a") + body,
            pax((b"size", size)) + header(b"b", size=b"77777777777\0") + body,
            header(b"c", uid=base256(2**31, 8), mtime=base256(-1, 12), magic=GNU),
            header(b"p" * 100, prefix=b"q" * 155),
            header(b"v7", magic=V7),
        )
    )
    return [*pieces, gzip.compress(pieces[0], mtime=0)]
