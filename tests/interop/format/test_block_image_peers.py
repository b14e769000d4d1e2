"""qemu-img, qemu-io and we agree on VHD, VHDX and VDI images, whoever made and changed them, for every subformat."""

import json
import random

import pytest

from blockwright.device.copy import copy
from blockwright.device.extent import ZERO
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.format.open import open_image
from blockwright.format.output import ImageOptions, new_image
from blockwright.units import KiB, MiB, parse_size
from tests.support.blockimages import KINDS, qemu_check, qemu_compare, qemu_reads
from tests.support.inprocess import blockwright
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged

SIZE = 6 * MiB + 512
OURS = [kind for kind in KINDS if qemu_reads(kind)]
THEIRS = {
    "vpc, by geometry": ("vhd", "vpc", "subformat=dynamic"),
    "vpc, by current size": ("vhd", "vpc", "subformat=dynamic,force_size=on"),
    "vpc, fixed": ("vhd", "vpc", "subformat=fixed,force_size=on"),
    "vhdx": ("vhdx", "vhdx", "subformat=dynamic"),
    "vhdx, small blocks": ("vhdx", "vhdx", "subformat=dynamic,block_size=1M,log_size=2M"),
    "vhdx, states of no zeros": ("vhdx", "vhdx", "subformat=dynamic,block_state_zero=off"),
    "vhdx, fixed": ("vhdx", "vhdx", "subformat=fixed"),
    "vdi": ("vdi", "vdi", "static=off"),
    "vdi, static": ("vdi", "vdi", "static=on"),
}


def content(seed: str) -> bytes:
    """Noise and zeros in pieces of many sizes."""
    chance = random.Random(seed)
    data = bytearray()
    while len(data) < SIZE:
        length = chance.choice((512, 4096, 65_536, 600_000, 1_500_000))
        data += chance.choice((chance.randbytes, bytes))(length)
    return bytes(data[:SIZE])


def write_by_qemu(path, name: str, data: bytes, folder) -> None:
    """Have QEMU write what of the data is not zeros."""
    commands = []
    for number, at in enumerate(range(0, len(data), 256 * KiB)):
        part = data[at : at + 256 * KiB]
        if any(part):
            piece = folder / f"piece{number}"
            piece.write_bytes(part)
            commands += ["-c", f"write -s {piece} {at} {len(part)}"]
    run([tool("qemu-io"), "-f", name, *commands, path])


def open_file(path, form: str, *, writable: bool = False):
    return open_image(FileDevice(path, writable=writable), path=str(path), form=form, writable=writable)


@pytest.mark.parametrize("kind", OURS)
def test_qemu_reads_and_changes_what_we_write(kind, tmp_path):
    data, path, raw = bytearray(content(kind)), tmp_path / "image", tmp_path / "raw"
    found, options = KINDS[kind]
    with FileDevice(path, create=True) as file:
        found.create(file, SIZE, options)
    form = "vhd" if found.qemu == "vpc" else found.qemu
    with open_file(path, form, writable=True) as disk:
        copy(MemoryDevice(content=data), disk, target_is_zero=True, detect_zeroes=True)
        disk.flush()
        zeros = [each for each in disk.extents() if each.flags & ZERO]
        assert zeros
    raw.write_bytes(data)
    qemu_check(kind, path)
    qemu_compare(kind, path, raw)
    shown = json.loads(run([tool("qemu-img"), "info", "--output=json", "-f", found.qemu, path]).stdout)
    assert shown["virtual-size"] == SIZE
    mapped = json.loads(run([tool("qemu-img"), "map", "--output=json", "-f", found.qemu, path]).stdout)
    for each in mapped:
        if each["zero"] and not each["data"]:
            assert not any(data[each["start"] : each["start"] + each["length"]])
    run([tool("qemu-io"), "-f", found.qemu, "-c", "write -P 7 1M 3M", "-c", "write -P 9 4000k 4k", path])
    data[MiB : 4 * MiB] = b"\7" * (3 * MiB)
    data[4000 * KiB : 4004 * KiB] = b"\x09" * (4 * KiB)
    with FileDevice(path) as file:
        assert found.check(file) == []
    with open_file(path, form) as disk:
        assert disk.read(0, SIZE) == data


@pytest.mark.parametrize("kind", THEIRS)
def test_we_read_and_change_what_qemu_writes(kind, tmp_path):
    form, name, options = THEIRS[kind]
    path, raw = tmp_path / "image", tmp_path / "raw"
    run([tool("qemu-img"), "create", "-q", "-f", name, "-o", options, path, str(SIZE)])
    shown = json.loads(run([tool("qemu-img"), "info", "--output=json", "-f", name, path]).stdout)
    data = bytearray(content(kind))
    write_by_qemu(path, name, data, tmp_path)
    with open_file(path, form) as disk:
        assert disk.size == shown["virtual-size"]
        data = data.ljust(disk.size, b"\0")
        assert disk.read(0, disk.size) == data
    with FileDevice(path) as file:
        assert checker(name)(file) == []
    with open_file(path, form, writable=True) as disk:
        disk.write(2 * MiB + 300, b"ours" * 400_000)
        disk.zero(100, MiB)
        disk.flush()
    data[2 * MiB + 300 : 2 * MiB + 300 + 1_600_000] = b"ours" * 400_000
    data[100 : 100 + MiB] = bytes(MiB)
    raw.write_bytes(data)
    if name != "vpc":
        run([tool("qemu-img"), "check", "-f", name, path])
    run([tool("qemu-img"), "compare", "-f", name, "-F", "raw", path, raw])
    with FileDevice(path) as file:
        assert checker(name)(file) == []


def checker(name: str):
    return next(found.check for found, _ in KINDS.values() if found.qemu == name)


@pytest.mark.parametrize("name", ["vhdx", "vdi", "vpc"])
def test_a_disk_that_we_made_larger_is_as_large_for_qemu(name, tmp_path):
    form = "vhd" if name == "vpc" else name
    path = tmp_path / f"disk.{form}"
    run(
        [
            tool("qemu-img"),
            "create",
            "-q",
            "-f",
            name,
            path,
            "5M",
            *(["-o", "force_size=on"] if form == "vhd" else []),
        ]
    )
    run([tool("qemu-io"), "-f", name, "-c", "write -P 5 3M 1M", path])
    with open_file(path, form, writable=True) as disk:
        disk.resize(100 * MiB)
        disk.write(99 * MiB, b"\x06" * 4096)
    run(
        [
            tool("qemu-io"),
            "-f",
            name,
            "-c",
            "read -P 5 3M 1M",
            "-c",
            "read -P 6 99M 4k",
            "-c",
            "read -P 0 50M 40M",
            path,
        ]
    )
    shown = json.loads(run([tool("qemu-img"), "info", "--output=json", "-f", name, path]).stdout)
    assert shown["virtual-size"] == 100 * MiB


@pytest.mark.ci
@pytest.mark.parametrize("form", ["vhd", "vhdx", "vdi"])
@pytest.mark.parametrize("size", ["1M", "100G", "2040G"])
def test_sizes(form, size, tmp_path):
    """A disk of any size is as large for QEMU as for us, and its far end is written."""
    name = "vpc" if form == "vhd" else form
    path = tmp_path / f"disk.{form}"
    with FileDevice(path, create=True) as file:
        disk = new_image(file, parse_size(size), ImageOptions(form))
        disk.write(disk.size - 4096, b"e" * 4096)
        disk.close()
        wanted = parse_size(size)
    shown = json.loads(run([tool("qemu-img"), "info", "--output=json", "-f", name, path]).stdout)
    assert shown["virtual-size"] == wanted
    run([tool("qemu-io"), "-f", name, "-c", f"read -P {ord('e')} {wanted - 4096} 4k", path])


def test_commands(tmp_path):
    """From raw by suffix and by options, verified, checked, named, and back."""
    raw = tmp_path / "disk.raw"
    raw.write_bytes(content("commands"))
    for form in ("vhd", "vhdx", "vdi"):
        image, back = tmp_path / f"disk.{form}", tmp_path / "back.raw"
        blockwright("convert", raw, image)
        assert f"{form}: clean" in blockwright("check", image).stdout.decode()
        assert "subformat dynamic" in blockwright("inspect", image).stdout.decode()
        blockwright("convert", "--subformat", "fixed", "--format", form, raw, tmp_path / f"fixed.{form}")
        shown = blockwright("inspect", "--from", form, tmp_path / f"fixed.{form}").stdout.decode()
        assert "subformat fixed" in shown or "subformat static" in shown
        run([tool("qemu-img"), "compare", "-f", "vpc" if form == "vhd" else form, "-F", "raw", image, raw])
        blockwright("convert", "--force", image, back)
        assert back.read_bytes() == raw.read_bytes()
        blockwright("disk", "size", image, "9M")
        blockwright("check", image)
    with open(tmp_path / "big.raw", "wb") as file:
        file.truncate(2041 << 30)
    refused = blockwright("convert", tmp_path / "big.raw", tmp_path / "big.vhd", code=2)
    assert b"expected a disk of 1 to 2190433320960 bytes" in refused.stderr
    assert not (tmp_path / "big.vhd").exists()
    assert (
        b"--cluster-size" in blockwright("convert", "--cluster-size", "64k", raw, tmp_path / "x.vdi", code=2).stderr
    )
