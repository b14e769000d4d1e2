"""A slow stream goes on over several connections: the same bytes in their order, a few of them in memory."""

import random
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from blockwright.errors import Cancelled, ConnectionLost
from blockwright.tree import ranges
from blockwright.tree.ranges import hastened

DATA = random.Random(1).randbytes(1 << 20)
STEP = 1 << 14


class Clock(threading.local):
    """What a thread takes for the time: nothing passes but what it waits for, however busy the machine is."""

    now = 0.0

    def passes(self, seconds):
        self.now += seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(ranges, "time", SimpleNamespace(monotonic=lambda: CLOCK.now, sleep=time.sleep))
    monkeypatch.setattr(ranges, "WAIT_S", 0.02)
    monkeypatch.setattr(ranges, "LEAST", 1 << 18)
    monkeypatch.setattr(ranges, "QUICK", 2 << 20)
    monkeypatch.setattr(ranges, "_SMALLEST", STEP)
    monkeypatch.setattr(ranges, "_LARGEST", STEP)
    monkeypatch.setattr(ranges, "_PAUSE_S", 0.0)
    yield
    assert ranges._room._value == ranges.MAX_CONNECTIONS, "every connection was given back"


class Server:
    """Parts of DATA; ``fault`` is called with (number of the request, start) and may raise or wait."""

    def __init__(self, fault=lambda _number, _start: None):
        self.fault, self.asked, self.lock = fault, [], threading.Lock()
        self.busy = self.most = 0

    def __call__(self, start, end):
        with self.lock:
            self.asked.append((start, end))
            number = len(self.asked)
            self.busy += 1
            self.most = max(self.most, self.busy)
        try:
            self.fault(number, start)
            return DATA[start:end]
        finally:
            with self.lock:
                self.busy -= 1


def slow(start=0, pause=0.005, closed=None, size=1 << 13):
    """The stream that one connection gives."""
    try:
        for at in range(start, len(DATA), size):
            CLOCK.passes(pause)
            yield memoryview(DATA)[at : at + size]
    finally:
        if closed is not None:
            closed.append(at)


def all_of(pieces):
    with closing(pieces):
        return b"".join(map(bytes, pieces))


def gather(pieces, into):
    for piece in pieces:
        into += piece


@pytest.mark.parametrize("start", [0, 1, 300_000])
def test_the_same_bytes_in_their_order_whenever_they_come(start):
    dice, closed = random.Random(start), []

    def wait(number, _start):
        assert number == 1 or closed, "one connection is given up as soon as another one has brought something"
        time.sleep(dice.random() / 100)

    server = Server(wait)
    assert all_of(hastened(slow(start, closed=closed), start, len(DATA), server)) == DATA[start:]
    assert closed[0] < start + (1 << 18), "one connection is given up early"
    assert len(server.asked) > 20
    assert len({low for low, _ in server.asked}) == len(server.asked), "no byte is asked for twice"
    assert 2 <= server.most <= ranges.AT_ONCE


def test_what_is_quick_or_short_is_left_alone():
    server = Server()
    assert all_of(hastened(slow(pause=0.002, size=1 << 16), 0, len(DATA), server)) == DATA
    late = len(DATA) - (1 << 17)
    assert all_of(hastened(slow(late), late, len(DATA), server)) == DATA[late:]
    assert server.asked == []


def test_waiting_for_who_takes_the_bytes_is_no_slowness():
    server = Server()
    got = bytearray()
    with closing(hastened(slow(pause=0), 0, len(DATA), server)) as pieces:
        for piece in pieces:
            CLOCK.passes(0.008)
            got += piece
    assert got == DATA
    assert server.asked == []


def test_a_server_without_ranges_is_asked_once_and_its_stream_goes_on():
    def refuse(*_):
        raise ConnectionLost("no range")

    server, closed = Server(refuse), []
    assert all_of(hastened(slow(closed=closed), 0, len(DATA), server)) == DATA
    assert len(server.asked) == 1
    assert closed == [len(DATA) - (1 << 13)]


def test_a_range_that_breaks_off_is_asked_for_again_and_fewer_are_at_once():
    together = threading.Barrier(3)

    def fault(number, _start):
        if number in (2, 3, 4):  # behind the one that was tried
            together.wait(60)
        time.sleep(0.002)
        if number in (9, 12):
            raise ConnectionLost("too many")
        if number > 30:
            assert server.busy <= 2

    server = Server(fault)
    assert all_of(hastened(slow(), 0, len(DATA), server)) == DATA
    assert server.most > 2


def test_one_that_breaks_off_for_good_ends_behind_what_came_before():
    def fault(_number, start):
        if start >= 1 << 19:
            raise ConnectionLost("gone")

    got = bytearray()
    with closing(hastened(slow(), 0, len(DATA), Server(fault))) as pieces, pytest.raises(ConnectionLost):
        gather(pieces, got)
    assert DATA.startswith(got)
    assert (1 << 19) - STEP < len(got) <= (1 << 19) + STEP


def test_who_is_not_wanted_any_more_is_not_asked_again():
    def fault(number, _start):
        if number == 5:
            raise Cancelled("enough")

    server = Server(fault)
    with pytest.raises(Cancelled):
        all_of(hastened(slow(), 0, len(DATA), server))
    assert len(server.asked) <= 5 + ranges.AT_ONCE


def test_who_is_not_wanted_any_more_at_the_first_range_does_not_go_on():
    def fault(_number, _start):
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        all_of(hastened(slow(), 0, len(DATA), Server(fault)))


def test_few_ranges_are_in_memory_however_slowly_they_are_taken():
    server = Server()
    with closing(hastened(slow(), 0, len(DATA), server)) as pieces:
        taken = 0
        for piece in pieces:
            taken += len(piece)
            if server.asked:
                time.sleep(0.005)
                came = max(end for _, end in server.asked)
                assert came <= taken + ranges.AT_ONCE * STEP
    assert taken == len(DATA)


def test_all_streams_together_have_so_many_connections():
    server = Server(lambda *_: time.sleep(0.003))
    threads = [
        threading.Thread(target=lambda: results.append(all_of(hastened(slow(), 0, len(DATA), server))))
        for _ in range(4)
    ]
    results = []
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert results == [DATA] * 4
    assert ranges.AT_ONCE < server.most <= ranges.MAX_CONNECTIONS


def test_closing_it_ends_the_requests():
    server = Server(lambda *_: time.sleep(0.002))
    with closing(hastened(slow(), 0, len(DATA), server)) as pieces:
        while len(server.asked) < 10:
            next(pieces)
    for each in threading.enumerate():
        if each.name.startswith("range"):
            each.join(60)
    count = len(server.asked)
    time.sleep(0.05)
    assert len(server.asked) == count < 30
