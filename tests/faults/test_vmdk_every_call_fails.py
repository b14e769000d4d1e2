"""The k-th call to the file of a VMDK image fails, for every k: what was not asked for stays, nothing is lost."""

import random
from contextlib import suppress

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import NoSpace
from blockwright.format.mapped import Kind
from blockwright.format.vmdk.check import LEAK, check
from blockwright.format.vmdk.layout import TABLE_BYTES
from blockwright.format.vmdk.sparse import open_sparse, read_header
from blockwright.testing import FaultDevice
from blockwright.units import KiB, align_up
from tests.support.vmdk import Lent, Shelf, new, opened

SIZE = 512 * KiB


def operations(seed: str):
    chance = random.Random(seed)
    for _ in range(16):
        offset = chance.randrange(SIZE - 1)
        length = min(SIZE - offset, chance.choice((512, 5000, 70_000)))
        yield chance.choice(("write", "write", "write", "zero", "flush")), offset, chance.randbytes(length)


def attempt(fail_at: int | None, *, lasting: bool) -> int:
    """Do all operations on a file whose call fails, verify what is left, and return how many calls there were."""
    file = new(SIZE)
    size = file.size
    file.resize(size + 2 * SIZE)
    faulty = FaultDevice(Lent(file), names={"write", "zero", "discard", "flush"}, lasting=lasting, owns=False)
    disk = opened(faulty)
    content, loose = bytearray(SIZE), bytearray(SIZE)
    faulty.fail_at = fail_at
    for name, offset, data in operations("vmdk"):
        end = offset + len(data)
        try:
            if name == "write":
                disk.write(offset, data)
            elif name == "zero":
                disk.zero(offset, len(data))
            else:
                disk.flush()
        except OSError:
            if name != "flush":
                loose[offset:end] = b"\1" * len(data)
            continue
        if name != "flush":
            content[offset:end] = data if name == "write" else bytes(len(data))
            loose[offset:end] = bytes(len(data))
    faulty.fail_at = None
    got = disk.read(0, SIZE)
    for index, (want, found) in enumerate(zip(content, got, strict=True)):
        if want != found and not loose[index]:
            raise AssertionError(f"call {fail_at}: byte {index} is not what was written")
    disk.close()
    worse = [each for each in check(file, Shelf()) if each.rule != LEAK]
    assert not worse, f"call {fail_at}: {worse[0]}"
    with opened(Lent(file), writable=False) as again:
        assert again.read(0, SIZE) == got
    return faulty.count


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_every_call(lasting):
    for fail_at in range(attempt(None, lasting=lasting)):
        attempt(fail_at, lasting=lasting)


class Failing(Lent):
    """A file whose call number ``fail_at`` to write or to grow fails for want of room."""

    def __init__(self, inner: MemoryDevice, fail_at: int | None) -> None:
        super().__init__(inner)
        self.fail_at = fail_at
        self.count = 0

    def _resize(self, size: int) -> None:
        self._next()
        super()._resize(size)

    def _write(self, offset, buffers, *, durable) -> None:
        self._next()
        super()._write(offset, buffers, durable=durable)

    def _next(self) -> None:
        number, self.count = self.count, self.count + 1
        if number == self.fail_at:
            raise NoSpace("no space left on device")


def fill(fail_at: int | None) -> int:
    """Write to a file without tables, whose call fails, and verify that nothing of it is lost; return the calls."""
    file = new(SIZE)
    header = read_header(file)
    for directory in (header.directory, header.redundant):
        file.write(directory, bytes(4 * header.tables))
    start = align_up(file.size, 4 * KiB)
    failing = Failing(file, fail_at)
    with open_sparse(failing, writable=True) as disk:
        for name, offset, data in operations("room"):
            with suppress(NoSpace):
                if name == "flush":
                    disk.flush()
                else:
                    disk.write(offset, data)
        failing.fail_at = None
    assert list(check(file, Shelf())) == [], f"call {fail_at}"
    with open_sparse(Lent(file)) as disk:
        grains = sum(place.length for place in disk.resolve(0, SIZE) if place.kind is Kind.DATA) // header.grain
    assert grains > 4
    assert file.size == start + grains * header.grain + 2 * TABLE_BYTES, f"call {fail_at}"
    return failing.count


def test_no_room_is_lost_where_there_is_none_for_a_call():
    for fail_at in range(fill(None)):
        fill(fail_at)
