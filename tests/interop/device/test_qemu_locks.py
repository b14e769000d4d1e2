"""QEMU and we see each other's use of an image, in both directions, and the message names the holder."""

import os
import socket
import subprocess
import sys
import time

import pytest

from blockwright.device import holders, locks
from blockwright.device.file import FileDevice
from blockwright.device.output import OutputFile
from blockwright.errors import InUse
from tests.support.tools import run, tool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="locks of open files are Linux's")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


def greets(path):
    """Whether the server greets: it listens before it opens the image, and greets behind that."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        try:
            connection.connect(str(path))
            return connection.recv(8) == b"NBDMAGIC"
        except OSError:
            return False


@pytest.fixture
def holding(tmp_path, image):
    """Run qemu-nbd on the image until the test ends; the argument says how it opens it."""
    started = []

    def start(*options):
        path = tmp_path / f"nbd{len(started)}"
        argv = [tool("qemu-nbd"), "--format=raw", "--persistent", f"--socket={path}", *options, str(image)]
        process = subprocess.Popen(argv)
        started.append(process)
        deadline = time.monotonic() + 60
        while not greets(path):
            assert process.poll() is None, "qemu-nbd ended"
            assert time.monotonic() < deadline, "qemu-nbd does not serve"
            time.sleep(0.02)
        return process

    yield start
    for process in started:
        process.kill()  # qemu-nbd loses a SIGTERM that comes before its main loop
        process.wait(60)


def qemu_io(image, command, *options, ok=(0,)):
    return run([tool("qemu-io"), "-f", "raw", *options, "-c", command, image], ok=ok)


def test_what_qemu_writes_to_we_do_not(image, holding):
    process = holding()
    with pytest.raises(InUse, match=rf"disk\.img: is in use: process {process.pid} \(qemu-nbd\) holds a lock"):
        FileDevice(image, writable=True)
    with pytest.raises(InUse):
        OutputFile(image, force=True)


def test_reading_what_qemu_writes_to_is_allowed(image, holding):
    holding()
    with FileDevice(image) as device:
        assert device.read(0, 10) == bytes(10)


def test_force_unlocked_overrides(image, holding):
    holding()
    with FileDevice(image, writable=True, force_unlocked=True) as device:
        device.write(0, b"x")


def test_it_is_free_when_qemu_has_gone(image, holding):
    process = holding()
    process.kill()
    process.wait(60)
    with FileDevice(image, writable=True) as device:
        device.write(0, b"x")


def test_what_we_write_to_qemu_does_not(image):
    with FileDevice(image, writable=True):
        assert 'Failed to get "write" lock' in qemu_io(image, "write 0 512", ok=(1,)).stderr
    assert "wrote 512/512" in qemu_io(image, "write 0 512").stdout


def test_what_we_write_to_qemu_may_read(image):
    with FileDevice(image, writable=True) as device:
        device.write(0, b"\x55" * 512)
        assert "read 512/512" in qemu_io(image, "read -P 0x55 0 512", "-r").stdout


def test_what_we_only_read_qemu_may_write_to(image):
    with FileDevice(image) as device:
        assert "wrote 512/512" in qemu_io(image, "write -P 0x66 0 512").stdout
        assert device.read(0, 1) == b"\x66"


def test_what_we_opened_unlocked_is_open_to_qemu(image):
    with FileDevice(image, writable=True, force_unlocked=True):
        assert "wrote 512/512" in qemu_io(image, "write 0 512").stdout


def test_two_writers_of_ours(image):
    with FileDevice(image, writable=True):
        with pytest.raises(InUse, match="this process holds a lock on it"):
            FileDevice(image, writable=True)
        with FileDevice(image):
            pass
    FileDevice(image, writable=True).close()


def test_a_refused_opener_leaves_no_lock_behind(image):
    with FileDevice(image, writable=True):
        with pytest.raises(InUse):
            FileDevice(image, writable=True)
        fd = os.open(image, os.O_RDWR)
        try:
            assert locks.lock(fd, locks.WRITING, locks.SHARED_BY_WRITER) is not None
        finally:
            os.close(fd)
    assert "wrote 512/512" in qemu_io(image, "write 0 512").stdout


def test_another_program_s_exclusive_lock_is_a_conflict_too(image):
    import fcntl

    fd = os.open(image, os.O_RDWR)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, locks._FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
        for writable in (False, True):
            with pytest.raises(InUse):
                FileDevice(image, writable=writable)
    finally:
        os.close(fd)


def test_a_file_system_without_locks_is_no_obstacle(image, monkeypatch):
    import errno
    import fcntl

    for number in (errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP):

        def refuse(*args, number=number):
            raise OSError(number, "no locks")

        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "fcntl", refuse)
            FileDevice(image, writable=True).close()

    def fail(*args):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "fcntl", fail)
    with pytest.raises(OSError, match="broken"):
        FileDevice(image, writable=True)


def test_holders_are_told_by_inode_and_not_by_name(image, tmp_path, holding):
    process = holding()
    other = tmp_path / "other name.img"
    os.link(image, other)
    with pytest.raises(InUse, match=f"process {process.pid} "):
        FileDevice(other, writable=True)
    decoy = tmp_path / "decoy.img"
    decoy.write_bytes(b"x")
    assert holders.processes(os.stat(decoy)) == []


def test_a_long_list_of_holders_is_cut():
    assert holders.named(["a", "b"]) == "a, b"
    assert holders.named(list("abcdefg")) == "a, b, c, d and 3 more"
