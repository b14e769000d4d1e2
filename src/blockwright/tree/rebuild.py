"""A tree becomes another one: the same names with other metadata; the tree itself stays.

Knows: how a tree is walked and copied, hard links and all. Refuses to know: what is changed, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from blockwright.tree.node import Directory, File, Node, Special, Symlink

Change = Callable[[bytes, Node], Node]
"""Returns what becomes of the node at a path (``b"usr/bin"``): itself, or another of the same kind."""


def with_metadata(
    node: Node,
    *,
    permissions: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
    mtime_ns: int | None = None,
    xattrs: Mapping[bytes, bytes] | None = None,
) -> Node:
    """Return a copy of a node with what is given; a directory's copy has entries of its own, the same nodes."""
    return copy_node(
        node,
        node.permissions if permissions is None else permissions,
        node.uid if uid is None else uid,
        node.gid if gid is None else gid,
        node.mtime_ns if mtime_ns is None else mtime_ns,
        node.xattrs if xattrs is None else xattrs,
    )


def copy_node(node: Node, permissions: int, uid: int, gid: int, mtime_ns: int, xattrs: Mapping[bytes, bytes]) -> Node:
    """Return a copy of a node with these metadata; a directory's copy has entries of its own."""
    if isinstance(node, File):
        return File(permissions, uid, gid, mtime_ns, xattrs, node.content)
    if isinstance(node, Directory):
        return Directory(permissions, uid, gid, mtime_ns, xattrs, dict(node.entries))
    if isinstance(node, Symlink):
        return Symlink(node.target, permissions, uid, gid, mtime_ns, xattrs)
    if isinstance(node, Special):
        return Special(node.kind, permissions, uid, gid, mtime_ns, xattrs, major=node.major, minor=node.minor)
    raise TypeError(f"tree: expected a file, directory, symlink or special node, found {type(node).__name__}")


def rebuild(root: Directory, change: Change) -> Directory:
    """Return a tree of the same names whose nodes are what ``change`` returned for them.

    It is asked once for each node, with the first of its names where it has several: a directory's before those
    below it, and sorted. Of what it returns for a directory the entries do not matter.
    """
    known: dict[int, Node] = {}

    def once(path: bytes, node: Node) -> Node:
        made = known.get(id(node))
        if made is None:
            made = known[id(node)] = change(path, node)
        return made

    top = _emptied(change(b"", root))
    stack = [(b"", root, top)]
    while stack:
        prefix, old, new = stack.pop()
        below = []
        for name in sorted(old.entries):
            node = old.entries[name]
            if isinstance(node, Directory):
                made = new.entries[name] = _emptied(change(prefix + name, node))
                below.append((prefix + name + b"/", node, made))
            else:
                new.entries[name] = once(prefix + name, node)
        below.reverse()
        stack += below
    return top


def _emptied(node: Node) -> Directory:
    assert isinstance(node, Directory), "a directory stays one"
    return Directory(node.permissions, node.uid, node.gid, node.mtime_ns, node.xattrs)
