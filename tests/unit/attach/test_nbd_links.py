"""When a dead connection is made again, and which server is taken for the one that was there."""

import contextlib
import socket
import threading
from types import SimpleNamespace

import pytest

from blockwright.attach import nbd_links
from blockwright.attach.nbd_dial import Link
from blockwright.attach.nbd_links import Keeper
from blockwright.errors import KernelError, NotFound
from blockwright.nbd.protocol.session import ExportInfo
from blockwright.nbd.wire import TransmissionFlag

SIZE = 1 << 20
PATIENCE_S = 60.0


class Device:
    path, number = "/dev/nbd3", 3

    def __init__(self):
        self.is_attached = True
        self.replaced = []
        self.sizes = []
        self.refusals = []

    def state(self):
        return SimpleNamespace(size=self.sizes[-1] if self.sizes else SIZE, block_size=512)

    def replace(self, sock):
        if self.refusals:
            raise self.refusals.pop(0)
        self.replaced.append(sock)

    def resize(self, size):
        self.sizes.append(size)


class Dead:
    """What the driver tells, in turn; then nothing."""

    def __init__(self, *told):
        self.told = list(told)
        self.closed = False

    def wait(self, number, timeout_s, *, wake):
        assert number == 3
        if self.told:
            return self.told.pop(0)
        wake[0].settimeout(timeout_s)
        with contextlib.suppress(TimeoutError):
            wake[0].recv(1)
        return 0

    def close(self):
        self.closed = True


class Server:
    text = "nbd://there/"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0
        self.links = []

    def link(self):
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else (SIZE, 1)
        if isinstance(answer, Exception):
            raise answer
        ours, theirs = socket.socketpair()
        theirs.close()
        self.links.append(Link(ours, ExportInfo("", answer[0], TransmissionFlag(answer[1]))))
        return self.links[-1]


class Log(list):
    def debug(self, msg, *args):
        self.append(("debug", msg % args))

    def info(self, msg, *args):
        self.append(("info", msg % args))

    def warning(self, msg, *args):
        self.append(("warning", msg % args))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(nbd_links, "LOOK_S", 0.01)
    monkeypatch.setattr(nbd_links, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(nbd_links, "MAX_PAUSE_S", 0.004)


def kept(device, server, dead, until, *, read_only=False, connections=4):
    log = Log()
    keeper = Keeper(
        device,
        server,
        dead,
        connections=connections,
        read_only=read_only,
        logger=log,  # type: ignore[arg-type]
    )
    keeper.start()
    try:
        changed = threading.Event()
        for _ in range(60_000):
            if until():
                break
            changed.wait(0.001)
        assert until(), log
    finally:
        keeper.stop()
    assert keeper.ended.is_set()
    assert dead is None or dead.closed
    assert all(each.sock.fileno() == -1 for each in server.links), "the kernel holds them, we do not"
    return log


def test_each_dead_connection_is_replaced():
    device, server = Device(), Server()
    kept(device, server, Dead(1, 2), lambda: len(device.replaced) == 3)
    assert device.sizes == []


def test_what_is_lost_may_be_any_of_them():
    device, server = Device(), Server()
    kept(device, server, Dead(None), lambda: len(device.replaced) == 4)


def test_never_more_than_there_are():
    device, server = Device(), Server(NotFound("x"))
    kept(device, server, Dead(1, 1, 1, 1), lambda: len(device.replaced) == 2, connections=2)
    assert server.asked <= 5


def test_it_tries_until_the_server_is_there_and_tells_once():
    device = Device()
    refused, others = [NotFound("nobody listens there")] * 5, [(SIZE - 512, 1)] * 2
    server = Server(*refused, *others)
    log = kept(device, server, Dead(1), lambda: len(device.replaced) == 1)
    told = [text for level, text in log if level == "warning" and "not connected" in text]
    assert told[0] == "/dev/nbd3: not connected: nobody listens there"
    assert "came back with less" in told[1]
    assert len(told) == 2
    assert ("info", "/dev/nbd3: connected to nbd://there/ again") in log


def test_less_than_there_was_is_not_taken_and_more_is():
    device, server = Device(), Server((SIZE - 512, 1), (2 * SIZE, 1))
    log = kept(device, server, Dead(1), lambda: len(device.replaced) == 1)
    assert any(f"expected at least {SIZE} bytes, found {SIZE - 512}" in text for _, text in log)
    assert device.sizes == [2 * SIZE]
    device, server = Device(), Server((SIZE + 511, 1))
    kept(device, server, Dead(1), lambda: len(device.replaced) == 1)
    assert device.sizes == [], "less than a block more is no more"


def test_a_server_that_takes_no_writes_any_more_is_not_taken():
    device, server = Device(), Server((SIZE, 3), (SIZE, 1))
    log = kept(device, server, Dead(1), lambda: len(device.replaced) == 1)
    assert any("takes no writes any more" in text for _, text in log)
    device, server = Device(), Server((SIZE, 3))
    kept(device, server, Dead(1), lambda: len(device.replaced) == 1, read_only=True)


def test_a_refusal_of_the_kernel_is_tried_again():
    device, server = Device(), Server()
    device.refusals.append(KernelError("NBD_CMD_RECONFIGURE", "/dev/nbd3", 22, "invalid argument"))
    kept(device, server, Dead(1), lambda: len(device.replaced) == 1)


@pytest.mark.parametrize("dead", [None, Dead()], ids=["by ioctl", "by netlink"])
def test_it_ends_when_the_device_is_gone(dead):
    device = Device()
    keeper = Keeper(device, Server(), dead, connections=1, read_only=False, logger=Log())  # type: ignore[arg-type]
    told = []
    keeper.when_ended(lambda: told.append(1))
    keeper.start()
    device.is_attached = False
    assert keeper.ended.wait(PATIENCE_S)
    keeper.stop()
    keeper.when_ended(lambda: told.append(2))
    assert told == [1, 2]


def test_a_device_is_watched_though_nothing_is_told_of_its_connections():
    class Broken(Dead):
        def wait(self, number, timeout_s, *, wake):
            raise KernelError("listen", "netlink", 12, "cannot allocate memory")

    device, dead, log = Device(), Broken(), Log()
    keeper = Keeper(device, Server(), dead, connections=1, read_only=False, logger=log)  # type: ignore[arg-type]
    keeper.start()
    for _ in range(60_000):
        if dead.closed:
            break
        threading.Event().wait(0.001)
    assert not keeper.ended.wait(0.1), "it is attached"
    assert [text for _, text in log] == [
        "/dev/nbd3: connections that die are not made again any more: netlink: listen: cannot allocate memory"
    ]
    assert dead.closed
    device.is_attached = False
    assert keeper.ended.wait(PATIENCE_S)
    keeper.stop()
