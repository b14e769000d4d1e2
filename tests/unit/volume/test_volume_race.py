"""Several processes and threads at one pool at once, and a thousand volumes in it."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from blockwright.errors import BlockwrightError
from blockwright.volume import open_pool
from tests.support.volumes import (
    SIZE,
    assert_clean,
    content,
    contents,
    fill_with,
    make_pool,
    pattern,
)

_WORKER = """
import sys
from blockwright.errors import BlockwrightError
from blockwright.volume import open_pool

mine = sys.argv[1]
with open_pool("p") as pool:
    for number in range(12):
        for call in (
            lambda: pool.create(f"c{number}", 1 << 20),
            lambda: pool.snapshot("base", f"s{number}"),
            lambda: pool.snapshot("base", f"{mine}-{number}"),
            lambda: pool.remove(f"c{number - 1}"),
            lambda: pool.remove(f"s{number - 2}"),
        ):
            try:
                call()
                print("done")
            except BlockwrightError as error:
                print(type(error).__name__)
"""


def test_processes_take_turns(tmp_path, monkeypatch):
    make_pool("overlay", tmp_path, monkeypatch)
    with open_pool("p") as pool:
        pool.create("base", SIZE, fill=fill_with(pattern(1)))
    workers = [
        subprocess.Popen([sys.executable, "-c", _WORKER, f"w{number}"], stdout=subprocess.PIPE) for number in range(3)
    ]
    told = [worker.communicate(timeout=120)[0].decode().split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    counted = [word for words in told for word in words]
    assert set(counted) <= {"done", "UsageError", "NotFound", "InUse"}
    with open_pool("p") as pool:
        assert pool.reconcile().lines == []
        names = {each.name for each in pool.list()}
        assert {f"w{worker}-{number}" for worker in range(3) for number in range(12)} <= names
        assert all(data == pattern(1) for name, data in contents(pool).items() if not name.startswith("c"))
        made = sum(each.count for each in pool.journal.tallies() if each.operation in ("create", "snapshot"))
        removed = sum(each.count for each in pool.journal.tallies() if each.operation == "remove")
        assert made - removed == len(names)
        assert_clean(pool)


def test_threads_share_a_driver(tmp_path, monkeypatch):
    make_pool("overlay", tmp_path, monkeypatch)
    failed: list[BaseException] = []
    with open_pool("p") as pool:
        pool.create("base", SIZE, fill=fill_with(pattern(1)))

        def work(mine: int) -> None:
            try:
                for number in range(5):
                    pool.snapshot("base", f"t{mine}-{number}")
                    assert content(pool, f"t{mine}-{number}") == pattern(1)
                    pool.remove(f"t{mine}-{number}")
            except (BlockwrightError, OSError, AssertionError) as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert failed == []
        assert [each.name for each in pool.list()] == ["base"]
        assert_clean(pool)


@pytest.fixture
def in_memory(tmp_path):
    """A folder whose names cost no disk, where there is one."""
    if not os.path.isdir("/dev/shm"):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="volumes.", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.ci
def test_a_thousand_volumes_and_snapshots_leave_nothing(in_memory, monkeypatch):
    make_pool("overlay", in_memory, monkeypatch)
    with open_pool("p") as pool:
        for number in range(1000):
            pool.create(f"v{number}", SIZE)
            pool.snapshot(f"v{number}", f"s{number}")
    with open_pool("p") as pool:
        assert pool.reconcile().lines == []
        assert len(pool.list()) == 2000
        for number in range(1000):
            pool.remove(f"v{number}")
            pool.remove(f"s{number}")
        assert pool.list() == []
        assert_clean(pool)
