"""Measure ``blockwright nbd copy`` beside nbdcopy and qemu-img: ``python bench/nbd_copy.py [CASE ...]``.

A sparse image of 4 GiB with 1 GiB of data in runs, from a server to a file and back, against nbdkit's file plugin and
qemu-nbd over a Unix socket. Whole processes; each run has a server and an output of its own, and what was written is
durable before the clock stops.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measure import Row, once

SIZE = 4 << 30
DATA = 1 << 30
OURS = [str(Path(sys.executable).parent / "blockwright"), "nbd", "copy", "--quiet", "--force"]
TOOLS = ("blockwright", "nbdcopy", "qemu-img")


def image(path: Path) -> Path:
    """The image to copy: runs of 1 to 16 MiB, which cover 1 GiB together, between holes."""
    if path.exists():
        return path
    chance = random.Random(5)
    content = chance.randbytes(16 << 20)
    lengths: list[int] = []
    while sum(lengths) < DATA:
        lengths.append(min(chance.choice((1, 4, 8, 16)) << 20, DATA - sum(lengths)))
    gap = (SIZE - DATA) // len(lengths) >> 16 << 16
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.truncate(SIZE)
        position = 0
        for length in lengths:
            os.pwrite(file.fileno(), content[:length], position)
            position += length + gap
        os.fsync(file.fileno())
    part.rename(path)
    return path


@contextmanager
def served(server: str, disk: Path, folder: Path) -> Iterator[str]:
    """Have a server serve the file; give its address."""
    path = folder / "server.sock"
    path.unlink(missing_ok=True)
    argv = {
        "nbdkit": ["nbdkit", "-f", "-U", str(path), "file", str(disk)],
        "qemu-nbd": ["qemu-nbd", "-t", "-e", "16", "-f", "raw", "--discard=unmap", "-k", str(path), str(disk)],
    }[server]
    process = subprocess.Popen(argv)
    try:
        for _ in range(3000):
            with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
                probe.connect(str(path))
                break
            time.sleep(0.01)
        yield f"nbd+unix:///?socket={path}"
    finally:
        process.terminate()
        process.wait()


def argv_for(tool: str, source: str, target: str, *, download: bool) -> list[str]:
    if tool == "blockwright":
        return [*OURS, source, target]
    if tool == "nbdcopy":
        return ["nbdcopy", "--flush", source, target]
    return ["qemu-img", "convert", "-f", "raw", "-O", "raw", *([] if download else ["-n"]), source, target]


def measure(server: str, *, download: bool, disk: Path, base: Path, rounds: int) -> dict[str, Row]:
    """Run all tools in turn, round by round."""
    rows = {tool: Row(tool) for tool in TOOLS}
    out = base / "out.img"
    for turn in range(rounds):
        for tool in TOOLS:
            out.unlink(missing_ok=True)
            if not download:
                with out.open("wb") as file:
                    file.truncate(SIZE)
            with served(server, disk if download else out, base) as uri:
                source, target = (uri, str(out)) if download else (str(disk), uri)
                synced = out if download else base / "nothing"
                seconds, memory = once(argv_for(tool, source, target, download=download), synced)
            rows[tool].seconds.append(seconds)
            rows[tool].memory.append(memory)
            if turn == 0:
                subprocess.run(["cmp", str(disk), str(out)], check=True)
    out.unlink(missing_ok=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    cases = [f"{server}-{way}" for server in ("nbdkit", "qemu-nbd") for way in ("download", "upload")]
    parser.add_argument("case", nargs="*", default=cases, help=" ".join(cases))
    parser.add_argument("--dir", default=os.environ.get("BENCH_DIR", tempfile.gettempdir() + "/blockwright-bench"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    base = Path(options.dir)
    base.mkdir(parents=True, exist_ok=True)
    disk = image(base / "sparse-4g.img")
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, in {base}")
    for case in options.case:
        server, _, way = case.rpartition("-")
        rows = measure(server, download=way == "download", disk=disk, base=base, rounds=options.rounds)
        print(f"\n{'from' if way == 'download' else 'to'} {server}: 4 GiB, of which 1 GiB is data")
        for row in rows.values():
            print("  " + row.text(rows["nbdcopy"].median), flush=True)


if __name__ == "__main__":
    main()
