"""Operations on volumes, killed between any two steps, and what comes after them killed likewise.

Whoever looks next must find every volume that was there, with its content; of what the operation was about the old or
the new, whole; and nothing else.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blockwright.build.definition import Definition, Table
from blockwright.build.run import build
from blockwright.errors import Damaged
from blockwright.source import open_source
from blockwright.units import MiB
from blockwright.volume import Driver, State, destroy_pool, open_pool
from tests.support import volumes
from tests.support.killed import STEPS, fork, killed_at_every_step
from tests.support.volumes import SIZE, assert_clean, contents, fill_with, pattern, write

Operation = Callable[[Driver], object]


def _prepare(driver: Driver) -> None:
    """A volume with two generations of snapshots, one of them grown, and one that is alone."""
    driver.create("a", SIZE, fill=fill_with(pattern(1)))
    driver.snapshot("a", "b")
    write(driver, "a", 0, b"a" * 5000)
    driver.snapshot("a", "c")
    write(driver, "c", 4096, b"c" * 5000)
    driver.grow("c", 2 * SIZE)
    write(driver, "a", 70000, b"A" * 10)
    driver.create("alone", SIZE)
    driver.create("on", SIZE)
    driver.activate("on", read_only=True)


def _removed_all(driver: Driver) -> None:
    for name in ("a", "b", "c"):
        driver.remove(name)


OPERATIONS: dict[str, Operation] = {
    "create": lambda driver: driver.create("new", SIZE),
    "fill": lambda driver: driver.create("new", SIZE, fill=fill_with(pattern(9))),
    "snapshot": lambda driver: driver.snapshot("a", "new"),
    "snapshot of a new one": lambda driver: driver.snapshot("alone", "new"),
    "grow": lambda driver: driver.grow("alone", 2 * SIZE),
    "grow a snapshot": lambda driver: driver.grow("b", 2 * SIZE),
    "activate": lambda driver: driver.activate("a"),
    "deactivate": lambda driver: driver.deactivate("on"),
    "down": lambda driver: driver.down(),
    "up behind down": lambda driver: (driver.down(), driver.up()),
    "remove a top": lambda driver: driver.remove("c"),
    "remove, merge and rebase": lambda driver: driver.remove("b"),
    "remove an origin": lambda driver: driver.remove("a"),
    "remove all": _removed_all,
}
"""What is done, each in a process of its own."""


def _run(name: str, operation: Operation, kill_at: int) -> int | None:
    """Do it in a process that is killed at a checkpoint; return how many it met if it came to its end."""
    read, end = os.pipe()
    pid = fork()
    if not pid:
        left = kill_at

        def checkpoint(_name: str) -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        try:
            with open_pool(name, checkpoint=checkpoint) as driver:
                operation(driver)
            os.write(end, str(kill_at - left).encode())
        finally:
            os._exit(0)
    os.close(end)
    with open(read, "rb") as file:
        told = file.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert told, "the operation failed"
    return int(told)


def _reconcile(driver: Driver) -> None:
    driver.reconcile()


class Place:
    """A prepared pool that can be put back as it was."""

    def __init__(self, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.saved = folder / "now", folder / "saved"
        self.folder.mkdir()
        self.name = volumes.make_pool(kind, self.folder, monkeypatch)
        with open_pool(self.name) as driver:
            _prepare(driver)
            self.before = contents(driver)
        shutil.copytree(self.folder, self.saved, symlinks=True)

    def restore(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.saved, self.folder, symlinks=True)


@pytest.fixture(params=["overlay", "reflink"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, request.param, monkeypatch)


def _hold(place: Place, after: dict[str, bytes], where: str) -> None:
    with open_pool(place.name) as driver:
        assert driver.reconcile().adopted == [], where
        found = contents(driver)
        for name in found.keys() | place.before.keys() | after.keys():
            allowed = [place.before.get(name), after.get(name)]
            assert found.get(name) in allowed, f"{name} {where}"
        assert all(each.state in (State.INACTIVE, State.ACTIVE) for each in driver.list())
        assert_clean(driver)


CASES = [
    *(("overlay", each) for each in OPERATIONS),
    *(("reflink", each) for each in ("snapshot", "grow a snapshot", "remove all")),
]


@pytest.mark.parametrize(("place", "what"), CASES, indirect=["place"])
def test_killed_between_any_two_steps(place, what):
    operation = OPERATIONS[what]
    count = _run(place.name, operation, 1 << 30)
    assert count is not None
    assert count >= 3
    with open_pool(place.name) as driver:
        after = contents(driver)
        assert_clean(driver)
    for step in range(count):
        place.restore()
        assert _run(place.name, operation, step) is None
        _hold(place, after, f"killed at {step}")
        if what == "down":
            with open_pool(place.name) as driver:
                driver.down()
                driver.up()
                assert (driver.get("on").state, driver.get("on").read_only) == (State.ACTIVE, True), step


@pytest.mark.parametrize("place", ["overlay"], indirect=True)
@pytest.mark.parametrize(
    "what",
    [
        "snapshot",
        pytest.param("grow a snapshot", marks=pytest.mark.soak),
        pytest.param("remove, merge and rebase", marks=pytest.mark.soak),
        pytest.param("fill", marks=pytest.mark.soak),
    ],
)
def test_what_comes_after_is_killed_too(place, what):
    operation = OPERATIONS[what]
    count = _run(place.name, operation, 1 << 30)
    assert count is not None
    with open_pool(place.name) as driver:
        after = contents(driver)
    for step in range(count):
        for second in range(100):
            place.restore()
            assert _run(place.name, operation, step) is None
            done = _run(place.name, _reconcile, second) is not None
            _hold(place, after, f"killed at {step} and {second}")
            if done:
                break


@pytest.mark.parametrize("place", ["overlay"], indirect=True)
@pytest.mark.parametrize("what", ["create", "snapshot", "remove, merge and rebase", "remove an origin"])
def test_a_journal_lost_at_any_step_is_rebuilt_from_the_files(place, what):
    operation = OPERATIONS[what]
    count = _run(place.name, operation, 1 << 30)
    assert count is not None
    with open_pool(place.name) as driver:
        after = contents(driver)
    for step in range(count):
        place.restore()
        assert _run(place.name, operation, step) is None
        for file in (place.folder / "home/pools/p").glob("journal.db*"):
            file.unlink()
        with open_pool(place.name) as driver:
            driver.reconcile()
            found = contents(driver)
        for name in place.before.keys() & after.keys():
            assert found.get(name) in (place.before[name], after[name]), f"{name} at {step}"


@pytest.mark.parametrize("place", ["overlay"], indirect=True)
def test_a_pool_whose_destruction_was_killed_is_destroyed_again(place):
    count = _run(place.name, lambda driver: driver.destroy(force=True), 1 << 30)
    assert count is not None
    assert count > 10
    for step in range(0, count, 3):
        place.restore()
        assert _run(place.name, lambda driver: driver.destroy(force=True), step) is None
        destroy_pool(place.name, force=True)
        assert not (place.folder / "p-volumes").exists()
        assert list((place.folder / "home/pools").iterdir()) == []


@pytest.mark.parametrize("place", ["overlay"], indirect=True)
@pytest.mark.parametrize("how", ["cut", "written to"])
def test_the_oracle_can_fail(place, how):
    """A volume whose file is cut, or holds something else, is found by the same looks."""
    folder = place.folder / "p-volumes"
    victim = next(each for each in folder.iterdir() if each.name.startswith("alone."))
    with open(victim, "r+b") as file:
        file.write(b"x" * 10) if how == "written to" else file.truncate(SIZE // 2)
    with pytest.raises(AssertionError if how == "written to" else Damaged):
        _hold(place, {}, how)


@pytest.mark.parametrize("place", ["overlay"], indirect=True)
def test_a_build_into_a_volume_is_killed_at_every_step(place, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "hello").write_bytes(b"hello" * 20000)
    definition = Definition(table=Table.NONE, size=4 * MiB)

    def fill(path: str, _size: int) -> None:
        with open_source(str(tree)) as source:
            build(source, path, definition, force=True)

    def create() -> None:
        with open_pool(place.name) as driver:
            driver.create("new", 4 * MiB, fill=fill)

    with open_pool(place.name) as driver:
        whole = contents_of_new(driver, fill)
    steps = 0
    for _ in killed_at_every_step(create, steps=STEPS | {"os.link", "os.truncate", "os.chmod", "sqlite3.connect"}):
        steps += 1
        _hold(place, place.before | {"new": whole}, f"killed at {steps}")
        with open_pool(place.name) as driver:
            if any(each.name == "new" for each in driver.list()):
                driver.remove("new")
    assert steps > 6


def contents_of_new(driver: Driver, fill: Callable[[str, int], None]) -> bytes:
    """What a build makes, every time."""
    driver.create("new", 4 * MiB, fill=fill)
    found = contents(driver)["new"]
    driver.remove("new")
    return found


_OTHER = """
import os, signal, sys
from blockwright.volume import open_pool

left = int(sys.argv[1])

def checkpoint(name):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1

with open_pool("p", checkpoint=checkpoint) as pool:
    pool.grow("a", int(sys.argv[3])) if sys.argv[2] == "grow" else pool.snapshot("a", sys.argv[3])
"""


@pytest.mark.parametrize("place", ["overlay"], indirect=True)
@pytest.mark.parametrize("what", ["snapshot", "grow"])
def test_who_writes_goes_on_when_the_other_process_is_killed(place, what):
    """The other one is started anew: a fork would have our files open, and their locks."""
    codes = []
    with open_pool(place.name) as driver, driver.open("a", writable=True) as device:
        state = bytearray(place.before["a"])
        for step in range(6):
            argument = f"s{step}" if what == "snapshot" else str((2 + step) * SIZE)
            other = subprocess.run([sys.executable, "-c", _OTHER, str(step), what, argument], check=False)
            codes.append(other.returncode)
            data = bytes([step + 1]) * 10
            device.write(step * 4096, data)
            state[step * 4096 : step * 4096 + 10] = data
            assert device.read(0, len(state)) == bytes(state)
    assert codes[:4] == [-signal.SIGKILL] * 4
    assert set(codes) <= {0, -signal.SIGKILL}
    with open_pool(place.name) as driver:
        driver.reconcile()
        assert contents(driver)["a"][: len(state)] == bytes(state)
        assert_clean(driver)
