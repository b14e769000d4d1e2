"""Fuzz target: any bytes as the root and the pages of a disk in a bucket."""

from blockwright.errors import FormatError
from blockwright.store import layout

MAX_BYTES = 1 << 16


def fuzz_one(data: bytes) -> None:
    """Lets nothing but FormatError out: what is read is what it is written as."""
    data = data[:MAX_BYTES]
    try:
        root = layout.decode_root(data)
    except FormatError:
        root = layout.Root(1 << 30, layout.CHUNK, 1, {})
    else:
        if layout.decode_root(layout.encode_root(root)) != root:
            raise AssertionError(f"root: not what it is written as: {root}")
    try:
        page = layout.decode_page(data, 0, root)
    except FormatError:
        return
    if layout.decode_page(layout.encode_page(page), 0, root) != page:
        raise AssertionError(f"page: not what it is written as: {page}")
