"""A tree that is being changed by path, while the tree it began with stays as it is.

Paths are the tree's own: links before the last part lead where they lead within the tree, and never out of it.
Directories are copied when something below them changes. A node that changes does so under all of its names.

Knows: lookup, and what has to be copied. Refuses to know: what is changed.
"""

from __future__ import annotations

from blockwright.errors import UsageError
from blockwright.tree.node import MAX_NAME, MAX_SYMLINKS, Directory, Node, Symlink
from blockwright.tree.rebuild import rebuild, with_metadata


def show_path(path: bytes) -> str:
    """Return a path for a message, from ``/`` on."""
    return "/" + ascii(path.decode("utf-8", "surrogateescape"))[1:-1].lstrip("/")


class TreeEdit:
    """Changes to the tree of ``root``; what is made new has ``mtime_ns``. ``finish`` returns the changed tree."""

    def __init__(self, root: Directory, mtime_ns: int) -> None:
        self._mtime_ns = mtime_ns
        self._before = root  # keeps alive what is known by its id
        self._owned: dict[int, Directory] = {}
        self._changed: dict[int, Node] = {}
        self._alive: list[Node] = []
        self.root = self._own_copy(root)

    def find(self, path: bytes, *, follow: bool = False) -> Node | None:
        """Return the node at ``path`` as it is now; ``follow`` is about a link in the last part."""
        trail = self._trail(path, make=False, follow=follow)
        return None if trail is None else trail[-1]

    def own(self, path: bytes, *, follow: bool = False) -> Node | None:
        """Return the node at ``path``, which may be changed in place: under all of its names. None where none is."""
        trail = self._trail(path, make=False, follow=follow, own=True)
        if trail is None:
            return None
        node = trail[-1]
        if isinstance(node, Directory):
            return node
        return self.own_node(node)

    def own_node(self, node: Node) -> Node:
        """Return what stands for a node that is no directory from now on, and may be changed in place."""
        made = self._changed.get(id(node))
        if made is None:
            made = with_metadata(node)
            self._alive.append(node)
            self._changed[id(node)] = self._changed[id(made)] = made
        return made

    def own_entry(self, directory: Directory, name: bytes) -> Node:
        """Return the node of that name in a directory which may be changed itself, such that the node may be, too."""
        node = self._changed.get(id(directory.entries[name]), directory.entries[name])
        if not isinstance(node, Directory):
            return self.own_node(node)
        if id(node) not in self._owned:
            node = directory.entries[name] = self._own_copy(node)
        return node

    def directory(self, path: bytes) -> Directory:
        """Return the directory at ``path``, which may be changed; what is missing is made, of mode 0755 and root's.

        Raises UsageError where something else is in the way.
        """
        trail = self._trail(path, make=True, follow=True, own=True)
        assert trail is not None, "what is missing was made"
        found = trail[-1]
        if not isinstance(found, Directory):
            raise UsageError(f"{show_path(path)}: expected a directory, found something else")
        return found

    def enter(self, path: bytes, node: Node) -> None:
        """Have ``node`` at ``path`` instead of what was there. Raises UsageError for a directory that was there."""
        folder, name = self._parent(path)
        if isinstance(folder.entries.get(name), Directory):
            raise UsageError(f"{show_path(path)}: expected no directory there, found one")
        if isinstance(node, Directory):
            self._owned[id(node)] = node
        folder.entries[name] = node

    def remove(self, path: bytes) -> None:
        """Have nothing at ``path``."""
        if self.find(path) is not None:
            folder, name = self._parent(path)
            folder.entries.pop(name, None)

    def finish(self) -> Directory:
        """Return the tree as it has become; the edit is not used again."""
        if not self._changed:
            return self.root
        changed = self._changed
        return rebuild(self.root, lambda _path, node: changed.get(id(node), node))

    def _parent(self, path: bytes) -> tuple[Directory, bytes]:
        before, _, name = path.rstrip(b"/").rpartition(b"/")
        if not name or name in (b".", b".."):
            raise UsageError(f"{show_path(path)}: expected a path that ends in a name")
        _check_name(name, path)
        return self.directory(before), name

    def _own_copy(self, directory: Directory) -> Directory:
        made = with_metadata(directory)
        assert isinstance(made, Directory)
        self._owned[id(made)] = made
        return made

    def _trail(self, path: bytes, *, make: bool, follow: bool, own: bool = False) -> list[Node] | None:
        """Return the nodes on the way from the root to ``path``; with ``own`` directories among them are copies."""
        trail: list[Node] = [self.root]
        parts = path.split(b"/")[::-1]
        links = 0
        while parts:
            part = parts.pop()
            if part in (b"", b"."):
                continue
            here = trail[-1]
            if part == b"..":
                del trail[max(1, len(trail) - 1) :]
                continue
            child = self._child(here, part, path, make=make)
            if child is None or not isinstance(here, Directory):
                return None
            if isinstance(child, Symlink) and (follow or any(parts)):
                links += 1
                if links > MAX_SYMLINKS:
                    if make:
                        raise UsageError(f"{show_path(path)}: expected at most {MAX_SYMLINKS} links, found more")
                    return None
                if child.target.startswith(b"/"):
                    del trail[1:]
                parts.extend(child.target.split(b"/")[::-1])
                continue
            if own and isinstance(child, Directory) and id(child) not in self._owned:
                child = here.entries[part] = self._own_copy(child)
            trail.append(child)
        return trail

    def _child(self, here: Node, name: bytes, path: bytes, *, make: bool) -> Node | None:
        if not isinstance(here, Directory):
            if make:
                raise UsageError(f"{show_path(path)}: expected directories on the way, found something else")
            return None
        child = here.entries.get(name)
        if child is not None:
            return self._changed.get(id(child), child)
        if not make:
            return None
        _check_name(name, path)
        made = Directory(mtime_ns=self._mtime_ns)
        self._owned[id(made)] = made
        here.entries[name] = made
        return made


def _check_name(name: bytes, path: bytes) -> None:
    if len(name) > MAX_NAME or b"\0" in name:
        raise UsageError(f"{show_path(path)}: expected names of at most {MAX_NAME} bytes without NUL")
