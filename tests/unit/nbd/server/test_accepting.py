"""The accept loop outlives what it cannot accept."""

import errno
import os
import socket
import struct
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.nbd.server import unaccepted
from blockwright.nbd.server.connection import Options
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.server import Server
from tests.support.rawnbd import RawClient
from tests.support.runningserver import running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no limit of descriptors to set")
MIB = 1 << 20
READ = 0


def works(client):
    with client:
        client.go()
        client.request(READ, 1, 0, 512)
        assert client.reply(512)[0] == 0


@contextmanager
def no_descriptors():
    """Leave this process none; what is open stays so."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # every number below is taken
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_clients_wait_and_are_accepted_later():
    with running([Export("", MemoryDevice(MIB))]) as server:
        works(server.client())  # it has begun
        server.said("disconnected")  # and its number is free
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(30)
        with no_descriptors():
            sock.connect(server.path)
            said = server.said("not accepted")
        assert said["reason"] == os.strerror(errno.EMFILE).lower()
        works(RawClient(sock))
        assert [event for event, _ in server.events].count("connected") == 2


def test_a_lack_of_descriptors_is_told_once_and_counted_each_time(monkeypatch):
    monkeypatch.setattr(unaccepted, "QUIET_S", 0.5)
    with running([Export("", MemoryDevice(MIB))]) as server:
        works(server.client())
        server.said("disconnected")
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(30)
        counted = ("not accepted", "EMFILE")
        with no_descriptors():
            sock.connect(server.path)
            end = time.monotonic() + 60
            while server.server.options.metrics.events().get(counted, 0) < 5:
                assert time.monotonic() < end, server.events
                time.sleep(0.01)
        works(RawClient(sock))
        said = server.said("accepting again")
        assert said["reason"] == os.strerror(errno.EMFILE).lower()
        assert said["failed"] == server.server.options.metrics.events()[counted] >= 5
        names = [event for event, _ in server.events]
        assert [names.count(each) for each in ("not accepted", "accepting again")] == [1, 1]


def test_a_server_that_cannot_begin_lets_nobody_wait():
    listener = socket.create_server(("127.0.0.1", 0))
    device = MemoryDevice(MIB)
    server = Server([Export("", lambda: device)], [listener])
    with socket.create_connection(listener.getsockname()) as client:
        client.settimeout(30)
        with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
            server.serve()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert listener.fileno() == -1


def test_a_client_that_is_gone_before_it_is_accepted_is_none():
    """Who is there no more cannot be named."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    for _ in range(3):
        with socket.create_connection(address) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    events = []
    server = Server(
        [Export("", MemoryDevice(MIB))],
        [listener],
        Options(log=lambda event, **more: events.append(event)),
    )
    before = set(threading.enumerate())
    with server:
        works(RawClient(socket.create_connection(address)))
    assert events.count("connected") == 1
    assert not set(threading.enumerate()) - before
