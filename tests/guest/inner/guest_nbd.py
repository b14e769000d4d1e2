"""Network block devices in a kernel of our own: our server and nbdkit, attached, mounted, restarted, resized."""

import hashlib
import os
import socket
import threading
import time

import pytest

from blockwright.attach import nbd
from blockwright.device.file import open_path
from blockwright.errors import InUse, NotFound, UsageError
from blockwright.system.linux import nbd as driver
from blockwright.system.linux.nbd import By, Control
from blockwright.system.linux.registry import Registry
from blockwright.units import MiB
from tests.support import nbdpeers
from tests.support.loops import sparse
from tests.support.serving import serving
from tests.support.tools import run, tool

SIZE = 32 * MiB
PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Records of the test's own; at the end nothing is attached, and nothing is on record."""
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    yield
    left = list(driver.states())
    for each in left:
        driver.detach(each.number, force=True)
    assert left == []
    assert [record.fields for record in Registry("nbd").records()] == []


@pytest.fixture(scope="module", autouse=True)
def loopback():
    """127.0.0.1 can be reached."""
    run([tool("busybox"), "ip", "link", "set", "lo", "up"])


@pytest.fixture
def image(tmp_path):
    return sparse(tmp_path / "disk.img", SIZE)


def by_unix(path, *more):
    return serving(path, "--socket", path.with_suffix(".sock"), *more)


def by_tcp(path, *more):
    return serving(path, "--listen", "127.0.0.1:0", *more)


def eventually(what):
    """Wait until `what()` holds."""
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def sessions(server):
    """How many sessions the server has begun."""
    return sum(" session " in f"{line} " for line in server.log)


def file_system_on(path, mount):
    """Make ext4 there, write a file, and return its digest."""
    run([tool("mke2fs"), "-q", "-t", "ext4", path])
    point = mount(path, fstype="ext4", options="rw")
    data = os.urandom(300_000)
    (point / "file").write_bytes(data)
    run(["umount", point])
    return hashlib.sha256(data).hexdigest()


def digest_on(path, mount):
    point = mount(path, fstype="ext4")
    found = hashlib.sha256((point / "file").read_bytes()).hexdigest()
    run(["umount", point])
    return found


@pytest.mark.parametrize("listen", [by_unix, by_tcp], ids=["unix", "tcp"])
@pytest.mark.parametrize("connections", [1, 4])
def test_a_file_system_over_our_server(image, mount, listen, connections):
    with listen(image, "--log", "text") as server:
        with nbd.attach(server.uri, connections=connections) as attached:
            assert attached.state().size == SIZE
            assert attached.state().block_size == 512
            assert not attached.state().read_only
            eventually(lambda: sessions(server) == connections)
            digest = file_system_on(attached.path, mount)
        assert list(driver.states()) == []
        with nbd.attach(server.uri, read_only=True) as attached:
            assert attached.state().read_only
            assert digest_on(attached.path, mount) == digest
    assert digest_on(image, mount) == digest
    run([tool("e2fsck"), "-fn", image])


@pytest.mark.parametrize("by", list(By), ids=lambda each: each.value)
def test_a_file_system_over_nbdkit(tmp_path, mount, by):
    with nbdpeers.nbdkit(tmp_path, "memory", "32M") as server:
        with nbd.attach(server.uri(), by=by) as attached:
            assert attached.state().size == SIZE
            digest = file_system_on(attached.path, mount)
            assert digest_on(attached.path, mount) == digest
        with nbd.attach(server.uri(), by=by, read_only=True) as attached:
            assert digest_on(attached.path, mount) == digest


@pytest.mark.parametrize("by", list(By), ids=lambda each: each.value)
def test_what_the_server_can_do_reaches_the_kernel(image, by):
    with by_unix(image) as server, nbd.attach(server.uri, by=by) as attached:
        queue = f"/sys/block/{os.path.basename(attached.path)}/queue"
        with open(f"{queue}/write_cache") as file:
            assert file.read() == "write back\n"
        with open(f"{queue}/fua") as file:
            assert file.read() == "1\n"
        with open(f"{queue}/discard_granularity") as file:
            assert int(file.read()) > 0
        with open_path(attached.path, writable=True) as device:
            device.write(0, b"x" * MiB)
            device.flush()
            device.discard(0, MiB)
            device.write(MiB, b"durable", durable=True)
            assert device.read(MiB, 7) == b"durable"
    assert image.stat().st_blocks * 512 < MiB, "what was discarded is a hole in the image"


def test_blocks_are_the_servers(image):
    with by_unix(image, "--block-size", "4096,4096,64K") as server, nbd.attach(server.uri) as attached:
        assert attached.state().block_size == 4096
        with open(f"/sys/block/{os.path.basename(attached.path)}/queue/max_sectors_kb") as file:
            assert int(file.read()) <= 64
        with open_path(attached.path, writable=True) as device:
            device.write(0, b"y" * MiB)
        with pytest.raises(UsageError, match="expected 4096 to 4096 bytes, found 512"):
            nbd.attach(server.uri, block_size=512)


def test_a_socket_is_attached(image):
    told = []
    with by_unix(image) as server:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(image.with_suffix(".sock")))
        attached = nbd.attach(sock, "/dev/nbd5", on_connected=told.append, ready_timeout=30.0)
        assert attached.path == "/dev/nbd5"
        assert told == [attached]
        with pytest.raises(InUse, match="/dev/nbd5: is in use"):
            nbd.attach(server.uri, "/dev/nbd5")
        with Control() as control:
            assert control.status(5) is True
            assert control.status(6) is False
        attached.detach()
        assert attached.wait(0)
        attached.detach()
    assert driver.detach("/dev/nbd5") is False
    with pytest.raises(NotFound, match="/dev/nbd4000: no such device"):
        driver.detach("nbd4000")


def test_it_connects_again_while_requests_wait(tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(os.urandom(4 * MiB))
    path = tmp_path / "nbdkit.sock"
    kit = [tool("nbdkit"), "-f", "-U", path, "file", image]
    with nbdpeers.running(kit, path) as server, nbd.attach(server.uri(), connections=2) as attached:
        for each in range(3):
            server.kill()
            found = []
            reader = threading.Thread(target=lambda: found.append(read(attached.path, 4 * MiB)))  # noqa: B023
            reader.start()
            time.sleep(0.2)  # so that it waits in the kernel; the other order must do as well
            assert found == []
            server.start()
            reader.join(PATIENCE_S)
            assert found == [image.read_bytes()]
            write(attached.path, f"written after restart {each}".encode())
            assert image.read_bytes()[:23] == f"written after restart {each}".encode()


def read(path, length):
    """Read past what the kernel keeps."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.read(fd, length)
    finally:
        os.close(fd)


def write(path, data):
    """Write, and return when it is stored."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
