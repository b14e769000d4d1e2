"""Progress is shown on a terminal, of whatever takes long, and nowhere else."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pty = pytest.importorskip("pty")

COMMAND = [
    sys.executable,
    "-c",
    "from blockwright.cli import main, output; output._INTERVAL_S = 0; main()",
]
"""The command, with a bar that is drawn as often as it can be."""


def on_terminal(*arguments: str | Path, stdin: bytes = b"") -> tuple[str, bytes]:
    """What the command shows on a terminal, and its standard output."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    parts: list[bytes] = []

    def watch() -> None:  # or the command would wait for room on a terminal that nobody reads
        with contextlib.suppress(OSError):  # Linux's way of telling that nobody has the other side any more
            while part := os.read(ours, 65536):
                parts.append(part)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        output, _ = process.communicate(stdin, timeout=60)
    finally:
        process.kill()
        watching.join()
        os.close(ours)
    shown = b"".join(parts)
    assert process.returncode == 0, shown
    return shown.decode(), output


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "body").write_bytes(os.urandom(4 << 20))
    return path


@pytest.fixture
def archive(source: Path, tmp_path: Path) -> Path:
    path = tmp_path / "source.tar.gz"
    subprocess.run(["tar", "czf", path, "-C", source, "."], check=True)
    return path


def last_line(shown: str) -> str:
    """What stood there before the bar was taken away; which it must be."""
    *_, last, blank, end = shown.split("\r")
    assert (blank.strip(), end) == ("", "")
    return last


def test_a_directory_shows_a_bar(source: Path, tmp_path: Path) -> None:
    shown, output = on_terminal("build", source, "-o", tmp_path / "a.img")
    assert "100%" in last_line(shown)
    assert output.decode() == f"{tmp_path}/a.img\n"


def test_an_archive_shows_how_much_of_it_was_read(archive: Path, tmp_path: Path) -> None:
    shown, _ = on_terminal("build", archive, "-o", tmp_path / "a.img")
    assert "100%" in last_line(shown)
    assert "of 4.0 MiB" in shown or "of 4 MiB" in shown


def test_what_has_no_known_size_shows_how_much_was_read(archive: Path, tmp_path: Path) -> None:
    shown, _ = on_terminal("build", "-", "-o", tmp_path / "a.img", stdin=archive.read_bytes())
    assert last_line(shown).startswith("build 4")
    assert "%" not in shown


def test_quiet_shows_nothing(source: Path, tmp_path: Path) -> None:
    assert on_terminal("build", source, "-o", tmp_path / "a.img", "--quiet")[0] == ""
