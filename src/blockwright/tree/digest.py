"""One number for a tree's metadata, from which everything that must differ between two trees can be derived.

Knows: which bytes stand for a node. Refuses to know: file bodies, where holes lie, and what the digest is for.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from blockwright.tree.node import Directory, File, Node, Special, Symlink

_VERSION: Final = b"blockwright tree 1\n"
"""Part of what is hashed: the encoding below is what makes output reproducible, so a change of it shows here."""

_NODE: Final = struct.Struct("<HHIIqIIQ").pack
"""Length of the name, mode, uid, gid, mtime in seconds and nanoseconds, count of xattrs, the kind's own number."""
_LINK: Final = struct.Struct("<HHQ").pack
"""Length of the name, zero where a mode would be, and the index of the node that the name is one more of."""
_LENGTHS: Final = struct.Struct("<II").pack
_BATCH: Final = 4096


def tree_digest(root: Directory) -> bytes:
    """Return SHA-256 over the tree's names, sizes, modes, owners, times, targets, devices, xattrs and hard links.

    Equal for equal trees, wherever they came from and in whatever order their entries were made; not over bodies,
    so nothing is read. 32 bytes.
    """
    hasher = hashlib.sha256(_VERSION)
    seen: dict[int, int] = {}
    stack: list[Directory] = [root]
    parts: list[bytes] = [_encode(b"", root)]
    index = 0
    while stack:
        entries = stack.pop().entries
        below: list[Directory] = []
        for name in sorted(entries):
            node = entries[name]
            if isinstance(node, Directory):
                below.append(node)
            else:
                known = seen.setdefault(id(node), index)
                if known != index:
                    parts += (_LINK(len(name), 0, known), name)
                    continue
                index += 1
            parts.append(_encode(name, node))
        below.reverse()
        stack += below
        if len(parts) > _BATCH:
            hasher.update(b"".join(parts))
            parts.clear()
    hasher.update(b"".join(parts))
    return hasher.digest()


def _encode(name: bytes, node: Node) -> bytes:
    """Return the bytes that stand for one node under its first name; each variable part follows its length."""
    seconds, nanoseconds = divmod(node.mtime_ns, 1_000_000_000)
    if type(node) is File and not node.xattrs:  # what most nodes are
        mode, size = File.KIND | node.permissions, node.content.size
        return _NODE(len(name), mode, node.uid, node.gid, seconds, nanoseconds, 0, size) + name
    tail = b""
    if isinstance(node, File):
        number = node.content.size
    elif isinstance(node, Directory):
        number = len(node.entries)
    elif isinstance(node, Symlink):
        tail = node.target
        number = len(tail)
    elif isinstance(node, Special):
        number = node.major << 32 | node.minor
    else:
        raise TypeError(f"tree: expected a file, directory, symlink or special node, found {type(node).__name__}")
    xattrs = node.xattrs
    head = _NODE(len(name), node.mode, node.uid, node.gid, seconds, nanoseconds, len(xattrs), number)
    if not xattrs:
        return head + name + tail
    pairs = [_LENGTHS(len(key), len(value)) + key + value for key, value in sorted(xattrs.items())]
    return b"".join((head, name, tail, *pairs))
