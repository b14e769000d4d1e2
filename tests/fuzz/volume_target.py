"""Fuzz target: any bytes as a pool's specification, as what a journal says of a change, and as a folder's files."""

import json
import os
import tempfile

from blockwright.errors import FormatError
from blockwright.volume.file import survey
from blockwright.volume.file.layers import FileName, parse_file_name
from blockwright.volume.spec import parse_spec
from blockwright.volume.steps import Change

MAX_BYTES = 1 << 16


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out, and what holds is read again as it was."""
    try:
        spec = parse_spec(data, "p", "/nowhere")
        for option in spec.options:
            for read in (spec.text, spec.number):
                try:
                    read(option)
                except FormatError:
                    continue
    except FormatError:
        pass
    _change(data)
    name = parse_file_name(data[:200].decode("utf-8", "replace"))
    if name is not None and parse_file_name(str(name)) != name:
        raise AssertionError(f"another name: {name}")
    if data[:1] == b"Q":
        _folder(data)


def _change(data: bytes) -> None:
    """Hold the parser to the three errors that its caller takes for a journal that does not hold."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    try:
        change = Change.parse("snapshot", document)
    except (KeyError, TypeError, ValueError):
        return
    change.document()


def _folder(data: bytes) -> None:
    """The bytes are an image beside one that is sound."""
    with tempfile.TemporaryDirectory() as folder:
        names = [str(FileName("a", 1, 1, "raw")), str(FileName("b", 2, 2, "qcow2"))]
        for name, content in zip(names, (bytes(512), data), strict=True):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        seen = survey.look_at(folder, survey.files_in(folder))
        for head in survey.heads_of(seen).values():
            survey.chain_of(head, seen)


def seeds() -> list[bytes]:
    """A specification, and a change."""
    spec = {
        "schema": "blockwright.pool/1",
        "name": "p",
        "driver": "file",
        "created_ns": 1,
        "options": {"directory": "/x", "count": 3},
    }
    volume = {
        "pool": "p",
        "name": "v",
        "id": 1,
        "size": 4096,
        "origin": None,
        "state": "active",
        "read_only": False,
        "path": "/dev/x",
        "mount_point": None,
        "wanted": "active",
        "created_ns": 5,
        "extra": {"layer": 1},
    }
    change = {"before": volume, "after": volume, "origin": None, "extra": {"names": ["w"]}}
    return [json.dumps(each).encode() for each in (spec, change)]
