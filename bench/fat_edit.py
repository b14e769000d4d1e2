"""Measure changes to a FAT32 image beside mtools: ``python bench/fat_edit.py``.

Whole processes in turn, each on a fresh copy of one empty image of 1 GiB, synced before the clock stops.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

# Only now are they to be found.
from blockwright.units import GiB, KiB  # noqa: E402
from measure import Row, compile_modules  # noqa: E402
from tests.support.tools import tool  # noqa: E402

ROUNDS = 5
FILES = 1000
SIZE = 10 * KiB


def once(argv: Sequence[str | Path], blank: Path, image: Path) -> tuple[float, int]:
    """Run a command on a fresh copy and sync it; return (seconds, peak resident bytes)."""
    subprocess.run(["cp", "--sparse=always", blank, image], check=True)
    started = time.perf_counter()
    process = subprocess.Popen(argv, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{argv}: exit {process.returncode}")
    with image.open("rb") as file:
        os.fsync(file.fileno())
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def main() -> None:
    """Print a table."""
    compile_modules()
    ours = [sys.executable, "-m", "blockwright", "fs", "put"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blank, image, source = folder / "blank", folder / "image", folder / "source"
        with blank.open("wb") as file:
            file.truncate(GiB)
        subprocess.run([tool("mkfs.fat"), "-F", "32", blank], check=True, stdout=subprocess.DEVNULL)
        source.mkdir()
        for number in range(FILES):
            (source / f"file number {number:04}.bin").write_bytes(os.urandom(SIZE))
        first = source / "file number 0000.bin"
        for title, mine, peer in (
            (
                f"{FILES} files of {SIZE} bytes with long names into FAT32",
                [*ours, "-r", image, source, "/"],
                [tool("mcopy"), "-s", "-i", image, source, "::/"],
            ),
            ("one of them", [*ours, image, first, "/"], [tool("mcopy"), "-i", image, first, "::/"]),
        ):
            rows = {"blockwright": Row("blockwright"), "mcopy": Row("mcopy")}
            for _ in range(ROUNDS):
                for row, argv in zip(rows.values(), (mine, peer), strict=True):
                    seconds, memory = once(argv, blank, image)
                    row.seconds.append(seconds)
                    row.memory.append(memory)
            print(title)
            for row in rows.values():
                print("  " + row.text(rows["mcopy"].median))
            subprocess.run([tool("fsck.fat"), "-n", image], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(source)


if __name__ == "__main__":
    main()
