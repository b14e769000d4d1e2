"""Puts a tree on the host, for tests that let something else read it from there. Needs root for all of a tree."""

import os
import stat

from blockwright.tree.content import Content
from blockwright.tree.node import Directory, File, Node, Special, Symlink, walk

CHUNK = 1 << 20


def write_tree(root: Directory, path: bytes) -> None:
    """Make the existing, empty directory `path` what `root` says: every name, owner, mode, attribute and time."""
    made: dict[int, bytes] = {}
    finished: list[tuple[bytes, Node]] = []
    for name, node in walk(root):
        target = os.path.join(path, name) if name else path
        if id(node) in made:
            os.link(made[id(node)], target, follow_symlinks=False)
            continue
        _make(target, node, top=not name)
        if not isinstance(node, Directory):
            made[id(node)] = target
        finished.append((target, node))
    for target, node in reversed(finished):  # a directory's time after all that lies below it
        _finish(target, node)


def _make(target: bytes, node: Node, *, top: bool) -> None:
    if isinstance(node, Directory):
        if not top:
            os.mkdir(target)
    elif isinstance(node, Symlink):
        os.symlink(node.target, target)
    elif isinstance(node, Special):
        os.mknod(target, node.kind | 0o600, os.makedev(node.major, node.minor))
    elif isinstance(node, File):
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            _write(fd, node.content)
        finally:
            os.close(fd)


def _write(fd: int, content: Content) -> None:
    os.truncate(fd, content.size)
    for start, length in content.runs():
        for offset in range(start, start + length, CHUNK):
            buffer = bytearray(min(CHUNK, start + length - offset))
            content.read_into(offset, memoryview(buffer))
            os.pwrite(fd, buffer, offset)


def _finish(target: bytes, node: Node) -> None:
    os.chown(target, node.uid, node.gid, follow_symlinks=False)
    if not stat.S_ISLNK(node.kind):
        os.chmod(target, node.permissions)
    # Behind chmod, which would clear bits that an access ACL's mask stands for.
    for name, value in node.xattrs.items():
        os.setxattr(target, name, value, follow_symlinks=False)
    if not stat.S_ISLNK(node.kind):
        os.chmod(target, node.permissions)
    os.utime(target, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)
