"""The life of thin pools in a kernel of our own: of files, two devices or one; full, damaged, repaired, revived."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from blockwright.device.file import open_path
from blockwright.errors import Corrupt, InUse, KernelError, NoSpace, Unavailable, UsageError
from blockwright.system.linux import dm, loop
from blockwright.system.linux.thin import Metadata, Pool, check_metadata
from blockwright.units import KiB, MiB
from blockwright.volume import State, create_pool, destroy_pool, open_pool
from blockwright.volume.pool import undo_unfinished
from blockwright.volume.thin import tools
from tests.support import volumes
from tests.support.inprocess import blockwright, document
from tests.support.killed import fork, killed_at_every_step
from tests.support.loops import sparse
from tests.support.tools import run, tool
from tests.support.volumes import SIZE, assert_clean, content, contents, fill_with, pattern, write

FORMS = ["files", "devices", "split"]
KILLED_FORMS = ["files", *(pytest.param(each, marks=pytest.mark.soak) for each in FORMS[1:])]
BLOCK = 64 * KiB
GROWING = {"fcntl.ioctl", "os.truncate", "fcntl.flock"}
"""Calls before which a process is killed, besides the checkpoints."""


class Place:
    """Where a pool of each form can be: backing files below a folder, and what is attached of them."""

    def __init__(self, folder):
        self.folder = folder
        self._files = {}
        self._attached = []

    def disk(self, name, size):
        """A block device of that size; the same one again for a name."""
        path = self._files.setdefault(name, self.folder / f"{name}.img")
        if not path.exists():
            sparse(path, size)
        there = loop.find(path)
        if there:
            return there[0].path
        self._attached.append(loop.attach(path))
        return self._attached[-1].path

    def options(self, form, **more):
        if form == "files":
            return {"size": 48 * MiB, "directory": str(self.folder / "files"), **more}
        if form == "devices":
            return {"data": self.disk("data", 48 * MiB), "metadata": self.disk("metadata", 2 * MiB), **more}
        return {"device": self.disk("whole", 64 * MiB), **more}

    def stops(self):
        """Take from the kernel all there is, as a reboot does."""
        with dm.Mapper() as mapper:
            for entry in sorted(mapper.devices(), key=lambda each: each.dev, reverse=True):
                mapper.remove(entry.name)
        for each in list(loop.states()):
            if each.backing.startswith(str(self.folder)):
                loop.detach(each.number, sequence=each.sequence)

    def attaches(self):
        """Have the disks again, under the names that they had."""
        for each in self._files.values():
            loop.attach(each)

    def grown(self, form, old):
        """Have devices larger than what the pool has of them; what to ask it for, and the sizes it has then."""
        data, metadata = old.data_total + MiB, old.metadata_total + 64 * KiB
        if form == "files":
            return {"size": data, "metadata": metadata}, (data, metadata)
        more = {"data": MiB, "metadata": 64 * KiB} if form == "devices" else {"whole": MiB}
        for name, size in more.items():
            path = self._files[name]
            os.truncate(path, path.stat().st_size + size)
            loop.refresh(self.disk(name, 0))
        return {}, (data, metadata if form == "devices" else old.metadata_total)

    def starts(self):
        """Have the disks again, under other names where that can be."""
        sparse(self.folder / "other.img", MiB)
        loop.attach(self.folder / "other.img")
        for name in reversed(self._files):
            self.disk(name, 0)


@pytest.fixture
def place(tmp_path, monkeypatch):
    volumes.unsync(monkeypatch)
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    found = Place(tmp_path)
    yield found
    with dm.Mapper() as mapper:
        left = [each.name for each in mapper.devices()]
    found.stops()
    assert left == []
    assert os.listdir(tmp_path / "home" / "pools") == []


@pytest.fixture(params=FORMS)
def pool(request, place):
    """A pool ``p`` of each form, sound at the end, and destroyed without a trace."""
    create_pool("p", "thin", place.options(request.param))
    with open_pool("p") as driver:
        yield driver
    with open_pool("p") as driver:
        assert_clean(driver)
    destroy_pool("p", force=True)


def test_a_pool_comes_back_after_a_reboot_on_other_devices(pool, place):
    pool.create("a", SIZE, fill=fill_with(pattern(1)))
    pool.snapshot("a", "b")
    pool.activate("b")
    form = "split" if "device" in pool.spec.options else "other"
    place.stops()
    place.starts()
    if form == "other" and "data" in pool.spec.options:  # two devices are told by their names alone
        place.stops()
        for name in ("data", "metadata"):
            loop.attach(place.folder / f"{name}.img")
    for _ in range(2):
        with open_pool("p") as other:
            other.up()
            assert contents(other) == {"a": pattern(1), "b": pattern(1)}
            assert other.get("b").state is State.ACTIVE
    with open_pool("p") as other:
        assert other.up().lines == []
        assert other.check() == []
        other.deactivate("b")


def test_what_the_kernel_made_is_whole_and_told(pool):
    pool.create("a", 8 * MiB, fill=fill_with(pattern(1, 8 * MiB)))
    pool.snapshot("a", "b")
    write(pool, "b", 0, b"x" * 3 * MiB)
    pool.remove("a")
    running = pool.status()
    assert (running.detail["mode"], running.detail["needs_check"], running.detail["full"]) == ("rw", False, "error")
    pool.down()
    assert list(pool.check()) == []
    down = pool.status()
    assert (down.up, down.data_used, down.data_total) == (False, running.data_used, running.data_total)
    assert down.detail["transaction"] == running.detail["transaction"] > 0
    assert down.metadata_total == running.metadata_total
    with dm.Mapper() as mapper:
        assert mapper.devices() == []  # nobody has to look at a pool by having it up
    pool.up()


def head_of(disk):
    with open(disk, "rb") as file:
        return file.read(KiB)


def test_devices_that_hold_something_are_refused(place):
    disk = place.disk("whole", 64 * MiB)
    run([tool("mke2fs"), "-q", "-t", "ext4", disk])
    before = head_of(disk)
    for options in ({"device": disk}, {"data": disk, "metadata": place.disk("metadata", 2 * MiB)}):
        with pytest.raises(UsageError, match="holds data already; --force overwrites it"):
            create_pool("p", "thin", options)
    (place.folder / "at").mkdir()
    run(["mount", disk, place.folder / "at"])
    with pytest.raises(InUse, match="is in use: mounted"):
        create_pool("p", "thin", {"device": disk, "force": True})
    run(["umount", place.folder / "at"])
    assert head_of(disk) == before
    with pytest.raises(NoSpace, match="expected 2097152 bytes or more for metadata"):
        create_pool("p", "thin", {"data": place.disk("data", 8 * MiB), "metadata": place.disk("small", MiB)})
    blockwright("pool", "create", "p", "--driver", "thin", "--device", disk, code=2)
    blockwright("pool", "create", "p", "--driver", "thin", "--device", disk, "--force")
    with pytest.raises(UsageError, match="exists"):
        create_pool("p", "thin", {"device": disk})
    with pytest.raises(InUse):
        create_pool("q", "thin", {"device": disk, "force": True})
    destroy_pool("p")
    create_pool("p", "thin", {"device": disk})  # it left nothing on the device
    destroy_pool("p")


def killed(step, operation):
    """Run the operation with a checkpoint in a process that ends at its ``step``th; where that was, else None."""
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
            operation(checkpoint)
        except BaseException as error:  # noqa: BLE001 - the parent sees it
            os.write(end, repr(error).encode())
            os._exit(99)
        os._exit(0)
    os.close(end)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(read) as file:
        said = file.read()
    assert status in (0, 9), said
    return said or None


@pytest.mark.ci
@pytest.mark.parametrize("form", KILLED_FORMS)
def test_who_dies_while_a_pool_is_made_leaves_it_or_none(place, form):
    options, places = place.options(form), []
    for step in range(10):
        at = killed(step, lambda checkpoint: create_pool("p", "thin", options, checkpoint=checkpoint))
        if at is None:
            break
        places.append(at)
        if step % 2 == 0:
            done = undo_unfinished()
            assert len(done) == (at != "pool: saved"), at
        if at == "pool: saved":
            with open_pool("p") as pool:
                assert_clean(pool)
            destroy_pool("p")
    destroy_pool("p")
    assert places == ["pool: intended", "pool: laid out", "pool: up", "pool: saved"]


def test_who_dies_while_a_pool_grows_leaves_it_whole(place):
    create_pool("p", "thin", place.options("files"))
    places, size = [], 48 * MiB
    with open_pool("p") as pool:
        pool.create("a", SIZE, fill=fill_with(pattern(1)))
    for step in range(10):
        size += MiB

        def grow(checkpoint, size=size):
            with open_pool("p", checkpoint=checkpoint) as pool:
                pool.grow_pool(size)

        at = killed(step, grow)
        with open_pool("p") as pool:
            pool.reconcile()
            assert pool.status().data_total == size
            assert content(pool, "a") == pattern(1)
            assert_clean(pool)
        if at is None:
            break
        places.append(at)
    destroy_pool("p", force=True)
    assert places == [f"grow pool: {each}" for each in ("intended", "enlarged", "applied", "recorded")]


@pytest.mark.parametrize("step", range(3))
def test_who_dies_while_a_pool_grows_for_a_volume_leaves_that_on_record(place, step):
    create_pool("p", "thin", place.options("files", size=16 * MiB, grow_by="8M", limit="64M", low_water=25))
    with open_pool("p") as pool:
        pool.create("a", 16 * MiB)
        write(pool, "a", 0, b"x" * 13 * MiB)

    def create(checkpoint):
        with open_pool("p", checkpoint=checkpoint) as pool:
            pool.create("b", SIZE)

    assert killed(step, create) == f"grow pool: {('intended', 'enlarged', 'applied')[step]}"
    with open_pool("p") as pool:
        assert pool.reconcile().lines == ["corrected: a growth that was not finished is finished"]
        assert pool.status().data_total == 24 * MiB
        assert [each.name for each in pool.list()] == ["a"]
        pool.create("b", SIZE)
        assert_clean(pool)
    destroy_pool("p", force=True)


@pytest.mark.ci
@pytest.mark.parametrize("form", KILLED_FORMS)
@pytest.mark.parametrize("restart", ["the process", "the machine"])
def test_who_dies_before_any_call_of_a_growth_leaves_it_whole(place, form, restart):
    """Before each call that makes a file longer, or that a kernel's device is changed or asked with."""
    create_pool("p", "thin", place.options(form))
    with open_pool("p") as pool:
        pool.create("a", SIZE, fill=fill_with(pattern(1)))
        pool.snapshot("a", "b")
        pool.activate("a")
        old = pool.status()
    armed, seen = set(), set()

    def grow():
        with open_pool("p") as pool:
            pool.reconcile()
            armed.update(GROWING)  # from here on, and in this process alone
            pool.grow_pool(**sizes)

    def look(new):
        """Have the pool up, with what it had and at its old or new size, and then at its new one."""
        if restart == "the machine":
            place.stops()
            place.attaches()
        with open_pool("p") as pool:
            pool.up()
            status = pool.status()
            found = (status.data_total, status.metadata_total)
            before = (old.data_total, old.metadata_total)
            assert found in (before, new)
            seen.add("old" if found == before else "new")
            assert status.health == ""
            assert (pool.get("a").state, pool.get("b").state) == (State.ACTIVE, State.INACTIVE)
            assert contents(pool) == {"a": pattern(1), "b": pattern(1)}
            assert_clean(pool)
            status = pool.grow_pool(**sizes)
            assert (status.data_total, status.metadata_total) == new
            assert (pool.create("more", SIZE).size, pool.remove("more")) == (SIZE, None)
            return status

    sizes, wanted = place.grown(form, old)
    kills = killed_at_every_step(grow, steps=armed)
    steps = -1
    while steps is not None:
        last, steps = steps, next(kills, None)
        old = look(wanted)
        sizes, wanted = place.grown(form, old)
    with open_pool("p") as pool:
        pool.down()
        assert list(pool.check()) == []
        pool.up()
        pool.deactivate("a")
    destroy_pool("p", force=True)
    assert last > 15
    assert seen == {"old", "new"} if form == "files" or restart == "the process" else {"new"}


def exhaust(name="p+", first=1 << 20):
    """Fill the metadata of the running pool past us, until the kernel says that it needs a check."""
    with dm.Mapper() as mapper:

        def fill():
            for number in range(2000):
                Pool(mapper, name).create(first + number)

        with pytest.raises(KernelError) as caught:
            fill()
        assert caught.value.errno == errno.EROFS


def marked(backing):
    """Have the metadata of a pool that is down say that it needs a check, as a kernel does that met an error."""
    from blockwright.system.linux.thin.layout import SUPERBLOCK_SALT
    from tests.support.thinpools import sealed

    with open_path(backing.metadata_path(), writable=True, force_unlocked=True) as device:
        data = bytearray(device.read(0, 4096))
        data[4] |= 1
        device.write(0, sealed(bytes(data), SUPERBLOCK_SALT))
        device.flush()
    backing.detach()


@pytest.mark.ci
@pytest.mark.parametrize("form", KILLED_FORMS)
def test_who_dies_while_metadata_is_repaired_leaves_the_old_or_the_new(place, form):
    create_pool("p", "thin", place.options(form))
    with open_pool("p") as pool:
        pool.create("a", SIZE, fill=fill_with(pattern(1)))
    spares = [place.disk("spare", 2 * MiB), place.disk("metadata", 2 * MiB)] if form == "devices" else [None]
    places = []
    for step in range(12):
        with open_pool("p") as pool:
            pool.down()
            marked(pool._stack.backing)
            assert [each.rule for each in pool.check()] == ["thin.pool"]
            current = pool.spec.options.get("metadata")
        spare = next((each for each in spares if each != current), None)

        def repair(checkpoint, spare=spare):
            with open_pool("p", checkpoint=checkpoint) as pool:
                pool.repair(spare, force=True)

        at = killed(step, repair)
        with open_pool("p") as pool:
            pool.up()
            assert content(pool, "a") == pattern(1)
            swapped = at in (None, "repair: swapped", "repair: up", "repair: recorded")
            assert pool.status().detail["needs_check"] is not swapped, at
            assert (pool.check() == []) is swapped
            if swapped:
                pool.create(f"b{step}", SIZE)
        if at is None:
            break
        places.append(at)
    destroy_pool("p", force=True)
    steps = ("intended", "written", "verified", "swapped", "up", "recorded")
    assert places == [f"repair: {each}" for each in steps]


@pytest.mark.parametrize("full", ["error", "queue"])
def test_full_metadata_is_made_larger_and_nothing_is_lost(place, full):
    create_pool("p", "thin", place.options("files", metadata_size=32 * 4096, full=full))
    with open_pool("p") as pool:
        pool.create("a", 2 * SIZE)
        write(pool, "a", 0, pattern(1))
        path = pool.activate("a").path
        exhaust()
        with open_path(path, writable=True) as device, pytest.raises(OSError, match=r"Input/output|No space"):
            device.write(SIZE, b"y" * SIZE, durable=True)
        assert pool.status().detail["needs_check"]
        with pytest.raises(InUse):
            pool.repair()  # while it is active
        pool.deactivate("a")
        lines = pool.repair().lines
        assert "corrected: the metadata needs no check any more" in lines
        assert pool.status().metadata_total == 64 * 4096
        assert pool.status().health == ""
        assert content(pool, "a") == pattern(1) + bytes(SIZE)
        pool.grow_pool(metadata=2 * MiB)
        assert pool.status().metadata_total == 2 * MiB
        for number in range(20):  # nodes lie behind what there was when the pool was made
            pool.create(f"v{number}", SIZE)
        pool.down()
        assert list(pool.check()) == []
        pool.up()
    destroy_pool("p", force=True)


def broken_map(pool):
    """Damage a bitmap of the data's space map: every tree of devices can still be read."""
    backing = pool._stack.backing
    with open_path(backing.metadata_path(), writable=True, force_unlocked=True) as device:
        top = Metadata(device).superblock
        index = device.read(top.data.bitmap_root * 4096, 4096)
        at = int.from_bytes(index[32 + 8 * int.from_bytes(index[20:24], "little") :][:8], "little")
        device.write(at * 4096 + 100, b"damage")
        device.flush()
        assert check_metadata(device)
    backing.detach()


@pytest.mark.parametrize("form", FORMS)
def test_damage_is_repaired_to_another_place(place, form, monkeypatch):
    create_pool("p", "thin", place.options(form))
    with open_pool("p") as pool:
        pool.create("a", SIZE, fill=fill_with(pattern(1)))
        pool.snapshot("a", "b")
        pool.down()
        broken_map(pool)
    blockwright("pool", "up", "p", code=3)
    assert [each["rule"] for each in document("pool", "check", "p", code=3)["findings"]][-1] == "thin.check"
    spare = place.disk("spare", 2 * MiB) if form == "devices" else None
    with open_pool("p") as pool:
        with monkeypatch.context() as patch:
            patch.setattr(tools, "find_tool", lambda _name: None)
            with pytest.raises(Unavailable, match="thin_repair is not installed"):
                pool.repair(spare)
            assert [each.rule for each in pool.check()] == ["thin.data.map"]
            assert "thin_check is not installed" in pool.remarks[-1]
        if form == "devices":
            with pytest.raises(UsageError, match="the only copy is never written over: --metadata DEVICE"):
                pool.repair()
            for own in ("data", "metadata"):
                with pytest.raises(UsageError, match="is the pool's own"):
                    pool.repair(place.disk(own, 0), force=True)
        lines = pool.repair(spare, force=True).lines
        assert "corrected: the metadata was repaired by thin_repair" in lines
        assert contents(pool) == {"a": pattern(1), "b": pattern(1)}
        assert_clean(pool)
        pool.down()
        assert list(pool.check()) == []
        pool.up()
    place.stops()
    place.starts()
    if form == "devices":
        place.stops()
        for each in ("data", "metadata", "spare"):
            loop.attach(place.folder / f"{each}.img")
    with open_pool("p") as pool:
        pool.up()
        assert contents(pool) == {"a": pattern(1), "b": pattern(1)}
    destroy_pool("p", force=True)


def test_blank_metadata_is_not_made_an_empty_pool(place):
    create_pool("p", "thin", place.options("files"))
    with open_pool("p") as pool:
        pool.create("a", SIZE)
        pool.down()
        with open_path(place.folder / "files" / "metadata", writable=True) as device:
            saved = device.read(0, 4096)
            device.write(0, bytes(4096))
        with pytest.raises(Corrupt, match="expected magic 27022010, found 0"):
            pool.up()
        with open_path(place.folder / "files" / "metadata", writable=True) as device:
            assert device.read(0, 4096) == bytes(4096)
            device.write(0, saved)
        pool.up()
    destroy_pool("p", force=True)


@pytest.mark.parametrize("full", ["error", "queue"])
def test_a_pool_that_fills_up_grows_while_it_is_watched(place, full):
    options = place.options("files", size=16 * MiB, grow_by="8M", limit="64M", low_water=25, full=full)
    create_pool("p", "thin", options)
    with open_pool("p") as pool:
        pool.create("a", 40 * MiB)
        path = pool.activate("a").path
        lines, stop = [], threading.Event()

        def look():
            with open_pool("p") as other:
                while not stop.is_set():
                    lines.extend(other.tend(200))

        thread = threading.Thread(target=look)
        thread.start()
        started = time.monotonic()
        written = bytes(range(256)) * 4096
        with open_path(path, writable=True) as device:
            for number in range(36 if full == "queue" else 13):
                device.write(number * MiB, written, durable=True)
                if full == "error" and number == 12:
                    while not lines and time.monotonic() - started < 150:
                        time.sleep(0.01)
            assert device.read(0, 12 * MiB) == written * 12
        stop.set()
        pool.create("b", SIZE)
        for _ in range(200):  # events, so that nobody waits on, also who had looked before it was to stop
            pool.activate("b")
            pool.deactivate("b")
            thread.join(0.5)
            if not thread.is_alive():
                break
        assert not thread.is_alive()
        assert any(each.startswith("data: ") and "grown to 24 MiB" in each for each in lines), lines
        assert time.monotonic() - started < 180  # told by the kernel, long before the time was over
        assert pool.status().data_total >= 24 * MiB
        pool.deactivate("a")
        assert_clean(pool)
    destroy_pool("p", force=True)


def test_a_full_pool_that_waits_goes_on_when_it_has_grown(place):
    create_pool("p", "thin", place.options("files", size=8 * MiB, full="queue"))
    with open_pool("p") as pool:
        pool.create("a", 16 * MiB)
        path = pool.activate("a").path
        writer = subprocess.Popen(["dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=12", "conv=fsync"], stderr=-3)
        end = time.monotonic() + 60
        while pool.status().health != "out of space for data":
            assert time.monotonic() < end
            time.sleep(0.02)
        assert writer.poll() is None
        with pytest.raises(NoSpace):
            pool.create("b", SIZE)
        assert pool.repair().lines == []  # there is nothing to repair, and nobody is disturbed
        pool.grow_pool(16 * MiB)
        assert writer.wait(60) == 0
        assert pool.status().health == ""
        pool.deactivate("a")
        assert content(pool, "a") == bytes(16 * MiB)
    destroy_pool("p", force=True)


def test_nothing_is_made_below_low_water(place):
    create_pool("p", "thin", place.options("files", size=16 * MiB, low_water=50))
    with open_pool("p") as pool:
        pool.create("a", 16 * MiB)
        write(pool, "a", 0, b"x" * 9 * MiB)
        for make in (lambda: pool.create("b", SIZE), lambda: pool.snapshot("a", "b")):
            with pytest.raises(
                NoSpace, match="data: expected more than 50% free to make something, found 7 MiB of 16"
            ):
                make()
        pool.grow_pool(32 * MiB)
        pool.snapshot("a", "b")
    destroy_pool("p", force=True)


def test_devices_that_became_larger_are_used(pool, place):
    if "directory" in pool.spec.options:
        assert pool.grow_pool(64 * MiB).data_total == 64 * MiB
        return
    name = "data" if "data" in pool.spec.options else "whole"
    before = pool.status().data_total
    with pytest.raises(
        UsageError,
        match="has to grow first" if name == "data" else "has 2097152 bytes and does not grow.*=4194304, and",
    ):
        pool.grow_pool(metadata=4 * MiB)
    with pytest.raises(UsageError, match="has to grow first"):
        pool.grow_pool(before + 16 * MiB)
    os.truncate(place.folder / f"{name}.img", 96 * MiB)
    loop.refresh(place.disk(name, 0))
    blockwright("pool", "grow", "p")
    assert pool.status().data_total > before + 16 * MiB
    pool.create("a", SIZE, fill=fill_with(pattern(1)))


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_command_watches_until_it_is_told_to_end(place, end):
    create_pool("p", "thin", place.options("files", size=16 * MiB, grow_by="16M", limit="32M", low_water=25))
    words = [sys.executable, "-m", "blockwright", "pool", "watch", "p", "--interval", "60"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, open_pool("p") as pool:
        manager.bind(str(place.folder / "notify"))
        manager.settimeout(60)
        pool.create("a", 16 * MiB)
        environment = {**os.environ, "NOTIFY_SOCKET": str(place.folder / "notify")}
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as watcher:
            try:
                assert b"READY=1\nSTATUS=is well" in manager.recv(4096)
                write(pool, "a", 0, b"x" * 13 * MiB)
                while b" of 16 MiB are used: grown to 32 MiB" not in (told := manager.recv(4096)):
                    assert b" of 16 MiB are used\n" in told  # it had woken for "a", and looked before the kernel told
                watcher.send_signal(end)
                while b"STOPPING=1" not in (told := manager.recv(4096)):
                    assert b"STATUS=is well" in told
                said, _ = watcher.communicate(timeout=60)
            finally:
                watcher.kill()
        assert watcher.returncode == 0
        lines = [line.partition(" p: ")[2] for line in said.splitlines()]
        assert lines[0] == "is well"
        assert [line.endswith(": grown to 32 MiB") for line in lines].count(True) == 1
    assert document("pool", "status")["pools"][0]["detail"]["limit"] == 32 * MiB
    line = blockwright("pool", "status").stdout.decode().splitlines()[1]
    assert line.rstrip().endswith("mode rw, error when full, grows by 16 MiB to 32 MiB")
    assert "transaction 1," in line
    destroy_pool("p", force=True)
