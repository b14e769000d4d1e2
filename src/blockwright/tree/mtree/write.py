"""A tree becomes a manifest: one line for each name, with everything that mtree(5) has a word for.

Paths are whole (``./usr/bin/env``), parents first and names sorted, so equal trees give equal text. Extended
attributes have no word and are not told.

Knows: the words. Refuses to know: where a tree came from, and where the text goes.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from typing import Final

from blockwright.tree.content import Content
from blockwright.tree.mtree.escape import escape
from blockwright.tree.mtree.parse import TYPES
from blockwright.tree.node import Directory, File, Node, Special, Symlink, walk

HEADER: Final = b"#mtree\n"
_NAMES: Final = {kind: name for name, kind in TYPES.items()}
_WORDS: Final = {"ripemd160": "rmd160"}

DigestsOf = Callable[[Content], dict[str, str]]


def write_manifest(root: Directory, digests_of: DigestsOf | None = None) -> Iterator[bytes]:
    """Yield the lines of a manifest; ``digests_of`` answers the digests of a file's content, by name."""
    yield HEADER
    links = _counts(root)
    for path, node in walk(root):
        words = [b"./" + b"/".join([escape(each) for each in path.split(b"/")]) if path else b"."]
        words.append(b"type=" + _NAMES[node.kind])
        words.append(b"mode=%04o uid=%d gid=%d" % (node.permissions, node.uid, node.gid))
        seconds, nanoseconds = divmod(node.mtime_ns, 10**9)
        words.append(b"time=%d.%09d" % (seconds, nanoseconds))
        if not isinstance(node, Directory):
            words.append(b"nlink=%d" % links[id(node)])
        if isinstance(node, File):
            words.append(b"size=%d" % node.content.size)
            if digests_of is not None:
                words += [f"{_WORDS.get(k, k)}={v}".encode() for k, v in digests_of(node.content).items()]
        elif isinstance(node, Symlink):
            words.append(b"link=" + escape(node.target))
        elif isinstance(node, Special) and node.kind in (stat.S_IFCHR, stat.S_IFBLK):
            words.append(b"device=linux,%d,%d" % (node.major, node.minor))
        yield b" ".join(words) + b"\n"


def _counts(root: Directory) -> dict[int, int]:
    """Return how many names each node has that is no directory."""
    found: dict[int, int] = {}
    stack = [root]
    while stack:
        for node in stack.pop().entries.values():
            if isinstance(node, Directory):
                stack.append(node)
            else:
                found[id(node)] = found.get(id(node), 0) + 1
    return found


__all__ = ["HEADER", "DigestsOf", "Node", "write_manifest"]
