"""The first step: all bytes of the source are on this host, of the version that the run is about.

What lies on this host already stays where it is. An image of a registry is fetched into the store of blobs, an
object into a file of its own, and so is each of several references; both go on where a process that was killed
left them.

Knows: where each kind of source goes. Refuses to know: what is in it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from blockwright.errors import Corrupt, SourceChanged
from blockwright.pipeline.context import Context, choice_of
from blockwright.pipeline.identity import identify, identify_several, known_as
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.objects import has_object, object_path, obtain, obtain_all, remove_part
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.states import Event
from blockwright.source.key import is_prefix


def do(inputs: Inputs, context: Context) -> Receipt:
    """Have the source here. Raises what fetching does, SourceChanged where it is not the one that was meant."""
    started_ns = time.time_ns()
    kind = inputs.identity["kind"]
    if kind == "registry":
        outputs = _fetch_image(inputs.request.reference, str(inputs.identity["digest"]), inputs, context)
    elif kind == "object":
        outputs = _fetch_object(inputs, context)
    elif kind == "layers":
        outputs = _fetch_several(inputs, context)
    elif kind in ("file", "layout", "directory"):
        outputs = _here(inputs)
    else:
        raise Corrupt(f"run {inputs.run}: expected a source of a known kind, found {str(kind)[:64]!r}")
    context.checkpoint("download: here")
    return context.receipt(inputs, Event.DOWNLOAD, started_ns, outputs)


def holds(inputs: Inputs, receipt: Receipt, _context: Context) -> bool:
    """Whether what was fetched is still here; no byte of it is read."""
    found = receipt.outputs
    if found["kind"] == "registry":
        return _has_blobs(found)
    if found["kind"] == "object":
        return has_object(str(found["path"]), int(found["bytes"]))
    if "layers" in found:
        return all(_is_layer(each) for each in found["layers"])
    if found["kind"] == "layers" and is_prefix(inputs.request.reference):
        return False  # of a version that kept none
    try:
        return identify(inputs.request) == inputs.identity
    except Exception:  # noqa: BLE001 - whatever it is, the source is not what it was
        return False


def _is_layer(layer: Mapping[str, Any]) -> bool:
    """Whether one of several is still what it was: what was fetched is there, a file or layout known by the same."""
    if layer["kind"] == "registry":
        return _has_blobs(layer)
    if layer["kind"] == "object":
        return has_object(str(layer["path"]), int(layer["bytes"]))
    try:
        return known_as(str(layer["path"])) == str(layer["identity"])
    except Exception:  # noqa: BLE001 - whatever it is, the file is not what it was
        return False


def undo(inputs: Inputs, context: Context) -> None:
    """Remove what was fetched of an object. Blobs and layers are shared, and known by what they hold: they stay."""
    if inputs.identity["kind"] == "object":
        remove_part(context.home, object_path(context.home, inputs.identity))


def _here(inputs: Inputs) -> dict[str, Any]:
    found = identify(inputs.request)
    if found != inputs.identity:
        raise SourceChanged(f"{inputs.request.named}: is not what it was when the run began")
    return {"kind": found["kind"], "path": inputs.request.reference, "bytes": 0, "size": found.get("size")}


# -- registries ------------------------------------------------------------------------------------------------------


def _fetch_image(text: str, digest: str, inputs: Inputs, context: Context) -> dict[str, Any]:
    """Have the image in a registry that has this digest here."""
    from blockwright.oci.blobs import BlobStore
    from blockwright.oci.manifest import parse_manifest
    from blockwright.oci.pull import fetch
    from blockwright.oci.reference import parse_reference
    from blockwright.oci.registry import Registry
    from blockwright.source.registry import blobs_directory

    reference = replace(parse_reference(text), digest=digest)
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


def _has_blobs(image: Mapping[str, Any]) -> bool:
    from blockwright.oci.blobs import BlobStore
    from blockwright.source.registry import blobs_directory

    store = BlobStore(blobs_directory())
    return all(store.has(str(digest), int(size)) for digest, size in image["blobs"])


# -- objects ---------------------------------------------------------------------------------------------------------


def _fetch_object(inputs: Inputs, context: Context) -> dict[str, Any]:
    identity = inputs.identity
    fetched = {"kind": "object", **obtain(identity, context, context.watch("download"))}
    return fetched | ({"part": identity["part"]} if "part" in identity else {})


def _fetch_several(inputs: Inputs, context: Context) -> dict[str, Any]:
    """Have each reference that is an image in a registry, or an object, here; what is in files stays where it is."""
    found = identify_several(inputs.request)
    if found.document != inputs.identity:
        raise SourceChanged(f"{inputs.request.named}: is not what it was when the run began")
    wanted = [each for each in found.each if each["kind"] == "object"]
    if not wanted and not inputs.request.over:
        return _here(inputs)  # a directory of archives
    objects = iter(obtain_all(wanted, context, context.watch("download")))
    several = []
    for each, digest in zip(found.each, found.digests, strict=True):
        uri = str(each["uri"])
        if each["kind"] == "registry":
            told = _fetch_image(uri, str(each["digest"]), inputs, context)
        elif each["kind"] == "object":
            told = next(objects)
        else:
            told = {"path": uri.removeprefix("file:"), "bytes": each.get("size", 0)}
        several.append({"kind": each["kind"], "uri": uri, "identity": digest} | told)
    blobs = dict(tuple(blob) for each in several for blob in each.get("blobs", ()))
    return {
        "kind": "layers",
        "references": list(inputs.request.references),
        "layers": several,
        "blobs": [list(each) for each in blobs.items()],
        "bytes": sum(int(each["size"]) for each in wanted) + sum(blobs.values()),
    }
