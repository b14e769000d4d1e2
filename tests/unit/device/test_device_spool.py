"""A stream kept in a file without a name: where there is no room for it."""

import errno
import io
import tempfile

import pytest

from blockwright.device import spool
from blockwright.device.base import BlockDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import NoSpace


class Full(MemoryDevice):
    """Takes no byte."""

    def _write(self, offset, buffers, *, durable):
        raise OSError(errno.ENOSPC, "no space left on device")


def test_a_full_folder_is_named_and_not_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[BlockDevice] = []

    def scratch(_name: str) -> BlockDevice:
        made.append(Full(0))
        return made[0]

    monkeypatch.setattr(spool, "scratch_device", scratch)
    with pytest.raises(NoSpace, match=r"^input: no space left in .* \(TMPDIR\), where it is kept meanwhile$") as told:
        spool.spool(io.BytesIO(b"x"), "input")
    assert tempfile.gettempdir() in str(told.value)
    assert made[0].closed
