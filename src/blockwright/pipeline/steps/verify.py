"""The second step: every digest that the image names holds, and its layers make a tree that is taken in.

So whatever is refused is refused before anything is made of it. The tree stays in the context for the next steps; a
process that comes later reads it again, digests and all.

Knows: what is told of a tree. Refuses to know: how one is read.
"""

from __future__ import annotations

import time
from typing import Any

from blockwright.errors import SourceChanged
from blockwright.pipeline.context import Context
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.receipt import Receipt
from blockwright.pipeline.states import Event
from blockwright.pipeline.steps import download


def do(inputs: Inputs, context: Context) -> Receipt:
    """Read what was fetched to its end, and tell what it is. Raises what reading a source does."""
    from blockwright.pipeline.filling import count, layers_in, size_for, tree_of
    from blockwright.tree.digest import tree_digest

    started_ns = time.time_ns()
    source = context.source(inputs)
    tree = tree_of(source, context)
    if not download.holds(inputs, inputs.receipts[-1], context):
        raise SourceChanged(f"{inputs.request.named}: changed while it was read")
    counted = count(tree)
    outputs: dict[str, Any] = {
        "source": source.kind,
        "tree": f"sha256:{tree_digest(tree).hex()}",
        "names": counted.names,
        "files": counted.files,
        "content_bytes": counted.size,
        "volume_bytes": size_for(tree, inputs.request),
        **layers_in(source),
    }
    context.checkpoint("verify: read")
    return context.receipt(inputs, Event.VERIFY, started_ns, outputs)


def holds(inputs: Inputs, _receipt: Receipt, context: Context) -> bool:
    """Whether what was verified is still here, which the next step reads."""
    return download.holds(inputs, inputs.receipts[0], context)


def undo(_inputs: Inputs, context: Context) -> None:
    """Let go of what was read."""
    context.forget()
