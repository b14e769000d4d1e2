"""NBD servers side by side: fio's nbd engine against one file over a Unix socket, server by server, round by round.

python bench/nbd.py [CASE...]     cases: rand4k-deep rand4k-one seq1m four directory memory
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trees import tree

BASE = Path(os.environ.get("BLOCKWRIGHT_BENCH", Path(tempfile.gettempdir()) / "blockwright-bench"))
SIZE_MIB = 512
SECONDS = 3
ROUNDS = 5
REQUEST = 0x25609513


@dataclass
class Load:
    """One fio run: what it does, the ratio to each peer that must be reached, and the one aimed at."""

    name: str
    rw: str
    block: str
    depth: int
    jobs: int = 1
    bars: dict[str, float] = field(default_factory=dict)


CASES = {
    "rand4k-deep": [
        Load("4 KiB random read, depth 64", "randread", "4k", 64, bars={"nbdkit": 1.0, "qemu-nbd": 1.5}),
        Load("4 KiB random write, depth 64", "randwrite", "4k", 64, bars={"nbdkit": 1.0, "qemu-nbd": 1.5}),
    ],
    "rand4k-one": [
        Load("4 KiB random read, depth 1", "randread", "4k", 1, bars={"nbdkit": 0.85}),
        Load("4 KiB random write, depth 1", "randwrite", "4k", 1, bars={"nbdkit": 0.85}),
    ],
    "seq1m": [
        Load("1 MiB read, depth 8", "read", "1M", 8, bars={"nbdkit": 1.2}),
        Load("1 MiB write, depth 8", "write", "1M", 8, bars={"nbdkit": 1.0}),
    ],
    "four": [
        Load("4 KiB random read, depth 64, 4 connections", "randread", "4k", 64, 4, bars={"nbdkit": 1.0}),
        Load("4 KiB random write, depth 64, 4 connections", "randwrite", "4k", 64, 4, bars={"nbdkit": 1.0}),
        Load("1 MiB read, depth 8, 4 connections", "read", "1M", 8, 4, bars={"nbdkit": 1.0}),
        Load("1 MiB write, depth 8, 4 connections", "write", "1M", 8, 4, bars={"nbdkit": 1.0}),
    ],
}


def command(name: str, sock: Path, image: Path) -> list[str]:
    """Return the command that serves ``image`` on ``sock`` in the foreground, with the server's defaults."""
    if name == "blockwright":
        program = [sys.executable, "-m", "blockwright", "serve", str(image), "--from", "raw"]
        return [*program, "--socket", str(sock), "--metrics", "localhost:0"]
    if name == "nbdkit":
        return ["nbdkit", "-f", "-U", str(sock), "file", str(image)]
    return ["qemu-nbd", "-f", "raw", "-k", str(sock), "-t", "-e", "16", str(image)]


@contextlib.contextmanager
def serving(argv: list[str], sock: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the context ends."""
    sock.unlink(missing_ok=True)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        wait_for(sock, process)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def wait_for(sock: Path, process: subprocess.Popen[bytes]) -> None:
    """Return when somebody listens on ``sock``."""
    for _ in range(2000):
        if process.poll() is not None:
            raise SystemExit(f"{process.args}: exit {process.returncode}")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(sock))
            return
        time.sleep(0.005)
    raise SystemExit(f"{process.args}: does not listen")


def fio(sock: Path, load: Load, seconds: int = SECONDS) -> float:
    """Return requests a second."""
    argv = [
        "fio",
        f"--name={load.rw}",
        "--ioengine=nbd",
        f"--uri=nbd+unix:///?socket={sock}",
        f"--rw={load.rw}",
        f"--bs={load.block}",
        f"--iodepth={load.depth}",
        f"--numjobs={load.jobs}",
        "--group_reporting",
        "--time_based",
        f"--runtime={seconds}",
        f"--size={SIZE_MIB}M",
        "--output-format=json",
    ]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    return float(job["read"]["iops"] + job["write"]["iops"])


def measure(load: Load, image: Path) -> None:
    """Print a line for each server: median, range, and our ratio to it."""
    names = ["blockwright", "nbdkit", "qemu-nbd"]
    names = [name for name in names if name == "blockwright" or shutil.which(name)]
    found: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            for name in names:  # one server at a time: none must idle on the others' cores
                sock = Path(folder) / f"{name}.sock"
                with serving(command(name, sock, image), sock):
                    fio(sock, load, seconds=1)  # what is started on demand is there, and the file is cached
                    found[name].append(fio(sock, load))
    print(f"\n{load.name}")
    ours = statistics.median(found["blockwright"])
    for name, values in found.items():
        median = statistics.median(values)
        line = f"  {name:<12} {median:10.0f}/s  ({min(values):.0f}-{max(values):.0f})"
        if name != "blockwright":
            bar = load.bars.get(name)
            verdict = "" if bar is None else f"  bar {bar:.2f}x: {'held' if ours / median >= bar else 'MISSED'}"
            line += f"  ours {ours / median:5.2f}x{verdict}"
        print(line, flush=True)


def memory(image: Path) -> None:
    """2,000 reads of 32 MiB that nobody takes: what the server's memory grows by."""
    print("\n2,000 unread reads of 32 MiB: resident memory")
    for name in ("blockwright", "nbdkit", "qemu-nbd"):
        if name != "blockwright" and not shutil.which(name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            sock = Path(folder) / "s"
            with serving(command(name, sock, image), sock) as process:
                before = resident(process.pid)
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(sock))
                    negotiate(client)
                    client.settimeout(0.5)
                    request = b"".join(
                        REQUEST.to_bytes(4, "big")
                        + bytes(4)
                        + number.to_bytes(8, "big")
                        + bytes(8)
                        + (32 << 20).to_bytes(4, "big")
                        for number in range(2000)
                    )
                    with contextlib.suppress(TimeoutError):
                        client.sendall(request)
                    time.sleep(3)
                    after = resident(process.pid)
        print(f"  {name:<12} {before >> 20:5d} MiB before, {after >> 20:5d} MiB then", flush=True)


def negotiate(client: socket.socket) -> None:
    """Enter transmission with structured replies on the default export."""
    exactly(client, 18)
    client.sendall((3).to_bytes(4, "big"))
    for option, data in ((8, b""), (7, bytes(4) + bytes(2))):
        client.sendall(b"IHAVEOPT" + option.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data)
        while True:
            head = exactly(client, 20)
            exactly(client, int.from_bytes(head[16:], "big"))
            if head[12:16] != (3).to_bytes(4, "big"):
                break


def exactly(client: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        data += client.recv(length - len(data))
    return data


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def directory() -> None:
    """From the start of the command to the first reply: a directory of 20,000 files as a disk."""
    source = tree(BASE, "small-files")
    seconds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            sock = Path(folder) / "s"
            started = time.perf_counter()
            argv = [sys.executable, "-m", "blockwright", "serve", str(source), "--socket", str(sock)]
            with serving(argv, sock), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(sock))
                negotiate(client)
                seconds.append(time.perf_counter() - started)
    print("\n20,000 files served as a disk, start to first reply")
    median = statistics.median(seconds)
    verdict = "held" if median < 2 else "MISSED"
    print(f"  blockwright  {median:.2f} s  ({min(seconds):.2f}-{max(seconds):.2f})  bar 2 s: {verdict}", flush=True)


def make_image(base: Path) -> Path:
    """Return a file of random bytes, made once."""
    base.mkdir(parents=True, exist_ok=True)
    image = base / "nbd.img"
    if not image.exists() or image.stat().st_size != SIZE_MIB << 20:
        with image.open("wb") as out:
            for _ in range(SIZE_MIB):
                out.write(os.urandom(1 << 20))
    return image


def main() -> None:
    """Run the cases that are named, or all."""
    image = make_image(BASE)
    for case in sys.argv[1:] or [*CASES, "directory", "memory"]:
        if case == "memory":
            memory(image)
        elif case == "directory":
            directory()
        else:
            for load in CASES[case]:
                measure(load, image)


if __name__ == "__main__":
    main()
