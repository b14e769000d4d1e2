import io
import os
import tempfile

import pytest

from blockwright.device.adapter import BinaryFileDevice, ObjectDevice
from blockwright.errors import Misaligned, ReadOnly, SourceChanged, UsageError
from blockwright.testing import check_device
from tests.support.devices import Store

CONTENT = bytes(range(256)) * 8


class Positioned:
    """Spelled as os.pread and os.pwrite are."""

    length = len(CONTENT)

    def __init__(self):
        self.content = bytearray(CONTENT)

    def pread(self, length, offset):
        return memoryview(self.content)[offset : offset + length]

    def pwrite(self, data, offset):
        self.content[offset : offset + len(data)] = data


class Filling:
    """Fills buffers, says its size by len(), and writes at an offset."""

    def __init__(self):
        self.content = bytearray(CONTENT)

    def __len__(self):
        return len(self.content)

    def readinto_at(self, offset, buffer):
        buffer[:] = self.content[offset : offset + len(buffer)]

    def writeat(self, offset, data):
        self.content[offset : offset + len(data)] = data
        return len(data)


@pytest.mark.parametrize("kind", [Positioned, Filling, lambda: Store(CONTENT)])
def test_spellings(kind):
    check_device(lambda: ObjectDevice(kind()), CONTENT, operations=40)


def test_several_threads_where_the_object_takes_them():
    check_device(lambda: ObjectDevice(Filling(), parallelism=4), CONTENT, operations=40)


def test_short_transfers_are_continued():
    store = Store(CONTENT)
    device = ObjectDevice(store)
    assert device.read(0, len(CONTENT)) == CONTENT
    device.write(1, b"x" * 2000)
    assert store.content[:2002] == CONTENT[:1] + b"x" * 2000 + CONTENT[2001:2002]


def test_sync_and_close():
    store = Store(CONTENT)
    device = ObjectDevice(store)
    device.flush()
    device.write(0, b"x", durable=True)
    assert store.synced == 2
    device.close()
    assert store.closed == 1
    ObjectDevice(store, owns=False).close()
    assert store.closed == 1
    ObjectDevice(store, writable=False).flush()
    assert store.synced == 2


def test_an_object_that_only_reads():
    class Reads:
        size = len(CONTENT)

        def read_at(self, offset, length):
            return CONTENT[offset : offset + length]

    device = ObjectDevice(Reads(), minimum_block=512)
    assert device.read(512, 512) == CONTENT[512:1024]
    with pytest.raises(ReadOnly):
        device.write(0, CONTENT[:512])
    with pytest.raises(Misaligned):
        device.read(1, 1)
    device.flush()
    with pytest.raises(UsageError, match="has none of write_at"):
        ObjectDevice(Reads(), writable=True)


def test_what_an_object_lacks_is_said():
    with pytest.raises(UsageError, match="object has none of readinto_at"):
        ObjectDevice(object())

    class Sizeless:
        def read_at(self, offset, length):
            return bytes(length)

    with pytest.raises(UsageError, match="Sizeless has none of size"):
        ObjectDevice(Sizeless())
    assert ObjectDevice(Sizeless(), size=7).read(0, 7) == bytes(7)


@pytest.mark.parametrize("answer", [b"", b"x" * 11, 0, -1, 11])
def test_transfers_of_nothing_or_too_much_are_errors(answer):
    class Odd:
        size = 10

        def read_at(self, offset, length):
            return answer if isinstance(answer, bytes) else bytes(length)

        def write_at(self, offset, data):
            return answer if isinstance(answer, int) else len(data)

    device = ObjectDevice(Odd())
    with pytest.raises(SourceChanged, match="expected 1 to 10 bytes"):
        device.read(0, 10) if isinstance(answer, bytes) else device.write(0, bytes(10))


class TestBinaryFile:
    @pytest.mark.parametrize("answer", [None, 0])
    def test_a_file_that_takes_nothing(self, answer):
        class Full(io.BytesIO):
            def write(self, data):
                return answer

        with pytest.raises(SourceChanged, match="1 to 10 bytes to be written"):
            BinaryFileDevice(Full(CONTENT)).write(0, bytes(10))

    def test_bytes_io(self):
        check_device(lambda: BinaryFileDevice(io.BytesIO(CONTENT)), CONTENT, operations=40)

    @pytest.mark.parametrize("buffering", [0, -1])
    def test_a_file_of_the_host(self, tmp_path, buffering):
        def make():
            (tmp_path / "file").write_bytes(CONTENT)
            return BinaryFileDevice(open(tmp_path / "file", "r+b", buffering=buffering))

        check_device(make, CONTENT, operations=40)

    def test_a_file_without_readinto(self):
        class Reads(io.RawIOBase):
            def __init__(self):
                self.inner = io.BytesIO(CONTENT)

            def __getattribute__(self, name):
                if name == "readinto":
                    raise AttributeError(name)
                return super().__getattribute__(name)

            def read(self, count=-1):
                return self.inner.read(min(count, 100))

            def seek(self, offset, whence=0):
                return self.inner.seek(offset, whence)

            def seekable(self):
                return True

        device = BinaryFileDevice(Reads())
        assert device.read(0, len(CONTENT)) == CONTENT
        assert not device.traits.writable

    def test_flush_reaches_the_disk(self, monkeypatch):
        synced = []
        with tempfile.TemporaryFile() as file:
            file.write(CONTENT)
            device = BinaryFileDevice(file, owns=False)
            monkeypatch.setattr(os, "fsync", synced.append)
            device.write(0, b"new", durable=True)
            assert synced == [file.fileno()]
            assert os.pread(file.fileno(), 3, 0) == b"new"
            device.close()
            assert not file.closed

    def test_a_file_that_ends_early(self):
        file = io.BytesIO(CONTENT)
        device = BinaryFileDevice(file)
        file.truncate(100)
        with pytest.raises(SourceChanged, match="found an end at 100"):
            device.read(50, 100)

    def test_a_file_that_cannot_seek(self):
        reading, writing = os.pipe()
        with open(writing, "wb"), open(reading, "rb") as file, pytest.raises(UsageError, match="seek"):
            BinaryFileDevice(file)

    def test_it_owns_the_file_unless_told_otherwise(self):
        file = io.BytesIO(CONTENT)
        BinaryFileDevice(file, owns=False).close()
        assert not file.closed
        BinaryFileDevice(file, writable=False).close()
        assert file.closed


@pytest.mark.parametrize("size", [-1, 1 << 63, 1.5, None, "7"])
def test_a_size_that_no_device_has_is_refused(size):
    class Wrong(Positioned):
        length = None

        def size(self):
            return size

    with pytest.raises(UsageError, match="expected a size of 0 to"):
        ObjectDevice(Wrong())
