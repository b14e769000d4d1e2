"""qemu-img and qemu-io read what we write, and the other way round, for every kind of VMDK."""

import json
import subprocess

import pytest

from blockwright.format.policy import Policy
from blockwright.format.vmdk.descriptor import KINDS, STREAM
from blockwright.resolve import open_device
from blockwright.units import MiB
from tests.support.inprocess import blockwright
from tests.support.tools import run, tool
from tests.support.vmdk import content

SIZE = 40 * MiB + 512
IN_PLACE = [kind for kind in KINDS if kind != STREAM]


@pytest.fixture(name="raw")
def raw_disk(tmp_path):
    path = tmp_path / "raw"
    data = bytearray(SIZE)
    data[: 2 * MiB] = content(2 * MiB, "front")
    data[33 * MiB : 33 * MiB + 100_000] = content(100_000, "middle")
    data[-700:] = b"e" * 700
    path.write_bytes(data)
    return path


def compare(image, raw) -> None:
    run([tool("qemu-img"), "compare", "-f", "vmdk", "-F", "raw", image, raw])


def read_all(path, tmp_path) -> bytes:
    with open_device(str(path), policy=Policy((str(tmp_path),))) as disk:
        return disk.read(0, disk.size)


def clean(path, tmp_path) -> None:
    blockwright("check", path, "--allow-backing", tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_qemu_reads_ours(kind, raw, tmp_path):
    image = tmp_path / "ours.vmdk"
    blockwright("convert", raw, image, "--vmdk-type", kind)
    compare(image, raw)
    run([tool("qemu-img"), "check", "-f", "vmdk", image])
    told = json.loads(run([tool("qemu-img"), "info", "--output=json", image]).stdout)
    assert told["format-specific"]["data"]["create-type"] == kind
    mapped = json.loads(run([tool("qemu-img"), "map", "--output=json", image]).stdout)
    data = raw.read_bytes()
    for each in mapped:
        if each["zero"]:
            assert not any(data[each["start"] : each["start"] + each["length"]])
    if "Flat" not in kind:
        assert sum(each["length"] for each in mapped if each["data"]) < 3 * MiB
    run([tool("qemu-img"), "convert", "-f", "vmdk", "-O", "raw", image, tmp_path / "back"])
    assert (tmp_path / "back").read_bytes() == data


@pytest.mark.parametrize("kind", KINDS)
def test_we_read_qemus(kind, raw, tmp_path):
    image = tmp_path / "theirs.vmdk"
    run([tool("qemu-img"), "convert", "-O", "vmdk", "-o", f"subformat={kind}", raw, image])
    assert read_all(image, tmp_path) == raw.read_bytes()
    clean(image, tmp_path)
    blockwright("convert", image, tmp_path / "back", "--allow-backing", tmp_path)
    assert (tmp_path / "back").read_bytes() == raw.read_bytes()


@pytest.mark.parametrize("kind", IN_PLACE)
def test_both_write_to_one_image(kind, raw, tmp_path):
    image, data = tmp_path / "disk.vmdk", bytearray(raw.read_bytes())
    blockwright("convert", raw, image, "--vmdk-type", kind)
    for at, pattern in ((5 * MiB + 1024, 0xAB), (MiB, 0xCD)):
        run([tool("qemu-io"), "-f", "vmdk", "-c", f"write -P {pattern} {at} 128k", image])
        data[at : at + 128 * 1024] = bytes([pattern]) * 128 * 1024
    assert read_all(image, tmp_path) == data
    with open_device(str(image), writable=True, policy=Policy((str(tmp_path),))) as disk:
        for at, part in ((20 * MiB + 7, b"ours" * 40_000), (5 * MiB, b"over" * 100), (SIZE - 9, b"at the end"[:9])):
            disk.write(at, part)
            data[at : at + len(part)] = part
        disk.zero(MiB, 100_000)
        data[MiB : MiB + 100_000] = bytes(100_000)
        disk.flush()
    (tmp_path / "want").write_bytes(data)
    compare(image, tmp_path / "want")
    run([tool("qemu-img"), "check", "-f", "vmdk", image])
    clean(image, tmp_path)
    told = run([tool("qemu-io"), "-f", "vmdk", "-c", f"read -v {20 * MiB} 512", image]).stdout
    assert "6f 75 72 73" in (told if isinstance(told, str) else told.decode())


def test_a_child_of_qemus_is_read_and_written(raw, tmp_path):
    base, child = tmp_path / "base.vmdk", tmp_path / "child.vmdk"
    blockwright("convert", raw, base)
    run([tool("qemu-img"), "create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", child])
    run([tool("qemu-io"), "-f", "vmdk", "-c", f"write -P 7 {3 * MiB} 64k", child])
    data = bytearray(raw.read_bytes())
    data[3 * MiB : 3 * MiB + 65536] = b"\7" * 65536
    assert read_all(child, tmp_path) == data
    with open_device(str(child), writable=True, policy=Policy((str(tmp_path),))) as disk:
        disk.write(10_000, b"child")
        disk.flush()
    data[10_000:10_005] = b"child"
    (tmp_path / "want").write_bytes(data)
    compare(child, tmp_path / "want")
    with open_device(str(base), writable=True) as disk:
        disk.write(0, b"changed")
        disk.flush()
    done = subprocess.run(
        [tool("qemu-io"), "-f", "vmdk", "-c", "read 1M 512", child], capture_output=True, check=False
    )
    assert done.returncode or b"error" in done.stdout + done.stderr, "qemu notices that the parent has another id"
    blockwright("convert", child, tmp_path / "x", "--allow-backing", tmp_path, code=1)


def test_streams_are_no_larger_than_qemus(raw, tmp_path):
    ours, theirs = tmp_path / "ours.vmdk", tmp_path / "theirs.vmdk"
    ours.write_bytes(blockwright("convert", raw, "-", "--format", "vmdk").stdout)
    run([tool("qemu-img"), "convert", "-O", "vmdk", "-o", f"subformat={STREAM}", raw, theirs])
    compare(ours, raw)
    assert ours.stat().st_size <= theirs.stat().st_size


def test_a_build_is_the_same_disk(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(content(MiB, "file"))
    blockwright("build", tmp_path / "tree", "-o", tmp_path / "disk.img")
    for number, options in enumerate(([], ["--vmdk-type", STREAM], ["--vmdk-type", "twoGbMaxExtentSparse"])):
        image = tmp_path / f"disk{number}.vmdk"
        blockwright("build", tmp_path / "tree", "-o", image, *options)
        compare(image, tmp_path / "disk.img")
    (tmp_path / "piped.vmdk").write_bytes(
        blockwright("build", tmp_path / "tree", "-o", "-", "--format", "vmdk").stdout
    )
    compare(tmp_path / "piped.vmdk", tmp_path / "disk.img")
    tar = tmp_path / "tree.tar.gz"
    run(["tar", "-C", tmp_path / "tree", "-czf", tar, "."])
    blockwright("build", tar, "-o", tmp_path / "t.img")
    for name in ("a.vmdk", "b.ova"):
        blockwright("build", tar, "-o", tmp_path / name)
    compare(tmp_path / "a.vmdk", tmp_path / "t.img")
    blockwright("compare", tmp_path / "b.ova", tmp_path / "t.img")


def test_nothing_is_left_of_what_fails(raw, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "disk-flat.vmdk").write_bytes(b"mine")
    told = blockwright("convert", raw, folder / "disk.vmdk", "--vmdk-type", "monolithicFlat", code=2).stderr
    assert b"disk-flat.vmdk: exists already" in told
    assert [each.name for each in folder.iterdir()] == ["disk-flat.vmdk"]
    assert (folder / "disk-flat.vmdk").read_bytes() == b"mine"
    blockwright("convert", raw, folder / "disk.vmdk", "--vmdk-type", "monolithicFlat", "--force")
    assert (folder / "disk-flat.vmdk").read_bytes() == raw.read_bytes()


def test_the_oracle_can_fail(raw, tmp_path):
    image = tmp_path / "disk.vmdk"
    blockwright("convert", raw, image)
    with open(image, "r+b") as file:
        file.seek(-100_000, 2)
        file.write(b"different")
    argv = [tool("qemu-img"), "compare", "-f", "vmdk", "-F", "raw", image, raw]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 1
