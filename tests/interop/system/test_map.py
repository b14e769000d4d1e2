"""Partitions of images and loop devices as block devices of this machine's kernel, added by BLKPG."""

import json
import multiprocessing
import os
import subprocess
import sys

import pytest

from blockwright.attach import partitions
from blockwright.attach.means import Means
from blockwright.device.file import FileDevice, open_path
from blockwright.errors import Corrupt, InUse, KernelError, NotFound, NotThisFormat, UsageError
from blockwright.system.linux import blkdev, loop
from blockwright.system.linux.registry import Registry
from blockwright.table.gpt import names
from blockwright.table.gpt.edit import write
from blockwright.table.gpt.plan import Request, plan
from blockwright.units import MiB
from tests.support.command import blockwright, document
from tests.support.killed import killed_at_every_step
from tests.support.loops import attached, needs_loop, sparse
from tests.support.tools import run, tool

pytestmark = needs_loop


def partitioned(path, *sizes, sector_size=512, size=32 * MiB):
    """An image with a GUID partition table; each partition begins with its number."""
    sparse(path, size)
    requests = [Request(names.TYPES["linux-generic"], each, f"p{number}") for number, each in enumerate(sizes, 1)]
    table = plan(requests, seed=b"map", size=size, sector_size=sector_size)
    with FileDevice(path, writable=True) as device:
        write(device, table)
        for each in table.partitions:
            device.write(each.start, f"partition {each.number}".encode())
    return table


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    partitioned(path, MiB, 2 * MiB, 4 * MiB)
    return path


def content(path):
    with open_path(path) as device:
        return device.read(0, 11)


def records():
    return [record.name for kind in ("map", "loop") for record in Registry(kind).records()]


def test_the_partitions_of_an_image(disk):
    with partitions.add(disk) as mapped:
        assert attached(disk) == [mapped.device]
        assert mapped.attached
        assert [each.path for each in mapped.partitions] == [f"{mapped.device}p{number}" for number in (1, 2, 3)]
        assert [each.size for each in mapped.partitions] == [MiB, 2 * MiB, 4 * MiB]
        assert {each.means for each in mapped.partitions} == {Means.BLKPG}
        for each in mapped.partitions:
            assert content(each.path) == f"partition {each.number}".encode()
        with open_path(mapped.partitions[1].path, writable=True) as device:
            assert device.size == 2 * MiB
            device.write(0, b"written  by", durable=True)
        assert partitions.mappings() == list(mapped.partitions) == partitions.mappings(disk)
    assert attached(disk) == []
    assert records() == []
    with FileDevice(disk) as device:
        assert device.read(mapped.partitions[1].start, 11) == b"written  by"


def test_the_partitions_of_a_loop_device_that_was_there(disk):
    with loop.attach(disk) as device:
        mapped = partitions.add(device.path)
        assert not mapped.attached
        assert content(mapped.partitions[2].path) == b"partition 3"
        assert partitions.remove(device.path) == [each.path for each in mapped.partitions]
        assert partitions.remove(device.path) == []
        assert attached(disk) == [device.path]
        assert blkdev.partitions(device.path) == []


def test_sectors_of_4096_bytes(tmp_path):
    path = tmp_path / "disk.img"
    partitioned(path, MiB, 2 * MiB, sector_size=4096)
    with partitions.add(path) as mapped:
        assert [each.size for each in mapped.partitions] == [MiB, 2 * MiB]
        with open_path(mapped.device) as device:
            assert device.sector_size == 4096
        assert content(mapped.partitions[1].path) == b"partition 2"


def test_logical_partitions_of_a_master_boot_record(tmp_path):
    path = sparse(tmp_path / "disk.img", 64 * MiB)
    script = "label: dos\nstart=2048,size=4096\nstart=8192,type=f\nstart=10240,size=8192\nstart=20480,size=2048\n"
    run([tool("sfdisk"), "--quiet", path], input=script)
    with partitions.add(path) as mapped:
        places = [(each.number, each.start // 512, each.size // 512) for each in mapped.partitions]
        assert places == [(1, 2048, 4096), (5, 10240, 8192), (6, 20480, 2048)]


def test_a_broken_primary_table_is_read_from_its_copy(disk):
    with FileDevice(disk, writable=True) as device:
        device.zero(512, 512)
    with partitions.add(disk) as mapped:
        assert content(mapped.partitions[0].path) == b"partition 1"


def test_mapped_twice_is_mapped_once(disk):
    first = partitions.add(disk)
    second = partitions.add(disk)
    assert second.partitions == first.partitions
    assert partitions.add(first.device).partitions[0].path == first.partitions[0].path
    assert len(attached(disk)) == 1
    assert partitions.remove(disk) == [each.path for each in first.partitions]
    assert attached(disk) == []


def test_images_without_partitions(tmp_path):
    with pytest.raises(NotThisFormat, match=r"blank\.img: gpt: found no header"):
        partitions.add(sparse(tmp_path / "blank.img", MiB))
    (tmp_path / "text.img").write_bytes(b"no disk at all\n" * 1000)
    with pytest.raises(NotThisFormat):
        partitions.add(tmp_path / "text.img")
    path = tmp_path / "corrupt.img"
    partitioned(path, MiB)
    with FileDevice(path, writable=True) as device:
        device.write(540, b"\xff")
        device.write(device.size - 512 + 28, b"\xff")
    with pytest.raises(Corrupt, match="no copy is valid"):
        partitions.add(path)
    with pytest.raises(NotFound):
        partitions.add(tmp_path / "none.img")
    with pytest.raises(UsageError):
        partitions.add("/dev/null")
    assert attached(path) == []
    empty = tmp_path / "empty.img"
    partitioned(empty)
    with partitions.add(empty) as mapped:
        assert mapped.partitions == ()
    assert attached(empty) == []


def test_half_a_job_leaves_nothing(disk):
    with loop.attach(disk) as device:
        with open(device.path, "rb") as node:
            # Partition 3's number is taken, so the third step fails.
            blkdev.add_partition(node.fileno(), device.path, 3, 20 * MiB, MiB)
        with pytest.raises(KernelError, match="BLKPG_ADD_PARTITION 3: device or resource busy"):
            partitions.add(device.path)
        assert [each.number for each in blkdev.partitions(device.path)] == [3]
        assert partitions.remove(device.path) == []
        assert [each.number for each in blkdev.partitions(device.path)] == [3], "it is not ours"
        assert [name for name in records() if "map" in name] == []


def test_half_a_job_on_an_image_detaches_it(disk, monkeypatch):
    real = blkdev.add_partition

    def fails_third(fd, device, number, *place):
        if number == 3:
            raise KernelError("BLKPG_ADD_PARTITION 3", device, 5, "failed on purpose")
        real(fd, device, number, *place)

    monkeypatch.setattr(blkdev, "add_partition", fails_third)
    with pytest.raises(KernelError, match="on purpose"):
        partitions.add(disk)
    assert attached(disk) == []
    assert records() == []


def test_partitions_in_use_stay_all_of_them(disk, monkeypatch):
    monkeypatch.setattr(blkdev, "BUSY_TIMEOUT_S", 0.05)
    mapped = partitions.add(disk)
    path = mapped.partitions[1].path
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1]); print('open', flush=True); input()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(InUse, match=rf"{mapped.device}: is in use: process {holder.pid} \(python"):
            partitions.remove(disk)
        assert partitions.mappings(disk) == list(mapped.partitions)
    finally:
        holder.communicate("\n", timeout=60)
    assert len(partitions.remove(disk)) == 3
    assert attached(disk) == []


def test_who_looks_into_a_partition_for_a_moment_is_waited_for(disk, monkeypatch):
    monkeypatch.setattr(blkdev, "BUSY_TIMEOUT_S", 60.0)  # the moment may be longer on a machine that has much to do
    mapped = partitions.add(disk)
    code = "import sys, time; f = open(sys.argv[1]); print('open', flush=True); time.sleep(0.3)"
    with subprocess.Popen([sys.executable, "-c", code, mapped.partitions[1].path], stdout=subprocess.PIPE) as moment:
        assert moment.stdout is not None
        moment.stdout.readline()
        assert len(partitions.remove(disk)) == 3
    assert attached(disk) == []


def test_a_later_disk_of_that_number_is_not_ours(disk):
    mapped = partitions.add(disk)
    loop.detach(mapped.device)
    with loop.attach(disk, device=mapped.device) as device:
        with open(device.path, "rb") as node:
            blkdev.add_partition(node.fileno(), device.path, 1, mapped.partitions[0].start, MiB)
        assert partitions.remove(device.path) == []
        assert [each.number for each in blkdev.partitions(device.path)] == [1]


def test_killed_between_any_two_steps(disk, tmp_path):
    other = sparse(tmp_path / "other.img", MiB)
    foreign = run([tool("losetup"), "--find", "--show", other]).stdout.strip()

    def job():
        partitions.add(disk, owned=True)
        partitions.remove(disk)

    left = steps = 0
    for step in killed_at_every_step(job, at_most=2000):
        steps += 1
        left += bool(attached(disk))
        partitions.gc()
        assert attached(disk) == [], f"killed before step {step}"
        assert attached(other) == [foreign]
        assert records() == [], f"killed before step {step}"
    assert steps > 20
    assert left > 10


def _add_and_report(path, barrier, queue):
    barrier.wait()
    queue.put([each.path for each in partitions.add(path).partitions])


def test_four_processes_that_map_one_image_have_the_same_partitions(disk):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_add_and_report, args=(disk, barrier, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    [device] = attached(disk)
    assert found == [[f"{device}p{number}" for number in (1, 2, 3)]] * 4
    assert partitions.remove(disk) == found[0]
    assert attached(disk) == []


def test_the_command(disk):
    paths = blockwright("map", "add", disk).stdout.decode().splitlines()
    [device] = attached(disk)
    assert paths == [f"{device}p{number}" for number in (1, 2, 3)]
    listed = document("map", "list", disk)
    assert listed["schema"] == "blockwright.map/1"
    assert [(each["path"], each["means"]) for each in listed["mappings"]] == [(path, "blkpg") for path in paths]
    assert paths[0] in blockwright("map", "list").stdout.decode()
    assert document("map", "rm", disk)["removed"] == paths
    assert document("map", "rm", disk)["removed"] == []
    assert attached(disk) == []
    blockwright("map", "add", disk.with_name("none.img"), code=5)
    blockwright("map", "rm", "/dev/loop9999", code=5)
    blockwright("map", "add", sparse(disk.with_name("blank.img"), MiB), code=1)


def test_a_means_that_the_kernel_lacks_is_told(disk):
    if os.path.exists("/dev/mapper/control"):
        pytest.skip("this kernel has device-mapper")
    error = json.loads(blockwright("map", "add", disk, "--means", "device-mapper", "--json", code=4).stderr)["error"]
    assert (error["class"], error["device"], error["remedy"]) == (
        "Unavailable",
        "/dev/mapper/control",
        "modprobe dm_mod",
    )
    assert attached(disk) == []
