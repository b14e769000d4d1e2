"""The command without what macOS lacks: build, edit, convert, boot, serve, volumes; peers look at what it made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.loaders import debian_loaders
from tests.support.smallroot import debian_kernel
from tests.support.tools import run, tool

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MACOS = [sys.executable, "-W", "error", "-m", "tests.support.macos"]
OFFSET = 1 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("darwin")
    files = made / "files"
    (files / "sub").mkdir(parents=True)
    (files / "hello").write_text("hello, world\n")
    (files / "link").symlink_to("hello")
    (files / "sub" / "large").write_bytes(os.urandom(3 << 20))
    with (files / "sparse").open("wb") as file:
        file.truncate(5 << 20)
    mac(made, "build", "files", "-o", "disk.img", "--size", "40M")
    return made


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "BLOCKWRIGHT_HOME": str(folder / "home")}


def mac(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run the command as on macOS, and return what it printed."""
    done = subprocess.run(
        [*MACOS, *arguments], cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_what_it_runs_on_is_no_linux(folder: Path) -> None:
    code = (
        "import os, sys; from tests.support.macos import pretend; pretend();"
        "assert sys.platform == 'darwin'; assert not hasattr(os, 'copy_file_range');"
        "assert not hasattr(os, 'O_PATH');"
        "assert not os.access('/proc/self/status', os.R_OK); open('/proc/self/status')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(folder), capture_output=True, text=True, check=False
    )
    assert "FileNotFoundError" in done.stderr


def test_build(folder: Path) -> None:
    run(["tar", "czf", str(folder / "files.tgz"), "-C", str(folder / "files"), "."])
    mac(folder, "build", "files.tgz", "-o", "bare.ext4", "--table", "none")
    run([tool("e2fsck", package="e2fsprogs"), "-fn", str(folder / "bare.ext4")])
    assert "clean" in mac(folder, "check", "disk.img")
    mac(folder, "build", "files", "-o", "same.img", "--size", "40M")
    assert (folder / "same.img").read_bytes() == (folder / "disk.img").read_bytes()


def test_what_linux_builds_is_the_same(folder: Path) -> None:
    linux = [sys.executable, "-m", "blockwright", "build", "files", "-o", "linux.img", "--size", "40M", "--seed", "x"]
    subprocess.run(linux, cwd=folder, env=environment(folder), check=True)
    mac(folder, "build", "files", "-o", "mac.img", "--size", "40M", "--seed", "x")
    assert mac(folder, "compare", "mac.img", "linux.img") == "equal\n"


def test_edit(folder: Path) -> None:
    image = str(folder / "edit.img")
    mac(folder, "convert", "disk.img", image)
    mac(folder, "fs", "put", f"{image}:1", "files/hello", "/new")
    mac(folder, "fs", "rm", f"{image}:1", "/link")
    mac(folder, "disk", "resize", image, "60M")
    mac(folder, "disk", "resize", image, "64M", "--table-only")
    assert mac(folder, "fs", "cat", f"{image}:1", "/new") == "hello, world\n"
    assert "clean" in mac(folder, "check", image)
    (folder / "part.ext4").write_bytes((folder / "edit.img").read_bytes()[OFFSET:])
    run([tool("e2fsck", package="e2fsprogs"), "-fn", str(folder / "part.ext4")])


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "vhd", "vhdx", "vdi"])
def test_convert(folder: Path, form: str) -> None:
    mac(folder, "convert", "disk.img", f"disk.{form}")
    assert mac(folder, "compare", "disk.img", f"disk.{form}") == "equal\n"
    kind = {"vhd": "vpc"}.get(form, form)
    compare = [tool("qemu-img", package="qemu-utils"), "compare", "-f", "raw", "-F", kind]
    run([*compare, str(folder / "disk.img"), str(folder / f"disk.{form}")])


def test_extract(folder: Path) -> None:
    mac(folder, "extract", "disk.img:1", "out", "--owner", "me")
    for name in ("hello", "sub/large", "sparse"):
        assert (folder / "out" / name).read_bytes() == (folder / "files" / name).read_bytes()
    assert "the same as files" in mac(folder, "check", "disk.img", "--against", "files")


def test_boot(folder: Path, tmp_path: Path) -> None:
    loaders = debian_loaders(tmp_path / "loaders")
    (folder / "vmlinuz").symlink_to(debian_kernel())
    for way in ("syslinux,uki", "grub,systemd-boot"):
        arguments = ["--boot", way, "--kernel", "vmlinuz", "--loader-dir", str(loaders), "--size", "120M"]
        mac(folder, "build", "files", "-o", f"{way}.img", *arguments)
        assert "clean" in mac(folder, "check", f"{way}.img")
        (folder / f"{way}.img").unlink()


def test_serve(folder: Path) -> None:
    command = [*MACOS, "serve", "disk.img", "files", "--socket", "s.sock"]
    with subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            uri = server.stdout.readline().decode().strip()
            assert "disk.img" in mac(folder, "nbd", "list", uri)
            mac(folder, "nbd", "copy", "nbd+unix:///disk.img?socket=s.sock", "copy.img")
            run([tool("nbdcopy", package="libnbd-bin"), "nbd+unix:///disk.img?socket=s.sock", "peer.img"], cwd=folder)
        finally:
            server.terminate()
    for name in ("copy.img", "peer.img"):
        assert (folder / name).read_bytes() == (folder / "disk.img").read_bytes()


def test_volumes(folder: Path) -> None:
    mac(folder, "pool", "create", "main", "--directory", str(folder / "volumes"))
    assert mac(folder, "volume", "create", "root", "--size", "8M", "--from", "files") == "volume:main/root\n"
    mac(folder, "volume", "snapshot", "root", "before")
    mac(folder, "fs", "put", "volume:main/root", "files/hello", "/more")
    assert "/more" in mac(folder, "fs", "ls", "volume:main/root", "/more")
    mac(folder, "fs", "ls", "volume:main/before", "/more", code=5)
    assert mac(folder, "volume", "reconcile") == ""


@pytest.mark.parametrize(
    "line",
    [
        "loop list",
        "loop attach disk.img",
        "map add disk.img",
        "dm list",
        "nbd status",
        "nbd attach nbd://localhost/x",
    ],
)
def test_what_needs_linux_says_so(folder: Path, line: str) -> None:
    told = mac(folder, *line.split(), code=4)
    assert "needs Linux, this is darwin" in told
    assert told.count("\n") == 1


def test_doctor(folder: Path) -> None:
    found = json.loads(mac(folder, "doctor", "--json"))
    jobs = {job["name"]: job["ready"] for job in found["jobs"]}
    assert [jobs[name] for name in ("build", "edit", "convert", "serve")] == [True] * 4
    assert [jobs[name] for name in ("attach", "thin")] == [False] * 2
    assert {line["state"] for line in found["lines"] if line["topic"] == "kernel"} == {"absent"}
    assert found["system"]["packages"] == "brew"
