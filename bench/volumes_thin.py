"""Measure the driver ``thin`` in User-Mode Linux: ``python bench/volumes_thin.py [PART...]``: ``one`` and ``many``.

``one``: a volume created and activated, beside the two dmsetup processes that containerd's snapshotter runs for that,
which keep no journal that is synced; and how long an active volume stands still for a snapshot. Both sides are in the
same guest, whose disks are in memory.

``many``: volumes created, and two snapshots of each, all of them activated, listed, deactivated and removed, in one
pool: what one operation takes must not grow with how many there are.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

# Only now are they to be found.
from blockwright.system.linux.dm import Mapper  # noqa: E402
from blockwright.units import GiB, MiB  # noqa: E402
from blockwright.volume import Driver, create_pool, destroy_pool, open_pool  # noqa: E402
from measure import Row, compile_modules  # noqa: E402
from tests.support.guest import run_guest  # noqa: E402
from tests.support.tools import tool  # noqa: E402

INSIDE = "BLOCKWRIGHT_BENCH_INSIDE"
COUNTS = (100, 300, 1000)
ROUNDS = 15
PARTS = ("one", "many")


@contextmanager
def pool(size: int) -> Iterator[Driver]:
    create_pool("bench", "thin", {"size": size})
    try:
        with open_pool("bench") as driver:
            yield driver
    finally:
        destroy_pool("bench", force=True)


def one() -> None:
    """Make and remove one volume, whose turn it is with dmsetup's; then snapshots of one that is written to."""
    dmsetup = tool("dmsetup")
    ours, theirs, start = Row("blockwright"), Row("dmsetup, twice"), Row("dmsetup, once")
    with pool(64 * GiB) as driver:
        driver.create("warm", GiB)
        for number in range(ROUNDS):
            ours.seconds.append(timed(lambda: (driver.create("v", GiB), driver.activate("v"))))
            driver.deactivate("v")
            driver.remove("v")
            identity = str(1_000_000 + number)
            table = f"0 {GiB // 512} thin /dev/mapper/bench+ {identity}"

            def containerd(identity: str = identity, table: str = table) -> None:
                call(dmsetup, "message", "/dev/mapper/bench+", "0", f"create_thin {identity}")
                call(dmsetup, "create", "theirs", "--table", table)

            theirs.seconds.append(timed(containerd))
            call(dmsetup, "remove", "theirs")
            call(dmsetup, "message", "/dev/mapper/bench+", "0", f"delete {identity}")
            start.seconds.append(timed(lambda: call(dmsetup, "version")))
        print(f"create and activate a volume, {ROUNDS} rounds; to reach: 0.2x")
        for row in (ours, theirs, start):
            show(row, theirs.median)
        stands_still(driver)


def stands_still(driver: Driver) -> None:
    """Write to an active volume, and measure from its suspension to its resumption in each snapshot of it."""
    path = driver.activate("warm").path
    assert path is not None
    times, whole = Row("suspended"), Row("the whole snapshot")
    suspend, resume = Mapper.suspend, Mapper.resume
    began = [0.0]

    def suspended(mapper: Mapper, name: str, **how: bool) -> None:
        began[0] = time.perf_counter()
        suspend(mapper, name, **how)

    def resumed(mapper: Mapper, name: str) -> None:
        resume(mapper, name)
        times.seconds.append(time.perf_counter() - began[0])

    Mapper.suspend, Mapper.resume = suspended, resumed  # type: ignore[method-assign]  # to have the time of it
    for number in range(ROUNDS):
        with open(path, "r+b", buffering=0) as file:
            file.seek(number * 8 * MiB)
            file.write(os.urandom(8 * MiB))
        name = f"s{number}"
        whole.seconds.append(timed(lambda name=name: driver.snapshot("warm", name)))  # type: ignore[misc]
    print(
        f"snapshot of an active volume, 8 MiB written before each and synced by it, {ROUNDS} rounds; to reach: 50 ms"
    )
    for row in (times, whole):
        show(row, None)


def many() -> None:
    for count in COUNTS:
        with pool(64 * GiB) as driver:
            names = [f"v{number}" for number in range(count)]
            spent = {
                "create": each(names, lambda name: driver.create(name, GiB)),
                "snapshot": each(names, lambda name: driver.snapshot(name, f"s{name}")),
                "activate": each(names, driver.activate),
                "of active": each(names, lambda name: driver.snapshot(name, f"a{name}")),
            }
            listed = timed(lambda: len(driver.list()))
            opened = timed(start)
            spent["deactivate"] = each(names, driver.deactivate)
            for prefix in ("", "s", "a"):
                spent[f"remove {prefix}"] = each([prefix + name for name in names], driver.remove)
            left = (len(driver.list()), len(driver.journal.intents()), driver.status().data_used)
        print(f"{count} volumes, {2 * count} snapshots; median ms an operation, and of the last tenth")
        for what, seconds in spent.items():
            last = statistics.median(seconds[-max(1, count // 10) :])
            print(
                f"  {what:<12} {statistics.median(seconds) * 1e3:8.2f} {last * 1e3:8.2f}  all {sum(seconds):7.2f} s"
            )
        print(f"  list {listed * 1e3:.1f} ms, open and reconcile {opened * 1e3:.1f} ms, left over: {left}")


def start() -> None:
    """Open the pool as the next process does, and compare everything."""
    with open_pool("bench") as driver:
        driver.reconcile()


def each(names: list[str], call: Callable[[str], object]) -> list[float]:
    return [timed(lambda name=name: call(name)) for name in names]  # type: ignore[misc]


def timed(job: Callable[[], object]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def call(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def show(row: Row, peer: float | None) -> None:
    span = f"{min(row.seconds) * 1000:.2f}-{max(row.seconds) * 1000:.2f}"
    ratio = "" if peer is None else f"  {row.median / peer:6.3f}x"
    print(f"  {row.name:<20} {row.median * 1000:8.2f} ms  ({span}){ratio}")


def main(parts: tuple[str, ...] = PARTS) -> None:
    if INSIDE in os.environ:
        print(f"\nUser-Mode Linux {os.uname().release}, Python {sys.version.split()[0]}")
        os.environ["BLOCKWRIGHT_HOME"] = tempfile.mkdtemp(prefix="bench-volumes.")
        for part in parts:
            {"one": one, "many": many}[part]()
        return
    compile_modules()
    with tempfile.TemporaryDirectory(prefix="bench-") as share:
        environment = {INSIDE: share, "PYTHONPATH": f"{ROOT}/src", "PYTHONDONTWRITEBYTECODE": "1"}
        script = f"{sys.executable} {Path(__file__).resolve()} {' '.join(parts)} > {share}/out 2>&1"
        status, console = run_guest(script, Path(share), environment=environment, memory=1024, timeout=580)
        print((Path(share) / "out").read_text().rstrip())
        if status:
            raise SystemExit(f"the guest's part failed with {status}\n{console[-2000:]}")


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or PARTS)
