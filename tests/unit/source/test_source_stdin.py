"""Standard input that does not block, as that of a program whose other end is a terminal or an event loop is."""

import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.source import open_source
from blockwright.tree.spool import Spool
from tests.support.tarmaker import archive, member

DATA = archive(member(b"a", b"x" * 700), member(b"b", b"y" * 100_000))


@pytest.fixture
def slow() -> Iterator[int]:
    """A pipe that does not block, to which an archive comes in parts."""
    read, write = os.pipe()
    os.set_blocking(read, False)

    def come() -> None:
        with os.fdopen(write, "wb", buffering=0) as out:
            for start in range(0, len(DATA), 40_000):
                time.sleep(0.02)
                out.write(DATA[start : start + 40_000])

    writer = threading.Thread(target=come)
    writer.start()
    yield read
    writer.join()


def test_it_is_waited_for(slow: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(slow, "rb", buffering=0) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        with open_source("-") as source:
            assert sorted(source.read(Spool(MemoryDevice(0)).place).entries) == [b"a", b"b"]


def test_so_is_one_that_is_given(slow: int) -> None:
    with os.fdopen(slow, "rb", buffering=0) as stream, open_source("-", stdin=stream) as source:
        assert sorted(source.read(Spool(MemoryDevice(0)).place).entries) == [b"a", b"b"]
