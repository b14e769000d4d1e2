"""Two ends of TLS over a socket pair, each begun as the server and the client of NBD begin it."""

import socket
import threading
from contextlib import closing, contextmanager

from blockwright.nbd.transport import SocketStream, TlsStarter


class Counting(SocketStream):
    """A socket that remembers how many bytes each send had."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.sends: list[int] = []

    def send(self, data, *, more=False):
        self.sends.append(len(data))
        super().send(data, more=more)


def sockets(timeout_s: float = 30.0) -> tuple[Counting, Counting]:
    first, second = (Counting(each) for each in socket.socketpair())
    for each in (first, second):
        each.set_timeout(timeout_s, timeout_s)
    return first, second


def begin(server: TlsStarter, client: TlsStarter, host: str | None, pair=None):
    """Return the outcome of both ends: (stream, identity), or the exception."""
    pair = pair or sockets()
    outcomes: list[object] = [None, None]

    def one(index, start, name):
        try:
            outcomes[index] = start(pair[index], name)
        except Exception as error:  # noqa: BLE001 - an outcome like any other
            outcomes[index] = error
            pair[index].close()

    thread = threading.Thread(target=one, args=(0, server, None))
    thread.start()
    one(1, client, host)
    thread.join()
    return outcomes


@contextmanager
def joined(server: TlsStarter, client: TlsStarter, host: str | None, pair=None):
    """The server's end and the client's, each with the identity that it saw of the other."""
    outcomes = begin(server, client, host, pair)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    (first, one), (second, other) = outcomes
    with closing(first), closing(second):
        yield (first, one), (second, other)
