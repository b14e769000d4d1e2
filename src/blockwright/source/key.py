"""Names without a place: a key of the store that ``--store`` or BLOCKWRIGHT_STORE names, and prefixes of keys.

A name that begins with ``/``, ``./`` or ``../`` or has a scheme is what it says. Any other one is a path where that
exists, and a key of the store where it does not; where both are there it is refused.

Knows: which of the two is meant. Refuses to know: what is there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

from blockwright.errors import LimitExceeded, NotFound, ObjectNotFound, UsageError
from blockwright.oci.reference import meant
from blockwright.store.address import SCHEMES, is_store_url, parse_object

STORE: Final = "BLOCKWRIGHT_STORE"
"""The variable that names the store of keys."""
MAX_KEYS: Final = 1024
"""Layers below one prefix, as many as an image may have."""

_PLACED: Final = re.compile(r"\.{0,2}/|[a-z][a-z0-9+]{1,15}://|(?:mem|null|file|volume):")
_PART: Final = re.compile(r"(?P<key>.+):(?P<number>[0-9]{1,4})", re.DOTALL)


def check_several(names: Sequence[str]) -> None:
    """Raise UsageError where a name can only be one by itself, and not an archive, or an image, among several."""
    from blockwright.address import parse_address

    for name in names:
        if name == "-":
            what = "standard input"
        elif os.path.isdir(name) and not is_layout(name):
            what = "a directory"
        elif not os.path.lexists(name) and not name.startswith("docker://") and (part := parse_address(name)).is_part:
            if part.scheme == "file" and not os.path.lexists(part.rest) and meant(name):
                continue  # is found nowhere: the message of that tells how it is written
            what = "a part of an image"
        else:
            continue
        raise UsageError(f"{name}: is {what}: expected archives and container images, each over those before it")


def is_layout(path: str) -> bool:
    """Whether a directory is an OCI layout."""
    return all(os.path.isfile(os.path.join(path, each)) for each in ("oci-layout", "index.json"))


def locate(name: str, store: str | None = None) -> tuple[str, ...]:
    """Return what ``name`` means: itself, a key's URL in ``store``, or the URLs of all keys below a prefix, in order.

    Raises as ``place`` does, NotFound for a prefix of nothing, LimitExceeded.
    """
    found = place(name, store)
    return _below(found) if is_prefix(found) else (found,)


def place(name: str, store: str | None = None) -> str:
    """Return what ``name`` means: itself, or the URL of a key, or of a prefix, in ``store``.

    ``store`` is BLOCKWRIGHT_STORE's where it is None. Raises UsageError for a name that is a path and a key, and what
    asking the store does.
    """
    store = os.environ.get(STORE, "") if store is None else store
    if is_store_url(name) or not store or name in ("-", ".", "..") or os.path.isabs(name) or _PLACED.match(name):
        return name
    if not is_store_url(store):
        raise UsageError(f"{store[:200]!r}: expected a store, {'://, '.join(SCHEMES)}:// and a bucket or host")
    part = None if os.path.lexists(name) else _PART.fullmatch(name)
    path = part["key"] if part else name
    url = f"{store.rstrip('/')}/{path}"
    if os.path.lexists(path):
        if _is_there(url):
            raise UsageError(f"{name}: is a path here and {url}: expected ./{name} or that URL, to tell which")
        return name
    return f"{url}#{part['number']}" if part else url


def is_prefix(name: str) -> bool:
    """Whether a name is that of all keys below it in a store."""
    return name.endswith("/") and is_store_url(name) and not os.path.lexists(name)


def locate_all(names: Sequence[str], store: str | None = None) -> tuple[tuple[str, ...], bool]:
    """Return what the names mean, and whether one is a prefix, below which are layers. Raises as ``locate``."""
    found = [(name, locate(name, store)) for name in names]
    prefix = any(name.endswith("/") and each != (name,) for name, each in found)
    return tuple(one for _, each in found for one in each), prefix


def _is_there(url: str) -> bool:
    """Whether a key, or one below a prefix, is in the store."""
    from blockwright.store.cloud import open_bucket

    address = parse_object(url.rstrip("/"))
    objects = open_bucket(address.bucket)
    if url.endswith("/"):
        return not address.readable_only and next(iter(objects.list(address.key)), None) is not None
    try:
        objects.head(address.key)
    except ObjectNotFound:
        return False
    return True


def _below(url: str) -> tuple[str, ...]:
    """Return the URLs of all keys below a prefix, by name."""
    from blockwright.store.cloud import open_bucket

    address = parse_object(url.rstrip("/"))
    if address.readable_only:
        raise UsageError(f"{url}: a web server lists nothing: expected s3://, gs:// or az://")
    keys: list[str] = []
    for each in open_bucket(address.bucket).list(address.key):
        if each.key.endswith("/"):
            continue  # what some tools make to show a folder
        if len(keys) == MAX_KEYS:
            raise LimitExceeded(f"{url}: expected at most {MAX_KEYS} keys, found more")
        keys.append(each.key)
    if not keys:
        raise NotFound(f"{url}: no such prefix")
    return tuple(f"{address.bucket}/{key}" for key in sorted(keys))
