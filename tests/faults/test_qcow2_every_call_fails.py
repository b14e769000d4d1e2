"""The k-th call to the file of a qcow2 image fails, for every k: what was not asked for stays, nothing is lost."""

import random

import pytest

from blockwright.format.qcow2.check import LEAK, check
from blockwright.format.qcow2.create import Options
from blockwright.testing import FaultDevice
from blockwright.units import KiB, MiB
from tests.support.qcow2 import new, opened

SIZE = 512 * KiB
ROOM = 16 * MiB
KINDS = {
    "default": Options(),
    "clusters of 512": Options(cluster_size=512, refcount_bits=64),
    "subclusters": Options(extended_l2=True, cluster_size=16 * KiB),
}


def operations(seed: str):
    chance = random.Random(seed)
    for _ in range(14):
        offset = chance.randrange(SIZE - 1)
        length = min(SIZE - offset, chance.choice((512, 5000, 70_000)))
        yield chance.choice(("write", "write", "write", "zero", "flush")), offset, chance.randbytes(length)


def attempt(kind: str, fail_at: int | None, *, lasting: bool) -> int:
    """Do all operations on a file whose call fails, verify what is left, and return how many calls there were."""
    file = new(SIZE, KINDS[kind], room=ROOM)
    faulty = FaultDevice(file, names={"write", "zero", "discard", "flush"}, lasting=lasting, owns=False)
    disk = opened(faulty)
    content, loose = bytearray(SIZE), bytearray(SIZE)
    faulty.fail_at = fail_at
    for name, offset, data in operations(kind):
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
        if not faulty.failed:
            assert disk.read(offset, len(data)) == content[offset:end] or name == "flush"
    faulty.fail_at = None
    got = disk.read(0, SIZE)
    for index, (want, found) in enumerate(zip(content, got, strict=True)):
        if want != found and not loose[index]:
            raise AssertionError(f"{kind}, call {fail_at}: byte {index} is not what was written")
    disk.close()
    worse = [each for each in check(file) if each.rule != LEAK]
    assert not worse, f"{kind}, call {fail_at}: {worse[0]}"
    assert opened(file, writable=False).read(0, SIZE) == got
    return faulty.count


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_call(kind, lasting):
    count = attempt(kind, None, lasting=lasting)
    step = max(1, count // 12)
    for fail_at in range(0, count, step):
        attempt(kind, fail_at, lasting=lasting)


@pytest.mark.parametrize("kind", KINDS)
def test_a_write_that_fails_leaves_no_leak(kind):
    """Clusters that were allocated for it are free again: the file does not grow by each try."""
    file = new(SIZE, KINDS[kind], room=ROOM)
    faulty = FaultDevice(file, names={"write"}, owns=False)
    with opened(faulty) as disk:
        disk.write(0, b"before")
        disk.flush()
        faulty.fail_at = faulty.count
        with pytest.raises(OSError, match="Input/output"):
            disk.write(SIZE // 2, bytes(range(256)) * 256)
        assert faulty.failed
    assert check(file) == []
