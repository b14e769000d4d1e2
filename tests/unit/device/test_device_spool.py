"""A stream kept in a file without a name: where there is no room for it."""

import errno
import io
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from blockwright.device import spool
from blockwright.device.base import BlockDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import NoSpace
from blockwright.tree.spool import KEPT_IN_MEMORY, spooled


class Full(MemoryDevice):
    """Takes no byte."""

    def _write(self, offset, buffers, *, durable):
        raise OSError(errno.ENOSPC, "no space left on device")


def test_a_full_folder_is_named_and_not_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[BlockDevice] = []

    def scratch(_name: str) -> BlockDevice:
        made.append(Full(0))
        return made[0]

    monkeypatch.setattr(spool, "scratch_device", scratch)
    with pytest.raises(NoSpace, match=r"^input: no space left in .* \(TMPDIR\), where it is kept meanwhile$") as told:
        spool.spool(io.BytesIO(b"x"), "input")
    assert tempfile.gettempdir() in str(told.value)
    assert made[0].closed


@pytest.fixture(params=[0, -1], ids=["unbuffered", "buffered"])
def slow(request: pytest.FixtureRequest) -> Iterator[io.BufferedReader]:
    """A pipe that does not block, into which bytes come when it was found empty, and again behind the first MiB."""
    out, into = os.pipe()
    os.set_blocking(out, False)
    stream = os.fdopen(out, "rb", request.param)
    empty, read = threading.Event(), stream.read

    def write() -> None:
        with os.fdopen(into, "wb", 0) as pipe:
            for part in (b"a", b"b" * KEPT_IN_MEMORY, b"c"):
                empty.wait(60)
                empty.clear()
                left = memoryview(part)
                while left:
                    left = left[pipe.write(left) or 0 :]

    class Watched:
        fileno = staticmethod(stream.fileno)

        @staticmethod
        def read(length: int) -> bytes | None:
            data = read(length)
            if data is None:
                empty.set()
            return data

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    with stream:
        yield cast("io.BufferedReader", Watched())
        thread.join(60)


def test_a_stream_that_does_not_block_is_waited_for(slow: io.BufferedReader) -> None:
    with spool.spool(slow, "input") as device:
        assert device.read(0, device.size) == b"a" + b"b" * KEPT_IN_MEMORY + b"c"


def test_a_content_of_a_stream_that_does_not_block_is_whole(slow: io.BufferedReader) -> None:
    with spooled(slow) as content:
        assert content.read(0, content.size) == b"a" + b"b" * KEPT_IN_MEMORY + b"c"


@pytest.mark.parametrize("by_descriptor", [False, True])
def test_so_much_is_read_as_is_asked_for_however_it_comes(by_descriptor: bool) -> None:
    out, into = os.pipe()
    os.set_blocking(out, False)

    def write() -> None:
        with os.fdopen(into, "wb", 0) as pipe:
            for _ in range(4):
                time.sleep(0.02)
                pipe.write(b"abc")

    thread = threading.Thread(target=write)
    with os.fdopen(out, "rb", 0) as stream:
        source = out if by_descriptor else stream
        thread.start()
        assert spool.read_up_to(source, 8) == b"abcabcab"
        assert spool.read_up_to(source, 8) == b"cabc"
        assert spool.read_up_to(source, 8) == b""
    thread.join()
