"""Layers become one tree, the lowest first, as an unpacker would have it: over metadata, and no byte is moved.

A directory over a directory changes its metadata; anything over anything else takes its place. A name that begins
with ``.wh.`` removes what lower layers have by the rest of it, ``.wh..wh..opq`` all that they have in its directory;
what the same layer brings stays, whether it comes before or after. Everything is found through the tree's own links.

Knows: whiteouts. Refuses to know: archives, and contents. Source: OCI image-spec 1.1, layer.md, "Whiteouts".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from blockwright.errors import ArchiveRejected, Rejection
from blockwright.oci.layer import Entry, Indexed
from blockwright.tree.lookup import lookup
from blockwright.tree.node import Directory, File
from blockwright.tree.rules import ArchiveRules
from blockwright.tree.unpack import Unpacker, show

_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_META: Final = b".wh..wh."
_SPEC: Final = "OCI image-spec 1.1, layer.md"


def merge(layers: Sequence[Indexed], rules: ArchiveRules) -> Directory:
    """Return the tree of all layers. Raises ArchiveRejected with the number of the layer that cannot be applied."""
    tree = Unpacker(rules, replace_directories=True)
    for indexed in layers:
        try:
            _apply(tree, indexed.entries)
        except ArchiveRejected as error:
            error.layer = indexed.layer.number
            error.source = error.source or indexed.layer.name
            raise
    size = _size(tree.root)
    if size > rules.size:
        raise ArchiveRejected(
            Rejection.BYTES, f"size: expected files of at most {rules.size} bytes in all, found {size}"
        )
    return tree.finish(layers[0].mtime_ns if layers else 0)


def _size(root: Directory) -> int:
    total, stack = 0, [root]
    while stack:
        for node in stack.pop().entries.values():
            if isinstance(node, Directory):
                stack.append(node)
            elif isinstance(node, File):
                total += node.content.size
    return total


def _apply(tree: Unpacker, entries: Sequence[Entry]) -> None:
    marks = _Marks(tree) if any(_WHITEOUT in entry.path for entry in entries) else None
    for entry in entries:
        try:
            if marks is not None and _WHITEOUT in entry.path and marks.take(entry.path):
                continue
            if entry.node is not None:
                tree.enter(entry.path, entry.node)
            else:
                tree.link(entry.path, entry.target)
            if marks is not None:
                marks.brought(entry.path)
        except ArchiveRejected as error:
            error.entry = entry.path
            raise


class _Marks:
    """What one layer has brought so far, by directory and name, and what its whiteouts remove of the layers below."""

    def __init__(self, tree: Unpacker) -> None:
        self._tree = tree
        self._upper: set[tuple[Directory, bytes]] = set()
        self._pruned: set[Directory] = set()  # directories that have nothing of a lower layer any more

    def brought(self, path: bytes) -> None:
        """Remember that the layer has an entry of this name."""
        self._upper.add(self._tree.find(path))

    def take(self, path: bytes) -> bool:
        """Apply a whiteout, and return whether the name is one. Raises ArchiveRejected for one that cannot be."""
        *before, name = [part for part in path.split(b"/") if part not in (b"", b".")] or [b""]
        if any(part.startswith(_META) for part in before) or (name.startswith(_META) and name != _OPAQUE):
            return True  # what a union file system of the past kept for itself
        if any(part.startswith(_WHITEOUT) for part in before):
            raise _refused(path, "expected no directory by a whiteout's name, found one")
        if not name.startswith(_WHITEOUT):
            return False
        if b".." in before:
            raise _refused(path, "expected no '..' in a name, found one")
        node = lookup(self._tree.root, b"/".join(before))
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise _refused(path, "expected a name behind the mark, found none")
        if isinstance(node, Directory):
            if name == _OPAQUE:
                self._prune(node)
            else:
                self._remove(node, hidden)
        return True

    def _remove(self, directory: Directory, name: bytes) -> None:
        """Take a lower layer's entry out of the directory, and leave of a directory what this layer has in it."""
        node = directory.entries.get(name)
        if node is None:
            return
        upper = (directory, name) in self._upper
        if isinstance(node, Directory):
            self._prune(node)
            if upper or node.entries:
                return
        elif upper:
            return
        del directory.entries[name]
        self._tree.forget()

    def _prune(self, top: Directory) -> None:
        """Take all of lower layers out of a directory; once is enough, since what comes later is this layer's."""
        stack = [(top, self._lower(top))]
        while stack:
            directory, names = stack[-1]
            if not names:
                stack.pop()
                continue
            name = names[-1]
            node = directory.entries[name]
            if isinstance(node, Directory) and node not in self._pruned:
                stack.append((node, self._lower(node)))
                continue
            names.pop()
            upper = (directory, name) in self._upper
            if not upper and not (isinstance(node, Directory) and node.entries):
                del directory.entries[name]
        self._tree.forget()

    def _lower(self, directory: Directory) -> list[bytes]:
        """Return the names to look at in a directory that is pruned for the first time."""
        if directory in self._pruned:
            return []
        self._pruned.add(directory)
        return list(directory.entries)


def _refused(path: bytes, message: str) -> ArchiveRejected:
    return ArchiveRejected(Rejection.WHITEOUT, f"{show(path)}: whiteout: {message}", spec=_SPEC)
