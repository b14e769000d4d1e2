"""A stream of bytes that is written front to back, and one that is read to its end."""

import io
import os
import threading

import pytest

from blockwright.device.once import OnceDevice
from blockwright.device.pipe import PipeDevice
from blockwright.device.spool import scratch_device, spool
from blockwright.errors import NotSupported, OutOfRange
from blockwright.units import MiB


def test_what_is_left_out_are_zeros():
    stream = io.BytesIO()
    with PipeDevice(stream, 3 * MiB) as pipe:
        pipe.write(5, b"ab", b"c")
        pipe.zero(8, 100)
        pipe.write(2 * MiB, b"d")
        pipe.finish()
        pipe.finish()
    want = bytearray(3 * MiB)
    want[5:8], want[2 * MiB : 2 * MiB + 1] = b"abc", b"d"
    assert stream.getvalue() == want


def test_nobody_goes_back():
    stream = io.BytesIO()
    pipe = PipeDevice(stream, 100)
    pipe.write(10, b"x")
    for change in (lambda: pipe.write(10, b"y"), lambda: pipe.zero(0, 5), lambda: pipe.read(0, 1)):
        with pytest.raises(NotSupported):
            change()
    with pytest.raises(OutOfRange):
        pipe.write(99, b"xy")
    pipe.finish()
    with pytest.raises(NotSupported):
        pipe.write(50, b"late")
    assert isinstance(pipe, OnceDevice)
    assert len(stream.getvalue()) == 100


def test_a_stream_that_takes_little_at_once():
    class Slow(io.RawIOBase):
        def __init__(self):
            self.taken = bytearray()

        def writable(self):
            return True

        def write(self, data):
            self.taken += bytes(data[:7])
            return len(data[:7])

    slow = Slow()
    with PipeDevice(slow, 1000) as pipe:
        pipe.write(3, bytes(range(200)))
        pipe.finish()
    assert slow.taken == bytes(3) + bytes(range(200)) + bytes(797)


def test_a_pipe_is_spooled_and_its_zeros_are_holes():
    data = b"head" + bytes(20 * MiB) + b"tail"
    reading, writing = os.pipe()

    def feed():
        with os.fdopen(writing, "wb") as out:
            out.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb") as stream, spool(stream, "input") as device:
        assert device.size == len(data)
        assert device.read(0, len(data)) == data
        assert sum(each.length for each in device.extents() if not each.flags) < MiB
    thread.join()


def test_a_file_is_taken_as_it_lies(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with open(path, "rb") as stream:
        with spool(stream, "input") as device:
            assert os.fstat(device._fd).st_ino == path.stat().st_ino
            assert device.read(0, 7) == b"content"
        stream.read(3)
        with spool(stream, "input") as device:
            assert device.read(0, 4) == b"tent"


def test_a_scratch_file_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_device("scratch") as device:
        device.resize(MiB)
        device.write(5, b"x")
        assert device.read(4, 3) == b"\0x\0"
        assert list(tmp_path.iterdir()) == []
