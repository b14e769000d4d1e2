"""Measure files written into an ext4 image that is there: ``python bench/ext4_edit.py``.

A thousand files of 10 KiB in one process, beside ``debugfs -w -f`` doing the same; one small file in images of two
sizes, beside a process that imports the same and does nothing. Whole processes in turn, images synced.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

# Only now are they to be found.
from measure import Row, compile_modules  # noqa: E402
from tests.support.tools import tool  # noqa: E402

FILES = 1000
SIZE = 10 << 10
ROUNDS = 7

START = """
import sys
from blockwright.device.file import FileDevice
from blockwright.fs.ext4 import edit
from blockwright.tree.host import read_directory
"""
PUT = (
    START
    + """
from pathlib import Path
with edit.open(FileDevice(Path(sys.argv[1]), writable=True)) as editor:
    editor.put(b"/put", read_directory(sys.argv[2]))
"""
)


def prepared(folder: Path) -> tuple[Path, Path, Path]:
    """Return a directory of many files, one of a single file, and debugfs's commands for the first."""
    many, single = folder / "many", folder / "single"
    chance = random.Random(1)
    for directory, count in ((many, FILES), (single, 1)):
        directory.mkdir()
        for index in range(count):
            (directory / f"file{index}").write_bytes(chance.randbytes(SIZE))
    commands = folder / "commands"
    lines = ["mkdir put", "cd put", *(f"write {many}/file{index} file{index}" for index in range(FILES))]
    commands.write_text("\n".join(lines) + "\n")
    return many, single, commands


def image(path: Path, size: str) -> Path:
    """Make an empty file system of mke2fs's own choosing."""
    subprocess.run([tool("mke2fs"), "-q", "-F", "-t", "ext4", path, size], check=True)
    return path


def timed(argv: Sequence[str], changed: Path | None) -> tuple[float, int]:
    """Run a command, sync what it changed, and return seconds and peak resident bytes."""
    started = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert not process.returncode, f"{argv}: exit {process.returncode}"
    if changed is not None:
        with changed.open("rb") as file:
            os.fsync(file.fileno())
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def measured(contenders: Sequence[tuple[str, Path | None, Sequence[str]]]) -> dict[str, Row]:
    """Run commands in turn, each on a fresh copy of its image at ``{}``, made and synced before the clock starts."""
    rows = {name: Row(name) for name, _, _ in contenders}
    for _ in range(ROUNDS):
        for name, clean, command in contenders:
            copy = Path("/nonexistent") if clean is None else clean.with_suffix(".copy")
            if clean is not None:
                subprocess.run(["cp", "--sparse=always", clean, copy], check=True)
                subprocess.run(["sync", copy], check=True)
            seconds, memory = timed([each.replace("{}", str(copy)) for each in command], clean and copy)
            rows[name].seconds.append(seconds)
            rows[name].memory.append(memory)
            copy.unlink(missing_ok=True)
    return rows


def table(rows: dict[str, Row], bar: str) -> None:
    """Print rows, each beside the last one."""
    peer = list(rows.values())[-1]
    for row in rows.values():
        print(row.text(peer.median))
    print(f"bar: {bar}\n")


def main() -> None:
    """Print both tables."""
    compile_modules()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        many, single, commands = prepared(folder)
        small, large = image(folder / "small", "512M"), image(folder / "large", "64G")
        python = [sys.executable, "-c", PUT, "{}"]
        print(f"{FILES} files of {SIZE} bytes into an image of 512 MiB")
        rows = measured(
            [
                ("blockwright", small, [*python, str(many)]),
                ("start alone", None, [sys.executable, "-c", START]),
                ("debugfs -w -f", small, [tool("debugfs"), "-w", "-f", str(commands), "{}"]),
            ]
        )
        table(rows, "0.5x")
        print("one file")
        rows = measured(
            [
                ("into 64 GiB, sparse", large, [*python, str(single)]),
                ("into 512 MiB", small, [*python, str(single)]),
                ("start alone", None, [sys.executable, "-c", START]),
            ]
        )
        table(rows, "the start and 50 ms")


if __name__ == "__main__":
    main()
