"""Two containers share a folder of pools: each of them knows whether a process of the other one lives."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blockwright.errors import InUse
from blockwright.volume import create_pool, open_pool
from tests.support.tools import tool

_WRITER = """
import sys
from blockwright.volume import open_pool
with open_pool("p") as pool, pool.open("a", writable=True) as device:
    device.write(0, b"before")
    print("open", flush=True)
    sys.stdin.readline()
    device.write(0, b"behind")
    device.flush()
    print("written", flush=True)
    sys.stdin.readline()
"""
_MAKER = """
import sys
from blockwright.volume import open_pool
def fill(path, size):
    with open(path, "wb") as file:
        file.write(b"content")
        print("filling", flush=True)
        sys.stdin.readline()
with open_pool("p") as pool:
    pool.create("new", 1 << 20, fill=fill)
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Give a function that runs a program in a PID namespace of its own, and returns it with its first line read."""
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    alone = [str(tool("unshare")), *([] if os.geteuid() == 0 else ["-Ur"]), "-pf", "--mount-proc", "--kill-child"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no PID namespace can be made here")
    create_pool("p", "file", {"snapshots": "overlay"})
    begun: list[subprocess.Popen[bytes]] = []

    def begin(program):
        process = subprocess.Popen(
            [*alone, sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()
        )
        begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline()
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def _next(process):
    process.stdin.write(b"\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_a_snapshot_of_what_the_other_writes_has_nothing_of_what_comes_later(elsewhere):
    with open_pool("p") as pool:
        pool.create("a", 1 << 20)
        writer = elsewhere(_WRITER)
        pool.snapshot("a", "s")
        with pytest.raises(InUse, match="is in use: process"):
            pool.open("a", writable=True)
        assert _next(writer) == b"written\n"
        _next(writer)
        writer.wait()
        with pool.open("s") as device:
            assert device.read(0, 6) == b"before"
        with pool.open("a") as device:
            assert device.read(0, 6) == b"behind"


def test_what_the_other_makes_is_not_undone_before_it_is_dead(elsewhere):
    maker = elsewhere(_MAKER)
    with open_pool("p") as pool:
        assert not pool.reconcile().undone
        maker.kill()
        maker.wait()
        end = time.monotonic() + 60  # the kernel kills what was in the namespace a moment later
        while not (undone := pool.reconcile().undone):
            assert time.monotonic() < end
        assert undone == ["create of new"]
    maker = elsewhere(_MAKER)
    with open_pool("p") as pool:
        _next(maker)
        assert maker.wait() == 0
        assert [each.name for each in pool.list()] == ["new"]
