"""Tables that sfdisk writes, read by us: the same partitions, at the same places."""

import json
import random

import pytest

from blockwright.device.file import FileDevice
from blockwright.table import read as tables
from blockwright.table.mbr import check, read
from blockwright.units import MiB
from tests.support.command import blockwright, document
from tests.support.tools import run, tool


def made(path, size, script):
    with open(path, "wb") as file:
        file.truncate(size)
    run([tool("sfdisk"), "--quiet", path], input=script)
    return json.loads(run([tool("sfdisk"), "--json", path]).stdout)["partitiontable"]


def script_of(source):
    """A random table of up to three primary partitions and up to twenty logical ones."""
    lines, position = ["label: dos", f"label-id: {source.randrange(1 << 32):#010x}"], 2048
    for _ in range(source.randrange(4)):
        size = source.randrange(1, 5000)
        kind = source.choice(["83", "82", "c", "7", "da"])
        lines.append(f"start={position}, size={size}, type={kind}" + source.choice(["", ", bootable"]))
        position += size + source.randrange(1, 3000)
    lines.append(f"start={position}, type={source.choice(['5', 'f', '85'])}")
    for _ in range(source.randrange(20)):
        position += source.randrange(2049, 5000)
        size = source.randrange(1, 3000)
        lines.append(f"start={position}, size={size}, type=83")
        position += size
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", range(12))
def test_what_sfdisk_writes_is_read(tmp_path, seed):
    source = random.Random(f"sfdisk.{seed}")
    path = tmp_path / "disk.img"
    told = made(path, 64 * MiB, script_of(source))
    with FileDevice(path) as device:
        table = tables.read(device)
        assert check.check(device) == []
    assert table.kind == "mbr"
    assert table.identity == told["id"].removeprefix("0x")
    expected = [
        (int(each["node"].removeprefix(str(path))), each["start"], each["size"], int(each["type"], 16))
        for each in told["partitions"]
        if each["type"] not in ("5", "f", "85")
    ]
    found = [(each.number, each.start // 512, each.size // 512, each.os_type) for each in table.partitions]
    assert found == expected
    assert [each.number for each in table.partitions if each.active] == [
        int(each["node"].removeprefix(str(path))) for each in told["partitions"] if each.get("bootable")
    ]


def test_what_sfdisk_calls_broken_we_do(tmp_path):
    path = tmp_path / "disk.img"
    made(path, 64 * MiB, "label: dos\nstart=2048, size=4096\nstart=8192, size=4096\n")
    with open(path, "r+b") as file:
        file.seek(446 + 16 + 8)
        file.write((4096).to_bytes(4, "little"))
    assert "overlaps partition 2" in run([tool("sfdisk"), "--verify", path], ok=(0, 1)).stderr
    with FileDevice(path) as device:
        assert [finding.rule for finding in check.check(device)] == ["mbr.partition.overlap"]


def test_a_sector_of_another_size(tmp_path):
    path = tmp_path / "disk.img"
    made(path, 64 * MiB, "label: dos\nstart=2048, size=4096\n")
    with FileDevice(path) as device:
        assert read.read(device, sector_size=4096).partition(1).start == 2048 * 4096


def test_the_command_takes_partitions_of_such_a_disk(tmp_path):
    path = tmp_path / "disk.img"
    made(
        path,
        64 * MiB,
        "label: dos\nlabel-id: 0xcafef00d\nstart=2048,size=4096\nstart=8192,type=f\nstart=10240,size=8192\n",
    )
    run([tool("mke2fs"), "-q", "-t", "ext4", "-L", "logical", "-E", f"offset={10240 * 512}", path, "4M"])
    found = document("inspect", path)
    assert (found["table"]["kind"], found["table"]["guid"]) == ("mbr", "cafef00d")
    last = found["regions"][-1]
    assert (last["partition"]["number"], last["partition"]["type"], last["file_system"]["label"]) == (
        5,
        "linux",
        "logical",
    )
    assert b"lost+found" in blockwright("fs", "ls", f"{path}:5").stdout
    assert b"mbr cafef00d" in blockwright("inspect", path).stdout
    blockwright("fs", "ls", f"{path}:9", code=5)
    assert b"mbr: clean" in blockwright("check", path).stdout
