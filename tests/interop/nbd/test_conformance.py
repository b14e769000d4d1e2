"""The probe on servers that others wrote: it finds the faults they are known to have, and no others."""

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from functools import partial

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.nbd.conformance import CHECKS, Outcome, check_server, limits
from blockwright.nbd.dial import dial
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.listeners import closing_all, listen_unix
from blockwright.nbd.server.server import Server
from blockwright.nbd.uri import NbdUri
from blockwright.units import MiB
from tests.support.ports import free_port
from tests.support.tools import run, tool

SIZE = 64 * MiB
STARTS_S = 60
LONG_S = 60.0
"""For checks that a server answers."""
SHORT_S = 2.0
"""For checks that a server is known to say nothing to."""

WAITS = {"I09", "I10", "L01", "L02", "L07"}
"""What nbd-server reads on for, past the end of the option or for 4 GiB."""
NBD_SERVER = {
    "H04",  # takes any client flag
    "H10",  # INFO says that the size is 0
    "I03",  # the same
    "I19",  # an option's length is not compared with what it holds
    "L04",  # any number of options
    "O04",  # closes at ABORT
    "O05",  # the same
    "O16",  # an error, and then what was asked for
    "T11",  # takes any known flag with any command
    "W04",  # the same
    "W17",  # the same
}
QEMU = {
    "L04",  # any number of options
    "W02",  # EINVAL past the end
    "W11",  # the same
}
NBDKIT = {
    "M11",  # one reply for each query
    "S16",  # simple replies to what is no READ
}
RACES = {
    "T18": "whether replies are sent before DISC is read",
    "L10": "nbdkit 1.32 aborts where a client resets the connection at a bad time",
}


@contextmanager
def process(argv, path):
    """A server in the foreground that listens at a Unix socket."""
    running = subprocess.Popen(
        [os.fspath(each) for each in argv], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(path)
        yield path
    finally:
        running.terminate()
        running.wait(STARTS_S)


def wait_for(path):
    end = time.monotonic() + STARTS_S
    while True:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(os.fspath(path))
            except OSError:
                assert time.monotonic() < end, f"nothing listens at {path}"
                time.sleep(0.01)
            else:
                return


@contextmanager
def nbdkit(directory):
    path = directory / "nbdkit"
    with process([tool("nbdkit"), "-f", "-U", path, "memory", str(SIZE)], path):
        yield NbdUri("unix", path=os.fspath(path))


@contextmanager
def qemu_nbd(directory):
    path, image = directory / "qemu", directory / "qemu.img"
    image.touch()
    os.truncate(image, SIZE)
    argv = [tool("qemu-nbd"), "-f", "raw", "-k", path, "-x", "disk", "-t", "-e", "16", "--discard=unmap", image]
    with process(argv, path):
        yield NbdUri("unix", "disk", path=os.fspath(path))


@contextmanager
def nbd_server(directory):
    path, image, pid = directory / "nbds", directory / "nbds.img", directory / "pid"
    image.touch()
    os.truncate(image, SIZE)
    (directory / "conf").write_text(  # it listens to a port beside the Unix socket
        f"[generic]\nunixsock={path}\nport={free_port()}\nlistenaddr=127.0.0.1\nallowlist=true\n"
        f"[disk]\nexportname={image}\nflush=true\nfua=true\ntrim=true\n"
    )
    run([tool("nbd-server"), "-C", directory / "conf", "-p", pid])
    try:
        wait_for(path)
        yield NbdUri("unix", "disk", path=os.fspath(path))
    finally:
        number = int(pid.read_text())
        os.kill(number, signal.SIGTERM)
        end = time.monotonic() + STARTS_S
        while os.path.exists(f"/proc/{number}") and time.monotonic() < end:
            time.sleep(0.01)


def failures(uri, *, timeout_s=LONG_S, least=1 / 3, **options):
    found = list(check_server(uri, partial(dial, uri), timeout_s=timeout_s, **options))
    assert sum(each.outcome is Outcome.PASSED for each in found) > len(found) * least or options.get("only")
    assert [str(each) for each in found if each.outcome is Outcome.ERROR and each.check.id not in RACES] == []
    return {each.check.id: each.message for each in found if each.outcome is Outcome.FAILED}


def test_nbdkit(tmp_path):
    with nbdkit(tmp_path) as uri:
        found = failures(uri, write=True)
    assert found.keys() - RACES == NBDKIT, found


def test_qemu_nbd(tmp_path):
    with qemu_nbd(tmp_path) as uri:
        found = failures(uri, write=True)
    assert found.keys() - RACES == QEMU, found
    assert "found EINVAL" in found["W02"]


def test_nbd_server(tmp_path):
    with nbd_server(tmp_path) as uri:
        found = failures(uri, write=True, only=[each.id for each in CHECKS if each.id not in WAITS])
        waits = failures(uri, write=True, only=WAITS, timeout_s=SHORT_S)
    assert found.keys() - RACES == NBD_SERVER, found
    assert waits.keys() == WAITS
    assert found["I03"] == f"expected size 0, as INFO told, found {SIZE}"


@pytest.mark.ci
@pytest.mark.soak
def test_who_loses_patience_with_a_client_that_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PATIENCE_S", 15.0)
    silent = ["L11", "L12"]
    with qemu_nbd(tmp_path) as uri:
        assert failures(uri, slow=True, only=silent) == {}
    with nbdkit(tmp_path) as uri:
        assert failures(uri, slow=True, only=silent).keys() == set(silent)
    with nbd_server(tmp_path) as uri:
        assert failures(uri, slow=True, only=silent).keys() == set(silent)


@pytest.fixture
def own(tmp_path):
    exports = [
        Export("disk", MemoryDevice(SIZE)),
        Export("read-only", MemoryDevice(SIZE), read_only=True),
        Export("coarse", MemoryDevice(SIZE), blocks=BlockSizes(512, 4096, MiB)),
    ]
    path = tmp_path / "own"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen(64)
    with Server(exports, [listener]):
        yield path


@pytest.mark.parametrize("name", ["disk", "read-only", "coarse"])
def test_our_own_server_keeps_every_rule(own, name):
    assert failures(NbdUri("unix", name, path=os.fspath(own)), write=True) == {}


@pytest.mark.parametrize("size", [0, 1, 511, 513, 1536, 4097])
def test_an_export_may_be_of_any_size(tmp_path, size):
    uri = NbdUri("unix", path=os.fspath(tmp_path / "s"))
    listener = listen_unix(uri.path)
    with closing_all([listener]), Server([Export("", MemoryDevice(size))], [listener.socket]):
        assert failures(uri, write=True, least=1 / 3 if size else 1 / 5) == {}


@pytest.mark.ci
def test_our_own_server_loses_patience(own):
    assert failures(NbdUri("unix", "disk", path=os.fspath(own)), slow=True, only=["L11", "L12"]) == {}
