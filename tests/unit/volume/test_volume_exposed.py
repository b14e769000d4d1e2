"""Active volumes as loop devices, mounted, grown, and their snapshots taken meanwhile, as root."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockwright.errors import InUse, KernelError, UsageError
from blockwright.system.linux import loop
from blockwright.system.linux.mount import mounts
from blockwright.units import MiB
from blockwright.volume import State, create_pool, open_pool
from tests.support import volumes
from tests.support.inprocess import blockwright
from tests.support.loops import needs_loop, swept

pytestmark = [needs_loop, pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "hello").write_bytes(b"hello world")
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    create_pool("p", "file", {"snapshots": "overlay"})
    with swept(tmp_path):
        yield tmp_path


def test_a_loop_device_is_had_and_let_go(folder):
    with open_pool("p") as pool:
        pool.create("a", MiB, fill=volumes.fill_with(volumes.pattern(1)))
        active = pool.activate("a", read_only=True)
        assert active.path.startswith("/dev/loop")
        with open(active.path, "rb") as device:
            assert device.read() == volumes.pattern(1)
        assert pool.reconcile().lines == []
        pool.deactivate("a")
        assert list(loop.find(str(folder / "home/pools/p/volumes/a.1.1.raw"))) == []
        pool.activate("a")
        pool.grow("a", 2 * MiB)
        with open(pool.get("a").path, "rb") as device:
            assert device.seek(0, os.SEEK_END) == 2 * MiB
            with pytest.raises(InUse):
                pool.deactivate("a")
        assert pool.get("a").state is State.ACTIVE
        pool.deactivate("a")
        volumes.assert_clean(pool)


def test_what_others_did_to_the_device_is_found_out(folder):
    with open_pool("p") as pool:
        pool.create("a", MiB)
        loop.detach(pool.activate("a").path)
        assert pool.reconcile().corrected == [f"a is inactive, {MiB} bytes"]
        loop.attach(str(folder / "home/pools/p/volumes/a.1.1.raw"), read_only=True)
        assert pool.reconcile().corrected == [f"a is active, {MiB} bytes"]
        assert pool.get("a").read_only
        with pytest.raises(InUse):
            pool.remove("a")
        pool.deactivate("a")


def test_mounted_with_care_and_unmounted(folder, tree):
    point = folder / "at"
    point.mkdir()
    blockwright("volume", "create", "a", "--size", "16M", "--from", tree, "--quiet")
    told = blockwright("volume", "mount", "a", point).stdout.decode().strip()
    try:
        assert told == str(point)
        assert (point / "hello").read_bytes() == b"hello world"
        options = Path("/proc/self/mountinfo").read_text().split(str(point))[1].split()[0]
        assert {"nosuid", "nodev"} <= set(options.split(","))
        with open_pool("p") as pool:
            assert pool.get("a").state is State.MOUNTED
            assert pool.reconcile().lines == []
            with pytest.raises(InUse):
                pool.deactivate("a")
            with pytest.raises(InUse, match="cannot change its layers"):
                pool.snapshot("a", "b")
            with open(point / "held", "wb"), pytest.raises(KernelError, match="in use"):
                pool.unmount("a")
            pool.down()
            assert pool.get("a").state is State.INACTIVE
            pool.up()
            assert pool.get("a").state is State.MOUNTED
            assert (point / "held").exists()
    finally:
        blockwright("volume", "unmount", "a")
    assert str(point) not in {each.point for each in mounts()}
    blockwright("volume", "deactivate", "a")
    blockwright("volume", "rm", "a")


def test_what_has_no_file_system_is_not_mounted_and_stays_inactive(folder):
    point = folder / "at"
    point.mkdir()
    with open_pool("p") as pool:
        pool.create("a", MiB)
        with pytest.raises(KernelError, match="mount"):
            pool.mount("a", str(point))
        with pytest.raises(UsageError, match="directory"):
            pool.mount("a", str(folder / "none"))
        assert pool.get("a").state is State.INACTIVE
        volumes.assert_clean(pool)


def test_layers_are_no_loop_device(folder, monkeypatch):
    create_pool("q", "file", {"snapshots": "overlay", "expose": "loop"})
    with open_pool("q") as pool:
        pool.create("a", MiB)
        pool.snapshot("a", "b")
        with pytest.raises(UsageError, match="consists of layers"):
            pool.activate("b")
        assert pool.get("b").state is State.INACTIVE


def test_a_snapshot_of_a_mounted_file_system_has_what_was_written(tmp_path, tree, monkeypatch):
    with volumes.xfs(tmp_path) as xfs:
        monkeypatch.setenv("BLOCKWRIGHT_HOME", tempfile.mkdtemp(dir=xfs))
        create_pool("p", "file", {"snapshots": "reflink"})
        point = tmp_path / "at"
        point.mkdir()
        with swept(xfs):
            blockwright("volume", "create", "a", "--size", "16M", "--from", tree, "--quiet")
            blockwright("volume", "mount", "a", point)
            try:
                (point / "new").write_bytes(b"written just now")
                blockwright("volume", "snapshot", "a", "b")
                (point / "new").write_bytes(b"and later")
            finally:
                blockwright("volume", "unmount", "a")
                blockwright("volume", "deactivate", "a")
            blockwright("volume", "mount", "b", point)
            try:
                assert (point / "new").read_bytes() == b"written just now"
            finally:
                blockwright("volume", "unmount", "b")
                blockwright("volume", "deactivate", "b")
            with open_pool("p") as pool:
                volumes.assert_clean(pool)
