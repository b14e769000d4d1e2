"""Files of the host and literal text, put into a tree.

Knows: what an addition says. Refuses to know: how it was asked for.
"""

from __future__ import annotations

import os
import re
from typing import Final

from blockwright.errors import UsageError
from blockwright.tree.changes.accounts import Accounts
from blockwright.tree.changes.edit import TreeEdit, show_path
from blockwright.tree.changes.options import Addition
from blockwright.tree.changes.owners import set_permissions
from blockwright.tree.content import BytesContent
from blockwright.tree.host import read_node
from blockwright.tree.node import Directory, File, Node, Symlink
from blockwright.tree.rebuild import rebuild, with_metadata

KEEP: Final = "keep"
_WORDS: Final = r"(?:mode=[0-7]{1,4}|owner=[^,=]+)(?:,(?:mode=[0-7]{1,4}|owner=[^,=]+))*"
_FILE: Final = re.compile(rf"(?P<source>.+?):(?P<path>/.*?)(?::(?P<words>{_WORDS}))?", re.DOTALL)
_TEXT: Final = re.compile(rf"(?P<path>/[^=]*?)(?::(?P<words>{_WORDS}))?=(?P<text>.*)", re.DOTALL)


def parse_file(text: str) -> Addition:
    """Return the addition of ``HOST:/PATH[:mode=MODE,owner=USER:GROUP]``. Raises UsageError."""
    match = _FILE.fullmatch(text)
    if match is None:
        raise UsageError(f"add: expected HOST:/PATH[:mode=MODE,owner=USER:GROUP], found {text[:80]!a}")
    return Addition(match["path"], source=match["source"], **_words(match["words"]))


def parse_text(text: str) -> Addition:
    """Return the addition of ``/PATH[:mode=MODE,owner=USER:GROUP]=TEXT``. Raises UsageError."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise UsageError(f"add: expected /PATH[:mode=MODE,owner=USER:GROUP]=TEXT, found {text[:80]!a}")
    return Addition(match["path"], text=match["text"], **_words(match["words"]))


def _words(text: str | None) -> dict[str, str]:
    return dict(each.split("=", 1) for each in text.split(",")) if text else {}


def check(addition: Addition) -> None:
    """Raise UsageError for an addition that cannot be."""
    if not addition.path.startswith("/"):
        raise UsageError(f"add: expected a path that begins with a slash, found {addition.path[:80]!a}")
    if (addition.source is None) == (addition.text is None):
        raise UsageError(f"add: {addition.path}: expected either a file of the host or text")
    if addition.mode is not None and not re.fullmatch("[0-7]{1,4}", addition.mode):
        raise UsageError(
            f"add: {addition.path}: mode: expected octal digits such as 0644, found {addition.mode[:16]!a}"
        )
    if addition.owner == KEEP and addition.source is None:
        raise UsageError(f"add: {addition.path}: expected an owner for text, found keep")


def add(edit: TreeEdit, addition: Addition, accounts: Accounts, mtime_ns: int) -> None:
    """Put a file, a directory or text into the tree.

    Links before the last part of the path are followed within the tree; what is at the path is replaced, but a
    directory takes up what another one holds, and stays as it is itself. A path that ends in a slash is a directory
    that a file goes into under its own name. Text gets a line end where it has none. Raises as reading does, and
    UsageError.
    """
    path = addition.path.encode("utf-8", "surrogateescape")
    if addition.source is None:
        text = (addition.text or "").encode("utf-8", "surrogateescape")
        if text and not text.endswith(b"\n"):
            text += b"\n"
        node: Node = File(mtime_ns=mtime_ns, content=BytesContent(text))
    else:
        node = read_node(addition.source)
        if path.endswith(b"/") and not isinstance(node, Directory):
            path += os.path.basename(os.path.abspath(os.fsencode(addition.source)))
    node = _changed(node, addition, accounts)
    if isinstance(node, Directory):
        _merge(edit, path, node)
    else:
        edit.enter(path, node)


def _changed(node: Node, addition: Addition, accounts: Accounts) -> Node:
    """Return what is added with its owner and its files' mode."""
    uid, gid = (None, None) if addition.owner == KEEP else accounts.owner(addition.owner or "0:0")
    mode = None if addition.mode is None else int(addition.mode, 8)

    def change(_path: bytes, each: Node) -> Node:
        made = with_metadata(each, uid=uid, gid=gid)
        if mode is not None and isinstance(made, File):
            set_permissions(made, mode)
        return made

    return rebuild(node, change) if isinstance(node, Directory) else change(b"", node)


def _merge(edit: TreeEdit, path: bytes, node: Directory) -> None:
    """Put a directory into the tree: as it is where there is none, else everything that it holds."""
    stack = [(path.rstrip(b"/"), node)]
    while stack:
        here, directory = stack.pop()
        there = edit.find(here, follow=True)
        if there is None and not isinstance(edit.find(here), Symlink):
            edit.enter(here, directory)
            continue
        if there is not None and not isinstance(there, Directory):
            raise UsageError(f"{show_path(here)}: expected a directory to add to, found something else")
        into = edit.directory(here)
        for name, child in directory.entries.items():
            if isinstance(child, Directory):
                stack.append((here + b"/" + name, child))
            elif isinstance(into.entries.get(name), Directory):
                raise UsageError(f"{show_path(here + b'/' + name)}: expected no directory there, found one")
            else:
                into.entries[name] = child
