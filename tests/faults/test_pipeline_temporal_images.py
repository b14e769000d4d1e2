"""Images whose runs Temporal has: stopped, taken up again, activated and removed, from here and from elsewhere."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from blockwright.errors import Cancelled, InUse, PolicyViolated, UsageError
from blockwright.pipeline import manage
from blockwright.pipeline.context import Context
from blockwright.pipeline.identity import identify
from blockwright.pipeline.images import Images, image_of
from blockwright.pipeline.locks import exclusive
from blockwright.pipeline.records import Run
from blockwright.pipeline.states import Event, State
from blockwright.volume import open_pool
from tests.faults.test_pipeline_temporal import Asking, ask, hold, server
from tests.support.command import COMMAND
from tests.support.faketrivy import FakeTrivy, report, vulnerability
from tests.support.pipeline import (
    FILES,
    POOL,
    command,
    content,
    docker_archive,
    fetch,
    home,
    left,
    parsed,
    request,
    volumes,
)
from tests.support.temporal import worker, worker_killed_at

__all__ = ["home", "server"]
pytestmark = pytest.mark.ci


def name_of(wanted) -> str:
    return wanted.run_of(identify(wanted))


def there(server: str, host: str = "a") -> tuple[str, ...]:
    return ("--temporal", server, "--on", host)


def test_a_run_is_stopped_and_taken_up_again(home, tmp_path, server):
    wanted, go_on = request(docker_archive(tmp_path)), tmp_path / "go-on"
    name = name_of(wanted)
    with worker_killed_at(server, "a", "create: filling", f"until {go_on}") as slow:
        asking = Asking(wanted, server)
        assert slow.stdout.readline() == "met\n"
        assert "is being done on a" in command("image", "retry", name, *there(server), code=1)[1][-1]
        _, lines = command("image", "cancel", name, *there(server), "--wait", "1", code=1)
        assert "has not stopped in 1 seconds: a worker of a stops it" in lines[-1]
        assert slow.stdout.readline() == "told\n"
        go_on.touch()
        assert parsed("image", "cancel", name, *there(server))["state"] == "cancelled"
        asking.thread.join(100)
        assert isinstance(asking.error, Cancelled), asking.error
    assert volumes() == []
    assert left(home) == []
    with Images() as images:
        assert (images.find(name).state, images.find(name).failed) == ("cancelled", "create")
    for what in ("retry", "cancel"):
        assert "is one of Temporal's" in command("image", what, name, code=2)[1][-1]
    with worker(server, "a"):
        assert parsed("image", "retry", name, *there(server))["did"] == ["create"]
        hold(home, ask(wanted, server))
        with open_pool(POOL) as driver:
            driver.remove(driver.list()[0].name)
        assert parsed("image", "retry", name, *there(server))["did"] == ["create"]  # what is gone is no receipt's
        assert parsed("image", "retry", name, *there(server))["did"] == []
        assert parsed("image", "cancel", name, *there(server))["state"] == "ready"
    assert "no such run on b" in command("image", "retry", name, *there(server, "b"), code=5)[1][-1]
    assert "no such run on b" in command("image", "cancel", name, *there(server, "b"), code=5)[1][-1]


def test_a_run_that_failed_goes_on_behind_what_it_did(home, tmp_path, server):
    trivy = FakeTrivy(tmp_path / "program")
    trivy.says(report(vulnerability("CVE-2099-1")))
    options = {"program": str(trivy.program), "database": str(tmp_path)}
    wanted = request(docker_archive(tmp_path), scan="enforce", scanner="trivy", scanner_options=options)
    with worker(server, "a"):
        with pytest.raises(PolicyViolated, match="1 vulnerability"):
            ask(wanted, server)
        with Images() as images:
            assert (images.list()[0].state, images.list()[0].failed) == ("failed", "scan")
        assert parsed("image", "cancel", name_of(wanted), *there(server))["state"] == "failed"
        trivy.says(report())
        assert parsed("image", "retry", name_of(wanted), *there(server))["did"] == ["scan", "create"]
        hold(home, ask(wanted, server))


def test_who_is_away_has_not_stopped(home, tmp_path, server):
    wanted = request(docker_archive(tmp_path))
    name = name_of(wanted)
    with worker(server, "b"):  # decides what comes next
        asking = Asking(wanted, server)
        end = time.monotonic() + 100
        while True:
            words = [*COMMAND, "image", "cancel", name, *there(server), "--wait", "0.5"]
            done = subprocess.run(words, check=False, capture_output=True, text=True)
            if done.returncode != 5:  # it is known by now
                break
            assert time.monotonic() < end
        assert done.returncode == 1
        assert "has not stopped in 0.5 seconds: a worker of a stops it" in done.stderr
        with worker(server, "a"):
            asking.thread.join(100)
    assert isinstance(asking.error, Cancelled), asking.error


def test_an_image_of_another_machine_is_changed_there(home, tmp_path, server):
    """The client's home is another one, which knows nothing."""
    mine = {"BLOCKWRIGHT_HOME": str(tmp_path / "mine")}
    wanted = request(docker_archive(tmp_path))
    with worker(server, "a"):
        outcome = ask(wanted, server)
        volume = outcome.run.volume
        for name in (outcome.run.id, volume):
            out, lines = command("image", "activate", name, "--as", "vm1", *there(server), env=mine)
            assert lines == []
            assert Path(out.strip()).exists()
        with Images() as images:
            found = images.find(volume)
            assert (found.state, found.receipts[-1]["outputs"]["snapshot"]) == ("active", "vm1")
        _, lines = command("image", "rm", volume, *there(server), env=mine, code=1)
        assert "has snapshots, vm1 among them" in lines[-1]
        assert command("image", "deactivate", volume, *there(server), env=mine)[0] == "vm1\n"
        assert (
            "no such snapshot"
            in command("image", "deactivate", volume, "--as", "other", *there(server), env=mine, code=5)[1][-1]
        )
        command("image", "rm", "--snapshots", volume, *there(server), env=mine)
        assert volumes() == []
        assert "no such image" in command("image", "rm", volume, *there(server), env=mine, code=5)[1][-1]
        local = fetch(request(docker_archive(tmp_path, "local.tar")))
        command("image", "activate", local.run.id, *there(server), env=mine)
        with Images() as images:  # the embedded engine's go the same way, and stay its own
            assert images.runs.get(local.run.id).state is State.ACTIVE
    assert not (tmp_path / "mine/images").exists()


def test_on_its_own_host_it_is_an_image_like_any_other(home, tmp_path, server):
    path = docker_archive(tmp_path)
    wanted = request(path)
    with worker(server, "a"):
        name = ask(wanted, server).run.id
    out, _ = command("image", "activate", name)
    assert command("image", "activate", name)[0] == out
    assert parsed("image", "ls")["images"][0]["state"] == "active"
    with worker(server, "a"):  # who asks for it again takes nothing away
        again = ask(wanted, server)
        assert list(again.fresh) == []
        with Images() as images:
            found = images.find(name)
            assert (found.state, found.receipts[-1]["step"]) == ("active", "activate")
            assert found.receipts[-1]["before"] == again.receipts[-1].digest
    assert command("image", "deactivate", name)[0] == f"{again.run.volume}-active\n"
    assert parsed("image", "show", name)["receipts"][-1]["step"] == "create"
    command("image", "activate", name)
    with Images() as images, pytest.raises(InUse, match="has snapshots"):
        manage.remove(images, images.find(name))
    command("image", "rm", "--snapshots", name)
    assert volumes() == []
    assert parsed("image", "ls")["images"] == []
    assert fetch(wanted).run.state is State.READY  # it is nobody's, and may be of the other engine


def test_a_run_lives_in_one_engine(home, tmp_path, server):
    first, second = request(docker_archive(tmp_path)), request(docker_archive(tmp_path, "2.tar"))
    with open_pool(POOL) as driver:
        driver.remove(fetch(first).run.volume)
    with worker(server, "a"):
        with pytest.raises(UsageError, match="is of its host's own journal"):
            ask(first, server)
        assert volumes() == []  # no step was done
        ask(second, server)
        with pytest.raises(UsageError, match="is one of Temporal's"):
            fetch(second)
        with Images() as images:
            assert [each.id for each in images.runs.all()] == [name_of(first)]
            manage.remove(images, images.find(name_of(first)))
        assert ask(first, server).run.state is State.READY
    for wanted in (first, second):
        assert content(f"volume:{POOL}/{wanted.volume_of(name_of(wanted))}") == FILES


def test_what_a_step_works_on_is_not_swept(home, tmp_path, server):
    wanted, go_on = request(docker_archive(tmp_path)), tmp_path / "go-on"
    with Images() as images:
        images.home.make()
        object_ = Path(images.home.objects) / ("0" * 32)
        work = Path(images.home.work(name_of(wanted)))
    with worker_killed_at(server, "a", "create: filling", f"until {go_on}") as slow:
        asking = Asking(wanted, server)
        assert slow.stdout.readline() == "met\n"
        object_.write_bytes(b"half")
        work.mkdir(parents=True, exist_ok=True)
        assert parsed("image", "gc", "--blobs")["removed"] == []
        assert object_.exists()
        assert work.exists()
        with Images() as images, pytest.raises(InUse, match="a worker of Temporal is at it"):
            manage.remove(images, image_of_nothing(wanted))
        go_on.touch()
        asking.result()
    assert len(parsed("image", "gc")["removed"]) == 2
    assert not object_.exists()
    assert not work.exists()


def image_of_nothing(wanted):
    """The image as a catalogue would have it that heard of it already."""
    name = name_of(wanted)
    return image_of(Run(name, wanted, identify(wanted), wanted.volume_of(name), State.NEW), ())


def test_what_failed_there_is_swept_here(home, tmp_path, server):
    path = tmp_path / "broken.tar"
    path.write_bytes(b"\xff" * 4096)
    with worker(server, "a"):
        command("fetch-and-create", str(path), "--pool", POOL, *there(server), code=1)
    (line,) = parsed("image", "gc")["removed"]
    assert "failed" in line
    assert parsed("image", "ls")["images"] == []


def attempt_of(wanted) -> int:
    """The number of the last attempt at a run that has begun on this machine."""
    with Images() as images:
        (row,) = images.runs.journal.rows("SELECT fence FROM claim WHERE run = ?", name_of(wanted))
    return int(row["fence"])


def test_who_cancels_what_is_done_takes_nothing_from_the_catalogue(home, tmp_path, server):
    """All steps are done, and the catalogue is to hear of them: that is not stopped by who comes then."""
    wanted, go_on = request(docker_archive(tmp_path)), tmp_path / "go-on"
    name = name_of(wanted)
    with worker_killed_at(server, "a", "publish: begun", f"until {go_on}") as slow:
        asking = Asking(wanted, server)
        assert slow.stdout.readline() == "met\n"
        with Images() as images:
            path = images.home.lock(f"step.{name}")
        with exclusive(path, lambda: None):  # which it waits for where it would hear of a cancellation
            go_on.touch()
            _, lines = command("image", "cancel", name, *there(server), "--wait", "4", code=1)
            assert "has not stopped in 4 seconds" in lines[-1]
        asking.result()
        assert parsed("image", "cancel", name, *there(server))["state"] == "ready"
    hold(home, asking.result())


@pytest.mark.parametrize("where", ["create: filled", pytest.param("scan: done", marks=pytest.mark.soak)])
def test_a_worker_that_wakes_late_makes_nothing_twice(home, tmp_path, server, where):
    wanted = request(docker_archive(tmp_path), activate=True)
    with worker_killed_at(server, "a", where, "stop") as asleep:
        asking = Asking(wanted, server)
        assert asleep.stdout.readline() == "met\n"
        first = attempt_of(wanted)
        with worker(server, "a"):
            end = time.monotonic() + 100
            while attempt_of(wanted) == first:  # it is given up, and the next one waits for the lock
                assert time.monotonic() < end
                time.sleep(0.05)
            assert volumes() == []
            asleep.send_signal(signal.SIGCONT)
            outcome = asking.result()
    assert sum(each.attempt for each in outcome.receipts) > len(outcome.receipts)
    with open_pool(POOL) as driver:
        found = driver.get(outcome.run.volume)
    assert found.id == outcome.receipt(Event.CREATE).outputs["number"]
    with Images() as images:
        manage.deactivate(images, images.find(outcome.run.id))
        manage.activate(images, images.find(outcome.run.id), Context(images.home))
        manage.remove(images, images.find(outcome.run.id), snapshots=True)
    assert volumes() == []
    assert os.listdir(home / "images/locks") == []
