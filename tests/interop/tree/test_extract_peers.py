"""``blockwright extract`` as people run it: beside tar, out of images, and watched while it is attacked."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from blockwright.errors import Rejection
from blockwright.tree.compare import compare_trees
from blockwright.tree.host import read_directory
from tests.support.attacks import Attack, attacks, image_attacks
from tests.support.straced import changes
from tests.support.tarmaker import archive, header, member
from tests.support.tools import missing, run, tool

ROOT = os.geteuid() == 0


def blockwright(*arguments: object, stdin: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "blockwright", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, env=environment)
    assert not check or not done.returncode, done.stderr
    return done


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    top = tmp_path / "packed"
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "f").write_bytes(b"body" * 1000)
    (top / "d" / "hard").hardlink_to(top / "d" / "f")
    (top / "link").symlink_to("/etc/passwd")
    (top / "d" / "closed").mkdir(0o500)
    (top / "secret").write_bytes(b"s")
    (top / "secret").chmod(0o000 if ROOT else 0o400)  # nobody else could pack it
    with (top / "sparse").open("wb") as sparse:
        sparse.seek(10 << 20)
        sparse.write(b"end")
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    return run_tar(top, "--sparse", "--format=pax")


def run_tar(top: Path, *options: str) -> bytes:
    command = [tool("tar"), "-C", os.fspath(top), *options, "-cf", "-", "."]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.parametrize("compression", ["", "gzip", "zstd", "xz", "bzip2"])
def test_the_same_as_tar(tmp_path: Path, packed: bytes, compression: str) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    subprocess.run([tool("tar"), "-C", theirs, "-xpf", "-"], input=packed, check=True)
    data = (
        subprocess.run([tool(compression), "-c"], input=packed, capture_output=True, check=True).stdout
        if compression
        else packed
    )
    (tmp_path / "a").write_bytes(data)
    assert blockwright("extract", tmp_path / "a", ours).stdout.decode().strip() == str(ours)
    assert compare_trees(read_directory(theirs), read_directory(ours), contents=ROOT) == []
    assert (ours / "sparse").stat().st_blocks * 512 < 1 << 20
    again = tmp_path / "again"
    blockwright("extract", "-", again, stdin=data)
    assert compare_trees(read_directory(theirs), read_directory(again), contents=ROOT) == []


def test_out_of_an_image_and_out_of_a_directory(tmp_path: Path, packed: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(packed)
    blockwright("build", tmp_path / "a.tar", "-o", tmp_path / "disk.img")
    blockwright("build", tmp_path / "a.tar", "-o", tmp_path / "root.img", "--table", "none")
    run([tool("qemu-img"), "convert", "-O", "qcow2", tmp_path / "root.img", tmp_path / "root.qcow2"])
    first = tmp_path / "first"
    blockwright("extract", tmp_path / "a.tar", first)
    for number, source in enumerate(
        [f"{tmp_path}/disk.img:1", tmp_path / "root.img", tmp_path / "root.qcow2", first]
    ):
        out = tmp_path / str(number)
        blockwright("extract", source, out)
        found = read_directory(out)
        found.entries.pop(b"lost+found", None)
        assert (
            compare_trees(read_directory(first), found, contents=ROOT, ignore={"mtime_ns"} if number < 3 else ())
            == []
        )
    done = blockwright("extract", tmp_path / "disk.img", tmp_path / "no", check=False)
    assert b"its partitions are" in done.stderr


def test_what_is_left_out_is_one_line(tmp_path: Path) -> None:
    data = archive(*[header(b"p%d" % i, kind=b"6") for i in range(9)], member(b"f", b"1"), member(b"f", b"2"))
    done = blockwright("extract", "-", tmp_path / "out", stdin=data)
    assert done.stderr.decode().splitlines() == [
        "blockwright: standard input: 1 entries were replaced by later ones of the same name",
        f"blockwright: {tmp_path / 'out'}: left out: 9 special files (--strict fails instead)",
    ]
    done = blockwright("extract", "-", tmp_path / "two", "--strict", stdin=data, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert not (tmp_path / "two").exists()


def test_a_limit_of_the_command(tmp_path: Path) -> None:
    data = archive(member(b"f", bytes(5000)))
    done = blockwright("extract", "-", tmp_path / "out", "--limit", "size=4K", "--json", stdin=data, check=False)
    assert (done.returncode, b'"reason": "bytes"' in done.stderr, b'"entry": "f"' in done.stderr) == (1, True, True)
    assert os.listdir(tmp_path) == []
    done = blockwright("extract", "-", tmp_path / "out", "--limit", "sizes=4", stdin=data, check=False)
    assert done.returncode == 2


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_what_was_there(tmp_path: Path, exists: bool, number: int) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    command = [sys.executable, "-m", "blockwright", "extract", "-", out]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        process.stdin.write(member(b"f", bytes(20 << 20)))
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not any(tmp_path.rglob("body-1")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(60) == 130
    assert list(tmp_path.iterdir()) == ([out] if exists else [])
    assert not exists or list(out.iterdir()) == []


# -- attacked --------------------------------------------------------------------------------------------------------

TRACED = """
import os, sys
sys.dont_write_bytecode = True
from blockwright.errors import BlockwrightError
from blockwright.extract import extract
from blockwright.source import open_source
from blockwright.tree.extract import KEEP, ME, ExtractOptions
from tests.support.attacks import attacks, image_attacks
import blockwright.source.layered
import blockwright.tree.extract_write, blockwright.tree.tar.read, blockwright.source.archive, blockwright.device.file
import bz2, lzma, encodings.idna
top = sys.argv[1]
for number, attack in enumerate(attacks() + image_attacks()):
    path = f"{top}/{number}.tar"
    for options in (ExtractOptions(ME), ExtractOptions(KEEP if os.geteuid() == 0 else ME, force=True)):
        target = f"{top}/targets/{number}-{options.force}"
        if options.force:
            os.mkdir(target)
            for name in ("old", "a", "d", "f", "h", "l", "tmp"):
                os.symlink(top, target + "/" + name)
        try:
            os.access("/blockwright-begin", os.F_OK)
            with open_source(path, rules=attack.rules) as source:
                extract(source, target, options)
        except (BlockwrightError, OSError) as error:
            print(number, type(error).__name__, error)
        finally:
            os.access("/blockwright-end", os.F_OK)
"""


@pytest.fixture
def corpus(tmp_path: Path) -> list[Attack]:
    found = attacks() + image_attacks()
    (tmp_path / "targets").mkdir()
    for number, attack in enumerate(found):
        (tmp_path / f"{number}.tar").write_bytes(attack.data)
    return found


def test_attacks_write_nowhere_else(tmp_path: Path, corpus: list[Attack]) -> None:
    """Every call that could change a file, as the kernel saw it, while each archive of the corpus is extracted."""
    log = tmp_path / "strace.log"
    calls = "trace=%file,%desc"
    command = [tool("strace"), "-f", "-y", "-qq", "-s", "4096", "-e", calls, "-o", log, sys.executable, "-c", TRACED]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, check=False, env=environment)
    if "PTRACE" in done.stderr:
        missing("strace may not trace here")
    assert not done.returncode, done.stderr
    outside, seen = changes(log.read_text(errors="replace"), f"{tmp_path}/targets")
    assert outside == []
    assert seen > len(corpus)
    assert not Path("/tmp/blockwright-escaped").exists()
    for number, attack in enumerate(corpus):
        target = tmp_path / "targets" / f"{number}-False"
        assert target.exists() != isinstance(attack.outcome, Rejection), attack.id


def test_the_watch_sees_an_escape() -> None:
    lines = [
        '1 access("/blockwright-begin", F_OK) = -1 ENOENT',
        '1 openat(5</t/targets/1>, "../../x", O_WRONLY|O_CREAT) = 6</x>',
        '1 openat(5</t/targets/1>, "x", O_WRONLY|O_CREAT) = 6</t/targets/1/x>',
        '1 mkdir("/tmp/x", 0700) = 0',
        '1 symlinkat("/etc", 5</t/targets/1>, "l") = 0',
        '1 access("/blockwright-end", F_OK) = -1 ENOENT',
        '1 mkdir("/tmp/y", 0700) = 0',
    ]
    outside, seen = changes("\n".join(lines), "/t/targets")
    assert [line[2:8] for line in outside] == ["openat", "mkdir("]
    assert seen == 2


def test_python_extracts_what_we_made(tmp_path: Path, packed: bytes) -> None:
    """The tree that we read back is the one that Python's own reader tells."""
    blockwright("extract", "-", tmp_path / "out", stdin=packed)
    with tarfile.open(fileobj=io.BytesIO(packed)) as theirs:
        names = {os.path.normpath(each.name) for each in theirs} - {"."}
    assert {os.fspath(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")} == names
