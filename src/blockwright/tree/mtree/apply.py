"""A manifest is applied to a tree: what it says of nodes becomes true, what it says of contents is verified.

A node that is there gets the metadata that its entry names; one that is missing is made, where the entry says enough
to make it: directories, links, devices, FIFOs, sockets, files with ``contents`` or of no size. Nothing is removed.

Knows: what each word means for a tree. Refuses to know: how they are written.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Final

from blockwright.errors import BlockwrightError, IntegrityError, NotFound, UsageError
from blockwright.tree.changes.accounts import Accounts, Readable, as_it_is
from blockwright.tree.changes.edit import TreeEdit, show_path
from blockwright.tree.changes.owners import set_permissions
from blockwright.tree.changes.text import shown
from blockwright.tree.content import EMPTY, BytesContent, Content
from blockwright.tree.host import read_node
from blockwright.tree.mtree.digest import digests
from blockwright.tree.mtree.parse import TYPES, Entry
from blockwright.tree.node import Directory, File, Node, Special, Symlink

_NAMES: Final = {kind: name.decode() for name, kind in TYPES.items()}


def apply_manifest(
    root: Directory, entries: Sequence[Entry], *, mtime_ns: int, readable: Readable = as_it_is, base: str = "."
) -> Directory:
    """Return the tree with a manifest's entries applied in their order.

    ``mtime_ns`` is the time of what is made without one, ``base`` where ``contents`` are looked for. A link is not
    followed in the last part of a path. Raises UsageError for what does not fit the tree, IntegrityError for a size
    or digest that differs, NotFound for what is missing, each with file and line.
    """
    edit = TreeEdit(root, mtime_ns)
    accounts = Accounts(root, readable)
    for entry in entries:
        try:
            _Application(edit, entry, accounts, readable, mtime_ns, base).run()
        except (UsageError, NotFound, IntegrityError) as error:
            if str(error).startswith(f"{entry.line}: "):
                raise
            raise _at(entry, error) from error
    return edit.finish()


def _at(entry: Entry, error: BlockwrightError) -> BlockwrightError:
    kinds = (NotFound, IntegrityError)
    return next((kind for kind in kinds if isinstance(error, kind)), UsageError)(f"{entry.line}: {error}")


class _Application:
    """One entry."""

    def __init__(
        self, edit: TreeEdit, entry: Entry, accounts: Accounts, readable: Readable, mtime_ns: int, base: str
    ) -> None:
        self._edit = edit
        self._entry = entry
        self._accounts = accounts
        self._readable = readable
        self._mtime_ns = mtime_ns
        self._base = base

    def run(self) -> None:
        edit, entry = self._edit, self._entry
        node = edit.find(entry.path)
        if node is None:
            if entry.optional:
                return
            if entry.nochange:
                raise self._missing()
            node = self._made()
            edit.enter(entry.path, node)
        if entry.kind is not None and entry.kind != node.kind:
            raise self._differs("type", _NAMES[entry.kind], _NAMES[node.kind])
        if entry.nochange:
            return
        self._set(node)

    def _set(self, node: Node) -> None:
        """Have a node's metadata as the entry says, and its content as it is said to be."""
        entry = self._entry
        self._check_content(node)
        uid, gid = self._owner()
        wanted = {"permissions": entry.permissions, "uid": uid, "gid": gid, "mtime_ns": entry.mtime_ns}
        changed: dict[str, object] = {
            name: value for name, value in wanted.items() if value is not None and getattr(node, name) != value
        }
        if isinstance(node, Symlink) and entry.target not in (None, node.target):
            changed["target"] = entry.target
        if isinstance(node, Special) and entry.device not in (None, (node.major, node.minor)):
            assert entry.device is not None
            changed["major"], changed["minor"] = entry.device
        if isinstance(node, File) and entry.contents is not None:
            changed["content"] = self._content()
        if changed:
            owned = self._edit.own(entry.path)
            assert owned is not None, "it was found, or made"
            for name, value in changed.items():
                setattr(owned, name, value)
            if "permissions" in changed:
                set_permissions(owned, owned.permissions)

    def _owner(self) -> tuple[int | None, int | None]:
        """Return numbers: those that are given, else those of the names in the image."""
        entry = self._entry
        uid, gid = entry.uid, entry.gid
        if uid is None and entry.uname is not None:
            uid = self._accounts.uid(entry.uname)
        if gid is None and entry.gname is not None:
            gid = self._accounts.gid(entry.gname)
        return uid, gid

    def _made(self) -> Node:
        """Return a new node of the entry's type; its metadata are set as for any other."""
        entry, mtime_ns = self._entry, self._mtime_ns
        if not entry.path:
            raise self._missing()
        if entry.kind == stat.S_IFDIR:
            return Directory(mtime_ns=mtime_ns)
        if entry.kind == stat.S_IFLNK:
            if entry.target is None:
                raise entry.line.usage(f"{show_path(entry.path)}: expected link= for a link that is made")
            return Symlink(entry.target, mtime_ns=mtime_ns)
        if entry.kind in (stat.S_IFCHR, stat.S_IFBLK):
            if entry.device is None:
                raise entry.line.usage(f"{show_path(entry.path)}: expected device= for a device that is made")
            major, minor = entry.device
            return Special(entry.kind, mtime_ns=mtime_ns, major=major, minor=minor)
        if entry.kind in (stat.S_IFIFO, stat.S_IFSOCK):
            return Special(entry.kind, mtime_ns=mtime_ns)
        if entry.kind == stat.S_IFREG and entry.contents is not None:
            return File(mtime_ns=mtime_ns, content=self._content())
        if entry.kind == stat.S_IFREG and entry.size == 0:
            return File(mtime_ns=mtime_ns, content=EMPTY)
        raise self._missing()

    def _content(self) -> Content:
        assert self._entry.contents is not None
        path = os.path.join(os.fsencode(self._base), self._entry.contents)
        node = read_node(path)
        if not isinstance(node, File):
            raise self._entry.line.usage(f"contents: expected a file, found something else at {shown(path)}")
        return node.content

    def _check_content(self, node: Node) -> None:
        """Raise IntegrityError where size or digests are not those of the content that the node has, or will have."""
        entry = self._entry
        if not isinstance(node, File) or (entry.size is None and not entry.digests):
            return
        content = node.content if entry.contents is None else self._content()
        if entry.size is not None and content.size != entry.size:
            raise self._differs("size", str(entry.size), str(content.size))
        if not entry.digests:
            return
        if content.size and not isinstance(content, BytesContent):
            content = self._readable(content)
        for name, value in entry.digests.items():
            try:
                found = digests(content, (name,))[name]
            except ValueError:
                raise entry.line.unsupported(f"{name}: is not to be had in this Python") from None
            if found != value:
                raise self._differs(name, value, found)

    def _missing(self) -> NotFound:
        return NotFound(
            f"{self._entry.line}: {show_path(self._entry.path)}: is not in the tree, and the entry does not say all"
            " that would make it"
        )

    def _differs(self, what: str, expected: str, found: str) -> BlockwrightError:
        message = f"{self._entry.line}: {show_path(self._entry.path)}: {what}: expected {expected}, found {found}"
        return UsageError(message) if what == "type" else IntegrityError(message)
