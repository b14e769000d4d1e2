"""The allocation table's two writings: what links new clusters comes early, what cuts old ones off late."""

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.fs.fat import layout
from blockwright.fs.fat.allocation import AllocationTable
from blockwright.fs.fat.device import open_plan
from blockwright.fs.fat.edit.table import EditedTable
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import plan
from blockwright.fs.fat.volume import read_volume
from blockwright.tree.node import Directory
from blockwright.units import MiB

SIZES = {12: 2 * MiB, 16: 16 * MiB, 32: 64 * MiB}


@pytest.fixture(params=SIZES)
def device(request: pytest.FixtureRequest) -> MemoryDevice:
    options = FatOptions(size=SIZES[request.param], bits=request.param, cluster_size=512)
    with open_plan(plan(Directory(), options)) as planned:
        return MemoryDevice(content=planned.read(0, planned.size))


def chain(device: MemoryDevice, first: int, count: int) -> list[int]:
    """Entries of the table that is on the device, the same in each copy."""
    volume = read_volume(device)
    copies = []
    for copy in range(volume.geometry.fats):
        table = AllocationTable(device, volume.geometry, copy)
        copies.append([table.get(at) for at in range(first, first + count)])
    assert all(each == copies[0] for each in copies)
    return copies[0]


def test_new_clusters_are_linked_early_and_old_ones_cut_off_late(device: MemoryDevice) -> None:
    volume = read_volume(device)
    table, end = EditedTable(device, volume), layout.MASK[volume.geometry.bits]
    (old,) = table.allocate(4)
    table.write(late=False)
    table.settle()
    links = [old.start + 1, old.start + 2, old.start + 3, end]
    assert chain(device, old.start, 4) == links

    (new,) = table.allocate(3)
    table.cut(new.start)  # a new file that is cut before anything refers to it
    table.free([new._replace(start=new.start + 1, length=2)])
    table.cut(old.start + 1)
    table.free([old._replace(start=old.start + 2, length=2)])
    assert table.is_new(new.start)
    table.write(late=False)
    assert chain(device, new.start, 3) == [end, 0, 0]  # whatever refers to it now finds its end
    assert chain(device, old.start, 4) == links  # as whoever still refers to it must find it
    table.write(late=True)
    assert chain(device, new.start, 3) == [end, 0, 0]
    assert chain(device, old.start, 4) == [old.start + 1, end, 0, 0]


def test_what_is_given_back_is_not_taken_before_the_next_commit(device: MemoryDevice) -> None:
    table = EditedTable(device, read_volume(device))
    (old,) = table.allocate(4)
    table.write(late=False)
    table.settle()
    table.free([old])
    table.next_free = old.start
    assert table.waiting == 4
    (other,) = table.allocate(2)
    assert other.start == old.start + 4
    table.write(late=True)
    table.settle()
    table.next_free = old.start
    (again,) = table.allocate(4)
    assert again.start == old.start
