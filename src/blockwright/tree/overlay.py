"""A tree with files put into it, the tree itself left as it is.

Knows: which directories have to be copied for that. Refuses to know: what the files are for.
"""

from __future__ import annotations

from collections.abc import Mapping

from blockwright.errors import UsageError
from blockwright.tree.content import Content
from blockwright.tree.node import Directory, File


def with_files(root: Directory, files: Mapping[str, Content], *, mtime_ns: int) -> Directory:
    """Return a tree with each content at its path, which is relative; what was there is replaced.

    Directories that are missing are made; links are not followed. All other nodes are the same objects as before.
    Raises UsageError where something else than a directory is in the way.
    """
    made = _copy(root)
    fresh = {id(made)}
    for path, content in files.items():
        *parents, name = path.encode().split(b"/")
        directory = made
        for depth, part in enumerate(parents, 1):
            child = directory.entries.get(part)
            if child is None:
                child = Directory(mtime_ns=mtime_ns)
                fresh.add(id(child))
                directory.entries[part] = child
            elif not isinstance(child, Directory):
                raise UsageError(f"/{'/'.join(path.split('/')[:depth])}: expected a directory, found something else")
            elif id(child) not in fresh:
                child = _copy(child)
                fresh.add(id(child))
                directory.entries[part] = child
            directory = child
        if isinstance(directory.entries.get(name), Directory):
            raise UsageError(f"/{path}: expected a file, found a directory")
        directory.entries[name] = File(mtime_ns=mtime_ns, content=content)
    return made


def _copy(directory: Directory) -> Directory:
    return Directory(
        directory.permissions,
        directory.uid,
        directory.gid,
        directory.mtime_ns,
        directory.xattrs,
        dict(directory.entries),
    )
