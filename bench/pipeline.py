"""Measure a container image on its way into a volume: ``python bench/pipeline.py``.

From a docker-archive of three layers, about 1.6 GiB unpacked, to a volume's file, nothing scanned; beside it skopeo
copy, umoci unpack and mke2fs -d, one behind the other. Then the same reference once more, ``image ls``, and ten
smaller images at once against one after another. ``SIZE`` is bytes of the large image.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from hashlib import file_digest, sha256
from io import BytesIO
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

# Only now are they to be found.
from blockwright.units import MiB, format_size  # noqa: E402
from measure import compile_modules, once  # noqa: E402
from tests.support.tools import tool  # noqa: E402

SIZE = int(os.environ.get("SIZE", 1600 * MiB))
SMALL = 48 * MiB
AT_ONCE = 10
ROUNDS = int(os.environ.get("ROUNDS", "3"))
COMMAND = [sys.executable, "-m", "blockwright"]


def main() -> None:
    compile_modules()
    with tempfile.TemporaryDirectory(prefix="bench-pipeline.", dir=os.environ.get("BENCH_DIR")) as text:
        folder = Path(text)
        os.environ["BLOCKWRIGHT_HOME"] = str(folder / "home")
        large(folder)
        several(folder)


def docker_archive(path: Path, size: int, seed: int) -> None:
    """Three layers; files of 1 KiB to 2 MiB, 32 KiB on average, of which a tenth is replaced by the next layer."""
    generator = random.Random(seed)
    block = generator.randbytes(4 * MiB)
    layers: list[Path] = []
    names: list[str] = []
    for number in range(3):
        layer = path.with_suffix(f".layer{number}")
        with tarfile.open(layer, "w") as tar:
            left = size // 3
            while left > 0:
                length = min(left, int(generator.expovariate(1 / 32768)) + 1024, 2 * MiB)
                new = not names or generator.random() > 0.1
                name = f"usr/d{len(names) // 100:04d}/f{len(names)}" if new else generator.choice(names)
                if new:
                    names.append(name)
                info = tarfile.TarInfo(name)
                info.size, info.mtime, info.mode = length, 1_700_000_000, 0o644
                start = generator.randrange(len(block) - length)
                tar.addfile(info, BytesIO(block[start : start + length]))
                left -= length
        layers.append(layer)
    digests = [digest_of(each) for each in layers]
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each}" for each in digests]},
        }
    ).encode()
    named = sha256(config).hexdigest()
    with tarfile.open(path, "w") as tar:
        for layer, digest in zip(layers, digests, strict=True):
            tar.add(layer, f"{digest}.tar")
            layer.unlink()
        document = [{"Config": f"{named}.json", "RepoTags": ["one:latest"], "Layers": [f"{d}.tar" for d in digests]}]
        for name, data in ((f"{named}.json", config), ("manifest.json", json.dumps(document).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))


def digest_of(path: Path) -> str:
    """In pieces: what this process once needed its children are counted with."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


class Peak:
    """The most bytes that files below some folders took while it was looked."""

    def __init__(self, *folders: Path) -> None:
        self.bytes = 0
        self._folders = folders
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.2):
            done = subprocess.run(
                ["du", "-sB1", *map(str, self._folders)], capture_output=True, text=True, check=False
            )
            self.bytes = max(self.bytes, sum(int(line.split()[0]) for line in done.stdout.splitlines()))


def large(folder: Path) -> None:
    archive = folder / "large.tar"
    docker_archive(archive, SIZE, 1)
    print(f"image of {format_size(SIZE)}, three plain layers, docker-archive")
    ours: list[float] = []
    memory = peak = 0
    for _ in range(ROUNDS):
        shutil.rmtree(folder / "home", ignore_errors=True)
        with Peak(folder / "home") as looked:
            seconds, used = once(fetch(archive), folder / "none")
        ours.append(seconds)
        memory, peak = max(memory, used), max(peak, looked.bytes)
    again = [once(fetch(archive), folder / "none")[0] for _ in range(9)]
    listed = [once([*COMMAND, "image", "ls"], folder / "none")[0] for _ in range(9)]
    show("fetch-and-create", ours, f"{memory >> 20} MiB of memory, {format_size(peak)} of disk at most")
    show("the same again", again)
    show("image ls", listed)
    shutil.rmtree(folder / "home", ignore_errors=True)
    peers(folder, archive, statistics.median(ours))
    archive.unlink()


def peers(folder: Path, archive: Path, ours: float) -> None:
    """skopeo copy + umoci unpack + mke2fs -d."""
    steps: dict[str, list[float]] = {"skopeo copy": [], "umoci unpack": [], "mke2fs -d": []}
    peak = 0
    for _ in range(ROUNDS):
        layout, bundle, image = folder / "layout", folder / "bundle", folder / "image.ext4"
        with Peak(layout, bundle, image) as looked:
            run = {
                "skopeo copy": [
                    str(tool("skopeo")),
                    "copy",
                    f"docker-archive:{archive}",
                    f"oci:{layout}:one",
                ],
                "umoci unpack": [str(tool("umoci")), "unpack", "--image", f"{layout}:one", str(bundle)],
                "mke2fs -d": [
                    *(str(tool("mke2fs")), "-q", "-t", "ext4", "-d", str(bundle / "rootfs"), str(image)),
                    str(SIZE * 5 // 4 // 1024),
                ],
            }
            for name, argv in run.items():
                steps[name].append(once(argv, image)[0])
        peak = max(peak, looked.bytes)
        image.unlink()
        shutil.rmtree(layout)
        shutil.rmtree(bundle)
    for name, seconds in steps.items():
        show(name, seconds)
    whole = sum(statistics.median(each) for each in steps.values())
    print(f"{'all three':<24} {whole:7.2f} s, {format_size(peak)} of disk at most: {ours / whole:.2f}x")


def several(folder: Path) -> None:
    """Ten images one after another, and at once."""
    archives = [folder / f"small{number}.tar" for number in range(AT_ONCE)]
    for number, each in enumerate(archives):
        docker_archive(each, SMALL, number + 10)
    times: dict[str, list[float]] = {"one after another": [], "at once": []}
    for _ in range(ROUNDS):
        for name, found in times.items():
            shutil.rmtree(folder / "home", ignore_errors=True)
            started = time.perf_counter()
            if name == "at once":
                running = [subprocess.Popen(fetch(each), stdout=-3, stderr=-3) for each in archives]
                assert not any(each.wait() for each in running)
            else:
                for each in archives:
                    subprocess.run(fetch(each), stdout=-3, stderr=-3, check=True)
            found.append(time.perf_counter() - started)
    print(f"{AT_ONCE} images of {format_size(SMALL)}")
    for name, seconds in times.items():
        show(name, seconds)


def fetch(archive: Path) -> list[str]:
    return [*COMMAND, "fetch-and-create", "--scan", "off", "--quiet", str(archive)]


def show(name: str, seconds: list[float], more: str = "") -> None:
    span = f"({min(seconds):.2f}-{max(seconds):.2f})"
    print(f"{name:<24} {statistics.median(seconds):7.2f} s  {span:<16} {more}", flush=True)


if __name__ == "__main__":
    main()
