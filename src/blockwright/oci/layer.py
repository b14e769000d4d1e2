"""One layer: its bytes verified, its entries in order, and then the bodies that are still wanted.

A layer is read twice. ``index`` decodes all of it, hashes what is stored and what comes out, and keeps the entries;
``place_bodies`` decodes it again and hands on the bodies that no layer above has hidden. So nothing of it is kept
on disk in between. A layer that is not compressed is read once, and its bodies are referred to where they lie.

Knows: one layer. Refuses to know: other layers, whiteouts, manifests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from blockwright.errors import ArchiveRejected, FormatError, Rejection, UsageError
from blockwright.oci.manifest import hasher_of
from blockwright.tree.content import EMPTY, Content, Fill, Place, Runs
from blockwright.tree.decompress import MAGIC_LENGTH, DecodedStream, compression_of
from blockwright.tree.node import File, Node
from blockwright.tree.part import ContentReader, PartContent
from blockwright.tree.rules import ArchiveRules, Remarks
from blockwright.tree.tar.archive import Archive, as_rejected
from blockwright.tree.tar.stream import StreamReader

ANY: Final = "any"
"""Stands for a compression that nothing was said about."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as an image refers to it: its stored bytes, and what they must be; None where that is not said."""

    name: str
    number: int
    content: Content
    digest: str | None = None
    diff_id: str | None = None
    compression: str | None = ANY


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of a layer: a node, or for a hard link the name that it stands for."""

    path: bytes
    node: Node | None
    target: bytes = b""


@dataclass(slots=True)
class Indexed:
    """A layer that was read once: ``entries`` in their order; ``mtime_ns`` is the first one's."""

    layer: Layer
    entries: Sequence[Entry]
    mtime_ns: int
    remarks: Remarks


class PendingBody(Content):
    """The ``index``-th body of a layer, which is to be placed when its layer is read again."""

    __slots__ = ("_runs", "index", "layer")

    def __init__(self, layer: Layer, index: int, size: int, runs: Runs) -> None:
        super().__init__(size)
        self._runs = runs
        self.layer = layer
        self.index = index

    def runs(self) -> Runs:
        """Return where data lies."""
        return self._runs

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        """Refuse: it has no place yet."""
        raise UsageError(f"{self.layer.name}: a body that is compressed cannot be read before it is placed")


class _Sink(Protocol):
    def enter(self, path: bytes, node: Node) -> None: ...
    def link(self, path: bytes, target: bytes) -> None: ...


class _Kept:
    """Keeps entries, at most as many as a tree may have."""

    def __init__(self, rules: ArchiveRules) -> None:
        self.entries: list[Entry] = []
        self._left = rules.entries
        self._most = rules.entries

    def enter(self, path: bytes, node: Node) -> None:
        self._take(Entry(path, node))

    def link(self, path: bytes, target: bytes) -> None:
        self._take(Entry(path, None, target))

    def _take(self, entry: Entry) -> None:
        self._left -= 1
        if self._left < 0:
            raise ArchiveRejected(Rejection.ENTRIES, f"layer: expected at most {self._most} entries, found more")
        self.entries.append(entry)


class _Nobody:
    """Keeps nothing."""

    def enter(self, path: bytes, node: Node) -> None: ...
    def link(self, path: bytes, target: bytes) -> None: ...


class Stream:
    """A layer's bytes as they were before compression, hashed on both sides where they are to be verified."""

    def __init__(self, layer: Layer, rules: ArchiveRules, *, verify: bool) -> None:
        self._layer = layer
        self._stored = hasher_of(layer.digest)
        self._plain = hasher_of(layer.diff_id)
        source = ContentReader(layer.content)
        self.decoded = DecodedStream(
            self._hashing(source.read, self._stored) if verify and layer.digest else source.read,
            source=layer.name,
            rules=rules,
        )
        # What is not compressed has one hash, and is read past one hasher.
        self._same = layer.digest is not None and layer.digest == layer.diff_id
        read = self.decoded.read
        self.read = self._hashing(read, self._plain) if verify and layer.diff_id and not self._same else read

    @staticmethod
    def _hashing(read: Callable[[int], bytes], hasher: hashlib._Hash) -> Callable[[int], bytes]:
        def hashed(length: int) -> bytes:
            data = read(length)
            hasher.update(data)
            return data

        return hashed

    def finish(self) -> None:
        """Read to the end, and raise ArchiveRejected where a hash is not what the image says."""
        while self.read(1 << 22):
            pass
        for what, hasher, expected in (
            ("digest", self._stored, self._layer.digest),
            ("diff_id", self._stored if self._same else self._plain, self._layer.diff_id),
        ):
            found = f"{hasher.name}:{hasher.hexdigest()}"
            if expected is not None and expected != found:
                raise ArchiveRejected(Rejection.DIGEST, f"{what}: expected {expected}, found {found}")


def is_plain(layer: Layer) -> bool:
    """Whether the layer's bodies can be read where they lie."""
    head = bytearray(min(MAGIC_LENGTH, layer.content.size))
    layer.content.read_into(0, memoryview(head))
    return compression_of(bytes(head)) is None


def index(layer: Layer, rules: ArchiveRules, *, refer: bool) -> Indexed:
    """Return what a layer holds; with ``refer`` its bodies are read where they lie, else they are pending.

    Raises ArchiveRejected with the layer's number, and what reading it raises.
    """
    kept, remarks = _Kept(rules), Remarks()
    try:
        stream = Stream(layer, rules, verify=True)
        with stream.decoded:
            found = stream.decoded.compression
            if layer.compression not in (ANY, found):
                raise ArchiveRejected(
                    Rejection.MANIFEST,
                    f"compression: expected {layer.compression or 'none'}, found {found or 'none'}",
                )
            reader = StreamReader(stream.read)
            body = _parts(layer.content, reader) if refer and found is None else _pending(layer)
            mtime_ns = _run(reader, body, kept, layer, rules, remarks)
            stream.finish()
    except FormatError as error:
        raise _of_layer(error, layer) from error
    return Indexed(layer, kept.entries, mtime_ns, remarks)


def place_bodies(layer: Layer, rules: ArchiveRules, wanted: Mapping[int, Sequence[File]], place: Place) -> None:
    """Give the nodes ``wanted``, by the index of their body, the content that ``place`` answers for it."""
    stream = Stream(layer, rules, verify=False)
    with stream.decoded:
        reader = StreamReader(stream.read)
        count, left = 0, len(wanted)

        def body(size: int, runs: Runs, _stored: int) -> Content:
            nonlocal count, left
            nodes = wanted.get(count)
            count += 1
            if nodes is None:
                return EMPTY
            content = place(size, runs, _filler(reader))
            for node in nodes:
                node.content = content
            left -= 1
            if not left:
                raise _Enough
            return EMPTY

        try:
            _run(reader, body, _Nobody(), layer, rules, Remarks())
        except _Enough:
            pass
        except FormatError as error:
            raise _of_layer(error, layer) from error


class _Enough(Exception):
    """The last body that is wanted has been placed."""


def _run(
    reader: StreamReader,
    body: Callable[[int, Runs, int], Content],
    sink: _Sink,
    layer: Layer,
    rules: ArchiveRules,
    remarks: Remarks,
) -> int:
    return Archive(reader, body, sink, source=layer.name, rules=rules, remarks=remarks).run()


def _pending(layer: Layer) -> Callable[[int, Runs, int], Content]:
    count = -1

    def body(size: int, runs: Runs, _stored: int) -> Content:
        nonlocal count
        count += 1
        return PendingBody(layer, count, size, tuple(runs))

    return body


def _parts(whole: Content, reader: StreamReader) -> Callable[[int, Runs, int], Content]:
    def body(size: int, runs: Runs, _stored: int) -> Content:
        start, starts = reader.position, []
        for _, length in runs:
            starts.append(start)
            start += length
        return PartContent(whole, size, tuple(runs), starts)

    return body


def _filler(reader: StreamReader) -> Fill:
    def fill(buffer: memoryview) -> None:
        if reader.read_into(buffer) < len(buffer):
            raise ArchiveRejected(Rejection.TRUNCATED, "expected the bytes that were there before, found the end")

    return fill


def _of_layer(error: FormatError, layer: Layer) -> ArchiveRejected:
    found = as_rejected(error, layer.name)
    found.layer = layer.number
    return found
