"""A container image in a registry as a source: fetched to the user's cache, and read from there.

Knows: where blobs are kept. Refuses to know: registries, and layers.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from blockwright.oci.blobs import BlobStore
from blockwright.oci.choice import Choice
from blockwright.oci.image import layers_of
from blockwright.oci.pull import pull
from blockwright.oci.reference import parse_reference
from blockwright.oci.registry import Registry
from blockwright.source.base import Source
from blockwright.source.layered import LayeredSource
from blockwright.tree.node import Directory
from blockwright.tree.rules import ArchiveRules


def blobs_directory() -> str:
    """Return where blobs are kept: below BLOCKWRIGHT_HOME, XDG_CACHE_HOME or ``~/.cache``."""
    home = os.environ.get("BLOCKWRIGHT_HOME")
    if home:
        return os.path.join(home, "oci")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "blockwright", "oci")


def pulled(text: str, choice: Choice) -> Directory:
    """Return the image that ``docker://HOST/NAME:TAG`` means as an OCI layout, every blob of which is there then.

    Raises UsageError for what is no reference, and what ``pull`` raises.
    """
    reference = parse_reference(text)
    with Registry(reference) as registry:
        return pull(registry, reference, BlobStore(blobs_directory()), choice)


def open_registry(text: str, rules: ArchiveRules, choice: Choice) -> Source:
    """Return the image that ``docker://HOST/NAME:TAG`` means as a source. Raises as ``pulled`` does."""
    tree = pulled(text, choice)
    return LayeredSource(layers_of(tree, Choice(choice.platform), text), text, rules, ExitStack())
