"""Thin pools in a kernel of our own: messages, what is behind them, and the pool's metadata beside thin_dump."""

import re

import pytest

from blockwright.device.file import open_path
from blockwright.errors import InUse, KernelError, NotFound
from blockwright.system.linux import dm, loop
from blockwright.system.linux.thin import Details, Metadata, Pool, metadata_size
from blockwright.units import KiB, MiB
from tests.support.loops import sparse
from tests.support.tools import run, tool

BLOCK = 64 * KiB
DATA = 4 * MiB
METADATA = metadata_size(DATA, BLOCK)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """`make(metadata=, data=)`: a pool of two loop devices; all of it goes at the end. `.mapper`, `.metadata`."""
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    attached = []

    def disk(name, size):
        attached.append(loop.attach(sparse(tmp_path / name, size)))
        return attached[-1].path

    def pool(*, metadata=METADATA, data=DATA):
        pool.metadata, pool.data = disk("metadata", metadata), disk("data", data)
        mapper.create("pool", [dm.ThinPool(data, pool.metadata, pool.data, BLOCK)])
        return Pool(mapper, "pool")

    with dm.Mapper() as mapper:
        pool.mapper = mapper
        yield pool
        for entry in sorted(mapper.devices(), key=lambda each: each.dev, reverse=True):
            mapper.remove(entry.name)
    for each in attached:
        each.detach()


def dumped(path, *options):
    """What thin_dump tells of the metadata: (transaction, data block's bytes, blocks of data, devices)."""
    text = run([tool("thin_dump"), *options, path]).stdout
    head = re.search(r'transaction="(\d+)" .*data_block_size="(\d+)" nr_data_blocks="(\d+)"', text)
    fields = ("dev_id", "mapped_blocks", "transaction", "creation_time", "snap_time")
    rows = re.findall("<device " + " ".join(rf'{each}="(\d+)"' for each in fields), text)
    return int(head[1]), int(head[2]) * 512, int(head[3]), [Details(*map(int, row)) for row in rows]


def ours(metadata):
    found = metadata.superblock
    return found.transaction, found.data_block, found.data.blocks, list(metadata.devices())


def test_a_pool_is_made_and_its_devices_are_found(make):
    pool = make()
    assert pool.create(7).healthy
    path = pool.activate("seven", 7, 64 * MiB)
    with open_path(path, writable=True) as device:
        device.write(0, b"before".ljust(BLOCK, b"."), durable=True)
    assert pool.set_transaction(0, 1).transaction == 1
    pool.snapshot(8, 7)  # of an active device, which runs afterwards
    assert not make.mapper.info("seven").suspended
    with open_path(path, writable=True) as device:
        device.write(0, b"after!", durable=True)
        device.write(MiB, b"more", durable=True)
    with open_path(pool.activate("eight", 8, 64 * MiB, read_only=True)) as device:
        assert device.read(0, 6) == b"before"
        assert device.read(MiB, 4) == bytes(4)
    assert pool.active() == {"seven": 7, "eight": 8}
    found = pool.devices()
    assert found == [Details(7, 2, 0, 0, 1), Details(8, 1, 1, 1, 1)]
    assert pool.status().held_root is None
    assert pool.status().data_used_blocks == 3  # one of the two that were before is shared no more


def test_the_two_mistakes_that_the_kernel_lets_pass(make):
    pool = make()
    pool.create(0)
    pool.activate("first", 0, MiB)
    with pytest.raises(InUse, match="pool: thin device 0: is active as first"):
        pool.activate("second", 0, MiB)
    make.mapper.create("second", [dm.Thin(MiB, "/dev/mapper/pool", 0)])  # so it does let it pass
    make.mapper.remove("second")
    with pytest.raises(NotFound, match="pool: no thin device 5"):
        pool.activate("fifth", 5, MiB)
    with pytest.raises(InUse):
        pool.delete(0)
    for call, number in (
        (lambda: pool.create(0), 17),
        (lambda: pool.delete(9), 61),
        (lambda: pool.snapshot(1, 9), 61),
    ):
        with pytest.raises(KernelError, match="DM_TARGET_MSG") as caught:
            call()
        assert caught.value.errno == number
    with pytest.raises(KernelError):
        pool.snapshot(0, 0)  # fails while its origin stands still
    assert not make.mapper.info("first").suspended
    with pytest.raises(KernelError) as caught:
        pool.set_transaction(3, 4)
    assert (caught.value.errno, pool.status().transaction) == (22, 0)


def test_a_snapshot_finds_its_origin_suspended_under_every_name(make, monkeypatch):
    pool, seen = make(), []
    pool.create(0)
    pool.activate("first", 0, MiB)
    for name in ("again", "third"):  # as somebody else may
        make.mapper.create(name, [dm.Thin(MiB, "/dev/mapper/pool", 0)])
    message = dm.Mapper.message

    def look(mapper, name, text, **more):
        seen.extend(mapper.info(each).suspended for each in ("first", "again", "third") if "create_snap" in text)
        return message(mapper, name, text, **more)

    monkeypatch.setattr(dm.Mapper, "message", look)
    pool.snapshot(1, 0)
    assert seen == [True] * 3
    assert not any(make.mapper.info(each).suspended for each in ("first", "again", "third"))


def test_an_origin_whose_last_user_closes_it_meanwhile(make, monkeypatch):
    pool = make()
    pool.create(0)
    for at, step in enumerate(("suspend", "message")):
        device = open_path(pool.activate("first", 0, MiB), writable=True)
        device.write(0, b"here", durable=True)
        make.mapper.remove("first", deferred=True)
        call = getattr(dm.Mapper, step)

        def late(*words, call=call, device=device, **more):
            device.close()
            return call(*words, **more)

        with monkeypatch.context() as patch:
            patch.setattr(dm.Mapper, step, late)
            pool.snapshot(1 + at, 0)
    assert [each.identity for each in pool.devices()] == [0, 1, 2]
    with open_path(pool.activate("second", 2, MiB)) as device:
        assert device.read(0, 4) == b"here"


def test_a_metadata_snapshot_stays_as_it_was_while_the_pool_goes_on(make):
    pool = make()
    with open_path(make.metadata) as device:
        device.read(0, device.size)  # the kernel's cache of the device has it now, and the pool writes past that
    for each in range(300):
        pool.create(3 * each)
    with pool.reserved() as then:
        for each in range(0, 300, 2):
            pool.delete(3 * each)
        pool.set_transaction(0, 5)
        with pytest.raises(InUse):
            pool.reserve()
        assert [each.identity for each in then.devices()] == [3 * each for each in range(300)]
        transaction, size, _, devices = dumped(make.metadata, "-m")
        assert (transaction, size, devices) == (then.superblock.transaction, BLOCK, list(then.devices()))
    with pytest.raises(KernelError) as caught:
        pool.release()
    assert caught.value.errno == 22
    assert [each.identity for each in pool.devices()] == [3 * each for each in range(1, 300, 2)]  # no stale cache
    make.mapper.remove("pool")
    with open_path(make.metadata) as device:
        assert ours(Metadata(device)) == dumped(make.metadata)


def test_thin_dump_reads_the_same_devices(make):
    pool = make()
    for number, each in enumerate((0, 5, 1 << 23, (1 << 24) - 1)):
        pool.create(each)
        with open_path(pool.activate("thin", each, 8 * MiB), writable=True) as device:
            device.write(0, b"x" * BLOCK * (number + 1), durable=True)
        pool.set_transaction(number, number + 1)
        make.mapper.remove("thin")
    pool.snapshot(77, 5)
    running = pool.status()
    pool.reserve()
    make.mapper.remove("pool")
    with open_path(make.metadata) as device:
        metadata = Metadata(device)
        assert ours(metadata) == dumped(make.metadata)
        assert list(metadata.snapshot().devices()) == dumped(make.metadata, "-m")[3] == list(metadata.devices())
        found = metadata.superblock
    assert (found.data.blocks, found.data.used_blocks) == (running.data_total_blocks, running.data_used_blocks)
    assert (found.metadata.blocks, found.transaction) == (running.metadata_total_blocks, 4)
    assert not found.needs_check
    assert run([tool("thin_check"), make.metadata]).returncode == 0


def test_a_full_pool_fails_writes_and_takes_messages(make):
    pool = make(data=MiB)
    pool.create(0)
    pool.create(1)
    path = pool.activate("thin", 0, 8 * MiB)
    with open_path(path, writable=True) as device, pytest.raises(OSError, match=r"No space left|Input/output error"):
        device.write(0, b"x" * 2 * MiB, durable=True)
    assert (pool.status().mode, pool.status().error_if_full) == ("out_of_data_space", True)
    assert pool.create(2).mode == "out_of_data_space"
    assert [(each.identity, each.mapped_blocks) for each in pool.devices()] == [(0, 16), (1, 0), (2, 0)]
    make.mapper.remove("thin")
    pool.delete(0)
    assert pool.status().healthy


def test_a_message_that_the_pool_cannot_keep_is_an_error(make):
    """With so little metadata the kernel answers some message with success, and does not keep what it did."""
    pool = make(metadata=32 * 4096)
    made = []

    def fill():
        for each in range(200):
            pool.create(each)
            made.append(each)

    with pytest.raises(KernelError, match="create_thin: expected a pool that keeps what it is told") as caught:
        fill()
    assert caught.value.errno == 30
    assert "the kernel answered" not in str(caught.value)  # so it had said that all was well
    assert len(made) > 3
    found = pool.status()
    assert (found.mode, found.needs_check, found.healthy) == ("ro", True, False)
    with pytest.raises(KernelError, match=r"found it ro .*the kernel answered: .*DM_TARGET_MSG"):
        pool.delete(0)
    make.mapper.remove("pool")
    with open_path(make.metadata) as device:
        metadata = Metadata(device)
        assert metadata.superblock.needs_check
        assert [each.identity for each in metadata.devices()] == made  # all that were told to be, and no more
