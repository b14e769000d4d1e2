"""Snapshots of large disks take little memory, and counts that are too narrow are found before anything changes."""

import tracemalloc

import pytest

from blockwright.errors import LimitExceeded
from blockwright.format.qcow2.check import check
from blockwright.format.qcow2.create import Options
from blockwright.format.qcow2.snapshots import apply_snapshot, create_snapshot, delete_snapshot
from blockwright.units import MiB
from tests.support.qcow2 import new, opened

SIZE = 4 * MiB
CLUSTERS = SIZE // 512


@pytest.mark.parametrize("step", ["create", "apply", "delete"])
def test_a_snapshot_takes_few_bytes_of_memory_for_each_cluster(step):
    file = new(SIZE, Options(cluster_size=512))
    with opened(file, owns=False) as disk:
        for offset in range(0, SIZE, MiB):
            disk.write(offset, b"x" * MiB)
        if step != "create":
            create_snapshot(disk, "s", time_ns=0)
    with opened(file, owns=False) as disk:
        disk.read(0, 1)
        tracemalloc.start()
        try:
            if step == "create":
                create_snapshot(disk, "s", time_ns=0)
            elif step == "apply":
                apply_snapshot(disk, "s")
            else:
                delete_snapshot(disk, "s")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak / CLUSTERS < 45
    assert check(file) == []


@pytest.mark.parametrize(("order", "most"), [(0, 1), (1, 3), (2, 15)])
def test_counts_that_are_too_narrow_are_found_first(order, most):
    file = new(MiB, Options(refcount_bits=1 << order))
    with opened(file, owns=False) as disk:
        disk.write(0, b"x")
        for number in range(most - 1):
            create_snapshot(disk, f"s{number}", time_ns=0)
    before = file.read(0, file.size)
    with opened(file, owns=False) as disk:
        with pytest.raises(LimitExceeded, match=f"at most {most} cannot count one more"):
            create_snapshot(disk, "more", time_ns=0)
        if most > 1:
            with pytest.raises(LimitExceeded, match=f"at most {most} cannot count one more"):
                apply_snapshot(disk, "s0")
    assert file.read(0, file.size) == before
    assert check(file) == []
