"""Container images as umoci unpacks them and skopeo converts them, against the tree that we make of them."""

import gzip
import io
import os
import random
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import ArchiveRejected
from blockwright.source import open_source
from blockwright.tree.compare import compare_trees
from blockwright.tree.content import BytesContent
from blockwright.tree.host import read_directory
from blockwright.tree.node import Directory, File, walk
from blockwright.tree.spool import Spool
from tests.support.oci import Image, docker
from tests.support.tarmaker import archive, header, member
from tests.support.tools import run, tool
from tests.support.trees import content_bytes

ROOT = os.geteuid() == 0
OWN = () if ROOT else ("uid", "gid")


def ours(path: Path) -> Directory:
    """The tree of a source, all of it in memory."""
    with open_source(path) as source:
        root = source.read(None if source.addressable else Spool(MemoryDevice(0)).place)
        for _, node in walk(root):
            if isinstance(node, File):
                node.content = BytesContent(content_bytes(node.content))
        return root


def theirs(path: Path, bundle: Path) -> subprocess.CompletedProcess:
    rootless = [] if ROOT else ["--rootless"]
    command = [tool("umoci"), "unpack", *rootless, "--image", f"{path}:one", bundle]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def compared(path: Path, bundle: Path) -> list[str]:
    """Differences between umoci's view of the image and ours; times of directories are those of its unpacking."""
    done = theirs(path, bundle)
    assert not done.returncode, done.stderr
    expected = read_directory(bundle / "rootfs")
    found = ours(path)
    found.permissions = expected.permissions  # the bundle is umoci's own
    found.uid, found.gid = expected.uid, expected.gid
    differences = compare_trees(expected, found, contents=True, ignore=OWN)
    directories = {path for path, node in walk(expected) if isinstance(node, Directory)}
    return [str(each) for each in differences if each.aspect != "mtime_ns" or each.path not in directories]


def filled(layers: list[bytes]) -> Image:
    image = Image(layers, compress=lambda data: gzip.compress(data, 1))
    image.config |= {"created": "2024-01-01T00:00:00Z", "config": {}, "history": [{} for _ in layers]}
    return image.seal()


def directory(name: bytes, **fields: object) -> bytes:
    return header(name, kind=b"5", mode=0o755, **fields)


BASE = [
    directory(b"usr"),
    directory(b"usr/lib", mtime=5),
    directory(b"usr/bin"),
    member(b"usr/lib/a.so", b"a" * 3000, mtime=7),
    header(b"lib", kind=b"2", link=b"usr/lib", mtime=8, mode=0o777),
    directory(b"etc"),
    member(b"etc/shadow", b"x", mode=0o000 if ROOT else 0o400),
    member(b"etc/conf", b"1", mode=0o4755),
    header(b"etc/hard", kind=b"1", link=b"etc/conf"),
    header(b"etc/up", kind=b"2", link=b"../../../../tmp", mode=0o777),
]
UPPERS = {
    "usrmerge": [member(b"lib/b.so", b"b", mtime=4), directory(b"usr/lib", mtime=6)],
    "link-across": [directory(b"etc"), header(b"etc/more", kind=b"1", link=b"etc/hard")],
    "link-to-a-link": [directory(b"etc"), header(b"etc/more", kind=b"1", link=b"etc/up")],
    "whiteouts": [directory(b"etc"), header(b"etc/.wh.conf"), member(b"etc/new", b"n")],
    "opaque-before": [directory(b"etc"), header(b"etc/.wh..wh..opq"), member(b"etc/new", b"n")],
    "opaque-after": [directory(b"etc"), member(b"etc/new", b"n"), header(b"etc/.wh..wh..opq")],
    "whiteout-behind": [directory(b"etc"), member(b"etc/conf", b"n"), header(b"etc/.wh.conf")],
    "directory-for-a-link": [directory(b"lib"), member(b"lib/only", b"o")],
    "link-for-a-directory": [header(b"etc", kind=b"2", link=b"usr", mode=0o777)],
    "file-for-a-directory": [member(b"usr", b"f")],
    "twice": [directory(b"etc"), member(b"etc/x", b"1"), member(b"etc/x", b"22")],
    "everything": [header(b".wh.usr"), header(b".wh.lib"), header(b".wh.etc"), member(b"alone", b"1")],
}


@pytest.mark.parametrize("name", UPPERS)
def test_umoci_unpacks_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / "image").mkdir()
    image = filled([archive(*BASE), archive(*UPPERS[name]), archive(member(b"usr2/x", b"1"))])
    assert compared(image.directory(tmp_path / "image"), tmp_path / "bundle") == []


def test_umoci_and_random_layers(tmp_path: Path) -> None:
    seen = 0
    for number in range(40):
        source = random.Random(f"umoci {number}")
        layers = [random_layer(source, first=not each) for each in range(3)]
        path = tmp_path / str(number)
        path.mkdir()
        filled(layers).directory(path)
        try:
            ours(path)
        except ArchiveRejected:
            continue  # which is told by a test of its own
        done = theirs(path, tmp_path / f"{number}.bundle")
        if done.returncode:
            continue  # a name below a file, which we take as little
        seen += 1
        assert compared(path, tmp_path / f"{number}.again") == [], f"umoci {number}"
    assert seen > 20


def random_layer(source: random.Random, *, first: bool) -> bytes:
    """Entries as image builders write them: each directory before what it holds, every name once."""
    members: dict[bytes, bytes] = {}
    for _ in range(source.randrange(2, 9)):
        folder = source.choice([b"a", b"b", b"a/c"])
        for end in range(1, folder.count(b"/") + 2):
            part = b"/".join(folder.split(b"/")[:end])
            members.setdefault(part, directory(part))
        name = source.choice([b"x", b"y", b"z"])
        path, kind = folder + b"/" + name, source.randrange(4 if first else 8)
        if kind < 2:
            members.setdefault(path, member(path, source.randbytes(source.randrange(3000))))
        elif kind == 2:
            members.setdefault(
                path, header(path, kind=b"2", mode=0o777, link=source.choice([b"x", b"../b", b"/a/c"]))
            )
        elif kind == 3:
            members.setdefault(path + b"d", directory(path + b"d"))
        elif kind == 4:
            members.setdefault(folder + b"/.wh..wh..opq", header(folder + b"/.wh..wh..opq"))
        else:
            members.setdefault(folder + b"/.wh." + name, header(folder + b"/.wh." + name))
    return archive(*members.values())


def test_an_image_that_umoci_makes(tmp_path: Path) -> None:
    """A root file system grown in steps by umoci, whose layers are differences that it finds."""
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    rootless = [] if ROOT else ["--rootless"]
    run([tool("umoci"), "init", "--layout", layout])
    run([tool("umoci"), "new", "--image", f"{layout}:one"])
    run([tool("umoci"), "unpack", *rootless, "--image", f"{layout}:one", bundle])
    top = bundle / "rootfs"
    for step in range(3):
        (top / "usr" / f"d{step}").mkdir(parents=True)
        for number in range(20):
            (top / "usr" / f"d{step}" / f"{number}").write_bytes(b"%d" % number * 500)
        if step:
            (top / "usr" / f"d{step - 1}" / "3").unlink()
            (top / "usr" / f"d{step - 1}" / "4").write_bytes(b"changed")
            (top / "usr" / f"d{step - 1}" / "link").symlink_to("/etc")
        if step == 2:
            for each in (top / "usr" / "d0").iterdir():
                each.unlink()
            (top / "usr" / "d0").rmdir()
        run([tool("umoci"), "repack", "--image", f"{layout}:one", bundle])
    assert compared(layout, tmp_path / "again") == []
    for form, name in (("oci-archive", "a.tar"), ("docker-archive", "d.tar")):
        run(
            [
                tool("skopeo"),
                "--insecure-policy",
                "copy",
                "-q",
                f"oci:{layout}:one",
                f"{form}:{tmp_path / name}:one:latest",
            ]
        )
        assert compare_trees(ours(layout), ours(tmp_path / name), contents=True) == []


def blockwright(*arguments: object, check: bool = True) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "blockwright", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert not check or not done.returncode, done.stderr
    return done


def test_the_command(tmp_path: Path) -> None:
    layers = [archive(*BASE), archive(*UPPERS["whiteouts"])]
    (tmp_path / "image").mkdir()
    image = filled(layers).directory(tmp_path / "image")
    (tmp_path / "layers").mkdir()
    for number, layer in enumerate(layers):
        (tmp_path / "layers" / f"{number}.tar.gz").write_bytes(gzip.compress(layer))
    (tmp_path / "image.tar").write_bytes(docker(layers))
    sources = [
        [image],
        [image, "--platform", "linux/amd64", "--image", "one"],
        sorted((tmp_path / "layers").iterdir()),
        [tmp_path / "layers", "--layers"],
        [tmp_path / "image.tar"],
    ]
    disks = []
    for number, source in enumerate(sources):
        blockwright("build", *source, "-o", tmp_path / f"{number}.img", "--table", "none")
        run([tool("e2fsck"), "-fn", tmp_path / f"{number}.img"])
        blockwright("extract", *source, tmp_path / f"{number}.out", "--owner", "me")
        disks.append(ours(tmp_path / f"{number}.img"))
    for number, disk in enumerate(disks[1:], 1):
        assert compare_trees(disks[0], disk, contents=True, ignore=("mtime_ns",)) == []
        left, right = (read_directory(tmp_path / f"{each}.out") for each in (0, number))
        assert compare_trees(left, right, contents=ROOT) == []
    assert (tmp_path / "0.img").read_bytes() == (tmp_path / "1.img").read_bytes() == (tmp_path / "2.img").read_bytes()
    done = blockwright("extract", image, tmp_path / "no", "--platform", "linux/s390x", check=False)
    assert (done.returncode, "expected linux/s390x, found linux/amd64" in done.stderr) == (5, True)
    path = max((image / "blobs" / "sha256").iterdir(), key=lambda each: each.stat().st_size)
    changed = bytearray(path.read_bytes())
    changed[-9] ^= 1
    path.write_bytes(changed)
    done = blockwright("build", image, "-o", tmp_path / "bad.img", "--json", check=False)
    assert (done.returncode, '"class": "ArchiveRejected"' in done.stderr, (tmp_path / "bad.img").exists()) == (
        1,
        True,
        False,
    )


def test_skopeo_takes_what_we_take(tmp_path: Path) -> None:
    """The maker of our tests makes images that others accept."""
    (tmp_path / "image").mkdir()
    filled([archive(*BASE)]).directory(tmp_path / "image")
    run([tool("skopeo"), "--insecure-policy", "copy", "-q", f"oci:{tmp_path}/image:one", f"dir:{tmp_path}/copy"])


@pytest.mark.slow
def test_debian_packages_as_layers(tmp_path: Path) -> None:
    """Real archives over one another: data members of packages that are installed here, by dpkg's lists."""
    names = [name for name in ("bash", "e2fsprogs", "mount") if Path(f"/var/lib/dpkg/info/{name}.list").exists()]
    if len(names) < 2:
        pytest.skip("not Debian")
    layers = [packed(Path(f"/var/lib/dpkg/info/{name}.list").read_text().splitlines()) for name in names]
    (tmp_path / "image").mkdir()
    filled(layers).directory(tmp_path / "image")
    assert compared(tmp_path / "image", tmp_path / "bundle") == []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [
        sys.executable,
        "-m",
        "blockwright",
        "build",
        tmp_path / "image",
        "-o",
        tmp_path / "r",
        "--table",
        "none",
    ]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    run([tool("e2fsck"), "-fn", tmp_path / "r"])
    found = ours(tmp_path / "r")
    found.entries.pop(b"lost+found")
    expected = ours(tmp_path / "image")
    assert {path for path, _ in walk(expected)} == {path for path, _ in walk(found)}


@pytest.mark.slow
def test_debian_packages_that_umoci_packs(tmp_path: Path) -> None:
    """An image as people make it: a root that grows by a package at a time, each step repacked by umoci."""
    names = [name for name in ("mount", "passwd", "bash") if Path(f"/var/lib/dpkg/info/{name}.list").exists()]
    if len(names) < 2:
        pytest.skip("not Debian")
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    rootless = [] if ROOT else ["--rootless"]
    run([tool("umoci"), "init", "--layout", layout])
    run([tool("umoci"), "new", "--image", f"{layout}:one"])
    run([tool("umoci"), "unpack", *rootless, "--image", f"{layout}:one", bundle])
    for name in ("bin", "sbin", "lib", "lib64"):  # packages have names through these links
        (bundle / "rootfs" / "usr" / name).mkdir(parents=True)
        (bundle / "rootfs" / name).symlink_to(f"usr/{name}")
    for name in names:
        files = packed(Path(f"/var/lib/dpkg/info/{name}.list").read_text().splitlines())
        subprocess.run([tool("tar"), "-xpf", "-", "-C", bundle / "rootfs"], input=files, check=True)
        run([tool("umoci"), "repack", "--image", f"{layout}:one", bundle])
    assert compared(layout, tmp_path / "again") == []
    archive = tmp_path / "image.tar"
    copy = [tool("skopeo"), "--insecure-policy", "copy", "-q", f"oci:{layout}:one"]
    run([*copy, f"docker-archive:{archive}:one:latest"])
    assert compare_trees(ours(layout), ours(archive), contents=True) == []
    blockwright("build", layout, "-o", tmp_path / "disk.img", "--verify")
    blockwright("check", tmp_path / "disk.img", "--against", archive)


def packed(paths: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as out:
        for path in paths:
            if path != "/." and os.path.lexists(path) and not stat.S_ISCHR(os.lstat(path).st_mode):
                out.add(path, arcname=path.lstrip("/"), recursive=False)
    return buffer.getvalue()
