"""Which container image is meant, and whether a tree has the names of one: what can be known without reading any.

Knows: names. Refuses to know: documents; it is imported by all that opens sources, and imports little.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from blockwright.oci.platform import Platform
from blockwright.tree.node import Directory

_FIRST: Final = re.compile(
    rb"(?:\./)?(?:PaxHeaders[^/]*/)?(?:blobs(?:/|$)|(?:oci-layout|index\.json|manifest\.json|repositories|version)$|"
    rb"[0-9a-f]{64}(?:[./]|$))"
).match
_HEX: Final = re.compile(rb"[0-9a-f]{64}(?:\.json|\.tar)?").fullmatch


class Choice(NamedTuple):
    """Which image is meant where there are several: by platform, and by name (a tag); None for the only one."""

    platform: Platform | None = None
    name: str | None = None


ONLY: Final = Choice()


def has_marks(tree: Directory) -> bool:
    """Whether the tree has the names of an OCI layout, or of a docker-archive."""
    return is_marked(tree.entries)


def is_marked(names: Collection[bytes]) -> bool:
    """Whether these are the names at the top of an OCI layout, or of a docker-archive."""
    if b"oci-layout" in names and b"index.json" in names:
        return True
    return b"manifest.json" in names and any(_HEX(name) for name in names)


def begins_like_image(head: bytes) -> bool:
    """Whether an archive whose first header that is may be a container image: by the name of its first entry.

    Whatever writes images begins with a blob or a document, and next to nothing else has such a name first.
    """
    return _FIRST(head[:100].split(b"\0", 1)[0]) is not None
