import errno
import io
import tarfile
import zipfile

import pytest

from blockwright.device.adapter import BinaryFileDevice, ObjectDevice
from blockwright.device.fileobject import DeviceFile
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import UsageError
from blockwright.testing import check_device
from tests.support.devices import Store

CONTENT = bytes(range(256)) * 8


def test_reads_and_seeks_as_files_do():
    ours, theirs = DeviceFile(MemoryDevice(content=CONTENT)), io.BytesIO(CONTENT)
    for call in [
        lambda file: file.read(3),
        lambda file: file.seek(-5, io.SEEK_END),
        lambda file: file.read(100),
        lambda file: file.read(),
        lambda file: file.seek(10_000),
        lambda file: file.read(1),
        lambda file: file.seek(2),
        lambda file: file.seek(7, io.SEEK_CUR),
        lambda file: file.tell(),
        lambda file: file.readline(),
        lambda file: file.read(0),
        lambda file: file.readall() if hasattr(file, "readall") else file.read(),
        lambda file: (file.readable(), file.seekable(), file.writable()),
    ]:
        assert call(ours) == call(theirs)


def test_writes_to_the_end_and_not_behind_it():
    device = MemoryDevice(1000)
    with DeviceFile(device, owns=False) as file:
        file.seek(998)
        assert file.write(b"abcd") == 2
        with pytest.raises(OSError) as caught:
            file.write(b"c")
        assert caught.value.errno == errno.ENOSPC
        assert file.write(b"") == 0
        with pytest.raises(io.UnsupportedOperation):
            file.truncate(10)
    assert not device.closed
    assert device.read(996, 4) == b"\0\0ab"


def test_closing_closes_what_it_owns_and_flushes_first():
    store = Store(CONTENT)
    device = ObjectDevice(store)
    file = DeviceFile(device)
    file.write(b"x")
    file.close()
    file.close()
    assert device.closed
    assert (store.synced, store.closed) == (1, 1)
    for call in (file.tell, file.readable, lambda: file.read(1), lambda: file.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_a_read_only_device_is_a_read_only_file():
    with DeviceFile(BinaryFileDevice(io.BytesIO(CONTENT), writable=False)) as file:
        assert not file.writable()
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")


def test_wrong_positions_are_refused():
    file = DeviceFile(MemoryDevice(10))
    for offset, whence in ((-1, 0), (-11, 2), (0, 9)):
        with pytest.raises(UsageError):
            file.seek(offset, whence)


def test_there_and_back_is_a_device():
    def make():
        return BinaryFileDevice(DeviceFile(MemoryDevice(content=CONTENT)))

    check_device(make, CONTENT, operations=40)


def test_libraries_take_it():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", b"zip" * 1000)
    disk = MemoryDevice(1 << 20)
    disk.write(4096, packed.getvalue())
    part = Window(disk, 4096, len(packed.getvalue()))
    with zipfile.ZipFile(DeviceFile(part)) as archive:
        assert archive.read("a") == b"zip" * 1000
    with tarfile.open(fileobj=DeviceFile(MemoryDevice(1 << 20)), mode="w") as out:
        out.addfile(tarfile.TarInfo("empty"))
