"""What an editor of file systems is held to: a tree in dictionaries, and what it makes of the same operations.

An operation that the model refuses returns False and changes nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from blockwright.errors import BlockwrightError
from blockwright.fs.fat.names import fold
from blockwright.fs.reader import FileSystem
from blockwright.tree import BytesContent, Directory, File, Symlink


@dataclass
class ModelFile:
    data: bytes
    permissions: int = 0o644


@dataclass
class ModelLink:
    target: bytes


@dataclass
class ModelDirectory:
    entries: dict[str, tuple[bytes, ModelNode]] = field(default_factory=dict)


ModelNode = ModelFile | ModelLink | ModelDirectory


class Model:
    """A file system as dictionaries. `ignores_case` is FAT's way with names."""

    def __init__(self, *, ignores_case: bool, links: bool) -> None:
        self.root = ModelDirectory()
        self._ignores_case = ignores_case
        self._links = links

    def key(self, name: bytes) -> str:
        return fold(name.decode()) if self._ignores_case else name.decode()

    def copy(self) -> Model:
        other = Model(ignores_case=self._ignores_case, links=self._links)
        seen: dict[int, ModelNode] = {}

        def duplicate(node: ModelNode) -> ModelNode:
            if isinstance(node, ModelDirectory):
                return ModelDirectory({key: (name, duplicate(each)) for key, (name, each) in node.entries.items()})
            if id(node) not in seen:
                same = isinstance(node, ModelFile)
                seen[id(node)] = ModelFile(node.data, node.permissions) if same else ModelLink(node.target)
            return seen[id(node)]

        root = duplicate(self.root)
        assert isinstance(root, ModelDirectory)
        other.root = root
        return other

    # -- look-up ---------------------------------------------------------------------------------------------

    def directory(self, path: bytes) -> ModelDirectory | None:
        node: ModelNode = self.root
        for part in path.split(b"/"):
            if part:
                if not isinstance(node, ModelDirectory) or self.key(part) not in node.entries:
                    return None
                node = node.entries[self.key(part)][1]
        return node if isinstance(node, ModelDirectory) else None

    def find(self, path: bytes) -> tuple[ModelDirectory | None, str, bytes, ModelNode | None]:
        """The directory, the key and the last part of a path, and what is there; None where that is not."""
        before, _, name = path.rpartition(b"/")
        parent = self.directory(before)
        found = None if parent is None else parent.entries.get(self.key(name))
        return parent, self.key(name), name, None if found is None else found[1]

    def directories(self) -> list[bytes]:
        found, stack = [], [(b"", self.root)]
        while stack:
            path, node = stack.pop()
            found.append(path)
            stack += [
                (path + b"/" + name, each) for name, each in node.entries.values() if isinstance(each, ModelDirectory)
            ]
        return sorted(found)

    def paths(self) -> list[bytes]:
        """Everything but the root."""
        found = []
        for directory in self.directories():
            node = self.directory(directory)
            assert node is not None
            found += [directory + b"/" + name for name, _ in node.entries.values()]
        return sorted(found)

    def flat(self) -> dict[bytes, bytes | None]:
        """Every path with its content, None for a directory, and a link's target behind an arrow."""
        found: dict[bytes, bytes | None] = {}
        for path in self.paths():
            _, _, _, node = self.find(path)
            if isinstance(node, ModelFile):
                found[path] = node.data
            else:
                found[path] = b"-> " + node.target if isinstance(node, ModelLink) else None
        return found

    # -- operations ------------------------------------------------------------------------------------------

    def put(self, path: bytes, node: ModelNode) -> bool:
        parent, key, name, there = self.find(path)
        if parent is None:
            return False
        if isinstance(node, ModelDirectory) and isinstance(there, ModelDirectory):
            return all(self.put(path + b"/" + child, each) for child, each in node.entries.values())
        if isinstance(there, ModelDirectory) or (isinstance(node, ModelDirectory) and there is not None):
            return False
        self._enter(parent, key, name, node)
        return True

    def _enter(self, parent: ModelDirectory, key: str, name: bytes, node: ModelNode) -> None:
        """Have a node under a name; where there is one already its spelling stays."""
        name = parent.entries.get(key, (name, None))[0]
        parent.entries[key] = (name, node)

    def write(self, path: bytes, data: bytes, offset: int | None) -> bool:
        node = self.find(path)[3]
        if not isinstance(node, ModelFile):
            return False
        if offset is None:
            node.data = data
        elif data:
            node.data = node.data[:offset].ljust(offset, b"\0") + data + node.data[offset + len(data) :]
        return True

    def truncate(self, path: bytes, size: int) -> bool:
        node = self.find(path)[3]
        if not isinstance(node, ModelFile):
            return False
        node.data = node.data[:size].ljust(size, b"\0")
        return True

    def mkdir(self, path: bytes, *, parents: bool) -> bool:
        if parents:
            parts = path.split(b"/")
            for count in range(2, len(parts)):
                _, _, _, node = self.find(b"/".join(parts[:count]))
                if node is None:
                    if not self.mkdir(b"/".join(parts[:count]), parents=False):
                        return False
                elif not isinstance(node, ModelDirectory):
                    return False
        parent, key, name, there = self.find(path)
        if parent is None:
            return False
        if there is not None:
            return parents and isinstance(there, ModelDirectory)
        parent.entries[key] = (name, ModelDirectory())
        return True

    def rm(self, path: bytes, *, recursive: bool) -> bool:
        parent, key, _, node = self.find(path)
        if parent is None or node is None:
            return False
        if isinstance(node, ModelDirectory) and node.entries and not recursive:
            return False
        del parent.entries[key]
        return True

    def mv(self, path: bytes, to: bytes) -> bool:
        parent, key, name, node = self.find(path)
        if parent is None or node is None:
            return False
        target = self.find(to)
        if isinstance(target[3], ModelDirectory) and target[3] is not node:
            new_parent, new_name = target[3], name
        elif target[0] is None:
            return False
        else:
            new_parent, new_name = target[0], to.rpartition(b"/")[2]
        new_key = self.key(new_name)
        found = new_parent.entries.get(new_key)
        there = None if found is None else found[1]
        same = there is node
        if same and parent is new_parent and key == new_key:
            parent.entries[key] = (new_name, node)
            return True
        if isinstance(node, ModelDirectory) and not same and self._is_within(new_parent, node):
            return False
        if there is not None and not same:
            if isinstance(there, ModelDirectory) != isinstance(node, ModelDirectory):
                return False
            if isinstance(there, ModelDirectory) and there.entries:
                return False
        del parent.entries[key]
        if not same:
            self._enter(new_parent, new_key, new_name, node)
        return True

    def _is_within(self, directory: ModelDirectory, outer: ModelDirectory) -> bool:
        stack: list[ModelNode] = [outer]
        while stack:
            node = stack.pop()
            if node is directory:
                return True
            if isinstance(node, ModelDirectory):
                stack += [each for _, each in node.entries.values()]
        return False

    def ln(self, path: bytes, to: bytes) -> bool:
        node = self.find(path)[3]
        parent, key, name, there = self.find(to)
        if not self._links or node is None or isinstance(node, ModelDirectory):
            return False
        if parent is None or there is not None:
            return False
        parent.entries[key] = (name, node)
        return True

    def chmod(self, path: bytes, permissions: int) -> bool:
        node = self.find(path)[3]
        if isinstance(node, ModelFile):
            node.permissions = permissions
        return isinstance(node, ModelFile)


def node_of(model: ModelNode) -> File | Directory | Symlink:
    """The node that puts the same into a file system."""
    if isinstance(model, ModelFile):
        return File(model.permissions, mtime_ns=10**18, content=BytesContent(model.data))
    if isinstance(model, ModelLink):
        return Symlink(model.target, mtime_ns=10**18)
    entries = {name: node_of(each) for name, each in model.entries.values()}
    return Directory(mtime_ns=10**18, entries=entries)


def flat(files: FileSystem) -> dict[bytes, bytes | None]:
    """What a reader finds, as `Model.flat` has it."""
    found: dict[bytes, bytes | None] = {}
    stack = [(b"", files.root_inode)]
    while stack:
        path, inode = stack.pop()
        for entry in files.entries(inode):
            whole = path + b"/" + entry.name
            if path == b"" and entry.name == b"lost+found":
                continue
            assert files.find(inode, entry.name) == entry.inode, whole
            status = files.stat_inode(entry.inode)
            assert status.kind == entry.kind, whole
            if entry.kind == stat.S_IFDIR:
                found[whole] = None
                stack.append((whole, entry.inode))
            elif entry.kind == stat.S_IFLNK:
                found[whole] = b"-> " + files.link_target(entry.inode)
            else:
                with files.open_inode(entry.inode) as device:
                    assert device.size == status.size, whole
                    found[whole] = device.read(0, device.size)
    return found


def refusal_of(change: Callable[[], object]) -> BlockwrightError | None:
    """Make a change; return the error of ours that refused it, if one did."""
    try:
        change()
    except BlockwrightError as error:
        return error
    return None
