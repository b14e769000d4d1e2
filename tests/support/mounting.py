"""Mounts images as root, and compares what the kernel shows with a tree, by system calls alone."""

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blockwright.tree.node import Directory, File, Node, Special, Symlink, walk
from tests.support.loops import became_free
from tests.support.tools import run

CHUNK = 1 << 20


@contextmanager
def mounted(image: Path, at: Path, options: str = "ro") -> Iterator[Path]:
    """Mount an image through a loop device; skips without root, or where the machine has no loop devices."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root")
    at.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", f"loop,{options}", image, at], capture_output=True, text=True, check=False)
    if done.returncode and ("failed to setup loop device" in done.stderr or "permission denied" in done.stderr):
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert not done.returncode, done.stderr
    device = run(["findmnt", "-n", "-o", "SOURCE", at]).stdout.strip()
    try:
        yield at
    finally:
        run(["umount", at])
        assert became_free(image, device), f"{device} is still attached"


def differences(root: Directory, at: Path, *, ignore: frozenset[bytes] = frozenset({b"lost+found"})) -> list[str]:
    """Everything in which the directory `at` differs from the tree; paths in `ignore` may be there besides."""
    found: list[str] = []
    numbers: dict[int, int] = {}
    names: dict[bytes, int] = {}
    for path, node in walk(root):
        full = os.path.join(os.fsencode(at), path)
        try:
            status = os.lstat(full)
        except OSError as error:
            found.append(f"{path!r}: {error}")
            continue
        names[path] = id(node)
        if numbers.setdefault(id(node), status.st_ino) != status.st_ino:
            found.append(f"{path!r}: is not the same inode as its other names")
        found += [f"{path!r}: {line}" for line in _compare(node, status, full)]
    if len(set(numbers.values())) != len(numbers):
        found.append("different nodes have one inode")
    for folder, folders, files in os.walk(os.fsencode(at)):
        for name in (*folders, *files):
            path = os.path.relpath(os.path.join(folder, name), os.fsencode(at))
            if path not in names and path not in ignore:
                found.append(f"{path!r}: is not in the tree")
    return found


def _compare(node: Node, status: os.stat_result, path: bytes) -> Iterator[str]:
    wanted = (node.mode, node.uid, node.gid, node.mtime_ns)
    shown = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
    if wanted != shown:
        yield f"mode, owner, group, time: expected {wanted}, found {shown}"
    attributes = {
        os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    if attributes != dict(node.xattrs):
        yield f"attributes: expected {dict(node.xattrs)}, found {attributes}"
    if isinstance(node, Symlink) and os.readlink(path) != node.target:
        yield f"target: expected {node.target!r}, found {os.readlink(path)!r}"
    if isinstance(node, Special) and node.kind in (stat.S_IFCHR, stat.S_IFBLK):
        shown_device = os.major(status.st_rdev), os.minor(status.st_rdev)
        if (node.major, node.minor) != shown_device:
            yield f"device: expected {node.major}:{node.minor}, found {shown_device}"
    if isinstance(node, Directory) and set(os.listdir(path)) - {b"lost+found"} != set(node.entries) - {b"lost+found"}:
        yield "names differ"
    if isinstance(node, File):
        yield from _compare_content(node, status, path)


def _compare_content(node: File, status: os.stat_result, path: bytes) -> Iterator[str]:
    content = node.content
    if content.size != status.st_size:
        yield f"size: expected {content.size}, found {status.st_size}"
        return
    with open(path, "rb") as file:
        ends = [0]
        for start, length in content.runs():
            for offset in range(start, start + length, CHUNK):
                buffer = bytearray(min(CHUNK, start + length - offset))
                content.read_into(offset, memoryview(buffer))
                if os.pread(file.fileno(), len(buffer), offset) != buffer:
                    yield f"content differs within {len(buffer)} bytes at {offset}"
                    return
            ends.append(start + length)
        for end in ends:  # what lies behind each run is a hole
            rest = os.pread(file.fileno(), min(4096, content.size - end), end)
            wanted = bytearray(len(rest))
            content.read_into(end, memoryview(wanted))
            if rest != wanted:
                yield f"content differs behind {end}"
