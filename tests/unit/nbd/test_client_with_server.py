"""Our client and our server wired together: extended headers, several connections, holes, RESIZE, contexts."""

import random
import socket
import sys
from contextlib import contextmanager
from functools import partial

import pytest

from blockwright.convert import convert, update
from blockwright.device import HOLE, ZERO, Extent
from blockwright.device.base import ResizableDevice
from blockwright.device.extent import clip, merge
from blockwright.device.memory import MemoryDevice, ZeroDevice
from blockwright.errors import NoSpace, NotFound, NotSupported, ReadOnly, UsageError
from blockwright.nbd.client.connect import connect, describe, list_exports
from blockwright.nbd.client.options import ClientOptions
from blockwright.nbd.protocol.session import BlockSizes
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.server import Server
from blockwright.testing import check_device
from blockwright.units import GiB, KiB, MiB, TiB
from tests.support.together import run_together

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")


@contextmanager
def served(tmp_path, *exports):
    path = str(tmp_path / "nbd.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    with Server(exports, [listener]) as server:
        yield lambda name="": f"nbd+unix:///{name}?socket={path}", server


def test_a_device_keeps_the_contract(tmp_path):
    for number, blocks in enumerate((None, BlockSizes(512, 4096, 64 * KiB))):
        folder = tmp_path / str(number)
        folder.mkdir()
        disk = MemoryDevice(307_200)
        with served(folder, Export("disk", disk, blocks=blocks)) as (uri, _):

            def make(uri=uri, disk=disk):
                disk.zero(0, disk.size)
                device = connect(uri("disk"), writable=True)
                assert device.session.extended
                return device

            check_device(make, bytes(307_200), operations=80)


def test_extents_come_in_few_requests_and_as_they_are(tmp_path):
    disk = MemoryDevice(4 * TiB)
    disk.write(3 * TiB, b"x")
    with served(tmp_path, Export("disk", disk)) as (uri, _), connect(uri("disk")) as device:
        assert list(device.extents()) == list(disk.extents())
        assert device.read(3 * TiB - 1, 3) == b"\0x\0"
        assert list(device.extents(3 * TiB, 64 * KiB)) == [Extent(3 * TiB, 64 * KiB, 0)]
        assert list(device.extents(0, TiB)) == [Extent(0, TiB, HOLE | ZERO)]


def test_threads_over_several_connections(tmp_path):
    disk = MemoryDevice(content=random.Random(1).randbytes(4 * MiB))
    options = ClientOptions(connections=3)
    with (
        served(tmp_path, Export("disk", disk)) as (uri, server),
        connect(uri("disk"), writable=True, options=options) as device,
    ):

        def work(number):
            own, content = random.Random(number), bytearray(disk.read(number * MiB, MiB))
            for _ in range(150):
                low = own.randrange(MiB)
                length = min(own.choice((1, 4096, 100_000)), MiB - low)
                if own.random() < 0.4:
                    content[low : low + length] = own.randbytes(length)
                    device.write(number * MiB + low, content[low : low + length])
                assert device.read(number * MiB + low, length) == content[low : low + length]

        run_together(partial(work, number) for number in range(4))
        assert 1 <= len(server.connections) <= 3


def test_what_a_server_tells(tmp_path):
    exports = [
        Export("one", ZeroDevice(MiB), description="the first", read_only=True),
        Export("two", MemoryDevice(2 * MiB), blocks=BlockSizes(512, 4096, MiB)),
    ]
    with served(tmp_path, *exports) as (uri, _):
        assert [(each.name, each.description, each.info and each.info.size) for each in list_exports(uri())] == [
            ("one", "the first", MiB),
            ("two", "", 2 * MiB),
        ]
        found = describe(uri("two"))
        assert found.session.extended
        assert found.session.export.blocks == BlockSizes(512, 4096, MiB)
        assert "base:allocation" in found.contexts
        with pytest.raises(NotFound):
            connect(uri("three"))
        with pytest.raises(ReadOnly):
            connect(uri("one"), writable=True)


def test_resize(tmp_path):
    disk = MemoryDevice(MiB)
    with served(tmp_path, Export("disk", disk, resizable=True)) as (uri, _):
        with connect(uri("disk"), writable=True) as device:
            assert isinstance(device, ResizableDevice)
            device.resize(3 * MiB)
            device.write(3 * MiB - 4, b"last")
        assert disk.read(3 * MiB - 4, 4) == b"last"


class Marked:
    """A context whose flags say where a disk was marked."""

    def __init__(self, size, *ranges):
        self.size, self.ranges = size, ranges

    def extents(self, offset, length):
        return clip(self._all(), offset, offset + length)

    def _all(self):
        position = 0
        for low, high in (*self.ranges, (self.size, self.size)):
            yield from (Extent(position, low - position, 0), Extent(low, high - low, 1))
            position = high


def test_an_update_copies_what_is_marked_and_nothing_else(tmp_path):
    disk = MemoryDevice(content=b"n" * (8 * MiB))
    disk.zero(5 * MiB, MiB)
    marked = Marked(8 * MiB, (MiB, 2 * MiB), (5 * MiB, 5 * MiB + 64 * KiB))
    copy = tmp_path / "copy"
    copy.write_bytes(b"o" * (8 * MiB + 5))
    export = Export("disk", disk, contexts={"our:marks": marked})
    with served(tmp_path, export) as (uri, _):
        with connect(uri("disk"), options=ClientOptions(contexts=("our:marks",))) as device:
            told = [tuple(each) for each in merge(device.context_extents("our:marks", MiB - 1, 2 * MiB))]
            assert told == [(MiB - 1, 1, 0), (MiB, MiB, 1), (2 * MiB, MiB - 1, 0)]
            result = update(device, str(copy), "our:marks", verify=True)
            assert (result.copied, result.zeroed) == (MiB, 64 * KiB)
            with pytest.raises(
                NotSupported, match=r"expected the meta context x:y, found base:allocation, our:marks"
            ):
                update(device, str(copy), "x:y")
            copy.write_bytes(b"small")
            with pytest.raises(NoSpace):
                update(device, str(copy), "our:marks")
            with pytest.raises(NotFound):
                update(device, str(tmp_path / "none"), "our:marks")
        with pytest.raises(NotSupported, match="expected an NBD export"):
            update(disk, str(copy), "our:marks")


def test_an_update_leaves_the_rest_alone(tmp_path):
    disk = MemoryDevice(content=b"n" * (4 * MiB))
    copy = tmp_path / "copy"
    copy.write_bytes(b"o" * (4 * MiB))
    export = Export("disk", disk, contexts={"our:marks": Marked(4 * MiB, (MiB, MiB + 3))})
    options = ClientOptions(contexts=("our:marks",))
    with served(tmp_path, export) as (uri, _), connect(uri("disk"), options=options) as device:
        update(device, str(copy), "our:marks")
    assert copy.read_bytes() == b"o" * MiB + b"nnn" + b"o" * (3 * MiB - 3)


def test_an_export_that_holds_something_is_written_over_when_told_to(tmp_path):
    source = MemoryDevice(content=random.Random(2).randbytes(3 * MiB))
    disk = MemoryDevice(4 * MiB)
    with served(tmp_path, Export("disk", disk)) as (uri, _):
        assert convert(source, uri("disk")).copied == 3 * MiB
        with pytest.raises(UsageError, match="holds data already; --force overwrites it"):
            convert(source, uri("disk"))
        disk.write(4 * MiB - 1, b"x")
        convert(source, uri("disk"), force=True, verify=True)
        assert disk.read(0, 4 * MiB) == source.read(0, 3 * MiB) + bytes(MiB - 1) + b"x"
        convert(source, uri("disk") + "#start=1M,size=3M", force=True)
        assert disk.read(MiB, 3 * MiB) == source.read(0, 3 * MiB)
        with pytest.raises(NoSpace, match="expected at least 3145728 bytes, found 1048576"):
            convert(source, uri("disk") + "#start=1M,size=1M", force=True)


def test_an_empty_export_gets_no_zeros(tmp_path):
    disk = MemoryDevice(64 * GiB)
    source = MemoryDevice(64 * GiB)
    source.write(32 * GiB, b"x" * MiB)
    with served(tmp_path, Export("disk", disk)) as (uri, _):
        result = convert(source, uri("disk"))
        assert (result.copied, result.zeroed) == (MiB, 0)
        assert disk.read(32 * GiB, MiB) == b"x" * MiB
