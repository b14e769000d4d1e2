"""A NoCloud seed for cloud-init: user-data, meta-data, and what else it takes, from files of the host.

Knows: the names, and what each file must look like to be one. Refuses to know: YAML, and what a seed says.

Source: cloud-init's documentation, "NoCloud" and "User data formats".
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from typing import Final

from blockwright.errors import NotFound, UsageError
from blockwright.tree.changes.edit import TreeEdit
from blockwright.tree.changes.text import read_host
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File
from blockwright.units import MiB

MAX_FILE: Final = 16 * MiB
USER_DATA, META_DATA, VENDOR_DATA, NETWORK = "user-data", "meta-data", "vendor-data", "network-config"
NAMES: Final = (USER_DATA, META_DATA, VENDOR_DATA, NETWORK)
FOLDER: Final = b"var/lib/cloud/seed/nocloud"
LABEL: Final = "CIDATA"
"""The label by which a file system is known as a seed."""

_GZIP: Final = b"\x1f\x8b"
_KINDS: Final = (
    b"#cloud-config",
    b"#!",
    b"#include",
    b"#cloud-boothook",
    b"#part-handler",
    b"## template: jinja",
    b"#upstart-job",
)
_MULTIPART: Final = re.compile(rb"(?i)(?:content-type|mime-version)\s*:")

Seed = dict[str, bytes]


def read_seed(paths: Sequence[str]) -> Seed:
    """Return the files of a seed by name: of a directory, or files by their names, a single other one as user-data.

    Without meta-data it gets an instance-id that follows from the rest, so that another seed is another instance.
    Raises NotFound, UsageError with the file for what is not what its name says.
    """
    found: Seed = {}
    for path in paths:
        if os.path.isdir(path):
            for name in NAMES:
                each = os.path.join(path, name)
                if os.path.exists(each):
                    _take(found, name, each)
            continue
        name = os.path.basename(path)
        if name not in NAMES:
            if len(paths) > 1:
                raise UsageError(f"cloud-init: {path}: expected a file called {', '.join(NAMES)}")
            name = USER_DATA
        _take(found, name, path)
    if USER_DATA not in found and META_DATA not in found:
        raise NotFound(f"cloud-init: {paths[0]}: expected user-data or meta-data, found neither")
    found.setdefault(USER_DATA, b"#cloud-config\n{}\n")
    if META_DATA not in found:
        state = hashlib.sha256()
        for name in sorted(found):
            state.update(name.encode() + b"\0" + found[name] + b"\0")
        found[META_DATA] = f"instance-id: nocloud-{state.hexdigest()[:16]}\n".encode()
    return {name: found[name] for name in NAMES if name in found}


def _take(found: Seed, name: str, path: str) -> None:
    if name in found:
        raise UsageError(f"cloud-init: {path}: expected one {name}, found two")
    data = read_host(path, MAX_FILE)
    check(name, data, path)
    found[name] = data


def check(name: str, data: bytes, path: str) -> None:
    """Raise UsageError where a file is none of its name, as far as that shows without reading YAML."""
    if name in (USER_DATA, VENDOR_DATA):
        first = data.lstrip(b"\xef\xbb\xbf")
        if not data or first.startswith((_GZIP, *_KINDS)) or _MULTIPART.match(first):
            return
        shown = ascii(first.split(b"\n", 1)[0][:60].decode("utf-8", "replace"))
        raise UsageError(
            f"cloud-init: {path}: {name}: expected #cloud-config or another known first line, found {shown}"
        )
    text = _checked_yaml(data, path, name)
    if name == META_DATA and not re.search(r"(?m)^[ \t]*[\"']?instance-id[\"']?[ \t]*:", text) and "{" not in text:
        raise UsageError(f"cloud-init: {path}: meta-data: expected an instance-id, found none")
    if name == NETWORK and not re.search(r"(?m)^[ \t]*\{?[ \t]*[\"']?(version|network)[\"']?[ \t]*:", text):
        raise UsageError(f"cloud-init: {path}: network-config: expected version: 1 or 2, found none")


def _checked_yaml(data: bytes, path: str, name: str) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"cloud-init: {path}: {name}: expected UTF-8, found byte {error.start} that is not"
        ) from None
    for number, line in enumerate(text.split("\n"), 1):
        if re.match(r" *\t", line):
            raise UsageError(f"cloud-init: {path}: line {number}: YAML is not indented by tabs")
        if any(each < " " and each not in "\t\r" for each in line):
            raise UsageError(f"cloud-init: {path}: line {number}: expected text, found a control character")
    return text


def volume_tree(seed: Seed) -> Directory:
    """Return what a volume of its own holds. Its times are zero, so that it is the same for the same seed."""
    return Directory(entries={name.encode(): File(content=BytesContent(data)) for name, data in seed.items()})


def put_seed(edit: TreeEdit, seed: Seed, mtime_ns: int) -> None:
    """Have the seed where cloud-init looks in the root; only root reads it, since it may hold secrets."""
    for name, data in seed.items():
        node = File(0o600, mtime_ns=mtime_ns, content=BytesContent(data))
        edit.enter(FOLDER + b"/" + name.encode(), node)
