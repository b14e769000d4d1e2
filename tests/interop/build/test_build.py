"""`blockwright build`: disks that others find sound, the same bytes each time, and failures that leave nothing."""

import gzip
import hashlib
import os
import random
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.support.command import COMMAND, UNMEASURED, blockwright, document, files_in
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "os-release").write_text('PRETTY_NAME="Test System 1"\n')
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "tool").write_bytes(random.Random(1).randbytes(300_000))
    os.link(root / "usr" / "bin" / "tool", root / "usr" / "bin" / "same")
    (root / "bin").symlink_to("usr/bin")
    (root / "many").mkdir()
    for number in range(700):
        (root / "many" / f"file number {number}").write_bytes(b"%d" % number)
    with open(root / "sparse", "wb") as file:
        file.truncate(50 << 20)
        file.seek(30 << 20)
        file.write(b"in the middle")
    return root


def extract_root(image: Path, to: Path, part: int = 1) -> Path:
    """The bytes of a partition as a file of its own, cut out with what sfdisk says."""
    start, size = sfdisk_parts(image)[part - 1]
    with open(image, "rb") as disk, open(to, "wb") as out:
        disk.seek(start)
        out.write(disk.read(size))
    return to


def sfdisk_parts(image: Path) -> list[tuple[int, int]]:
    import json

    told = json.loads(run([tool("sfdisk"), "--json", image]).stdout)["partitiontable"]
    sector = told.get("sectorsize", 512)
    return [(each["start"] * sector, each["size"] * sector) for each in told["partitions"]]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_default_is_a_gpt_disk_with_an_exact_root(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    done = blockwright("build", source, "-o", image)
    assert done.stdout == os.fsencode(image) + b"\n"
    assert done.stderr == b""
    told = run([tool("sgdisk"), "-v", image]).stdout
    assert "No problems found" in told, told
    root = extract_root(image, tmp_path / "root.ext4")
    run([tool("e2fsck"), "-fn", root])
    listing = run([tool("debugfs"), "-R", "ls -l /usr/bin", root]).stdout
    assert "tool" in listing
    assert "same" in listing
    free = int(run([tool("dumpe2fs"), "-h", root]).stdout.split("Free blocks:")[1].split()[0])
    assert free < 64, f"an exact root has next to nothing free, found {free} blocks"
    assert image.stat().st_blocks * 512 < 8 << 20, "holes must stay holes"


@pytest.mark.parametrize(
    "options",
    [
        ["--size", "200M"],
        ["--root-size", "120M"],
        ["--free", "40%"],
        ["--block-size", "1024"],
        ["--journal-size", "0"],
        ["--inodes", "5000", "--reserved", "1%"],
        ["--size", "128M", "--sector-size", "4096"],
    ],
    ids=" ".join,
)
def test_options_give_sound_disks(source: Path, tmp_path: Path, options: list[str]) -> None:
    image = tmp_path / "disk.img"
    built = document("build", source, "-o", image, *options)
    assert image.stat().st_size == built["size"]
    if "--sector-size" not in options:
        assert "No problems found" in run([tool("sgdisk"), "-v", image]).stdout
        run([tool("e2fsck"), "-fn", extract_root(image, tmp_path / "root.ext4")])
    checked = document("check", image)
    assert checked["clean"], checked
    inspected = document("inspect", image)
    assert inspected["regions"][0]["file_system"]["kind"] == "ext4"
    if "--free" in options:
        root = inspected["regions"][0]["file_system"]
        assert root["free"] / root["size"] == pytest.approx(0.4, abs=0.02)


def test_bare_file_system(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "root.ext4"
    blockwright("build", source, "-o", image, "--table", "none", "--label", "bare")
    run([tool("e2fsck"), "-fn", image])
    assert "bare" in run([tool("dumpe2fs"), "-h", image]).stdout
    assert blockwright("fs", "cat", image, "/etc/os-release").stdout == b'PRETTY_NAME="Test System 1"\n'


def test_same_input_same_bytes(source: Path, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("1.img", "2.img", "3.img"))
    blockwright("build", source, "-o", first)
    blockwright("build", source, "-o", second)
    assert digest(first) == digest(second)
    blockwright("build", source, "-o", third, "--seed", "another")
    assert digest(first) != digest(third)
    blockwright("build", source, "-o", third, "--force", "--seed", "random")
    kept = digest(third)
    blockwright("build", source, "-o", third, "--force", "--seed", "random")
    assert digest(third) != kept


def test_source_date_epoch_bounds_every_time(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "root.ext4"
    os.utime(source / "etc" / "os-release", (5, 5))
    blockwright("build", source, "-o", image, "--table", "none", env={"SOURCE_DATE_EPOCH": "1000000000"})
    assert document("fs", "stat", image, "/many")["mtime_ns"] == 10**18
    assert document("fs", "stat", image, "/etc/os-release")["mtime_ns"] == 5 * 10**9
    assert "Filesystem created:       Sun Sep  9" in run([tool("dumpe2fs"), "-h", image], env={"TZ": "UTC"}).stdout
    blockwright("build", source, "-o", image, "--force", code=2, env={"SOURCE_DATE_EPOCH": "soon"})


def test_a_file_of_the_future_is_no_damage(source: Path, tmp_path: Path) -> None:
    """A build takes no clock, so its superblock is as new as its newest file. e2fsck asks, and exits with 0."""
    image, year_2040 = tmp_path / "root.ext4", 2_209_032_000
    os.utime(source / "etc" / "os-release", (5, year_2040))
    blockwright("build", source, "-o", image, "--table", "none")
    header = run([tool("dumpe2fs"), "-h", image], env={"TZ": "UTC"}).stdout
    assert "Last write time:          Sun Jan  1 12:00:00 2040" in header
    assert "is in the future" in run([tool("e2fsck"), "-fn", image]).stdout
    assert document("check", image)["clean"] is True
    blockwright("build", source, "-o", image, "--table", "none", "--force", env={"SOURCE_DATE_EPOCH": "1000000000"})
    assert "future" not in run([tool("e2fsck"), "-fn", image]).stdout


@pytest.mark.parametrize("way", ["tar", "tar.gz", "stdin"])
def test_archives_give_the_same_tree(source: Path, tmp_path: Path, way: str) -> None:
    archive, image = tmp_path / f"source.{way}", tmp_path / "disk.img"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as out:
        out.add(source, arcname=".")
    data = archive.read_bytes()
    if way == "tar.gz":
        archive.write_bytes(gzip.compress(data, 1))
    if way == "stdin":
        blockwright("build", "-", "-o", image, input=data)
    else:
        blockwright("build", archive, "-o", image)
    root = extract_root(image, tmp_path / "root.ext4")
    run([tool("e2fsck"), "-fn", root])
    assert document("check", image)["clean"]
    for path in ("/usr/bin/tool", "/many/file number 699", "/sparse"):
        got = tmp_path / "got"
        blockwright("fs", "get", f"{image}:1", path, got, "--force")
        assert got.read_bytes() == (source / path[1:]).read_bytes()
    assert document("fs", "stat", f"{image}:1", "/usr/bin/same")["links"] == 2


@pytest.mark.parametrize("size", [None, "64M"])
def test_a_stream_needs_no_more_than_a_block_group_over_exact(source: Path, tmp_path: Path, size: str | None) -> None:
    archive, exact, streamed = (tmp_path / name for name in ("s.tar", "exact.img", "streamed.img"))
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as out:
        out.add(source / "many", arcname=".")
    more = ["--size", size] if size else []
    blockwright("build", archive, "-o", exact, "--table", "none", *more)
    blockwright("build", "-", "-o", streamed, "--table", "none", *more, input=archive.read_bytes())
    run([tool("e2fsck"), "-fn", streamed])
    assert streamed.stat().st_size - exact.stat().st_size <= (0 if size else 128 << 20)


def test_a_stream_takes_what_remains_of_a_given_disk(source: Path, tmp_path: Path) -> None:
    archive, image = tmp_path / "s.tar", tmp_path / "disk.img"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as out:
        out.add(source, arcname=".")
    blockwright("build", "-", "-o", image, "--size", "300M", input=archive.read_bytes())
    told = document("inspect", image)["regions"][0]
    assert told["file_system"]["size"] > 290 << 20
    run([tool("e2fsck"), "-fn", extract_root(image, tmp_path / "root.ext4")])


def test_dry_run_writes_nothing_and_tells_the_layout(source: Path, tmp_path: Path) -> None:
    before = files_in(tmp_path)
    planned = document("build", source, "--dry-run")
    assert files_in(tmp_path) == before
    built = document("build", source, "-o", tmp_path / "disk.img")
    assert planned["size"] == built["size"] == (tmp_path / "disk.img").stat().st_size
    assert planned["parts"] == built["parts"]
    text = blockwright("build", source, "--dry-run").stdout.decode()
    assert str(built["size"]) in text


def test_existing_output_needs_force(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(b"mine")
    done = blockwright("build", source, "-o", image, code=2)
    assert b"--force" in done.stderr
    assert image.read_bytes() == b"mine"
    image.chmod(0o600)
    blockwright("build", source, "-o", image, "--force")
    assert image.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--size", "1M"], 1, b"need"),
        (["--size", "10 bananas"], 2, b"bananas"),
        (["--free", "99%"], 2, b"95%"),
        (["--size", "1G", "--free", "10%"], 2, b"both"),
        (["--boot", "systemd-boot"], 5, b"--kernel"),
        (["--boot", "systemd-boot", "--kernel", "/nonexistent"], 5, b"/nonexistent"),
        (["--cmdline", "quiet"], 2, b"--boot"),
        (["--label", "a label that is much too long"], 2, b"16"),
    ],
    ids=str,
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    source: Path, tmp_path: Path, arguments: list[str], code: int, said: bytes
) -> None:
    before = files_in(tmp_path)
    done = blockwright("build", source, "-o", tmp_path / "disk.img", *arguments, code=code)
    assert said in done.stderr, done.stderr
    assert files_in(tmp_path) == before


def test_missing_source_and_wrong_source(tmp_path: Path) -> None:
    blockwright("build", tmp_path / "nothing", "-o", tmp_path / "disk.img", code=5)
    (tmp_path / "text").write_text("this is no archive " * 100)
    blockwright("build", tmp_path / "text", "-o", tmp_path / "disk.img", code=1)
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(random.Random(2).randbytes(20_000))[:9_000])
    blockwright("build", tmp_path / "cut.tar.gz", "-o", tmp_path / "disk.img", code=1)
    assert files_in(tmp_path) == ["cut.tar.gz", "text"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_named(source: Path, tmp_path: Path) -> None:
    (source / "secret").write_bytes(b"secret")
    (source / "secret").chmod(0)
    done = blockwright("build", source, "-o", tmp_path / "disk.img", code=4)
    assert b"secret" in done.stderr
    assert files_in(tmp_path) == ["source"]


def test_a_full_disk_is_one_line_and_no_output(source: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for a full disk: the write fails in the middle either way."""
    script = f"ulimit -f 200; exec {' '.join(COMMAND)} build '{source}' -o '{tmp_path}/disk.img'"
    environment = {**os.environ, **UNMEASURED}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1, done
    assert done.stderr.count(b"\n") == 1, done.stderr
    assert files_in(tmp_path) == ["source"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    """Standard input that never ends keeps the build in the middle of its work."""
    archive = tmp_path / "archive"
    (tmp_path / "data").write_bytes(random.Random(3).randbytes(3 << 20))
    with tarfile.open(archive, "w") as out:
        out.add(tmp_path / "data", arcname="data")
    with subprocess.Popen(
        [*COMMAND, "build", "-", "-o", str(tmp_path / "disk.img")], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(archive.read_bytes()[: 2 << 20])
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not any(name.endswith(".partial") for name in files_in(tmp_path)):
            assert time.monotonic() < deadline, "the output never appeared"
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(60) == 130, said
    assert b"interrupted" in said
    assert b"Traceback" not in said
    assert files_in(tmp_path) == ["archive", "data"]
