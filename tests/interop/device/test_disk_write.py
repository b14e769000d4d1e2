"""A whole disk is written over: a loop device stands for it, and counts as hardware here."""

import os
import subprocess

import pytest

from blockwright.convert import DiskWrite, convert
from blockwright.device import physical
from blockwright.device.file import FileDevice
from blockwright.errors import IntegrityError, InUse, NoSpace, UsageError
from blockwright.system.linux import loop
from blockwright.units import MiB
from tests.support.loops import needs_loop
from tests.support.tools import tool

pytestmark = needs_loop
SIZE = 16 * MiB


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """The path of a disk of 16 MiB that holds something everywhere, and its name."""
    backing = tmp_path / "medium"
    backing.write_bytes(b"old " * (SIZE // 4))
    with loop.attach(str(backing)) as attached:
        name = os.path.basename(attached.path)
        monkeypatch.setattr(physical, "STAND_INS", {name})
        yield attached.path, name


@pytest.fixture
def image(tmp_path):
    """6 MiB of data, of zeros that are written, and of a hole."""
    path = tmp_path / "image"
    with open(path, "wb") as file:
        file.write(b"new!" * (MiB // 2))
        file.write(bytes(2 * MiB))
        file.truncate(6 * MiB)
    with FileDevice(path) as device:
        yield device


def read(path):
    with open(path, "rb") as file:
        return file.read()


NEW, OLD = b"new!" * (MiB // 2), b"old " * (MiB // 4)


@pytest.mark.parametrize(
    ("options", "behind"),
    [
        (DiskWrite(), bytes(4 * MiB) + OLD * 10),
        (DiskWrite(skip_holes=True), bytes(2 * MiB) + OLD * 12),
        (DiskWrite(zero_rest=True), bytes(14 * MiB)),
        (DiskWrite(discard=True), bytes(14 * MiB)),
    ],
)
def test_what_it_holds_then(disk, image, options, behind):
    path, name = disk
    with physical.confirmed(name):
        result = convert(image, path, verify=True, disk=options)
    assert read(path) == NEW + behind
    assert result.copied >= 2 * MiB


def test_it_is_not_written_unless_it_is_named(disk, image):
    path, name = disk
    for said in (None, "another"):
        with physical.confirmed(said), pytest.raises(UsageError, match=name):
            convert(image, path, force=True)
    assert read(path) == OLD * 16


def test_one_that_is_too_small_is_not_touched(disk, image, tmp_path):
    path, name = disk
    with open(tmp_path / "large", "wb") as file:
        file.truncate(SIZE + 512)
    with FileDevice(tmp_path / "large") as large, physical.confirmed(name), pytest.raises(NoSpace):
        convert(large, path, disk=DiskWrite(discard=True))
    assert read(path) == OLD * 16


def test_one_that_is_in_use_is_not_touched(disk, image):
    path, name = disk
    holding = os.open(path, os.O_RDONLY | os.O_EXCL)
    try:
        with physical.confirmed(name), pytest.raises(InUse, match=path):
            convert(image, path)
    finally:
        os.close(holding)
    assert read(path) == OLD * 16


def test_what_the_medium_holds_is_compared(disk, image, tmp_path, monkeypatch):
    """Damage below the host's cache is found, since what is compared comes from there."""
    path, name = disk
    real = physical.check_meant
    assert callable(real)
    from blockwright.device.hostblock import HostBlockDevice

    forget = HostBlockDevice.forget_cache

    def damaged(device):
        with open(tmp_path / "medium", "r+b") as file:
            file.seek(MiB)
            file.write(b"damage")
        forget(device)

    monkeypatch.setattr(HostBlockDevice, "forget_cache", damaged)
    with physical.confirmed(name), pytest.raises(IntegrityError, match="differ"):
        convert(image, path, verify=True)


def test_a_table_in_other_sectors_is_refused(disk, tmp_path):
    path, name = disk
    subprocess.run(["truncate", "-s", "8M", tmp_path / "gpt"], check=True)
    from tests.support.command import blockwright

    blockwright("disk", "create", tmp_path / "gpt4k", "8M", "--table", "gpt", "--sector-size", "4096")
    with FileDevice(tmp_path / "gpt4k") as source, physical.confirmed(name):
        with pytest.raises(UsageError, match="counts in 4096"):
            convert(source, path)
        convert(source, path, force=True)


def test_files_take_no_such_options(image, tmp_path):
    with pytest.raises(UsageError, match="expected a block device"):
        convert(image, str(tmp_path / "file"), disk=DiskWrite(discard=True))
    assert not (tmp_path / "file").exists()
    assert tool("truncate")
