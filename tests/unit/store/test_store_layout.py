import json

import pytest

from blockwright.errors import Corrupt, FormatError, LimitExceeded, Unsupported, UsageError
from blockwright.store import layout
from blockwright.store.layout import MiB, Ref, Root, Writer

pytestmark = pytest.mark.unprivileged
REF = Ref("0123456789abcdef-7", '"tag"', 0xFFFFFFFF)
ROOT = Root(5 * MiB + 1, MiB, 3, {0: REF}, Writer("0123456789abcdef", "host", 7, 1_700_000_000))


def test_what_is_written_is_read():
    assert layout.decode_root(layout.encode_root(ROOT)) == ROOT
    assert layout.decode_root(layout.encode_root(ROOT.with_writer(None))).writer is None
    chunks = {0: REF, 5: Ref(REF.name, None, 0)}
    assert layout.decode_page(layout.encode_page(chunks), 0, ROOT) == chunks
    assert ROOT.chunks == 6


def change(**fields):
    return json.dumps({**json.loads(layout.encode_root(ROOT)), **fields}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b"\xff{}",
        change(size=0),
        change(size=-1),
        change(size=True),
        change(size=1 << 60),
        change(chunk=3),
        change(chunk=1 << 40),
        change(serial="1"),
        change(pages=[]),
        change(pages={"1": list(REF)}),
        change(pages={"-0": list(REF)}),
        change(pages={"\N{ARABIC-INDIC DIGIT ZERO}": list(REF)}),
        change(pages={"0": ["../../x", "", 0]}),
        change(pages={"0": [REF.name, "", 1 << 32]}),
        change(pages={"0": [REF.name, ""]}),
        change(writer=[]),
        change(writer={"session": 1}),
    ],
)
def test_a_root_that_does_not_hold_is_corrupt(data):
    with pytest.raises(Corrupt):
        layout.decode_root(data)


def test_other_schemas_and_giants_are_refused_by_name():
    with pytest.raises(Unsupported, match="blockwright-bucket/2"):
        layout.decode_root(change(schema="blockwright-bucket/2"))
    with pytest.raises(LimitExceeded):
        layout.decode_root(b" " * (layout.MAX_ROOT + 1))


def test_a_page_names_its_own_chunks_only():
    with pytest.raises(FormatError, match="0 to 5"):
        layout.decode_page(layout.encode_page({6: REF}), 0, ROOT)


@pytest.mark.parametrize(("size", "chunk"), [(0, MiB), (layout.MAX_SIZE + 1, MiB), (1, MiB + 1), (1, 1024)])
def test_shapes_that_cannot_be_are_refused(size, chunk):
    with pytest.raises(UsageError):
        layout.check_shape(size, chunk)
