"""Archives that GNU tar, bsdtar and Python make of a directory, against what the directory holds."""

import io
import os
import random
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import ArchiveRejected
from blockwright.source import open_source
from blockwright.tree.compare import compare_trees
from blockwright.tree.host import read_directory
from blockwright.tree.node import Directory, File, walk
from blockwright.tree.rules import ArchiveRules, Xattrs
from blockwright.tree.spool import Spool
from blockwright.tree.tar import read_tar
from tests.support.tools import missing, run, tool

ROOT = os.geteuid() == 0
ALL = ArchiveRules(xattrs=Xattrs.ALL)
SECOND = 1_700_000_000 * 10**9


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every format can hold: short names, whole seconds, no owners but ours."""
    top = tmp_path_factory.mktemp("simple")
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "f").write_bytes(b"body" * 1000)
    (top / "empty").touch()
    (top / "link").symlink_to("d/f")
    (top / "d" / "hard").hardlink_to(top / "d" / "f")
    (top / "d" / "f").chmod(0o4711)
    (top / "d" / "e").chmod(0o1777)
    (top / ("n" * 80)).write_bytes(b"x" * 511)
    (top / "block").write_bytes(b"x" * 512)
    settle(top, 0)
    return top


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What GNU and pax archives can hold besides: any name, long targets, FIFOs, links to links."""
    top = tmp_path_factory.mktemp("full")
    place = os.fsencode(top)
    for name in [b"n" * 255, b"\xff\xfe not text", "größe".encode(), b"new\nline", b" ", b"a=b%3D", b"-x", b"..a"]:
        write(os.path.join(place, name), name)
    deep = os.path.join(place, *[b"%d-" % i + b"d" * 60 for i in range(8)])
    os.makedirs(deep)
    write(os.path.join(deep, b"bottom"), b"deep")
    os.link(os.path.join(deep, b"bottom"), os.path.join(place, b"top"))
    for length in (1, 99, 100, 101, 500, 1023):
        os.symlink(b"t" * length, os.path.join(place, b"l%d" % length))
    os.link(os.path.join(place, b"l500"), os.path.join(place, b"hard"), follow_symlinks=False)
    os.symlink(b"/abs/../olute", os.path.join(place, b"l"))
    os.mkfifo(os.path.join(place, b"fifo"), 0o620)
    if ROOT:
        os.mknod(os.path.join(place, b"char"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(os.path.join(place, b"block"), stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
        os.chown(os.path.join(place, b"top"), 3_000_000_000, 2_500_000)
    settle(top, 0)
    return top


def write(path: bytes, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(fd, data)
    os.close(fd)


def settle(top: Path, nanoseconds: int) -> None:
    """Give everything a time of its own, directories last."""
    paths = [os.path.join(at, name) for at, names, files in os.walk(os.fsencode(top)) for name in names + files]
    for number, path in enumerate(sorted(paths, reverse=True)):
        time = SECOND + number * 10**9 + nanoseconds
        os.utime(path, ns=(time, time), follow_symlinks=False)
    os.utime(top, ns=(SECOND + nanoseconds, SECOND + nanoseconds))


def gnu_tar(top: Path, *options: str) -> bytes:
    command = [tool("tar"), "-C", os.fspath(top), *options, "-cf", "-", "."]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
    assert not done.returncode, done.stderr
    return done.stdout


def bsd_tar(top: Path, *options: str) -> bytes:
    command = [tool("bsdtar", package="libarchive-tools"), "-C", os.fspath(top), *options, "-cf", "-", "."]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert not done.returncode, done.stderr
    return done.stdout


def python_tar(top: Path, form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as file:
        file.add(top, arcname=".")
    return buffer.getvalue()


def same(data: bytes, top: Path, ignore: tuple[str, ...] = ()) -> Directory:
    """The archive's tree, which is the directory's, from a device and from a stream."""
    expected = read_directory(top)
    found = read_tar(MemoryDevice(content=data), rules=ALL)
    assert compare_trees(expected, found, contents=True, ignore=ignore) == []
    with open_source("-", stdin=io.BytesIO(data), rules=ALL) as source:
        streamed = source.read(Spool(MemoryDevice(0)).place)
    assert compare_trees(expected, streamed, contents=True, ignore=ignore) == []
    return found


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_gnu_tar(simple: Path, form: str) -> None:
    same(gnu_tar(simple, f"--format={form}"), simple)


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_gnu_tar_with_all_there_is(full: Path, form: str) -> None:
    same(gnu_tar(full, f"--format={form}"), full)


@pytest.mark.parametrize("form", ["oldgnu", "gnu", "ustar", "pax"])
@pytest.mark.parametrize("option", ["--numeric-owner", "--sort=name", "--blocking-factor=1", "--hard-dereference"])
def test_gnu_tar_with_options(simple: Path, form: str, option: str) -> None:
    same(gnu_tar(simple, f"--format={form}", option), simple, ("links",) if "deref" in option else ())


def test_nanoseconds(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for time in (SECOND + 123_456_789, 1, -1, -1_500_000_000, 2**33 * 10**9 + 5):
        os.utime(tmp_path / "f", ns=(time, time))
        os.utime(tmp_path, ns=(time, time))
        found = read_tar(MemoryDevice(content=gnu_tar(tmp_path, "--format=pax")))
        assert found.entries[b"f"].mtime_ns == (tmp_path / "f").stat().st_mtime_ns
        same(gnu_tar(tmp_path, "--format=pax"), tmp_path)
    os.utime(tmp_path / "f", ns=(0, -(10**9)))
    os.utime(tmp_path, ns=(0, 0))
    same(gnu_tar(tmp_path, "--format=gnu"), tmp_path)


SPARSE = [
    ["--format=oldgnu"],
    ["--format=gnu"],
    ["--format=pax", "--sparse-version=0.0"],
    ["--format=pax", "--sparse-version=0.1"],
    ["--format=pax", "--sparse-version=1.0"],
]


@pytest.mark.parametrize("options", SPARSE, ids=lambda options: options[-1])
def test_sparse_files(tmp_path: Path, options: list[str]) -> None:
    shapes = {
        "one": (1 << 20, [(500_000, 10)]),
        "five": (100_000, [(i * 16384, 4096) for i in range(5)]),
        "many": (30 << 20, [(i * 65536, 5000) for i in range(100)]),
        "hole": (1 << 30, []),
        "end": (70_001, [(70_000, 1)]),
        "n" * 200: (200_000, [(100_000, 3)]),
        "huge": (1 << 40, [(1 << 39, 5)]),
    }
    for name, (size, runs) in shapes.items():
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
            for offset, length in runs:
                file.seek(offset)
                file.write(b"data!" * (length // 5 + 1))
            file.truncate(size)
    settle(tmp_path, 0)
    found = same(gnu_tar(tmp_path, "--sparse", *options), tmp_path)
    huge = found.entries[b"huge"]
    assert isinstance(huge, File)
    if sum(length for _, length in huge.content.runs()) > 1 << 20:
        missing("the directory's file system keeps no holes")


def attributes(path: Path) -> None:
    """Attributes as far as the file system and our rights go; the test ends where they go nowhere."""
    for name in ("f", "g"):
        (path / name).write_bytes(b"x")
    (path / "d").mkdir()
    try:
        os.setxattr(path / "f", "user.one", bytes(range(256)))
        os.setxattr(path / "f", "user.=%x", b"")
        os.setxattr(path / "d", "user.long", b"v" * 1500)
    except OSError:
        missing("the directory's file system keeps no attributes")
    if ROOT:
        os.setxattr(path / "f", "security.selinux", b"system_u:object_r:etc_t:s0\0")
        os.setxattr(path / "g", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
        os.setxattr(path / "d", "trusted.t", b"1")


def access_lists(path: Path, user: str = "12345") -> None:
    run([tool("setfacl"), "-m", f"u:{user}:rwx,g:54321:r,m:rwx", path / "f"])
    run([tool("setfacl"), "-m", "u:12345:r", path / "d"])
    run([tool("setfacl"), "-d", "-m", "u:12345:rwx,u:0:r", path / "d"])


def test_attributes_of_gnu_tar(tmp_path: Path) -> None:
    attributes(tmp_path)
    access_lists(tmp_path)
    settle(tmp_path, 5)
    options = ["--format=pax", "--acls", "--xattrs", "--xattrs-include=*"]
    found = same(gnu_tar(tmp_path, *options), tmp_path)
    assert b"system.posix_acl_access" in found.entries[b"f"].xattrs
    assert b"system.posix_acl_default" in found.entries[b"d"].xattrs
    if ROOT:
        assert b"security.selinux" in found.entries[b"f"].xattrs
        same(gnu_tar(tmp_path, *options, "--selinux"), tmp_path)


def test_access_lists_with_names(tmp_path: Path) -> None:
    """GNU tar writes the names that its host has for numbers, and what they stand for only with the attributes."""
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    access_lists(tmp_path, "daemon")
    settle(tmp_path, 5)
    with pytest.raises(ArchiveRejected, match=r"daemon.*--xattrs-include"):
        same(gnu_tar(tmp_path, "--format=pax", "--acls"), tmp_path)
    same(gnu_tar(tmp_path, "--format=pax", "--acls", "--xattrs", "--xattrs-include=*"), tmp_path)


@pytest.mark.parametrize("form", ["ustar", "gnutar", "pax", "v7"])
def test_bsdtar(simple: Path, form: str) -> None:
    same(bsd_tar(simple, "--format", form), simple)


def test_bsdtar_with_all_there_is(full: Path) -> None:
    same(bsd_tar(full, "--format", "pax"), full)


def test_attributes_and_holes_of_bsdtar(tmp_path: Path) -> None:
    attributes(tmp_path)
    access_lists(tmp_path, "daemon")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(5 << 20)
        file.seek(3 << 20)
        file.write(b"data")
    settle(tmp_path, 7)
    found = same(bsd_tar(tmp_path, "--format", "pax", "--acls", "--xattrs"), tmp_path)
    sparse = found.entries[b"sparse"]
    assert isinstance(sparse, File)
    assert sum(length for _, length in sparse.content.runs()) < 1 << 20


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_python(simple: Path, full: Path, form: int) -> None:
    same(python_tar(simple, form), simple)
    if form != tarfile.USTAR_FORMAT:
        same(python_tar(full, form), full, ("links",))  # it does not see that two symbolic links are one


def test_incremental_dumps_of_gnu_tar(simple: Path, tmp_path: Path) -> None:
    for form in ("gnu", "pax"):
        snapshot = tmp_path / f"{form}.snar"
        same(gnu_tar(simple, f"--format={form}", f"--listed-incremental={snapshot}"), simple)


def test_a_volume_label_of_gnu_tar(simple: Path) -> None:
    for form in ("gnu", "pax"):
        same(gnu_tar(simple, f"--format={form}", "--label=backup"), simple)


def test_appended_members_replace_earlier_ones(tmp_path: Path) -> None:
    top, path = tmp_path / "top", tmp_path / "a.tar"
    top.mkdir()
    for body in (b"first", b"second one"):
        (top / "f").write_bytes(body)
        run([tool("tar"), "-C", top, "-rf", path, "."])
    assert len(run([tool("tar"), "-tf", path]).stdout.splitlines()) == 4
    with FileDevice(path) as device:
        root = read_tar(device)
        assert compare_trees(read_directory(top), root, contents=True, ignore=("mtime_ns",)) == []


def test_several_volumes_are_refused(simple: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(random.Random(1).randbytes(40_000))
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    run(
        [
            tool("tar"),
            "-C",
            tmp_path,
            "--format=gnu",
            "-M",
            "-L",
            "20",
            "-cf",
            first,
            "-f",
            second,
            "-f",
            tmp_path / "3",
            "big",
        ]
    )
    with FileDevice(second) as device, pytest.raises(ArchiveRejected, match="earlier volume"):
        read_tar(device)


COMPRESSORS: dict[str, Callable[[bytes], list[list[str]]]] = {
    "gzip": lambda _: [["gzip", "-9"], ["gzip", "-1", "-N"]],
    "zstd": lambda _: [["zstd", "-3"], ["zstd", "-19", "--long=27"], ["zstd", "-T2", "--no-check"]],
    "xz": lambda _: [["xz", "-9"], ["xz", "-T2", "--block-size=10000"], ["xz", "--check=none"]],
    "bzip2": lambda _: [["bzip2", "-1"], ["bzip2", "-9"]],
}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compressors(simple: Path, tmp_path: Path, name: str) -> None:
    plain = gnu_tar(simple)
    expected = read_directory(simple)
    for program, *options in COMPRESSORS[name](plain):
        for parts in ([plain], [plain[:5000], plain[5000:]]):
            packed = b"".join(
                subprocess.run([tool(program), *options, "-c"], input=part, capture_output=True, check=True).stdout
                for part in parts
            )
            path = tmp_path / "archive"
            path.write_bytes(packed)
            with open_source(path) as source:
                root = source.read(Spool(MemoryDevice(0)).place)
            assert compare_trees(expected, root, contents=True) == []


def test_what_we_read_is_what_gnu_tar_lists(full: Path) -> None:
    data = gnu_tar(full, "--format=pax")
    listed = subprocess.run(
        [tool("tar"), "--null", "--quoting-style=literal", "-tf", "-"], input=data, capture_output=True, check=True
    ).stdout
    found = sorted(path for path, _ in walk(read_tar(MemoryDevice(content=data))))
    names = b"\n".join(b"./" + path + (b"/" if is_directory(full, path) else b"") for path in found)
    assert sorted(names.split(b"\n")) == sorted(listed.rstrip(b"\n").split(b"\n"))


def is_directory(top: Path, path: bytes) -> bool:
    return bool(path) and stat.S_ISDIR(os.lstat(os.path.join(os.fsencode(top), path)).st_mode)
