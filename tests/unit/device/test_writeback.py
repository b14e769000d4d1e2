import sys
from contextlib import nullcontext

import pytest

from blockwright.device import writeback
from blockwright.device.file import FileDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.writeback import STEP, Writeback
from blockwright.units import GiB, MiB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a hint of Linux")


@pytest.fixture
def begun(monkeypatch):
    calls = []
    monkeypatch.setattr(writeback, "_begin", lambda fd, offset, length: calls.append((offset, length)))
    return calls


def test_what_lies_well_behind_is_begun_once_and_in_large_steps(tmp_path, begun):
    with FileDevice(tmp_path / "file", create=True) as device:
        device.resize(GiB)
        watch = Writeback(device, behind=MiB)
        for position in range(0, 100 * MiB, MiB // 2):
            watch.reached(position)
        assert begun == [(0, STEP), (STEP, STEP), (2 * STEP, STEP)]
        watch.reached(STEP)
        assert len(begun) == 3


def test_devices_without_a_file_to_write_to_are_left_alone(tmp_path, begun):
    class Hidden(ForwardingDevice):
        asked = 0

        def _backing(self, offset, length):
            Hidden.asked += 1
            return nullcontext(None)

    watch = Writeback(Hidden(MemoryDevice(GiB)))
    for position in range(0, GiB, 64 * MiB):
        watch.reached(position)
    (tmp_path / "file").touch()
    with FileDevice(tmp_path / "file", writable=True) as small:
        small.resize(STEP)
        Writeback(small).reached(STEP)
    assert (begun, Hidden.asked) == ([], 1)


def test_the_hint_itself_changes_nothing(tmp_path):
    with FileDevice(tmp_path / "file", create=True) as device:
        device.resize(3 * STEP)
        device.write(0, b"kept" * (MiB // 4))
        watch = Writeback(device, behind=0)
        watch.reached(2 * STEP)
        assert device.read(0, MiB) == b"kept" * (MiB // 4)
