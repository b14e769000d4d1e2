"""What is logged of a device that fails."""

import errno
import logging

import pytest

from blockwright.device.adapter import ObjectDevice
from blockwright.errors import BlockwrightError
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.log import log_bug
from blockwright.resolve import open_device
from tests.support import devices
from tests.support.runningserver import running


class Buggy(devices.Store):
    """Fails a read by what is a bug, and a write by what is none."""

    def read_at(self, offset: int, length: int) -> bytes:
        return bytes([length // offset])

    def write_at(self, offset: int, data: memoryview) -> None:
        raise OSError(errno.ENOSPC, "full")


def test_a_bug_in_a_device_is_logged_with_its_traceback_once(caplog: pytest.LogCaptureFixture) -> None:
    with running([Export("", ObjectDevice(Buggy(bytes(1024))))]) as server:
        for _ in range(2):
            with open_device(server.uri, writable=True) as device:
                with pytest.raises(BlockwrightError, match="EIO"):
                    device.read(0, 512)
                with pytest.raises(BlockwrightError, match="ENOSPC"):
                    device.write(0, bytes(512))
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.name == "blockwright.nbd.server"
    assert record.getMessage() == "a device raised ZeroDivisionError, clients get EIO"
    assert record.exc_info is not None
    assert "read_at" in logging.Formatter().format(record)


def test_what_devices_may_raise_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    for error in (OSError(errno.EIO, "bad"), MemoryError(), BlockwrightError("damaged")):
        log_bug(error)
    assert not caplog.records
