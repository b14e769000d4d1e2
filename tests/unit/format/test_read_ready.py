"""What is ready is told without waiting and is what a read gives; a call that waits is ended where it waits."""

from dataclasses import replace

import pytest

from blockwright.device.base import Waits
from blockwright.device.forwarding import ForwardingDevice
from blockwright.device.memory import MemoryDevice
from blockwright.format.qcow2.create import Options
from blockwright.format.qcow2.pack import CompressingDevice
from blockwright.format.vmdk.map import read_directory
from blockwright.format.vmdk.sparse import GrainMap, SparseExtent, read_header
from tests.support import blockimages, qcow2, vmdk

KIB, MIB = 1 << 10, 1 << 20
PIECE = 16 * KIB
SIZE = MIB


class Cached(ForwardingDevice):
    """A file whose bytes are in memory, or are not; it notes that it was cancelled."""

    def __init__(self, inner: MemoryDevice) -> None:
        super().__init__(inner, owns=False, traits=replace(inner.traits, writable=False, waits=Waits.SOMETIMES))
        self.ready = True
        self.cancelled = 0

    def _read_ready(self, offset, buffers):
        return self.ready and super()._read_ready(offset, buffers)

    def _cancel(self):
        self.cancelled += 1


def over_a_parent(kind):
    """Return a disk of data, zeros and what the parent has, its file, its parent, and what it holds."""
    parent = MemoryDevice(content=b"p" * SIZE)
    if kind == "qcow2":
        file = qcow2.new(SIZE, Options(backing_file="parent", backing_format="raw"))
        with qcow2.opened(file, owns=False, below=Cached(parent)) as disk:
            disk.write(0, b"d" * 64 * KIB)
            disk.zero(128 * KIB, 64 * KIB)
        host, below = Cached(file), Cached(parent)
        disk = qcow2.opened(host, writable=False, below=below)
    else:
        file = vmdk.new(SIZE)
        with vmdk.opened(vmdk.Lent(file)) as written:
            written.write(0, b"d" * 64 * KIB)
            written.write(128 * KIB, bytes(64 * KIB))
        host, below = Cached(file), Cached(parent)
        header = read_header(host)
        disk = SparseExtent(GrainMap(host, header, read_directory(host, header, header.directory)), below)
    content = b"d" * 64 * KIB + b"p" * 64 * KIB + bytes(64 * KIB) + b"p" * (SIZE - 192 * KIB)
    return disk, host, below, content


def compressed(kind):
    """Return a disk that is compressed but for a hole, its file, and what it holds."""
    content = b"".join(b"%015d\n" % number for number in range(SIZE // 32)) + bytes(SIZE // 2)
    if kind == "qcow2":
        file = qcow2.new(SIZE)
        with CompressingDevice(qcow2.opened(file, owns=False), threads=2) as packing:
            packing.write(0, content[: SIZE // 2])
            packing.flush()
        host = Cached(file)
        return qcow2.opened(host, writable=False), host, content
    host = Cached(MemoryDevice(content=vmdk.stream_of(content)))
    header = read_header(host)
    return SparseExtent(GrainMap(host, header, read_directory(host, header, header.directory)), None), host, content


def ready(disk, content):
    """Return which pieces are ready, having seen that those are what the disk holds."""
    found = set()
    for offset in range(0, SIZE, PIECE):
        first, second = bytearray(PIECE // 4), bytearray(PIECE - PIECE // 4)
        if disk.read_ready(offset, first, second):
            assert first + second == content[offset : offset + PIECE], offset
            found.add(offset)
    return found


ALL = set(range(0, SIZE, PIECE))
DATA, ZEROS = set(range(0, 64 * KIB, PIECE)), set(range(128 * KIB, 192 * KIB, PIECE))


@pytest.mark.parametrize("kind", ["qcow2", "vmdk"])
def test_each_place_is_ready_when_what_holds_it_is(kind):
    disk, host, below, content = over_a_parent(kind)
    with disk:
        assert ready(disk, content) == set(), "the tables were not read yet"
        assert disk.read(0, SIZE) == content
        assert ready(disk, content) == ALL
        below.ready = False
        host_only = DATA | ZEROS
        assert ready(disk, content) == host_only
        host.ready, below.ready = False, True
        assert ready(disk, content) >= ALL - DATA - ZEROS
        assert not ready(disk, content) & DATA


@pytest.mark.parametrize("kind", ["qcow2", "vmdk"])
def test_what_is_compressed_is_ready_once_it_was_unpacked(kind):
    disk, host, content = compressed(kind)
    with disk:
        disk.read(SIZE - 1, 1)
        disk.read(SIZE // 4, 1)
        last = ready(disk, content)
        assert SIZE // 4 in last
        assert not last & {0, SIZE // 2 - PIECE}, "nobody has unpacked these"
        host.ready = False
        assert ready(disk, content) == last, "what was unpacked is in memory"


@pytest.mark.parametrize("kind", ["vhd", "vhdx", "vdi"])
def test_blocks_whose_table_is_in_memory_are_ready_with_their_file(kind):
    content = b"d" * 64 * KIB + bytes(SIZE - 64 * KIB)
    file = blockimages.new(kind, SIZE)
    with blockimages.opened(kind, file, owns=False) as disk:
        disk.write(0, content[: 64 * KIB])
    host = Cached(file)
    with blockimages.opened(kind, host, writable=False) as disk:
        assert ready(disk, content) == ALL
        host.ready = False
        assert not ready(disk, content) & DATA


def test_a_cancelled_disk_cancels_its_file_and_its_parent():
    disk, host, below, _ = over_a_parent("qcow2")
    with disk:
        disk.cancel()
        assert (host.cancelled, below.cancelled) == (1, 1)
    with qcow2.opened(qcow2.new(SIZE)) as alone:
        alone.cancel()
