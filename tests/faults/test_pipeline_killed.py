"""A run killed at every place at which a process can die, and then asked for again.

Whatever the place, the next call ends with the image's volume, made once, and leaves nothing else; and whoever only
looks finds catalogue and journal of one mind.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from blockwright.pipeline import manage
from blockwright.pipeline.context import Context
from blockwright.pipeline.images import Images
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import Event, State
from blockwright.volume import open_pool
from tests.support.killed import fork
from tests.support.pipeline import FILES, POOL, content, docker_archive, fetch, home, left, packed, request
from tests.support.volumes import assert_clean

__all__ = ["home"]
ALL = 1 << 30


def run_and_kill(do: Callable[[Callable[[str], None]], object], at: int) -> list[str] | None:
    """Do it in a process that dies at its checkpoint number `at`; return those it met if it came to its end."""
    read, end = os.pipe()
    pid = fork()
    if not pid:
        met: list[str] = []

        def checkpoint(name: str) -> None:
            if len(met) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            met.append(name)

        try:
            do(checkpoint)
            os.write(end, "\n".join(met).encode())
        finally:
            os._exit(0)
    os.close(end)
    with open(read, "rb") as file:
        told = file.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert told, "it failed"
    return told.decode().split("\n")


def hold(home: Path, wanted: Request, where: str) -> None:
    """Ask for it once more, and look at all there is."""
    outcome = fetch(wanted)
    run = outcome.run
    assert run.state is (State.ACTIVE if wanted.activate else State.READY), where
    with open_pool(POOL) as driver:
        names = [each.name for each in driver.list()]
        assert names == [run.volume, f"{run.volume}-active"][: 1 + wanted.activate], where
        assert_clean(driver)
    assert content(f"volume:{POOL}/{run.volume}") == FILES, where
    assert left(home) == [], where
    with Images() as images:
        (found,) = images.list()
        assert (found.id, found.state) == (run.id, run.state.value), where
        assert images.runs.journal.leases() == []
        assert images.runs.untold() == []
        assert [each.step for each in images.receipts(images.find(run.id))] == [
            each.step for each in outcome.receipts
        ]
    assert fetch(wanted).fresh == (), where


class Place:
    """A home that can be put back as it was."""

    def __init__(self, home: Path) -> None:
        self.folders = [home, home.parent / "volumes"]
        for each in self.folders:
            shutil.copytree(each, f"{each}.saved", symlinks=True)

    def restore(self) -> None:
        for each in self.folders:
            shutil.rmtree(each)
            shutil.copytree(f"{each}.saved", each, symlinks=True)


def test_killed_anywhere_and_asked_for_again(home, tmp_path):
    wanted = request(docker_archive(tmp_path), activate=True)
    place = Place(home)
    met = run_and_kill(lambda checkpoint: fetch(wanted, checkpoint), ALL)
    assert met is not None
    for step in ("download", "verify", "scan", "create", "activate"):
        assert {f"{step}: begun", f"{step}: done", f"{step}: committed"} <= set(met)
    assert {"create: intended", "create: filled", "create: recorded"} <= set(met)
    hold(home, wanted, "not killed")
    for at, name in enumerate(met):
        place.restore()
        assert run_and_kill(lambda checkpoint: fetch(wanted, checkpoint), at) is None
        hold(home, wanted, f"killed at {name}")


@pytest.mark.soak
def test_whoever_comes_after_is_killed_too(home, tmp_path):
    wanted = request(docker_archive(tmp_path), activate=True)
    place = Place(home)
    met = run_and_kill(lambda checkpoint: fetch(wanted, checkpoint), ALL)
    assert met is not None
    for first in range(len(met)):
        for second in range(len(met)):
            place.restore()
            assert run_and_kill(lambda checkpoint: fetch(wanted, checkpoint), first) is None
            done = run_and_kill(lambda checkpoint: fetch(wanted, checkpoint), second) is not None
            hold(home, wanted, f"killed at {first} and {second}")
            if done:
                break


def test_what_passes_once_is_killed_while_it_is_written(home, tmp_path):
    wanted = request(packed(tmp_path))
    met = run_and_kill(lambda checkpoint: fetch(wanted, checkpoint), ALL)
    assert met is not None
    for name in ("create: filling", "create: filled", "create: fill"):
        with Images() as images:
            manage.remove(images, images.find(images.list()[0].id))
        assert run_and_kill(lambda checkpoint: fetch(wanted, checkpoint), met.index(name)) is None
        assert fetch(wanted).receipt(Event.CREATE) is not None
        assert left(home) == []


def test_a_removal_is_killed_before_the_catalogue_hears_of_it(home, tmp_path, monkeypatch):
    wanted = request(docker_archive(tmp_path), activate=True)
    fetch(wanted)

    def remove(checkpoint: Callable[[str], None]) -> None:
        monkeypatch.setattr(Images, "publish", lambda _self: checkpoint("publish"))
        images = Images()
        manage.remove(images, images.list()[0], snapshots=True)

    assert run_and_kill(remove, 1) is None
    with Images() as images:
        assert images.list() == []
        assert images.runs.all() == []
    with open_pool(POOL) as driver:
        assert driver.list() == []
    hold(home, wanted, "removed")


def test_a_run_that_was_killed_is_cancelled_and_swept(home, tmp_path):
    wanted = request(docker_archive(tmp_path))
    met = run_and_kill(lambda checkpoint: fetch(wanted, checkpoint), ALL)
    with Images() as images:
        manage.remove(images, images.list()[0])
    assert run_and_kill(lambda checkpoint: fetch(wanted, checkpoint), met.index("create: filled")) is None
    with Images() as images:
        assert manage.cancel(images, images.list()[0]) is State.CANCELLED
        assert images.list()[0].failed == "create"
        assert manage.sweep(images)
        assert images.list() == []
    with open_pool(POOL) as driver:
        driver.reconcile()
        assert driver.list() == []
        assert_clean(driver)


def test_the_oracle_can_fail(home, tmp_path):
    wanted = request(docker_archive(tmp_path))
    fetch(wanted)
    with open_pool(POOL) as driver:
        driver.create("more", 1 << 20)
    with pytest.raises(AssertionError):
        hold(home, wanted, "another volume")


def test_a_retry_of_what_was_killed_goes_on_behind_what_was_done(home, tmp_path):
    wanted = request(docker_archive(tmp_path))
    met = run_and_kill(lambda checkpoint: fetch(wanted, checkpoint), ALL)
    with Images() as images:
        manage.remove(images, images.list()[0])
    assert run_and_kill(lambda checkpoint: fetch(wanted, checkpoint), met.index("scan: committed")) is None
    with Images() as images:
        outcome = manage.retry(images, images.list()[0], Context(images.home))
    assert list(outcome.fresh) == [Event.CREATE]
