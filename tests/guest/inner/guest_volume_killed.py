"""Volumes activated, mounted and let go, killed between any two steps, by either driver: devices of a thin pool, and
layers, which a process of their own exports.

Whoever looks next finds what is recorded to be what there is, finishes what was begun, and no content is lost.
"""

import os

import pytest

from blockwright.system.linux import dm, loop, nbd
from blockwright.system.linux.mount import mounts
from blockwright.units import MiB
from blockwright.volume import State, create_pool, destroy_pool, open_pool
from tests.support import volumes
from tests.support.killed import fork
from tests.support.tools import run, tool
from tests.support.volumes import assert_clean, pattern, write

SIZE = 16 * MiB


@pytest.fixture(params=["thin", pytest.param("layers", marks=pytest.mark.soak)])
def point(request, tmp_path, monkeypatch):
    """Where `b` is mounted, a snapshot with a file system in a pool of either kind."""
    volumes.unsync(monkeypatch)
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    thin = request.param == "thin"
    create_pool("p", "thin" if thin else "file", {"size": 64 * MiB} if thin else {"snapshots": "overlay"})
    at = tmp_path / "at"
    at.mkdir()
    with open_pool("p") as pool:
        pool.create("a", SIZE)
        run([tool("mke2fs"), "-q", "-t", "ext2", pool.activate("a").path])
        pool.mount("a", str(at))
        (at / "file").write_bytes(pattern(1))
        pool.unmount("a")
        pool.deactivate("a")
        pool.snapshot("a", "b")
        write(pool, "b", SIZE - 4096, b"end of b")
    yield at
    with open_pool("p") as pool:
        pool.down()
        assert_clean(pool)
    destroy_pool("p", force=True)
    with dm.Mapper() as mapper:
        assert mapper.devices() == []
    assert list(nbd.states()) == []
    assert not any(str(tmp_path) in each.backing for each in loop.states())


ALL = (State.INACTIVE, State.ACTIVE, State.MOUNTED)
OPERATIONS = {
    # what is done, what was before, what it leads to
    "activate": (lambda pool, _at: pool.activate("b"), State.INACTIVE, State.ACTIVE),
    "activate read-only": (lambda pool, _at: pool.activate("b", read_only=True), State.INACTIVE, State.ACTIVE),
    "deactivate": (lambda pool, _at: pool.deactivate("b"), State.ACTIVE, State.INACTIVE),
    "mount": (lambda pool, at: pool.mount("b", str(at)), State.INACTIVE, State.MOUNTED),
    "unmount": (lambda pool, _at: pool.unmount("b"), State.MOUNTED, State.ACTIVE),
    "down": (lambda pool, _at: pool.down(), State.MOUNTED, State.INACTIVE),
    "up behind down": (lambda pool, _at: (pool.down(), pool.up()), State.MOUNTED, State.MOUNTED),
}


def killed_at(operation, at, step):
    """Do it in a process that ends there, as by `kill -9`; where that was, None if it came through."""
    read, end = os.pipe()
    pid = fork()
    if not pid:
        left = step

        def checkpoint(name):
            nonlocal left
            if left == 0:
                os.write(end, name.encode())
                os._exit(9)
            left -= 1

        try:
            with open_pool("p", checkpoint=checkpoint) as pool:
                operation(pool, at)
        except BaseException as error:  # noqa: BLE001 - told by the parent
            os.write(end, repr(error).encode())
            os._exit(99)
        os._exit(0)
    os.close(end)
    with os.fdopen(read) as file:
        place = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 9), f"failed with {place}"
    return place or None


def come_to(pool, at, state):
    if state is not State.MOUNTED:
        pool.unmount("b")
    if state is State.INACTIVE:
        pool.deactivate("b")
    elif state is State.ACTIVE:
        pool.activate("b")
    else:
        pool.mount("b", str(at))


def hold(pool, at, where):
    """What is recorded of `b` is what there is."""
    found = pool.get("b")
    assert (found.state is State.MOUNTED) == (str(at) in {each.point for each in mounts()}), where
    assert (found.path is not None) == (found.state is not State.INACTIVE), where
    assert found.path is None or os.path.exists(found.path), where
    assert pool.journal.intents() == [], where
    assert pool.get("a").state is State.INACTIVE
    if found.state is State.MOUNTED:
        assert (at / "file").read_bytes() == pattern(1), where
    with pool.open("b") as device:
        assert device.read(SIZE - 4096, 8) == b"end of b", where


@pytest.mark.ci
@pytest.mark.parametrize(
    "what",
    [pytest.param(each, marks=[pytest.mark.soak] if " " in each else []) for each in OPERATIONS],
)
def test_killed_between_any_two_steps(point, what):
    operation, before, after = OPERATIONS[what]
    places = []
    for step in range(40):
        with open_pool("p") as pool:
            come_to(pool, point, before)
        place = killed_at(operation, point, step)
        with open_pool("p") as pool:
            pool.reconcile()
            hold(pool, point, place)
            if place is None:
                assert pool.get("b").state is after
                break
            operation(pool, point)
            assert pool.get("b").state is after or what == "up behind down", place
            hold(pool, point, place)
            if what == "down":
                pool.up()
                assert pool.get("b").state is State.MOUNTED, place
            come_to(pool, point, State.INACTIVE)
        places.append(place)
    assert len(places) >= 3, places
