"""Network block devices in a kernel of our own: our server and nbdkit, attached, mounted, restarted, resized."""

import contextlib
import hashlib
import logging
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from blockwright.attach import nbd
from blockwright.device.file import open_path
from blockwright.device.memory import MemoryDevice
from blockwright.errors import InUse, KernelError, NotFound, NotSupported, UsageError
from blockwright.nbd.server.export import Export
from blockwright.system.linux import nbd as driver
from blockwright.system.linux.nbd import By, Control, Settings
from blockwright.system.linux.registry import Registry
from blockwright.units import KiB, MiB
from tests.support import nbdpeers
from tests.support.certificates import Authority, folder
from tests.support.command import COMMAND, blockwright, document
from tests.support.killed import killed_at_every_step
from tests.support.loops import sparse
from tests.support.runningserver import running
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


def test_what_is_no_whole_block_is_left_out_and_told(tmp_path, caplog):
    path = tmp_path / "odd"
    path.write_bytes(os.urandom(10_000))
    with by_unix(path) as server, nbd.attach(server.uri, logger=logging.getLogger("odd")) as attached:
        assert attached.state().size == 9728
        with open(attached.path, "rb") as file:
            assert file.read() == path.read_bytes()[:9728]
    told = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert told == [f"{attached.path}: the last 272 bytes of {server.uri} are no whole block, and left out"]


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


def test_writing_goes_on_through_restarts_of_our_server(image):
    pattern = os.urandom(64 * KiB)
    path = image.with_suffix(".sock")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(image, "--socket", path, code=None))
        # What was under way when a connection died is asked again after that time: 30 s where none is said.
        attached = stack.enter_context(nbd.attach(server.uri, connections=4, timeout_s=2))
        done, stop = [], threading.Event()

        def keep_writing():
            while not stop.is_set() and len(done) < SIZE // len(pattern):
                fd = os.open(attached.path, os.O_RDWR)
                try:
                    os.pwrite(fd, pattern, len(done) * len(pattern))
                    os.fsync(fd)
                finally:
                    os.close(fd)
                done.append(len(done))

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            for _ in range(2):
                before = len(done)
                eventually(lambda: len(done) > before or not writer.is_alive())  # noqa: B023 - called at once
                server.process.kill()
                server.wait()
                path.unlink(missing_ok=True)
                server = stack.enter_context(serving(image, "--socket", path, code=None))
        finally:
            after = len(done)
            eventually(lambda: len(done) > after or not writer.is_alive())
            stop.set()
            writer.join(PATIENCE_S)
        assert done
        count = len(done)
        attached.detach()
        assert image.read_bytes()[: count * len(pattern)] == pattern * count


def test_the_size_follows_the_servers(tmp_path, mount):
    path = tmp_path / "nbdkit.sock"
    small, large = sparse(tmp_path / "small", SIZE), sparse(tmp_path / "large", 2 * SIZE)
    with nbdpeers.running([tool("nbdkit"), "-f", "-U", path, "file", small], path) as server:
        with nbd.attach(server.uri()) as attached:
            assert attached.refresh() == SIZE
            os.truncate(small, 2 * SIZE)
            assert attached.refresh() == 2 * SIZE
            assert attached.state().size == 2 * SIZE
            with open(attached.path, "rb") as device:
                assert device.seek(0, os.SEEK_END) == 2 * SIZE
            os.truncate(small, SIZE)
            blockwright("nbd", "refresh", attached.path)
            assert attached.state().size == SIZE
            server.kill()
            server.argv[-1] = str(large)
            server.start()
            eventually(lambda: attached.state().size == 2 * SIZE)
        with pytest.raises(NotFound, match="is not attached to an address on record"):
            nbd.refresh(0)


def test_a_server_that_comes_back_with_less_is_not_taken(tmp_path):
    path = tmp_path / "nbdkit.sock"
    said = []

    class Logger:
        def debug(self, msg, *args):
            pass

        def info(self, msg, *args):
            pass

        def warning(self, msg, *args):
            said.append(msg % args)

    kit = [tool("nbdkit"), "-f", "-U", path, "memory", "32M"]
    with nbdpeers.running(kit, path) as server, nbd.attach(server.uri(), logger=Logger()) as attached:
        server.kill()
        server.argv[-1] = "16M"
        server.start()
        eventually(lambda: any("came back with less: expected at least 33554432" in each for each in said))
        assert attached.state().size == SIZE
        server.kill()
        server.argv[-1] = "32M"
        server.start()
        assert read(attached.path, 512) == bytes(512)


def test_read_only_takes_no_writes(image, mount):
    with (
        by_unix(image) as server,
        nbd.attach(server.uri, read_only=True) as attached,
        pytest.raises(PermissionError),
    ):
        write(attached.path, b"no")
    with by_unix(image, "--read-only") as server, nbd.attach(server.uri) as attached:
        assert attached.state().read_only
        assert document("nbd", "status")["devices"][0]["read_only"] is True


def test_a_device_in_use_stays_and_the_holder_is_named(image, mount, monkeypatch):
    with by_unix(image) as server, nbd.attach(server.uri) as attached:
        file_system_on(attached.path, mount)
        point = mount(attached.path, fstype="ext4", options="rw")
        failed = blockwright("nbd", "detach", attached.path, code=1).stderr.decode()
        assert failed == f"blockwright: {attached.path}: is in use: mounted on {point}\n"
        (point / "more").write_bytes(b"m" * 100_000)
        run(["umount", point])
        with open(attached.path, "rb") as device:
            holder = subprocess.Popen(["sleep", "100"], stdin=device)
        try:
            failed = blockwright("nbd", "detach", "--timeout", "0.2", attached.path, code=1).stderr.decode()
            assert f"{attached.path}: is in use: process {holder.pid} (sleep)" in failed
        finally:
            holder.kill()
            holder.wait()
        assert attached.state().size == SIZE
        blockwright("nbd", "detach", attached.path)
        assert attached.wait(PATIENCE_S), "whoever attached it is told"


def test_what_was_written_is_stored_when_it_is_detached(image):
    with by_unix(image) as server:
        attached = nbd.attach(server.uri)
        fd = os.open(attached.path, os.O_RDWR)
        os.pwrite(fd, b"in the page cache only", MiB)
        os.close(fd)
        attached.detach()
        assert image.read_bytes()[MiB : MiB + 22] == b"in the page cache only"


def test_one_process_serves_and_attaches(mount):
    with running([Export("", MemoryDevice(SIZE))]) as server, nbd.attach(server.uri) as attached:
        digest = file_system_on(attached.path, mount)
        assert digest_on(attached.path, mount) == digest


def test_what_takes_long_to_store_is_waited_for(tmp_path):
    with nbdpeers.nbdkit(tmp_path, "--threads=8", "--filter=delay", "memory", "32M", "wdelay=2") as server:
        attached = nbd.attach(server.uri(), connections=1)
        reader = os.open(attached.path, os.O_RDONLY)  # while it is open the kernel has no reason to store anything
        fd = os.open(attached.path, os.O_RDWR)
        for place in range(0, 40 * MiB // 4, 256 * KiB):
            os.pwrite(fd, b"x" * 4096, place)
        os.close(fd)
        timer = threading.Timer(0.5, os.close, [reader])
        timer.start()
        attached.detach(timeout_s=7.0)  # storing takes 10 s, and a guest that stands still for a while is no user
        timer.join()
        with nbd.attach(server.uri(), read_only=True) as again:
            assert read(again.path, 10 * MiB)[:: 256 * KiB] == b"x" * 40


def test_who_uses_it_behind_what_took_long_to_store_is_waited_for_too(image, monkeypatch):
    """As udevd does, which looks into a device that somebody wrote to: the time is counted from there."""
    stored = driver.detach.__globals__["_claimed"]
    limit_s = 4.0
    with by_unix(image) as server:
        attached = nbd.attach(server.uri)
        reader = os.open(attached.path, os.O_RDONLY)

        def slowly(*words):
            fd = stored(*words)
            time.sleep(limit_s + 0.1)
            threading.Timer(0.3, os.close, [reader]).start()
            return fd

        monkeypatch.setitem(driver.detach.__globals__, "_claimed", slowly)
        attached.detach(timeout_s=limit_s)


def test_the_server_is_told_to_store_it_when_it_is_detached(tmp_path):
    log = tmp_path / "log"
    with nbdpeers.nbdkit(tmp_path, "--filter=log", "memory", "32M", f"logfile={log}") as server:
        attached = nbd.attach(server.uri())
        fd = os.open(attached.path, os.O_RDWR)
        os.pwrite(fd, b"x" * 4096, MiB)
        os.close(fd)
        attached.detach()
        eventually(lambda: "Disconnect" in log.read_text())
        told = log.read_text()
        assert "Write" in told
        assert "Flush" in told.rpartition("Write")[2]


def test_a_server_that_does_not_answer(tmp_path):
    with nbdpeers.nbdkit(tmp_path, "--filter=delay", "memory", "32M", "rdelay=600") as server:
        with pytest.raises(TimeoutError, match=r"cannot be read after 0\.5 s"):
            nbd.attach(server.uri(), ready_timeout=0.5)
        assert list(driver.states()) == []
    with nbdpeers.nbdkit(tmp_path, "memory", "32M") as server:
        attached = nbd.attach(server.uri(), dead_timeout_s=600)
        fd = os.open(attached.path, os.O_RDWR)
        os.pwrite(fd, b"lost", 0)
        os.close(fd)
        server.kill()
        with pytest.raises(KernelError, match=r"has not answered for 0\.5 s, and what was written is not"):
            attached.detach(timeout_s=0.5)
        assert attached.state().size == SIZE
        attached.detach(force=True)


def test_requests_fail_when_nobody_comes_back_in_time(tmp_path):
    kit = nbdpeers.nbdkit(tmp_path, "memory", "32M")
    with kit as server, nbd.attach(server.uri(), dead_timeout_s=0) as attached:
        server.kill()
        eventually(lambda: fails(attached.path))
        server.start()
        eventually(lambda: not fails(attached.path))


def fails(path):
    try:
        read(path, 4096)
    except OSError:
        return True
    return False


def test_many_at_once_get_a_device_each(image):
    with by_unix(image) as server:
        found, threads = [], []
        for _ in range(8):
            threads.append(
                threading.Thread(target=lambda: found.append(nbd.attach(server.uri, connections=1, read_only=True)))
            )
            threads[-1].start()
        for each in threads:
            each.join(PATIENCE_S)
        assert len({each.path for each in found}) == 8
        assert [each.state.path for each in nbd.devices()] == sorted(each.path for each in found)
        for each in found:
            each.detach()


def test_inside_tls(tmp_path, mount):
    base = Authority(tmp_path / "authority")
    certificates = folder(
        tmp_path / "certificates",
        base,
        server=base.issue("s", server=True, hosts=["localhost"]),
        client=base.issue("alice", server=False),
    )
    arguments = ["--tls=require", f"--tls-certificates={certificates}", "--tls-verify-peer"]
    with nbdpeers.nbdkit(tmp_path, *arguments, "memory", "32M") as server:
        uri = server.uri().replace("nbd+unix", "nbds+unix")
        uri = f"{uri}&tls-certificates={certificates}&tls-hostname=localhost"
        with nbd.attach(uri, connections=2) as attached:
            digest = file_system_on(attached.path, mount)
            assert digest_on(attached.path, mount) == digest
            with pytest.raises(NotSupported, match="needs this process"):
                attached.keep()
            server.kill()
            server.start()
            assert read(attached.path, 4096) == bytes(4096), "memory is empty after a restart"


@pytest.mark.parametrize("more", [[], ["-nonetlink"]], ids=["netlink", "ioctl"])
def test_what_nbd_client_attached_is_seen_and_detached_by_us(tmp_path, more):
    with nbdpeers.nbdkit(tmp_path, "memory", "32M") as server:
        run([tool("nbd-client"), "-unix", server.path, "/dev/nbd2", *more])
        eventually(lambda: driver.state(2) is not None)
        found = list(nbd.devices())
        assert [(each.state.path, each.state.size, each.source, each.owner) for each in found] == [
            ("/dev/nbd2", SIZE, "", None)
        ]
        assert nbd.gc() == driver.Collected((), ()), "it is not ours"
        with pytest.raises(InUse, match="/dev/nbd2: is in use"):
            nbd.attach(server.uri(), "/dev/nbd2")
        assert nbd.detach("/dev/nbd2") is True
        assert list(nbd.devices()) == []


def test_what_we_attached_is_seen_and_detached_by_nbd_client(tmp_path):
    with nbdpeers.nbdkit(tmp_path, "memory", "32M") as server:
        attached = nbd.attach(server.uri(), "/dev/nbd2")
        assert run([tool("nbd-client"), "-c", "/dev/nbd2"]).stdout.strip() == str(attached.state().task)
        run([tool("nbd-client"), "-d", "/dev/nbd2"])
        assert attached.wait(PATIENCE_S)
        with pytest.raises(NotFound, match="is no longer the device that was attached here"):
            attached.state()
        attached.detach()
        with attaching(server.uri(), "--device", "/dev/nbd2"):
            run([tool("nbd-client"), "-d", "/dev/nbd2"])


# -- processes that look after a device ------------------------------------------------------------------------


@contextlib.contextmanager
def attaching(*arguments, code=0, **more):
    """`nbd attach` in the foreground: its process and its device; it must end with `code` unless that is None."""
    process = subprocess.Popen(
        [*COMMAND, "nbd", "attach", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **more},
    )
    try:
        path = process.stdout.readline().rstrip("\n")
        assert path, process.communicate(timeout=PATIENCE_S)
        yield process, path
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert code is None or process.returncode == code, errors
        assert "Traceback" not in errors
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_the_foreground_tells_systemd_and_ends_with_a_signal(image, tmp_path):
    pid_file = tmp_path / "pid"
    with by_unix(image) as server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_S)
        with attaching(server.uri, "--pid-file", pid_file, NOTIFY_SOCKET=str(tmp_path / "notify")) as (process, path):
            told = systemd.recv(4096).decode().splitlines()
            assert told == ["READY=1", f"STATUS=attached as {path}", f"MAINPID={process.pid}"]
            assert pid_file.read_text() == f"{process.pid}\n"
            found = document("nbd", "status")["devices"]
            assert [(each["path"], each["size"], each["source"]) for each in found] == [(path, SIZE, server.uri)]
            assert (found[0]["owner"], found[0]["alive"], found[0]["connections"]) == (process.pid, True, 4)
            assert path in blockwright("nbd", "status").stdout.decode()
            process.send_signal(signal.SIGTERM)
            assert systemd.recv(4096) == b"STOPPING=1"
        assert not pid_file.exists()
        assert document("nbd", "status")["devices"] == []
        blockwright("nbd", "status", path, code=5)


def test_a_signal_waits_for_who_uses_the_device(image, mount):
    with by_unix(image) as server:
        with attaching(server.uri) as (process, path):
            file_system_on(path, mount)
            point = mount(path, fstype="ext4")
            process.send_signal(signal.SIGINT)
            eventually(lambda: f"{path}: is in use: mounted on {point}" in process.stderr.readline())
            assert process.poll() is None
            run(["umount", point])
        assert list(driver.states()) == []
        with attaching(server.uri, code=130) as (process, path):
            point = mount(path, fstype="ext4")
            process.send_signal(signal.SIGTERM)
            eventually(lambda: "is in use" in process.stderr.readline())
            process.send_signal(signal.SIGTERM)
        assert (point / "file").stat().st_size == 300_000, "the kernel goes on without the process"
        run(["umount", point])
        assert blockwright("nbd", "gc").stdout.decode() == f"{path}\n"


def test_the_background_process_ends_when_others_detach(image, tmp_path):
    pid_file = tmp_path / "pid"
    with by_unix(image) as server:
        (started,) = document("nbd", "attach", server.uri, "--background", "--pid-file", pid_file)["devices"]
        path, pid = started["path"], int(pid_file.read_text())
        assert (started["size"], started["source"], started["owner"]) == (SIZE, server.uri, pid)
        assert document("nbd", "status", path)["devices"][0]["owner"] == pid
        blockwright("nbd", "detach", path)
        eventually(lambda: not pid_file.exists())
        eventually(lambda: not os.path.exists(f"/proc/{pid}/fd/0"))
    failed = blockwright("nbd", "attach", server.uri, "--background", code=5)
    assert b"nobody listens there" in failed.stderr


def test_a_killed_process_leaves_a_device_that_gc_finds(image, mount):
    with by_unix(image) as server:
        digests = []
        for end in (["nbd", "gc"], ["nbd", "detach", "/dev/nbd7"]):
            with attaching(server.uri, "--device", "/dev/nbd7", code=-signal.SIGKILL) as (process, path):
                digests.append(file_system_on(path, mount))
                process.kill()
            assert digest_on(path, mount) == digests[-1], "the kernel goes on without the process"
            assert document("nbd", "status")["devices"][0]["alive"] is False
            blockwright(*end)
            assert list(driver.states()) == []
        with nbd.attach(server.uri) as attached:
            assert nbd.gc() == driver.Collected((), ()), "what belongs to a living process stays"
            assert attached.state().size == SIZE
        kept = nbd.attach(server.uri)
        assert nbd.gc() == driver.Collected((), ())
        kept.detach()


def test_killed_at_every_step_nothing_stays(tmp_path):
    with nbdpeers.nbdkit(tmp_path, "memory", "1M") as server:
        theirs = nbd.attach(server.uri(), "/dev/nbd9")

        def attach_and_detach():
            nbd.attach(server.uri(), connections=1, owned=True).detach()

        attach_and_detach()
        steps, collected = 0, 0
        for _ in killed_at_every_step(attach_and_detach, steps={"socket.sendto", "open", "os.remove"}):
            steps += 1
            collected += len(nbd.gc().detached)
            assert [each.number for each in driver.states()] == [9]
            assert len(list(Registry("nbd").records())) == 1
        assert steps > 10
        assert collected > 5
        theirs.detach()


def test_a_driver_given_nothing_it_can_use(tmp_path):
    file = os.open(sparse(tmp_path / "file", SIZE), os.O_RDWR)
    try:
        with Control() as control, pytest.raises(KernelError, match="/dev/nbd3: NBD_CMD_CONNECT: "):
            control.connect(Settings(SIZE), [file], 3)
    finally:
        os.close(file)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(UsageError, match="expected one connection to a server that allows no more"):
        driver.attach([ours, theirs], Settings(SIZE))
    with pytest.raises(UsageError, match="expected a network block device such as /dev/nbd0"):
        driver.detach("/dev/loop0")
