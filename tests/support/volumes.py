"""Pools for tests: each kind of driver that this machine can have, and what must hold of any of them."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from blockwright import journal
from blockwright.device import clone
from blockwright.units import MiB
from blockwright.volume import Driver, create_pool, open_pool
from tests.support.tools import run

SIZE = MiB
KINDS = ["overlay", "reflink", "reflink-xfs"]
"""Of the driver ``file``; ``thin`` is another, which needs a kernel of its own.

``reflink`` is a file system of which the test only says that it lets files share blocks."""


def unsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait for the disk: a killed process leaves what it wrote to the kernel."""
    monkeypatch.setattr(journal, "SYNCHRONOUS", "OFF")
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    monkeypatch.setattr(os, "fdatasync", lambda _fd: None)


def copied(source: int, target: int) -> None:
    """What FICLONE does, for those who look at the bytes only."""
    size, offset = os.fstat(source).st_size, 0
    os.ftruncate(target, 0)
    os.ftruncate(target, size)
    while offset < size:
        with suppress(OSError):
            offset = os.lseek(source, offset, os.SEEK_DATA)
            data = os.pread(source, MiB, offset)
            os.pwrite(target, data, offset)
            offset += len(data)
            continue
        return


@contextmanager
def xfs(folder: Path) -> Iterator[Path]:
    """A file system that really shares blocks; skips where it cannot be mounted."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root, to mount XFS")
    image, at = folder / "xfs.img", folder / "xfs"
    with open(image, "wb") as file:
        file.truncate(320 * MiB)
    run(["mkfs.xfs", "-q", "-m", "reflink=1", image])
    at.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, at], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount XFS here: {done.stderr.strip()}")
    try:
        yield at
    finally:
        run(["umount", at])


def make_pool(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "p", **options: object) -> str:
    """Make a pool whose state and volumes are below ``folder``, and have nothing wait for the disk.

    A thin pool is in a kernel whose disks are memory, and of a block device flushes are all that keeps an order.
    """
    if kind != "thin":
        unsync(monkeypatch)
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(folder / "home"))
    if kind == "reflink":
        monkeypatch.setattr(clone, "share_blocks", copied)
    if kind == "thin":
        create_pool(name, "thin", {"size": 64 * MiB, "directory": str(folder / f"{name}-volumes"), **options})
        return name
    snapshots = kind.partition("-")[0]
    create_pool(
        name, "file", {"snapshots": snapshots, "expose": "path", "directory": str(folder / f"{name}-volumes")}
    )
    return name


def pattern(seed: int, size: int = SIZE) -> bytes:
    """Content that no other seed has, sparse in part."""
    block = bytes((seed * 7 + number) & 0xFF for number in range(256)) * 16
    return (block + bytes(8192) + block[::-1]).ljust(size // 2, b"\0") + (block * 2).ljust(size // 2, b"\0")


def write(driver: Driver, name: str, offset: int, data: bytes) -> None:
    """Write to a volume as a process that opens it does."""
    with driver.open(name, writable=True) as device:
        device.write(offset, data)
        device.flush()


def content(driver: Driver, name: str) -> bytes:
    """All bytes of a volume."""
    with driver.open(name) as device:
        return device.read(0, device.size)


def contents(driver: Driver) -> dict[str, bytes]:
    """All bytes of every volume."""
    return {each.name: content(driver, each.name) for each in driver.list()}


def assert_clean(driver: Driver) -> None:
    """Hold a pool to it: nothing is begun, wrong, or left in folder or journal that is no volume's."""
    assert driver.journal.intents() == []
    assert driver.journal.leases() == [], driver.journal.leases()
    assert list(driver.check()) == []
    if driver.kind == "thin" and "directory" not in driver.spec.options:
        return
    folder = driver.spec.text("directory")
    if driver.kind == "thin":
        assert sorted(os.listdir(folder)) == ["data", "metadata"]
        return
    recorded = {row["file"] for row in driver.journal.rows("SELECT file FROM layer")}
    assert set(os.listdir(folder)) == recorded
    if not driver.list():
        assert recorded == set()


def assert_one_layer(driver: Driver) -> None:
    """Hold a pool to it: what one volume consists of is one file, where volumes are files."""
    if driver.kind == "file":
        assert len(os.listdir(driver.spec.text("directory"))) == 1


def pages(data: bytes) -> set[int]:
    """Which 4 KiB pages are not zeros."""
    return {number for number in range(len(data) // 4096) if any(data[number * 4096 : number * 4096 + 4096])}


def fill_with(data: bytes) -> Callable[[str, int], None]:
    """What fills a new volume with ``data``."""

    def fill(path: str, size: int) -> None:
        with open(path, "wb") as file:
            file.write(data)

    return fill


def reopened(name: str) -> Driver:
    """The pool as the next process sees it."""
    return open_pool(name)
