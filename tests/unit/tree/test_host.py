"""A host directory as a tree."""

import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from blockwright.errors import NotFound, SourceChanged
from blockwright.tree import host
from blockwright.tree.content import EMPTY
from blockwright.tree.host import read_directory
from blockwright.tree.hostfile import HostFile, SparseHostFile
from blockwright.tree.node import NO_XATTRS, Directory, File, Special, Symlink, walk
from tests.support.trees import content_bytes


def file_at(root: Directory, name: bytes) -> File:
    node = root.entries[name]
    assert isinstance(node, File)
    return node


def test_metadata_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"hello")
    path.chmod(0o4751)
    os.utime(path, ns=(5, -1_000_000_007))
    tmp_path.chmod(0o2750)
    os.utime(tmp_path, ns=(1, 1_700_000_000_123_456_789))
    root = read_directory(tmp_path)
    node = file_at(root, b"f")
    assert (node.permissions, node.mtime_ns, node.uid, node.gid) == (0o4751, -1_000_000_007, os.getuid(), os.getgid())
    assert (root.permissions, root.mtime_ns) == (0o2750, 1_700_000_000_123_456_789)
    assert content_bytes(node.content) == b"hello"
    assert node.content.runs() == ((0, 5),)


def test_names_are_bytes_in_order(tmp_path: Path) -> None:
    names = [b"b", b"a", b"\xff\xfe", "ö".encode(), b"n" * 255, b"new\nline", b"Z"]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).touch()
    assert list(read_directory(tmp_path).entries) == sorted(names)


def test_every_kind(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "empty").touch()
    (tmp_path / "link").symlink_to("nowhere/../x")
    os.mkfifo(tmp_path / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "sock"))
        root = read_directory(os.fsencode(tmp_path))
    assert {path: node.kind for path, node in walk(root)} == {
        b"": stat.S_IFDIR,
        b"d": stat.S_IFDIR,
        b"d/empty": stat.S_IFREG,
        b"fifo": stat.S_IFIFO,
        b"link": stat.S_IFLNK,
        b"sock": stat.S_IFSOCK,
    }
    link = root.entries[b"link"]
    assert isinstance(link, Symlink)
    assert link.target == b"nowhere/../x"
    below = root.entries[b"d"]
    assert isinstance(below, Directory)
    assert file_at(below, b"empty").content is EMPTY


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make device nodes")
def test_devices(tmp_path: Path) -> None:
    os.mknod(tmp_path / "c", stat.S_IFCHR | 0o600, os.makedev(259, 70000))
    node = read_directory(tmp_path).entries[b"c"]
    assert isinstance(node, Special)
    assert (node.kind, node.major, node.minor) == (stat.S_IFCHR, 259, 70000)


def test_hard_links_are_one_node(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "s").symlink_to("t")
    os.link(tmp_path / "s", tmp_path / "s2", follow_symlinks=False)
    (tmp_path / "other").write_bytes(b"x")
    root = read_directory(tmp_path)
    below = root.entries[b"d"]
    assert isinstance(below, Directory)
    assert root.entries[b"a"] is below.entries[b"b"]
    assert root.entries[b"s"] is root.entries[b"s2"]
    assert root.entries[b"other"] is not root.entries[b"a"]


def test_holes_are_found(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(50 << 20)
        file.seek(20 << 20)
        file.write(b"x" * 4096)
    with (tmp_path / "all-hole").open("wb") as file:
        file.truncate(1 << 40)
    root = read_directory(tmp_path)
    sparse = file_at(root, b"sparse").content
    if sparse.runs() == ((0, 50 << 20),):
        pytest.skip("the host's file system keeps no holes")
    assert isinstance(sparse, SparseHostFile)
    assert sparse.runs() == ((20 << 20, 4096),)
    assert file_at(root, b"all-hole").content.runs() == ()
    view = memoryview(bytearray(8192))
    sparse.read_into((20 << 20) - 4096, view)
    assert bytes(view) == bytes(4096) + b"x" * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="extended attributes are read on Linux only")
def test_xattrs(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "g").touch()
    (tmp_path / "plain").touch()
    try:
        for name in ("f", "g"):
            os.setxattr(tmp_path / name, "user.one", b"\0value\xff")
            os.setxattr(tmp_path / name, "user.empty", b"")
    except OSError:
        pytest.skip("the host's file system keeps no extended attributes")
    root = read_directory(tmp_path)
    xattrs = root.entries[b"f"].xattrs
    assert dict(xattrs) == {b"user.one": b"\0value\xff", b"user.empty": b""}
    assert root.entries[b"g"].xattrs is xattrs
    assert not set(root.entries[b"plain"].xattrs) - {b"security.selinux"}


@pytest.mark.skipif(sys.platform != "linux", reason="extended attributes are read on Linux only")
def test_names_of_the_host_file_system_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").touch()
    names = ["system.nfs4_acl", "btrfs.compression", "user.mine", "system.posix_acl_access"]
    monkeypatch.setattr(os, "listxattr", lambda path, follow_symlinks: names)
    monkeypatch.setattr(os, "getxattr", lambda path, name, follow_symlinks: b"v")
    assert dict(read_directory(tmp_path).entries[b"f"].xattrs) == {
        b"user.mine": b"v",
        b"system.posix_acl_access": b"v",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="extended attributes are read on Linux only")
def test_a_file_system_without_xattrs_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        (tmp_path / str(i)).touch()
    calls = []

    def refuse(path, follow_symlinks):
        calls.append(path)
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "listxattr", refuse)
    root = read_directory(tmp_path)
    assert len(calls) == 1
    assert all(node.xattrs is NO_XATTRS for node in root.entries.values())


def test_a_link_to_a_directory_may_be_the_top(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_bytes(b"1")
    (tmp_path / "l").symlink_to("d")
    root = read_directory(tmp_path / "l")
    assert content_bytes(file_at(root, b"x").content) == b"1"


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(NotADirectoryError, match="f'"):
        read_directory(tmp_path / "f")
    with pytest.raises(NotFound, match="gone: no such file"):
        read_directory(tmp_path / "gone")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_other_file_systems(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "m"], capture_output=True, check=False).returncode:
        pytest.skip("mounting is not possible here")
    try:
        (tmp_path / "m" / "x").touch()
        inside = {path for path, _ in walk(read_directory(tmp_path))}
        outside = {path for path, _ in walk(read_directory(tmp_path, one_file_system=True))}
    finally:
        subprocess.run(["umount", tmp_path / "m"], check=True)
    assert inside == {b"", b"m", b"m/x"}
    assert outside == {b"", b"m"}


# -- what changes meanwhile ----------------------------------------------------------------------------------------


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Path, HostFile]:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789" * 1000)
    content = file_at(read_directory(tmp_path), b"f").content
    assert isinstance(content, HostFile)
    return path, content


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewrite_behind_the_clock(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"9876543210" * 1000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)


def become_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


CHANGES = {
    "grown": (append, "size: expected 10000, found 10004"),
    "shrunk": (lambda path: os.truncate(path, 10), "size: expected 10000, found 10$"),
    "rewritten": (rewrite_behind_the_clock, "change time"),
    "touched": (lambda path: os.utime(path, ns=(1, 1)), "modification time"),
    "replaced": (replace, "inode"),
    "removed": (Path.unlink, "vanished"),
    "a FIFO": (become_fifo, "f: "),
    "a link": (become_link, "cannot be read"),
    "a directory": (lambda path: (path.unlink(), path.mkdir()), "f: "),
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_file_is_never_read(planned: tuple[Path, HostFile], how: str) -> None:
    path, content = planned
    change, message = CHANGES[how]
    change(path)
    with pytest.raises(SourceChanged, match=message) as caught:
        content.read_into(5, memoryview(bytearray(100)))
    assert str(path) in str(caught.value)
    with pytest.raises(SourceChanged):  # before anything is copied
        content.backing(5, 100).__enter__()


def test_holes_are_those_of_the_file_that_was_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(10000))
    status = path.stat()
    append(path)
    with pytest.raises(SourceChanged, match="size: expected 10000, found 10004"):
        SparseHostFile(os.fsencode(tmp_path), b"f", status, status.st_mtime_ns)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOTTY])
def test_a_host_that_cannot_tell_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(10000))
    status = path.stat()

    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "lseek", refused)
    found = SparseHostFile(os.fsencode(tmp_path), b"f", status, status.st_mtime_ns)
    assert found.runs() == ((0, 10000),)
    number = errno.EIO
    with pytest.raises(SourceChanged, match="cannot be read: Input/output error"):
        SparseHostFile(os.fsencode(tmp_path), b"f", status, status.st_mtime_ns)


@pytest.mark.parametrize("how", ["grown", "shrunk", "rewritten", "touched"])
def test_a_change_while_the_kernel_copies(planned: tuple[Path, HostFile], how: str) -> None:
    path, content = planned
    context = content.backing(10, 100)
    runs = context.__enter__()
    assert [(run.offset, run.length) for run in runs or ()] == [(10, 100)]
    CHANGES[how][0](path)
    with pytest.raises(SourceChanged):
        context.__exit__(None, None, None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(runs[0].fd)


def test_a_change_while_a_read_runs(planned: tuple[Path, HostFile], monkeypatch: pytest.MonkeyPatch) -> None:
    path, content = planned
    real = os.readv

    def slow(fd, buffers):
        count = real(fd, buffers)
        append(path)
        return count

    monkeypatch.setattr(os, "readv", slow)
    with pytest.raises(SourceChanged, match="size"):
        content.read_into(0, memoryview(bytearray(10)))


def test_short_reads_are_continued(planned: tuple[Path, HostFile], monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.readv
    monkeypatch.setattr(os, "readv", lambda fd, buffers: real(fd, [buffers[0][:7]]))
    view = memoryview(bytearray(1000))
    planned[1].read_into(3, view)
    assert bytes(view) == (b"0123456789" * 101)[3:1003]


def test_no_descriptor_is_left(planned: tuple[Path, HostFile]) -> None:
    path, content = planned
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    for _ in range(3):
        content.read_into(0, memoryview(bytearray(10)))
        with content.backing(0, 10):
            pass
    append(path)
    for _ in range(3):
        with pytest.raises(SourceChanged):
            content.read_into(0, memoryview(bytearray(10)))
        with pytest.raises(SourceChanged), content.backing(0, 10):
            pass
    after = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    assert before == after


def test_a_file_that_vanishes_while_its_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "l").symlink_to("x")

    def gone(path):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "readlink", gone)
    with pytest.raises(SourceChanged, match="l: vanished"):
        read_directory(tmp_path)


def test_a_directory_that_vanishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    change_when_listed(monkeypatch, tmp_path, lambda: (tmp_path / "d" / "e").rmdir() or (tmp_path / "d").rmdir())
    with pytest.raises(SourceChanged, match="d: vanished"):
        read_directory(tmp_path)


def test_a_directory_that_becomes_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in" / "d").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret").touch()

    def swap() -> None:
        (tmp_path / "in" / "d").rmdir()
        (tmp_path / "in" / "d").symlink_to("../out")

    change_when_listed(monkeypatch, tmp_path / "in", swap)
    with pytest.raises(SourceChanged, match="d: changed since"):
        read_directory(tmp_path / "in")


def test_a_directory_whose_parent_becomes_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in" / "d" / "e").mkdir(parents=True)
    (tmp_path / "out" / "e").mkdir(parents=True)
    (tmp_path / "out" / "e" / "secret").touch()

    def swap() -> None:
        (tmp_path / "in" / "d").rename(tmp_path / "moved")
        (tmp_path / "in" / "d").symlink_to("../out")

    change_when_listed(monkeypatch, tmp_path / "in" / "d", swap)
    with pytest.raises(SourceChanged, match=r"e: changed since .* inode"):
        read_directory(tmp_path / "in")


def change_when_listed(monkeypatch: pytest.MonkeyPatch, path: Path, change) -> None:
    """Call `change` when the directory `path` has been listed and before anything below it is."""
    real = host._list

    def listed(at, status, *, follow):
        found = real(at, status, follow=follow)
        if at == os.fsencode(path):
            change()
        return found

    monkeypatch.setattr(host, "_list", listed)


# -- what may not be read ------------------------------------------------------------------------------------------

UNREADABLE = """
import os, sys
from blockwright.tree.host import read_directory
os.setuid(65534)
try:
    read_directory(sys.argv[1])
except PermissionError as error:
    print(error.filename)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("what", ["f", "d"])
def test_unreadable(tmp_path: Path, what: str) -> None:
    for directory in [tmp_path, *tmp_path.parents[:-2]]:
        directory.chmod(0o755)
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "d").mkdir()
    (tmp_path / what).chmod(0)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", UNREADABLE, tmp_path], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.splitlines() == [str(tmp_path / what)], done.stderr


def test_a_file_that_may_not_be_read_when_it_is_copied(
    planned: tuple[Path, HostFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path, flags):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SourceChanged, match="f: cannot be read: Permission denied"):
        planned[1].read_into(0, memoryview(bytearray(1)))
