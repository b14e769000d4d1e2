"""Devices we make while a real udevd, with the distribution's rules, works beside us."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from blockwright.attach import partitions
from blockwright.attach.means import Means
from blockwright.device.file import FileDevice, open_path
from blockwright.system.linux import dm, loop
from blockwright.table.gpt import names
from blockwright.table.gpt.edit import write
from blockwright.table.gpt.plan import Request, plan
from blockwright.units import MiB
from tests.support.loops import sparse
from tests.support.tools import package_file, run, tool


@pytest.fixture(scope="module")
def udevd():
    """A udevd that answers; `settle()` returns when it has seen everything that happened."""
    daemon = package_file("/lib/systemd/systemd-udevd", package="udev")
    control = Path("/run/udev/control")
    running = subprocess.Popen([daemon, "--resolve-names=never"], stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not control.exists():
            assert running.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        yield settle
    finally:
        running.terminate()
        running.wait(60)
        shutil.rmtree("/run/udev")


def settle():
    run([tool("udevadm"), "settle", "--timeout=120"], timeout=150)


def known(path):
    """What udevd has on record of a device."""
    output = run([tool("udevadm"), "info", "--query=property", f"--name={path}"]).stdout
    return dict(line.split("=", 1) for line in output.splitlines())


@pytest.fixture
def disk(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    path = sparse(tmp_path / "disk.img", 32 * MiB)
    table = plan([Request(names.TYPES["linux-generic"], 4 * MiB, f"p{n}") for n in (1, 2)], seed=b"u", size=32 * MiB)
    with FileDevice(path, writable=True) as device:
        write(device, table)
    return path


def test_names_of_device_mapper_are_udevd_s_and_right(udevd):
    with dm.Mapper() as mapper:
        path = mapper.create("named", [dm.Zero(MiB)], uuid="blockwright-udev")
        with open_path(path) as device:
            assert device.size == MiB
        udevd()
        info = mapper.info("named")
        assert os.readlink(path) == f"../dm-{info.minor}"
        assert known(path)["DM_NAME"] == "named"
        assert known(path)["DM_UUID"] == "blockwright-udev"
        mapper.rename("named", "other")
        udevd()
        assert not os.path.lexists("/dev/mapper/named")
        assert os.readlink("/dev/mapper/other") == f"../dm-{info.minor}"
        mapper.remove("other")
        udevd()
        assert os.listdir("/dev/mapper") == ["control"]


def test_no_semaphore_is_left(udevd):
    with dm.Mapper() as mapper:
        mapper.create("plain", [dm.Zero(MiB)])
        mapper.remove("plain")
    udevd()
    assert len(Path("/proc/sysvipc/sem").read_text().splitlines()) == 1


def test_devices_come_and_go_as_fast_as_they_can(udevd):
    with dm.Mapper() as mapper:
        for _ in range(20):
            path = mapper.create("brief", [dm.Zero(MiB)])
            os.close(os.open(path, os.O_RDONLY))
            mapper.remove("brief")
            assert not os.path.lexists(path)
        udevd()
        assert mapper.devices() == []
        assert os.listdir("/dev/mapper") == ["control"]


@pytest.mark.parametrize("means", list(Means), ids=lambda each: each.value)
def test_partitions_by_each_means(udevd, disk, means):
    for _ in range(3):
        mapped = partitions.add(disk, means=means)
        if means is Means.KERNEL:
            udevd()  # it has the kernel read the table once more, which takes the nodes away for a moment
        for each in mapped.partitions:
            with open_path(each.path) as device:
                assert device.size == 4 * MiB
        assert partitions.remove(disk) == [each.path for each in mapped.partitions]
        udevd()
        assert not any(os.path.lexists(each.path) for each in mapped.partitions)


def test_a_loop_device_is_gone_when_detach_returns(udevd, disk):
    for _ in range(30):
        attached = loop.attach(disk, partition_scan=True)
        udevd()  # as above
        with open_path(attached.path + "p1") as part:
            assert part.size == 4 * MiB
        attached.detach()
        assert loop.find(disk) == []
