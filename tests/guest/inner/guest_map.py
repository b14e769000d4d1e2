"""Partitions as block devices by each of the three means, beside kpartx; file systems on them."""

import hashlib
import os
import random

import pytest

from blockwright.attach import partitions
from blockwright.attach.means import Means
from blockwright.device.file import FileDevice, open_path
from blockwright.errors import InUse, KernelError, NotFound, NotThisFormat, ReadOnly
from blockwright.system.linux import blkdev, dm, loop
from blockwright.system.linux.registry import Registry
from blockwright.table.gpt import names
from blockwright.table.gpt.edit import write
from blockwright.table.gpt.plan import Request, plan
from blockwright.units import MiB
from tests.support.killed import killed_at_every_step
from tests.support.loops import attached, sparse, swept
from tests.support.tools import run, tool

EVERY = pytest.mark.parametrize("means", list(Means), ids=lambda each: each.value)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    with swept(tmp_path):
        yield
        with dm.Mapper() as mapper:
            for entry in sorted(mapper.devices(), key=lambda each: each.dev, reverse=True):
                mapper.remove(entry.name)


@pytest.fixture
def disk(tmp_path):
    return partitioned(tmp_path / "disk.img", 4 * MiB, 5 * MiB, 6 * MiB)


def partitioned(path, *sizes):
    sparse(path, 32 * MiB)
    requests = [Request(names.TYPES["linux-generic"], each, f"p{number}") for number, each in enumerate(sizes, 1)]
    table = plan(requests, seed=b"map", size=32 * MiB)
    with FileDevice(path, writable=True) as device:
        write(device, table)
        for each in table.partitions:
            device.write(each.start, f"partition {each.number}".encode())
    return path


def content(path):
    with open_path(path) as device:
        return device.read(0, 11)


def name_of(device, number, means):
    folder = "/dev/mapper" if means is Means.DEVICE_MAPPER else "/dev"
    return f"{folder}/{os.path.basename(device)}p{number}"


@EVERY
def test_an_image_by_each_means(disk, means):
    mapped = partitions.add(disk, means=means)
    assert [each.path for each in mapped.partitions] == [name_of(mapped.device, n, means) for n in (1, 2, 3)]
    assert {each.means for each in mapped.partitions} == {means}
    for each in mapped.partitions:
        assert content(each.path) == f"partition {each.number}".encode()
    assert partitions.mappings(disk) == list(mapped.partitions)
    assert partitions.remove(disk) == [each.path for each in mapped.partitions]
    assert partitions.remove(disk) == []
    assert attached(disk) == []
    assert not any(os.path.lexists(each.path) for each in mapped.partitions)
    assert [record.name for kind in ("map", "loop") for record in Registry(kind).records()] == []


@EVERY
def test_file_systems_are_mounted_on_mapped_partitions(disk, means, mount, monkeypatch):
    with partitions.add(disk, means=means) as mapped:
        wanted = {}
        for each, kind in zip(mapped.partitions, ("ext4", "ext4", "vfat"), strict=True):
            run([tool("mke2fs"), "-q", "-t", "ext4", each.path] if kind == "ext4" else [tool("mkfs.fat"), each.path])
            point = mount(each.path, fstype=kind, options="rw")
            data = os.urandom(100_000)
            (point / "file").write_bytes(data)
            wanted[each.path] = kind, hashlib.sha256(data).digest()
            with monkeypatch.context() as at_once:
                at_once.setattr(blkdev, "BUSY_TIMEOUT_S", 0.0)
                with pytest.raises(InUse, match="is in use: mounted on"):
                    partitions.remove(disk)
            run(["umount", point])
    with partitions.add(disk, means=means) as again:
        assert [each.path for each in again.partitions] == list(wanted)
        for path, (kind, digest) in wanted.items():
            point = mount(path, fstype=kind)
            assert hashlib.sha256((point / "file").read_bytes()).digest() == digest
            run(["umount", point])


def test_kpartx_maps_the_same(disk):
    with loop.attach(disk) as device:
        run([tool("kpartx"), "-a", "-n", "-v", device.path], ok=(0, 1))
        with dm.Mapper() as mapper:
            theirs = {entry.name: mapper.table(entry.name) for entry in mapper.devices()}
            run([tool("kpartx"), "-d", device.path], ok=(0, 1))
            for entry in mapper.devices():
                mapper.remove(entry.name)
            partitions.add(device.path, means=Means.DEVICE_MAPPER)
            ours = {entry.name: mapper.table(entry.name) for entry in mapper.devices()}
            assert all((entry.uuid or "").startswith(f"part{entry.name[-1]}-") for entry in mapper.devices())
        assert ours == theirs
        assert len(ours) == 3
        assert len(partitions.remove(device.path)) == 3


def test_what_others_mapped_stays(disk):
    with loop.attach(disk) as device, dm.Mapper() as mapper:
        name = f"{os.path.basename(device.path)}p2"
        mapper.create(name, [dm.Linear(MiB, device.path)], uuid=f"part2-mpath-{name}")
        with pytest.raises(InUse, match="DM_DEV_CREATE"):
            partitions.add(device.path, means=Means.DEVICE_MAPPER)
        assert [entry.name for entry in mapper.devices()] == [name], "the first one was made, and removed again"
        assert partitions.remove(device.path) == []
        assert [entry.name for entry in mapper.devices()] == [name]
        mapper.remove(name)


def test_a_disk_without_partitions_of_its_own_is_mapped_by_device_mapper(disk):
    with loop.attach(disk) as device, dm.Mapper() as mapper:
        whole = mapper.create("whole", [dm.Linear(32 * MiB, device.path)])
        mapped = partitions.add(whole)
        assert [each.path for each in mapped.partitions] == [
            f"/dev/mapper/wholep{n}"[:-2] + f"{n}" for n in (1, 2, 3)
        ]
        assert content(mapped.partitions[2].path) == b"partition 3"
        assert len(partitions.remove(whole)) == 3
        mapper.remove("whole")


def test_what_the_kernel_found_by_itself_is_not_ours(disk):
    with loop.attach(disk, partition_scan=True) as device:
        assert [each.number for each in blkdev.partitions(device.path)] == [1, 2, 3]
        mapped = partitions.add(device.path)
        assert {each.means for each in mapped.partitions} == {Means.KERNEL}
        assert partitions.remove(device.path) == []
        assert len(blkdev.partitions(device.path)) == 3


def test_a_scan_that_finds_something_else_is_an_error(tmp_path):
    path = partitioned(tmp_path / "disk.img", MiB)
    with loop.attach(path) as device, pytest.raises(KernelError, match="BLKRRPART"):
        partitions.add(device.path, means=Means.KERNEL)  # a device that was not attached for scanning
    with FileDevice(path, writable=True) as device:
        device.zero(512, 512)  # we read the copy at the end; the kernel does not, without being told on boot
    with pytest.raises(KernelError, match="expected 1, found none"):
        partitions.add(path, means=Means.KERNEL)
    assert attached(path) == []


def test_killed_between_any_two_steps(disk):
    def job():
        partitions.add(disk, means=Means.DEVICE_MAPPER, owned=True)
        partitions.remove(disk)

    left = steps = 0
    with dm.Mapper() as mapper:
        mapper.create("theirs", [dm.Zero(MiB)], uuid="part1-mpath-theirs")
        for step in killed_at_every_step(job, at_most=2000):
            steps += 1
            left += bool(attached(disk))
            partitions.gc()
            assert attached(disk) == [], f"killed before step {step}"
            assert [entry.name for entry in mapper.devices()] == ["theirs"], f"killed before step {step}"
            assert os.listdir("/dev/mapper") in (["control", "theirs"], ["theirs", "control"])
        mapper.remove("theirs")
    assert steps > 20
    assert left > 10


# -- what the Go library loopback tests, as tests that can fail ------------------------------------------------------


@EVERY
def test_loopback_end_to_end(disk, means):
    device = loop.attach(disk)
    mapped = partitions.add(device.path, means=means if means is not Means.KERNEL else Means.BLKPG)
    assert all(os.path.exists(each.path) for each in mapped.partitions)
    assert len(partitions.remove(device.path)) == 3
    assert not any(os.path.lexists(each.path) for each in mapped.partitions)
    assert loop.detach(device.path)
    assert attached(disk) == []


def test_loopback_an_image_that_is_not_there(tmp_path):
    for job in (loop.attach, partitions.add, partitions.table_of, loop.find, partitions.remove):
        with pytest.raises(NotFound):
            job(tmp_path / "nonexistent.img")


def test_loopback_three_partitions(disk):
    table = partitions.table_of(disk)
    assert [(each.number, each.size) for each in table.partitions] == [(1, 4 * MiB), (2, 5 * MiB), (3, 6 * MiB)]
    with partitions.add(disk, means=Means.DEVICE_MAPPER) as mapped:
        assert [each.size for each in mapped.partitions] == [4 * MiB, 5 * MiB, 6 * MiB]


@EVERY
def test_loopback_cleaned_up_twice(disk, means):
    device = loop.attach(disk, partition_scan=means is Means.KERNEL)
    partitions.add(device.path, means=means)
    partitions.remove(device.path)
    assert partitions.remove(device.path) == []
    device.detach()


def test_loopback_detached_twice(disk):
    device = loop.attach(disk)
    assert loop.detach(device.path)
    assert not loop.detach(device.path)
    device.detach()


def test_loopback_a_corrupt_image(tmp_path):
    path = tmp_path / "corrupt.img"
    path.write_bytes(random.Random(1).randbytes(1 << 20))
    with loop.attach(path) as device:
        with pytest.raises(NotThisFormat, match="found no header"):
            partitions.add(device.path)
        assert partitions.mappings(device.path) == []


@EVERY
def test_loopback_read_only(disk, means):
    before = disk.read_bytes()
    with partitions.add(disk, means=means, read_only=True) as mapped:
        for each in mapped.partitions:
            assert content(each.path) == f"partition {each.number}".encode()
            with pytest.raises(ReadOnly, match="read-only"):
                open_path(each.path, writable=True)
            refused = run(["dd", "if=/dev/zero", f"of={each.path}", "count=1"], ok=(1,)).stderr
            assert "not permitted" in refused or "Read-only" in refused
    assert disk.read_bytes() == before


def test_loopback_a_blank_image(tmp_path):
    with (
        loop.attach(sparse(tmp_path / "blank.img", MiB)) as device,
        pytest.raises(NotThisFormat, match="found no header"),
    ):
        partitions.add(device.path)


def test_loopback_attached_twice(disk):
    with loop.attach(disk) as device, pytest.raises(InUse, match=device.path):
        loop.attach(disk)


def test_loopback_a_device_that_is_not_there():
    for job in (partitions.remove, partitions.add, loop.detach):
        with pytest.raises(NotFound):
            job("/dev/loop9999")
