"""Measure volumes of the file driver: ``python bench/volumes.py``.

A thousand volumes and a thousand snapshots are made, listed and removed in one pool, in four batches each: what one
operation takes must not grow with how many there are. Beside it what a script would do with qemu-img, one process for
each file, without a journal and without anything synced.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

# Only now are they to be found.
from blockwright.units import GiB  # noqa: E402
from blockwright.volume import create_pool, open_pool  # noqa: E402
from measure import compile_modules  # noqa: E402
from tests.support.tools import tool  # noqa: E402

COUNT = 1000
BATCHES = 4
PEER_COUNT = 20
START_ROUNDS = 9


def main() -> None:
    compile_modules()
    with tempfile.TemporaryDirectory(prefix="bench-volumes.", dir=os.environ.get("BENCH_DIR")) as folder:
        os.environ["BLOCKWRIGHT_HOME"] = folder
        measure()
        command()
        peer(Path(folder))


def measure() -> None:
    create_pool("bench", "file", {"snapshots": "overlay", "expose": "path"})
    with open_pool("bench") as pool:
        batches("create", lambda number: pool.create(f"v{number}", GiB))
        batches("snapshot", lambda number: pool.snapshot(f"v{number}", f"s{number}"))
        started = time.perf_counter()
        found = len(pool.list())
        print(f"{'list':<12} {(time.perf_counter() - started) * 1e3:8.1f} ms for {found}")
    with open_pool("bench") as pool:
        started = time.perf_counter()
        pool.reconcile()
        print(f"{'reconcile':<12} {(time.perf_counter() - started) * 1e3:8.1f} ms for {found}")
        batches("remove", lambda number: pool.remove(f"v{number}"))
        batches("remove last", lambda number: pool.remove(f"s{number}"))
        left = os.listdir(pool.spec.text("directory"))
        print(f"left over: {len(left)} files, {len(pool.list())} volumes, {len(pool.journal.intents())} intents")


def batches(name: str, call: Callable[[int], object]) -> None:
    """Print the median of one operation in each batch, in milliseconds."""
    medians = []
    for batch in range(BATCHES):
        times = []
        for number in range(batch * COUNT // BATCHES, (batch + 1) * COUNT // BATCHES):
            started = time.perf_counter()
            call(number)
            times.append(time.perf_counter() - started)
        medians.append(statistics.median(times) * 1e3)
    print(f"{name:<12} " + "  ".join(f"{each:8.2f} ms" for each in medians))


def command() -> None:
    with open_pool("bench") as pool:
        for number in range(100):
            pool.create(f"v{number}", GiB)
    times = [run([sys.executable, "-m", "blockwright", "volume", "ls"]) for _ in range(START_ROUNDS)]
    print(f"volume ls    {statistics.median(times) * 1e3:8.1f} ms ({min(times) * 1e3:.0f}-{max(times) * 1e3:.0f})")


def peer(folder: Path) -> None:
    qemu = tool("qemu-img")
    bases, overlays = [], []
    for number in range(PEER_COUNT):
        base, overlay = folder / f"b{number}.raw", folder / f"o{number}.qcow2"
        bases.append(run([qemu, "create", "-q", "-f", "raw", str(base), "1G"]))
        overlays.append(run([qemu, "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(overlay)]))
    for name, times in (("qemu-img raw", bases), ("over it", overlays)):
        print(f"{name:<12} {statistics.median(times) * 1e3:8.1f} ms")


def run(argv: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
