"""What is written through a hashing device has the root hash and tree that reading it again would give."""

import random

import pytest

from blockwright.device.copy import copy
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Misaligned, UsageError
from blockwright.testing.fault import FaultDevice
from blockwright.units import MiB
from blockwright.verity.layout import Parameters
from blockwright.verity.plan import plan_tree
from blockwright.verity.tap import HashingDevice
from blockwright.verity.tree import write_tree

PARAMETERS = Parameters(8 * MiB // 4096, salt=b"tap")


def tapped(inner, parameters=PARAMETERS):
    tree = MemoryDevice(plan_tree(parameters).size)
    return HashingDevice(inner, parameters, tree.write, threads=3), tree


@pytest.mark.parametrize("is_zero", [True, False])
@pytest.mark.parametrize("data_block", [512, 4096, 65536])
def test_a_copy_is_hashed_as_it_is_written(is_zero, data_block):
    parameters = Parameters(8 * MiB // data_block, "sha1", b"tap", data_block, 1024)
    source = MemoryDevice(8 * MiB)
    for number in range(6):
        place = random.Random(number)
        source.write(place.randrange(7 * MiB) & -512, place.randbytes(place.randrange(200_000)))
    target = MemoryDevice(content=(b"\0" if is_zero else b"\xff") * (8 * MiB))
    tap, tree = tapped(target, parameters)
    copy(source, tap, target_is_zero=is_zero)
    root = tap.finish()
    wanted = MemoryDevice(tree.size)
    assert root == write_tree(source, parameters, wanted.write)
    assert tree.read(0, tree.size) == wanted.read(0, tree.size)
    assert target.read(0, target.size) == source.read(0, source.size)


def test_nothing_written_is_zeros():
    tap, _ = tapped(MemoryDevice(8 * MiB))
    assert tap.finish() == write_tree(MemoryDevice(8 * MiB), PARAMETERS, lambda *_: None)


def test_several_buffers_are_one_write():
    tap, _ = tapped(MemoryDevice(8 * MiB))
    tap.write(4096, b"a" * 1000, b"b" * 7192)
    data = MemoryDevice(8 * MiB)
    data.write(4096, b"a" * 1000 + b"b" * 7192)
    assert tap.finish() == write_tree(data, PARAMETERS, lambda *_: None)


def test_there_is_no_way_past_it(tmp_path):
    tap, _ = tapped(MemoryDevice(8 * MiB))
    with FileDevice(tmp_path / "file", writable=True, create=True) as file:
        file.resize(8 * MiB)
        with file.backing(0, MiB) as runs:
            assert runs
        with tapped(file)[0].backing(0, MiB) as runs:
            assert runs is None
    assert tap.traits.parallelism == 1
    tap.write(8192, bytes(4096))
    for job in (lambda: tap.write(4096, bytes(4096)), lambda: tap.zero(8192, 4096)):
        with pytest.raises(UsageError, match="from byte 12288 on"):
            job()
    with pytest.raises(Misaligned):
        tap.write(16384, b"x")
    with pytest.raises(UsageError, match="expected a device of"):
        tapped(MemoryDevice(MiB))


def test_a_write_that_fails_is_raised_and_lets_go_of_the_buffers():
    tap, _ = tapped(FaultDevice(MemoryDevice(8 * MiB), fail_at=0, names={"write"}))
    buffer = bytearray(MiB)
    with pytest.raises(OSError):
        tap.write(0, buffer)
    buffer.clear()  # is refused while somebody has a view of it
    tap.close()
