"""Files of an ext2, ext3 or ext4 file system changed in place.

Knows: what each change does to inodes, directories and blocks, and which of them make one operation.
Refuses to know: how any of those is stored, and how a transaction is committed.

Source: Linux 6.1, Documentation/filesystems/ext4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar

from blockwright.epoch import now_ns
from blockwright.errors import NoSpace, UsageError
from blockwright.fs import editor
from blockwright.fs.editor import CommitPolicy
from blockwright.fs.ext4.edit.batch import MOST, Batch
from blockwright.fs.ext4.edit.commit import Committer
from blockwright.fs.ext4.edit.names import Names
from blockwright.fs.ext4.edit.nodes import Nodes
from blockwright.fs.ext4.edit.orphans import Orphans
from blockwright.fs.ext4.edit.parts import Parts
from blockwright.fs.ext4.options import label_bytes
from blockwright.fs.ext4.read import Ext4FileSystem
from blockwright.fs.reader import show_path
from blockwright.tree.content import Content
from blockwright.tree.node import MAX_NAME, Directory, File, Node

T = TypeVar("T")
_FEW: Final = 4
"""Files that are not worth being made at once."""
_NO_JOURNAL: Final = "the file system has no journal: a power cut while changes are written leaves it to be repaired"
_TOO_LARGE: Final = "the changes do not fit the journal at once: they are committed in several transactions"
_NO_ROOM: Final = "space that is freed is needed at once: what came before is committed first"


class _LiveFiles(Ext4FileSystem):
    """The files as the transaction has them."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts.volume)
        self._directories = parts.directories

    def find(self, inode: int, name: bytes) -> int | None:
        """Return the inode that a name stands for."""
        names = self._directories.names(inode)
        return super().find(inode, name) if names is None else names.get(name)


class Ext4Editor(editor.Editor):
    """An ext2, ext3 or ext4 file system open for changes. Use ``open``."""

    def __init__(self, parts: Parts, committer: Committer, policy: CommitPolicy, *, journaled: bool) -> None:
        self._parts = parts
        self._committer = committer
        self._policy = policy
        self._told = False
        self._journaled = journaled
        self._broken = False
        self._depth = 0
        self._filled: list[tuple[int, int]] = []
        """Directories that are being put, with the times that they are to have in the end."""
        self._files = _LiveFiles(parts)
        self._nodes = Nodes(parts)
        self._names = Names(parts, self._nodes)
        self._batch = Batch(parts, self._nodes)

    @property
    def files(self) -> Ext4FileSystem:
        """The file system with every change so far."""
        return self._files

    def check_name(self, name: bytes) -> None:
        """Raise UsageError for a name that no directory can hold."""
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise UsageError(f"name {ascii(name)[2:-1]!r}: expected a name without slash and NUL, not '.' or '..'")
        if len(name) > MAX_NAME:
            raise UsageError(f"name {ascii(name)[2:66]!r}: expected at most {MAX_NAME} bytes, found {len(name)}")

    # -- operations ------------------------------------------------------------------------------------------

    def _once(self, operation: Callable[[], T]) -> T:
        """Do something whole or not at all; what does not fit the transaction begins a new one."""
        if self._depth:
            return operation()
        try:
            result = self._attempt(operation)
        except NoSpace:
            if self._policy.atomic or not self._parts.groups.held:
                raise
            self._split(_NO_ROOM)
            return self._attempt(operation)
        return result

    def _attempt(self, operation: Callable[[], T]) -> T:
        parts = self._parts
        if self._broken:
            raise UsageError("edit: a commit failed half-way: open the file system again")
        began = parts.changed
        self._depth += 1
        try:
            result = operation()
            fits = parts.fits(self._committer.most)
        except BaseException:
            parts.revert()
            raise
        finally:
            self._depth -= 1
        if fits:
            parts.keep()
            return result
        parts.revert()
        if began:
            self._split(_TOO_LARGE)
            return self._attempt(operation)
        return self._in_pieces(operation)

    def _in_pieces(self, operation: Callable[[], T]) -> T:
        """Do what no transaction holds: what it frees becomes an orphan first, and is freed piece by piece."""
        if self._parts.defers:
            raise NoSpace("edit: the change does not fit the journal: expected a larger journal, or a smaller change")
        self._split(_TOO_LARGE)
        self._parts.defers = True
        try:
            result = self._attempt(operation)
        finally:
            self._parts.defers = False
        self._commit()
        self.finish_orphans()
        return result

    def _split(self, reason: str) -> None:
        """Commit what came so far, since more is to come. Raises UsageError where all is to be one transaction."""
        if self._policy.atomic:
            raise UsageError(f"edit: {reason}")
        self._tell(reason)
        self._commit()

    def _tell(self, reason: str) -> None:
        if not self._told and self._policy.on_split is not None:
            self._policy.on_split(reason if self._journaled else _NO_JOURNAL)
        self._told = True

    def _step(self) -> None:
        """Do nothing: each operation saw to it that it fits."""

    def commit(self) -> None:
        """Make every change so far durable."""
        if self._broken:
            raise UsageError("edit: a commit failed half-way: open the file system again")
        self._commit()

    def _commit(self) -> None:
        parts = self._parts
        if not parts.changed:
            return
        if not self._journaled:
            self._tell(_NO_JOURNAL)
        self._broken = True
        self._committer.begin()
        parts.put()
        self._committer.commit()
        parts.committed()
        self._broken = False

    def close(self) -> None:
        """Forget what was not committed, and close the device."""
        self._files.close()

    def finish_orphans(self) -> None:
        """Free what was left without a name, or half cut, when the file system was last used."""
        Orphans(self._parts, self._nodes, self._committer.most // 4).finish(self._once, now_ns())
        self._commit()

    # -- by path ---------------------------------------------------------------------------------------------
    # What the base does in several changes is one operation here.

    def put(self, path: bytes, node: Node, *, parents: bool = False, replace: bool = True) -> None:
        """Have the node at ``path``; directories keep their times, whatever was put into them."""
        try:
            super().put(path, node, parents=parents, replace=replace)
            for inode, mtime_ns in self._filled:
                self._set_attributes(inode, editor.Attributes(mtime_ns=mtime_ns))
        finally:
            self._filled.clear()

    def _put_many(
        self, parent: int, children: list[editor.Child], links: dict[int, int], *, replace: bool
    ) -> list[editor.Child]:
        """Make what is plain and new in a directory at once, up to as much as a transaction takes."""
        del replace
        if len(children) < _FEW or not self._batch.takes(parent):
            return children
        chosen: dict[int, editor.Child] = {}
        rest: list[editor.Child] = []
        for child in reversed(children):
            _, name, node, _ = child
            new = id(node) not in links and id(node) not in chosen
            if new and self._batch.suits(node) and _is_name(name) and self._files.find(parent, name) is None:
                chosen[id(node)] = child
            else:
                rest.append(child)
        plain = list(chosen.values())
        for first in range(0, len(plain), MOST):
            part = plain[first : first + MOST]
            try:
                numbers = self._once(partial(self._create_files, parent, part))
            except NoSpace:
                rest += plain[first:]  # as far as it goes, and then with a word about which file it was
                break
            links.update((id(node), number) for (_, _, node, _), number in zip(part, numbers, strict=True))
        rest.reverse()
        return rest

    def _create_files(self, parent: int, children: list[editor.Child]) -> list[int]:
        files = [(name, node) for _, name, node, _ in children if isinstance(node, File)]
        return self._batch.create(parent, files, now_ns())

    def mv(self, path: bytes, to: bytes, *, replace: bool = True) -> None:
        """Move a name, as one change together with what it replaces."""
        self._once(lambda: super(Ext4Editor, self).mv(path, to, replace=replace))

    def set_xattr(self, path: bytes, name: bytes, value: bytes | None, *, follow: bool = True) -> None:
        """Set an extended attribute; None removes it."""
        with _about(path):
            super().set_xattr(path, name, value, follow=follow)

    def _put_one(
        self, parent: int, name: bytes, node: Node, path: bytes, links: dict[int, int], *, replace: bool
    ) -> int:
        put, known = super()._put_one, id(node) in links

        def whole() -> int:
            if not known:
                links.pop(id(node), None)  # from an attempt that was taken back
            return put(parent, name, node, path, links, replace=replace)

        with _about(path):
            inode = self._once(whole)
        if isinstance(node, Directory) and node.entries:
            self._filled.append((inode, node.mtime_ns))
        return inode

    # -- by inode --------------------------------------------------------------------------------------------

    def _create(self, parent: int, name: bytes, node: Node) -> int:
        return self._once(lambda: self._nodes.create(parent, name, node, now_ns()))

    def _replace(self, inode: int, content: Content) -> None:
        self._once(lambda: self._nodes.replace(inode, content, now_ns()))

    def _write_at(self, inode: int, offset: int, content: Content) -> None:
        self._once(lambda: self._nodes.write_at(inode, offset, content, now_ns()))

    def _truncate(self, inode: int, size: int) -> None:
        self._once(lambda: self._nodes.truncate(inode, size, now_ns()))

    def _link(self, parent: int, name: bytes, inode: int) -> None:
        self._once(lambda: self._names.link(parent, name, inode, now_ns()))

    def _unlink(self, parent: int, name: bytes, inode: int) -> None:
        self._once(lambda: self._names.unlink(parent, name, inode, now_ns()))

    def _rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        self._once(lambda: self._names.rename((parent, name), (new_parent, new_name), now_ns()))

    def _set_attributes(self, inode: int, attributes: editor.Attributes) -> None:
        self._once(lambda: self._nodes.set_attributes(inode, attributes, now_ns()))

    def _set_xattr(self, inode: int, name: bytes, value: bytes | None) -> None:
        self._once(lambda: self._nodes.set_xattr(inode, name, value, now_ns()))

    def _set_label(self, label: str) -> None:
        data = label_bytes(label)
        self._once(lambda: self._parts.superblock.set(s_volume_name=data))
        self._files.label = label


@contextmanager
def _about(path: bytes) -> Iterator[None]:
    """Have NoSpace say what there was no space for."""
    try:
        yield
    except NoSpace as error:
        raise NoSpace(f"{show_path(path)}: {error}") from None


def _is_name(name: bytes) -> bool:
    """Whether a directory can hold the name."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name and len(name) <= MAX_NAME
