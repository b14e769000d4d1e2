"""A disk in a bucket under threads that write, zero, read, flush and resize at once, against a model."""

import random
import sys
import threading
import time

import pytest

from blockwright.store.disk import create_disk, open_disk
from blockwright.store.layout import MIN_CHUNK
from tests.support.objects import MemoryObjects

pytestmark = pytest.mark.unprivileged
KEY = "disk"
SHARE = MIN_CHUNK + 4096
"""Bytes of the disk that are one thread's own: no multiple of a chunk, so that neighbours share one."""
TAIL = 5 * MIN_CHUNK


class Owner:
    """A thread's own part of the disk, and what it must hold."""

    def __init__(self, disk, number):
        self.disk, self.start = disk, number * SHARE
        self.model = bytearray(SHARE)
        self.random = random.Random(number)

    def step(self):
        low = self.random.randrange(SHARE)
        length = self.random.choice((1, 512, 4096, MIN_CHUNK))
        high = min(SHARE, low + length)
        what = self.random.randrange(8)
        if what < 3:
            data = self.random.randbytes(high - low)
            self.disk.write(self.start + low, data, durable=self.random.randrange(20) == 0)
            self.model[low:high] = data
        elif what < 4:
            self.disk.zero(self.start + low, high - low)
            self.model[low:high] = bytes(high - low)
        elif what < 5:
            self.disk.flush()
        else:
            found = self.disk.read(self.start + low, high - low)
            assert found == self.model[low:high], f"{what} at {self.start + low}"


def run(tasks):
    """Run the tasks in threads, and raise the first error of any."""
    errors = []

    def guarded(task):
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def owners_of(disk, count, steps, go_on):
    """Return owners and what each does: its steps, while ``go_on`` holds."""
    owners = [Owner(disk, number) for number in range(count)]

    def work(owner):
        for _ in range(steps):
            if not go_on.is_set():
                return
            owner.step()

    return owners, [lambda owner=owner: work(owner) for owner in owners]


@pytest.fixture
def often():
    """Threads take turns so often that most of what may happen between two of them does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.slow
@pytest.mark.parametrize("dirty", [MIN_CHUNK, 8 * MIN_CHUNK])
def test_threads_with_parts_of_their_own_each_read_what_they_wrote(dirty, monkeypatch, often):
    objects = MemoryObjects()
    monkeypatch.setattr(objects, "before", lambda *_: time.sleep(0.0003))
    go_on = threading.Event()
    go_on.set()
    fixed = 8 * SHARE
    with create_disk(objects, KEY, fixed + TAIL, chunk=MIN_CHUNK, dirty=dirty) as disk:
        disk.flush()
        owners, tasks = owners_of(disk, 8, 150, go_on)

        def resize():
            chance = random.Random(0)
            for _ in range(100):
                disk.resize(fixed + chance.choice((0, 1, 4096, chance.randrange(TAIL))))

        def look():
            for _ in range(60):
                assert sum(each.length for each in disk.extents(0, fixed)) == fixed

        run([*tasks, resize, look])
        disk.resize(fixed)
        disk.flush()
        expected = b"".join(owner.model for owner in owners)
        assert disk.read(0, fixed) == expected
    with open_disk(objects, KEY) as disk:
        assert disk.read(0, disk.size) == expected
        pages = {f"{KEY}/pages/{ref.name}" for ref in disk._root.pages.values()}
        chunks = {f"{KEY}/chunks/{ref.name}" for page in disk._pages.values() for ref in page.values()}
    assert set(objects.held) == {f"{KEY}/root"} | pages | chunks, "nothing lost and nothing left over"
