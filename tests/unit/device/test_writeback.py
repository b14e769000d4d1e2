"""What was written is flushed beside the writing, and a flush that fails is never lost."""

import threading

import pytest

from blockwright.device.base import Traits
from blockwright.device.copy import copy
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.writeback import STEP, WriteBack
from blockwright.format.output import ImageOptions, finish, new_image
from blockwright.testing.recording import RecordingDevice
from blockwright.units import MiB


class Slow(MemoryDevice):
    """A device whose flush lasts until it is let go."""

    def __init__(self):
        super().__init__(1)
        self.go = threading.Event()
        self.flushes = 0

    def _flush(self):
        self.flushes += 1
        assert self.go.wait(60)


def one_at_a_time() -> Traits:
    return Traits(writable=True, parallelism=1)


class Failing(MemoryDevice):
    def _flush(self):
        raise OSError(5, "Input/output error")


def no_thread_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name == "write back"]


def test_each_step_is_flushed_once():
    device = RecordingDevice(MemoryDevice(1))
    with WriteBack(device) as medium:
        medium.wrote(STEP - 1)
        assert device.named("flush") == []
        medium.wrote(STEP)
    assert len(device.named("flush")) == 1
    assert no_thread_left()


def test_a_flush_under_way_is_the_only_one():
    device = Slow()
    with WriteBack(device) as medium:
        for done in range(1, 6):
            medium.wrote(done * STEP)
        device.go.set()
    assert device.flushes == 1
    assert no_thread_left()


def test_a_device_for_one_caller_is_left_alone():
    device = RecordingDevice(MemoryDevice(1), traits=one_at_a_time())
    with WriteBack(device) as medium:
        medium.wrote(100 * STEP)
    assert device.named("flush") == []


def test_a_flush_that_fails_is_told_at_the_end():
    with pytest.raises(OSError, match="Input/output"), WriteBack(Failing(1)) as medium:
        medium.wrote(STEP)
    assert no_thread_left()


def test_a_flush_that_fails_is_told_by_the_next_step():
    medium = WriteBack(Failing(1))
    medium.wrote(STEP)
    assert medium._thread is not None
    medium._thread.join()
    with pytest.raises(OSError, match="Input/output"):
        medium.wrote(2 * STEP)


def test_what_ended_the_work_counts_before_a_flush_that_failed():
    def stopped() -> None:
        with WriteBack(Failing(1)) as medium:
            medium.wrote(STEP)
            raise KeyError

    with pytest.raises(KeyError):
        stopped()
    assert no_thread_left()


def test_a_copy_flushes_beside_itself_where_it_is_asked_to():
    source = MemoryDevice(content=bytes(range(256)) * (40 * MiB // 256))
    target = RecordingDevice(MemoryDevice(source.size))
    copy(source, target, write_back=True)
    assert target.named("flush")
    assert target.read(0, source.size) == source.read(0, source.size)
    with pytest.raises(OSError, match="Input/output"):
        copy(source, Failing(source.size), write_back=True)


def test_a_new_image_has_its_file_flushed_and_not_its_tables(tmp_path, monkeypatch):
    begun = []
    with FileDevice(tmp_path / "image", create=True) as file:
        monkeypatch.setattr(file, "_begin_flush", lambda: begun.append(file.size))
        with new_image(file, 40 * MiB, ImageOptions("qcow2")) as image:
            image.write(0, b"x" * MiB)
            tables = file.read(0, 3 << 16)
            image.begin_flush()
            assert len(begun) == 1
            assert file.read(0, 3 << 16) == tables, "tables wait for a flush"
            finish(image)
        assert file.read(0, 3 << 16) != tables


def test_a_file_is_on_its_way(tmp_path):
    with FileDevice(tmp_path / "file", create=True) as device:
        device.resize(MiB)
        device.write(0, b"x" * MiB)
        device.begin_flush()
        device.flush()
        assert device.read(0, MiB) == b"x" * MiB
