"""Grain tables of sparse extents: made where there are none, and let go when there are many."""

import errno

import pytest

from blockwright.device.base import ResizableDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import NoSpace
from blockwright.format.vmdk import map as map_module
from blockwright.format.vmdk.map import read_directory
from blockwright.format.vmdk.sparse import read_header
from blockwright.format.vmdk.write import open_writable
from tests.support.vmdk import Lent, new, opened

KIB, MIB = 1 << 10, 1 << 20
SPAN = 32 * MIB
"""Bytes of the disk that one table maps."""


def without_tables(size: int) -> MemoryDevice:
    """Return an image whose directories are empty, as some make theirs, with tables where they are needed."""
    file = new(size)
    header = read_header(file)
    assert header.redundant is not None
    assert header.span == SPAN
    for directory in (header.directory, header.redundant):
        file.write(directory, bytes(4 * header.tables))
    return file


class Full(ForwardingDevice, ResizableDevice):
    """A file that cannot become larger at one of its attempts, the one called ``fails``."""

    def __init__(self, inner: MemoryDevice, fails: int) -> None:
        super().__init__(inner, owns=False)
        self.fails = fails

    def _resize(self, size: int) -> None:
        self.fails -= 1
        if not self.fails:
            raise OSError(errno.ENOSPC, "no space left on device")
        self._inner.resize(size)


class Fixed(ForwardingDevice):
    """A file of one size, as a partition is."""

    def __init__(self, inner: MemoryDevice) -> None:
        super().__init__(inner, owns=False, traits=inner.traits)


@pytest.mark.parametrize("fails", [1, 2, 3], ids=["data", "table", "redundant table"])
def test_a_table_that_had_no_room_is_made_later(fails):
    file = without_tables(64 * MIB)
    header = file.read(0, 512)
    with opened(Full(file, fails)) as disk:
        with pytest.raises(OSError, match="no space left"):
            disk.write(0, b"a" * 512)
        disk.flush()
        disk.write(512, b"b" * 512)
        disk.flush()
        assert file.read(0, 512) == header
    with opened(Lent(file), writable=False) as disk:
        assert disk.read(512, 512) == b"b" * 512
        assert disk.read(1024, 64 * KIB) == bytes(64 * KIB)


def test_nothing_refers_to_a_table_that_was_never_written():
    """Whatever room there is, behind a table that found its place and another that has none."""
    empty = without_tables(64 * MIB)
    content = empty.read(0, empty.size)
    for room in range(64 * KIB, 256 * KIB, 512):
        file = MemoryDevice(content=content + b"\xee" * room)
        full = False
        with opened(Fixed(file)) as disk:
            for offset in (0, SPAN):
                try:
                    disk.write(offset, b"a" * 512)
                except NoSpace:
                    full = True
        with opened(Fixed(file), writable=False) as disk:
            for offset in (0, SPAN):
                assert disk.read(offset, 512) in (b"a" * 512, bytes(512)), room
                assert disk.read(offset + 512, 64 * KIB) == bytes(64 * KIB), room
        if not full:
            break
    assert 128 * KIB < room < 255 * KIB, "both the lack of room and room enough were tried"


def test_tables_beyond_the_limit_are_let_go_when_the_disk_has_them(monkeypatch):
    monkeypatch.setattr(map_module, "LIMIT", 8)
    file = new(12 * SPAN)
    header = read_header(file)
    directory = read_directory(file, header, header.directory)
    with open_writable(Lent(file), header, directory, None, owns=True) as disk:
        for index in range(12):
            disk.write(index * SPAN, bytes([index + 1]) * 512)
            disk.read((index + 5) % 12 * SPAN, 1)
        tables = disk._grains.tables
        assert len(tables) == 12, "none of them is on the disk yet"
        disk.flush()
        for index in range(12):
            assert disk.read(index * SPAN, 512) == bytes([index + 1]) * 512
        tables.clear()
        for _ in range(2):
            for index in range(12):
                assert disk.read(index * SPAN, 512) == bytes([index + 1]) * 512
                assert len(tables) <= 8
    with opened(Lent(file), writable=False) as disk:
        assert [disk.read(index * SPAN, 1)[0] for index in range(12)] == list(range(1, 13))
