"""A volume of layers as a block device: over our own export, in a process of its own, by the kernel's driver nbd."""

import os
import signal
import subprocess
import sys

import pytest

from blockwright.errors import InUse
from blockwright.system.linux import nbd
from blockwright.units import MiB
from blockwright.volume import State, create_pool, destroy_pool, open_pool
from tests.support import volumes
from tests.support.inprocess import blockwright, document
from tests.support.tools import run, tool
from tests.support.volumes import SIZE, assert_clean, content, contents, fill_with, pattern

ROOM = 16 * MiB


@pytest.fixture
def pool(tmp_path, monkeypatch):
    volumes.unsync(monkeypatch)
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    create_pool("p", "file", {"snapshots": "overlay"})
    with open_pool("p") as driver:
        yield driver
        assert_clean(driver)
        assert driver.reconcile().lines == []
    destroy_pool("p", force=True)
    assert list(nbd.states()) == []


def test_a_block_device_of_layers(pool):
    pool.create("a", SIZE, fill=fill_with(pattern(1)))
    assert pool.activate("a").path.startswith("/dev/loop")  # one file
    pool.deactivate("a")
    pool.snapshot("a", "b")
    active = pool.activate("b")
    assert active.path.startswith("/dev/nbd")
    assert (active.state, pool.activate("b"), pool.reconcile().lines) == (State.ACTIVE, active, [])
    with open(active.path, "r+b") as device:
        assert device.read() == pattern(1)
        device.seek(0)
        device.write(b"new")
    with open(active.path, "rb") as device, subprocess.Popen(["sleep", "60"], stdin=device) as other:
        device.close()
        try:
            with pytest.raises(InUse, match=r"/dev/nbd\d: is in use: process .*sleep"):
                pool.deactivate("b")
        finally:
            other.kill()
    assert pool.get("b") == active
    assert content(pool, "b")[:3] == b"new"  # what reads meanwhile reads the device
    pool.grow("b", 2 * SIZE)
    with open(active.path, "r+b") as device:
        assert device.seek(0, os.SEEK_END) == 2 * SIZE
        device.seek(2 * SIZE - 4096)
        device.write(b"e" * 4096)
    pool.deactivate("b")
    assert contents(pool) == {"a": pattern(1), "b": b"new" + pattern(1)[3:] + bytes(SIZE - 4096) + b"e" * 4096}
    read_only = pool.activate("b", read_only=True)
    assert nbd.state(nbd.number_of(read_only.path)).read_only
    with pytest.raises(PermissionError), open(read_only.path, "r+b", buffering=0) as device:
        device.write(b"x")
    pool.deactivate("b")


def test_it_is_mounted_and_has_snapshots_taken_meanwhile(pool, tmp_path):
    point, then = tmp_path / "at", tmp_path / "then"
    point.mkdir()
    then.mkdir()
    pool.create("a", ROOM)
    run([tool("mke2fs"), "-q", "-t", "ext4", pool.activate("a").path])
    pool.deactivate("a")
    pool.snapshot("a", "b")
    assert blockwright("volume", "mount", "b", point).stdout.decode().strip() == str(point)
    (point / "file").write_bytes(b"before")
    blockwright("volume", "snapshot", "b", "c")
    (point / "file").write_bytes(b"behind")
    with pytest.raises(InUse):
        pool.deactivate("b")
    pool.mount("c", str(then))
    assert (then / "file").read_bytes() == b"before"
    pool.down()
    assert list(nbd.states()) == []
    pool.up()
    assert (point / "file").read_bytes() == b"behind"
    assert document("volume", "show", "b")["state"] == "mounted"
    pool.down()


def test_who_exports_it_may_die(pool):
    pool.create("a", SIZE, fill=fill_with(pattern(1)))
    pool.snapshot("a", "b")
    pool.activate("b")
    [lease] = [each for each in pool.journal.leases() if each.name == f"export/{pool.get('b').id}"]
    os.kill(lease.owner.pid, signal.SIGTERM)  # which changes nothing while there is a device
    assert content(pool, "b") == pattern(1)
    os.kill(lease.owner.pid, signal.SIGKILL)
    while lease.owner.alive:
        pass
    with open_pool("p") as other:
        assert f"b is inactive, {SIZE} bytes" in other.reconcile().corrected
        assert content(other, "b") == pattern(1)
        assert other.activate("b").path.startswith("/dev/nbd")
        other.deactivate("b")


def test_without_the_driver_it_is_said_what_works(pool, monkeypatch):
    pool.create("a", SIZE)
    pool.snapshot("a", "b")
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["blockwright.system.linux.nbd.state"], "has_driver", lambda: False)
        said = blockwright("volume", "activate", "b", code=4).stderr.decode()
    assert "consists of layers" in said
    assert "'blockwright serve volume:p/b'" in said
    assert pool.get("b").state is State.INACTIVE
