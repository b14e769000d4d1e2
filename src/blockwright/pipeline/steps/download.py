"""The first step: all bytes of the source are on this host, of the version that the run is about.

What lies on this host already stays where it is. An image of a registry is fetched into the store of blobs, an
object into a file of its own, which goes on where a process that was killed left it.

Knows: where each kind of source goes. Refuses to know: what is in it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from blockwright.errors import Corrupt, InUse, SourceChanged
from blockwright.pipeline.context import Context, choice_of
from blockwright.pipeline.home import Home
from blockwright.pipeline.identity import identify
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.locks import exclusive
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.request import canonical
from blockwright.pipeline.states import Event
from blockwright.volume.spec import sync_folder

if TYPE_CHECKING:  # most sources come from elsewhere
    from blockwright.store.objects import ObjectInfo, Objects

PART: Final = ".part"
"""Behind the name of an object that is not here as a whole."""
_PIECE: Final = 1 << 20


def do(inputs: Inputs, context: Context) -> Receipt:
    """Have the source here. Raises what fetching does, SourceChanged where it is not the one that was meant."""
    started_ns = time.time_ns()
    kind = inputs.identity["kind"]
    if kind == "registry":
        outputs = _fetch_image(inputs, context)
    elif kind == "object":
        outputs = _fetch_object(inputs, context)
    elif kind in ("file", "layout", "directory", "layers"):
        outputs = _here(inputs)
    else:
        raise Corrupt(f"run {inputs.run}: expected a source of a known kind, found {str(kind)[:64]!r}")
    context.checkpoint("download: here")
    return context.receipt(inputs, Event.DOWNLOAD, started_ns, outputs)


def holds(inputs: Inputs, receipt: Receipt, _context: Context) -> bool:
    """Whether what was fetched is still here; no byte of it is read."""
    found = receipt.outputs
    if found["kind"] == "registry":
        return all(_is_blob(str(digest), int(size)) for digest, size in found["blobs"])
    if found["kind"] == "object":
        try:
            return os.stat(str(found["path"])).st_size == int(found["bytes"])
        except OSError:
            return False
    try:
        return identify(inputs.request) == inputs.identity
    except Exception:  # noqa: BLE001 - whatever it is, the source is not what it was
        return False


def undo(inputs: Inputs, context: Context) -> None:
    """Remove what was fetched of an object. Blobs are shared, and known by what they hold: they stay."""
    if inputs.identity["kind"] == "object":
        path = object_path(context.home, inputs.identity)
        # Somebody else who fetches it goes on with what is there.
        with suppress(InUse, FileNotFoundError), object_lock(context.home, path, _refuse):
            os.unlink(path + PART)


def _refuse() -> None:
    raise InUse("object: is being fetched")


def _here(inputs: Inputs) -> dict[str, Any]:
    found = identify(inputs.request)
    if found != inputs.identity:
        raise SourceChanged(f"{inputs.request.reference}: is not what it was when the run began")
    return {"kind": found["kind"], "path": inputs.request.reference, "bytes": 0, "size": found.get("size")}


# -- registries ------------------------------------------------------------------------------------------------------


def _fetch_image(inputs: Inputs, context: Context) -> dict[str, Any]:
    from blockwright.oci.blobs import BlobStore
    from blockwright.oci.manifest import parse_manifest
    from blockwright.oci.pull import fetch
    from blockwright.oci.reference import parse_reference
    from blockwright.oci.registry import Registry
    from blockwright.source.registry import blobs_directory

    reference = replace(parse_reference(inputs.request.reference), digest=str(inputs.identity["digest"]))
    store = BlobStore(blobs_directory())
    with Registry(reference) as registry:
        described = fetch(registry, reference, store, choice_of(inputs.request), context.watch("download"))
    with open(store.path(described.digest), "rb") as file:
        manifest = parse_manifest(file.read())
    blobs = [(described.digest, described.size)]
    blobs += [(each.digest, each.size) for each in (manifest.config, *manifest.layers)]
    return {
        "kind": "registry",
        "manifest": {"type": described.media_type, "digest": described.digest, "size": described.size},
        "config": manifest.config.digest,
        "blobs": [list(each) for each in dict(blobs).items()],
        "bytes": sum(dict(blobs).values()),
    }


def _is_blob(digest: str, size: int) -> bool:
    from blockwright.oci.blobs import BlobStore
    from blockwright.source.registry import blobs_directory

    return BlobStore(blobs_directory()).has(digest, size)


# -- objects ---------------------------------------------------------------------------------------------------------


def object_path(home: Home, identity: Mapping[str, Any]) -> str:
    """Return where an object goes: its name follows from its version, so no other version's bytes get in."""
    return os.path.join(home.objects, hashlib.sha256(canonical(identity)).hexdigest()[:32])


def object_lock(home: Home, path: str, stop: Callable[[], None]) -> AbstractContextManager[None]:
    """Return the lock of whoever fetches or removes an object; two runs may want the same one."""
    return exclusive(home.lock(f"object.{os.path.basename(path)}"), stop)


def remove_object(path: str) -> None:
    """Have nothing of an object; to be called with its lock."""
    for each in (path, path + PART):
        with suppress(FileNotFoundError):
            os.unlink(each)


def _fetch_object(inputs: Inputs, context: Context) -> dict[str, Any]:
    from blockwright.store.address import parse_object
    from blockwright.store.cloud import open_bucket
    from blockwright.store.objects import ObjectInfo, Version

    identity, address = inputs.identity, parse_object(str(inputs.identity["uri"]))
    info = ObjectInfo(address.key, int(identity["size"]), Version(identity["etag"], identity["version"]))
    path = object_path(context.home, identity)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with object_lock(context.home, path, context.stop):
        if not _has_size(path, info.size):
            digest = _download(open_bucket(address.bucket), info, path + PART, context.watch("download"))
            context.checkpoint("download: fetched")
            os.replace(path + PART, path)
            sync_folder(os.path.dirname(path))
        else:
            digest = _digest_of(path)
    fetched = {"kind": "object", "path": path, "bytes": info.size, "digest": digest, "etag": identity["etag"]}
    return fetched | ({"part": identity["part"]} if "part" in identity else {})


def _has_size(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except FileNotFoundError:
        return False


def _download(objects: Objects, info: ObjectInfo, path: str, progress: Callable[[int, int], None]) -> str:
    """Have the object in the file, from where that ends on, and return the digest of all."""
    from blockwright.store.download import download

    hasher = hashlib.sha256()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), 0o600)
    with open(fd, "r+b") as file:
        if os.fstat(fd).st_size > info.size:
            file.truncate(0)
        while piece := file.read(_PIECE):
            hasher.update(piece)
        done = file.tell()
        for part in download(objects, info, done):
            file.write(part)
            hasher.update(part)
            done += len(part)
            progress(done, info.size)
        file.flush()
        os.fsync(fd)
    return f"sha256:{hasher.hexdigest()}"


def _digest_of(path: str) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
