"""Paths within a tree: what a name stands for, with the tree's own symlinks followed and clamped at its root.

Knows: lookup. Refuses to know: the host's file system, which is never asked.
"""

from __future__ import annotations

from blockwright.tree.node import MAX_SYMLINKS, Directory, Node, Symlink


def lookup(root: Directory, path: bytes, *, follow: bool = True) -> Node | None:
    """Return the node at ``path``, or None where there is none or where links turn in circles.

    ``..`` stops at the root, and an absolute link starts again there. ``follow`` is about the last component;
    links before it are always followed.
    """
    trail: list[Directory] = [root]
    parts = path.split(b"/")[::-1]
    links = 0
    node: Node = root
    while parts:
        part = parts.pop()
        if part in (b"", b"."):
            continue
        if not isinstance(node, Directory):
            return None
        if part == b"..":
            if len(trail) > 1:
                trail.pop()
            node = trail[-1]
            continue
        child = node.entries.get(part)
        if child is None:
            return None
        if isinstance(child, Symlink) and (follow or any(parts)):
            links += 1
            if links > MAX_SYMLINKS:
                return None
            if child.target.startswith(b"/"):
                trail = [root]
            node = trail[-1]
            parts.extend(child.target.split(b"/")[::-1])
            continue
        node = child
        if isinstance(child, Directory):
            trail.append(child)
    return node
