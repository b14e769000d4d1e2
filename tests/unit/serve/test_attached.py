"""What the process that holds an attached device does at each signal; the device itself is a stand-in."""

import logging
import os
import signal
import sys
import threading

import pytest

from blockwright.errors import InUse, KernelError
from blockwright.serve import attached
from blockwright.serve.attached import INTERRUPTED, hold

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


class Device:
    """Notes each call; it is in use for the first ``refused`` attempts, and ``lost`` is what a refresh raises."""

    path = "/dev/nbd9"

    def __init__(self, *, refused=0, lost=None):
        self.refused, self.lost = refused, lost
        self.calls = []
        self.ended = threading.Event()
        self._when_ended = None

    def when_ended(self, function):
        self._when_ended = function

    def wait(self, timeout_s=None):
        return self.ended.wait(timeout_s)

    def refresh(self):
        self.calls.append("refresh")
        if self.lost is not None:
            raise self.lost
        return 1

    def detach(self, *, timeout_s=None):
        self.calls.append("detach")
        if self.refused:
            self.refused -= 1
            raise InUse(f"{self.path}: is mounted")
        if not self.ended.is_set():
            self.ended.set()
            if self._when_ended is not None:
                self._when_ended()


@pytest.fixture
def held(monkeypatch, caplog, tmp_path):
    """Hold a device, with ``tell`` called when it can be read, and return the exit code."""
    monkeypatch.setattr(attached, "_AGAIN_S", 0.01)
    caplog.set_level(logging.INFO)

    def run(device, tell):
        return hold(lambda: device, pid_path=str(tmp_path / "pid"), tell=tell, logger=logging.getLogger("held"))

    return run


def sends(*numbers):
    def tell(path):
        assert path == Device.path
        for number in numbers:
            os.kill(os.getpid(), number)

    return tell


@pytest.mark.parametrize(
    "lost", [None, KernelError("nbd", "/dev/nbd9", 22, "invalid"), OSError(111, "Connection refused")]
)
def test_a_hangup_has_the_size_follow_and_costs_nothing_where_it_cannot(held, caplog, lost):
    device = Device(lost=lost)
    assert held(device, sends(signal.SIGHUP, signal.SIGTERM)) == 0
    assert device.calls[0] == "refresh"
    assert device.ended.is_set()
    assert ("/dev/nbd9: its size stays: " in caplog.text) == (lost is not None)
    assert "/dev/nbd9: is detached" in caplog.text


def test_a_device_in_use_is_detached_when_that_is_over_and_told_of_once(held, caplog):
    device = Device(refused=5)
    assert held(device, sends(signal.SIGINT)) == 0
    assert device.calls == ["detach"] * 7, "five in vain, one that did it, and one for the record"
    assert caplog.text.count("is mounted; it is detached when that is over") == 1


def test_a_second_signal_leaves_it_attached(held, caplog, tmp_path):
    device = Device(refused=1 << 30)
    try:
        assert held(device, sends(signal.SIGTERM, signal.SIGTERM)) == INTERRUPTED
        assert not device.ended.is_set()
        assert "/dev/nbd9: is left attached" in caplog.text
        assert not (tmp_path / "pid").exists()
    finally:
        device.refused = 0  # the thread that tries ends
        assert device.ended.wait(30)


def test_who_cannot_be_told_of_it_leaves_nothing_attached(held, tmp_path):
    def tell(_path):
        raise BrokenPipeError(32, "Broken pipe")

    device = Device()
    with pytest.raises(BrokenPipeError):
        held(device, tell)
    assert device.calls == ["detach"]
    assert not (tmp_path / "pid").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_device_that_somebody_else_detaches_ends_it(held):
    device = Device()
    assert held(device, lambda _path: device.detach()) == 0
