"""Contents that lie in devices: what is read, what is verified, what the kernel may copy."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import SourceChanged
from blockwright.tree.content import BytesContent, DeviceContent, DeviceRange, PlacedContent, PlacedRun
from blockwright.tree.identity import verifier
from tests.support.trees import content_bytes

DATA = bytes(range(256)) * 8


@given(st.data())
def test_a_range_of_a_device(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 1000))
    size = data.draw(st.integers(0, 1000))
    content = DeviceRange(MemoryDevice(content=DATA), size, start)
    low = data.draw(st.integers(0, size))
    view = memoryview(bytearray(data.draw(st.integers(0, size - low))))
    content.read_into(low, view)
    assert bytes(view) == DATA[start + low : start + low + len(view)]
    assert content.runs() == (((0, size),) if size else ())


@given(st.data())
def test_runs_of_a_device(data: st.DataObject) -> None:
    runs, starts, end = [], [], 0
    for _ in range(data.draw(st.integers(0, 4))):
        offset = end + data.draw(st.integers(1, 50))
        length = data.draw(st.integers(1, 50))
        runs.append((offset, length))
        starts.append(data.draw(st.integers(0, 1000)))
        end = offset + length
    size = end + data.draw(st.integers(0, 50))
    expected = bytearray(size)
    for (offset, length), start in zip(runs, starts, strict=True):
        expected[offset : offset + length] = DATA[start : start + length]
    content = DeviceContent(MemoryDevice(content=DATA), size, tuple(runs), starts)
    assert content_bytes(content) == bytes(expected)
    low = data.draw(st.integers(0, size))
    view = memoryview(bytearray(b"?" * data.draw(st.integers(0, size - low))))
    content.read_into(low, view)
    assert bytes(view) == bytes(expected)[low : low + len(view)]


def test_a_placed_content_cannot_be_read() -> None:
    content = PlacedContent(10, [PlacedRun(0, 4, 8192), PlacedRun(6, 2, 4096)])
    assert content.runs() == ((0, 4), (6, 2))
    with pytest.raises(SourceChanged):
        content.read_into(0, memoryview(bytearray(1)))


def test_bytes() -> None:
    view = memoryview(bytearray(3))
    BytesContent(b"0123456").read_into(2, view)
    assert bytes(view) == b"234"


# -- files below ---------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "f"
    found.write_bytes(DATA)
    return found


@pytest.mark.parametrize("sparse", [False, True])
def test_a_device_that_changes_is_not_read(path: Path, sparse: bool) -> None:
    with FileDevice(path) as device:
        verify = verifier(device, "archive")
        content: DeviceRange | DeviceContent = DeviceRange(device, 100, 50, verify)
        if sparse:
            content = DeviceContent(device, 200, ((0, 100),), [50], verify)
        view = memoryview(bytearray(10))
        content.read_into(1, view)
        assert bytes(view) == DATA[51:61]
        with content.backing(10, 20) as runs:
            assert runs is not None
            assert os.pread(runs[0].fd, runs[0].length, runs[0].offset) == DATA[60:80]
        context = content.backing(0, 10)
        context.__enter__()
        with path.open("r+b") as file:
            file.write(b"other")
            os.utime(file.fileno(), ns=(1, 1))
        with pytest.raises(SourceChanged, match="archive: changed since"):
            context.__exit__(None, None, None)
        with pytest.raises(SourceChanged, match="archive: changed since"):
            content.read_into(0, view)
        with pytest.raises(SourceChanged):  # before anything is copied
            content.backing(0, 10).__enter__()


def test_what_lies_in_a_hole_has_no_file(path: Path) -> None:
    with FileDevice(path) as device:
        content = DeviceContent(device, 200, ((0, 100),), [0])
        for offset, length in [(90, 20), (150, 10)]:
            with content.backing(offset, length) as runs:
                assert runs is None


def test_a_window_over_a_file_is_verified_too(path: Path) -> None:
    with Window(FileDevice(path), 100, 200) as device:
        verify = verifier(device, "x")
        assert verify is not None
        verify()
        os.utime(path, ns=(1, 1))
        with pytest.raises(SourceChanged):
            verify()


def test_memory_is_not_verified() -> None:
    assert verifier(MemoryDevice(content=b"x"), "x") is None
