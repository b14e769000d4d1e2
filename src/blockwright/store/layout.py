"""A disk in many objects: what is written in its root and in its pages, as JSON (schema ``blockwright-bucket/1``).

Below the disk's key lie ``root``, ``pages/NAME`` and ``chunks/NAME``. A chunk is a fixed number of bytes of the disk,
zeros where it has no object. A page names the objects of ``PAGE_CHUNKS`` chunks, the root the objects of all pages.
Chunks and pages are written once, under names that were never used; only the root is replaced, on the condition that
it is what the writer last saw. So a root names a whole state of the disk, old or new, and nothing in between.

Knows: names and JSON. Refuses to know: how objects are fetched.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NamedTuple

from blockwright.errors import Corrupt, LimitExceeded, Unsupported, UsageError
from blockwright.units import KiB, MiB, TiB, ceil_div

SCHEMA: Final = "blockwright-bucket/1"
SPEC: Final = "docs/store.md"

PAGE_CHUNKS: Final = 1024
"""Chunks that a page names."""
MIN_CHUNK: Final = 64 * KiB
MAX_CHUNK: Final = 64 * MiB
CHUNK: Final = MiB
"""Bytes of a chunk where nothing else is asked for: small enough to fetch for one block, large enough to stream."""
MAX_SIZE: Final = 64 * TiB
MAX_ROOT: Final = 16 * MiB
"""Bytes of a root at most."""
MAX_PAGES: Final = 65536
"""Pages that a root names at most, each in less than 256 bytes."""
MAX_PAGE: Final = 256 * KiB
"""Bytes of a page at most."""
_MAX_ETAG: Final = 128
_NAME: Final = re.compile(r"[0-9a-f]{16}-[0-9]{1,15}")


class Ref(NamedTuple):
    """An object: its name, the entity tag it got, and CRC-32C of its bytes."""

    name: str
    etag: str | None
    crc32c: int


@dataclass(frozen=True, slots=True)
class Writer:
    """Who has the disk open for writing: ``session`` is new each time, ``since`` seconds after 1970."""

    session: str
    host: str
    process: int
    since: int

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


@dataclass(frozen=True, slots=True)
class Root:
    """A state of the disk. ``serial`` counts states; ``pages`` has those that name an object."""

    size: int
    chunk: int
    serial: int
    pages: dict[int, Ref]
    writer: Writer | None = None

    @property
    def chunks(self) -> int:
        """The chunks of the disk, those without an object included; the last may be shorter."""
        return ceil_div(self.size, self.chunk)

    def with_writer(self, writer: Writer | None) -> Root:
        """Return the next state, which differs in its writer only."""
        return replace(self, writer=writer, serial=self.serial + 1)


def check_shape(size: int, chunk: int) -> None:
    """Raise UsageError for what no disk in a bucket can be."""
    if not 0 < size <= MAX_SIZE:
        raise UsageError(f"bucket: expected a size of 1 to {MAX_SIZE} bytes, found {size}")
    if not MIN_CHUNK <= chunk <= MAX_CHUNK or chunk & (chunk - 1):
        raise UsageError(f"bucket: expected chunks of a power of two from {MIN_CHUNK} to {MAX_CHUNK}, found {chunk}")
    if ceil_div(size, chunk * PAGE_CHUNKS) > MAX_PAGES:
        raise UsageError(f"bucket: expected larger chunks for {size} bytes, found {chunk}")


def root_key(key: str) -> str:
    """Return the key of the root of the disk at ``key``."""
    return f"{key}/root"


def page_key(key: str, name: str) -> str:
    """Return the key of a page."""
    return f"{key}/pages/{name}"


def chunk_key(key: str, name: str) -> str:
    """Return the key of a chunk."""
    return f"{key}/chunks/{name}"


def encode_root(root: Root) -> bytes:
    """Return the root's bytes."""
    return _encode(
        {
            "schema": SCHEMA,
            "size": root.size,
            "chunk": root.chunk,
            "serial": root.serial,
            "writer": None if root.writer is None else asdict(root.writer),
            "pages": {str(number): list(ref) for number, ref in sorted(root.pages.items())},
        }
    )


def decode_root(data: bytes) -> Root:
    """Return the root of its bytes. Raises Unsupported for another schema, Corrupt, LimitExceeded."""
    if len(data) > MAX_ROOT:
        raise LimitExceeded(f"root: expected at most {MAX_ROOT} bytes, found {len(data)}", spec=SPEC)
    document = _decode(data, "root")
    if document.get("schema") != SCHEMA:
        raise Unsupported(f"root: expected {SCHEMA}, found {str(document.get('schema'))[:64]!r}", spec=SPEC)
    size, chunk = _count(document, "size", MAX_SIZE), _count(document, "chunk", MAX_CHUNK)
    try:
        check_shape(size, chunk)
    except UsageError as error:
        raise Corrupt(str(error), spec=SPEC) from None
    pages = _refs(document, "pages", 0, ceil_div(size, chunk * PAGE_CHUNKS))
    return Root(size, chunk, _count(document, "serial", 1 << 53), pages, _writer(document.get("writer")))


def encode_page(chunks: dict[int, Ref]) -> bytes:
    """Return a page's bytes; ``chunks`` go by their numbers on the disk."""
    return _encode({"schema": SCHEMA, "chunks": {str(number): list(ref) for number, ref in sorted(chunks.items())}})


def decode_page(data: bytes, number: int, root: Root) -> dict[int, Ref]:
    """Return the chunks that page ``number`` names. Raises Corrupt."""
    document = _decode(data, f"page {number}")
    first = number * PAGE_CHUNKS
    return _refs(document, "chunks", first, min(first + PAGE_CHUNKS, root.chunks))


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _decode(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{what}: expected JSON, found {str(error)[:80]}", spec=SPEC) from None
    if not isinstance(document, dict):
        raise Corrupt(f"{what}: expected an object, found {type(document).__name__}", spec=SPEC)
    return document


def _count(document: dict[str, Any], name: str, most: int) -> int:
    value = document.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise Corrupt(f"root: {name}: expected 0 to {most}, found {str(value)[:64]!r}", spec=SPEC)
    return value


def _refs(document: dict[str, Any], name: str, first: int, end: int) -> dict[int, Ref]:
    found = document.get(name)
    if not isinstance(found, dict):
        raise Corrupt(f"{name}: expected an object, found {type(found).__name__}", spec=SPEC)
    refs: dict[int, Ref] = {}
    for number, value in found.items():
        if not (number.isascii() and number.isdecimal() and len(number) <= 12 and first <= int(number) < end):
            raise Corrupt(f"{name}: expected numbers from {first} to {end - 1}, found {number[:64]!r}", spec=SPEC)
        refs[int(number)] = _ref(value, name)
    return refs


def _ref(value: Any, what: str) -> Ref:
    match value:
        case [str(name), str() | None as etag, int(crc)] if (
            _NAME.fullmatch(name) and len(etag or "") <= _MAX_ETAG and 0 <= crc < 1 << 32
        ):
            return Ref(name, etag, crc)
    raise Corrupt(f"{what}: expected [name, etag, crc32c], found {str(value)[:64]!r}", spec=SPEC)


def _writer(value: Any) -> Writer | None:
    match value:
        case None:
            return None
        case {"session": str(session), "host": str(host), "process": int(process), "since": int(since)}:
            return Writer(session[:64], host[:256], process, since)
    raise Corrupt(f"writer: expected session, host, process and since, found {str(value)[:64]!r}", spec=SPEC)
