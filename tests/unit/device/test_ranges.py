import random
import threading
import time

from blockwright.device.ranges import RangeLock
from blockwright.testing.threads import run_threads


def started(*works):
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.001)


class Holder:
    """A hold in a thread of its own, which ends when told."""

    def __init__(self, hold):
        self.granted, self.end = threading.Event(), threading.Event()

        def run():
            with hold:
                self.granted.set()
                self.end.wait(60)

        (self.thread,) = started(run)

    def finish(self):
        self.end.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


def test_shared_holds_go_together_and_exclusive_ones_wait():
    ranges = RangeLock()
    first, second = Holder(ranges.shared(0, 10)), Holder(ranges.shared(5, 15))
    assert first.granted.wait(60)
    assert second.granted.wait(60)
    alone = Holder(ranges.exclusive(9, 11))
    until(lambda: ranges.held == 3)
    assert not alone.granted.wait(0.03)
    first.finish()
    assert not alone.granted.wait(0.03)
    second.finish()
    assert alone.granted.wait(60)
    alone.finish()
    assert ranges.held == 0


def test_ranges_that_only_touch_do_not_wait():
    ranges = RangeLock()
    with ranges.exclusive(10, 20), ranges.exclusive(20, 30):
        below = Holder(ranges.exclusive(0, 10))
        assert below.granted.wait(60)
        below.finish()


def test_first_come_first_served_so_a_writer_does_not_starve():
    ranges = RangeLock()
    reader = Holder(ranges.shared(0, 10))
    assert reader.granted.wait(60)
    writer = Holder(ranges.exclusive(0, 10))
    until(lambda: ranges.held == 2)
    late = Holder(ranges.shared(0, 10))
    until(lambda: ranges.held == 3)
    assert not late.granted.wait(0.03)
    reader.finish()
    assert writer.granted.wait(60)
    assert not late.granted.wait(0.03)
    writer.finish()
    assert late.granted.wait(60)
    late.finish()


def test_a_hold_ends_with_an_exception():
    ranges = RangeLock()
    try:
        with ranges.exclusive(0, 5):
            raise ValueError
    except ValueError:
        pass
    with ranges.exclusive(0, 5):
        assert ranges.held == 1


def test_waiting_for_earlier_holds_does_not_wait_for_later_ones():
    ranges, flushed = RangeLock(), threading.Event()
    earlier = Holder(ranges.exclusive(0, 5))
    assert earlier.granted.wait(60)

    def flush():
        ranges.wait_for_earlier()
        flushed.set()

    (thread,) = started(flush)
    until(lambda: ranges._waiting == 1)
    later = Holder(ranges.exclusive(10, 15))
    assert later.granted.wait(60)
    assert not flushed.wait(0.03)
    earlier.finish()
    assert flushed.wait(60), "a flush waits for a hold that came after it"
    later.finish()
    thread.join()
    ranges.wait_for_earlier()


def test_exclusion_holds_under_load():
    ranges, cells = RangeLock(), [0] * 32

    def work(seed):
        chance = random.Random(seed)
        for _ in range(300):
            start = chance.randrange(32)
            end = chance.randrange(start, 32) + 1
            if chance.random() < 0.5:
                with ranges.exclusive(start, end):
                    before = cells[start:end]
                    cells[start:end] = [value + 1 for value in before]
                    if chance.random() < 0.05:
                        time.sleep(0)
                    assert cells[start:end] == [value + 1 for value in before]
            else:
                with ranges.shared(start, end):
                    before = cells[start:end]
                    if chance.random() < 0.05:
                        time.sleep(0)
                    assert cells[start:end] == before

    run_threads([lambda seed=seed: work(seed) for seed in range(4)])
    assert ranges.held == 0
