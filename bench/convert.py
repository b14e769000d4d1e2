"""Conversions beside qemu-img, and a qcow2 image behind our NBD server beside qemu-nbd, round by round.

python bench/convert.py [CASE...]     cases: convert serve open
BLOCKWRIGHT_BENCH_GIB is the size of the disk (8), a quarter of which is data, half of that compressible.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from blockwright.device.file import FileDevice
from blockwright.format.qcow2.create import Options, create
from blockwright.units import GiB, KiB, MiB, TiB
from measure import Row, compile_modules, once
from nbd import Load, fio, serving

BASE = Path(os.environ.get("BLOCKWRIGHT_BENCH", Path(tempfile.gettempdir()) / "blockwright-bench"))
SIZE = int(os.environ.get("BLOCKWRIGHT_BENCH_GIB", "8")) * GiB
ROUNDS = int(os.environ.get("BLOCKWRIGHT_BENCH_ROUNDS", "5"))
OURS = [sys.executable, "-m", "blockwright"]
LOADS = [
    Load("4 KiB random read, depth 64", "randread", "4k", 64, bars={"qemu-nbd": 0.7}),
    Load("4 KiB random write, depth 64", "randwrite", "4k", 64, bars={"qemu-nbd": 0.7}),
    Load("4 KiB random read, depth 1", "randread", "4k", 1, bars={"qemu-nbd": 0.7}),
    Load("4 KiB random write, depth 1", "randwrite", "4k", 1, bars={"qemu-nbd": 0.7}),
]


def make_disk(path: Path) -> Path:
    """Make a sparse disk, a quarter of it data in runs of 1 MiB, each half noise and half text."""
    chance = random.Random(1)
    lines = b"".join(b"%d: so many lines of %d words\n" % (n, chance.randrange(10**9)) for n in range(30_000))
    text = lines[: MiB // 2]
    with open(path, "wb") as file:
        file.truncate(SIZE)
        for offset in range(0, SIZE, 4 * MiB):
            file.seek(offset)
            file.write(chance.randbytes(MiB // 2) + text)
    return path


def pairs(disk: Path) -> list[tuple[str, list[str], list[str], Path]]:
    """Return (what, qemu-img's command, ours, the output of both)."""
    image, out = BASE / "source.qcow2", BASE / "out"
    qemu = ["qemu-img", "convert", "-O"]
    ours = [*OURS, "convert", "--quiet", "--format"]
    subprocess.run([*qemu, "qcow2", disk, image], check=True)
    return [
        ("raw to qcow2", [*qemu, "qcow2", str(disk), str(out)], [*ours, "qcow2", str(disk), str(out)], out),
        ("qcow2 to raw", [*qemu, "raw", str(image), str(out)], [*ours, "raw", str(image), str(out)], out),
        (
            "raw to compressed qcow2",
            [*qemu, "qcow2", "-c", str(disk), str(out)],
            [*ours, "qcow2", "--compress", str(disk), str(out)],
            out,
        ),
        (
            "raw to streamOptimized VMDK",
            [*qemu, "vmdk", "-o", "subformat=streamOptimized", str(disk), str(out)],
            [*ours, "vmdk", "--vmdk-type", "streamOptimized", str(disk), str(out)],
            out,
        ),
        (
            "raw to VHD",
            [*qemu, "vpc", "-o", "force_size=on", str(disk), str(out)],
            [*ours, "vhd", str(disk), str(out)],
            out,
        ),
        ("raw to VHDX", [*qemu, "vhdx", str(disk), str(out)], [*ours, "vhdx", str(disk), str(out)], out),
        ("raw to VDI", [*qemu, "vdi", str(disk), str(out)], [*ours, "vdi", str(disk), str(out)], out),
    ]


def convert() -> None:
    disk = make_disk(BASE / "disk.raw")
    for what, theirs, ours, out in pairs(disk):
        rows = Row("qemu-img"), Row("blockwright")
        sizes = [0, 0]
        for _ in range(ROUNDS):
            for number, argv in enumerate((theirs, ours)):
                seconds, memory = once(argv, out)
                rows[number].seconds.append(seconds)
                rows[number].memory.append(memory)
                sizes[number] = out.stat().st_blocks * 512
        print(f"\n{what}, {SIZE // GiB} GiB (at most 1.00x wanted)")
        for row, size in zip(rows, sizes, strict=True):
            print(f"{row.text(rows[0].median)}  {size / MiB:8.1f} MiB on the disk")


def serve() -> None:
    disk = BASE / "disk.raw"
    if not disk.exists():
        make_disk(disk)
    image = BASE / "served.qcow2"
    for load in LOADS:
        found: dict[str, list[float]] = {"qemu-nbd": [], "blockwright": []}
        for _ in range(ROUNDS):
            for name, rates in found.items():
                subprocess.run(["qemu-img", "convert", "-O", "qcow2", disk, image], check=True)
                sock = BASE / "sock"
                argv = {
                    "qemu-nbd": ["qemu-nbd", "-f", "qcow2", "-k", str(sock), "-t", "-e", "4", str(image)],
                    "blockwright": [*OURS, "serve", str(image), "--socket", str(sock)],
                }[name]
                with serving(argv, sock):
                    fio(sock, load, seconds=1)
                    rates.append(fio(sock, load))
        base = statistics.median(found["qemu-nbd"])
        print(f"\n{load.name} (at least {load.bars['qemu-nbd']:.2f}x wanted)")
        for name, values in found.items():
            median = statistics.median(values)
            print(f"{name:<14} {median:10.0f} /s  ({min(values):.0f}-{max(values):.0f})  {median / base:5.2f}x")


def opening() -> None:
    """Open a qcow2 image of 1 TiB and read one block."""
    path = BASE / "large.qcow2"
    path.unlink(missing_ok=True)
    with FileDevice(path, create=True) as file:
        create(file, TiB, Options())
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 700G 64k", path], check=True, capture_output=True)
    from blockwright.resolve import open_device

    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with open_device(str(path)) as device:
            device.read(700 * GiB, 4 * KiB)
        seconds.append(time.perf_counter() - started)
    print(f"\nopen 1 TiB and read a block: {statistics.median(seconds) * 1000:.1f} ms (under 200 wanted)")


def main() -> None:
    BASE.mkdir(parents=True, exist_ok=True)
    compile_modules()
    for name in sys.argv[1:] or ["convert", "serve", "open"]:
        {"convert": convert, "serve": serve, "open": opening}[name]()


if __name__ == "__main__":
    main()
