"""Sessions that leave for worker processes, and those that cannot."""

import errno
import struct
import sys
import time
from contextlib import ExitStack

import pytest

from blockwright.device.extent import Extent
from blockwright.device.file import FileDevice
from blockwright.device.window import Window
from blockwright.nbd.server import processes
from blockwright.nbd.server.export import Export
from tests.support.runningserver import running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="worker processes are for Linux")
MIB = 1 << 20
READ, WRITE, FLUSH, STATUS = 0, 1, 3, 7


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    with FileDevice(path, writable=True) as device:
        yield device


def write_on_each_and_read_on_all(server, count):
    """Open `count` sessions; each writes a block, flushes, and all read what all have written."""
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(count)]
        for client in clients:
            client.go()
        for number, client in enumerate(clients):
            client.request(WRITE, 1, number * 512, 512, bytes([number + 1]) * 512)
            assert client.reply()[0] == 0
            client.request(FLUSH)
            assert client.reply()[0] == 0
        written = b"".join(bytes([number + 1]) * 512 for number in range(count))
        for client in clients:
            client.request(READ, 1, 0, len(written))
            assert client.reply(len(written))[2] == written


def test_what_one_session_writes_all_read(image):
    with running([Export("", image)], workers=2, bytes_in_flight=9 * MIB) as server:
        write_on_each_and_read_on_all(server, 4)
        assert len(server.server._processes._workers) == 2
        assert server.server._budget.limit == 3 * MIB  # and 3 MiB for each worker
    assert not any(event == "worker not started" for event, _ in server.events)


@pytest.mark.parametrize("program", ["/no/such/python", "/bin/false"], ids=["missing", "ends at once"])
def test_where_no_worker_starts_all_are_served_here(image, monkeypatch, program):
    """As where the user that the server has become may not read Python or this package."""
    monkeypatch.setattr(processes.sys, "executable", program)
    with running([Export("", image)], workers=2) as server:
        write_on_each_and_read_on_all(server, 4)
        told = [fields for event, fields in server.events if event == "worker not started"]
        assert 1 <= len(told) <= 2  # the second may be under way when the first one ends
        write_on_each_and_read_on_all(server, 4)
        assert [fields for event, fields in server.events if event == "worker not started"] == told


def test_what_workers_hold_is_counted(image):
    def held_within(seconds, wanted):
        end = time.monotonic() + seconds
        while not wanted(server.server.bytes_in_flight) and time.monotonic() < end:
            time.sleep(0.05)
        return wanted(server.server.bytes_in_flight)

    with running([Export("", image)], workers=1) as server, server.client() as here, server.client() as there:
        here.go()
        here.request(READ, 1, 0, 512)
        assert here.reply(512)[0] == 0  # it is served, so the next one leaves
        there.go()
        for cookie in range(4):
            there.request(READ, cookie, 0, MIB)  # in simple replies, which are whole in memory
        assert held_within(60, lambda held: held >= MIB)
        assert server.server._budget.used == 0
        for _ in range(4):
            assert there.reply(MIB)[0] == 0
        assert held_within(60, lambda held: held == 0)


def test_a_part_of_a_file_is_that_part_in_a_worker_too(image):
    image.write(4096, b"the part")
    with ExitStack() as stack:
        part = stack.enter_context(Window(image, 4096, 8192, owns=False))
        server = stack.enter_context(running([Export("", part)], workers=1))
        for _ in range(2):
            client = stack.enter_context(server.client())
            assert client.go() == 8192
            client.request(READ, 1, 0, 8)
            assert client.reply(8) == (0, 1, b"the part")
            client.request(READ, 2, 8192, 8)
            assert client.reply(8)[0] == errno.EINVAL
        assert len(server.server._processes._workers) == 1


def test_what_a_worker_has_no_context_of_is_told_here(image):
    class Told:
        def extents(self, offset, length):
            yield Extent(offset, length, 1)

    export = Export("", image, contexts={"blockwright:told": Told()})
    with running([export], workers=1) as server, server.client() as first, server.client() as second:
        for client in (first, second):
            assert client.option(8)[-1][0] == 1
            query = b"blockwright:told"
            assert client.option(10, struct.pack(">III", 0, 1, len(query)) + query)[-1] == (1, b"")
            client.option(7, b"\0\0\0\0\0\0")
            client.request(STATUS, 1, 0, 4096)
            assert client.chunks() == [(5, 1, struct.pack(">III", 1, 4096, 1))]
        assert not server.server._processes._workers
