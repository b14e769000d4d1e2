"""What every file system's ``edit`` module gives: files changed in place, by path, each change whole or not at all.

A change is made in memory, on top of what is on the device, and ``files`` shows it at once. Bodies go to free blocks
as they come; nothing that the file system refers to is written before ``commit``. So what is not committed never
was.

Knows: the changes that can be asked of any file system, paths, trees. Refuses to know: how any of them stores it,
and by which order of writes a commit is safe.
"""

from __future__ import annotations

import stat as stat_module
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Final, Self

from blockwright.errors import Corrupt, NotFound, UsageError
from blockwright.fs.reader import MAX_DEPTH, FileSystem, show_path
from blockwright.tree.content import Content
from blockwright.tree.node import Directory, Node, Symlink


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is to change of an inode's metadata; None leaves it. Times in nanoseconds since 1970.

    ``immutable`` is ext4's flag of that name; ``dos`` are FAT's attribute bits (read-only 1, hidden 2, system 4,
    archive 0x20), which other file systems do not have.
    """

    permissions: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None
    immutable: bool | None = None
    dos: int | None = None


@dataclass(frozen=True, slots=True)
class CommitPolicy:
    """How changes reach the device.

    ``atomic`` refuses, with UsageError and nothing changed, what does not fit one transaction; otherwise it becomes
    several, each of them whole files, and ``on_split`` is called with the reason before the first is written.
    """

    atomic: bool = False
    on_split: Callable[[str], None] | None = None


DEFAULT_POLICY: Final = CommitPolicy()
"""What editors hold to where nobody says otherwise."""

Child = tuple[int, bytes, Node, bytes]
"""What is to be put: the directory's inode, the name in it, the node, and the path for messages."""


class Editor(ABC):
    """A file system opened for changes. Owns its device; closing it without ``commit`` leaves what was there.

    As a context manager it commits at the end, and does not where an exception ends it. Not for several threads.
    An operation that raises has changed nothing, and those before it stand.
    """

    keeps_links: ClassVar[bool] = True
    """Whether an inode can have several names; where not, ``put`` makes a copy for each."""

    @property
    @abstractmethod
    def files(self) -> FileSystem:
        """The file system as it is with every change so far. What it returned before a change may not hold after."""

    # -- what a file system implements, by inode --------------------------------------------------------------
    # ``name`` was checked by ``check_name``; what an inode is, and whether a name is taken, was looked up before.

    @abstractmethod
    def check_name(self, name: bytes) -> None:
        """Raise UsageError for a name that the file system cannot hold."""

    @abstractmethod
    def _create(self, parent: int, name: bytes, node: Node) -> int:
        """Make a new inode of the node's kind, metadata and content under a free name; return its number.

        A directory is made empty. Raises NoSpace, and UsageError for a node that the file system cannot hold.
        """

    @abstractmethod
    def _replace(self, inode: int, content: Content) -> None:
        """Give a regular file other bytes, holes and all; the old ones stay whole until the commit."""

    @abstractmethod
    def _write_at(self, inode: int, offset: int, content: Content) -> None:
        """Change part of a regular file, which grows where the part lies behind its end; as whole as ``_replace``."""

    @abstractmethod
    def _truncate(self, inode: int, size: int) -> None:
        """Cut a regular file, or let it grow by a hole where the file system has holes, by zeros where not."""

    @abstractmethod
    def _link(self, parent: int, name: bytes, inode: int) -> None:
        """Give an inode that is no directory one more name. Raises UsageError where the file system has no links."""

    @abstractmethod
    def _unlink(self, parent: int, name: bytes, inode: int) -> None:
        """Take away a name of an inode, or an empty directory; what has no name left is freed."""

    @abstractmethod
    def _rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        """Move a name to one that is free; a directory that moves gets its new parent."""

    def _supplant(self, parent: int, name: bytes, inode: int, node: Node) -> int:
        """Have a new inode under a name that something else than a directory has; return its number.

        To be overridden where the two steps are not one change on the device.
        """
        self._unlink(parent, name, inode)
        return self._create(parent, name, node)

    def _rename_over(self, parent: int, name: bytes, new_parent: int, new_name: bytes, target: int) -> None:
        """Move a name to one that ``target`` has, of the same kind and not the same inode, a directory empty.

        To be overridden where the two steps are not one change on the device.
        """
        self._unlink(new_parent, new_name, target)
        self._rename(parent, name, new_parent, new_name)

    @abstractmethod
    def _set_attributes(self, inode: int, attributes: Attributes) -> None:
        """Change metadata. Raises UsageError for what the file system does not keep."""

    @abstractmethod
    def _set_xattr(self, inode: int, name: bytes, value: bytes | None) -> None:
        """Set an extended attribute, named as for Linux's setxattr; None removes it. Raises NotFound, NoSpace."""

    @abstractmethod
    def _set_label(self, label: str) -> None:
        """Change the label. Raises UsageError for one that does not fit."""

    @abstractmethod
    def _step(self) -> None:
        """Called behind each whole operation: where a commit may split, what came so far may be committed here."""

    @abstractmethod
    def commit(self) -> None:
        """Make every change so far durable: after a crash at any moment all of them are there, or none is.

        Where that is not possible (no journal, or more than one transaction) each operation is whole for itself.
        """

    @abstractmethod
    def close(self) -> None:
        """Forget what was not committed, and close the device. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.close()

    # -- by path ---------------------------------------------------------------------------------------------
    # Links before the last component are followed, never out of the file system; the last one only where said.

    def put(self, path: bytes, node: Node, *, parents: bool = False, replace: bool = True) -> None:
        """Have the node at ``path``: a file, a link, a special file, or a directory with all below it.

        A directory is merged into one that is there, as the root always is, and gives it its metadata. Anything else
        that is there is replaced as one change with ``replace``, and refused without. With ``parents`` missing
        directories before it are made, as ``mkdir`` makes them. A node with several names in the tree becomes one
        inode with those names.
        """
        links: dict[int, int] = {}
        stack: list[Child] = []
        if isinstance(node, Directory) and _is_root(path):
            self._set_metadata(self.files.root_inode, node)
            self._step()
            root = self.files.root_inode
            stack += self._put_many(root, _children(root, node, path), links, replace=replace)
        else:
            directory, name = self._parent(path, parents=parents, like=Directory(mtime_ns=node.mtime_ns))
            stack.append((directory, name, node, path))
        while stack:
            parent, last, each, shown = stack.pop()
            inode = self._put_one(parent, last, each, shown, links, replace=replace)
            if isinstance(each, Directory):
                stack += self._put_many(inode, _children(inode, each, shown), links, replace=replace)

    def write(self, path: bytes, content: Content, *, offset: int | None = None) -> None:
        """Give the regular file at ``path`` other bytes, keeping its metadata; with ``offset`` change that part."""
        inode = self._regular(path)
        if offset is None:
            self._replace(inode, content)
        else:
            self._write_at(inode, offset, content)
        self._step()

    def truncate(self, path: bytes, size: int) -> None:
        """Make the regular file at ``path`` ``size`` bytes long."""
        self._truncate(self._regular(path), size)
        self._step()

    def mkdir(self, path: bytes, node: Directory, *, parents: bool = False) -> None:
        """Make a directory with the metadata of ``node``. With ``parents`` those before it too; one may be there."""
        directory, name = self._parent(path, parents=parents, like=node)
        found = self.files.find(directory, name)
        if found is not None:
            if parents and self.files.stat_inode(found).kind == stat_module.S_IFDIR:
                return
            raise UsageError(f"{show_path(path)}: expected nothing there, found a file or directory")
        self.check_name(name)
        self._create(directory, name, node)
        self._step()

    def rm(self, path: bytes, *, recursive: bool = False) -> None:
        """Remove a name; a directory with everything below it where ``recursive``, an empty one always."""
        parent, name, inode = self._existing(path)
        self._refuse_root(inode, path)
        if self.files.stat_inode(inode).kind == stat_module.S_IFDIR:
            self._empty(inode, path, recursive=recursive)
        self._unlink(parent, name, inode)
        self._step()

    def mv(self, path: bytes, to: bytes, *, replace: bool = True) -> None:
        """Move a name to ``to``, or into it where it is a directory; what is there is replaced as by rename(2)."""
        parent, name, inode = self._existing(path)
        self._refuse_root(inode, path)
        new_parent, new_name = self._target(to, name, inode)
        target = self.files.find(new_parent, new_name)
        if (parent, name) == (new_parent, new_name):
            return
        moved = self.files.stat_inode(inode).kind
        if moved == stat_module.S_IFDIR and target != inode and inode in self._trail_of(to):
            raise UsageError(f"{show_path(path)}: cannot be moved below itself")
        if target is not None and target != inode:
            self._check_way(target, to, moved, replace=replace)
            self._rename_over(parent, name, new_parent, new_name, target)
            self._step()
            return
        if target is not None and moved != stat_module.S_IFDIR and self.files.stat_inode(inode).nlink > 1:
            self._unlink(parent, name, inode)  # two names of one file, not one name in another case
            self._step()
            return
        self.check_name(new_name)
        self._rename(parent, name, new_parent, new_name)
        self._step()

    def ln(self, path: bytes, to: bytes, *, symbolic: Symlink | None = None) -> None:
        """Give the file at ``path`` one more name ``to``; or make the link ``symbolic`` there, whatever ``path``."""
        if symbolic is not None:
            self.put(to, symbolic, replace=False)
            return
        _, _, inode = self._existing(path)
        if self.files.stat_inode(inode).kind == stat_module.S_IFDIR:
            raise UsageError(f"{show_path(path)}: expected a file, since a directory has one name only")
        parent, name = self._parent(to)
        if self.files.find(parent, name) is not None:
            raise UsageError(f"{show_path(to)}: expected nothing there, found a file or directory")
        self.check_name(name)
        self._link(parent, name, inode)
        self._step()

    def set_attributes(self, path: bytes, attributes: Attributes, *, follow: bool = True) -> None:
        """Change metadata of what is at ``path``."""
        self._set_attributes(self.files.resolve(path, follow=follow), attributes)
        self._step()

    def set_xattr(self, path: bytes, name: bytes, value: bytes | None, *, follow: bool = True) -> None:
        """Set an extended attribute; None removes it."""
        self._set_xattr(self.files.resolve(path, follow=follow), name, value)
        self._step()

    def set_label(self, label: str) -> None:
        """Change the file system's label."""
        self._set_label(label)
        self._step()

    # -- how paths become inodes -------------------------------------------------------------------------------

    def _parent(self, path: bytes, *, parents: bool = False, like: Directory | None = None) -> tuple[int, bytes]:
        """Return the directory that a path's last component is to be in, and that component.

        With ``parents`` what is missing before it is made, with the owner and permissions of ``like``.
        """
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if not parts or parts[-1] == b"..":
            raise UsageError(f"{show_path(path)}: expected a path whose last part is a name")
        *before, name = parts
        files = self.files
        try:
            inode = files.resolve(b"/".join(before))
        except NotFound:
            if not parents:
                raise
            inode = self._make_parents(before, like)
        if self.files.stat_inode(inode).kind != stat_module.S_IFDIR:
            raise NotFound(f"{show_path(path)}: what stands before {show_path(name)} is no directory")
        return inode, name

    def _make_parents(self, parts: list[bytes], like: Directory | None) -> int:
        """Make each directory of the path that is missing; return the last."""
        for count in range(1, len(parts) + 1):
            here = b"/".join(parts[:count])
            try:
                self.files.resolve(here)
            except NotFound:
                parent = self.files.resolve(b"/".join(parts[: count - 1]))
                if self.files.stat_inode(parent).kind != stat_module.S_IFDIR or parts[count - 1] == b"..":
                    raise
                if self.files.find(parent, parts[count - 1]) is not None:
                    raise  # a link to nowhere
                self.check_name(parts[count - 1])
                node = Directory() if like is None else Directory(like.permissions, like.uid, like.gid, like.mtime_ns)
                self._create(parent, parts[count - 1], node)
        return self.files.resolve(b"/".join(parts))

    def _existing(self, path: bytes) -> tuple[int, bytes, int]:
        """Return the directory, the name and the inode of what is at ``path``, a link itself."""
        if _is_root(path):
            root = self.files.root_inode
            return root, b"", root
        parent, name = self._parent(path)
        inode = self.files.find(parent, name)
        if inode is None:
            raise NotFound(f"{show_path(path)}: no such file or directory")
        return parent, name, inode

    def _regular(self, path: bytes) -> int:
        inode = self.files.resolve(path)
        if self.files.stat_inode(inode).kind != stat_module.S_IFREG:
            raise UsageError(f"{show_path(path)}: expected a regular file")
        return inode

    def _target(self, to: bytes, name: bytes, moved: int) -> tuple[int, bytes]:
        """Return where ``mv`` puts a name: ``to``, or that name in it where it is a directory and not ``moved``."""
        try:
            inode = self.files.resolve(to)
        except NotFound:
            return self._parent(to)
        if inode != moved and self.files.stat_inode(inode).kind == stat_module.S_IFDIR:
            return inode, name
        return self._parent(to)

    def _trail_of(self, to: bytes) -> list[int]:
        """Return the directories that lead to where ``mv`` puts a name."""
        try:
            return self.files.trail(to)
        except NotFound:
            return self.files.trail(b"/".join([part for part in to.split(b"/") if part not in (b"", b".")][:-1]))

    def _refuse_root(self, inode: int, path: bytes) -> None:
        if inode == self.files.root_inode:
            raise UsageError(f"{show_path(path)}: the root directory stays where it is")

    # -- steps -------------------------------------------------------------------------------------------------

    def _put_one(
        self, parent: int, name: bytes, node: Node, path: bytes, links: dict[int, int], *, replace: bool
    ) -> int:
        """Have one node of a tree at its place, a directory without what is below it; return its inode."""
        self.check_name(name)
        known = links.get(id(node))
        found = self.files.find(parent, name)
        if found is not None:
            there = self.files.stat_inode(found).kind
            if isinstance(node, Directory) and there == stat_module.S_IFDIR:
                self._set_metadata(found, node)
                self._step()
                return found
            if found == known:
                return found
            self._check_way(found, path, node.kind, replace=replace)
        if known is not None:
            if found is not None:
                self._unlink(parent, name, found)
            self._link(parent, name, known)
            inode = known
        else:
            if found is not None:
                inode = self._supplant(parent, name, found, node)
            else:
                inode = self._create(parent, name, node)
            if self.keeps_links and not isinstance(node, Directory):
                links[id(node)] = inode
        self._step()
        return inode

    def _put_many(self, parent: int, children: list[Child], links: dict[int, int], *, replace: bool) -> list[Child]:
        """Have those of a directory's children at their places that are the quicker for being many; return the rest.

        ``links`` gets what was made of nodes that may have other names.
        """
        del parent, links, replace
        return children

    def _check_way(self, inode: int, path: bytes, kind: int, *, replace: bool) -> None:
        """Refuse where what is there cannot be replaced by something of ``kind``, as rename(2) would."""
        there = self.files.stat_inode(inode).kind
        if not replace:
            raise UsageError(f"{show_path(path)}: expected nothing there, found a file or directory")
        if (there == stat_module.S_IFDIR) != (kind == stat_module.S_IFDIR):
            expected, found = ("a directory", "a file") if kind == stat_module.S_IFDIR else ("a file", "a directory")
            raise UsageError(f"{show_path(path)}: expected {expected} to replace, found {found}")
        if there == stat_module.S_IFDIR:
            self._empty(inode, path, recursive=False)

    def _set_metadata(self, inode: int, node: Node) -> None:
        """Give an inode the node's metadata; extended attributes that the node lacks go."""
        self._set_attributes(inode, Attributes(node.permissions, node.uid, node.gid, node.mtime_ns))
        before = self.files.xattrs(inode)
        for name in before.keys() - node.xattrs.keys():
            self._set_xattr(inode, name, None)
        for name, value in node.xattrs.items():
            if before.get(name) != value:
                self._set_xattr(inode, name, value)

    def _empty(self, inode: int, path: bytes, *, recursive: bool) -> None:
        """Remove everything below a directory, deepest first; without ``recursive`` refuse what is not empty."""
        if not recursive:
            if next(iter(self.files.entries(inode)), None) is not None:
                raise UsageError(f"{show_path(path)}: expected an empty directory")
            return
        stack = [(inode, list(self.files.entries(inode)))]
        above = {inode}
        while stack:
            directory, entries = stack[-1]
            if not entries:
                stack.pop()
                above.discard(directory)
                if stack:
                    outer, siblings = stack[-1]
                    self._unlink(outer, siblings.pop().name, directory)
                    self._step()
                continue
            entry = entries[-1]
            if entry.kind == stat_module.S_IFDIR:
                if entry.inode in above or len(stack) >= MAX_DEPTH:
                    raise Corrupt(f"{show_path(path)}: a directory below it is below itself")
                above.add(entry.inode)
                stack.append((entry.inode, list(self.files.entries(entry.inode))))
            else:
                entries.pop()
                self._unlink(directory, entry.name, entry.inode)
                self._step()


def _is_root(path: bytes) -> bool:
    return all(part in (b"", b".") for part in path.split(b"/"))


def _children(inode: int, node: Directory, path: bytes) -> list[Child]:
    """Return what is in a directory, last name first."""
    prefix = path.rstrip(b"/") + b"/"
    return [(inode, name, node.entries[name], prefix + name) for name in sorted(node.entries, reverse=True)]
