"""The members of a tar archive, in order, become a tree as an unpacker would make it.

Strict where archives are attacked: a member that claims more bytes than there are, a name that leads upwards, two
headers that say different things about one member, a type that is not known: each is ArchiveRejected, with its byte.
Owners are the numbers in the headers, not the names. As GNU tar does it: a size is ignored where a type has no body,
an archive may end without its two zero blocks, and what lies behind them is not looked at.

Knows: the order of headers, and what each type becomes. Refuses to know: fields (``layout``), records (``pax``),
maps (``sparse``), names (``unpack``), and where the bytes come from (``stream``).
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from typing import Final, NoReturn, Protocol

from blockwright.errors import ArchiveRejected, FormatError, LimitExceeded, NotThisFormat, Rejection
from blockwright.tree.content import EMPTY, Content, Runs
from blockwright.tree.node import MAX_ID, NO_XATTRS, Directory, File, Node, Special, Symlink
from blockwright.tree.rules import ArchiveRules, Remarks
from blockwright.tree.tar import layout, pax, sparse
from blockwright.tree.tar.acl import permissions_of_acl
from blockwright.tree.tar.layout import BLOCK, ZERO_BLOCK, Header, parse_header
from blockwright.tree.tar.stream import Reader
from blockwright.tree.unpack import MAX_TARGET, show

_NO_EXTENSION: Final = pax.Extended()
_SECOND: Final = 1_000_000_000
_SPECIALS: Final = {layout.CHARACTER: stat.S_IFCHR, layout.BLOCK_DEVICE: stat.S_IFBLK, layout.FIFO: stat.S_IFIFO}
_FILES: Final = frozenset({layout.REGULAR, layout.OLD_REGULAR, layout.CONTIGUOUS, layout.GNU_SPARSE})
_MEMBERS: Final = (
    _FILES | _SPECIALS.keys() | {layout.LINK, layout.SYMLINK, layout.DIRECTORY, layout.GNU_DUMP_DIRECTORY}
)
_SATURATED: Final = (1 << 33) - 1
"""The most that eleven octal digits say, and as a mask what is left of a larger number in them."""
_SATURATED_GNU: Final = (1 << 36) - 1
_ACL: Final = b"system.posix_acl_access"
_MAX_SHARED: Final = 4096

Body = Callable[[int, Runs, int], Content]
"""``body(size, runs, stored)`` answers the content of the ``stored`` bytes that the reader stands before."""


class Sink(Protocol):
    """Takes members in their order: ``Unpacker``, or whoever keeps them for later."""

    def enter(self, path: bytes, node: Node) -> None:
        """Have ``node`` at ``path``."""

    def link(self, path: bytes, target: bytes) -> None:
        """Have at ``path`` what ``target`` stands for now."""


class Archive:
    """One pass over the archive that ``reader`` gives, within ``rules``; members go to ``sink``.

    ``source`` is what messages call it; ``remarks`` takes what was dropped.
    """

    def __init__(
        self, reader: Reader, body: Body, sink: Sink, *, source: str, rules: ArchiveRules, remarks: Remarks
    ) -> None:
        self._reader = reader
        self._body = body
        self._sink = sink
        self._source = source
        self._rules = rules
        self._remarks = remarks
        self._left = rules.size
        self._offset = 0
        self._first_mtime_ns: int | None = None
        self._sparse_runs = 0
        self._metadata = 0
        self._shared: dict[tuple[tuple[bytes, bytes], ...], Mapping[bytes, bytes]] = {}
        self._forget_described()

    def run(self) -> int:
        """Hand all members to the sink, and return the first one's time, 0 where there is none.

        Raises ArchiveRejected with source, entry and byte, NotThisFormat.
        """
        read = self._reader.read
        header: Header | None = None
        try:
            while True:
                self._offset = self._reader.position
                block = read(BLOCK)
                if block == ZERO_BLOCK or len(block) < BLOCK:
                    header = None
                    self._end(block)
                    return self._first_mtime_ns or 0
                header = None
                header = self._parse(block)
                if header.type in _MEMBERS:
                    self._member(block, header)
                else:
                    self._describe(header)
        except FormatError as error:
            self._refuse(error, header)

    def _refuse(self, error: FormatError, header: Header | None) -> NoReturn:
        """Raise what ended the pass with all that is known about it."""
        if error.offset is None:
            error.offset = self._offset
        if isinstance(error, NotThisFormat):
            error.source = error.source or self._source
            raise error
        found = as_rejected(error, self._source)
        if found.entry is None and header is not None:
            extended = self._extended or _NO_EXTENSION
            found.entry = self._long_name or extended.path or header.name
        raise found from (None if found is error else error)

    def _parse(self, block: bytes) -> Header:
        try:
            return parse_header(block)
        except ArchiveRejected as error:
            if self._offset == 0 and not layout.has_magic(block):
                raise NotThisFormat("expected a tar header, found none", spec=layout.SPEC) from error
            raise

    def _end(self, block: bytes) -> None:
        """Accept what ended the members: two zero blocks, one and no more, or nothing at all."""
        if self._offset == 0 and len(block) < BLOCK:
            raise NotThisFormat(f"expected a tar header of {BLOCK} bytes, found {len(block)}", spec=layout.SPEC)
        if self._described_at is not None:
            raise ArchiveRejected(
                Rejection.EXTENDED,
                "extended header: expected a member behind it, found the end",
                offset=self._described_at,
            )
        if 0 < len(block) < BLOCK:
            raise ArchiveRejected(
                Rejection.HEADER, f"tar header: expected {BLOCK} bytes, found {len(block)}", spec=layout.SPEC
            )
        if block and self._reader.read(BLOCK) not in (b"", ZERO_BLOCK):
            raise ArchiveRejected(
                Rejection.HEADER, "tar end: expected two zero blocks, found one and something else", spec=layout.SPEC
            )

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
            self._records(header, pax.parse_global)
            return
        if kind == layout.GNU_VOLUME:
            self._skip(_padded(_length(header.size)))
            return
        if self._described_at is None:
            self._described_at = self._offset
        if kind in (layout.PAX, layout.SOLARIS_PAX):
            if self._extended is not None:
                raise ArchiveRejected(
                    Rejection.EXTENDED, "extended header: expected one for a member, found two", spec=pax.SPEC
                )
            self._extended = self._records(header, pax.parse_records)
        elif kind == layout.GNU_LONG_NAME:
            if self._long_name is not None:
                raise ArchiveRejected(
                    Rejection.NAME, "long name: expected one for a member, found two", spec=layout.SPEC_GNU
                )
            self._long_name = self._long(header)
        elif kind == layout.GNU_LONG_LINK:
            if self._long_link is not None:
                raise ArchiveRejected(
                    Rejection.LINK, "long link target: expected one for a member, found two", spec=layout.SPEC_GNU
                )
            self._long_link = self._long(header)
        elif kind == layout.GNU_MULTI_VOLUME:
            raise ArchiveRejected(Rejection.TYPE, f"{show(header.name)}: continues a member of an earlier volume")
        else:
            raise ArchiveRejected(
                Rejection.TYPE, f"{show(header.name)}: type: expected one that is known, found {kind!r}"
            )

    def _records(self, header: Header, parse: Callable[[bytes], pax.Extended]) -> pax.Extended:
        if header.size > self._rules.header:
            raise ArchiveRejected(
                Rejection.HEADER_BYTES,
                f"extended header: expected at most {self._rules.header} bytes, found {header.size}",
            )
        start = self._reader.position
        body = self._described_body(header)
        try:
            return parse(body)
        except FormatError as error:
            error.offset = start + (error.offset or 0)
            raise

    def _long(self, header: Header) -> bytes:
        """Return a GNU long name, without the NUL that ends it."""
        if header.size > self._rules.path + 1:
            raise ArchiveRejected(
                Rejection.NAME, f"long name: expected at most {self._rules.path} bytes, found {header.size}"
            )
        name = self._described_body(header).rstrip(b"\0")
        if b"\0" in name:
            raise ArchiveRejected(
                Rejection.NAME, f"long name: expected no NUL, found {show(name)}", spec=layout.SPEC_GNU
            )
        return name

    def _described_body(self, header: Header) -> bytes:
        size = _length(header.size)
        body = self._exactly(_padded(size))
        return body[:size]

    # -- members -----------------------------------------------------------------------------------------------

    def _member(self, block: bytes, header: Header) -> None:
        # Most members of most archives have one header, and no question asked about others costs anything then.
        extended = self._extended or _NO_EXTENSION
        plain = extended is _NO_EXTENSION and self._long_name is None
        path = header.name if plain else self._name(header, extended)
        kind = header.type
        mtime_ns = extended.mtime_ns
        if mtime_ns is None:
            mtime_ns = _time(header.mtime)
        if self._first_mtime_ns is None:
            self._first_mtime_ns = mtime_ns
        if kind == layout.LINK:
            self._sink.link(path, self._target(header, extended))
        else:
            uid = header.uid if extended.uid is None else extended.uid
            gid = header.gid if extended.gid is None else extended.gid
            if not 0 <= uid <= MAX_ID or not 0 <= gid <= MAX_ID:
                raise ArchiveRejected(
                    Rejection.OWNER, f"{show(path)}: owner: expected ids from 0 to {MAX_ID}, found {uid} and {gid}"
                )
            permissions = header.mode & 0o7777
            xattrs = NO_XATTRS
            if extended.xattrs:
                xattrs = self._share(extended.xattrs)
                if _ACL in xattrs:
                    permissions = permissions & 0o7000 | _permissions(xattrs[_ACL])
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
            self._sink.enter(path, node)
        if self._described_at is not None:
            self._forget_described()

    def _name(self, header: Header, extended: pax.Extended) -> bytes:
        """Return the member's name, which several headers may give."""
        name = header.name
        if self._long_name is not None:
            name = self._long_name
            if extended.path is not None and extended.path != name:
                raise ArchiveRejected(
                    Rejection.NAME, f"name: expected {show(name)} in both headers, found {show(extended.path)}"
                )
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
                raise ArchiveRejected(
                    Rejection.LINK,
                    f"link target: expected {show(target)} in both headers, found {show(extended.link)}",
                )
        elif extended.link is not None:
            target = extended.link
        if not target:
            raise ArchiveRejected(
                Rejection.LINK, f"{show(header.name)}: link target: expected one, found none", spec=layout.SPEC
            )
        if header.type == layout.SYMLINK and len(target) > MAX_TARGET:
            raise ArchiveRejected(
                Rejection.LINK, f"link target: expected at most {MAX_TARGET} bytes, found {len(target)}"
            )
        return target

    def _content(self, block: bytes, header: Header, extended: pax.Extended) -> Content:
        """Return the content of a regular file, and stand behind its body."""
        reader = self._reader
        stored = _length(header.size if extended.size is None else self._pax_size(header.size, extended.size))
        size = stored
        runs: Runs = ((0, stored),)
        end = reader.position + _padded(stored)
        padding = -stored % BLOCK
        if header.type == layout.GNU_SPARSE:
            found = sparse.read_gnu_map(block, stored, self._exactly)
            size, runs, stored, end = self._sparse(found, stored, end + found.consumed)
        elif extended is not _NO_EXTENSION and sparse.is_sparse(extended):
            found = sparse.read_pax_map(extended, stored, self._exactly)
            size, runs, stored, end = self._sparse(found, stored - found.consumed, end)
        self._left -= size
        if self._left < 0:
            raise ArchiveRejected(
                Rejection.BYTES, f"size: expected files of at most {self._rules.size} bytes in all, found more"
            )
        content = self._body(size, runs, stored) if size else EMPTY
        if reader.position != end:
            self._pass(end - reader.position, padding)
        return content

    def _pax_size(self, size: int, extended: int) -> int:
        """Return the size that an extended header gives, where the header's own field can be a stand-in for it.

        What cannot hold the size is written as zero, as the largest number, or cut to its low bits. Anything else
        would be a second size, by which another reader finds other members.
        """
        if size != extended and size not in (0, _SATURATED, _SATURATED_GNU) and size != extended & _SATURATED:
            raise ArchiveRejected(
                Rejection.SIZE, f"size: expected {extended} in both headers, found {size}", spec=pax.SPEC
            )
        return extended

    def _sparse(self, found: sparse.SparseMap, stored: int, end: int) -> tuple[int, Runs, int, int]:
        self._sparse_runs += found.declared
        if self._sparse_runs > pax.MAX_SPARSE_RUNS:
            raise ArchiveRejected(
                Rejection.SPARSE, f"sparse maps: expected at most {pax.MAX_SPARSE_RUNS} runs in all, found more"
            )
        return found.size, found.runs, stored, end

    def _directory_body(self, path: bytes, header: Header, extended: pax.Extended) -> None:
        """Pass over what a GNU dump lists in a directory; a file that a slash makes a directory has no body."""
        size = _length(header.size if extended.size is None else extended.size)
        if header.type == layout.GNU_DUMP_DIRECTORY:
            self._skip(_padded(size))
        elif header.type != layout.DIRECTORY and size:
            raise ArchiveRejected(
                Rejection.SIZE,
                f"{show(path)}: expected a directory to have no body, found {size} bytes",
                spec=layout.SPEC,
            )

    def _device_numbers(self, header: Header) -> tuple[int, int]:
        if header.type == layout.FIFO:
            return 0, 0
        major, minor = layout.number(header.major, "devmajor"), layout.number(header.minor, "devminor")
        if not 0 <= major < 1 << 32 or not 0 <= minor < 1 << 32:
            raise ArchiveRejected(
                Rejection.DEVICE,
                f"device: expected numbers below {1 << 32}, found {major} and {minor}",
                spec=layout.SPEC,
            )
        return major, minor

    def _share(self, xattrs: dict[bytes, bytes]) -> Mapping[bytes, bytes]:
        """Return what is kept, as a mapping that other nodes may hold too: labels are few, and files are many."""
        dropped = [name for name in xattrs if not self._rules.keeps_xattr(name)]
        for name in dropped:
            self._remarks.dropped_xattrs[name] += 1
            del xattrs[name]
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
        if self._metadata > self._rules.metadata:
            raise ArchiveRejected(
                Rejection.METADATA_BYTES,
                f"targets and attributes: expected at most {self._rules.metadata} bytes in all, found more",
            )

    # -- bytes -------------------------------------------------------------------------------------------------

    def _exactly(self, length: int) -> bytes:
        data = self._reader.read(length)
        if len(data) < length:
            raise self._truncated(length - len(data))
        return data

    def _pass(self, length: int, padding: int) -> None:
        """Stand behind a body. Behind the last one the whole padding may be missing: some writers leave it out."""
        missing = length - self._reader.skip(length)
        if missing not in (0, padding):
            raise self._truncated(missing)

    def _skip(self, length: int) -> None:
        skipped = self._reader.skip(length)
        if skipped < length:
            raise self._truncated(length - skipped)

    def _truncated(self, missing: int) -> ArchiveRejected:
        return truncated(self._reader.position, missing)


def as_rejected(error: FormatError, source: str) -> ArchiveRejected:
    """Return the rejection that an error of a decoder, or of any part of the reader, means."""
    if isinstance(error, ArchiveRejected):
        error.source = error.source or source
        return error
    reason = Rejection.MEMORY if isinstance(error, LimitExceeded) else Rejection.COMPRESSION
    text, where = str(error.args[0]), error.source or source
    return ArchiveRejected(reason, text, source=where, offset=error.offset, spec=error.spec)


def _permissions(acl: bytes) -> int:
    try:
        return permissions_of_acl(acl)
    except FormatError as error:
        raise ArchiveRejected(Rejection.XATTR, str(error.args[0]), spec=error.spec) from error


def truncated(position: int, missing: int) -> ArchiveRejected:
    """Return the error for an archive that ends at ``position`` though the member has ``missing`` more bytes."""
    return ArchiveRejected(
        Rejection.TRUNCATED, f"tar member: expected {missing} more bytes, found the archive's end", offset=position
    )


def _length(size: int) -> int:
    if not 0 <= size <= pax.MAX_NUMBER:
        raise ArchiveRejected(
            Rejection.SIZE, f"tar header: size: expected 0 to {pax.MAX_NUMBER} bytes, found {size}", spec=layout.SPEC
        )
    return size


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _time(seconds: int) -> int:
    if not -pax.MAX_NUMBER <= seconds <= pax.MAX_NUMBER:
        raise ArchiveRejected(
            Rejection.TIME, f"tar header: mtime: expected at most {pax.MAX_NUMBER} seconds, found {seconds}"
        )
    return seconds * _SECOND
