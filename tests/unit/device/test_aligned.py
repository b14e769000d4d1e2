"""Any range of a file that takes whole sectors only, against bytes; the file refuses everything else."""

import os
import random
import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.device import aligned
from blockwright.device.aligned import AlignedFile
from tests.support.rawdisks import SECTOR_SIZE, Strict

SIZE = 16 * SECTOR_SIZE


@pytest.fixture
def medium(tmp_path):
    path = tmp_path / "medium"
    path.write_bytes(random.Random(5).randbytes(SIZE))
    return path


@pytest.fixture
def fd(medium):
    fd = os.open(medium, os.O_RDWR)
    yield fd
    os.close(fd)


def test_the_file_refuses_what_is_no_whole_sector(fd, monkeypatch):
    Strict(monkeypatch)
    page = memoryview(aligned.mmap.mmap(-1, SECTOR_SIZE))
    assert os.preadv(fd, [page], SECTOR_SIZE) == SECTOR_SIZE
    for offset, buffer in ((1, page), (0, page[:512]), (0, page[1:])):
        with pytest.raises(OSError, match="Invalid"):
            os.preadv(fd, [buffer], offset)
        with pytest.raises(OSError, match="Invalid"):
            os.pwritev(fd, [buffer], offset)


ranges = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(sorted)


@given(st.lists(st.tuples(ranges, st.integers(1, 3), st.booleans()), max_size=8), st.sampled_from([1, 2, 16]))
@settings(max_examples=60, deadline=None)
def test_it_holds_what_bytes_do(tmp_path_factory, operations, chunk):
    path = tmp_path_factory.mktemp("medium") / "medium"
    model = bytearray(random.Random(1).randbytes(SIZE))
    path.write_bytes(model)
    fd = os.open(path, os.O_RDWR)
    with pytest.MonkeyPatch.context() as patch:
        Strict(patch)
        patch.setattr(aligned, "CHUNK", chunk * SECTOR_SIZE)
        file = AlignedFile(fd, SECTOR_SIZE)
        for number, ((start, end), parts, durable) in enumerate(operations):
            data = random.Random(number).randbytes(end - start)
            cut = [len(data) * index // parts for index in range(parts + 1)]
            pieces = [memoryview(data)[a:b] for a, b in pairwise(cut)]
            file.write(start, pieces, durable=durable)
            model[start:end] = data
            found = bytearray(end - start + 1)
            views = [memoryview(found)[a:b] for a, b in zip(cut, [*cut[1:-1], len(found)], strict=False)]
            assert file.read(start, views) == min(end + 1, SIZE) - start
            assert found[: SIZE - start] == model[start : end + 1]
    os.close(fd)
    assert path.read_bytes() == model


def test_whole_sectors_are_written_without_reading(fd, monkeypatch):
    strict = Strict(monkeypatch)
    file = AlignedFile(fd, SECTOR_SIZE)
    file.write(SECTOR_SIZE, [memoryview(bytes(2 * SECTOR_SIZE))])
    assert strict.calls == [("pwritev", SECTOR_SIZE, 2 * SECTOR_SIZE)]
    strict.calls.clear()
    file.write(SECTOR_SIZE + 1, [memoryview(bytes(2))])
    file.write(SECTOR_SIZE - 1, [memoryview(bytes(SECTOR_SIZE))])
    assert [(name, length) for name, _, length in strict.calls] == [
        ("preadv", SECTOR_SIZE),
        ("pwritev", SECTOR_SIZE),
        ("preadv", SECTOR_SIZE),
        ("preadv", SECTOR_SIZE),
        ("pwritev", 2 * SECTOR_SIZE),
    ]


def test_parts_of_one_sector_by_several_threads(fd, medium, monkeypatch):
    """Nobody's part is undone by another's, nor by who writes the whole."""
    file = AlignedFile(fd, SECTOR_SIZE)
    parts, rounds = 8, 60
    width = SECTOR_SIZE // parts

    def write(index):
        for number in range(rounds):
            file.write(index * width, [memoryview(bytes([number]) * width)])

    threads = [threading.Thread(target=write, args=(index,)) for index in range(parts)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert medium.read_bytes()[:SECTOR_SIZE] == bytes([rounds - 1]) * SECTOR_SIZE


def test_a_whole_sector_waits_for_who_writes_a_part(fd, medium, monkeypatch):
    file = AlignedFile(fd, SECTOR_SIZE)
    read, go_on = threading.Event(), threading.Event()
    real = os.preadv

    def slow(*arguments):
        done = real(*arguments)
        read.set()
        assert go_on.wait(60)
        return done

    monkeypatch.setattr(os, "preadv", slow)
    part = threading.Thread(target=file.write, args=(0, [memoryview(b"part")]))
    part.start()
    assert read.wait(60)
    whole = threading.Thread(target=file.write, args=(0, [memoryview(b"w" * SECTOR_SIZE)]))
    whole.start()
    whole.join(0.05)
    assert whole.is_alive()
    go_on.set()
    part.join()
    whole.join()
    assert medium.read_bytes()[:SECTOR_SIZE] == b"w" * SECTOR_SIZE


def test_an_end_is_told(fd):
    file = AlignedFile(fd, SECTOR_SIZE)
    buffer = bytearray(3 * SECTOR_SIZE)
    assert file.read(SIZE - 10, [memoryview(buffer)]) == 10
    assert file.read(SIZE + SECTOR_SIZE, [memoryview(buffer)]) == 0
