"""What fails within an operation leaves the volume as it was, wherever that is."""

import errno
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from blockwright.errors import Corrupt, InUse, KernelError, NoSpace
from blockwright.volume import State, open_pool
from blockwright.volume.file import FileDriver, chain
from blockwright.volume.spec import PoolSpec
from tests.support.volumes import SIZE, assert_clean, contents, fill_with, make_pool, pattern, write


class Stop(BaseException):
    """What a signal raises."""


@pytest.fixture
def home(tmp_path, monkeypatch):
    make_pool("overlay", tmp_path, monkeypatch)
    with open_pool("p") as pool:
        pool.create("a", SIZE, fill=fill_with(pattern(1)))
        pool.snapshot("a", "b")
        write(pool, "a", 0, b"x" * 4096)
    return tmp_path


OPERATIONS = {
    "create": lambda pool: pool.create("new", SIZE, fill=fill_with(pattern(2))),
    "snapshot": lambda pool: pool.snapshot("a", "new"),
    "remove": lambda pool: pool.remove("b"),
}


@pytest.mark.parametrize("what", OPERATIONS)
def test_a_signal_anywhere_leaves_the_old_or_the_new(home, what):
    """Not least right behind the commit, when nothing may be taken back any more."""
    with open_pool("p") as pool:
        before = contents(pool)
    for stop_at in range(50):
        left = stop_at

        def checkpoint(name: str) -> None:
            nonlocal left
            if left == 0:
                left = -1
                raise Stop(name)
            left -= 1

        with open_pool("p", checkpoint=checkpoint) as pool:
            try:
                OPERATIONS[what](pool)
                stopped = None
            except Stop as error:
                stopped = str(error)
        with open_pool("p") as pool:
            lines = pool.reconcile().lines
            found = contents(pool)
            if stopped is not None and not stopped.endswith("recorded"):
                assert "new" not in found
                assert lines == [] or what == "remove"
            assert found.items() >= {"a": before["a"]}.items()
            assert found.keys() >= before.keys() or what == "remove"
            for name in ("new", "b"):
                if name in found:
                    pool.remove(name)
            pool.reconcile()
            assert_clean(pool)
            pool.snapshot("a", "b")
        if stopped is None:
            break
    assert stop_at > 2


def test_what_fails_in_a_step_is_undone_and_counted(home, monkeypatch):
    def full(*_: object) -> None:
        raise NoSpace("the disk is full")

    with open_pool("p") as pool:
        monkeypatch.setattr(chain, "make_overlay", full)
        with pytest.raises(NoSpace, match="full"):
            pool.snapshot("a", "new")
        assert [each.name for each in pool.list()] == ["a", "b"]
        assert ("snapshot", "NoSpace") in {(each.operation, each.outcome) for each in pool.journal.tallies()}
        write(pool, "a", 0, b"y" * 10)
        assert_clean(pool)


def test_a_file_that_is_missing_is_told_as_such(home):
    def fill(path: str, size: int) -> None:
        with open("/nowhere/at/all", "rb"):
            pass

    with open_pool("p") as pool:
        with pytest.raises(FileNotFoundError, match="/nowhere/at/all"):
            pool.create("new", SIZE, fill=fill)
        assert_clean(pool)


def test_what_cannot_be_undone_is_left_for_later_and_then_done(home, monkeypatch):
    def broken(*_: object) -> None:
        raise OSError(5, "input/output error")

    with open_pool("p") as pool:
        with monkeypatch.context() as patch:
            patch.setattr(chain, "make_overlay", broken)
            patch.setattr(chain, "discard", broken)
            with pytest.raises(OSError, match="input/output"):
                pool.snapshot("a", "new")
            with pytest.raises(InUse, match=r"snapshot of new is not done yet.*input/output error"):
                pool.grow("a", 2 * SIZE)
        assert pool.reconcile().undone == ["snapshot of new"]
        assert pool.grow("a", 2 * SIZE).size == 2 * SIZE
        assert_clean(pool)


def test_a_second_signal_leaves_it_for_later_to_this_process_too(home, monkeypatch):
    """Who has the package as a library may go on behind it."""

    def stop(*_: object) -> None:
        raise Stop

    with open_pool("p") as pool:
        with monkeypatch.context() as patch:
            patch.setattr(chain, "make_overlay", stop)
            patch.setattr(chain, "discard", stop)
            with pytest.raises(Stop):
                pool.snapshot("a", "new")
            with pytest.raises(Stop):
                pool.reconcile()
        assert pool.reconcile().undone == ["snapshot of new"]
        pool.snapshot("a", "new")
        assert_clean(pool)


def test_who_does_not_get_the_lock_back_takes_nothing_back(home, monkeypatch):
    """Somebody else has it then, and may be at anything."""

    @contextmanager
    def locked(_spec: object) -> Iterator[None]:
        raise KernelError("flock", "lock", errno.EAGAIN, "is held by another process")
        yield

    def fill(path: str, size: int) -> None:
        fill_with(pattern(2))(path, size)
        patch.setattr(PoolSpec, "locked", locked)

    with open_pool("p") as pool:
        with monkeypatch.context() as patch:
            with pytest.raises(KernelError, match="held by another"):
                pool.create("new", SIZE, fill=fill)
            assert [each.name for each in (home / "p-volumes").glob("new.*")] == ["new.3.4.raw.part"]
        assert pool.reconcile().undone == ["create of new"]
        assert_clean(pool)


def test_what_cannot_even_be_planned_keeps_nobody_from_the_others(home, monkeypatch):
    code = (
        "import os, signal; from blockwright.volume import open_pool\n"
        "def stop(name): os.kill(os.getpid(), signal.SIGKILL)\n"
        "open_pool('p', checkpoint=stop).grow('a', 1 << 24)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)

    def broken(*_: object) -> None:
        raise Corrupt("a record does not hold")

    with monkeypatch.context() as patch:
        patch.setattr(FileDriver, "_plan_grow", broken)
        with open_pool("p") as pool:
            pool.create("c", SIZE)
            with pytest.raises(InUse, match=r"grow of a is not done yet: a record does not hold"):
                pool.snapshot("a", "new")
    with open_pool("p") as pool:
        assert pool.reconcile().finished == ["grow of a"]
        assert_clean(pool)


def test_a_result_that_cannot_be_recorded_takes_all_back(home, monkeypatch):
    with open_pool("p") as pool:
        with monkeypatch.context() as patch:

            def put(_volume: object) -> None:
                raise sqlite3.OperationalError("disk I/O error")

            patch.setattr(pool._records, "put", put)
            with pytest.raises(Exception, match="disk I/O error"):
                pool.create("new", SIZE)
        assert [each.name for each in pool.list()] == ["a", "b"]
        assert_clean(pool)


def test_a_merge_that_fails_is_no_failure_and_made_up_for(home, monkeypatch):
    with open_pool("p") as pool:
        before = contents(pool)["a"]
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise NoSpace("the disk is full")

            patch.setattr(chain, "merge", full)
            pool.remove("b")
        assert contents(pool) == {"a": before}
        assert_clean(pool)
        assert len(pool.journal.rows("SELECT * FROM layer")) == 2
    with open_pool("p") as pool:
        pool.reconcile()
        assert len(pool.journal.rows("SELECT * FROM layer")) == 1
        assert contents(pool) == {"a": before}
        assert_clean(pool)


def test_who_finishes_a_dead_ones_growing_lets_the_holder_go_on(home):
    code = (
        "import os, signal, sys; from blockwright.volume import open_pool\n"
        "def stop(name):\n"
        "    if name == 'grow: still': os.kill(os.getpid(), signal.SIGKILL)\n"
        "open_pool('p', checkpoint=stop).grow('a', int(sys.argv[1]))"
    )
    with open_pool("p") as pool, pool.open("a", writable=True) as device:
        subprocess.run([sys.executable, "-c", code, str(2 * SIZE)], check=False)
        assert pool.reconcile().finished == ["grow of a"]
        device.write(0, b"still here")
        assert device.read(0, 10) == b"still here"
        assert device.refresh() == 2 * SIZE


def test_an_active_volume_of_layers_is_not_frozen(home):
    with open_pool("p") as pool:
        for read_only in (False, True):
            pool.activate("a", read_only=read_only)
            with pytest.raises(InUse, match="cannot change its layers"):
                pool.snapshot("a", "new")
            assert pool.deactivate("a").state is State.INACTIVE
        assert_clean(pool)
