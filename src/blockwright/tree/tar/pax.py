"""Extended headers (typeflag ``x`` and ``g``): ``length keyword=value`` records about the member that follows.

Knows: which keywords there are and the exact form of each value, among them extended attributes as GNU tar, star
and libarchive write them. Refuses to know: which member they belong to.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Final

from blockwright.errors import ArchiveRejected, FormatError, Rejection
from blockwright.tree.tar.acl import acl_from_text

MAX_XATTRS: Final = 1024
"""Extended attributes of one member."""
MAX_XATTR_NAME: Final = 255
MAX_XATTR_VALUE: Final = 65536
"""As Linux limits them (XATTR_NAME_MAX, XATTR_SIZE_MAX)."""
MAX_SPARSE_RUNS: Final = 1 << 20
"""Runs of data in all sparse members of an archive together."""
MAX_NUMBER: Final = (1 << 63) - 1

SPEC: Final = "POSIX.1-2017 pax, pax Extended Header"
_TIME: Final = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?").fullmatch
_SELINUX: Final = b"security.selinux"


class Extended:
    """What extended headers say about a member; None where they say nothing."""

    __slots__ = ("acls", "gid", "link", "mtime_ns", "path", "size", "sparse", "sparse_runs", "uid", "xattrs")

    def __init__(self) -> None:
        self.path: bytes | None = None
        self.link: bytes | None = None
        self.size: int | None = None
        self.sparse: dict[bytes, bytes] | None = None
        self.sparse_runs: list[int] | None = None
        """Offset, length, offset, length … of sparse format 0.0, which repeats two keywords for each run."""
        self.uid: int | None = None
        self.gid: int | None = None
        self.mtime_ns: int | None = None
        self.xattrs: dict[bytes, bytes] = {}
        self.acls: dict[bytes, tuple[int, bytes]] | None = None
        """Where each ACL's text began, and the text, by the name of the attribute that it is to become."""


def parse_records(body: bytes) -> Extended:
    """Return what the records of an ``x`` header say. Raises FormatError with the byte in it."""
    return _parse(body, _LOCAL)


def parse_global(body: bytes) -> Extended:
    """Take a ``g`` header that says nothing about members, and return that.

    A comment says nothing, and neither does what is not known. Whatever else it is, readers differ on it: GNU tar and
    libarchive apply it to what follows, Go's and others do not. So it is refused.
    """
    return _parse(body, _GLOBAL)


def _parse(body: bytes, keywords: Mapping[bytes, Setter]) -> Extended:
    found = Extended()
    position, size = 0, len(body)
    while position < size:
        space = body.find(b" ", position, position + 10)
        digits = body[position:space]
        end = position + int(digits) if space > 0 and digits.isdigit() else 0
        equals = body.find(b"=", space + 1, max(end - 1, 0))
        if equals <= space + 1 or end > size or body[end - 1] != 0x0A:
            raise ArchiveRejected(
                Rejection.EXTENDED,
                "extended header: expected a record 'length keyword=value'",
                offset=position,
                spec=SPEC,
            )
        keyword, value = body[space + 1 : equals], body[equals + 1 : end - 1]
        try:
            setter = keywords.get(keyword)
            if setter is not None:
                setter(found, value)
            elif keyword in _ACLS:
                found.acls = {**(found.acls or {}), _ACLS[keyword]: (position, value)}
            elif keyword.startswith(_PREFIXES):
                _prefixed(found, keyword, value, keywords)
        except FormatError as error:
            error.offset = position
            raise
        position = end
    if found.acls is not None:
        _finish_acls(found, found.acls)
    return found


Setter = Callable[[Extended, bytes], None]


def _prefixed(found: Extended, keyword: bytes, value: bytes, keywords: Mapping[bytes, Setter]) -> None:
    if keywords is _GLOBAL:
        _refuse_globally(found, value)
    elif keyword.startswith(_SCHILY):
        # '=' cannot stand in a keyword, so GNU tar writes it, and '%', in hexadecimal.
        name = keyword[len(_SCHILY) :].replace(b"%3D", b"=").replace(b"%25", b"%")
        _set_xattr(found, name, value)
    elif keyword.startswith(_LIBARCHIVE):
        from urllib.parse import unquote_to_bytes  # as slow to import as all the rest of this, and seldom needed

        name = unquote_to_bytes(keyword[len(_LIBARCHIVE) :])
        try:
            decoded = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error as error:
            raise ArchiveRejected(Rejection.XATTR, f"{_text(keyword)}: expected base64: {error}") from error
        _set_xattr(found, name, decoded)
    else:
        sparse = found.sparse = {} if found.sparse is None else found.sparse
        sparse[keyword] = value


_SCHILY: Final = b"SCHILY.xattr."
_LIBARCHIVE: Final = b"LIBARCHIVE.xattr."
_PREFIXES: Final = (_SCHILY, _LIBARCHIVE, b"GNU.sparse.")


def _set_xattr(found: Extended, name: bytes, value: bytes) -> None:
    if not name or b"\0" in name:
        raise ArchiveRejected(
            Rejection.XATTR, f"extended attribute: expected a name without NUL, found {name[:64]!r}"
        )
    if len(name) > MAX_XATTR_NAME:
        raise ArchiveRejected(
            Rejection.METADATA_BYTES,
            f"extended attribute: name: expected at most {MAX_XATTR_NAME} bytes, found {len(name)}",
        )
    if len(value) > MAX_XATTR_VALUE:
        raise ArchiveRejected(
            Rejection.METADATA_BYTES,
            f"extended attribute {_text(name)}: expected at most {MAX_XATTR_VALUE} bytes, found {len(value)}",
        )
    found.xattrs[name] = value
    if len(found.xattrs) > MAX_XATTRS:
        raise ArchiveRejected(
            Rejection.METADATA_BYTES, f"extended attributes: expected at most {MAX_XATTRS}, found more"
        )


def _set_path(found: Extended, value: bytes) -> None:
    found.path = _name(value) if value else None


def _set_link(found: Extended, value: bytes) -> None:
    found.link = _name(value) if value else None


def _name(value: bytes) -> bytes:
    if b"\0" in value:
        raise ArchiveRejected(
            Rejection.EXTENDED, f"extended header: expected a name without NUL, found {value[:64]!r}", spec=SPEC
        )
    return value


def _set_size(found: Extended, value: bytes) -> None:
    found.size = decimal(value, "size") if value else None


def _set_uid(found: Extended, value: bytes) -> None:
    found.uid = decimal(value, "uid") if value else None


def _set_gid(found: Extended, value: bytes) -> None:
    found.gid = decimal(value, "gid") if value else None


def _set_mtime(found: Extended, value: bytes) -> None:
    found.mtime_ns = parse_time(value) if value else None


def _set_selinux(found: Extended, value: bytes) -> None:
    _set_xattr(found, _SELINUX, value.rstrip(b"\0") + b"\0")


def _finish_acls(found: Extended, acls: dict[bytes, tuple[int, bytes]]) -> None:
    """Turn texts into attributes, unless the attributes were given themselves, which say more: numbers for names."""
    for name, (position, text) in acls.items():
        if name not in found.xattrs:
            try:
                acl = acl_from_text(text)
            except FormatError as error:
                raise ArchiveRejected(
                    Rejection.XATTR, str(error.args[0]), offset=position, spec=error.spec
                ) from error
            if acl is not None:
                _set_xattr(found, name, acl)


def _refuse_nfs4(_found: Extended, _value: bytes) -> None:
    raise ArchiveRejected(
        Rejection.XATTR, "extended header: SCHILY.acl.ace: NFSv4 access control lists have no place in the tree"
    )


def _refuse_globally(_found: Extended, _value: bytes) -> None:
    raise ArchiveRejected(
        Rejection.EXTENDED, "extended header: expected a global one to be a comment, found one that changes members"
    )


def _sparse_number(parity: int) -> Setter:
    def setter(found: Extended, value: bytes) -> None:
        runs = found.sparse_runs = [] if found.sparse_runs is None else found.sparse_runs
        if len(runs) % 2 != parity:
            raise ArchiveRejected(Rejection.SPARSE, "sparse map: expected offsets and lengths in turn", spec=SPEC)
        runs.append(decimal(value, "sparse map"))
        if len(runs) > 2 * MAX_SPARSE_RUNS:
            raise ArchiveRejected(
                Rejection.SPARSE, f"sparse map: expected at most {MAX_SPARSE_RUNS} runs, found more"
            )

    return setter


def decimal(value: bytes, what: str) -> int:
    """Return the number that ``value`` is: decimal digits, at most 2**63 - 1."""
    if not value.isdigit() or len(value) > 19 or int(value) > MAX_NUMBER:
        raise ArchiveRejected(
            Rejection.EXTENDED,
            f"{what}: expected a decimal number up to {MAX_NUMBER}, found {value[:32]!r}",
            spec=SPEC,
        )
    return int(value)


def parse_time(value: bytes) -> int:
    """Return nanoseconds for ``seconds[.fraction]``; what is finer is cut off downwards."""
    match = _TIME(value)
    if match is None or int(match[2]) > MAX_NUMBER:
        raise ArchiveRejected(
            Rejection.TIME, f"mtime: expected seconds with an optional fraction, found {value[:32]!r}", spec=SPEC
        )
    fraction = match[3] or b""
    nanoseconds = int(match[2]) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    if not match[1]:
        return nanoseconds
    return -nanoseconds - (1 if fraction[9:].strip(b"0") else 0)


def _text(name: bytes) -> str:
    return ascii(name[:64].decode("utf-8", "surrogateescape"))[1:-1]


_LOCAL: Final[Mapping[bytes, Setter]] = {
    b"path": _set_path,
    b"linkpath": _set_link,
    b"size": _set_size,
    b"uid": _set_uid,
    b"gid": _set_gid,
    b"mtime": _set_mtime,
    b"RHT.security.selinux": _set_selinux,
    b"SCHILY.acl.ace": _refuse_nfs4,
    b"GNU.sparse.offset": _sparse_number(0),
    b"GNU.sparse.numbytes": _sparse_number(1),
}
_ACLS: Final = {
    b"SCHILY.acl.access": b"system.posix_acl_access",
    b"SCHILY.acl.default": b"system.posix_acl_default",
}
_GLOBAL: Final[Mapping[bytes, Setter]] = {
    **dict.fromkeys([*_LOCAL, *_ACLS], _refuse_globally),
}
