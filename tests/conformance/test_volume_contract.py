"""Every driver of volumes against one suite."""

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockwright.errors import InUse, NotFound, UsageError
from blockwright.units import MiB
from blockwright.volume import Driver, State, destroy_pool, open_pool
from tests.support import volumes
from tests.support.volumes import SIZE, assert_clean, assert_one_layer, content, contents, pattern, write


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with volumes.xfs(tmp_path_factory.mktemp("xfs")) as at:
        yield at


@pytest.fixture(params=volumes.KINDS)
def pool(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    folder = tmp_path
    if request.param == "reflink-xfs":
        folder = Path(tempfile.mkdtemp(dir=request.getfixturevalue("xfs")))
    name = volumes.make_pool(request.param, folder, monkeypatch)
    with open_pool(name) as driver:
        yield driver
        assert_clean(driver)
        assert list(driver.reconcile().lines) == []
    destroy_pool(name, force=True)
    assert not os.path.exists(folder / "p-volumes")
    assert os.listdir(folder / "home" / "pools") == []


def test_a_new_volume_reads_as_zeros(pool):
    made = pool.create("a", SIZE)
    assert (made.name, made.size, made.state, made.origin) == ("a", SIZE, State.INACTIVE, None)
    assert content(pool, "a") == bytes(SIZE)
    assert pool.get("a") == made
    assert pool.list() == [made]


def test_what_is_written_is_read(pool):
    pool.create("a", SIZE)
    write(pool, "a", 4096, b"x" * 5000)
    expected = bytearray(SIZE)
    expected[4096:9096] = b"x" * 5000
    assert content(pool, "a") == bytes(expected)


def test_a_volume_is_filled(pool):
    data = pattern(1)
    pool.create("a", SIZE, fill=volumes.fill_with(data[: SIZE // 2]))
    assert content(pool, "a") == data[: SIZE // 2].ljust(SIZE, b"\0")


def test_what_fills_may_fail_and_leaves_nothing(pool):
    def fill(path: str, size: int) -> None:
        with open(path, "wb") as file:
            file.write(b"half")
        raise NotFound("the source is gone")

    with pytest.raises(NotFound, match="the source is gone"):
        pool.create("a", SIZE, fill=fill)
    assert pool.list() == []
    pool.create("a", SIZE)
    assert content(pool, "a") == bytes(SIZE)


def test_writing_to_either_leaves_the_other(pool):
    pool.create("a", SIZE, fill=volumes.fill_with(pattern(1)))
    assert pool.snapshot("a", "b").origin == "a"
    write(pool, "a", 0, b"a" * 8192)
    write(pool, "b", 4096, b"b" * 8192)
    first, second = bytearray(pattern(1)), bytearray(pattern(1))
    first[:8192] = b"a" * 8192
    second[4096:12288] = b"b" * 8192
    assert content(pool, "a") == bytes(first)
    assert content(pool, "b") == bytes(second)


def test_zeros_over_what_the_origin_has_stay_zeros(pool):
    pool.create("a", SIZE, fill=volumes.fill_with(pattern(1)))
    pool.snapshot("a", "b")
    with pool.open("b", writable=True) as device:
        device.zero(0, SIZE // 2)
    pool.remove("a")
    assert content(pool, "b") == bytes(SIZE // 2) + pattern(1)[SIZE // 2 :]


def test_snapshots_of_snapshots_and_any_order_of_removal(pool):
    expected: dict[str, bytes] = {}
    pool.create("v0", SIZE, fill=volumes.fill_with(pattern(0)))
    state = bytearray(pattern(0))
    for number in range(1, 7):
        pool.snapshot(f"v{number - 1}", f"v{number}")
        expected[f"v{number - 1}"] = bytes(state)
        state[number * 4096 : number * 4096 + 100] = bytes([number]) * 100
        write(pool, f"v{number}", number * 4096, bytes([number]) * 100)
        expected[f"v{number}"] = bytes(state)
    assert contents(pool) == expected
    for number in (3, 0, 5, 1, 6, 2):
        pool.remove(f"v{number}")
        del expected[f"v{number}"]
        assert contents(pool) == expected
        assert_clean(pool)


def test_many_snapshots_of_one_that_is_written_to_have_a_bounded_depth(pool):
    pool.create("a", SIZE)
    expected = {}
    state = bytearray(SIZE)
    for number in range(20):
        write(pool, "a", number * 4096, bytes([number + 1]) * 10)
        state[number * 4096 : number * 4096 + 10] = bytes([number + 1]) * 10
        pool.snapshot("a", f"s{number}")
        expected[f"s{number}"] = bytes(state)
    expected["a"] = bytes(state)
    assert contents(pool) == expected
    for number in range(20):
        pool.remove(f"s{number}")
    assert content(pool, "a") == bytes(state)
    assert_one_layer(pool)


def test_the_size_grows_and_never_shrinks(pool):
    pool.create("a", SIZE, fill=volumes.fill_with(pattern(1)))
    assert pool.grow("a", 2 * SIZE).size == 2 * SIZE
    assert content(pool, "a") == pattern(1) + bytes(SIZE)
    with pytest.raises(UsageError, match="volumes only grow"):
        pool.grow("a", SIZE)


def test_a_snapshot_grows_by_itself(pool):
    pool.create("a", SIZE, fill=volumes.fill_with(pattern(1)))
    pool.snapshot("a", "b")
    pool.grow("b", 3 * SIZE)
    write(pool, "b", 3 * SIZE - 4096, b"e" * 4096)
    assert content(pool, "a") == pattern(1)
    assert content(pool, "b") == pattern(1) + bytes(2 * SIZE - 4096) + b"e" * 4096
    pool.remove("a")
    assert content(pool, "b") == pattern(1) + bytes(2 * SIZE - 4096) + b"e" * 4096
    assert pool.get("b").size == 3 * SIZE
    assert_one_layer(pool)


def test_a_snapshot_is_taken_while_a_process_writes(pool):
    pool.create("a", SIZE)
    with pool.open("a", writable=True) as device:
        device.write(0, b"before")
        pool.snapshot("a", "b")
        device.write(0, b"behind")
        device.write(8192, b"more")
        assert device.read(0, 6) == b"behind"
        assert content(pool, "b")[:6] == b"before"
        pool.snapshot("a", "c")
        device.write(0, b"later.")
        device.flush()
    assert content(pool, "a")[:6] == b"later."
    assert content(pool, "b") == b"before".ljust(SIZE, b"\0")
    assert content(pool, "c") == (b"behind".ljust(8192, b"\0") + b"more").ljust(SIZE, b"\0")


def test_snapshots_are_of_one_instant_while_threads_write(pool):
    """Two places are always written in the same order: a snapshot never has the second without the first.

    Each is flushed before the other is written: a block device keeps no other order.
    """
    pool.create("a", SIZE)
    stop = threading.Event()
    failed: list[BaseException] = []
    with pool.open("a", writable=True) as device:

        def work() -> None:
            number = 0
            try:
                while not stop.is_set():
                    number += 1
                    device.write(0, number.to_bytes(8, "big"), durable=True)
                    device.write(512 * 1024, number.to_bytes(8, "big"), durable=True)
            except BaseException as error:  # noqa: BLE001 - told below
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        for number in range(5):
            pool.snapshot("a", f"s{number}")
        stop.set()
        thread.join()
    assert failed == []
    numbers = []
    for number in range(5):
        data = content(pool, f"s{number}")
        first, second = int.from_bytes(data[:8], "big"), int.from_bytes(data[512 * 1024 : 512 * 1024 + 8], "big")
        assert first - second in (0, 1)
        numbers.append(first)
    assert numbers == sorted(numbers)


def test_one_process_at_a_time_writes(pool):
    pool.create("a", SIZE)
    with pool.open("a", writable=True):
        with pytest.raises(InUse):
            pool.open("a", writable=True)
        with pytest.raises(InUse):
            pool.remove("a")
        with pytest.raises(InUse):
            pool.activate("a")
    pool.open("a", writable=True).close()


def test_activation_is_idempotent_and_gives_a_path(pool):
    pool.create("a", SIZE, fill=volumes.fill_with(pattern(1)))
    active = pool.activate("a")
    assert active.state is State.ACTIVE
    assert active.path is not None
    assert pool.activate("a") == active
    with open(active.path, "rb") as file:
        assert file.read() == pattern(1)
    with pytest.raises(InUse, match="inactive"):
        pool.remove("a")
    with pytest.raises(InUse, match="deactivate"):
        pool.open("a", writable=True)
    assert pool.deactivate("a").state is State.INACTIVE
    assert pool.deactivate("a").path is None


def test_a_pool_goes_down_and_comes_up_as_it_was(pool):
    pool.create("a", SIZE)
    pool.create("b", SIZE)
    pool.activate("a", read_only=True)
    pool.down()
    assert [each.state for each in pool.list()] == [State.INACTIVE, State.INACTIVE]
    pool.up()
    assert [(each.state, each.read_only) for each in pool.list()] == [(State.ACTIVE, True), (State.INACTIVE, False)]
    assert pool.up().lines == []
    pool.deactivate("a")
    pool.up()
    assert pool.get("a").state is State.INACTIVE


def test_what_is_not_there_is_not_found(pool):
    for call in (pool.get, pool.remove, pool.activate, pool.deactivate, pool.unmount, pool.open):
        with pytest.raises(NotFound, match="no such volume"):
            call("nothing")
    with pytest.raises(NotFound):
        pool.snapshot("nothing", "b")
    with pytest.raises(NotFound):
        pool.grow("nothing", SIZE)


def test_a_name_is_given_once(pool):
    pool.create("a", SIZE)
    with pytest.raises(UsageError, match="exists"):
        pool.create("a", SIZE)
    with pytest.raises(UsageError, match="exists"):
        pool.snapshot("a", "a")
    first = pool.get("a").id
    pool.remove("a")
    assert pool.create("a", SIZE).id > first


def test_status_counts_what_is_written(pool):
    pool.create("a", 8 * MiB)
    before = pool.status()
    write(pool, "a", 0, os.urandom(4 * MiB))
    after = pool.status()
    assert after.up
    assert after.data_used - before.data_used >= 4 * MiB
    assert after.data_total >= after.data_used
