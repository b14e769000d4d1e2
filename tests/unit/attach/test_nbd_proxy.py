"""Bytes that are carried between the kernel's socket and a stream, and how either end is noticed."""

import contextlib
import os
import socket
import threading

import pytest

from blockwright.attach.nbd_proxy import PIECE, carried
from blockwright.nbd.transport import SocketStream


@pytest.fixture
def ends():
    """The kernel's end, and the server's."""
    inner, server = socket.socketpair()
    stream = SocketStream(inner)
    stream.set_timeout(0.01, 0.01)  # as a handshake leaves it: the carrier waits for ever
    before = set(threading.enumerate())
    kernel = carried(stream)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 2
    for each in (kernel, server):
        each.settimeout(60)
    yield kernel, server
    kernel.close()
    server.close()
    for each in threads:
        each.join(60)
        assert not each.is_alive()
    assert inner.fileno() == -1


def received(sock, length):
    data = b""
    while len(data) < length:
        some = sock.recv(length - len(data))
        assert some
        data += some
    return data


def test_both_ways_at_once(ends):
    data = os.urandom(3 * PIECE + 17)
    senders = [threading.Thread(target=each.sendall, args=(data,)) for each in ends]
    found = {}
    readers = [
        threading.Thread(target=lambda n=number, s=each: found.update({n: received(s, len(data))}))
        for number, each in enumerate(ends)
    ]
    for each in senders + readers:
        each.start()
    for each in senders + readers:
        each.join(60)
    assert found == {0: data, 1: data}


def test_nothing_for_longer_than_the_handshake_had(ends):
    kernel, server = ends
    kernel.sendall(b"a")
    assert server.recv(1) == b"a"
    threading.Event().wait(0.05)
    server.sendall(b"b")
    assert kernel.recv(1) == b"b"


@pytest.mark.parametrize("first", [0, 1], ids=["the kernel", "the server"])
def test_the_end_of_one_is_the_end_of_both(ends, first):
    ends[first].close()
    with contextlib.suppress(ConnectionResetError):  # the same, told otherwise
        assert ends[1 - first].recv(1) == b""
