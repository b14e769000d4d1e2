"""qemu-img, qemu-io and we agree on qcow2 images, whoever made and changed them, for every pair of options."""

import json
import random
import subprocess

import pytest

from blockwright.convert import update
from blockwright.device.copy import copy
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.format.open import open_image
from blockwright.format.output import ImageOptions, new_image
from blockwright.format.policy import Policy
from blockwright.format.qcow2.bitmaps import clear_bitmap, create_bitmap
from blockwright.format.qcow2.check import check
from blockwright.format.qcow2.create import Options, create
from blockwright.format.qcow2.driver import Making
from blockwright.units import KiB, MiB
from tests.support.nbdpeers import qemu_nbd
from tests.support.qcow2 import GEOMETRIES, qemu_arguments, qemu_check
from tests.support.serving import serving
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged

SIZE = 3 * MiB + 512
COMPRESSED_DAILY = {"default", "zstd", "subclusters", "1-bit refcounts"}
"""What is tried with compressed clusters on every run; CI tries all."""
PAIRS = [
    pytest.param(
        kind,
        compress,
        id=f"{kind}-{'compressed' if compress else 'plain'}",
        marks=[pytest.mark.ci] if compress and kind not in COMPRESSED_DAILY else [],
    )
    for kind in GEOMETRIES
    for compress in (False, True)
]


def content(seed: str) -> bytes:
    """Noise, text that compresses, and zeros, in pieces of many sizes."""
    chance = random.Random(seed)
    data = bytearray()
    while len(data) < SIZE:
        length = chance.choice((512, 4096, 10_000, 65_536, 300_000))
        data += chance.choice((chance.randbytes, bytes, lambda n: (b"so many words " * n)[:n]))(length)
    return bytes(data[:SIZE])


def ours(path, options: Options, data: bytes, *, compress: bool = False) -> None:
    """Write an image of the data."""
    image = ImageOptions("qcow2", Making(options, compress))
    with FileDevice(path, create=True) as file, new_image(file, len(data), image) as disk:
        copy(MemoryDevice(content=data), disk, target_is_zero=True, detect_zeroes=True)
        disk.flush()


def compare(path, raw) -> None:
    run([tool("qemu-img"), "compare", "-f", "qcow2", "-F", "raw", path, raw])


def read_all(path, policy=None) -> bytes:
    with open_image(FileDevice(path), path=str(path), policy=policy or Policy()) as disk:
        return disk.read(0, disk.size)


@pytest.mark.parametrize(("kind", "compress"), PAIRS)
def test_qemu_reads_ours(kind, compress, tmp_path):
    data = content(kind)
    raw, image = tmp_path / "raw", tmp_path / "ours.qcow2"
    raw.write_bytes(data)
    ours(image, GEOMETRIES[kind], data, compress=compress)
    qemu_check(image)
    compare(image, raw)
    assert read_all(image) == data
    with FileDevice(image) as file:
        assert check(file) == []


@pytest.mark.parametrize(("kind", "compress"), PAIRS)
def test_we_read_and_change_qemus(kind, compress, tmp_path):
    data = bytearray(content(kind))
    raw, image = tmp_path / "raw", tmp_path / "qemus.qcow2"
    raw.write_bytes(data)
    options = ["-o", qemu_arguments(GEOMETRIES[kind]), *(["-c"] if compress else [])]
    run([tool("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", *options, raw, image])
    assert read_all(image) == data
    with FileDevice(image) as file:
        assert check(file) == []
    chance = random.Random(kind)
    with open_image(FileDevice(image, writable=True), writable=True) as disk:
        for _ in range(12):
            offset = chance.randrange(SIZE - 1)
            length = min(SIZE - offset, chance.choice((1, 512, 5000, 100_000)))
            if chance.random() < 0.3:
                disk.zero(offset, length)
                data[offset : offset + length] = bytes(length)
            else:
                piece = chance.randbytes(length)
                disk.write(offset, piece)
                data[offset : offset + length] = piece
            if chance.random() < 0.3:
                disk.flush()
    raw.write_bytes(data)
    qemu_check(image)
    compare(image, raw)
    assert read_all(image) == data


@pytest.mark.parametrize("kind", ["default", "subclusters", "version 2, small clusters", "clusters of 512"])
def test_qemu_changes_ours(kind, tmp_path):
    data = bytearray(content(kind))
    raw, image = tmp_path / "raw", tmp_path / "ours.qcow2"
    ours(image, GEOMETRIES[kind], bytes(data))
    chance = random.Random(kind)
    commands = []
    for number in range(10):
        offset, length = chance.randrange(SIZE // 512) * 512, chance.choice((512, 4096, 65536))
        length = min(length, SIZE - offset)
        commands += ["-c", f"write -P {number + 1} {offset} {length}"]
        data[offset : offset + length] = bytes([number + 1]) * length
    offset = 64 * KiB
    commands += ["-c", f"write -z -u {offset} {2 * MiB}"]
    data[offset : offset + 2 * MiB] = bytes(2 * MiB)
    run([tool("qemu-io"), "-f", "qcow2", *commands, image])
    raw.write_bytes(data)
    assert read_all(image) == data
    compare(image, raw)


def test_maps_agree(tmp_path):
    data = content("map")
    image = tmp_path / "ours.qcow2"
    ours(image, Options(), data)
    told = json.loads(run([tool("qemu-img"), "map", "--output=json", "-f", "qcow2", image]).stdout)
    theirs = [(each["start"], each["length"]) for each in told if each["data"]]
    with open_image(FileDevice(image)) as disk:
        mine = [(each.offset, each.length) for each in disk.extents() if not each.flags]
    assert joined(mine) == joined(theirs)


def joined(runs):
    found = []
    for start, length in runs:
        if found and found[-1][1] == start:
            found[-1][1] = start + length
        else:
            found.append([start, start + length])
    return found


@pytest.mark.parametrize("kind", ["default", "version 2", "subclusters"])
def test_a_backing_file_by_policy(kind, tmp_path):
    base = content("base")[: 2 * MiB + 512]
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "base.raw").write_bytes(base)
    image, raw = tmp_path / "over.qcow2", tmp_path / "raw"
    arguments = qemu_arguments(GEOMETRIES[kind])
    create_over = [
        tool("qemu-img"),
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        arguments,
        "-b",
        "bases/base.raw",
        "-F",
        "raw",
    ]
    run([*create_over, image, str(SIZE)], cwd=tmp_path)
    policy = Policy((str(tmp_path / "bases"),))
    data = bytearray(base + bytes(SIZE - len(base)))
    with open_image(FileDevice(image, writable=True), path=str(image), policy=policy, writable=True) as disk:
        assert disk.read(0, disk.size) == data
        disk.write(100_000, b"x" * 100_000)
        data[100_000:200_000] = b"x" * 100_000
        disk.zero(1 * MiB, 1 * MiB)
        data[MiB : 2 * MiB] = bytes(MiB)
        disk.write(len(base) - 100, b"y" * 200)
        data[len(base) - 100 : len(base) + 100] = b"y" * 200
    raw.write_bytes(data)
    qemu_check(image)
    compare(image, raw)
    assert read_all(image, policy) == data


@pytest.mark.parametrize("raw_data", [False, True])
def test_an_external_data_file(raw_data, tmp_path):
    data = bytearray(content("data file"))
    image, raw = tmp_path / "image.qcow2", tmp_path / "raw"
    options = Options(data_file="image.data", data_file_raw=raw_data)
    with FileDevice(image, create=True) as file:
        create(file, SIZE, options)
    (tmp_path / "image.data").write_bytes(b"")
    policy = Policy((str(tmp_path),))
    with open_image(FileDevice(image, writable=True), path=str(image), policy=policy, writable=True) as disk:
        copy(MemoryDevice(content=bytes(data)), disk, target_is_zero=True, detect_zeroes=True)
        disk.write(5000, b"z" * 10_000)
        data[5000:15_000] = b"z" * 10_000
    raw.write_bytes(data)
    # QEMU looks for it from its working folder, not from the image's.
    run([tool("qemu-img"), "check", "-f", "qcow2", image], cwd=tmp_path)
    run([tool("qemu-img"), "compare", "-f", "qcow2", "-F", "raw", image, raw], cwd=tmp_path)
    assert read_all(image, policy) == data
    if raw_data:
        assert (tmp_path / "image.data").read_bytes().ljust(SIZE, b"\0") == data


def test_snapshots_and_bitmaps_of_qemu_are_read(tmp_path):
    from blockwright.format.qcow2.bitmap import bitmap_ranges, read_bitmaps
    from blockwright.format.qcow2.open import read_header
    from blockwright.format.qcow2.snapshot import open_snapshot, read_snapshots

    data = content("snapshots")
    image = tmp_path / "image.qcow2"
    ours(image, Options(), data)
    run([tool("qemu-img"), "snapshot", "-c", "before", image])
    run([tool("qemu-img"), "bitmap", "--add", image, "marks"])
    run([tool("qemu-io"), "-f", "qcow2", "-c", f"write -P 7 {MiB} 200k", image])
    with FileDevice(image) as file:
        assert check(file) == []
        header = read_header(file)
        (snapshot,) = read_snapshots(file, header)
        assert (snapshot.name, snapshot.size) == ("before", SIZE)
        with open_snapshot(file, header, snapshot, owns=False) as disk:
            assert disk.read(0, SIZE) == data
        (bitmap,) = read_bitmaps(file, header)
        assert (bitmap.name, bitmap.consistent) == ("marks", True)
        assert list(bitmap_ranges(file, header, bitmap)) == [(MiB, 256 * KiB)]
    with open_image(FileDevice(image, writable=True), writable=True) as disk:
        disk.write(0, b"changed" * 30_000)
    qemu_check(image, leaks=True)  # a bitmap that nobody keeps any more
    with FileDevice(image) as file, open_snapshot(file, read_header(file), snapshot, owns=False) as disk:
        assert disk.read(0, SIZE) == data


def test_a_dirty_image_gets_its_refcounts_back(tmp_path):
    image = tmp_path / "image.qcow2"
    run([tool("qemu-img"), "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", image, "8M"])
    commands = ["-c", "write -P 5 0 3M", "-c", "flush", "-c", "abort"]
    subprocess.run([tool("qemu-io"), "-f", "qcow2", *commands, image], capture_output=True, check=False)
    with FileDevice(image) as file:
        assert {"qcow2.dirty", "qcow2.refcount.low"} <= {each.rule for each in check(file)}
    with open_image(FileDevice(image, writable=True), writable=True) as disk:
        disk.write(4 * MiB, b"more")
        assert disk.read(0, 3 * MiB) == b"\5" * 3 * MiB
    qemu_check(image)


def test_the_comparison_can_fail(tmp_path):
    data = content("fail")
    image, raw = tmp_path / "image.qcow2", tmp_path / "raw"
    ours(image, Options(), data)
    raw.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    run([tool("qemu-img"), "compare", "-f", "qcow2", "-F", "raw", image, raw], ok=(1,))


def test_bitmaps_go_back_and_forth(tmp_path):
    """qemu-img makes one and we the other; both mark what both write, and each tells the same of them over NBD."""
    image, copied = tmp_path / "image.qcow2", tmp_path / "copy.img"
    run([tool("qemu-img"), "create", "-q", "-f", "qcow2", image, "100M"])
    run([tool("qemu-img"), "bitmap", "--add", image, "theirs"])
    with open_image(FileDevice(image, writable=True), writable=True) as disk:
        create_bitmap(disk, "ours", granularity=4 * KiB)
        disk.write(50 * MiB, b"x" * 100)
        disk.zero(60 * MiB, MiB)
    qemu_check(image)
    run([tool("qemu-io"), "-c", "write 7M 5k", image])
    wanted = {
        "theirs": [(7 * MiB, 64 * KiB), (50 * MiB, 64 * KiB), (60 * MiB, MiB)],
        "ours": [(7 * MiB, 8 * KiB), (50 * MiB, 4 * KiB), (60 * MiB, MiB)],
    }
    for name, ranges in wanted.items():
        folder = tmp_path / name
        folder.mkdir()
        with qemu_nbd(folder, "-r", "-f", "qcow2", "-B", name, image) as server:
            assert dirty(server.uri(), name) == ranges
        with serving(image, "--socket", str(folder / "own"), "--read-only") as server:
            assert dirty(server.uri, name) == ranges
    run([tool("qemu-img"), "convert", "-O", "raw", image, copied])
    with open_image(FileDevice(image, writable=True), writable=True) as disk:
        clear_bitmap(disk, "theirs")
    run([tool("qemu-io"), "-c", "write -P 9 33M 5k", image])
    with open_image(FileDevice(image)) as disk:
        assert update(disk, str(copied), "theirs").copied == 64 * KiB
    compare(image, copied)
    run([tool("qemu-img"), "bitmap", "--remove", image, "ours"])
    qemu_check(image)


def dirty(uri, name):
    """Return the ranges that nbdinfo tells of as dirty."""
    out = run([tool("nbdinfo"), f"--map=qemu:dirty-bitmap:{name}", uri]).stdout
    rows = [line.split() for line in out.splitlines()]
    return [(int(row[0]), int(row[1])) for row in rows if row[2] == "1"]
