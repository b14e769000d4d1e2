"""What is undone behind a failure is undone as far as it goes, and the failure is what is told."""

import contextlib
import errno
from types import SimpleNamespace

import pytest

from blockwright.attach import means, verity
from blockwright.errors import InUse, KernelError
from blockwright.owner import boot_identity
from blockwright.system.linux import blkdev
from blockwright.system.linux.dm import device
from blockwright.system.linux.dm.device import Mapper
from blockwright.system.linux.dm.layout import Command
from blockwright.system.linux.registry import Registry

DISK = means.Disk("/dev/sdz", "sdz", 8, 400, 1)
WANTED = [SimpleNamespace(number=number, start=number << 20, size=1 << 20) for number in (1, 2, 3)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(blkdev, "BUSY_TIMEOUT_S", 0.1)


def test_a_device_that_came_to_nothing_is_removed_when_udevd_has_looked(monkeypatch):
    asked, busy = [], [InUse("is in use")]

    class Control:
        def __init__(self, _logger):
            pass

        def request(self, command, name, **_more):
            asked.append(command)
            if command == Command.TABLE_LOAD:
                raise KernelError("DM_TABLE_LOAD", name, errno.EINVAL, "invalid argument")
            if command == Command.DEV_REMOVE and busy:
                raise busy.pop()
            header = SimpleNamespace(dev=0, name=name.encode(), uuid=b"", open_count=0, event_nr=0)
            return SimpleNamespace(header=header, flags=0)

    monkeypatch.setattr(device, "Control", Control)
    with pytest.raises(KernelError, match="invalid argument"):
        Mapper().create("scratch", [device.Error(512)])
    assert asked.count(Command.DEV_REMOVE) == 2


def test_a_partition_that_cannot_go_keeps_no_other_from_going(monkeypatch):
    gone = []

    def partition(_fd, path, operation, number, *_place):
        if operation == blkdev._ADD and number == 3:
            raise KernelError("BLKPG_ADD_PARTITION 3", path, errno.EINVAL, "does not fit")
        if operation == blkdev._DELETE:
            if number == 2:
                raise KernelError("BLKPG_DEL_PARTITION 2", path, errno.EBUSY, "is in use")
            gone.append(number)

    monkeypatch.setattr(blkdev, "_partition", partition)
    monkeypatch.setattr(means, "opened", lambda *_: contextlib.nullcontext(-1))
    with pytest.raises(KernelError, match="does not fit"):
        means.make(DISK, WANTED, means.Means.BLKPG, read_only=False)
    assert gone == [1]


def test_a_mapping_that_cannot_go_keeps_no_other_from_going(monkeypatch):
    gone = []

    class FakeMapper(contextlib.nullcontext):
        def __enter__(self):
            return self

        def create(self, name, *_table, **_more):
            if name == "sdz3":
                raise KernelError("DM_TABLE_LOAD", name, errno.EINVAL, "does not fit")
            return f"/dev/mapper/{name}"

        def remove(self, name):
            if name == "sdz2":
                raise InUse("is in use")
            gone.append(name)

    monkeypatch.setattr(means.dm, "Mapper", FakeMapper)
    with pytest.raises(KernelError, match="does not fit"):
        means.make(DISK, WANTED, means.Means.DEVICE_MAPPER, read_only=False)
    assert gone == ["sdz1"]


def test_what_somebody_opens_meanwhile_is_not_collected(monkeypatch, tmp_path):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path))
    monkeypatch.setattr(verity, "require_linux", lambda *_: None)
    registry = Registry("verity")
    fields = {"uuid": "CRYPT-VERITY-0-blockwright-root", "loops": []}
    registry.put("root", fields, owned=True)
    path = tmp_path / "run" / "verity" / "root.json"
    path.write_text(
        path.read_text().replace(f'"boot":"{boot_identity()}","owner":[', f'"boot":"{boot_identity()}","owner":[1')
    )
    assert not registry.get("root").alive
    removed = []

    class FakeMapper(contextlib.nullcontext):
        def __init__(self, **_more):
            super().__init__()

        def __enter__(self):  # while the collector is about to begin, another process opens it anew
            Registry("verity").put("root", fields, owned=False)
            return self

        def devices(self):
            return [SimpleNamespace(name="root", uuid=fields["uuid"])]

        def remove(self, name):
            removed.append(name)

    monkeypatch.setattr(verity.dm, "Mapper", FakeMapper)
    assert verity.gc().detached == ()
    assert removed == []
