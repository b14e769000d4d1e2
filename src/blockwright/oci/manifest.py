"""The JSON documents of container images, strictly read: indexes, manifests, configurations, docker's list.

A document that could be read as two kinds is refused, and so is one that names a key twice. Digests are SHA-256 or
SHA-512 in lower-case hexadecimal and nothing else; ``urls`` are not looked at.

Knows: the documents as values. Refuses to know: where they and the blobs lie. Source: OCI image-spec 1.1.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final, NamedTuple

from blockwright.errors import ArchiveRejected, Rejection
from blockwright.oci.platform import Platform

MAX_DOCUMENT: Final = 4 << 20
"""Bytes of one document."""
MAX_LAYERS: Final = 1024
MAX_MANIFESTS: Final = 4096

SPEC: Final = "OCI image-spec 1.1"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}").fullmatch
ALGORITHMS: Final = ("sha256", "sha512")
"""Of digests, as they begin."""
_NAME: Final = "org.opencontainers.image.ref.name"
INDEX_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFEST_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
_LAYERS: Final[dict[str, str | None]] = {
    "application/vnd.oci.image.layer.v1.tar": None,
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": None,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": None,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}


def hasher_of(digest: str | None) -> hashlib._Hash:
    """Return a hasher of the algorithm that a digest names, sha256 or sha512; of the first where there is none."""
    return hashlib.sha512() if digest is not None and digest.startswith("sha512:") else hashlib.sha256()


def digest_of(data: bytes, like: str | None = None) -> str:
    """Return the digest of ``data``, by the algorithm of the digest ``like``."""
    hasher = hasher_of(like)
    hasher.update(data)
    return f"{hasher.name}:{hasher.hexdigest()}"


class Descriptor(NamedTuple):
    """What one document says of a blob: its type, digest and size, and for an image its platform and name."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    name: str = ""

    @property
    def is_index(self) -> bool:
        """Whether the blob is a list of further ones."""
        return self.media_type in INDEX_TYPES

    @property
    def is_manifest(self) -> bool:
        """Whether the blob is one image's manifest."""
        return self.media_type in MANIFEST_TYPES

    @property
    def compression(self) -> str | None:
        """How the layer that it describes is compressed. Raises ArchiveRejected where it describes none."""
        if self.media_type not in _LAYERS:
            raise _refused(
                f"layer: expected a tar archive, plain or by gzip or zstd, found {self.media_type[:100]!r}"
            )
        return _LAYERS[self.media_type]


class Manifest(NamedTuple):
    """One image: its configuration, and its layers, the lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


class Config(NamedTuple):
    """What an image's configuration says of its layers: the platform, and the digest of each, decompressed."""

    platform: Platform
    diff_ids: tuple[str, ...]


class DockerImage(NamedTuple):
    """One image of a docker-archive: names of files in the archive, and its tags."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]


def is_digest(text: str) -> bool:
    """Whether the text is a digest that may become part of a name."""
    return _DIGEST(text) is not None


def parse_digest(value: object) -> str:
    """Return a digest that may become part of a name. Raises ArchiveRejected for anything else."""
    if not isinstance(value, str) or not _DIGEST(value):
        raise ArchiveRejected(
            Rejection.DIGEST, f"digest: expected sha256:… or sha512:… in hexadecimal, found {value!r:.150}"
        )
    return value


def parse_index(data: bytes) -> tuple[Descriptor, ...]:
    """Return the images, or further indexes, that an index lists."""
    document = _object(data, "index")
    if "layers" in document or "config" in document:
        raise _refused("index: expected no layers and no configuration, which a manifest has, found them")
    _check_type(document, INDEX_TYPES, "index")
    return tuple(_descriptor(each) for each in _list(document.get("manifests"), MAX_MANIFESTS, "index: manifests"))


def parse_manifest(data: bytes) -> Manifest:
    """Return an image's manifest."""
    document = _object(data, "manifest")
    if "manifests" in document:
        raise _refused("manifest: expected no list of manifests, which an index has, found one")
    _check_type(document, MANIFEST_TYPES, "manifest")
    layers = _list(document.get("layers"), MAX_LAYERS, "manifest: layers")
    return Manifest(_descriptor(document.get("config")), tuple(_descriptor(each) for each in layers))


def parse_config(data: bytes) -> Config:
    """Return what an image's configuration says of its layers."""
    document = _object(data, "configuration")
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict):
        raise _refused("configuration: expected rootfs, found none")
    diff_ids = _list(rootfs.get("diff_ids"), MAX_LAYERS, "configuration: diff_ids")
    return Config(_platform(document) or Platform("", ""), tuple(parse_digest(each) for each in diff_ids))


def parse_docker(data: bytes) -> tuple[DockerImage, ...]:
    """Return the images of a docker-archive's ``manifest.json``."""
    images = []
    for each in _list(_json(data, "manifest.json"), MAX_MANIFESTS, "manifest.json"):
        if not isinstance(each, dict):
            raise _refused(f"manifest.json: expected objects, found {each!r:.60}")
        layers = _list(each.get("Layers"), MAX_LAYERS, "manifest.json: Layers")
        tags = _list(each.get("RepoTags") or [], MAX_MANIFESTS, "manifest.json: RepoTags")
        images.append(
            DockerImage(
                _text(each.get("Config"), "manifest.json: Config"),
                tuple(_text(tag, "manifest.json: RepoTags") for tag in tags),
                tuple(_text(layer, "manifest.json: Layers") for layer in layers),
            )
        )
    return tuple(images)


def _descriptor(value: object) -> Descriptor:
    if not isinstance(value, dict):
        raise _refused(f"descriptor: expected an object, found {value!r:.60}")
    size = value.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise _refused(f"descriptor: size: expected a number of bytes, found {size!r:.60}")
    annotations = value.get("annotations")
    name = annotations.get(_NAME, "") if isinstance(annotations, dict) else ""
    return Descriptor(
        _text(value.get("mediaType"), "descriptor: mediaType"),
        parse_digest(value.get("digest")),
        size,
        _platform(value.get("platform")),
        name if isinstance(name, str) else "",
    )


def _platform(value: object) -> Platform | None:
    if not isinstance(value, dict):
        return None
    parts = [value.get(key, "") for key in ("os", "architecture", "variant")]
    if not all(isinstance(part, str) for part in parts):
        raise _refused(f"platform: expected text, found {parts!r:.90}")
    return Platform(*parts)


def _check_type(document: dict[str, Any], expected: frozenset[str], what: str) -> None:
    if document.get("schemaVersion") != 2:
        raise _refused(f"{what}: schemaVersion: expected 2, found {document.get('schemaVersion')!r:.30}")
    found = document.get("mediaType")
    if found is not None and (not isinstance(found, str) or found not in expected):
        raise _refused(f"{what}: mediaType: expected that of an {what}, found {found!r:.100}")


def _json(data: bytes, what: str) -> Any:
    if len(data) > MAX_DOCUMENT:
        raise _refused(f"{what}: expected at most {MAX_DOCUMENT} bytes, found {len(data)}")
    try:
        return json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise _refused(f"{what}: expected JSON: {str(error)[:100]}") from error


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError("a number of more than 20 digits")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that is given twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _object(data: bytes, what: str) -> dict[str, Any]:
    document = _json(data, what)
    if not isinstance(document, dict):
        raise _refused(f"{what}: expected an object, found {document!r:.60}")
    return document


def _list(value: object, most: int, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise _refused(f"{what}: expected a list of at most {most}, found {value!r:.60}")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise _refused(f"{what}: expected text, found {value!r:.60}")
    return value


def _refused(message: str) -> ArchiveRejected:
    return ArchiveRejected(Rejection.MANIFEST, message, spec=SPEC)
