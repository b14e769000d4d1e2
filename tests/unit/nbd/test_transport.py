"""Sockets: whatever part of it the system takes at once, all is sent, and in order."""

import socket

import pytest

from blockwright.nbd.transport import SocketStream

PARTS = [b"abc", b"", b"defgh", b"ij", b"klmnopq"]
WHOLE = b"".join(PARTS)


@pytest.mark.parametrize("taken", range(1, len(WHOLE) + 1))
def test_parts_are_sent_whole_whatever_is_taken_at_once(taken):
    ours, theirs = socket.socketpair()

    class Sparing:
        """Takes so much of the first call, as a system does that is interrupted, or whose peer is slow."""

        def sendmsg(self, parts, *_more):
            return ours.send(b"".join(map(bytes, parts))[:taken])

        def send(self, data, *_more):
            return ours.send(bytes(data)[:2])

    stream = SocketStream(ours)
    stream.socket = Sparing()
    with ours, theirs:
        stream.send_parts(PARTS)
        ours.shutdown(socket.SHUT_WR)
        with theirs.makefile("rb") as file:
            assert file.read() == WHOLE
