"""A source becomes a directory of the host.

Knows: the order of steps, for sources that can be read anywhere and for those that pass once. Refuses to know: how a
tree is written (``tree.extract``), and any kind of source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blockwright.source import Source
from blockwright.tree.changes.options import Changes
from blockwright.tree.extract import Extracted, Extraction, ExtractOptions, Owner, Progress
from blockwright.tree.node import Directory

NO_CHANGES: Final = Changes()


def extract(
    source: Source,
    path: str,
    options: ExtractOptions,
    *,
    changes: Changes = NO_CHANGES,
    owner: str | None = None,
    progress: Progress | None = None,
) -> Extracted:
    """Have what ``source`` holds in the directory ``path``, or what was there before.

    The source is read whole, changed, and refused where it has to be, before anything gets a name in ``path``.
    ``owner`` names whose files are made, in place of the options' rule: names are the tree's own. ``progress`` is
    told bytes, of the source where it passes once. Raises what reading and changing the source and ``Extraction``
    raise, UsageError for changes that are for disks, or need to read what passes once.
    """
    change = _changing(changes)
    if source.addressable:
        tree = change(source.read())
        with Extraction(path, options) as extraction:
            return extraction.write(tree, progress, owner=_owner(tree, owner))
    with Extraction(path, options) as extraction:
        place = extraction.place
        tree = change(source.read(source.shown(place, progress) if progress is not None else place))
        return extraction.write(tree, owner=_owner(tree, owner))


def _changing(changes: Changes) -> Callable[[Directory], Directory]:
    if not changes:
        return lambda tree: tree
    changes.refuse_disk("extract")
    from blockwright.tree.changes.ready import ready

    return ready(changes).apply


def _owner(tree: Directory, text: str | None) -> Owner | None:
    if text is None:
        return None
    from blockwright.tree.changes.accounts import Accounts

    uid, gid = Accounts(tree).owner(text)
    return Owner(uid=uid, gid=gid)
