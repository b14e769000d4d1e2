"""Which source is meant, without reading it: what is different as soon as the source is.

An image in a registry is known by its manifest's digest, an object of a store by entity tag and version, a file of a
web server by its tag, or its size and time, a file by device, inode, size and both times, an OCI layout by the same
of all that is in it. Nothing but metadata is asked for, so whoever can forge metadata can forge an identity: it says
whether to look again, and the digests that are verified while reading say what was found.

Knows: what each kind of source is known by. Refuses to know: what is in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from blockwright.errors import LimitExceeded, NotFound, Unsupported, UsageError
from blockwright.source.key import check_several, is_layout, locate_all

MAX_FILES: Final = 1 << 20
"""Files of an OCI layout, or of a directory of layers."""
_VERSION: Final = "blockwright.identity/1"
"""Part of what is hashed: what is known of a source may become more, and is another identity then."""

Facts = Mapping[str, str | int | None]


class Kind(Enum):
    """What a source is known as."""

    REGISTRY = "registry"
    OBJECT = "object"
    FILE = "file"
    LAYOUT = "layout"
    DIRECTORY = "directory"
    LAYERS = "layers"


@dataclass(frozen=True, slots=True)
class Identity:
    """One state of one source: equal identities are one state. ``uri`` is where it is, ``facts`` what it is known by.

    ``weak`` says that what the server told may stay the same though the bytes do not: a weak entity tag, or a time.
    """

    kind: Kind
    uri: str = field(compare=False)
    facts: Facts
    weak: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """``sha256:`` and 64 hexadecimal digits, the same for equal identities in every process and version."""
        data = json.dumps([_VERSION, self.kind.value, dict(self.facts)], sort_keys=True, separators=(",", ":"))
        return f"sha256:{hashlib.sha256(data.encode()).hexdigest()}"

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {"kind": self.kind.value, "uri": self.uri, "weak": self.weak, **self.facts}


def identify(reference: str | os.PathLike[str], *, read: bool = False, store: str | None = None) -> Identity:
    """Return what the source is known by now that ``open_sources`` would open: a path, a URL, or a key of ``store``.

    A directory's files change without a trace above them: it is refused, unless ``read`` says to go through all, and
    is then known by the metadata of everything in it. Raises NotFound, UsageError for what can be read only once,
    Unsupported where a server says nothing that a version could be known by, and what asking one raises.
    """
    return identify_all((os.fsdecode(reference),), read=read, store=store)


def _identify(name: str, *, read: bool) -> Identity:
    if name == "-":
        raise UsageError("standard input: is there once: expected a source that can be read again")
    if name.startswith("docker://") and not os.path.lexists(name):
        return _registry(name)
    try:
        status = os.stat(name)
    except FileNotFoundError:
        return _address(name)
    if stat.S_ISDIR(status.st_mode):
        if is_layout(name):
            return _all_of(Kind.LAYOUT, name)
        if not read:
            raise UsageError(f"{name}: is a directory: expected what is known without reading all of it")
        return _all_of(Kind.DIRECTORY, name)
    return _file(name, status)


def identify_all(
    names: Sequence[str], *, layers: bool = False, read: bool = False, store: str | None = None
) -> Identity:
    """Return what ``open_sources`` would open is known by: one source, or several in this order.

    Raises as ``identify`` does, and UsageError for what cannot be one of several.
    """
    found, over = _found(names, store, layers=layers)
    return together(identify_each(found)) if over else _identify(found[0], read=read)


def identify_each(names: Sequence[str], *, layers: bool = False, store: str | None = None) -> list[Identity]:
    """Return what each of several references is known by now, the lowest first. Raises as ``identify_all`` does."""
    found = _found(names, store, layers=layers)[0]
    check_several(found)
    return [_identify(each, read=False) for each in found]


def together(found: Sequence[Identity]) -> Identity:
    """Return what several references in this order are known by."""
    if not found:
        raise UsageError("expected a source, found none")
    facts = {str(number): each.digest for number, each in enumerate(found)}
    return Identity(Kind.LAYERS, " ".join(each.uri for each in found), facts, weak=any(each.weak for each in found))


def _found(names: Sequence[str], store: str | None, *, layers: bool) -> tuple[Sequence[str], bool]:
    """Return what is named, and whether each of it is a layer."""
    if layers and len(names) == 1 and os.path.isdir(names[0]):
        found = [os.path.join(names[0], each) for each in sorted(os.listdir(names[0]))]
        return found, True
    located, prefix = locate_all(names, store)
    return located, prefix or len(located) != 1


# -- what lies on this host ------------------------------------------------------------------------------------------


def _facts(status: os.stat_result) -> Facts:
    return {
        "device": status.st_dev,
        "inode": status.st_ino,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }


def _file(path: str, status: os.stat_result) -> Identity:
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path}: is there once: expected a file that can be read again")
    return Identity(Kind.FILE, f"file:{os.path.realpath(path)}", _facts(status))


def _all_of(kind: Kind, path: str) -> Identity:
    """Return what is known of everything in a directory, by its name in it."""
    hasher, count = hashlib.sha256(), 0
    for name, status in _entries(path):
        line = [os.fsencode(name).hex(), status.st_mode, *_facts(status).values()]
        hasher.update(json.dumps(line).encode() + b"\n")
        count += 1
    metadata: Facts = {"entries": count, "metadata": f"sha256:{hasher.hexdigest()}"}
    return Identity(kind, f"file:{os.path.realpath(path)}", metadata)


def _entries(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield a directory and all below, in one order; links are not followed."""
    pending, count = [""], 0
    while pending:
        folder = pending.pop()
        yield folder, os.lstat(os.path.join(top, folder) if folder else os.path.realpath(top))
        with os.scandir(os.path.join(top, folder)) as found:
            entries = sorted(found, key=lambda each: each.name, reverse=True)
        for each in entries:
            count += 1
            if count > MAX_FILES:
                raise LimitExceeded(f"{top}: expected at most {MAX_FILES} files, found more")
            name = os.path.join(folder, each.name)
            if each.is_dir(follow_symlinks=False):
                pending.append(name)
            else:
                yield name, os.lstat(os.path.join(top, name))


# -- what lies elsewhere ---------------------------------------------------------------------------------------------


def _address(name: str) -> Identity:
    from blockwright.address import parse_address

    address = parse_address(name)
    if address.scheme not in ("file", "store"):
        raise UsageError(f"{name[:200]}: expected a file, an object of a store, or an image in a registry")
    if address.scheme == "store":
        whole = _object(address.rest)
    else:
        try:
            whole = _file(address.rest, os.stat(address.rest))
        except FileNotFoundError:
            raise NotFound(f"{name}: no such file or directory") from None
    if not address.is_part:
        return whole
    part = str(address.partition) if address.partition is not None else f"{address.start},{address.length}"
    return Identity(whole.kind, f"{whole.uri}#{part}", {**whole.facts, "part": part}, whole.weak)


def _object(url: str) -> Identity:
    from blockwright.store.address import parse_object
    from blockwright.store.cloud import endpoint_of, open_bucket

    address = parse_object(url)
    info = open_bucket(address.bucket).head(address.key)
    etag, number = info.version
    if etag is None and number is None:
        raise Unsupported("the server tells neither an entity tag nor a time: what is there may change", source=url)
    facts: Facts = {
        "uri": str(address),
        "endpoint": endpoint_of(address.bucket),
        "size": info.size,
        "etag": etag,
        "version": number,
    }
    weak = etag.startswith("W/") if etag is not None else address.readable_only
    return Identity(Kind.OBJECT, str(address), facts, weak)


def _registry(text: str) -> Identity:
    """Return the manifest's digest, which a reference by digest has already; of an index that of the index."""
    from blockwright.oci.reference import parse_reference
    from blockwright.oci.registry import Registry

    reference = parse_reference(text)
    digest = reference.digest
    if digest is None:
        with Registry(reference) as registry:
            digest = registry.digest(reference.version)
    return Identity(Kind.REGISTRY, f"docker://{reference.host}/{reference.name}", {"digest": digest})
