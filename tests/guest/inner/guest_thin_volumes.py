"""The driver `thin` in a kernel of our own: the suite of all drivers, and what only a pool of the kernel can do."""

import errno
import os

import pytest

from blockwright.device.file import open_path
from blockwright.errors import Corrupt, IntegrityError, InUse, KernelError, NoSpace
from blockwright.system.linux import dm, loop
from blockwright.system.linux.thin import Metadata, Pool
from blockwright.units import KiB, MiB
from blockwright.volume import State, destroy_pool, open_pool
from tests.conformance.test_volume_contract import *  # noqa: F403 - the suite, with the pool of this file
from tests.support import volumes
from tests.support.inprocess import blockwright, document
from tests.support.killed import fork
from tests.support.tools import run, tool
from tests.support.volumes import SIZE, assert_clean, content, contents, fill_with, pattern, write


def nothing_is_left(folder):
    with dm.Mapper() as mapper:
        assert mapper.devices() == []
    assert not any(str(folder) in each.backing for each in loop.states())
    assert not os.path.exists(folder / "p-volumes")
    assert os.listdir(folder / "home" / "pools") == []


@pytest.fixture
def pool(tmp_path, monkeypatch):
    name = volumes.make_pool("thin", tmp_path, monkeypatch)
    with open_pool(name) as driver:
        yield driver
        assert_clean(driver)
        assert list(driver.reconcile().lines) == []
    destroy_pool(name, force=True)
    nothing_is_left(tmp_path)


def the_machine_stops(folder):
    """Take from the kernel all that it has of the pool, as a reboot does."""
    with dm.Mapper() as mapper:
        for entry in sorted(mapper.devices(), key=lambda each: each.dev, reverse=True):
            mapper.remove(entry.name)
    for each in list(loop.states()):
        if str(folder) in each.backing:
            loop.detach(each.number)


OPERATIONS = {
    "create": lambda pool: pool.create("new", SIZE, fill=fill_with(pattern(2))),
    "snapshot": lambda pool: pool.snapshot("a", "new"),
    "grow": lambda pool: pool.grow("a", pool.get("a").size + SIZE),
    "remove": lambda pool: pool.remove("b"),
    "activate": lambda pool: pool.activate("b"),
    "deactivate": lambda pool: pool.deactivate("a"),
}
KILLED_ELSEWHERE = ("activate", "deactivate")
"""``guest_volume_killed`` does that to them at every place, so here they can wait for `make soak`."""


def killed_at(what, step):
    """Run the operation in a process that ends there, as by `kill -9`; where that was, None if it came through."""
    read, end = os.pipe()
    pid = fork()
    if not pid:
        left = step

        def checkpoint(name):
            nonlocal left
            if left == 0:
                os.write(end, name.encode())
                os._exit(9)
            left -= 1

        try:
            with open_pool("p", checkpoint=checkpoint) as pool:
                OPERATIONS[what](pool)
        except BaseException:  # noqa: BLE001 - the parent sees the code
            os._exit(99)
        os._exit(0)
    os.close(end)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(read) as file:
        place = file.read()
    assert status in (0, 9), f"failed with {status}"
    return place or None


@pytest.mark.ci
@pytest.mark.parametrize(
    "what", [pytest.param(each, marks=[pytest.mark.soak] if each in KILLED_ELSEWHERE else []) for each in OPERATIONS]
)
def test_who_dies_at_any_place_leaves_the_old_or_the_new(pool, what):
    pool.create("a", SIZE, fill=fill_with(pattern(1)))
    pool.create("b", SIZE)
    pool.activate("a")
    places = []
    for step in range(20):
        place = killed_at(what, step)
        if place is None:
            break
        places.append(place)
        with open_pool("p") as other:
            other.reconcile()
            names = {each.name for each in other.list()}
            assert {"a"} <= names <= {"a", "b", "new"}
            assert ("new" in names) == (place in ("create: recorded", "snapshot: recorded"))
            assert content(other, "a")[:SIZE] == pattern(1)
            assert_clean(other)
            if other.get("a").state is State.INACTIVE:
                other.activate("a")
            if "new" in names:
                assert content(other, "new") == pattern(2 if what == "create" else 1)
                other.remove("new")
            if "b" in names:
                other.deactivate("b")
            else:
                other.create("b", SIZE)
    assert len(places) > 2, places


def test_who_dies_while_the_origin_stands_still_does_not_leave_it_so(pool, monkeypatch):
    pool.create("a", SIZE)
    path = pool.activate("a").path
    with monkeypatch.context() as patch:
        patch.setattr(dm.Mapper, "resume", lambda _mapper, _name: os._exit(9))
        pid = fork()
        if not pid:
            with open_pool("p") as other:
                other.snapshot("a", "b")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    with dm.Mapper() as mapper:
        assert mapper.info("p+a").suspended
        assert pool.reconcile().undone == ["snapshot of b"]
        assert not mapper.info("p+a").suspended
    with open(path, "r+b") as file:
        file.write(b"on")


def dies(monkeypatch, owner, name, use):
    """Have a process call ``use`` that ends where it would call that function of ``owner``."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, lambda *_words, **_more: os._exit(9))
        pid = fork()
        if not pid:
            with open_pool("p") as other:
                use(other)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_an_origin_that_stands_still_runs_on_where_the_journal_is_lost_too(tmp_path, monkeypatch):
    name = volumes.make_pool("thin", tmp_path, monkeypatch)
    with open_pool(name) as pool:
        pool.create("a", SIZE)
        path, journal = pool.activate("a").path, pool.spec.journal
    dies(monkeypatch, dm.Mapper, "resume", lambda other: other.snapshot("a", "b"))
    os.unlink(journal)
    with open_pool(name) as pool, dm.Mapper() as mapper:
        assert mapper.info("p+a").suspended
        assert pool.reconcile().adopted == ["a", "thin-2"]
        assert not mapper.info("p+a").suspended
        with open(path, "r+b") as file:
            file.write(b"on")
    destroy_pool(name, force=True)
    nothing_is_left(tmp_path)


@pytest.mark.parametrize("then", ["reconcile", "down", "destroy"])
def test_who_dies_while_he_opens_a_volume_leaves_no_device(tmp_path, monkeypatch, then):
    """Behind the moment in which it is there, and before the kernel knows that nobody else is to have it."""
    name = volumes.make_pool("thin", tmp_path, monkeypatch)
    with open_pool(name) as pool:
        pool.create("a", SIZE)
    dies(monkeypatch, dm.Mapper, "remove", lambda other: other.open("a"))
    with dm.Mapper() as mapper:
        assert mapper.exists("p+a")
        with open_pool(name) as pool:
            if then != "destroy":
                getattr(pool, then)()
                assert not mapper.exists("p+a")
    destroy_pool(name, force=True)
    nothing_is_left(tmp_path)


def test_a_device_that_others_have_open_is_left(pool):
    pool.create("a", SIZE)
    with pool.open("a", writable=True) as device, open_pool("p") as other:
        assert other.reconcile().lines == []
        device.write(0, b"on", durable=True)


def test_a_volume_that_is_closed_while_it_is_opened(pool, monkeypatch):
    """The device of the process that had it goes behind its last user, at any moment."""
    pool.create("a", SIZE, fill=fill_with(pattern(1)))
    first, info = pool.open("a"), type(pool)._info

    def late(driver, volume):
        found = info(driver, volume)
        first.close()
        return found

    monkeypatch.setattr(type(pool), "_info", late)
    assert content(pool, "a") == pattern(1)


@pytest.mark.parametrize("what", ["create", "snapshot", "remove"])
def test_what_was_begun_before_a_reboot_is_settled_at_once(pool, tmp_path, what):
    pool.create("a", SIZE, fill=fill_with(pattern(1)))
    pool.create("b", SIZE)
    assert killed_at(what, 2)
    the_machine_stops(tmp_path)
    with open_pool("p") as other:
        done = other.reconcile()
        assert (done.undone + done.finished) == [f"{what} of {'b' if what == 'remove' else 'new'}"]
        assert_clean(other)


def test_somebody_else_who_changes_the_pool_in_the_last_moment_is_noticed(pool):
    def change(name):
        if name == "create: intended":
            with dm.Mapper() as mapper:
                strange = Pool(mapper, "p+")
                strange.set_transaction(now, now + 5)
                strange.create(2)

    pool.create("a", SIZE)
    now = pool.status().detail["transaction"]
    with open_pool("p", checkpoint=change) as other:
        with pytest.raises(IntegrityError, match=f"expected transaction {now} as in the journal, found {now + 5}"):
            other.create("b", SIZE)
        assert other.journal.intents() == []
    assert [each.identity for each in pool._stack.running().devices()] == [1, 2]
    assert pool.reconcile().adopted == ["thin-2"]


def test_a_pool_comes_back_after_a_reboot(pool, tmp_path):
    pool.create("a", SIZE, fill=fill_with(pattern(1)))
    pool.snapshot("a", "b")
    pool.activate("b", read_only=True)
    the_machine_stops(tmp_path)
    assert not pool.status().up
    with open_pool("p") as other:
        other.up()
        assert (other.get("a").state, other.get("b").state) == (State.INACTIVE, State.ACTIVE)
        assert other.get("b").read_only
        assert contents(other) == {"a": pattern(1), "b": pattern(1)}
        assert other.up().lines == []


def test_a_lost_journal_is_made_from_the_kernel_and_the_pool(tmp_path, monkeypatch):
    name = volumes.make_pool("thin", tmp_path, monkeypatch)
    with open_pool(name) as pool:
        pool.create("a", SIZE, fill=fill_with(pattern(1)))
        pool.create("b", SIZE)
        pool.activate("b")
        write(pool, "a", SIZE - 4096, b"e" * 4096)
        expected = content(pool, "a")
        journal = pool.spec.journal
    os.unlink(journal)
    with open_pool(name) as pool:
        assert pool.reconcile().adopted == ["thin-1", "b"]
        found = {each.name: (each.id, each.size, each.state) for each in pool.list()}
        assert found == {"thin-1": (1, SIZE, State.INACTIVE), "b": (2, SIZE, State.ACTIVE)}
        assert content(pool, "thin-1") == expected
        assert pool.create("new", SIZE).id == 3
        assert_clean(pool)
    destroy_pool(name, force=True)
    nothing_is_left(tmp_path)


def test_a_pool_that_somebody_else_changed_is_looked_at_first(pool):
    pool.create("a", SIZE)
    with dm.Mapper() as mapper:
        strange = Pool(mapper, "p+")
        now = strange.status().transaction
        strange.set_transaction(now, now + 5)
        strange.create(77)
    with pytest.raises(IntegrityError, match=f"expected transaction {now} as in the journal, found {now + 5}"):
        pool.create("b", SIZE)
    assert [each.rule for each in pool.check()] == ["thin.pool.transaction", "volume.device.unknown"]
    assert pool.reconcile().adopted == ["thin-77"]
    assert pool.create("b", SIZE).id == 78


@pytest.mark.parametrize("make", [lambda pool: pool.create("b", SIZE), lambda pool: pool.snapshot("a", "b")])
def test_a_device_of_somebody_else_is_neither_taken_nor_removed(pool, make):
    pool.create("a", SIZE)
    with dm.Mapper() as mapper:
        Pool(mapper, "p+").create(2)
        with pytest.raises(IntegrityError, match="has a device 2, which the journal does not know"):
            make(pool)
        assert [each.identity for each in Pool(mapper, "p+").devices()] == [1, 2]
    assert pool.reconcile().adopted == ["thin-2"]
    assert make(pool).id == 3


def test_a_pool_whose_metadata_is_full_makes_nothing_more(tmp_path, monkeypatch):
    name = volumes.make_pool("thin", tmp_path, monkeypatch, metadata_size=32 * 4096)
    with open_pool(name) as pool:
        made = []

        def fill():
            for number in range(200):
                pool.create(f"v{number}", SIZE)
                made.append(f"v{number}")

        with pytest.raises(NoSpace, match="metadata: expected 16 blocks free to make something, found 1"):
            fill()
        assert pool.status().health == ""
        with dm.Mapper() as mapper:

            def overfill():
                for number in range(200):  # past the pool, as somebody else would
                    Pool(mapper, "p+").create(1000 + number)

            with pytest.raises(KernelError) as caught:
                overfill()
        assert caught.value.errno == errno.EROFS
        assert pool.status().health == "read-only: its metadata has to be checked"
        assert sorted(each.name for each in pool.list()) == sorted(made)
        with pytest.raises(KernelError, match="expected a pool that takes more, found it read-only"):
            pool.create("more", SIZE)
        assert next(each.rule for each in pool.check()) == "thin.pool"
    with open_pool(name) as pool:
        assert pool.reconcile().lost == []  # read where it lies; what was made past us is adopted
        assert content(pool, made[0]) == bytes(SIZE)
        with pytest.raises(KernelError, match="expected a pool"):
            pool.remove(made[0])
        pool.activate(made[1])
    destroy_pool(name, force=True)
    nothing_is_left(tmp_path)


def test_damaged_metadata_is_told_and_never_used(tmp_path, monkeypatch):
    name = volumes.make_pool("thin", tmp_path, monkeypatch)
    with open_pool(name) as pool:
        pool.create("a", SIZE)
        pool.activate("a")
        pool.down()
        with open_path(os.path.join(pool.spec.text("directory"), "metadata"), writable=True) as device:
            device.write(Metadata(device).superblock.details_root * 4096 + 100, b"damage")
    with open_pool(name) as pool:
        assert [each.rule for each in pool.check()] == ["thin.metadata.node", "thin.check"]
        for use in (pool.up, lambda: pool.create("b", SIZE)):
            with pytest.raises(Corrupt, match="metadata is damaged and not used: thin pool: node: expected checksum"):
                use()
        assert [each.name for each in pool.list()] == ["a"]
    with pytest.raises(InUse, match="still has volumes"):
        destroy_pool(name)
    destroy_pool(name, force=True)
    nothing_is_left(tmp_path)


def test_a_pool_that_was_destroyed_halfway_is_destroyed_again(tmp_path, monkeypatch):
    name = volumes.make_pool("thin", tmp_path, monkeypatch)
    with open_pool(name) as pool:
        pool.create("a", SIZE)
        pool.down()
        os.unlink(os.path.join(pool.spec.text("directory"), "metadata"))
    destroy_pool(name, force=True)
    nothing_is_left(tmp_path)


@pytest.mark.parametrize("grown", [True, False])
def test_a_full_pool_grows_or_gives_back(pool, grown):
    pool.create("a", 128 * MiB)
    with pool.open("a", writable=True) as device, pytest.raises(OSError, match=r"No space left|Input/output error"):
        device.write(0, b"x" * 72 * MiB, durable=True)
    assert pool.status().health == "out of space for data"
    with pytest.raises(NoSpace, match="found it out of space for data"):
        pool.create("b", SIZE)
    if grown:
        assert pool.grow_pool(80 * MiB).data_total == 80 * MiB
        assert pool.status().health == ""
        write(pool, "a", 70 * MiB, b"y" * MiB)
    data = os.path.join(pool.spec.text("directory"), "data")
    used = os.stat(data).st_blocks
    pool.remove("a")
    assert os.stat(data).st_blocks * 10 < used  # the file has given its space back
    assert (pool.status().data_used, pool.status().health) == (0, "")


def test_a_mounted_volume_and_its_snapshot(pool, tmp_path):
    (tmp_path / "at").mkdir()
    (tmp_path / "then").mkdir()
    pool.create("a", 16 * MiB)
    run([tool("mke2fs"), "-q", "-t", "ext4", pool.activate("a").path])
    pool.mount("a", str(tmp_path / "at"))
    (tmp_path / "at" / "file").write_bytes(b"before")
    pool.snapshot("a", "b")
    (tmp_path / "at" / "file").write_bytes(b"behind")
    pool.mount("b", str(tmp_path / "then"))
    assert (tmp_path / "then" / "file").read_bytes() == b"before"
    with pytest.raises(InUse):
        pool.deactivate("a")
    pool.down()
    assert not pool.status().up
    pool.up()
    assert (tmp_path / "at" / "file").read_bytes() == b"behind"


def test_through_the_command(tmp_path, monkeypatch):
    volumes.unsync(monkeypatch)
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    blockwright("pool", "create", "main", "--driver", "thin", code=2)
    blockwright("pool", "create", "main", "--driver", "thin", "--option", "size=32M", "--option", "block=128K")
    blockwright("volume", "create", "a", "--size", "8M")
    blockwright("volume", "snapshot", "a", "b")
    blockwright("volume", "activate", "b")
    [status] = document("pool", "status")["pools"]
    assert (status["driver"], status["volumes"], status["data_total"], status["health"]) == ("thin", 2, 32 * MiB, "")
    assert status["detail"]["block"] == 128 * KiB
    assert document("pool", "check", "main")["findings"] == []
    assert run([tool("dmsetup"), "table", "main+b"]).stdout.split()[:3] == ["0", "16384", "thin"]
    blockwright("pool", "destroy", "main", code=1)
    blockwright("pool", "destroy", "main", "--force")
    nothing_is_left(tmp_path)
