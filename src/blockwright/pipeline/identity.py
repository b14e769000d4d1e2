"""Which source a run is about, as JSON has it: what ``source.identity`` knows it by.

Knows: how that is asked for here. Refuses to know: what any kind of source is known by.
"""

from __future__ import annotations

from typing import Any

from blockwright.pipeline.request import Request


def identify(request: Request) -> dict[str, Any]:
    """Return what the source is known by now; ``kind`` says which kind of source it is.

    Of a directory the metadata of all that is in it are read. Raises NotFound, UsageError for what can be read only
    once, and what asking a registry or a store does.
    """
    from blockwright.source.identity import identify_all

    return identify_all((request.reference,), layers=request.layers, read=True).document()
