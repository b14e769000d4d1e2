"""Who writes is asked to stand still: peers that misbehave, holders that cannot, volumes that do not come back."""

import os
import socket
import tempfile
import threading
import time

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import Closed, InUse, NotFound
from blockwright.volume.file import device as volume_device
from blockwright.volume.file import holder
from blockwright.volume.file.device import VolumeDevice
from blockwright.volume.file.holder import Holder, StandStill
from blockwright.volume.pool import undo_unfinished


class Said:
    def __init__(self, stop=None):
        self.events: list[str] = []
        self.fail = stop

    def stop(self):
        self.events.append("stop")
        if self.fail is not None:
            raise self.fail

    def go_on(self):
        self.events.append("go on")


def _until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_stands_still_until_the_other_lets_go():
    said = Said()
    found = Holder(said.stop, said.go_on)
    with StandStill(found.path, "v"):
        assert said.events == ["stop"]
    _until(lambda: said.events == ["stop", "go on"])
    found.close()
    assert not os.path.exists(os.path.dirname(found.path))


def test_whatever_a_peer_sends_it_goes_on_when_that_is_gone():
    said = Said()
    found = Holder(said.stop, said.go_on)
    for data in (b"", b"x", b"stopped\n" * 1000):
        said.events.clear()
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(found.path)
            peer.sendall(data)
        _until(lambda: said.events == ["stop", "go on"])
    found.close()


def test_a_holder_that_cannot_says_why():
    said = Said(InUse("its disk is full"))
    found = Holder(said.stop, said.go_on)
    with pytest.raises(InUse, match="its disk is full"):
        StandStill(found.path, "v")
    _until(lambda: said.events == ["stop", "go on"])
    found.close()
    with pytest.raises(InUse, match="does not stand still"):
        StandStill(found.path, "v")


def test_one_that_does_not_answer_is_waited_for_so_long(monkeypatch, tmp_path):
    monkeypatch.setattr(holder, "TIMEOUT_S", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with pytest.raises(InUse, match="does not stand still"):
            StandStill(str(tmp_path / "s"), "v")


def test_only_traces_of_holders_are_removed(tmp_path):
    (tmp_path / "s").write_bytes(b"")
    holder.remove_traces(str(tmp_path / "s"))
    holder.remove_traces("")
    assert (tmp_path / "s").exists()


def test_calls_wait_and_are_made_on_the_next_device():
    first, second, ended = MemoryDevice(8192), MemoryDevice(8192), []
    device = VolumeDevice(first, lambda: second, lambda: ended.append(1))
    device.write(0, b"one")
    with StandStill(device.control, "v"):
        assert first.closed
        waiting = threading.Thread(target=device.write, args=(0, b"two"))
        waiting.start()
        time.sleep(0.05)
        assert waiting.is_alive()
    waiting.join(60)
    assert second.read(0, 3) == b"two"
    assert [each.length for each in device.extents()] == [8192]
    device.close()
    assert ended == [1]
    with pytest.raises(Closed):
        device.read(0, 1)


def test_what_does_not_come_back_fails_its_calls(monkeypatch):
    monkeypatch.setattr(volume_device, "PAUSE_S", 0)

    def gone():
        raise NotFound("no such layer")

    device = VolumeDevice(MemoryDevice(4096), gone, lambda: None)
    with StandStill(device.control, "v"):
        pass
    for call in (
        lambda: device.read(0, 1),
        lambda: device.write(0, b"x"),
        device.flush,
        lambda: list(device.extents()),
    ):
        with pytest.raises(NotFound, match="no such layer"):
            call()
    device.close()


def test_what_dead_holders_left_is_cleared_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    said = Said()
    live = Holder(said.stop, said.go_on)
    begun = {}
    for name in ("dead", "empty", "more", "young", "open"):
        begun[name] = tmp_path / f"{holder.PREFIX}{name}"
        begun[name].mkdir(mode=0o700)
        if name != "empty":
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(begun[name] / "s"))
    (begun["more"] / "file").touch()
    begun["open"].chmod(0o755)
    (tmp_path / f"{holder.PREFIX}file").touch()
    (tmp_path / "to").mkdir(mode=0o700)
    (tmp_path / f"{holder.PREFIX}link").symlink_to("to")
    other = tmp_path / "blockwright-other-dead"
    other.mkdir(mode=0o700)
    for each in tmp_path.iterdir():
        if each != begun["young"]:
            os.utime(each, (1, 1))
    before = set(tmp_path.iterdir())
    undo_unfinished()
    assert before - set(tmp_path.iterdir()) == {begun["dead"], begun["empty"]}
    assert (begun["more"] / "file").exists()
    with StandStill(live.path, "v"):
        assert said.events == ["stop"]  # nobody was asked before
    live.close()
