"""Runs through a real Temporal server, whose workers are killed, absent, of another host, or told to stop."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from blockwright.errors import Cancelled
from blockwright.pipeline import manage
from blockwright.pipeline.identity import identify
from blockwright.pipeline.images import Images
from blockwright.pipeline.request import Request
from blockwright.pipeline.runner import Outcome
from blockwright.pipeline.states import Event, State
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
    parsed,
    request,
    volumes,
)
from tests.support.temporal import HEARTBEAT_S, temporal_server, worker, worker_killed_at
from tests.support.volumes import assert_clean

__all__ = ["home"]
pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with temporal_server() as address:
        yield address


def ask(wanted: Request, address: str, host: str = "a") -> Outcome:
    from blockwright.pipeline.temporal.client import fetch_there
    from blockwright.pipeline.temporal.place import Place
    from blockwright.pipeline.temporal.server import Server

    return fetch_there(wanted, Place(Server(address), host, heartbeat_s=HEARTBEAT_S), lambda _run: None)


class Asking:
    """Asks in a thread of its own."""

    def __init__(self, wanted: Request, address: str, host: str = "a") -> None:
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._ask, args=(wanted, address, host))
        self.thread.start()

    def _ask(self, *arguments) -> None:
        try:
            self.outcome = ask(*arguments)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def result(self) -> Outcome:
        self.thread.join(100)
        assert not self.thread.is_alive()
        assert self.error is None, self.error
        assert self.outcome is not None
        return self.outcome


def hold(home, outcome: Outcome, host: str = "a") -> None:
    """What must be when a run is done: one volume with the image's files, and nothing else."""
    with open_pool(POOL) as driver:
        names = [each.name for each in driver.list() if each.origin is None]
        assert names == [outcome.run.volume]
        assert_clean(driver)
    assert content(f"volume:{POOL}/{outcome.run.volume}") == FILES
    assert left(home) == []
    assert {each.host for each in outcome.receipts} == {host}
    with Images() as images:
        assert images.runs.all() == []  # the history alone has it
        (found,) = images.list()
        assert (found.id, found.state, found.host) == (outcome.run.id, outcome.run.state.value, host)


def test_the_command_has_a_worker_make_it_and_then_finds_it_made(home, tmp_path, server):
    path = docker_archive(tmp_path)
    words = ("fetch-and-create", path, "--pool", POOL, "--scan", "off", "--temporal", server, "--on", "a")
    with worker(server, "a"):
        out, lines = command(*words)
        (found,) = parsed("image", "ls")["images"]
        assert out == f"volume:{POOL}/{found['volume']}\n"
        assert lines[0] == f"run: {found['id']}, on a"
        assert "did download, verify, scan, create" in lines[1]
        assert parsed(*words)["did"] == []
        again = ask(request(path, activate=True), server)
        assert list(again.fresh) == [Event.ACTIVATE]
        assert again.run.state is State.ACTIVE
        hold(home, again)
        with open_pool(POOL) as driver:
            driver.deactivate(f"{again.run.volume}-active")
            driver.remove(f"{again.run.volume}-active")
            driver.remove(again.run.volume)
        assert list(ask(request(path), server).fresh) == [Event.CREATE]


@pytest.mark.parametrize("where", ["create: filled", pytest.param("create: done", marks=pytest.mark.soak)])
def test_a_worker_is_killed_and_the_next_one_goes_on(home, tmp_path, server, where):
    asking = Asking(request(docker_archive(tmp_path)), server)
    with worker_killed_at(server, "a", where) as first:
        assert first.stdout.readline() == "met\n"
        assert first.wait(60) == -signal.SIGKILL
    with open_pool(POOL) as driver:
        made = [each.id for each in driver.list() if where == "create: done"]
    with worker(server, "a"):
        outcome = asking.result()
    assert made in ([], [outcome.receipt(Event.CREATE).outputs["number"]])
    assert bool(made) is (where == "create: done")
    assert outcome.receipt(Event.CREATE).attempt == 2
    assert outcome.receipt(Event.DOWNLOAD).attempt == 1
    hold(home, outcome)


@pytest.mark.soak
@pytest.mark.timeout(580)
def test_a_worker_is_killed_at_every_place(home, tmp_path, server):
    met: list[str] = []
    fetch(request(docker_archive(tmp_path), activate=True), met.append)
    with Images() as images:
        manage.remove(images, images.list()[0], snapshots=True)
    places = [each for each in dict.fromkeys(met) if not each.endswith((": begun", ": committed"))]
    assert len(places) > 10
    for number, where in enumerate(places):
        asking = Asking(request(docker_archive(tmp_path, f"{number}.tar"), activate=True), server)
        with worker_killed_at(server, "a", where) as first:
            assert first.stdout.readline() == "met\n", where
            assert first.wait(60) == -signal.SIGKILL
        with worker(server, "a"):
            outcome = asking.result()
        assert sum(each.attempt for each in outcome.receipts) == len(outcome.receipts) + 1, where
        hold(home, outcome)
        name = outcome.run.volume
        with open_pool(POOL) as driver:
            assert [each.name for each in driver.list()] == [name, f"{name}-active"], where
            driver.deactivate(f"{name}-active")
            driver.remove(f"{name}-active")
            driver.remove(name)
        with Images() as images:
            images.catalogue.remove(outcome.run.id)


def test_two_who_ask_at_once_are_one_run_and_a_worker_of_another_host_takes_no_step(home, tmp_path, server):
    wanted = request(docker_archive(tmp_path))
    with worker(server, "b"):
        asking = [Asking(wanted, server) for _ in range(2)]
        asking[0].thread.join(1)
        assert asking[0].thread.is_alive()
        assert volumes() == []
        with worker(server, "a"):
            first, second = (each.result() for each in asking)
    assert [each.digest for each in first.receipts] == [each.digest for each in second.receipts]
    hold(home, first)


def test_it_is_cancelled_where_it_is_and_begun_again(home, tmp_path, server):
    path = docker_archive(tmp_path)
    words = ("fetch-and-create", path, "--pool", POOL, "--scan", "off", "--temporal", server, "--on", "a")
    go_on = tmp_path / "go-on"
    with worker_killed_at(server, "a", "create: filling", f"until {go_on}") as slow:
        with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asked:
            assert slow.stdout.readline() == "met\n"
            asked.send_signal(signal.SIGINT)
            assert slow.stdout.readline() == "told\n"
            go_on.touch()
            _, told = asked.communicate(timeout=100)
        assert asked.returncode == 130
        assert told.splitlines()[-1] == "blockwright: interrupted"
    assert volumes() == []
    assert left(home) == []
    with Images() as images:
        (found,) = images.list()
        assert (found.state, found.failed) == ("cancelled", "create")
    with worker(server, "a"):
        outcome = ask(request(path), server)
    assert tuple(outcome.fresh) == (Event.CREATE,)
    hold(home, outcome)


@pytest.mark.soak
def test_others_who_wait_hear_of_it(home, tmp_path, server):
    from blockwright.pipeline.temporal.connect import connect
    from blockwright.pipeline.temporal.server import Server
    from blockwright.pipeline.temporal.words import workflow_of

    wanted, go_on = request(docker_archive(tmp_path)), tmp_path / "go-on"
    with worker_killed_at(server, "a", "create: filling", f"until {go_on}") as slow:
        asking = Asking(wanted, server)
        assert slow.stdout.readline() == "met\n"

        async def cancel() -> None:
            client = await connect(Server(server))
            await client.get_workflow_handle(workflow_of("a", wanted.run_of(identify(wanted)))).cancel()

        asyncio.run(cancel())
        assert slow.stdout.readline() == "told\n"
        go_on.touch()
        asking.thread.join(100)
    assert isinstance(asking.error, Cancelled), asking.error
    assert volumes() == []


def test_what_fails_for_good_is_told_and_not_tried_again(home, tmp_path, server):
    path = tmp_path / "broken.tar"
    path.write_bytes(b"\xff" * 4096)
    with worker(server, "a"):
        out, lines = command("fetch-and-create", str(path), "--pool", POOL, "--temporal", server, "--on", "a", code=1)
        assert out == ""
        assert len(lines) == 2
        (found,) = parsed("image", "ls")["images"]
    assert found["state"] == "failed"
    assert found["trouble"] in lines[1]
    assert volumes() == []


def test_no_server_is_one_line(home, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and listens to nobody
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for words in (
            ("worker", "--temporal", address, "--host", "a"),
            ("fetch-and-create", docker_archive(tmp_path), "--temporal", address, "--on", "a"),
        ):
            _, lines = command(*words, code=1)
            assert f"temporal: {address}" in lines[-1]


def test_words_that_do_not_go_together(home, tmp_path):
    path = docker_archive(tmp_path)
    for words in (
        ("fetch-and-create", path, "--temporal", "x:1"),
        ("fetch-and-create", path, "--temporal", "x:1", "--on", "a", "--thin"),
        ("fetch-and-create", path, "--temporal", "x:1", "--on", "../a"),
    ):
        assert len(command(*words, code=2)[1]) == 1


def test_nothing_else_imports_the_engine(home, tmp_path):
    for words in (
        ["image", "ls"],
        ["fetch-and-create", docker_archive(tmp_path), "--pool", POOL],
        ["worker", "--help"],
    ):
        code = (
            "import sys; from blockwright.cli.run import run; code = run(sys.argv[1:]);"
            "found = [each for each in sys.modules if each.startswith(('temporalio', 'psycopg'))];"
            "sys.exit(str(found) if found else code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *words], check=False, capture_output=True, text=True, env=os.environ
        )
        assert done.returncode == 0, done.stderr
