"""Devices that take whole blocks of their own only, that are read-only, and that fail while a commit is written."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from blockwright.device.base import BlockDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import ReadOnly, UsageError
from blockwright.fs.ext4 import edit, read
from blockwright.fs.ext4.check import check
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.tree.node import Directory, File
from blockwright.units import KiB, MiB
from tests.support.fsedits import RandomEdits, differences


class Coarse(ForwardingDevice):
    """Takes multiples of 4 KiB."""

    def __init__(self, inner: BlockDevice) -> None:
        super().__init__(inner, owns=False, traits=replace(inner.traits, minimum_block=4 * KiB))


class Breaking(ForwardingDevice):
    """Fails every write from one on."""

    def __init__(self, inner: BlockDevice, good: int) -> None:
        super().__init__(inner, owns=False)
        self.good = good

    def _write(self, offset: int, buffers: Sequence[memoryview], *, durable: bool) -> None:
        self.good -= 1
        if self.good < 0:
            raise OSError(5, "disk is gone")
        super()._write(offset, buffers, durable=durable)


def planned(root: Directory, block_size: int = 1024) -> MemoryDevice:
    made = plan(root, Ext4Options(size=8 * MiB, block_size=block_size, journal=MiB if block_size == 1024 else None))
    with open_plan(made) as device:
        return MemoryDevice(content=device.read(0, device.size))


def test_blocks_larger_than_the_file_systems():
    device = planned(Directory())
    edits = RandomEdits(4, Directory())
    for _ in range(3):
        with edit.open(Coarse(device)) as editor:
            for _ in range(40):
                edits.step(editor)
        assert [str(each) for each in check(device)] == []
    assert differences(edits.root, read.open(device).tree()) == []


def test_read_only_device():
    class Fixed(ForwardingDevice):
        def __init__(self, inner: BlockDevice) -> None:
            super().__init__(inner, traits=replace(inner.traits, writable=False))

    with pytest.raises(ReadOnly, match="writable device"):
        edit.open(Fixed(planned(Directory())))


def test_commit_that_fails_half_way():
    """The editor is of no use any more; the disk is as before or as after, whichever write it was."""
    found = []
    for good in range(12):
        device = planned(Directory(entries={b"old": File()}))
        breaking = Breaking(device, 1 << 30)
        editor = edit.open(breaking)
        editor.put(b"/new", File())
        breaking.good = good
        failed = False
        try:
            editor.commit()
        except OSError:
            failed = True
            for use in (editor.commit, lambda: editor.put(b"/other", File())):  # noqa: B023 - used at once
                with pytest.raises(UsageError, match="half-way"):
                    use()
        assert [str(each) for each in check(device)] == []
        found.append((failed, b"new" in read.open(device).tree().entries))
    assert (True, False) in found
    assert (True, True) in found
    assert (False, True) in found
    assert (False, False) not in found
