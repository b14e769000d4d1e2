"""A disk as a gzip or zstd file, whole pieces of zeros among it."""

import gzip
import sys

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import UsageError
from blockwright.format.output import ImageOptions
from blockwright.format.raw.compressed import CompressedRaw
from blockwright.format.raw.driver import DRIVER, Making
from blockwright.units import MiB
from tests.support.inprocess import blockwright
from tests.support.vmdk import content

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

READ = {"gzip": gzip.decompress, "zstd": zstd.decompress}


@pytest.mark.parametrize("size", [0, 1, MiB - 1, MiB, 7 * MiB + 512])
@pytest.mark.parametrize("kind", READ)
def test_whole_disks(kind, size):
    data = bytearray(content(size, kind) if size else b"")
    data[2 * MiB : 5 * MiB] = bytes(len(data[2 * MiB : 5 * MiB]))
    made = []
    for threads, piece in ((1, 4096), (3, 100_000)):
        file = MemoryDevice(0)
        with CompressedRaw(file, size, kind, threads=threads) as out:
            for offset in range(0, size, piece):
                part = data[offset : offset + piece]
                if any(part) or threads == 3:
                    out.write(offset, part)
            out.finish()
        made.append(file.read(0, file.size))
    assert READ[kind](made[0]) == READ[kind](made[1]) == data


def test_options():
    assert DRIVER.options({}, "disk.img") == Making()
    assert DRIVER.options({}, "disk.IMG.GZ").compression == "gzip"
    assert DRIVER.options({}, "disk.zst").compression == "zstd"
    assert DRIVER.options({"compress": True}, "-").compression == "gzip"
    assert DRIVER.options({"compress": True, "compression": "zlib", "level": "9"}, "-") == Making("gzip", 9)
    assert DRIVER.options({"compression": "zstd"}, "x.gz").compression == "zstd"
    for given in ({"compression": "zstd"}, {"level": "3"}, {"compress": True, "level": "10"}):
        with pytest.raises(UsageError):
            DRIVER.options(given, "disk.img")
    assert not ImageOptions("raw", Making("gzip")).raw
    assert ImageOptions("raw").raw


def test_the_command(tmp_path):
    data = content(3 * MiB, "command")
    (tmp_path / "raw").write_bytes(data)
    blockwright("convert", tmp_path / "raw", tmp_path / "disk.img.gz")
    blockwright("convert", tmp_path / "raw", tmp_path / "packed", "--compress", "--compression", "zstd")
    assert gzip.decompress((tmp_path / "disk.img.gz").read_bytes()) == data
    assert zstd.decompress((tmp_path / "packed").read_bytes()) == data
    assert gzip.decompress(blockwright("convert", tmp_path / "raw", "-", "--compress").stdout) == data
    assert blockwright("convert", tmp_path / "raw", "-").stdout == data
    assert blockwright("convert", "-", "-", input=data).stdout == data
    packed = blockwright("convert", "-", "-", "--format", "vmdk", input=data).stdout
    blockwright("convert", "-", tmp_path / "back", input=packed)
    assert (tmp_path / "back").read_bytes() == data
    told = blockwright("convert", tmp_path / "raw", "-", "--format", "qcow2", code=2)
    assert b"front to back" in told.stderr
    assert told.stdout == b""
    for options in (["--verify"], ["--context", "x:y"]):
        blockwright("convert", tmp_path / "raw", "-", *options, code=2)
    told = blockwright("convert", tmp_path / "raw", tmp_path / "x.gz", "--verify", code=2)
    assert b"not read back" in told.stderr
    assert not (tmp_path / "x.gz").exists()
