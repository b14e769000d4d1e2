"""A source becomes a directory of the host.

Knows: the order of steps, for sources that can be read anywhere and for those that pass once. Refuses to know: how a
tree is written (``tree.extract``), and any kind of source.
"""

from __future__ import annotations

from blockwright.source import Source
from blockwright.tree.extract import Extracted, Extraction, ExtractOptions, Progress


def extract(source: Source, path: str, options: ExtractOptions, *, progress: Progress | None = None) -> Extracted:
    """Have what ``source`` holds in the directory ``path``, or what was there before.

    The source is read whole, and refused where it has to be, before anything gets a name in ``path``. ``progress`` is
    told bytes, of the source where it passes once. Raises what reading the source and ``Extraction`` raise.
    """
    if source.addressable:
        tree = source.read()
        with Extraction(path, options) as extraction:
            return extraction.write(tree, progress)
    with Extraction(path, options) as extraction:
        place = extraction.place
        tree = source.read(source.shown(place, progress) if progress is not None else place)
        return extraction.write(tree)
