"""Which source a run is about, as JSON has it: what ``source.identity`` knows it by.

Knows: how that is asked for here. Refuses to know: what any kind of source is known by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from blockwright.pipeline.request import Request


class SeveralKnown(NamedTuple):
    """What several references are known by: all together, and each, the lowest first, with its digest."""

    document: dict[str, Any]
    each: Sequence[dict[str, Any]]
    digests: Sequence[str]


def identify(request: Request) -> dict[str, Any]:
    """Return what the source is known by now; ``kind`` says which kind of source it is.

    Of a directory the metadata of all that is in it are read. Raises NotFound, UsageError for what can be read only
    once, or cannot be a layer, and what asking a registry or a store does.
    """
    from blockwright.source.identity import identify_all

    return identify_all(request.references, layers=request.layers, read=True).document()


def identify_several(request: Request) -> SeveralKnown:
    """Return what several references are known by now, and each. Raises as ``identify`` does."""
    from blockwright.source.identity import identify_each, together

    found = identify_each(request.references, layers=request.layers)
    return SeveralKnown(
        together(found).document(), [each.document() for each in found], [each.digest for each in found]
    )


def known_as(path: str) -> str:
    """Return the digest of what one file or OCI layout is known by now. Raises NotFound, UsageError."""
    from blockwright.source.identity import identify

    return identify(path).digest
