"""Fuzz target: any bytes as what one machine hands another of a run: inputs, with a request and receipts."""

import json

from blockwright.errors import BlockwrightError, Corrupt
from blockwright.pipeline.context import choice_of, rules_of
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.receipt import Receipt, check_chain
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import Event

MAX_BYTES = 1 << 16


def fuzz_one(data: bytes) -> None:
    """Lets nothing but Corrupt out, and what holds is read again as it was."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    try:
        inputs = Inputs.parse(document)
    except Corrupt:
        return
    text = json.dumps(inputs.document())
    if json.dumps(Inputs.parse(json.loads(text)).document()) != text:
        raise AssertionError("other inputs")
    for use in (rules_of, choice_of):
        try:
            use(inputs.request)
        except BlockwrightError:
            continue
    try:
        check_chain(inputs.receipts)
        inputs.outputs(Event.CREATE)
    except Corrupt:
        pass
    inputs.request.run_of(inputs.identity)
    inputs.request.volume_of("0123456789ab")


def seeds() -> list[bytes]:
    """Inputs with two receipts, and with none."""
    request = Request("docker://h/app:1", "p", limits={"size": 5, "xattrs": "all"}, platform="linux/arm64")
    first = Receipt("0a", Event.DOWNLOAD, {"kind": "file", "path": "x"}, 1, 2, "h", used={"python": "3"})
    second = Receipt("0a", Event.VERIFY, {"layers": [{"digest": None}]}, 3, 4, "h", 2, first.digest)
    found = [Inputs("0a", request, {"kind": "file"}, "v", each) for each in ((), (first, second))]
    return [json.dumps(each.document()).encode() for each in found]
