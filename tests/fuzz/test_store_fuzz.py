"""A bounded run of the fuzz target, from whole documents on."""

import json
import random

from blockwright.store import layout
from tests.fuzz.store_target import fuzz_one

REF = ["0123456789abcdef-1", "tag", 7]
SEEDS = [
    {"schema": layout.SCHEMA, "size": 1 << 21, "chunk": 1 << 20, "serial": 1, "writer": None, "pages": {"0": REF}},
    {"schema": layout.SCHEMA, "chunks": {"0": REF, "1": REF}},
]
VALUES = [None, True, -1, 1 << 70, 1.5, "", "0", [], {}, REF, [REF], {"0": None}, "\ud800", "x" * 300]


def change(source, value):
    """Replace something within a JSON value."""
    if not isinstance(value, (dict, list)) or not value or source.random() < 0.2:
        return source.choice(VALUES)
    copy = value.copy()
    key = source.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    copy[key] = change(source, copy[key])
    return copy


def test_changed_documents_raise_format_errors_only():
    for number in range(3000):
        source = random.Random(f"store.{number}")
        data = bytearray(json.dumps(change(source, source.choice(SEEDS))).encode())
        if source.random() < 0.3:
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            fuzz_one(bytes(data))
        except Exception as error:
            raise AssertionError(f"replay: {number}") from error
