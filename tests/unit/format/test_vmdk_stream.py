"""Streams: what lies where in one, that nobody goes back in it, and that it is read by its tables."""

import io
import zlib

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.device.pipe import PipeDevice
from blockwright.errors import Corrupt, FormatError, NotSupported, ReadOnly, UsageError
from blockwright.format.vmdk.check import check
from blockwright.format.vmdk.create import Options
from blockwright.format.vmdk.descriptor import STREAM, parse
from blockwright.format.vmdk.layout import AT_END, Marker, MarkerType, SparseHeader, entries
from blockwright.format.vmdk.sparse import read_header
from blockwright.format.vmdk.stream import StreamWriter
from blockwright.units import KiB, MiB
from tests.support.vmdk import Shelf, content, new, opened, stream_of

SIZE = 70 * MiB + 512
GRAIN = 64 * KiB


def walk(image: bytes):
    """Yield (kind, sector, value, bytes) of each marker, front to back, as a reader of a pipe meets them."""
    position = 128 * 512
    while True:
        value, size = (
            int.from_bytes(image[position : position + 8], "little"),
            int.from_bytes(image[position + 8 : position + 12], "little"),
        )
        if size:
            data = image[position + 12 : position + 12 + size]
            yield "grain", position // 512, value, data
            position += -(-(12 + size) // 512) * 512
            continue
        marker = Marker.parse(image, position)
        kind = MarkerType(marker.type)
        yield kind.name, position // 512, value, image[position + 512 : position + 512 + value * 512]
        if kind is MarkerType.END:
            assert position + 512 == len(image)
            return
        position += 512 + value * 512


def test_every_marker_is_where_the_specification_has_it():
    data = bytearray(SIZE)
    for offset in (0, 5 * GRAIN + 100, 40 * MiB, SIZE - 512):
        data[offset : offset + 512] = b"x" * 512
    image = stream_of(bytes(data))
    header = SparseHeader.parse(image)
    assert (header.version, header.flags, header.gd_offset, header.rgd_offset) == (3, 0x30001, AT_END, 0)
    assert (header.overhead, header.compress_algorithm, header.capacity) == (128, 1, SIZE // 512)
    assert parse(image[512 : 21 * 512]).kind == STREAM
    found = list(walk(image))
    kinds = [kind for kind, *_ in found]
    assert kinds == ["grain", "grain", "TABLE", "grain", "TABLE", "grain", "TABLE", "DIRECTORY", "FOOTER", "END"]
    places = {value: sector for kind, sector, value, _ in found if kind == "grain"}
    for kind, _, value, packed in found:
        if kind == "grain":
            assert zlib.decompress(packed) == data[value * 512 : value * 512 + GRAIN].ljust(GRAIN, b"\0")
    tables = [sector + 1 for kind, sector, *_ in found if kind == "TABLE"]
    (directory,) = [data for kind, _, _, data in found if kind == "DIRECTORY"]
    assert list(entries(directory[: 3 * 4])) == tables
    told = {}
    for index, table in enumerate(data for kind, _, _, data in found if kind == "TABLE"):
        for slot, sector in enumerate(entries(table)):
            if sector:
                told[(index * 512 + slot) * 128] = sector
    assert told == places
    (footer,) = [data for kind, _, _, data in found if kind == "FOOTER"]
    places = [sector + 1 for kind, sector, *_ in found if kind == "DIRECTORY"]
    assert [SparseHeader.parse(footer).gd_offset] == places


@pytest.mark.parametrize("piece", [512, 65_536, 3 * MiB + 512])
def test_it_is_read_as_it_was_written(piece):
    data = content(4 * MiB + 512, f"stream {piece}")
    image = stream_of(data, piece=piece)
    with opened(MemoryDevice(content=image), writable=False) as disk:
        assert disk.read(0, len(data)) == data
        assert disk.read(1_000_000, 12345) == data[1_000_000:1_012_345]
    assert list(check(MemoryDevice(content=image), Shelf())) == []
    assert image == stream_of(data)


def test_an_empty_disk():
    image = stream_of(bytes(MiB))
    with opened(MemoryDevice(content=image), writable=False) as disk:
        assert disk.read(0, MiB) == bytes(MiB)
        assert [(each.length, each.flags) for each in disk.extents()] == [(MiB, 3)]


def test_disks_of_other_content_have_other_ids():
    ids = {parse(stream_of(bytes([n]) * 512)[512 : 21 * 512]).content_id for n in range(20)}
    assert len(ids) == 20


def test_a_pipe_takes_it():
    class Pipe(io.BytesIO):
        def seek(self, *_):
            raise io.UnsupportedOperation("a pipe")

    data, pipe = content(2 * MiB, "pipe"), Pipe()
    with StreamWriter(PipeDevice(pipe, 1 << 60), len(data), Options(STREAM), threads=2) as out:
        out.write(0, data)
        out.finish()
    assert pipe.getvalue() == stream_of(data)


def test_nobody_goes_back_and_an_end_is_no_end_untold():
    file = MemoryDevice(0)
    out = StreamWriter(file, MiB, Options(STREAM), threads=1)
    out.write(4096, b"x" * 512)
    with pytest.raises(NotSupported, match="ascending"):
        out.write(0, b"y" * 512)
    with pytest.raises(NotSupported):
        out.read(0, 1)
    out.close()
    with pytest.raises(FormatError):
        opened(file, writable=False)
    with pytest.raises(UsageError):
        StreamWriter(MemoryDevice(0), 1 << 62, Options(STREAM))
    with pytest.raises(ReadOnly, match="written once"):
        opened(MemoryDevice(content=stream_of(b"x" * 512)))


def test_a_pool_that_fails_is_told():
    class Full(MemoryDevice):
        def _write(self, offset, buffers, *, durable):
            raise OSError(28, "No space left on device")

    def fill():
        with StreamWriter(Full(0), 64 * MiB, Options(STREAM), threads=2) as out:
            out.write(0, b"x" * 40 * MiB)
            out.finish()

    with pytest.raises(OSError, match="No space"):
        fill()


def test_damage_is_found():
    data = content(MiB, "damage")
    image = bytearray(stream_of(data))
    header = read_header(MemoryDevice(content=image))
    (table,) = entries(image[header.directory : header.directory + 4])
    first = next(each for each in entries(image[table * 512 : table * 512 + 2048]) if each) * 512

    def broken(at: int, new: bytes):
        found = bytearray(image)
        found[at : at + len(new)] = new
        return MemoryDevice(content=found)

    for at, new_bytes, rule in ((first, b"\xff" * 8, "vmdk.marker"), (first + 8, b"\0\0\0\x7f", "vmdk.marker")):
        file = broken(at, new_bytes)
        assert [(each.rule, each.offset) for each in check(file, Shelf())] == [(rule, first)]
        with opened(file, writable=False) as disk, pytest.raises(Corrupt):
            disk.read(0, MiB)
    with (
        opened(broken(first + 20, b"\xff" * 20), writable=False) as disk,
        pytest.raises(Corrupt, match="compressed grain"),
    ):
        disk.read(0, MiB)
    end = len(image)
    for cut in (512, 1024, 1536, 100):
        with pytest.raises(Corrupt):
            opened(MemoryDevice(content=image[: end - cut]), writable=False)
    for at in (end - 1536 + 8, end - 1024, end - 1024 + 12, end - 512 + 8):
        with pytest.raises(Corrupt):
            opened(broken(at, b"\x99"), writable=False)


def test_a_plain_extent_is_none():
    assert read_header(new(MiB)).compressed is False
