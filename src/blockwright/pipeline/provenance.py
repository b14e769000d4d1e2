"""Where a volume came from, as a statement that can be signed: in-toto's, with SLSA's provenance in it.

Everything in it is from receipts, so it is the same whenever it is asked for.

Source: in-toto Attestation Framework, Statement v1; SLSA v1.0, Provenance.

Knows: the documents. Refuses to know: keys, and where receipts are kept.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from blockwright.errors import UsageError
from blockwright.pipeline.catalogue import Image
from blockwright.pipeline.receipt import Receipt, check_chain
from blockwright.pipeline.states import Event

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD: Final = "urn:blockwright:fetch-and-create:1"
_TOLD: Final = ("kind", "uri", "digest")
"""What of an identity stands elsewhere in the statement."""


def statement(image: Image) -> dict[str, Any]:
    """Return the statement about an image's volume.

    Raises UsageError where there is no volume, Corrupt where the receipts do not hold.
    """
    receipts = [Receipt.parse(each) for each in image.receipts]
    check_chain(receipts)
    found = {each.step: each for each in receipts}
    if Event.CREATE not in found:
        raise UsageError(f"{image.id}: provenance: expected an image that is ready, found it {image.state}")
    made, verified = found[Event.CREATE].outputs, found[Event.VERIFY].outputs
    subject = {"name": str(made["address"]), "digest": _digest(made.get("filesystem"))}
    return {
        "_type": STATEMENT,
        "subject": [subject],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": _asked(image, found[Event.DOWNLOAD].outputs),
                "internalParameters": {"pool": made["pool"], "driver": made["driver"]},
                "resolvedDependencies": _dependencies(image, found, verified),
            },
            "runDetails": {
                "builder": {"id": f"urn:blockwright:host:{image.host}", "version": _tools(receipts)},
                "metadata": {
                    "invocationId": image.id,
                    "startedOn": _time(receipts[0].started_ns),
                    "finishedOn": _time(receipts[-1].finished_ns),
                },
                "byproducts": _byproducts(found, verified),
            },
        },
    }


def _asked(image: Image, fetched: Mapping[str, Any]) -> dict[str, Any]:
    """Return what somebody asked for."""
    several = fetched.get("references", ())
    return {"references": list(several)} if len(several) > 1 else {"reference": image.reference}


def _dependencies(image: Image, found: Mapping[Event, Receipt], verified: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what went in: the source as it was known, its manifest, and each layer."""
    identity, fetched = image.identity or {}, found[Event.DOWNLOAD].outputs
    source = {
        "name": "source",
        **({} if fetched.get("layers") else {"uri": str(identity.get("uri", image.reference))}),
        "digest": _digest(identity.get("digest")) | _digest(fetched.get("digest")),
        "annotations": {name: value for name, value in identity.items() if name not in _TOLD and value is not None},
    }
    dependencies: list[dict[str, Any]] = [source]
    manifest = fetched.get("manifest")
    if manifest:
        dependencies.append({"name": "manifest", "digest": _digest(manifest["digest"])})
    apart = fetched.get("layers", ())
    dependencies += [
        {"name": f"manifest {number + 1}", "uri": each["uri"], "digest": _digest(each["manifest"]["digest"])}
        for number, each in enumerate(apart)
        if "manifest" in each
    ]
    for number, each in enumerate(verified.get("layers", ())):
        layer: dict[str, Any] = {
            "name": f"layer {number + 1}",
            "digest": _digest(each["digest"]),
            "annotations": {"diff_id": each["diff_id"], "size": each["stored_bytes"]},
        }
        origin = int(each.get("reference", number))  # which of several it is of; each was a layer once
        if origin < len(apart):
            layer["uri"] = apart[origin]["uri"]
            layer["annotations"] |= {
                name: apart[origin][name] for name in ("etag", "identity") if name in apart[origin]
            }
        dependencies.append(layer)
    return dependencies


def _byproducts(found: Mapping[Event, Receipt], verified: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what else came of it: the tree, the verdict, the device, and the receipts' chain."""
    scanned = found[Event.SCAN].outputs
    made = found[Event.CREATE].outputs
    device = {name: made[name] for name in ("pool", "driver", "volume", "number", "volume_bytes")}
    active = found.get(Event.ACTIVATE)
    if active is not None:
        device["snapshot"] = {name: active.outputs[name] for name in ("snapshot", "number", "path")}
    kept = scanned.get("sbom") or {}
    listed = [{"name": "sbom", "digest": _digest(kept["digest"])}] if "digest" in kept else []
    return [
        *listed,
        {"name": "tree", "digest": _digest(verified["tree"]), "annotations": {"names": verified["names"]}},
        {"name": "verdict", "annotations": {"line": scanned["line"], "verdict": scanned.get("verdict")}},
        {"name": "device", "annotations": device},
        {"name": "receipts", "digest": _digest(found[Event.CREATE].digest)},
    ]


def _tools(receipts: Sequence[Receipt]) -> dict[str, str]:
    """Return the versions of every tool that took part, the latest where there are several."""
    return {name: version for each in receipts for name, version in each.document()["tools"].items()}


def _digest(text: Any) -> dict[str, str]:
    """Return a digest as in-toto has it, empty where there is none."""
    algorithm, colon, value = str(text or "").partition(":")
    return {algorithm: value} if colon else {}


def _time(time_ns: int) -> str:
    return dt.datetime.fromtimestamp(time_ns // 10**9, dt.UTC).isoformat().replace("+00:00", "Z")
