"""Volumes exported by a process of their own, for who is no root: written to, with snapshots, grown, let go."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from blockwright.errors import FormatError, InUse, NotFound, ReadOnly, Unavailable
from blockwright.journal import Journal
from blockwright.nbd.client.connect import connect
from blockwright.volume import State, create_pool, open_pool
from blockwright.volume.file import export, exposure
from tests.support import volumes
from tests.support.inprocess import blockwright
from tests.support.volumes import SIZE, assert_clean, content, contents, fill_with, pattern

pytestmark = pytest.mark.unprivileged


@pytest.fixture
def pool(tmp_path, monkeypatch):
    volumes.unsync(monkeypatch)
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    create_pool("p", "file", {"snapshots": "overlay", "expose": "nbd"})
    with open_pool("p") as driver:
        driver.create("a", SIZE, fill=fill_with(pattern(1)))
        driver.snapshot("a", "b")
        yield driver
        driver.down()
        assert_clean(driver)


def exporter(pool, name):
    found = export.lease_of(pool.journal, pool.get(name).id)
    return None if found is None else found.owner


@pytest.mark.slow
def test_an_export_is_written_to_while_a_snapshot_is_taken_and_it_grows(pool):
    active = pool.activate("b")
    assert active.path.startswith("nbd+unix:///b?socket=")
    assert (pool.activate("b"), pool.reconcile().lines) == (active, [])
    assert exporter(pool, "b").pid != os.getpid()
    with connect(active.path, writable=True) as device:
        assert device.read(0, SIZE) == pattern(1)
        device.write(0, b"before")
        pool.snapshot("b", "c")  # of what was not flushed, too
        device.write(0, b"behind", durable=True)
        with pytest.raises(InUse, match="is in use: a client is connected"):
            pool.deactivate("b")
        pool.grow("b", 2 * SIZE)
        with connect(active.path, writable=True) as another:
            another.write(2 * SIZE - 4, b"last", durable=True)
    assert content(pool, "b")[:6] == b"behind"
    with pytest.raises(InUse):
        pool.remove("b")
    pool.deactivate("b")
    assert exporter(pool, "b") is None
    after = b"behind" + pattern(1)[6:] + bytes(SIZE - 4) + b"last"
    assert contents(pool) == {"a": pattern(1), "b": after, "c": b"before" + pattern(1)[6:]}


_ENDS_SLOWLY = """
import signal, sys, time
from blockwright.journal import Journal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
journal = Journal(sys.argv[1])
lease = journal.take(sys.argv[2], {"path": "nbd+unix:///v?socket=s", "socket": ""})
print(flush=True)
signal.sigwait([signal.SIGTERM])
journal.give_back(lease)
time.sleep(1)
"""


def test_an_exporter_that_takes_its_time_to_end_has_no_client(tmp_path, monkeypatch):
    """Its lease is given back when nobody is connected, and what it has to write may take longer."""
    path, volume = str(tmp_path / "journal"), SimpleNamespace(id=7, name="v")
    words = [sys.executable, "-c", _ENDS_SLOWLY, path, export.lease_name(7)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process, contextlib.closing(Journal(path)) as journal:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"

        def clock():  # more passes than clients are waited for, as soon as there is none
            return 0.0 if export.lease_of(journal, 7) else export.CLIENTS_S + 1

        monkeypatch.setattr(export, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
        export.stop(journal, volume)
        assert process.wait(60) == 0
        assert export.lease_of(journal, 7) is None


@pytest.mark.slow
def test_read_only_and_as_it_was_again(pool):
    path = pool.activate("a", read_only=True).path
    with pytest.raises(ReadOnly):
        connect(path, writable=True)
    pool.down()
    with pytest.raises(NotFound):
        connect(path)
    pool.up()
    assert (pool.get("a").state, pool.get("a").read_only) == (State.ACTIVE, True)
    assert content(pool, "a") == pattern(1)


@pytest.mark.slow
def test_whoever_exports_it_may_die(pool):
    socket = pool.activate("b").path.partition("socket=")[2]
    owner = exporter(pool, "b")
    os.kill(owner.pid, signal.SIGKILL)
    while owner.alive:
        pass
    with open_pool("p") as other:
        assert other.reconcile().corrected == [f"b is inactive, {SIZE} bytes"]
        assert not os.path.exists(os.path.dirname(socket))
        other.activate("b")


@pytest.mark.slow
def test_what_cannot_be_opened_is_told_and_stays_inactive(pool):
    folder = pool.spec.text("directory")
    [mine] = [name for name in os.listdir(folder) if name.startswith("b.")]
    whole = (pool.get("b"), os.path.join(folder, mine))
    os.truncate(whole[1], 10)
    with pytest.raises(FormatError, match="qcow2"):
        pool.activate("b")
    assert pool.get("b") == whole[0]
    pool.remove("b")


def test_which_way_a_volume_is_seen(pool, monkeypatch):
    monkeypatch.setattr(exposure, "_has_loops", lambda: True)
    expected = {
        # wish, root and driver: as one file, as layers
        ("auto", False): ("path", "export"),
        ("auto", True): ("loop", "device"),
        ("any", False): ("path", "export"),
        ("any", True): ("loop", "device"),
        ("path", True): ("path", "path"),
        ("nbd", False): ("export", "export"),
        ("nbd", True): ("device", "device"),
    }
    for (wish, root), ways in expected.items():
        monkeypatch.setattr(os, "geteuid", lambda root=root: 0 if root else 1)
        monkeypatch.setattr(exposure, "has_driver", lambda root=root: root)
        assert (exposure.way_of("v.raw", wish), exposure.way_of("v.qcow2", wish)) == ways
    monkeypatch.setattr(exposure, "has_driver", lambda: False)
    assert [exposure.way_of("v.qcow2", wish) for wish in ("auto", "any")] == ["device", "export"]


def test_as_root_where_the_kernel_lacks_the_driver_it_is_said_what_works(tmp_path, pool, monkeypatch):
    monkeypatch.setattr(exposure, "way_of", lambda _path, _wish: "device")
    monkeypatch.setattr(sys.modules["blockwright.system.linux.nbd.state"], "has_driver", lambda: False)
    with pytest.raises(Unavailable, match="consists of layers"):
        pool.activate("b")
    said = blockwright("volume", "activate", "b", code=4).stderr.decode()
    assert "'blockwright serve volume:p/b'" in said
    assert pool.get("b").state is State.INACTIVE
