"""What is done to images that are there, by one and by several at once."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from blockwright.errors import Cancelled, IntegrityError, InUse, NotFound, UsageError
from blockwright.pipeline import manage
from blockwright.pipeline.catalogue import SqliteCatalogue
from blockwright.pipeline.context import Context
from blockwright.pipeline.home import Home
from blockwright.pipeline.images import Images
from blockwright.pipeline.states import STEPS, Event, State
from blockwright.volume import open_pool
from tests.support.command import COMMAND
from tests.support.pipeline import (
    FILES,
    POOL,
    command,
    content,
    docker_archive,
    fetch,
    home,
    left,
    packed,
    parsed,
    request,
    volumes,
)
from tests.support.together import run_together

__all__ = ["home"]
pytestmark = pytest.mark.unprivileged


@pytest.fixture
def ready(home, tmp_path):
    """The name of an image that is ready."""
    return fetch(request(docker_archive(tmp_path))).run


# -- several at once -------------------------------------------------------------------------------------------------


def test_two_processes_at_once_make_it_once(home, tmp_path):
    argv = [*COMMAND, "fetch-and-create", docker_archive(tmp_path), "--pool", POOL, "--scan", "off", "--json"]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    told = [json.loads(each.communicate()[0]) for each in running]
    assert [each.returncode for each in running] == [0] * 3
    assert sorted(len(each["did"]) for each in told) == [0, 0, len(STEPS)]
    assert len({each["path"] for each in told}) == 1
    assert len({json.dumps(each["receipts"]) for each in told}) == 1
    assert len(volumes()) == 1


def test_ten_images_at_once(home, tmp_path):
    references = [docker_archive(tmp_path, f"{number}.tar") for number in range(10)]
    run_together([lambda each=each: fetch(request(each)) for each in references])
    with Images() as images:
        found = images.list()
    assert [each.state for each in found] == ["ready"] * 10
    assert sorted(each.volume for each in found) == sorted(volumes())
    assert content(found[3].address) == FILES
    assert left(home) == []


def test_whoever_comes_second_waits(home, tmp_path):
    wanted = request(docker_archive(tmp_path))
    begun, go_on, done = threading.Event(), threading.Event(), []

    def slow(name: str) -> None:
        if name == "create: filling":
            begun.set()
            assert go_on.wait(60)

    def second() -> None:
        assert begun.wait(60)
        done.append(fetch(wanted))

    first, other = threading.Thread(target=fetch, args=(wanted, slow)), threading.Thread(target=second)
    first.start()
    other.start()
    assert begun.wait(60)
    other.join(0.3)
    assert not done
    go_on.set()
    first.join(60)
    other.join(60)
    assert done[0].fresh == ()


def test_who_lost_its_lease_commits_nothing(home, tmp_path):
    """As after a sleep in which another process took the run over: the fencing token is another."""
    wanted = request(docker_archive(tmp_path))

    def stolen(name: str) -> None:
        if name == "verify: done":
            with Images() as images, images.runs.journal.transaction() as db:
                db.execute("UPDATE lease SET token = token + 1 WHERE name LIKE 'run/%'")

    with pytest.raises(InUse, match="was taken by another process"):
        fetch(wanted, stolen)
    with Images() as images:
        (run,) = images.runs.all()
        assert [each.step for each in images.runs.receipts(run.id)] == [Event.DOWNLOAD]
        with images.runs.journal.transaction() as db:  # the thief is gone
            db.execute("UPDATE lease SET owner = NULL")
    assert list(fetch(wanted).fresh) == [Event.VERIFY, Event.SCAN, Event.CREATE]


# -- snapshots -------------------------------------------------------------------------------------------------------


def test_snapshots_come_and_go(home, ready):
    with Images() as images:
        found, context = images.find(ready.id), Context(images.home)
        first = manage.activate(images, found, context)
        again = manage.activate(images, found, Context(images.home))
        assert first.receipts[-1] == again.receipts[-1]
        assert again.fresh == ()
        manage.activate(images, found, Context(images.home), "vm2")
        assert images.find(ready.id).state == "active"
        assert manage.deactivate(images, found, "vm2") == ["vm2"]
        assert images.find(ready.id).state == "active"
        assert manage.deactivate(images, found) == [f"{ready.volume}-active"]
        assert images.find(ready.id).state == "ready"
        with pytest.raises(NotFound):
            manage.deactivate(images, found, "vm3")
        with pytest.raises(InUse, match="has snapshots"):
            manage.remove(images, found)
        assert sorted(manage.remove(images, found, snapshots=True)) == sorted(
            [ready.volume, f"{ready.volume}-active", "vm2"]
        )
        assert images.list() == []
    assert volumes() == []
    assert left(home) == []


def test_a_name_that_another_volume_has_is_not_taken_for_a_snapshot(home, tmp_path, ready):
    other = fetch(request(docker_archive(tmp_path, "other.tar"), activate=True, activation="taken")).run
    out, lines = command(
        "fetch-and-create", ready.request.reference, "--pool", POOL, "--scan", "off", "--as", "taken", code=2
    )
    assert out == ""
    assert "is no snapshot of" in lines[-1]
    assert f"'blockwright image activate {ready.id}'" in lines[-2]
    with Images() as images:
        assert images.find(ready.id).state == "ready"
        assert images.find(other.id).state == "active"
        for name in ("../x", "a/b", ""):
            with pytest.raises(UsageError):
                manage.activate(images, images.find(ready.id), Context(images.home), name)
    with pytest.raises(UsageError):
        fetch(replace(ready.request, pool="../p"))


def test_an_image_that_another_process_removes_does_not_come_back(home, ready, monkeypatch):
    """Between what one process read in the journal and what it puts into the catalogue."""
    put = SqliteCatalogue.put

    def late(catalogue, image):
        monkeypatch.setattr(SqliteCatalogue, "put", put)
        with Images() as others:
            manage.remove(others, others.find(ready.id))
        put(catalogue, image)

    with Images() as images:
        images.runs.untell()
        monkeypatch.setattr(SqliteCatalogue, "put", late)
        images.publish()
        assert images.list() == []


def test_an_image_that_is_not_ready_is_not_activated(home, tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    command("fetch-and-create", str(tmp_path / "bad.tar"), "--pool", POOL, code=1)
    with Images() as images, pytest.raises(UsageError, match="found it failed"):
        manage.activate(images, images.list()[0], Context(images.home))


def test_a_volume_that_was_written_to_is_told_by_reading(home, tmp_path, ready):
    with open_pool(POOL) as driver, driver.open(ready.volume, writable=True) as device:
        device.write(4096 * 100, b"other")
    assert fetch(ready.request).fresh == ()
    with Images() as images, pytest.raises(IntegrityError, match="expected sha256:"):
        images.fetch(ready.request, Context(images.home, verify=True))


# -- ends ------------------------------------------------------------------------------------------------------------


def test_a_run_is_cancelled_while_it_works(home, tmp_path, monkeypatch):
    monkeypatch.setattr("blockwright.pipeline.runner._LOOK_S", 0.0)
    wanted = request(packed(tmp_path))
    begun, told = threading.Event(), threading.Event()

    def slow(name: str) -> None:
        if name == "create: filling":
            begun.set()
            assert told.wait(60)

    def cancel() -> None:
        assert begun.wait(60)
        with Images() as images:
            (found,) = images.list()
            images.runs.cancel(found.id)
            told.set()
            assert manage.cancel(images, found) is State.CANCELLED

    def work() -> None:
        with pytest.raises(Cancelled, match="was cancelled"):
            fetch(wanted, slow)

    run_together([work, cancel])
    assert volumes() == []
    assert left(home) == []
    with Images() as images:
        (found,) = images.list()
        assert (found.state, found.failed) == ("cancelled", "create")
        assert list(manage.retry(images, found, Context(images.home)).fresh) == [Event.CREATE]


def test_the_sweep_takes_what_failed_and_leaves_what_is_ready(home, tmp_path, ready):
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    command("fetch-and-create", str(tmp_path / "bad.tar"), "--pool", POOL, code=1)
    (home / "images/objects/stray.part").write_bytes(b"x")
    (home / "images/work/dead").mkdir()
    with Images() as images:
        lines = manage.sweep(images, dry_run=True)
        assert len(lines) == 3
        assert len(images.list()) == 2
        assert manage.sweep(images) == lines
        assert manage.sweep(images) == []
        assert [each.id for each in images.list()] == [ready.id]
    assert volumes() == [ready.volume]


def test_a_failure_is_told_with_what_to_do(home, tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    out, lines = command("fetch-and-create", str(tmp_path / "bad.tar"), "--pool", POOL, code=1)
    assert out == ""
    with Images() as images:
        (found,) = images.list()
    assert [line.partition(":")[0] for line in lines] == ["run", "device-mapper", "status", "blockwright"]
    assert f"'blockwright image retry {found.id}'" in lines[2]
    command("image", "retry", found.id, code=1)
    docker_archive(tmp_path, "bad.tar")
    assert "is not what it was" in command("image", "retry", found.id, code=1)[1][-1]
    command("image", "rm", found.id)
    assert parsed("image", "ls")["images"] == []


def test_names_of_images(home, tmp_path, ready):
    with Images() as images:
        for name in (ready.id, ready.id[:5], ready.volume, f"volume:{POOL}/{ready.volume}", ready.request.reference):
            assert images.find(name).id == ready.id
        with pytest.raises(NotFound):
            images.find(ready.id[:3])
        os.replace(docker_archive(tmp_path, "new.tar"), ready.request.reference)
        images.fetch(ready.request, Context(images.home))
        with pytest.raises(UsageError, match="found 2"):
            images.find(ready.request.reference)


# -- the catalogue ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["gone", "garbage", "older"])
def test_a_catalogue_is_made_anew_from_receipts(home, ready, damage):
    with Images() as images:
        before = images.catalogue.get(ready.id)
        assert len(before.receipts) == len(STEPS)
        if damage == "older":
            images.catalogue.replace([])
            assert images.rebuild() == 1
            assert images.catalogue.get(ready.id) == before
            return
    for each in (home / "images").glob("catalogue.db*"):
        each.unlink()
    if damage == "garbage":
        (home / "images/catalogue.db").write_bytes(b"no database at all" * 500)
    with Images() as images:
        assert images.catalogue.get(ready.id) == before
        assert [each.id for each in images.list()] == [ready.id]


def test_listing_imports_no_engine(home, ready):
    code = (
        "import sys; from blockwright.cli.run import run; run(['image', 'ls']);"
        "print(sorted(each for each in sys.modules if each.startswith('blockwright.') or '.' not in each))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ready.id in done.stdout
    for name in ("runner", "steps", "filling", "tracing", "context"):
        assert f"'blockwright.pipeline.{name}" not in done.stdout
    for name in (
        "'blockwright.volume",
        "'blockwright.fs",
        "'blockwright.source'",
        "'blockwright.build",
        "'temporalio",
    ):
        assert name not in done.stdout
    for name in ("opentelemetry", "temporalio", "psycopg", "obstore", "urllib3", "asyncio"):
        assert f"'{name}'" not in done.stdout


def test_a_second_run_starts_no_driver(home, ready):
    code = (
        "import sys; from blockwright.cli.run import run;"
        f"run(['fetch-and-create', {ready.request.reference!r}, '--pool', {POOL!r}, '--scan', 'off', '--quiet']);"
        "print(sorted(each for each in sys.modules if each.startswith('blockwright.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "did nothing" in done.stderr
    for name in ("volume.file", "volume.thin", "fs.", "build.", "source.layered", "oci.manifest"):
        assert f"'blockwright.{name}" not in done.stdout


def test_several_begin_where_there_was_nothing(home, tmp_path):
    """SQLite refuses some of those that make a database at once, without waiting."""
    for number in range(30):
        fresh = Home(str(tmp_path / str(number)))
        run_together([lambda fresh=fresh: Images(fresh).close()] * 6)


def test_a_lock_that_was_waited_for_is_the_one_that_others_have(tmp_path):
    """Its file is removed by whoever has it: who waited must not take the removed one for it."""
    from blockwright.pipeline.locks import exclusive

    inside, most = [], []

    def work() -> None:
        for _ in range(20):
            with exclusive(str(tmp_path / "lock"), lambda: None):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()

    run_together([work] * 4)
    assert max(most) == 1
    assert os.listdir(tmp_path) == []
