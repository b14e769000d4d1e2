"""An image in a registry becomes one on disk: what is meant is chosen, and its blobs are fetched, several at once.

What comes out is a tree in the form of an OCI layout with this one image, whose blobs are files of the store; from
there on it is read as any image on disk, and verified again.

Knows: the order of requests. Refuses to know: HTTP (``registry``), files (``blobs``), layers.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, Final

from blockwright.errors import ArchiveRejected, Cancelled, IntegrityError, Rejection
from blockwright.oci.blobs import BlobStore, Fetch
from blockwright.oci.choice import Choice
from blockwright.oci.image import choose
from blockwright.oci.manifest import (
    ALGORITHMS,
    INDEX_TYPES,
    MAX_DOCUMENT,
    Descriptor,
    Manifest,
    digest_of,
    parse_index,
    parse_manifest,
)
from blockwright.oci.reference import Reference
from blockwright.oci.registry import Registry
from blockwright.tree.content import BytesContent
from blockwright.tree.hostfile import HostFile
from blockwright.tree.node import Directory, File
from blockwright.tree.ranges import hastened

AT_ONCE: Final = 4
"""Blobs that are fetched at once."""
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_MAX_INDEXES: Final = 4
"""Indexes in one another."""


def pull(registry: Registry, reference: Reference, store: BlobStore, choice: Choice) -> Directory:
    """Return the image that ``reference`` and the platform of ``choice`` mean as an OCI layout that lacks nothing.

    Raises what ``Registry`` and ``BlobStore`` raise, NotFound where no image fits, ArchiveRejected for documents that
    do not hold.
    """
    return stored(store, fetch(registry, reference, store, choice))


def fetch(
    registry: Registry,
    reference: Reference,
    store: BlobStore,
    choice: Choice,
    progress: Callable[[int, int], None] | None = None,
) -> Descriptor:
    """Have every blob of the image that is meant in the store, and return what refers to its manifest.

    ``progress`` is told bytes that came, and how many the image has, by any thread; what it raises ends all of them.
    Raises as ``pull`` does.
    """
    described, manifest = _find(registry, reference, store, choice)
    wanted = list({each.digest: each for each in (manifest.config, *manifest.layers)}.values())

    stopped, lock, came = threading.Event(), threading.Lock(), 0
    whole = sum(each.size for each in wanted)

    def tell(size: int) -> None:
        nonlocal came
        if progress is not None:
            with lock:
                came += size
            progress(min(came, whole), whole)

    def obtain(blob: Descriptor) -> str:
        return store.obtain(
            blob.digest,
            blob.size,
            lambda start: _until(stopped, tell, _fetched(registry, blob, start)),
        )

    with ThreadPoolExecutor(min(AT_ONCE, len(wanted)), "blob") as threads:
        futures = [threads.submit(obtain, blob) for blob in wanted]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            stopped.set()
            for future in futures:
                future.cancel()
            raise
    return described


def stored(store: BlobStore, described: Descriptor) -> Directory:
    """Return an image whose blobs were fetched as an OCI layout; no registry is asked.

    Raises FileNotFoundError where a blob is gone, IntegrityError where the manifest is not what it was.
    """
    with open(store.path(described.digest), "rb") as file:
        data = file.read(MAX_DOCUMENT + 1)
    found = digest_of(data, described.digest)
    if found != described.digest:
        raise IntegrityError(f"manifest: expected {described.digest}, found {found}")
    manifest = parse_manifest(data)
    return _layout(described, [described, manifest.config, *manifest.layers], store)


@contextmanager
def _fetched(registry: Registry, blob: Descriptor, start: int) -> Iterator[tuple[int, Iterator[memoryview]]]:
    """A context as ``Registry.blob`` gives one, in which a slow blob comes over several connections."""

    def part(low: int, high: int) -> bytes:
        return registry.part(blob.digest, low, high, blob.size)

    with (
        registry.blob(blob.digest, start, blob.size) as (begins, pieces),
        closing(hastened(pieces, begins, blob.size, part)) as quicker,
    ):
        yield begins, quicker


@contextmanager
def _until(
    stopped: threading.Event,
    tell: Callable[[int], None],
    blob: AbstractContextManager[tuple[int, Iterator[memoryview]]],
) -> Iterator[tuple[int, Iterator[memoryview]]]:
    """A context with the same bytes, each piece told of; they end by Cancelled where another blob has failed or the
    user is gone.
    """

    def pieces_until(pieces: Iterator[memoryview]) -> Iterator[memoryview]:
        for piece in pieces:
            if stopped.is_set():
                raise Cancelled("blob: is not wanted any more")
            tell(len(piece))
            yield piece

    with blob as (start, pieces):
        yield start, pieces_until(pieces)


def _find(registry: Registry, reference: Reference, store: BlobStore, choice: Choice) -> tuple[Descriptor, Manifest]:
    """Return the manifest of the image that is meant, through indexes, each verified by what referred to it."""
    expected = reference.digest
    version = reference.version
    for _ in range(_MAX_INDEXES + 1):
        data, media_type = registry.manifest(version)
        digest = digest_of(data, expected)
        if expected is not None and digest != expected:
            raise IntegrityError(f"{reference}: manifest: expected {expected}, found {digest}")
        if not _is_index(data, media_type):
            store.obtain(digest, len(data), _given(data))
            return Descriptor(_MANIFEST, digest, len(data), None, reference.tag or ""), parse_manifest(data)
        images = [
            each
            for each in parse_index(data)
            if (each.is_manifest or each.is_index) and (each.platform is None or each.platform.os != "unknown")
        ]
        version = expected = choose(images, choice._replace(name=None), str(reference)).digest
    raise ArchiveRejected(Rejection.MANIFEST, f"{reference}: expected at most {_MAX_INDEXES} indexes, found more")


def _is_index(data: bytes, media_type: str) -> bool:
    """Return whether a document is an index, by itself where it says what it is, and by its header otherwise."""
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError):
        return False  # and it will be refused as a manifest
    said = document.get("mediaType") if isinstance(document, dict) else None
    return (said if isinstance(said, str) and said else media_type) in INDEX_TYPES


def _given(data: bytes) -> Fetch:
    """Return a fetch of bytes that are here already."""

    @contextmanager
    def fetch(start: int) -> Iterator[tuple[int, Iterator[memoryview]]]:
        yield start, iter([memoryview(data)[start:]])

    return fetch


def _layout(described: Descriptor, blobs: Sequence[Descriptor], store: BlobStore) -> Directory:
    """Return a tree that is an OCI layout with one image."""
    entry: dict[str, Any] = {
        "mediaType": described.media_type,
        "digest": described.digest,
        "size": described.size,
    }
    tree, above = Directory(0o755), Directory(0o755)
    folders = {each: Directory(0o755) for each in ALGORITHMS}
    tree.entries[b"oci-layout"] = File(0o644, content=BytesContent(b'{"imageLayoutVersion":"1.0.0"}'))
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    tree.entries[b"index.json"] = File(0o644, content=BytesContent(index))
    tree.entries[b"blobs"] = above
    above.entries |= {os.fsencode(name): folder for name, folder in folders.items()}
    for blob in blobs:
        where, name = os.path.split(os.fsencode(store.path(blob.digest)))
        status = os.stat(os.path.join(where, name))
        folders[blob.digest.partition(":")[0]].entries[name] = File(
            0o644, content=HostFile(where, name, status, status.st_mtime_ns)
        )
    return tree
