"""The members of a tar archive, in order, become a tree as an unpacker would make it.

Strict where archives are attacked: a member that claims more bytes than there are, a name that leads upwards, two
headers that say different things about one member, a type that is not known: each is a FormatError with its byte.
Owners are the numbers in the headers, not the names. As GNU tar does it: a size is ignored where a type has no body,
an archive may end without its two zero blocks, and what lies behind them is not looked at.

Knows: the order of headers, and what each type becomes. Refuses to know: fields (``layout``), records (``pax``),
maps (``sparse``), names (``unpack``), and where the bytes come from (``stream``).
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from typing import Final

from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotThisFormat, Unsupported
from blockwright.tree.content import EMPTY, Content, Runs
from blockwright.tree.node import NO_XATTRS, Directory, File, Node, Special, Symlink
from blockwright.tree.tar import layout, pax, sparse
from blockwright.tree.tar.acl import permissions_of_acl
from blockwright.tree.tar.layout import BLOCK, ZERO_BLOCK, Header, parse_header
from blockwright.tree.tar.stream import Reader
from blockwright.tree.unpack import MAX_PATH, MAX_TARGET, Unpacker, show

MAX_METADATA: Final = 1 << 30
"""Bytes in all link targets and extended attributes of an archive."""
MAX_ID: Final = (1 << 32) - 2
"""The highest uid and gid; the next one means none."""

_NO_EXTENSION: Final = pax.Extended()
_SECOND: Final = 1_000_000_000
_SPECIALS: Final = {layout.CHARACTER: stat.S_IFCHR, layout.BLOCK_DEVICE: stat.S_IFBLK, layout.FIFO: stat.S_IFIFO}
_FILES: Final = frozenset({layout.REGULAR, layout.OLD_REGULAR, layout.CONTIGUOUS, layout.GNU_SPARSE})
_MEMBERS: Final = (
    _FILES | _SPECIALS.keys() | {layout.LINK, layout.SYMLINK, layout.DIRECTORY, layout.GNU_DUMP_DIRECTORY}
)
_ACL: Final = b"system.posix_acl_access"
_MAX_SHARED: Final = 4096

Body = Callable[[int, Runs, int], Content]
"""``body(size, runs, stored)`` answers the content of the ``stored`` bytes that the reader stands before."""


class Archive:
    """One pass over the archive that ``reader`` gives; ``source`` is what messages call it."""

    def __init__(self, reader: Reader, body: Body, source: str) -> None:
        self._reader = reader
        self._body = body
        self._source = source
        self._tree = Unpacker()
        self._global: pax.Extended | None = None
        self._offset = 0
        self._first_mtime_ns: int | None = None
        self._sparse_runs = 0
        self._metadata = 0
        self._shared: dict[tuple[tuple[bytes, bytes], ...], Mapping[bytes, bytes]] = {}
        self._forget_described()

    def run(self) -> Directory:
        """Return the tree of all members. Raises FormatError with source and byte."""
        read = self._reader.read
        try:
            while True:
                self._offset = self._reader.position
                block = read(BLOCK)
                if block == ZERO_BLOCK or len(block) < BLOCK:
                    self._end(block)
                    return self._tree.finish(self._first_mtime_ns or 0)
                header = self._parse(block)
                if header.type in _MEMBERS:
                    self._member(block, header)
                else:
                    self._describe(header)
        except FormatError as error:
            if error.offset is None:
                error.offset = self._offset
            if error.source is None:
                error.source = self._source
            raise

    def _parse(self, block: bytes) -> Header:
        try:
            return parse_header(block)
        except Corrupt as error:
            if self._offset == 0 and not layout.has_magic(block):
                raise NotThisFormat("expected a tar header, found none", spec=layout.SPEC) from error
            raise

    def _end(self, block: bytes) -> None:
        """Accept what ended the members: two zero blocks, one and no more, or nothing at all."""
        if self._offset == 0 and len(block) < BLOCK:
            raise NotThisFormat(f"expected a tar header of {BLOCK} bytes, found {len(block)}", spec=layout.SPEC)
        if self._described_at is not None:
            raise Corrupt("extended header: expected a member behind it, found the end", offset=self._described_at)
        if 0 < len(block) < BLOCK:
            raise Corrupt(f"tar header: expected {BLOCK} bytes, found {len(block)}", spec=layout.SPEC)
        if block and self._reader.read(BLOCK) not in (b"", ZERO_BLOCK):
            raise Corrupt("tar end: expected two zero blocks, found one and something else", spec=layout.SPEC)

    # -- headers about the member behind them, or about all ----------------------------------------------------

    def _forget_described(self) -> None:
        self._described_at: int | None = None
        self._extended: pax.Extended | None = None
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None

    def _describe(self, header: Header) -> None:
        """Take in a header that is no member. Raises Unsupported for a type that is not known."""
        kind = header.type
        if kind == layout.PAX_GLOBAL:
            self._global = self._records(header, pax.parse_global)
            return
        if kind == layout.GNU_VOLUME:
            self._skip(_padded(_length(header.size)))
            return
        if self._described_at is None:
            self._described_at = self._offset
        if kind in (layout.PAX, layout.SOLARIS_PAX):
            if self._extended is not None:
                raise Corrupt("extended header: expected one for a member, found two", spec=pax.SPEC)
            self._extended = self._records(header, pax.parse_records)
        elif kind == layout.GNU_LONG_NAME:
            if self._long_name is not None:
                raise Corrupt("long name: expected one for a member, found two", spec=layout.SPEC_GNU)
            self._long_name = self._long(header)
        elif kind == layout.GNU_LONG_LINK:
            if self._long_link is not None:
                raise Corrupt("long link target: expected one for a member, found two", spec=layout.SPEC_GNU)
            self._long_link = self._long(header)
        elif kind == layout.GNU_MULTI_VOLUME:
            raise Unsupported(f"{show(header.name)}: continues a member of an earlier volume")
        else:
            raise Unsupported(f"{show(header.name)}: type: expected one that is known, found {kind!r}")

    def _records(self, header: Header, parse: Callable[[bytes, pax.Extended | None], pax.Extended]) -> pax.Extended:
        if header.size > pax.MAX_HEADER:
            raise LimitExceeded(f"extended header: expected at most {pax.MAX_HEADER} bytes, found {header.size}")
        start = self._reader.position
        body = self._described_body(header)
        try:
            return parse(body, self._global)
        except FormatError as error:
            error.offset = start + (error.offset or 0)
            raise

    def _long(self, header: Header) -> bytes:
        """Return a GNU long name, without the NUL that ends it."""
        if header.size > MAX_PATH:
            raise LimitExceeded(f"long name: expected at most {MAX_PATH} bytes, found {header.size}")
        name = self._described_body(header).rstrip(b"\0")
        if b"\0" in name:
            raise Corrupt(f"long name: expected no NUL, found {show(name)}", spec=layout.SPEC_GNU)
        return name

    def _described_body(self, header: Header) -> bytes:
        size = _length(header.size)
        body = self._exactly(_padded(size))
        return body[:size]

    # -- members -----------------------------------------------------------------------------------------------

    def _member(self, block: bytes, header: Header) -> None:
        # Most members of most archives have one header, and no question asked about others costs anything then.
        extended = self._extended or self._global or _NO_EXTENSION
        plain = extended is _NO_EXTENSION and self._long_name is None
        path = header.name if plain else self._name(header, extended)
        kind = header.type
        mtime_ns = extended.mtime_ns
        if mtime_ns is None:
            mtime_ns = _time(header.mtime)
        if self._first_mtime_ns is None:
            self._first_mtime_ns = mtime_ns
        if kind == layout.LINK:
            self._tree.link(path, self._target(header, extended))
        else:
            uid = header.uid if extended.uid is None else extended.uid
            gid = header.gid if extended.gid is None else extended.gid
            if not 0 <= uid <= MAX_ID or not 0 <= gid <= MAX_ID:
                raise Corrupt(f"{show(path)}: owner: expected ids from 0 to {MAX_ID}, found {uid} and {gid}")
            permissions = header.mode & 0o7777
            xattrs = NO_XATTRS
            if extended.xattrs:
                xattrs = self._share(extended.xattrs)
                if _ACL in xattrs:
                    permissions = permissions & 0o7000 | permissions_of_acl(xattrs[_ACL])
            node: Node
            if kind in _FILES and path[-1:] != b"/":
                content = self._content(block, header, extended)
                node = File(permissions, uid, gid, mtime_ns, xattrs, content)
            elif kind == layout.SYMLINK:
                node = Symlink(self._target(header, extended), permissions, uid, gid, mtime_ns, xattrs)
                self._charge(len(node.target))
            elif kind in _SPECIALS:
                major, minor = self._device_numbers(header)
                node = Special(_SPECIALS[kind], permissions, uid, gid, mtime_ns, xattrs, major=major, minor=minor)
            else:
                node = Directory(permissions, uid, gid, mtime_ns, xattrs)
                self._directory_body(path, header, extended)
                path = path.rstrip(b"/")
            self._tree.enter(path, node)
        if self._described_at is not None:
            self._forget_described()

    def _name(self, header: Header, extended: pax.Extended) -> bytes:
        """Return the member's name, which several headers may give."""
        name = header.name
        if self._long_name is not None:
            name = self._long_name
            if extended.path is not None and extended.path != name:
                raise Corrupt(f"name: expected {show(name)} in both headers, found {show(extended.path)}")
        elif extended.path is not None:
            name = extended.path
        if sparse.is_sparse(extended):
            name = sparse.real_name(extended) or name
        return name

    def _target(self, header: Header, extended: pax.Extended) -> bytes:
        """Return where a link points, which several headers may say."""
        target = header.link
        if self._long_link is not None:
            target = self._long_link
            if extended.link is not None and extended.link != target:
                raise Corrupt(f"link target: expected {show(target)} in both headers, found {show(extended.link)}")
        elif extended.link is not None:
            target = extended.link
        if not target:
            raise Corrupt(f"{show(header.name)}: link target: expected one, found none", spec=layout.SPEC)
        if header.type == layout.SYMLINK and len(target) > MAX_TARGET:
            raise LimitExceeded(f"link target: expected at most {MAX_TARGET} bytes, found {len(target)}")
        return target

    def _content(self, block: bytes, header: Header, extended: pax.Extended) -> Content:
        """Return the content of a regular file, and stand behind its body."""
        reader = self._reader
        stored = _length(header.size if extended.size is None else extended.size)
        size = stored
        runs: Runs = ((0, stored),)
        end = reader.position + _padded(stored)
        if header.type == layout.GNU_SPARSE:
            found = sparse.read_gnu_map(block, stored, self._exactly)
            size, runs, stored, end = self._sparse(found, stored, end + found.consumed)
        elif extended is not _NO_EXTENSION and sparse.is_sparse(extended):
            found = sparse.read_pax_map(extended, stored, self._exactly)
            size, runs, stored, end = self._sparse(found, stored - found.consumed, end)
        content = self._body(size, runs, stored) if size else EMPTY
        if reader.position != end:
            self._skip(end - reader.position)
        return content

    def _sparse(self, found: sparse.SparseMap, stored: int, end: int) -> tuple[int, Runs, int, int]:
        self._sparse_runs += found.declared
        if self._sparse_runs > pax.MAX_SPARSE_RUNS:
            raise LimitExceeded(f"sparse maps: expected at most {pax.MAX_SPARSE_RUNS} runs in all, found more")
        return found.size, found.runs, stored, end

    def _directory_body(self, path: bytes, header: Header, extended: pax.Extended) -> None:
        """Pass over what a GNU dump lists in a directory; a file that a slash makes a directory has no body."""
        size = _length(header.size if extended.size is None else extended.size)
        if header.type == layout.GNU_DUMP_DIRECTORY:
            self._skip(_padded(size))
        elif header.type != layout.DIRECTORY and size:
            raise Corrupt(f"{show(path)}: expected a directory to have no body, found {size} bytes", spec=layout.SPEC)

    def _device_numbers(self, header: Header) -> tuple[int, int]:
        if header.type == layout.FIFO:
            return 0, 0
        major, minor = layout.number(header.major, "devmajor"), layout.number(header.minor, "devminor")
        if not 0 <= major < 1 << 32 or not 0 <= minor < 1 << 32:
            raise Corrupt(f"device: expected numbers below {1 << 32}, found {major} and {minor}", spec=layout.SPEC)
        return major, minor

    def _share(self, xattrs: dict[bytes, bytes]) -> Mapping[bytes, bytes]:
        """Return an equal mapping that other nodes may hold too: labels are few, and files are many."""
        self._charge(sum(map(len, xattrs)) + sum(map(len, xattrs.values())))
        key = tuple(sorted(xattrs.items()))
        known = self._shared.get(key)
        if known is None:
            if len(self._shared) >= _MAX_SHARED:
                self._shared.clear()
            known = self._shared[key] = dict(key)
        return known

    def _charge(self, count: int) -> None:
        self._metadata += count
        if self._metadata > MAX_METADATA:
            raise LimitExceeded(f"targets and attributes: expected at most {MAX_METADATA} bytes in all, found more")

    # -- bytes -------------------------------------------------------------------------------------------------

    def _exactly(self, length: int) -> bytes:
        data = self._reader.read(length)
        if len(data) < length:
            raise self._truncated(length - len(data))
        return data

    def _skip(self, length: int) -> None:
        skipped = self._reader.skip(length)
        if skipped < length:
            raise self._truncated(length - skipped)

    def _truncated(self, missing: int) -> Corrupt:
        return truncated(self._reader.position, missing)


def truncated(position: int, missing: int) -> Corrupt:
    """Return the error for an archive that ends at ``position`` though the member has ``missing`` more bytes."""
    return Corrupt(f"tar member: expected {missing} more bytes, found the archive's end", offset=position)


def _length(size: int) -> int:
    if not 0 <= size <= pax.MAX_NUMBER:
        raise Corrupt(f"tar header: size: expected 0 to {pax.MAX_NUMBER} bytes, found {size}", spec=layout.SPEC)
    return size


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _time(seconds: int) -> int:
    if not -pax.MAX_NUMBER <= seconds <= pax.MAX_NUMBER:
        raise Corrupt(f"tar header: mtime: expected at most {pax.MAX_NUMBER} seconds, found {seconds}")
    return seconds * _SECOND
