"""The kernel's own scan of tables that we edit: the partitions are ours as soon as we have written them."""

import random

import pytest

from blockwright.disk.edit import DiskEditor
from blockwright.errors import InUse
from blockwright.system.linux import blkdev, loop
from blockwright.table.partition import MbrTable
from blockwright.units import MiB
from tests.support.command import blockwright
from tests.support.loops import sparse, swept
from tests.support.tables import edit_once
from tests.support.tools import run, tool

SIZE = 64 * MiB


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    with swept(tmp_path):
        yield


def kernel(path):
    return [(each.number, each.start, each.size) for each in blkdev.partitions(path)]


@pytest.mark.parametrize("kind", ["gpt", "mbr"])
@pytest.mark.parametrize("sector", [512, 4096])
def test_after_each_edit_the_kernel_has_our_partitions(tmp_path, kind, sector):
    source, model = random.Random(f"kernel.{kind}.{sector}"), []
    with loop.attach(sparse(tmp_path / "disk.img", SIZE), partition_scan=True, block_size=sector) as device:
        blockwright("disk", "table", device.path, kind)
        for number in range(14):
            with DiskEditor(device.path) as disk:
                words = edit_once(disk.device, model, source, sector_size=sector)
                table = disk.table()
                disk.write(table)  # changes nothing, and has the kernel read it
            # Linux shows an extended partition as a device of a sector or two.
            extended = [each.number for each in table.extended] if isinstance(table, MbrTable) else []
            found = [each for each in kernel(device.path) if each[0] not in extended]
            expected = [(each.number, each.start, each.size) for each in model]
            assert found == expected, f"kernel.{kind}.{sector}: {number}: {words}"


def test_a_disk_with_a_mounted_partition_is_refused(tmp_path, mount):
    with loop.attach(sparse(tmp_path / "disk.img", SIZE), partition_scan=True) as device:
        blockwright("disk", "table", device.path, "gpt")
        assert blockwright("disk", "add", device.path, "--size", "8M").stdout.decode() == f"{device.path}:1\n"
        run([tool("mke2fs"), "-q", "-t", "ext4", f"{device.path}p1"])
        point = mount(f"{device.path}p1", fstype="ext4", options="rw")
        done = blockwright("disk", "add", device.path, code=1)
        assert f"is in use: mounted on {point}".encode() in done.stderr
        with pytest.raises(InUse, match="mounted on"):
            DiskEditor(device.path)
        run(["umount", point])
        blockwright("disk", "add", device.path)
        assert [each[0] for each in kernel(device.path)] == [1, 2]
