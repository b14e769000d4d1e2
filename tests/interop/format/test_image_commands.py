"""The commands on images that are not raw: convert, compare, check, inspect, snapshot, resize, build, serve."""

import json
import os
import random
import sys

import pytest

from blockwright.device.file import FileDevice
from blockwright.format.open import open_image
from blockwright.units import KiB, MiB
from tests.support.qcow2 import qemu_check
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged

COMMAND = [sys.executable, "-m", "blockwright"]


def ours(*arguments, ok=(0,)):
    return run([*COMMAND, *map(str, arguments)], ok=ok)


def compare(first, second, ok=(0,)):
    run([tool("qemu-img"), "compare", first, second], ok=ok)


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "disk.raw"
    chance = random.Random(1)
    with open(path, "wb") as file:
        file.truncate(40 * MiB + 512)
        for offset in (0, 5 * MiB, 5 * MiB + 300_000, 39 * MiB):
            file.seek(offset)
            file.write(chance.randbytes(70_000) + b"text " * 20_000)
    return path


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--compress"],
        ["--compress", "--compression", "zstd", "--level", "9"],
        ["--cluster-size", "4k", "--refcount-bits", "8"],
        ["--extended-l2"],
        ["--qcow2-version", "2", "--verify"],
    ],
    ids=" ".join,
)
def test_convert_there_and_back(raw, tmp_path, options):
    image, back = tmp_path / "disk.qcow2", tmp_path / "back.raw"
    assert ours("convert", raw, image, *options).stdout == f"{image}\n"
    qemu_check(image)
    compare(image, raw)
    assert ours("compare", image, raw).stdout == "equal\n"
    ours("convert", image, back)
    assert back.read_bytes() == raw.read_bytes()
    assert (
        back.stat().st_blocks <= raw.stat().st_blocks + 4 * 2 * 32 * KiB // 512
    )  # holes are found in steps of 32 KiB
    theirs = tmp_path / "theirs.qcow2"
    extra = ["-c"] if "--compress" in options else []
    cluster = ["-o", "cluster_size=4k"] if "4k" in options else []
    run([tool("qemu-img"), "convert", "-O", "qcow2", *extra, *cluster, raw, theirs])
    if "--extended-l2" not in options:
        assert image.stat().st_size <= theirs.stat().st_size + 3 * 64 * KiB


def test_the_same_input_gives_the_same_bytes(raw, tmp_path):
    for options in ([], ["--compress"]):
        made = []
        for name in ("one.qcow2", "two.qcow2"):
            ours("convert", raw, tmp_path / name, "--force", *options)
            made.append((tmp_path / name).read_bytes())
        assert made[0] == made[1]


def test_formats_by_suffix_and_by_name(raw, tmp_path):
    ours("convert", raw, tmp_path / "plain.img", "--format", "qcow2")
    assert (tmp_path / "plain.img").read_bytes()[:4] == b"QFI\xfb"
    ours("convert", tmp_path / "plain.img", tmp_path / "bytes", "--from", "raw")
    assert (tmp_path / "bytes").read_bytes() == (tmp_path / "plain.img").read_bytes()
    told = ours("convert", raw, tmp_path / "x.raw", "--extended-l2", ok=(2,)).stderr
    assert told == "blockwright: --extended-l2: is no option of the format raw\n"
    assert not (tmp_path / "x.raw").exists()
    broken = tmp_path / "broken.qcow2"
    broken.write_bytes(b"QFI\xfb" + bytes(2000))
    told = ours("convert", broken, tmp_path / "x.raw", ok=(1,)).stderr
    assert told.startswith(f"blockwright: {broken}: qcow2: expected version 2 or 3, found 0")


def test_what_differs_is_told(raw, tmp_path):
    image = tmp_path / "disk.qcow2"
    ours("convert", raw, image)
    run([tool("qemu-io"), "-f", "qcow2", "-c", f"write -P 9 {20 * MiB} 512", image])
    assert ours("compare", raw, image, ok=(1,)).stdout == f"different from byte {20 * MiB} on\n"
    document = json.loads(ours("compare", "--json", raw, image, ok=(1,)).stdout)
    assert (document["equal"], document["first_difference"]) == (False, 20 * MiB)
    ours("disk", "size", image, "50M")
    longer = tmp_path / "longer.raw"
    longer.write_bytes(raw.read_bytes())
    os.truncate(longer, 60 * MiB)
    assert ours("compare", raw, longer).stdout == "equal\n"
    assert ours("compare", "--strict", raw, longer, ok=(1,)).stdout == f"different from byte {40 * MiB + 512} on\n"


def test_build_writes_an_image_from_the_plan(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"file{number}").write_bytes(random.Random(number).randbytes(number * 5000))
    ours("build", tree, "-o", tmp_path / "disk.img", "--size", "64M")
    for options in ([], ["--compress"]):
        ours("build", tree, "-o", tmp_path / "disk.qcow2", "--size", "64M", "--force", *options)
        qemu_check(tmp_path / "disk.qcow2")
        compare(tmp_path / "disk.qcow2", tmp_path / "disk.img")
        assert "ext4: clean" in ours("check", tmp_path / "disk.qcow2").stdout
        listed = ours("fs", "cat", f"{tmp_path}/disk.qcow2:1", "/file3")
        assert listed.stdout
    told = ours("inspect", tmp_path / "disk.qcow2").stdout
    assert "qcow2: " in told
    assert "ext4" in told
    assert json.loads(ours("inspect", "--json", tmp_path / "disk.qcow2").stdout)["format"]["name"] == "qcow2"


@pytest.mark.parametrize("options", [[], ["--compress"]], ids=["plain", "compressed"])
def test_build_streams_into_an_image(tmp_path, options):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(10):
        (tree / f"file{number}").write_bytes(random.Random(number).randbytes(number * 30_000))
    run(["tar", "-C", tree, "-czf", tmp_path / "tree.tar.gz", "."])
    ours("build", tmp_path / "tree.tar.gz", "-o", tmp_path / "disk.img")
    ours("build", tmp_path / "tree.tar.gz", "-o", tmp_path / "disk.qcow2", *options)
    qemu_check(tmp_path / "disk.qcow2", leaks=True)
    compare(tmp_path / "disk.qcow2", tmp_path / "disk.img")


def test_check_and_repair(raw, tmp_path):
    image = tmp_path / "disk.qcow2"
    ours("convert", raw, image)
    with FileDevice(image, writable=True) as file:
        file.resize(1001 * 64 * KiB)
        file.write(2 * 64 * KiB + 2 * 1000, b"\0\1")
    told = ours("check", image, ok=(3,)).stdout
    leak = "qcow2.refcount.leak: cluster 1000: expected a refcount of 0, found 1"
    assert told == f"{image}: qcow2: {leak} (byte {1000 * 64 * KiB})\n"
    run([tool("qemu-img"), "check", image], ok=(3,))
    assert ours("check", "--repair", image).stdout == f"{image}: qcow2: clean\n"
    qemu_check(image)
    ours("check", "--repair", raw, ok=(2,))


@pytest.mark.parametrize("name", ["disk.qcow2", "disk.vmdk", "disk.vhd", "disk.vhdx", "disk.vdi"])
def test_an_image_that_ends_too_early_is_damaged(raw, tmp_path, name):
    image = tmp_path / name
    with open(raw, "r+b") as file:
        file.truncate(6 * MiB)
    form = {"vhd": "vpc"}.get(image.suffix[1:], image.suffix[1:])
    run([tool("qemu-img"), "convert", "-f", "raw", "-O", form, raw, image])
    with open(image, "r+b") as file:
        file.truncate(image.stat().st_size - (3 * MiB if name == "disk.vhdx" else 70_000))
    said = ours("check", image, ok=(3,)).stdout.splitlines()
    assert said
    assert all(line.startswith(f"{image}: ") and "(byte " in line for line in said)


def test_snapshots(raw, tmp_path):
    image = tmp_path / "disk.qcow2"
    ours("convert", raw, image)
    ours("disk", "snapshot", "create", image, "before")
    run([tool("qemu-io"), "-f", "qcow2", "-c", f"write -P 9 {5 * MiB} 1M", image])
    qemu_check(image)
    run([tool("qemu-img"), "snapshot", "-c", "after", image])
    document = json.loads(ours("disk", "snapshot", "list", "--json", image).stdout)
    assert [each["name"] for each in document["snapshots"]] == ["before", "after"]
    assert "before" in run([tool("qemu-img"), "snapshot", "-l", image]).stdout
    ours("disk", "snapshot", "apply", image, "before")
    qemu_check(image)
    compare(image, raw)
    run([tool("qemu-img"), "snapshot", "-a", "after", image])
    compare(image, raw, ok=(1,))
    ours("disk", "snapshot", "delete", image, "after")
    qemu_check(image)
    run([tool("qemu-img"), "snapshot", "-a", "before", image])
    compare(image, raw)
    run([tool("qemu-img"), "snapshot", "-d", "before", image])
    assert ours("disk", "snapshot", "list", image).stdout == ""
    told = ours("disk", "snapshot", "apply", image, "gone", ok=(5,)).stderr
    assert told == "blockwright: snapshot 'gone': the image has none\n"
    ours("disk", "snapshot", "list", raw, ok=(2,))


def test_sizes(raw, tmp_path):
    image = tmp_path / "disk.qcow2"
    ours("convert", raw, image, "--cluster-size", "4k")
    ours("disk", "size", image, "3G")
    qemu_check(image)
    with open_image(FileDevice(image)) as disk:
        assert disk.size == 3 << 30
    told = ours("disk", "size", image, "10M", ok=(2,)).stderr
    assert "--shrink cuts off what lies behind" in told
    ours("disk", "size", image, "10M", "--shrink")
    qemu_check(image)
    os.truncate(raw, 10 * MiB)
    compare(image, raw)
    ours("disk", "size", raw, "20M")
    assert raw.stat().st_size == 20 * MiB


def test_a_file_system_over_a_backing_file_is_read_where_that_is_allowed(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "inner.qcow2").write_bytes(b"a file is copied as it is")
    ours("build", tree, "-o", tmp_path / "base.img", "--table", "none")
    image = tmp_path / "over.qcow2"
    run([tool("qemu-img"), "create", "-q", "-f", "qcow2", "-b", tmp_path / "base.img", "-F", "raw", image])
    told = ours("fs", "cat", image, "/inner.qcow2", ok=(1,)).stderr
    assert "is not opened unasked" in told
    assert ours("fs", "cat", "--allow-backing", tmp_path, image, "/inner.qcow2").stdout == "a file is copied as it is"
    ours("fs", "get", "--allow-backing", tmp_path, image, "/inner.qcow2", tmp_path / "inner.qcow2")
    assert (tmp_path / "inner.qcow2").read_bytes() == b"a file is copied as it is"
    told = ours("check", image).stdout
    assert f"{image}: disk: not checked: " in told
    assert "is not opened unasked" in told
    places = json.loads(ours("check", image, "--json").stdout)["places"]
    assert [each["unchecked"] is None for each in places] == [True, False]
    assert "not checked" not in ours("check", "--allow-backing", tmp_path, image).stdout


def test_files_change_in_an_image_over_another(tmp_path):
    """The file below it is opened where that is allowed, and stays as it is."""
    base, over = tmp_path / "base.qcow2", tmp_path / "over.qcow2"
    raw = tmp_path / "raw"
    raw.write_bytes(b"")
    os.truncate(raw, 16 * MiB)
    ours("fs", "mkfs", raw)
    ours("convert", raw, base)
    run([tool("qemu-img"), "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", over])
    before = base.read_bytes(), over.read_bytes()
    refused = ours("fs", "mkdir", over, "/new", ok=(1,))
    assert "--allow-backing" in refused.stderr
    assert (base.read_bytes(), over.read_bytes()) == before
    allowed = ("--allow-backing", tmp_path)
    ours("fs", "mkdir", over, "/new", *allowed)
    ours("fs", "label", over, "over", *allowed)
    assert "new" in ours("fs", "ls", over, *allowed).stdout.split()
    ours("fs", "resize", over, "12M", *allowed)
    qemu_check(over)
    assert base.read_bytes() == before[0]
    run([tool("qemu-img"), "convert", "-O", "raw", over, raw])
    run([tool("e2fsck"), "-fn", raw])


def test_a_raw_disk_that_looks_like_an_image(tmp_path):
    """What an image is taken as can be said to commands that change it."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"")
    os.truncate(disk, 16 * MiB)
    ours("fs", "mkfs", disk)
    with open(disk, "r+b") as file:
        file.write(b"QFI\xfb" + b"\0\0\0\3")  # in the bytes that ext4 leaves to boot sectors
    ours("fs", "mkdir", disk, "/new", ok=(1,))
    ours("fs", "mkdir", disk, "/new", "--from", "raw")
    assert "new" in ours("fs", "ls", disk, "--from", "raw").stdout.split()
    run([tool("e2fsck"), "-fn", disk])
