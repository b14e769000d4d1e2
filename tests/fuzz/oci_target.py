"""Fuzz target: any bytes as the documents of a container image, and as two layers over one another."""

import json

from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError, NotFound
from blockwright.oci.choice import Choice
from blockwright.oci.image import is_image, layers_of
from blockwright.oci.layer import Layer, index, is_plain, place_bodies
from blockwright.oci.manifest import parse_config, parse_docker, parse_index, parse_manifest
from blockwright.oci.merge import merge
from blockwright.tree.content import BytesContent
from blockwright.tree.digest import tree_digest
from blockwright.tree.node import Directory, File, walk
from blockwright.tree.rules import ArchiveRules
from blockwright.tree.spool import Spool
from tests.support.oci import Image, docker
from tests.support.tarmaker import archive, header, member

MAX_BYTES = 1 << 16
BETWEEN = b"|" * 512
"""Stands between two layers."""
RULES = ArchiveRules(size=1 << 26, entries=5000, depth=64, ratio=100, ratio_from=1 << 20)


def fuzz_one(data: bytes) -> None:
    """Lets nothing out but FormatError and NotFound; what two layers come to is a tree that can be used."""
    data = data[:MAX_BYTES]
    for parse in (parse_index, parse_manifest, parse_config, parse_docker):
        _attempt(lambda parse=parse: parse(data))
    _attempt(lambda: _image(data))
    lower, _, upper = data.partition(BETWEEN)
    _attempt(lambda: _layers(lower, upper))


def _attempt(call) -> None:
    try:
        call()
    except NotFound:
        pass
    except FormatError as error:
        if not str(error):
            raise AssertionError("an error without a message") from error


def _image(data: bytes) -> None:
    """Take the data as index.json and as manifest.json beside what either may refer to."""
    files = {b"oci-layout": b"{}", b"index.json": data, b"manifest.json": data}
    tree = Directory(entries={name: File(content=BytesContent(body)) for name, body in files.items()})
    for docker_only in (False, True):
        if docker_only:
            del tree.entries[b"oci-layout"]
        if is_image(tree):
            layers_of(tree, Choice(), "fuzz")


def _layers(*layers: bytes) -> None:
    found = [
        index(Layer("fuzz", number, BytesContent(data)), RULES, refer=False) for number, data in enumerate(layers)
    ]
    tree = merge(found, RULES)
    tree_digest(tree)
    for each in found:
        wanted = {
            node.content.index: [node]
            for _, node in walk(tree)
            if isinstance(node, File) and getattr(node.content, "layer", None) is each.layer
        }
        if wanted:
            is_plain(each.layer)
            place_bodies(each.layer, RULES, wanted, Spool(MemoryDevice(0)).place)
    for _, node in walk(tree):
        if isinstance(node, File) and node.content.size:
            node.content.read_into(0, memoryview(bytearray(min(node.content.size, 64))))


def seeds() -> list[bytes]:
    """Documents of each kind, and two layers with whiteouts, links and marks."""
    lower = archive(header(b"d", kind=b"5"), member(b"d/a", b"1"), header(b"l", kind=b"2", link=b"d"))
    upper = archive(
        header(b"l/.wh.a"), header(b"d/.wh..wh..opq"), member(b"d/b", b"2"), header(b"h", kind=b"1", link=b"l")
    )
    image = Image([lower, upper]).seal()
    documents = [json.dumps(each).encode() for each in (image.index, image.manifest, image.config)]
    start = (made := docker([lower])).index(b'[{"Config"')
    return [*documents, made[start : made.index(b"\0", start)], lower + BETWEEN + upper]
