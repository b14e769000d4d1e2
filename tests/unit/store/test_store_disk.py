"""A disk in a bucket: its states, its one writer, and what is left when either end fails."""

import random
import time

import pytest

from blockwright.codec.checksum import crc32c
from blockwright.device.extent import HOLE, ZERO
from blockwright.errors import Corrupt, IntegrityError, InUse, ObjectNotFound, SourceChanged, StoreError, UsageError
from blockwright.store import disk as disk_module
from blockwright.store.disk import create_disk, open_disk
from blockwright.store.layout import MIN_CHUNK, PAGE_CHUNKS
from blockwright.store.objects import Version
from blockwright.store.open import open_remote_of
from blockwright.store.output import BucketOutput
from tests.support.objects import Ended, MemoryObjects

pytestmark = pytest.mark.unprivileged
SIZE = 20 * MIN_CHUNK + 1000
KEY = "disks/one"


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def make(objects, size=SIZE, **options):
    return create_disk(objects, KEY, size, chunk=MIN_CHUNK, **options)


def content(objects):
    with open_disk(objects, KEY) as disk:
        return disk.read(0, disk.size)


def referred(objects):
    """The keys that the root leads to, by the disk's own reading."""
    with open_disk(objects, KEY) as disk:
        disk.read(0, disk.size)
        pages = {f"{KEY}/pages/{ref.name}" for ref in disk._root.pages.values()}
        chunks = {f"{KEY}/chunks/{ref.name}" for page in disk._pages.values() for ref in page.values()}
    return {f"{KEY}/root", *pages, *chunks}


def test_a_disk_is_there_with_its_first_flush_and_holes_have_no_object():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.write(MIN_CHUNK - 5, b"across an edge")
        with pytest.raises(ObjectNotFound):
            open_disk(objects, KEY)
        disk.flush()
        assert disk.read(MIN_CHUNK - 5, 14) == b"across an edge"
    expected = bytearray(SIZE)
    expected[MIN_CHUNK - 5 : MIN_CHUNK + 9] = b"across an edge"
    assert content(objects) == expected
    assert sorted(objects.held) == sorted(referred(objects))
    assert len([key for key in objects.held if "/chunks/" in key]) == 2
    with open_disk(objects, KEY) as disk:
        kinds = [(each.length, each.flags) for each in disk.extents()]
    assert kinds == [(2 * MIN_CHUNK, 0), (SIZE - 2 * MIN_CHUNK, HOLE | ZERO)]


def test_what_was_not_flushed_is_not_there():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.write(0, noise(SIZE))
        disk.flush()
        disk.write(0, noise(SIZE, 2))
    assert content(objects) == noise(SIZE)
    assert sorted(objects.held) == sorted(referred(objects))


def test_a_disk_that_was_never_flushed_leaves_nothing():
    objects = MemoryObjects()
    with make(objects, dirty=MIN_CHUNK) as disk:
        disk.write(0, noise(SIZE))
        assert any(call == "put" for call, _ in objects.calls), "nothing was put early"
    assert objects.held == {}


def test_memory_is_bounded_by_putting_the_oldest_early():
    objects = MemoryObjects()
    with make(objects, dirty=2 * MIN_CHUNK) as disk:
        most = 0
        for offset in range(0, SIZE, 1000):
            disk.write(offset, noise(min(1000, SIZE - offset), offset))
            most = max(most, len(disk._dirty))
        assert most <= 3
        disk.flush()
    assert content(objects)[5000:6000] == noise(1000, 5000)
    assert sorted(objects.held) == sorted(referred(objects))


def test_zeros_and_discards_take_objects_away():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.write(0, noise(SIZE))
        disk.flush()
        disk.zero(100, 5 * MIN_CHUNK)
        disk.discard(10 * MIN_CHUNK, SIZE - 10 * MIN_CHUNK)
        disk.write(7 * MIN_CHUNK, bytes(MIN_CHUNK))
        disk.flush()
    expected = bytearray(noise(SIZE))
    expected[100 : 100 + 5 * MIN_CHUNK] = bytes(5 * MIN_CHUNK)
    expected[10 * MIN_CHUNK :] = bytes(SIZE - 10 * MIN_CHUNK)
    expected[7 * MIN_CHUNK : 8 * MIN_CHUNK] = bytes(MIN_CHUNK)
    assert content(objects) == expected
    assert len([key for key in objects.held if "/chunks/" in key]) == 5
    assert sorted(objects.held) == sorted(referred(objects))


def test_zeroing_a_huge_disk_looks_at_what_is_used_only():
    objects = MemoryObjects()
    with make(objects, size=1 << 41) as disk:
        disk.write(1 << 40, b"x")
        disk.zero(0, 1 << 41)
        disk.flush()
    assert [key for key in objects.held if "/chunks/" in key] == []


def test_many_pages_and_one_writer_after_the_other():
    objects = MemoryObjects()
    size = 3 * PAGE_CHUNKS * MIN_CHUNK
    with make(objects, size=size) as disk:
        disk.write(0, b"a")
        disk.flush()
    with open_disk(objects, KEY, writable=True) as disk:
        disk.write(size - 1, b"z")
        disk.write(PAGE_CHUNKS * MIN_CHUNK, b"m", durable=True)
    with open_disk(objects, KEY) as disk:
        assert [disk.read(at, 1) for at in (0, PAGE_CHUNKS * MIN_CHUNK, size - 1)] == [b"a", b"m", b"z"]
        assert len(disk._root.pages) == 3
        assert disk._root.writer is None
    assert sorted(objects.held) == sorted(referred(objects))


def test_resizing_keeps_what_lies_within():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.write(0, noise(SIZE))
        disk.flush()
        disk.resize(3 * MIN_CHUNK + 10)
        disk.resize(9 * MIN_CHUNK + 5)
        disk.flush()
    assert content(objects) == noise(SIZE)[: 3 * MIN_CHUNK + 10] + bytes(6 * MIN_CHUNK - 5)
    assert sorted(objects.held) == sorted(referred(objects))


def test_a_second_writer_is_refused_and_told_by_whom():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.flush()
        with pytest.raises(InUse, match=r"process \d+ on "):
            open_disk(objects, KEY, writable=True)
        assert content(objects) == bytes(SIZE), "readers are not kept out"
    with open_disk(objects, KEY, writable=True):
        pass


def test_whoever_was_taken_over_from_is_told_and_changes_nothing():
    objects = MemoryObjects()
    first = make(objects)
    first.write(0, noise(SIZE))
    first.flush()
    first.write(0, b"late")
    with open_disk(objects, KEY, writable=True, take_over=True) as second:
        second.write(0, b"new!")
        second.flush()
        with pytest.raises(InUse, match="somebody else writes"):
            first.flush()
        with pytest.raises(InUse, match="somebody else writes"):
            first.write(0, b"later")
        first.close()
        assert second.read(0, 4) == b"new!"
    assert content(objects) == b"new!" + noise(SIZE)[4:]
    assert referred(objects) < set(objects.held), "what the first put may be another's by now: it is left"
    with open_disk(objects, KEY, writable=True) as third:
        assert third.collect(third.keys()) > 0
    assert sorted(objects.held) == sorted(referred(objects))


def test_two_that_open_at_once_are_one_writer():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.flush()

    def interfere(call, key):
        if call == "put" and key.endswith("/root"):
            objects.before = None
            open_disk(objects, KEY, writable=True)

    objects.before = interfere
    with pytest.raises(InUse):
        open_disk(objects, KEY, writable=True)


def test_a_reader_of_an_old_state_is_told_that_it_is_gone():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.write(0, noise(SIZE))
        disk.flush()
        with open_disk(objects, KEY) as reader:
            disk.write(0, b"new")
            disk.flush()
            with pytest.raises(SourceChanged, match="changed by somebody else"):
                reader.read(0, 10)


def test_bytes_that_are_not_what_was_put_are_not_handed_on():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.write(0, noise(SIZE))
        disk.flush()
    for key in [key for key in objects.held if key != f"{KEY}/root"]:
        data, version = objects.held[key]
        objects.held[key] = bytes([data[0] ^ 1]) + data[1:], version
        with open_disk(objects, KEY) as reader, pytest.raises(IntegrityError, match="checksum"):
            reader.read(0, SIZE)
        objects.held[key] = data, version


def test_requests_that_the_store_was_asked_twice_succeed_once():
    """A put whose answer was lost is made again by the client's library, and then meets what it made itself."""
    objects = MemoryObjects()
    honest = objects.put

    def twice(key, data, **conditions):
        honest(key, data, **conditions)
        return honest(key, data, **conditions)

    objects.put = twice
    with make(objects) as disk:
        disk.write(0, noise(SIZE))
        disk.flush()
        disk.write(5, b"again")
        disk.flush()
    objects.put = honest
    assert content(objects)[:10] == noise(SIZE)[:5] + b"again"
    assert sorted(objects.held) == sorted(referred(objects))


def scene(objects):
    """Two states of a disk, one after the other; what ends the process may come at any call."""
    disk = make(objects, dirty=3 * MIN_CHUNK)
    disk.write(0, noise(SIZE))
    disk.flush()
    disk.write(3 * MIN_CHUNK - 9, noise(9 * MIN_CHUNK, 2))
    disk.zero(15 * MIN_CHUNK, 2 * MIN_CHUNK)
    disk.flush()
    return disk


def second_state():
    expected = bytearray(noise(SIZE))
    expected[3 * MIN_CHUNK - 9 : 12 * MIN_CHUNK - 9] = noise(9 * MIN_CHUNK, 2)
    expected[15 * MIN_CHUNK : 17 * MIN_CHUNK] = bytes(2 * MIN_CHUNK)
    return bytes(expected)


def total_calls():
    objects = MemoryObjects()
    scene(objects).close()
    calls = len(objects.calls)
    assert content(objects) == second_state()
    return calls


def end_of(objects):
    scene(objects).close()
    objects.head("none")  # what ends while it closes has nothing more to ask


@pytest.mark.parametrize("when", ["before", "behind"])
def test_whichever_call_a_process_ends_at_one_state_or_the_other_is_there(when):
    states = {None: 0, noise(SIZE): 0, second_state(): 0}
    for last in range(total_calls()):
        objects = MemoryObjects()

        def end(call, key, objects=objects, last=last):
            if len(objects.calls) > last + (when == "behind"):
                raise Ended

        objects.before = end
        with pytest.raises(Ended):
            end_of(objects)
        objects.before = None
        try:
            found = content(objects)
        except ObjectNotFound:
            found = None
        assert found in states, f"ended {when} call {last}: {objects.calls[last]}"
        states[found] += 1
        if found is not None:
            with open_disk(objects, KEY, writable=True, take_over=True) as disk:
                assert disk.read(0, SIZE) == found
            assert sorted(objects.held) == sorted(referred(objects)), f"left over after call {last}"
    assert all(states.values()), "each state must have been seen"


def test_whichever_call_fails_the_disk_goes_on():
    for number in range(total_calls()):
        objects = MemoryObjects()
        objects.failed = False

        def fail(call, key, objects=objects, number=number):
            if len(objects.calls) == number + 1:
                objects.failed = True
                raise StoreError("the store is not well", permanent=False)

        objects.before = fail
        disk = make_again(objects)
        with disk:
            for _ in range(3):
                try:
                    disk.write(0, noise(SIZE))
                    disk.flush()
                    disk.write(77, b"second")
                    disk.flush()
                    break
                except StoreError as error:
                    assert "not well" in str(error)  # noqa: PT017 - it need not be raised
        objects.before = None
        assert content(objects)[77:83] == b"second", f"call {number}"
        assert content(objects)[100:] == noise(SIZE)[100:]
        if not objects.failed:
            return
    raise AssertionError("the last call was not reached")


def make_again(objects):
    try:
        return make(objects, dirty=3 * MIN_CHUNK)
    except StoreError:
        return make(objects, dirty=3 * MIN_CHUNK)


def fail_at_the_end(objects):
    with BucketOutput(objects, KEY, size=SIZE) as out:
        out.device.write(0, noise(SIZE))
        raise Ended


def test_outputs_appear_as_a_whole_or_not_at_all():
    objects = MemoryObjects()
    with pytest.raises(Ended):
        fail_at_the_end(objects)
    assert objects.held == {}
    for seed in (1, 2):
        with BucketOutput(objects, KEY, size=SIZE, force=seed == 2) as out:
            out.device.write(0, noise(SIZE, seed))
            if seed == 2:
                assert content(objects) == noise(SIZE)
        assert content(objects) == noise(SIZE, seed)
        assert sorted(objects.held) == sorted(referred(objects))
    with pytest.raises(UsageError, match="--force"):
        BucketOutput(objects, KEY, size=SIZE)
    with pytest.raises(UsageError):
        BucketOutput(objects, KEY, size=0, force=True)


def test_objects_are_read_behind_a_cache_and_pinned():
    objects = MemoryObjects()
    objects.put("image", noise(3_000_000))
    device, is_file = open_remote_of(objects, "image")
    with device:
        assert is_file
        assert device.read(999, 10) == noise(3_000_000)[999:1009]
        before = len(objects.calls)
        assert device.read(1, 5000) == noise(3_000_000)[1:5001]
        assert len(objects.calls) == before, "asked again for what is in the cache"
        objects.held["image"] = b"another", Version('"other"')
        with pytest.raises(SourceChanged):
            device.read(2_000_000, 10)
    with pytest.raises(ObjectNotFound, match="no such object"):
        open_remote_of(objects, "nothing")


def test_a_size_that_was_not_flushed_is_not_there():
    for size in (3 * MIN_CHUNK + 10, SIZE + 5 * MIN_CHUNK):
        objects = MemoryObjects()
        with make(objects) as disk:
            disk.write(0, noise(SIZE))
            disk.flush()
            disk.resize(size)
            assert disk.read(0, min(size, SIZE)) == noise(SIZE)[:size]
        assert content(objects) == noise(SIZE)
        assert sorted(objects.held) == sorted(referred(objects))


def test_a_chunk_that_is_being_read_may_get_another_length():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.write(0, noise(SIZE))
        with memoryview(disk._dirty[3]):
            disk.resize(3 * MIN_CHUNK + 10)
            disk.resize(3 * MIN_CHUNK + 20)
        assert disk.read(3 * MIN_CHUNK, 20) == noise(SIZE)[3 * MIN_CHUNK : 3 * MIN_CHUNK + 10] + bytes(10)


def interrupted(objects, error):
    """A store that takes the first root that is new, and whose user hears ``error`` instead of the answer."""
    honest = objects.put

    def put(key, data, **conditions):
        version = honest(key, data, **conditions)
        if key.endswith("/root"):
            objects.put = honest
            raise error
        return version

    objects.put = put


def interrupted_output(objects):
    with BucketOutput(objects, KEY, size=SIZE) as out:
        out.device.write(0, noise(SIZE))
        interrupted(objects, KeyboardInterrupt())


def test_a_signal_behind_the_root_leaves_what_it_refers_to():
    objects = MemoryObjects()
    with pytest.raises(KeyboardInterrupt):
        interrupted_output(objects)
    assert content(objects) == noise(SIZE)


def test_a_root_whose_answer_was_lost_twice_is_no_other_writers():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.write(0, noise(SIZE))
        interrupted(objects, StoreError("no answer", permanent=False))

        def deaf(call, key):
            if call == "head" and key.endswith("/root"):
                objects.before = None
                raise StoreError("no answer", permanent=False)

        objects.before = deaf
        with pytest.raises(StoreError, match="no answer"):
            disk.flush()
        disk.write(5, b"more")
        disk.flush()
    assert content(objects) == noise(SIZE)[:5] + b"more" + noise(SIZE)[9:]
    assert sorted(objects.held) == sorted(referred(objects))


def test_a_writer_that_takes_over_from_one_that_collects_loses_nothing():
    objects = MemoryObjects()
    make(objects).flush()
    later = []

    def interfere(call, key):
        if call == "list" and key.endswith("/chunks") and open_roots(objects) > 1:
            take_over()

    def take_over():
        objects.before = None
        disk = open_disk(objects, KEY, writable=True, take_over=True)
        disk.write(0, noise(SIZE))
        disk.flush()
        later.append(disk)

    def open_roots(objects):
        return sum(call == "put" and key.endswith("/root") for call, key in objects.calls)

    def when_ours(call, key):
        interfere(call, key)
        if call == "delete" and not later:
            take_over()

    objects.before = when_ours
    with open_disk(objects, KEY, writable=True, take_over=True):
        if not later:
            take_over()
    later[0].close()
    assert content(objects) == noise(SIZE)


def test_a_root_that_is_replaced_while_it_is_read_is_read_again():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.flush()

        def interfere(call, key):
            if call == "get" and key.endswith("/root"):
                objects.before = None
                disk.write(0, b"new")
                disk.flush()

        objects.before = interfere
        with open_disk(objects, KEY) as reader:
            assert reader.read(0, 3) == b"new"


def test_an_object_is_not_hidden_behind_a_disk():
    objects = MemoryObjects()
    objects.put(KEY, b"image")
    for force in (False, True):
        with pytest.raises(UsageError, match="is an object"):
            BucketOutput(objects, KEY, size=SIZE, force=force)
    assert list(objects.held) == [KEY]


def test_what_a_dead_output_put_goes_with_the_next_one():
    objects = MemoryObjects()
    dead = make(objects, dirty=MIN_CHUNK)
    dead.write(0, noise(SIZE))
    assert objects.held
    with BucketOutput(objects, KEY, size=SIZE) as out:
        out.device.write(0, noise(SIZE, 2))
    assert content(objects) == noise(SIZE, 2)
    assert sorted(objects.held) == sorted(referred(objects))


def test_documents_that_do_not_hold_are_named():
    objects = MemoryObjects()
    with make(objects) as disk:
        disk.write(0, noise(SIZE))
        disk.flush()
        page = next(iter(disk._root.pages.values()))
    key = f"{KEY}/pages/{page.name}"
    objects.held[key] = b"{}", objects.held[key][1]
    root = objects.held[f"{KEY}/root"]
    objects.held[f"{KEY}/root"] = root[0].replace(str(page.crc32c).encode(), str(crc32c(b"{}")).encode()), root[1]
    with open_disk(objects, KEY) as reader, pytest.raises(Corrupt) as error:
        reader.read(0, 1)
    assert error.value.source == f"s3://memory/{key}"
    objects.held[f"{KEY}/root"] = b"{", root[1]
    with pytest.raises(Corrupt) as error:
        open_disk(objects, KEY)
    assert error.value.source == f"s3://memory/{KEY}/root"


def test_a_reader_has_some_pages_in_memory_and_no_more(monkeypatch):
    monkeypatch.setattr(disk_module, "PAGES", 2)
    objects = MemoryObjects()
    part = PAGE_CHUNKS * MIN_CHUNK
    with make(objects, size=6 * part) as disk:
        for page in (0, 1, 3, 4, 5):
            disk.write(page * part, bytes([page + 1]))
        disk.flush()
    with open_disk(objects, KEY) as disk:
        for page in (0, 1, 2, 3, 4, 5, 0, 4):
            assert disk.read(page * part, 1) == bytes([page + 1 if page != 2 else 0])
            assert len(disk._pages) <= 2
        found = [(each.offset, each.length) for each in disk.extents() if not each.flags & ZERO]
        assert found == [(page * part, MIN_CHUNK) for page in (0, 1, 3, 4, 5)]
        assert sum(each.length for each in disk.extents()) == 6 * part


def flush_and_end(objects):
    ends = [KeyboardInterrupt]

    def interrupt(call, key):
        if call == "put":
            if ends:
                raise ends.pop()
            time.sleep(0.05)

    with make(objects) as disk:
        disk.write(0, noise(SIZE))
        objects.before = interrupt
        disk.flush()


def test_what_ends_while_chunks_are_put_leaves_none():
    objects = MemoryObjects()
    with pytest.raises(KeyboardInterrupt):
        flush_and_end(objects)
    assert objects.held == {}
