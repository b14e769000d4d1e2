import errno
import os
import stat
import sys

import pytest

from blockwright.device import DATA, HOLE, ZERO, Extent, FileRun, Waits, fallocate, hostfile
from blockwright.device.file import FileDevice, HostBlockDevice, open_path
from blockwright.device.window import Window
from blockwright.errors import Closed, InUse, NotSupported, ReadOnly, SourceChanged, UsageError
from blockwright.units import MAX_SIZE, MiB

pytestmark = pytest.mark.unprivileged
linux = pytest.mark.skipif(sys.platform != "linux", reason="what Linux can")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "disk.img"


def allocated(path):
    return os.stat(path).st_blocks * 512


def test_reading_is_the_default(path):
    path.write_bytes(b"hello")
    with open_path(path) as device:
        assert isinstance(device, FileDevice)
        assert device.size == 5
        assert device.name == str(path)
        assert device.read(1, 3) == b"ell"
        assert not device.traits.writable
        with pytest.raises(ReadOnly):
            device.write(0, b"x")
        with pytest.raises(ReadOnly):
            device.resize(9)
        device.flush()
    with pytest.raises(Closed):
        device.read(0, 1)


def test_create_refuses_what_exists_and_makes_an_empty_file(path):
    with FileDevice(path, create=True, mode=0o640) as device:
        assert device.size == 0
        assert device.traits.writable
        device.resize(10 * MiB)
        device.write(5 * MiB, b"x")
    assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0
    assert path.stat().st_size == 10 * MiB
    assert allocated(path) < MiB
    with pytest.raises(FileExistsError):
        FileDevice(path, create=True)


def test_what_is_no_file_is_refused_and_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("", "directory"), ("pipe", "pipe")):
        with pytest.raises(UsageError, match=f"found a {kind}"):
            open_path(tmp_path / name)
    with pytest.raises(UsageError, match="found a character device"):
        FileDevice("/dev/null", writable=True)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="expected a block device, found a regular file"):
        HostBlockDevice(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        open_path(tmp_path / "missing")


def test_a_failed_opening_leaves_no_descriptor(tmp_path):
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        HostBlockDevice(tmp_path / "file")
    first = FileDevice(tmp_path / "file", writable=True)
    with pytest.raises(InUse):
        FileDevice(tmp_path / "file", writable=True)
    first.close()
    if before:
        assert set(os.listdir("/proc/self/fd")) == before


def test_a_file_cut_off_by_others_is_an_error_and_not_zeros(path):
    path.write_bytes(b"x" * 100)
    with FileDevice(path) as device:
        os.truncate(path, 60)
        assert device.read(0, 60) == b"x" * 60
        with pytest.raises(SourceChanged, match="expected 100 bytes, found an end at 60"):
            device.read(50, 20)
        assert list(device.extents()) == [Extent(0, 100, DATA)]


def test_an_error_of_the_host_names_the_file(path):
    with FileDevice(path, create=True, name="the output") as device:
        device.resize(100)
        os.close(device._fd)
        replaced = os.open("/dev/full", os.O_RDWR)
        os.dup2(replaced, device._fd)
        if replaced != device._fd:
            os.close(replaced)
        with pytest.raises(OSError, match="the output") as caught:
            device.write(0, b"x")
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == "the output"


def test_the_backing_is_the_file(path):
    path.write_bytes(b"0123456789")
    with FileDevice(path) as device, device.backing(2, 5) as runs:
        assert runs == (FileRun(device._fd, 2, 5, writable=False),)
        assert os.pread(runs[0].fd, 5, 2) == b"23456"
    with FileDevice(path, writable=True) as device, device.backing(2, 5) as runs:
        assert runs[0].writable


def test_resize_past_the_largest_size_is_refused(path):
    with FileDevice(path, create=True) as device, pytest.raises(UsageError):
        device.resize(MAX_SIZE + 1)


@linux
class TestHoles:
    def test_extents_are_those_of_the_file_system(self, path):
        with FileDevice(path, create=True) as device:
            device.resize(10 * MiB)
            device.write(3 * MiB, b"x" * MiB)
            assert list(device.extents()) == [
                Extent(0, 3 * MiB, HOLE | ZERO),
                Extent(3 * MiB, MiB, DATA),
                Extent(4 * MiB, 6 * MiB, HOLE | ZERO),
            ]
            assert list(device.extents(3 * MiB + 5, 10)) == [Extent(3 * MiB + 5, 10, DATA)]
            assert list(device.extents(5 * MiB, 5)) == [Extent(5 * MiB, 5, HOLE | ZERO)]

    def test_zero_makes_a_hole_where_it_may(self, path):
        with FileDevice(path, create=True) as device:
            device.resize(4 * MiB)
            device.write(0, b"x" * 4 * MiB)
            device.flush()
            device.zero(MiB, MiB, fast_only=True)
            assert allocated(path) <= 3 * MiB + 65536
            assert device.read(MiB - 1, 2) == b"x\0"
            assert device.read(2 * MiB - 1, 2) == b"\0x"

    def test_zero_keeps_the_space_where_it_must(self, path):
        with FileDevice(path, create=True) as device:
            device.resize(4 * MiB)
            device.write(0, b"x" * 4 * MiB)
            device.flush()
            before = allocated(path)
            device.zero(MiB, MiB, may_unmap=False, durable=True)
            assert allocated(path) >= before - 65536
            assert device.read(MiB, MiB) == bytes(MiB)

    def test_discard_gives_space_back(self, path):
        with FileDevice(path, create=True) as device:
            device.resize(4 * MiB)
            device.write(0, b"x" * 4 * MiB)
            device.flush()
            device.discard(0, 3 * MiB, durable=True)
            assert allocated(path) <= MiB + 65536


class TestHostsThatCannot:
    """A file system without holes, and an operating system without calls: the same bytes, more slowly."""

    def test_no_seek_data(self, path, monkeypatch):
        path.write_bytes(bytes(3 * MiB))
        lseek = os.lseek

        def refuse(fd, offset, how):
            if how in (getattr(os, "SEEK_DATA", 3), getattr(os, "SEEK_HOLE", 4)):
                raise OSError(errno.EINVAL, "no")
            return lseek(fd, offset, how)

        monkeypatch.setattr(os, "lseek", refuse)
        with FileDevice(path) as device:
            assert list(device.extents()) == [Extent(0, 3 * MiB, DATA)]

    def test_seek_data_that_fails_is_not_hidden(self, path, monkeypatch):
        path.write_bytes(b"x")

        def fail(fd, offset, how):
            raise OSError(errno.EIO, "broken")

        with FileDevice(path) as device:
            monkeypatch.setattr(os, "lseek", fail)
            with pytest.raises(OSError, match=str(path)):
                list(device.extents())

    def test_no_fallocate(self, path, monkeypatch):
        path.write_bytes(b"x" * 3000)
        monkeypatch.setattr(fallocate, "_library_function", lambda: None)
        with FileDevice(path, writable=True) as device:
            assert not device.traits.fast_zero
            assert not device.traits.discard
            with pytest.raises(NotSupported):
                device.zero(0, 10, fast_only=True)
            device.zero(5, 2000)
            device.discard(2500, 100)
            assert device.read(0, 3000) == b"x" * 5 + bytes(2000) + b"x" * 995

    def test_fallocate_that_says_it_cannot(self, path, monkeypatch):
        path.write_bytes(b"x" * 3000)
        with FileDevice(path, writable=True) as device:
            monkeypatch.setattr(fallocate, "_library_function", lambda: lambda *args: errno.EOPNOTSUPP)
            if device.traits.fast_zero:
                with pytest.raises(NotSupported):
                    device.zero(0, 10, fast_only=True)
            assert device.read(0, 10) == b"x" * 10
            device.zero(5, 2000)
            assert device.read(0, 3000) == b"x" * 5 + bytes(2000) + b"x" * 995

    def test_fallocate_that_fails_is_not_hidden(self, path, monkeypatch):
        path.write_bytes(b"x" * 3000)
        with FileDevice(path, writable=True) as device:
            if not device.traits.fast_zero:
                pytest.skip("this file system punches no holes")
            monkeypatch.setattr(fallocate, "_library_function", lambda: lambda *args: errno.EIO)
            for call in (device.zero, device.discard):
                with pytest.raises(OSError, match=str(path)):
                    call(0, 10)

    def test_no_vectored_calls(self, path, monkeypatch):
        monkeypatch.setattr(hostfile, "_VECTORED", False)
        monkeypatch.setattr(hostfile, "HAS_FUA", False)
        with FileDevice(path, create=True) as device:
            device.resize(100)
            device.write(10, b"abc", b"", b"defg", durable=True)
            parts = [bytearray(2), bytearray(6)]
            device.read_into(9, *parts)
            assert b"".join(parts) == b"\0abcdefg"
            os.truncate(path, 12)
            with pytest.raises(SourceChanged):
                device.read_into(9, *parts)


class TestTransfers:
    """Every way in which the host may do less than it was asked."""

    def short(self, monkeypatch, most):
        preadv, pwritev = os.preadv, os.pwritev

        def cut(buffers):
            left, kept = most, []
            for buffer in buffers:
                kept.append(buffer[:left])
                left -= len(kept[-1])
            return kept

        monkeypatch.setattr(os, "preadv", lambda fd, buffers, *rest: preadv(fd, cut(buffers), *rest))
        monkeypatch.setattr(os, "pwritev", lambda fd, buffers, *rest: pwritev(fd, cut(buffers), *rest))

    @pytest.mark.parametrize("most", [1, 7, 100])
    def test_short_transfers_are_continued(self, path, monkeypatch, most):
        self.short(monkeypatch, most)
        content = os.urandom(500)
        with FileDevice(path, create=True) as device:
            device.resize(600)
            device.write(50, content[:1], content[1:300], b"", content[300:])
            parts = [bytearray(299), bytearray(0), bytearray(201)]
            device.read_into(50, *parts)
        assert b"".join(parts) == content

    def test_more_buffers_than_one_call_takes(self, path):
        count = 3 * hostfile.IOV_MAX + 1
        content = os.urandom(count * 3)
        with FileDevice(path, create=True) as device:
            device.resize(len(content))
            device.write(0, *(content[i * 3 : i * 3 + 3] for i in range(count)))
            parts = [bytearray(3) for _ in range(count)]
            device.read_into(0, *parts)
        assert b"".join(parts) == content

    def test_more_bytes_than_one_call_takes(self, path, monkeypatch):
        monkeypatch.setattr(hostfile, "MAX_TRANSFER", 1000)
        monkeypatch.setattr(hostfile, "MAX_CACHED", 700)
        content = os.urandom(5500)
        with FileDevice(path, create=True) as device:
            device.resize(len(content))
            device.write(0, content[:3000], content[3000:])
            assert device.read(0, 5500) == content

    def test_a_long_write_is_in_pieces_that_the_cache_takes_well(self, path, monkeypatch):
        lengths = []
        write = hostfile._write_some

        def record(fd, offset, buffers, *, durable):
            lengths.append(sum(map(len, buffers)))
            return write(fd, offset, buffers, durable=durable)

        monkeypatch.setattr(hostfile, "_write_some", record)
        content = os.urandom(3 * hostfile.MAX_CACHED + 5)
        with FileDevice(path, create=True) as device:
            device.resize(len(content))
            device.write(0, content[:1000], content[1000:])
            assert device.read(0, len(content)) == content
        assert lengths == [*[hostfile.MAX_CACHED] * 3, 5]

    @linux
    def test_a_durable_write_is_one_call(self, path, monkeypatch):
        flags = []
        pwritev = os.pwritev

        def record(fd, buffers, offset, flag=0):
            flags.append(flag)
            return pwritev(fd, buffers, offset, flag)

        monkeypatch.setattr(os, "pwritev", record)
        with FileDevice(path, create=True) as device:
            device.resize(8)
            device.write(0, b"abc", durable=True)
            device.write(0, b"abc")
        assert flags == [os.RWF_DSYNC, 0]


@linux
def test_what_is_cached_is_ready_and_what_is_not_is_not(path):
    path.write_bytes(bytes(range(256)) * 4096)
    with open_path(path) as device:
        if device.traits.waits is not Waits.SOMETIMES:
            pytest.skip("this file system does not tell what is cached")
        buffer = bytearray(8192)
        device.read_into(4096, buffer)
        assert device.read_ready(4096, buffer)
        assert buffer == device.read(4096, 8192)
        os.fsync(device._fd)
        os.posix_fadvise(device._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert not device.read_ready(512 * 1024, buffer)


def test_opening_for_writing_does_not_modify(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, ns=(5_000_000_000, 7_000_000_001))
    FileDevice(path, writable=True).close()
    assert path.stat().st_mtime_ns == 7_000_000_001


def test_what_others_add_is_seen_when_asked_for_and_what_they_cut_off_is_not(path):
    path.write_bytes(b"abc")
    with open_path(path) as device, Window(device, 0, owns=False) as part:
        with open(path, "ab") as file:
            file.write(b"def")
        assert device.size == 3
        assert part.refresh() == 3
        assert (device.refresh(), device.size) == (6, 6)
        assert device.read(3, 3) == b"def"
        os.truncate(path, 1)
        assert device.refresh() == 6


@linux
def test_a_file_without_an_end_is_named():
    with pytest.raises(OSError, match="/proc/self/mem"), open_path("/proc/self/mem") as device:
        device.refresh()
