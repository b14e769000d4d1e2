"""The same bytes from any host: whatever order it lists names in, whatever its Python, however a stream is packed."""

import bz2
import gzip
import os
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.command import blockwright as command
from tests.support.inprocess import blockwright

pytestmark = pytest.mark.unprivileged
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    for number in range(400):
        folder = root / f"d{number % 7}" / f"e{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {number}").write_bytes(b"%d" % number * number)
    os.link(root / "d1" / "e1" / "file 1", root / "again")
    (root / "link").symlink_to("d1")
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(0, 1_600_000_000_000_000_000), follow_symlinks=False)
    return root


OPTIONS = [[], ["--table", "none"], ["--table", "mbr", "--size", "64M"]]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_order_of_listings_is_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    blockwright("build", source, "-o", tmp_path / "a.img", *options)
    real, orders = os.scandir, set()

    class Shuffled:
        """A listing in another order, as another file system would give it."""

        def __init__(self, *given: object) -> None:
            with real(*given) as found:
                self._entries = sorted(found, key=lambda each: random.Random(each.name).random())
            orders.add(tuple(each.name for each in self._entries[:3]))

        def __enter__(self):
            return iter(self._entries)

        def __exit__(self, *exc: object) -> None:
            pass

        def __iter__(self):
            return iter(self._entries)

    monkeypatch.setattr(os, "scandir", Shuffled)
    blockwright("build", source, "-o", tmp_path / "b.img", *options)
    assert len(orders) > 7, "the listing was not asked for"
    assert (tmp_path / "a.img").read_bytes() == (tmp_path / "b.img").read_bytes()


def test_a_copy_made_in_another_order_is_the_same(source: Path, tmp_path: Path) -> None:
    """On a file system in memory too, where there is one: it lists the newest name first."""
    blockwright("build", source, "-o", tmp_path / "a.img")
    for number, parent in enumerate((tmp_path, Path("/dev/shm"))):
        if not os.access(parent, os.W_OK):
            continue
        other = parent / f"other-{os.getpid()}"
        try:
            other.mkdir()
            for path in sorted(source.rglob("*"), reverse=True):
                target = other / path.relative_to(source)
                if path.is_dir() and not path.is_symlink():
                    target.mkdir(parents=True, exist_ok=True)
                elif path.name != "again":
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, target, follow_symlinks=False)
            os.link(other / "d1" / "e1" / "file 1", other / "again")
            for path in [*other.rglob("*"), other]:
                os.utime(path, ns=(0, 1_600_000_000_000_000_000), follow_symlinks=False)
                os.chmod(path, path.stat().st_mode) if not path.is_symlink() else None
            blockwright("build", other, "-o", tmp_path / f"{number}.img")
            assert (tmp_path / "a.img").read_bytes() == (tmp_path / f"{number}.img").read_bytes()
        finally:
            shutil.rmtree(other, ignore_errors=True)


def packed(source: Path) -> bytes:
    archive = source.parent / "source.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(source, ".")
    return archive.read_bytes()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_stream_is_the_same_however_it_is_packed(source: Path, tmp_path: Path, options: list[str]) -> None:
    """Plain on standard input, and compressed in a file. A plain archive in a file is laid out as a directory is."""
    plain = packed(source)
    command("build", "-", "-o", tmp_path / "stream.img", *options, input=plain)
    for name, data in (("a.gz", gzip.compress(plain)), ("b.gz", gzip.compress(plain, 1)), ("c", bz2.compress(plain))):
        (tmp_path / name).write_bytes(data)
        blockwright("build", tmp_path / name, "-o", tmp_path / f"{name}.img", *options)
        assert (tmp_path / f"{name}.img").read_bytes() == (tmp_path / "stream.img").read_bytes()
    blockwright("build", tmp_path / "source.tar", "-o", tmp_path / "plain.img", *options)
    blockwright("build", source, "-o", tmp_path / "directory.img", *options)
    assert (tmp_path / "plain.img").read_bytes() == (tmp_path / "directory.img").read_bytes()
    blockwright("check", tmp_path / "stream.img", "--against", source)


@pytest.mark.parametrize("options", [*OPTIONS, ["--fs", "ext3", "--format", "qcow2"]], ids=str)
def test_a_spooled_stream_is_the_plain_archive(source: Path, tmp_path: Path, options: list[str]) -> None:
    plain = packed(source)
    blockwright("build", tmp_path / "source.tar", "-o", tmp_path / "plain.img", *options)
    command("build", "-", "--spool", "-o", tmp_path / "stdin.img", *options, input=plain)
    (tmp_path / "a.gz").write_bytes(gzip.compress(plain))
    blockwright("build", tmp_path / "a.gz", "--spool", "-o", tmp_path / "gzip.img", *options)
    blockwright("build", tmp_path / "a.gz", "--spool", "-o", tmp_path / "gzip.img", "--verify-only", *options)
    for name in ("stdin.img", "gzip.img"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "plain.img").read_bytes(), name


def test_spooled_layers_are_plain_ones(source: Path, tmp_path: Path) -> None:
    packed(source)
    with tarfile.open(tmp_path / "upper.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("d1/e1/.wh.file 1"))
    for name in ("source", "upper"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / f"{name}.tar").read_bytes()))
    for suffix in ("tar", "gz"):
        layers = [tmp_path / f"{name}.{suffix}" for name in ("source", "upper")]
        blockwright("build", *layers, "--spool", "-o", tmp_path / f"{suffix}.img")
    assert (tmp_path / "gz.img").read_bytes() == (tmp_path / "tar.img").read_bytes()


def newer_python() -> str | None:
    """The newest Python on this host that is newer than this one, where pyenv or the system has it."""
    names = [f"python3.{minor}" for minor in range(20, sys.version_info.minor, -1)]
    places = [os.environ.get("PATH", ""), *map(str, sorted(Path.home().glob(".pyenv/versions/*/bin"), reverse=True))]
    for name in names:
        for place in places:
            found = shutil.which(name, path=place)
            if (
                found is not None
                and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode
            ):
                return found
    return None


@pytest.mark.soak
def test_the_newest_python_makes_the_same_bytes(source: Path, tmp_path: Path) -> None:
    """It needs its own modules, which pip brings; without either the test is skipped with the reason."""
    newest = newer_python()
    if newest is None:
        pytest.skip(f"no Python newer than 3.{sys.version_info.minor} is installed")
    site = tmp_path / "site"
    pip = [newest, "-m", "pip", "install", "-q", "--only-binary", ":all:", "--target", site, REPOSITORY]
    done = subprocess.run(pip[:-1] + needed(), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip brings no modules for {newest}: {done.stderr.strip().splitlines()[-1:]}")
    (tmp_path / "source.tar.gz").write_bytes(gzip.compress(packed(source)))
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}:{site}", "PYTHONDONTWRITEBYTECODE": "1"}
    for number, given in enumerate((source, tmp_path / "source.tar.gz")):
        for options in OPTIONS:
            blockwright("build", given, "-o", tmp_path / "a.img", "--force", *options)
            theirs = [newest, "-m", "blockwright", "build", given, "-o", tmp_path / "b.img", "--force", *options]
            subprocess.run(theirs, env=environment, check=True, capture_output=True)
            assert (tmp_path / "a.img").read_bytes() == (tmp_path / "b.img").read_bytes(), (number, options)


def needed() -> list[str]:
    """What the package needs, as its own metadata says."""
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])
