"""A tree that is a container image on disk, told by what it holds, and the layers of the one image that is meant.

An OCI layout (a directory, or a tar archive of one) has ``oci-layout`` and ``index.json``; a docker-archive has
``manifest.json``. Either is looked at as a tree, so its links lead nowhere but within it. Every document is read
only when its bytes have the digest that it is referred to by.

Knows: how an image is found and chosen. Refuses to know: documents (``manifest``), layers, and the host's files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from blockwright.errors import ArchiveRejected, NotFound, Rejection
from blockwright.oci.choice import Choice
from blockwright.oci.layer import ANY, Layer
from blockwright.oci.manifest import (
    MAX_DOCUMENT,
    Config,
    Descriptor,
    DockerImage,
    digest_of,
    parse_config,
    parse_digest,
    parse_docker,
    parse_index,
    parse_manifest,
)
from blockwright.oci.platform import Platform, host_platform
from blockwright.tree.content import Content
from blockwright.tree.lookup import lookup
from blockwright.tree.node import Directory, File

_MAX_NAMED: Final = 16
_MAX_INDEXES: Final = 64
"""Indexes that are followed, one out of another."""
_HEX: Final = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?", re.DOTALL).fullmatch


def is_image(tree: Directory) -> bool:
    """Whether the tree is a container image as one of the known forms has it on disk."""
    if all(isinstance(lookup(tree, name), File) for name in (b"oci-layout", b"index.json")):
        return True
    node = lookup(tree, b"manifest.json")
    if not isinstance(node, File) or node.content.size > MAX_DOCUMENT:
        return False
    data = _read(tree, "manifest.json", MAX_DOCUMENT)
    return data.lstrip()[:1] == b"[" and b'"Layers"' in data and b'"Config"' in data


class Found(NamedTuple):
    """The image that is meant: its layers, the lowest first, and what it says that it runs on."""

    layers: tuple[Layer, ...]
    platform: Platform


def layers_of(tree: Directory, choice: Choice, source: str) -> tuple[Layer, ...]:
    """Return the layers of the image that is meant, the lowest first; nothing of them is read. Raises as ``find``."""
    return find(tree, choice, source).layers


def find(tree: Directory, choice: Choice, source: str) -> Found:
    """Return the image that is meant.

    Raises ArchiveRejected for documents that do not hold, NotFound where no image, or more than one, is meant.
    """
    try:
        if isinstance(lookup(tree, b"index.json"), File) and isinstance(lookup(tree, b"oci-layout"), File):
            return _oci(tree, choice, source)
        return _docker(tree, choice, source)
    except ArchiveRejected as error:
        error.source = error.source or source
        raise


# -- OCI layouts -----------------------------------------------------------------------------------------------------


def _oci(tree: Directory, choice: Choice, source: str) -> Found:
    index = parse_index(_read(tree, "index.json", MAX_DOCUMENT))
    names = [each.name for each in index if each.name is not None]
    if choice.name is not None and names and choice.name not in names:
        shown = ", ".join(dict.fromkeys(names[:_MAX_NAMED]))
        raise NotFound(f"{source}: expected {choice.name}, found {shown}: --platform and --image choose")
    described = choose(_images(tree, index, choice), choice, source)
    manifest = parse_manifest(_document(tree, described))
    config = parse_config(_document(tree, manifest.config))
    _check_count(len(manifest.layers), config)
    _check_platform(config, choice, source)
    layers = tuple(
        Layer(
            f"{source}: layer {number + 1}",
            number,
            _blob(tree, each),
            each.digest,
            diff_id,
            each.compression,
        )
        for number, (each, diff_id) in enumerate(zip(manifest.layers, config.diff_ids, strict=True))
    )
    return Found(layers, config.platform)


def _images(tree: Directory, found: Sequence[Descriptor], choice: Choice) -> list[Descriptor]:
    """Return every image that the index leads to, each with the name of the entry that it was found by."""
    images: list[Descriptor] = []
    pending = [each for each in found if choice.name is None or each.name == choice.name]
    followed = 0
    seen: set[str] = set()
    while pending:
        each = pending.pop(0)
        if each.digest in seen:
            continue
        seen.add(each.digest)
        if each.is_index:
            followed += 1
            if followed > _MAX_INDEXES:
                raise ArchiveRejected(
                    Rejection.MANIFEST, f"index: expected at most {_MAX_INDEXES} of them, found more"
                )
            below = parse_index(_document(tree, each))
            pending += [one._replace(name=one.name or each.name) for one in below]
        elif each.is_manifest and (each.platform is None or each.platform.os != "unknown"):
            images.append(each)  # what is for no system is about an image, and is none
    return images


def choose(images: Sequence[Descriptor], choice: Choice, source: str) -> Descriptor:
    """Return the one image that is meant. One without a platform is taken as it is where it is the only one."""
    fitting = list(images)
    if choice.platform is not None or len(fitting) > 1:
        wanted = choice.platform or host_platform()
        fitting = [each for each in images if each.platform is not None and each.platform.matches(wanted)]
        unsaid = [each for each in images if each.platform is None]
        fitting = fitting or unsaid
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(
        dict.fromkeys(" for ".join(filter(None, (each.name, str(each.platform or "")))) for each in images)
    )
    what = choice.platform or choice.name or "one image"
    raise NotFound(f"{source}: expected {what}, found {shown or 'no image'}: --platform and --image choose")


# -- docker-archives -------------------------------------------------------------------------------------------------


def _docker(tree: Directory, choice: Choice, source: str) -> Found:
    image = _choose_docker(parse_docker(_read(tree, "manifest.json", MAX_DOCUMENT)), choice, source)
    data = _read(tree, image.config, MAX_DOCUMENT)
    named = _HEX(image.config)
    if named is not None:
        _verify(data, f"sha256:{named[1]}", image.config)
    config = parse_config(data)
    _check_count(len(image.layers), config)
    _check_platform(config, choice, source)
    layers = tuple(
        Layer(f"{source}: layer {number + 1}", number, _file(tree, name), None, diff_id, ANY)
        for number, (name, diff_id) in enumerate(zip(image.layers, config.diff_ids, strict=True))
    )
    return Found(layers, config.platform)


def _choose_docker(images: Sequence[DockerImage], choice: Choice, source: str) -> DockerImage:
    fitting = [
        each
        for each in images
        if choice.name is None or any(tag == choice.name or tag.endswith(f":{choice.name}") for tag in each.tags)
    ]
    if len(fitting) == 1:
        return fitting[0]
    shown = ", ".join(tag for each in images for tag in each.tags) or f"{len(images)} images without a name"
    raise NotFound(f"{source}: expected {choice.name or 'one image'}, found {shown}: --image chooses")


# -- blobs -----------------------------------------------------------------------------------------------------------


def _check_count(layers: int, config: Config) -> None:
    if layers != len(config.diff_ids):
        raise ArchiveRejected(
            Rejection.MANIFEST, f"layers: expected as many as diff_ids, {len(config.diff_ids)}, found {layers}"
        )


def _check_platform(config: Config, choice: Choice, source: str) -> None:
    """Raise NotFound where the image is for another platform than what was asked for, whatever an index says."""
    if choice.platform is not None and not config.platform.matches(choice.platform):
        raise NotFound(f"{source}: expected {choice.platform}, found {config.platform}")


def _document(tree: Directory, described: Descriptor) -> bytes:
    """Return a JSON document that is as it was described."""
    if described.size > MAX_DOCUMENT:
        raise ArchiveRejected(
            Rejection.MANIFEST, f"document: expected at most {MAX_DOCUMENT} bytes, found {described.size}"
        )
    content = _blob(tree, described)
    data = bytearray(content.size)
    content.read_into(0, memoryview(data))
    _verify(bytes(data), described.digest, "document")
    return bytes(data)


def _blob(tree: Directory, described: Descriptor) -> Content:
    algorithm, _, value = parse_digest(described.digest).partition(":")
    content = _file(tree, f"blobs/{algorithm}/{value}")
    if content.size != described.size:
        raise ArchiveRejected(
            Rejection.DIGEST,
            f"blobs/{algorithm}/{value}: size: expected {described.size} bytes, found {content.size}",
        )
    return content


def _verify(data: bytes, digest: str, what: str) -> None:
    found = digest_of(data, digest)
    if found != digest:
        raise ArchiveRejected(Rejection.DIGEST, f"{what}: expected {digest}, found {found}")


def _file(tree: Directory, name: str) -> Content:
    node = lookup(tree, name.encode("utf-8", "surrogatepass"))
    if not isinstance(node, File):
        raise ArchiveRejected(Rejection.MANIFEST, f"{name[:200]}: expected a file of the image, found none")
    return node.content


def _read(tree: Directory, name: str, most: int) -> bytes:
    content = _file(tree, name)
    if content.size > most:
        raise ArchiveRejected(Rejection.MANIFEST, f"{name}: expected at most {most} bytes, found {content.size}")
    data = bytearray(content.size)
    content.read_into(0, memoryview(data))
    return bytes(data)
