"""The trees that a disk's partitions hold: parts of the disk's own, and those that partitions bring along.

Knows: where each part of a tree goes. Refuses to know: file systems, and how sources are opened.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

from blockwright.build.partition import PartitionDefinition
from blockwright.device.file import FileDevice
from blockwright.errors import NotFound, UsageError
from blockwright.source.base import Source
from blockwright.tree.host import read_node
from blockwright.tree.node import Directory, Node
from blockwright.tree.spool import Spool

Open = Callable[[tuple[str, ...]], Source]
"""Opens the source, or the sources over one another, that texts name."""


def read_anywhere(source: Source, owned: ExitStack) -> Directory:
    """Return the source's tree, its contents to be read anywhere as long as ``owned`` is open.

    What passes once is kept in a temporary file meanwhile.
    """
    if source.addressable:
        return source.read()
    file = owned.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # closed with the rest
    device = owned.enter_context(FileDevice.adopt(os.dup(file.fileno()), "temporary file", writable=True))
    return source.read(Spool(device).place)


def own_tree(part: PartitionDefinition, opened: Open, owned: ExitStack) -> Directory | None:
    """Return the tree that a partition brings along, None where it holds a part of the disk's, or no files.

    ``files`` go over the sources, and directories over both; links within are not followed. Raises NotFound,
    UsageError, and what reading sources raises.
    """
    if part.mount is not None or not part.has_tree:
        return None
    tree = Directory()
    if part.sources:
        tree = read_anywhere(owned.enter_context(opened(part.sources)), owned)
    return with_extras(tree, part)


def with_extras(tree: Directory, part: PartitionDefinition) -> Directory:
    """Return a tree with the files and directories of a partition put in, the tree itself left as it is."""
    if not part.files and not part.directories:
        return tree
    made = copied(tree)
    for name, inside in part.files:
        try:
            node = read_node(name)
        except FileNotFoundError:
            raise NotFound(f"{name}: no such file or directory") from None
        put(made, inside, node)
    for inside in part.directories:
        put(made, inside, Directory())
    return made


def put(tree: Directory, path: str, node: Node) -> None:
    """Put a node into a tree that nobody else has. A directory is merged with the one that is there."""
    *parents, name = [part.encode("utf-8", "surrogateescape") for part in path.split("/") if part] or [b""]
    at = _folder(tree, parents, path)
    if not name:
        if not isinstance(node, Directory):
            raise UsageError(f"{path}: expected a directory to become the top one, found something else")
        _merge(tree, node)
        return
    there = at.entries.get(name)
    if isinstance(there, Directory) and isinstance(node, Directory):
        _merge(there, node)
    elif isinstance(there, Directory):
        raise UsageError(f"{path}: expected a file, found a directory there")
    else:
        at.entries[name] = node


def _folder(tree: Directory, parents: Iterable[bytes], path: str) -> Directory:
    for part in parents:
        child = tree.entries.setdefault(part, Directory(mtime_ns=tree.mtime_ns))
        if not isinstance(child, Directory):
            raise UsageError(f"{path}: expected directories on the way, found something else")
        tree = child
    return tree


def _merge(into: Directory, other: Directory) -> None:
    """Put everything of another directory into one; where both have a directory, that is merged too."""
    stack = [(into, other)]
    while stack:
        at, more = stack.pop()
        for name, node in more.entries.items():
            there = at.entries.get(name)
            if isinstance(there, Directory) and isinstance(node, Directory):
                stack.append((there, node))
            else:
                at.entries[name] = node


def copied(tree: Directory) -> Directory:
    """Return a tree whose directories are new objects and whose other nodes are the same."""
    root = _like(tree)
    stack = [(tree, root)]
    while stack:
        old, new = stack.pop()
        for name, node in old.entries.items():
            new.entries[name] = made = _like(node) if isinstance(node, Directory) else node
            if isinstance(node, Directory) and isinstance(made, Directory):
                stack.append((node, made))
    return root


def split(tree: Directory, mounts: Iterable[str]) -> Mapping[str, Directory]:
    """Return what of the tree lies at each mount point, and by ``/`` the rest, where the points are left empty.

    What lies within a deeper point is not in a higher one. A point that the tree does not have is made. Raises
    UsageError where something else than a directory is there.
    """
    deepest = sorted(set(mounts) - {"/"}, key=lambda path: -path.count("/"))
    if not deepest:
        return {"/": tree}
    root = copied(tree)
    found: dict[str, Directory] = {}
    for path in deepest:
        *parents, name = [part.encode("utf-8", "surrogateescape") for part in path[1:].split("/")]
        at = _folder(root, parents, path)
        node = at.entries.get(name, Directory(mtime_ns=tree.mtime_ns))
        if not isinstance(node, Directory):
            raise UsageError(f"{path}: expected a directory to mount at, found something else")
        found[path] = node
        at.entries[name] = _like(node)
    return found | {"/": root}


def _like(directory: Directory) -> Directory:
    return Directory(
        directory.permissions, directory.uid, directory.gid, directory.mtime_ns, directory.xattrs, entries={}
    )
