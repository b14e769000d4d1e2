"""Grain tables of sparse extents: made where there are none, and let go when there are many."""

import errno

import pytest

from blockwright.device.base import ResizableDevice
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import ConnectionLost, NoSpace, UsageError
from blockwright.format.vmdk import map as map_module
from blockwright.format.vmdk import write as write_module
from blockwright.format.vmdk.check import LEAK, check
from blockwright.format.vmdk.map import read_directory
from blockwright.format.vmdk.sparse import open_sparse, read_header
from blockwright.format.vmdk.write import open_writable
from tests.support.vmdk import Lent, Shelf, new, opened

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


class Hooked(ForwardingDevice, ResizableDevice):
    """A file whose writes are told to ``hook`` first, which may fail them."""

    def __init__(self, inner: MemoryDevice) -> None:
        super().__init__(inner, owns=False)
        self.hook = lambda offset: None

    def _resize(self, size: int) -> None:
        self._inner.resize(size)

    def _write(self, offset, buffers, *, durable) -> None:
        self.hook(offset)
        super()._write(offset, buffers, durable=durable)


def full(offset: int) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


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


def written(file: MemoryDevice) -> MemoryDevice:
    """Return a copy of the file to which two grains of two tables were written without a failure."""
    file = MemoryDevice(content=file.read(0, file.size))
    with open_sparse(Lent(file), writable=True) as disk:
        for offset in (0, SPAN):
            disk.write(offset, b"b" * 512)
    return file


@pytest.mark.parametrize("fails", [1, 2, 3], ids=["data", "table", "redundant table"])
def test_room_that_was_found_before_there_was_none_is_used_by_the_next_write(fails):
    file = without_tables(64 * MIB)
    whole = written(file)
    with open_sparse(Full(file, fails), writable=True) as disk:
        with pytest.raises(OSError, match="no space left"):
            disk.write(SPAN + 64 * KIB, b"a" * 100_000)
        for offset in (0, SPAN):
            disk.write(offset, b"b" * 512)
    assert file.size == whole.size
    assert list(check(file, Shelf())) == []
    with opened(Lent(file), writable=False) as disk:
        for offset in (0, SPAN):
            assert disk.read(offset, 512) == b"b" * 512
            assert disk.read(offset + 512, 256 * KIB) == bytes(256 * KIB)


@pytest.mark.parametrize("fails", [1, 2, 3], ids=["data", "table", "redundant table"])
def test_room_that_no_write_uses_is_given_back_at_the_end(fails):
    file = without_tables(64 * MIB)
    size = file.size
    with open_sparse(Full(file, fails), writable=True) as disk, pytest.raises(OSError, match="no space left"):
        disk.write(0, b"a" * 100_000)
    assert size <= file.size < size + 4 * KIB, "tables may begin at a page"
    assert list(check(file, Shelf())) == []


def test_room_whose_data_could_not_be_written_is_used_by_the_next_write():
    file = new(64 * MIB)
    whole = written(file)
    hooked = Hooked(file)
    with open_sparse(hooked, writable=True) as disk:
        hooked.hook = full
        with pytest.raises(OSError, match="no space left"):
            disk.write(SPAN, b"a" * 200_000)
        hooked.hook = lambda offset: None
        for offset in (0, SPAN):
            disk.write(offset, b"b" * 512)
    assert file.read(0, file.size) == whole.read(0, whole.size)


@pytest.mark.parametrize("error", [TimeoutError("no answer"), ConnectionLost("gone"), KeyboardInterrupt()])
def test_room_of_a_write_that_may_still_come_is_nobody_s(error):
    """A server that was too slow writes when it gets to it."""
    file = new(64 * MIB)
    hooked = Hooked(file)
    late = []

    def given_up(offset):
        late.append(offset)
        raise error

    with open_sparse(hooked, writable=True) as disk:
        hooked.hook = given_up
        with pytest.raises(type(error)):
            disk.write(SPAN, b"a" * (64 * KIB))
        hooked.hook = lambda offset: None
        disk.write(0, b"b" * (64 * KIB))
        file.write(late[0], b"a" * (64 * KIB))
        assert disk.read(0, 64 * KIB) == b"b" * (64 * KIB)
        assert disk.read(SPAN, 512) == bytes(512)


def test_room_between_two_writes_is_used_by_a_third():
    """Another write that comes to its end before a first one fails leaves a gap; two tables have none."""
    file = new(64 * MIB)
    hooked = Hooked(file)
    with open_sparse(hooked, writable=True) as disk:

        def other_first(offset: int) -> None:
            hooked.hook = lambda offset: None
            disk.write(SPAN, b"b" * 512)
            full(offset)

        hooked.hook = other_first
        with pytest.raises(OSError, match="no space left"):
            disk.write(0, b"a" * (128 * KIB))
        before = file.size
        for offset in (MIB, 2 * MIB):
            disk.write(offset, b"c" * 512)
            assert file.size == before
        disk.write(3 * MIB, b"d" * 512)
        assert file.size == before + 64 * KIB
        disk.flush()
    assert list(check(file, Shelf())) == []
    with opened(Lent(file), writable=False) as disk:
        for offset, byte in ((SPAN, b"b"), (MIB, b"c"), (2 * MIB, b"c"), (3 * MIB, b"d")):
            assert disk.read(offset, 64 * KIB) == byte * 512 + bytes(64 * KIB - 512)
        assert disk.read(0, MIB) == bytes(MIB)


def test_a_failure_behind_the_entry_gives_nothing_back(monkeypatch):
    """Where tables are many they go to the disk with a write; what fails then has its grain all the same."""
    monkeypatch.setattr(write_module, "LIMIT", 0)
    file = new(64 * MIB)
    hooked = Hooked(file)
    with open_sparse(hooked, writable=True) as disk:
        room = file.size
        hooked.hook = lambda offset: offset < room and full(offset)
        with pytest.raises(OSError, match="no space left"):
            disk.write(0, b"a" * 512)
        hooked.hook = lambda offset: None
        disk.write(SPAN, b"b" * 512)
        assert disk.read(0, 512) == b"a" * 512
    assert list(check(file, Shelf())) == []


@pytest.mark.parametrize("more", [False, True], ids=["closed then", "written on"])
def test_the_rest_of_a_grain_that_was_cut_is_no_room(more):
    """In a damaged file; once it is written it stays, whatever fails, and no grain comes to lie there."""
    file = new(64 * MIB)
    with open_sparse(Lent(file), writable=True) as disk:
        disk.write(0, b"a" * (64 * KIB))
    file.resize(file.size - 32 * KIB)
    size = file.size
    hooked = Hooked(file)
    with open_sparse(hooked, writable=True) as disk:
        hooked.hook = lambda offset: offset >= size and full(offset)
        with pytest.raises(OSError, match="no space left"):
            disk.write(SPAN, b"x" * (64 * KIB))
        hooked.hook = lambda offset: None
        disk.write(32 * KIB, b"b" * (32 * KIB))
        if more:
            disk.write(SPAN, b"c" * (64 * KIB))
    with open_sparse(Lent(file)) as disk:
        assert disk.read(0, 64 * KIB) == b"a" * (32 * KIB) + b"b" * (32 * KIB)
        assert disk.read(SPAN, 64 * KIB) == (b"c" if more else b"\0") * (64 * KIB)


def test_a_file_that_cannot_become_shorter_again_stays_as_it_is():
    class Growing(Full):
        def _resize(self, size: int) -> None:
            if size < self._inner.size:
                raise UsageError("resize: grows only")
            super()._resize(size)

    file = without_tables(64 * MIB)
    with open_sparse(Growing(file, 2), writable=True) as disk, pytest.raises(OSError, match="no space left"):
        disk.write(0, b"a" * 512)
    assert [each.rule for each in check(file, Shelf())] == [LEAK]


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
