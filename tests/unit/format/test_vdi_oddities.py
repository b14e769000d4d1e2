"""VDI images that contradict themselves."""

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotThisFormat, Unsupported, UsageError
from blockwright.format.vdi.check import check
from blockwright.format.vdi.create import Options, create
from blockwright.format.vdi.device import open_vdi, read_header
from blockwright.format.vdi.layout import ZERO
from blockwright.units import KiB, MiB, TiB
from tests.support.blockimages import new, opened

SIZE = 5 * MiB


def image():
    file = new("vdi", SIZE)
    with opened("vdi", file, owns=False) as disk:
        disk.write(0, b"a" * 1000)
        disk.write(3 * MiB, b"b" * 1000)
    assert check(file) == []
    return file


def changed(file, **values):
    file.write(0, read_header(file).replace(**values).pack())


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"magic": 1}, NotThisFormat, "expected the signature"),
        ({"version": 2}, Unsupported, "expected version 1.1, found 0.2"),
        ({"kind": 4}, Unsupported, "differencing"),
        ({"parent_uuid": b"p" * 16}, Unsupported, "differencing"),
        ({"link_uuid": b"p" * 16}, Unsupported, "differencing"),
        ({"kind": 9}, Unsupported, "found 9"),
        ({"sector_size": 4096}, Unsupported, "sectors of 512"),
        ({"block_extra": 8}, Unsupported, "extra data"),
        ({"block_size": 3 * MiB}, Corrupt, "power of two"),
        ({"blocks": 1 << 30}, LimitExceeded, "at most 16777216 blocks"),
        ({"disk_size": 6 * MiB}, Corrupt, "expected 1 to 5242880 bytes"),
        ({"disk_size": 0}, Corrupt, "expected 1 to 5242880 bytes"),
        ({"map_offset": 0}, Corrupt, "behind the header"),
        ({"map_offset": 700}, Corrupt, "behind the header"),
        ({"map_offset": MiB}, Corrupt, "expected to end by the data"),
        ({"data_offset": 1 << 31, "map_offset": 1 << 30}, Corrupt, "the file's end"),
    ],
)
def test_headers_that_cannot_be(values, error, message):
    file = image()
    changed(file, **values)
    with pytest.raises(error, match=message):
        opened("vdi", file, writable=False)


def test_blocks_behind_the_end_and_at_one_place_are_found():
    file = image()
    file.write(512 + 4, (77).to_bytes(4, "little"))
    with pytest.raises(Corrupt, match=r"block 1: expected one of the 2 blocks in the file, found 77 \(byte 516"):
        opened("vdi", file, writable=False)
    assert [(each.rule, each.offset) for each in check(file)] == [("vdi.block.range", 516)]
    file.write(512 + 4, bytes(4))
    assert [(each.rule, each.offset) for each in check(file)] == [("vdi.block.overlap", 516)]
    with pytest.raises(Corrupt, match="two at one place"):
        opened("vdi", file)


def test_a_count_that_is_wrong_is_found():
    file = image()
    changed(file, allocated=1)
    assert [(each.rule, each.offset) for each in check(file)] == [("vdi.allocated", 0x184)]
    changed(file, allocated=4)
    assert [(each.rule, each.offset) for each in check(file)] == [("vdi.leak", 0x184)]


def test_blocks_that_nothing_refers_to_are_used_first():
    file = image()
    file.write(512, ZERO.to_bytes(4, "little"))
    with opened("vdi", file, owns=False) as disk:
        assert disk.read(0, 10) == bytes(10)
        disk.write(MiB, b"n")
        assert disk.read(MiB, 1000) == b"n" + bytes(999)
    assert check(file) == []
    assert read_header(file).allocated == 2


def test_blocks_of_other_sizes_are_read():
    file = MemoryDevice(0)
    create(file, SIZE, Options(block_size=2 * MiB))
    with open_vdi(file, writable=True, owns=False) as disk:
        disk.write(SIZE - 5, b"ended")
    with open_vdi(file) as disk:
        assert disk.read(SIZE - 6, 6) == b"\0ended"


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="expected a disk of 1 to"):
        create(MemoryDevice(0), 17 * TiB, Options())
    with pytest.raises(UsageError, match="block size: expected a power of two from 1 MiB"):
        Options(block_size=64 * KiB).check()
    with opened("vdi", new("vdi", SIZE)) as disk, pytest.raises(UsageError, match="the map has room"):
        disk.resize(TiB)


@pytest.mark.parametrize("length", [0, 63, 64, 511, 512, 600])
def test_a_file_that_is_cut_short_is_refused(length):
    file = image()
    with pytest.raises(FormatError):
        open_vdi(MemoryDevice(content=file.read(0, length)))
