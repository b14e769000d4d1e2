"""Measure devices of the kernel beside losetup, kpartx, dmsetup and nbd-client: ``python bench/attach.py``, as root.

The library in this process against the programs a script would call, and /dev/nbd0 over our server beside nbdkit.
Loop devices are measured in this machine's kernel, the others in User-Mode Linux, where starting a program costs more
than elsewhere; so the two tables are not to be compared with each other.

LOOP_CONFIGURE has the image's file system write the image out and flush its disk, whoever asks: an image on a disk
measures that disk as well. So images are attached from memory and from a disk, beside the system calls alone.
Records are in memory, as /run is where this package keeps them.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

# Only now are they to be found.
from blockwright.attach import nbd, partitions  # noqa: E402
from blockwright.attach.means import Means  # noqa: E402
from blockwright.device.file import FileDevice  # noqa: E402
from blockwright.system.linux import dm, loop  # noqa: E402
from blockwright.system.linux.loop import layout  # noqa: E402
from blockwright.table.gpt import names  # noqa: E402
from blockwright.table.gpt.edit import write  # noqa: E402
from blockwright.table.gpt.plan import Request, plan  # noqa: E402
from blockwright.units import KiB, MiB  # noqa: E402
from measure import Row  # noqa: E402
from tests.support import nbdpeers  # noqa: E402
from tests.support.guest import run_guest  # noqa: E402
from tests.support.serving import serving  # noqa: E402
from tests.support.tools import tool  # noqa: E402

ROUNDS = 15
BATCH = 10
INSIDE = "BLOCKWRIGHT_BENCH_INSIDE"
MEMORY = "/dev/shm"
"""A file system in memory; in the guest every one is."""

Job = Callable[[], None]


def call(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def measure(title: str, bar: float | None, contenders: Sequence[tuple[str, Job]]) -> None:
    """Run all in turn, a batch each, and print medians, ranges and the ratio of each to the last, which is the peer.

    A batch, after one run that does not count, since what takes a tenth of a millisecond is measured by what ran
    before it.
    """
    rows = [(Row(name), job) for name, job in contenders]
    for _ in range(ROUNDS):
        for row, job in rows:
            job()
            started = time.perf_counter()
            for _ in range(BATCH):
                job()
            row.seconds.append((time.perf_counter() - started) / BATCH)
    print(f"\n{title}, {ROUNDS} rounds of {BATCH}" + (f"; to reach: {bar}x" if bar is not None else ""))
    for row, _ in rows:
        span = f"{min(row.seconds) * 1000:.2f}-{max(row.seconds) * 1000:.2f}"
        ratio = row.median / rows[-1][0].median
        print(f"  {row.name:<32} {row.median * 1000:8.2f} ms  ({span})  {ratio:6.3f}x")


def disk(path: Path, count: int) -> Path:
    with open(path, "wb") as file:
        file.truncate(16 * MiB)
    table = plan([Request(names.TYPES["linux-generic"], MiB)] * count, seed=b"", size=16 * MiB)
    with FileDevice(path, writable=True) as device:
        write(device, table)
    return path


def loops(folder: Path, where: str) -> None:
    image = str(disk(folder / "loop.img", 4))
    losetup = tool("losetup")

    def ours() -> None:
        loop.attach(image).detach()

    def bare() -> None:
        """Ask the kernel for as much, and check and record nothing."""
        file, fd = os.open(image, os.O_RDWR), os.open(layout.CONTROL, os.O_RDWR)
        path = f"/dev/loop{fcntl.ioctl(fd, layout.CTL_GET_FREE)}"
        device = os.open(path, os.O_RDWR)
        fcntl.ioctl(device, layout.CONFIGURE, layout.Config(fd=file).pack())
        fcntl.ioctl(device, layout.CLR_FD)
        for each in (device, fd, file):
            os.close(each)

    def theirs() -> None:
        call(losetup, "--detach", call(losetup, "--find", "--show", image))

    contenders = [("blockwright", ours), ("the system calls alone", bare), ("losetup, twice", theirs)]
    measure(f"attach a file {where} to a loop device, and detach it", 0.1, contenders)


def mappings(folder: Path) -> None:
    kpartx, dmsetup = tool("kpartx"), tool("dmsetup")
    with loop.attach(disk(folder / "map.img", 4)) as device:

        def ours(means: Means | None = None) -> None:
            partitions.add(device.path, means=means)
            partitions.remove(device.path)

        def mapped() -> None:
            ours(Means.DEVICE_MAPPER)

        def theirs() -> None:
            call(kpartx, "-a", "-n", device.path)
            call(kpartx, "-d", "-n", device.path)

        contenders = [("blockwright", ours), ("blockwright, device-mapper", mapped), ("kpartx, twice", theirs)]
        measure("map four partitions, and remove them", 0.33, contenders)
        with dm.Mapper() as mapper:
            mapper.create("bench", [dm.Linear(MiB, device.path)])

            def replace() -> None:
                mapper.replace("bench", [dm.Linear(MiB, device.path, MiB)])

            def reload() -> None:
                call(dmsetup, "reload", "bench", "--table", f"0 2048 linear {device.path} 2048")
                call(dmsetup, "resume", "bench")

            measure("reload a table", 0.2, [("blockwright", replace), ("dmsetup reload, resume", reload)])
            mapper.remove("bench")


def exports(folder: Path) -> None:
    client = tool("nbd-client")
    image = folder / "nbd.img"
    image.write_bytes(os.urandom(32 * MiB))
    with (
        serving(image, "--socket", folder / "ours.sock") as ours,
        nbdpeers.nbdkit(folder, "file", image) as theirs,
        ExitStack() as stack,
    ):

        def attached() -> None:
            nbd.attach(theirs.uri(), "/dev/nbd1", connections=1).detach()

        def by_client() -> None:
            call(client, "-unix", str(theirs.path), "/dev/nbd1")
            call(client, "-d", "/dev/nbd1")

        measure(
            "attach an export of nbdkit, and detach it",
            None,
            [("blockwright", attached), ("nbd-client, twice", by_client)],
        )
        names = {"blockwright serve": ours.uri, "nbdkit": theirs.uri()}
        opened = {}
        for name, uri in names.items():
            path = stack.enter_context(nbd.attach(uri, connections=1)).path
            opened[name] = os.open(path, os.O_RDONLY | os.O_DIRECT)
            stack.callback(os.close, opened[name])
        for title, size, places in (
            ("read 32 MiB of /dev/nbd0, 1 MiB at once", MiB, range(0, 32 * MiB, MiB)),
            ("300 reads of 4 KiB anywhere in it", 4 * KiB, random.Random(1).sample(range(0, 32 * MiB, 4 * KiB), 300)),
        ):
            measure(title, None, [(name, reading(fd, size, places)) for name, fd in opened.items()])


def reading(fd: int, size: int, places: Sequence[int]) -> Job:
    buffer = mmap.mmap(-1, size)  # on a page, as O_DIRECT wants it

    def job() -> None:
        for place in places:
            if os.preadv(fd, [buffer], place) != size:
                raise SystemExit(f"fewer than {size} bytes at {place}")

    return job


def in_guest() -> None:
    """Run the rest of this program in User-Mode Linux, and print what it prints."""
    with tempfile.TemporaryDirectory(prefix="bench-") as share:
        environment = {INSIDE: share, "PYTHONPATH": f"{ROOT}/src", "PYTHONDONTWRITEBYTECODE": "1"}
        script = f"{sys.executable} {Path(__file__).resolve()} > {share}/out 2>&1"
        status, console = run_guest(script, Path(share), environment=environment, timeout=300)
        printed = (Path(share) / "out").read_text()
        print(printed.rstrip())
        if status:
            raise SystemExit(f"the guest's part failed with {status}\n{console[-2000:]}")


def main() -> None:
    if not os.access("/dev/loop-control", os.W_OK):
        print("attach: left out: needs root and loop devices")
        return
    inside = INSIDE in os.environ
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    memory = Path(tempfile.mkdtemp(prefix="bench-", dir=None if inside else MEMORY))
    os.environ["BLOCKWRIGHT_HOME"] = str(memory / "home")
    try:
        if inside:
            print(f"\nUser-Mode Linux {os.uname().release}")
            loops(memory, "in memory")
            mappings(memory)
            exports(memory)
            return
        print(f"Linux {os.uname().release}, Python {sys.version.split()[0]}, {os.cpu_count()} processors")
        loops(memory, "in memory")
        loops(folder, f"in {folder.parent}")
        in_guest()
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(memory)


if __name__ == "__main__":
    main()
