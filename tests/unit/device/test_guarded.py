import pytest

from blockwright.device.base import ResizableDevice
from blockwright.device.guarded import guarded
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import ReadOnly
from blockwright.format.probe import HEAD, MARKS, look
from tests.support import devices

ROOM = 64 * 1024


def make(content=bytes(ROOM)):
    inner = MemoryDevice(content=content)
    return guarded(inner, look, HEAD), inner


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: f"{mark[2]} {mark[1][:4]!r}")
def test_no_mark_can_be_planted_at_once_or_byte_by_byte(mark):
    offset, magic, name = mark
    device, inner = make()
    with pytest.raises(ReadOnly, match=name):
        device.write(0, bytes(offset) + magic + bytes(ROOM - offset - len(magic)))
    assert not any(inner.read(0, ROOM))
    refused = 0
    for place in range(offset, offset + len(magic)):
        try:
            device.write(place, magic[place - offset : place - offset + 1])
        except ReadOnly:
            refused += 1
    assert refused == 1
    assert look(inner.read(0, HEAD)) is None


@pytest.mark.parametrize("call", ["zero", "discard"])
def test_zeros_complete_no_mark(call):
    device, inner = make(b"QEDx" + bytes(ROOM - 4))
    with pytest.raises(ReadOnly, match="qed"):
        getattr(device, call)(3, 1)
    getattr(device, call)(2, 2)
    assert inner.read(0, 2) == b"QE"


def test_everything_else_is_written():
    device, inner = make()
    device.write(0, b"\xeb\x58\x90" + b"boot" * 127)
    device.write(HEAD, b"QFI\xfb")
    device.write(1, b"QFI\xfb")
    device.zero(HEAD, HEAD)
    device.flush()
    assert inner.read(1, 4) == b"QFI\xfb"
    assert device.read_ready(1, bytearray(4))


def test_what_was_named_from_the_start_may_stay_so():
    device, _ = make(b"QFI\xfb" + bytes(ROOM - 4))
    device.write(100, b"x")
    device.write(0, b"RAW!")
    with pytest.raises(ReadOnly):
        device.write(0, b"QFI\xfb")


def test_it_resizes_where_what_it_guards_does():
    device, inner = make(b"")
    assert isinstance(device, ResizableDevice)
    device.resize(ROOM)
    assert inner.size == device.size == ROOM
    with pytest.raises(ReadOnly):
        device.write(0, b"QFI\xfb")
    assert not isinstance(guarded(Window(inner, 0, 4096), look, HEAD), ResizableDevice)


def test_the_kernel_may_read_and_not_write(tmp_path):
    device = guarded(devices.file(bytes(ROOM), tmp_path), look, HEAD)
    with device, device.backing(0, ROOM) as runs:
        assert [(run.length, run.writable) for run in runs] == [(ROOM, False)]
