"""Device-mapper in a kernel of our own, beside dmsetup."""

import hashlib
import mmap
import os
import random
import subprocess
import sys
import threading
import time

import pytest

from blockwright.device.file import open_path
from blockwright.errors import InUse, KernelError, NotFound, UsageError
from blockwright.system.linux import dm, loop
from blockwright.system.linux.dm import nodes
from blockwright.units import KiB, MiB
from tests.support.loops import sparse
from tests.support.tools import run, tool

SPACE = 8 * MiB


@pytest.fixture
def disks(tmp_path, monkeypatch):
    """`disks(size)`: the path of one more loop device of that size."""
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    attached = []

    def disk(size=SPACE):
        attached.append(loop.attach(sparse(tmp_path / f"{len(attached)}.img", size)))
        return attached[-1].path

    yield disk
    for each in attached:
        each.detach()


@pytest.fixture
def mapper(disks):
    """An open Mapper; what was made with it goes at the end, the last first, before the disks under it."""
    with dm.Mapper() as opened:
        yield opened
        for entry in sorted(opened.devices(), key=lambda each: each.dev, reverse=True):
            opened.remove(entry.name)
        assert opened.devices() == []
        assert os.listdir("/dev/mapper") == ["control"]


def dmsetup(*arguments):
    return run([tool("dmsetup"), *arguments]).stdout.strip()


def test_a_linear_device_is_a_window(mapper, disks):
    disk = disks()
    path = mapper.create("window", [dm.Linear(MiB, disk, 2 * MiB), dm.Zero(MiB)], uuid="blockwright-test")
    assert path == "/dev/mapper/window"
    with open_path(path, writable=True) as device:
        assert device.size == 2 * MiB
        device.write(4096, b"in the window", durable=True)
        assert device.read(MiB, 4096) == bytes(4096)
    with open_path(disk) as device:
        assert device.read(2 * MiB + 4096, 13) == b"in the window"
    info = mapper.info("window")
    assert dmsetup("table", "window").splitlines()[1] == "2048 2048 zero"
    assert dmsetup("info", "-c", "--noheadings", "-o", "uuid,minor,open", "window") == (
        f"blockwright-test:{info.minor}:0"
    )
    assert (info.uuid, info.active, info.suspended, info.open_count) == ("blockwright-test", True, False, 0)
    assert mapper.by_uuid("blockwright-test") == info
    assert mapper.by_number(os.makedev(info.major, info.minor)) == info
    assert mapper.table("window") == [dm.Linear(MiB, nodes.number_of(disk), 2 * MiB), dm.Zero(MiB)]
    disk_number = tuple(map(int, nodes.number_of(disk).split(":")))
    assert mapper.dependencies("window") == [disk_number]
    mapper.remove("window")
    assert not os.path.lexists(path)
    assert not mapper.exists("window")


def test_what_dmsetup_makes_is_read_and_the_other_way_round(mapper):
    dmsetup("create", "theirs", "-u", "theirs-1", "--table", "0 2048 zero")
    mapper.create("ours", [dm.Error(MiB)], uuid="ours-1")
    assert [(entry.name, entry.uuid) for entry in mapper.devices()] == [("ours", "ours-1"), ("theirs", "theirs-1")]
    assert sorted(line.split()[0] for line in dmsetup("ls").splitlines()) == ["ours", "theirs"]
    assert mapper.table("theirs") == [dm.Zero(MiB)]
    assert dmsetup("table", "ours") == "0 2048 error"
    shown = {line.split()[0]: line.split()[1] for line in dmsetup("targets").splitlines()}
    assert {name: "v" + ".".join(map(str, version)) for name, version in mapper.targets().items()} == shown
    assert mapper.target_version("linear") == mapper.targets()["linear"]
    assert mapper.target_version("nonsense") is None
    assert mapper.version() >= (4, 40, 0)
    mapper.remove("theirs")


def test_many_devices_and_long_tables_fit_the_answer(mapper):
    table = [dm.Zero(512), dm.Error(512)] * 600
    mapper.create("long", table)
    assert mapper.table("long") == table
    for number in range(150):
        mapper.create(f"{number:03}-{'n' * 100}", [dm.Zero(512)], uuid=f"{number:03}-{'u' * 100}")
    found = mapper.devices()
    assert len(found) == 151
    assert found[7] == ("007-" + "n" * 100, found[7].dev, found[7].event_nr, "007-" + "u" * 100)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda disk: [dm.Other(MiB, "nonsense", "")], r"DM_TABLE_LOAD: .*nonsense: unknown target type"),
        (lambda disk: [dm.Linear(MiB, "250:7", 0)], r"DM_TABLE_LOAD: .*[Dd]evice lookup failed|does not exist"),
        (lambda disk: [dm.Linear(2 * SPACE, disk, 0)], r"too small for target"),
        (lambda disk: [dm.Striped(MiB, 0, ((disk, 0),))], r"[Ii]nvalid chunk_size"),
        (lambda disk: [dm.Other(MiB, "linear", "1 2 3")], r"[Ii]nvalid argument count"),
    ],
)
def test_what_the_kernel_refuses_it_explains_and_nothing_is_left(mapper, disks, make, message):
    with pytest.raises(KernelError, match=message):
        mapper.create("broken", make(disks()))
    assert mapper.devices() == []
    assert not os.path.lexists("/dev/mapper/broken")


def test_what_is_refused_before_the_kernel_is_asked(mapper, disks):
    for name in ("", "a/b", "control", ".", "n" * 128, "with space"):
        with pytest.raises(UsageError, match="device-mapper name"):
            mapper.create(name, [dm.Zero(MiB)])
    with pytest.raises(UsageError, match="expected a table of one target"):
        mapper.create("empty", [])
    with pytest.raises(UsageError, match="multiple of 512 bytes, found 100"):
        mapper.create("odd", [dm.Zero(100)])
    with pytest.raises(UsageError, match="expected a block device"):
        mapper.create("odd", [dm.Linear(MiB, "/dev/null")])
    with pytest.raises(NotFound, match="/dev/nowhere: no such device"):
        mapper.create("odd", [dm.Linear(MiB, "/dev/nowhere")])
    with pytest.raises(UsageError, match="UUID"):
        mapper.create("long", [dm.Zero(MiB)], uuid="u" * 129)
    assert mapper.devices() == []


def test_names_and_uuids_are_had_once(mapper):
    mapper.create("one", [dm.Zero(MiB)], uuid="u1")
    with pytest.raises(InUse, match="one: DM_DEV_CREATE"):
        mapper.create("one", [dm.Zero(MiB)])
    with pytest.raises(InUse):
        mapper.create("two", [dm.Zero(MiB)], uuid="u1")
    assert [entry.name for entry in mapper.devices()] == ["one"]
    with pytest.raises(NotFound, match="two: no such device-mapper device"):
        mapper.info("two")
    for job in (mapper.resume, mapper.suspend, mapper.table, mapper.status, mapper.remove, mapper.clear):
        with pytest.raises(NotFound):
            job("two")


def test_rename_and_uuid(mapper):
    mapper.create("old", [dm.Zero(MiB)])
    mapper.create("taken", [dm.Zero(MiB)])
    with pytest.raises(InUse):
        mapper.rename("old", "taken")
    assert mapper.rename("old", "new") == "/dev/mapper/new"
    assert not os.path.lexists("/dev/mapper/old")
    assert os.stat("/dev/mapper/new").st_rdev == os.makedev(mapper.info("new").major, mapper.info("new").minor)
    mapper.set_uuid("new", "late")
    assert mapper.info("new").uuid == "late"
    with pytest.raises(KernelError):
        mapper.set_uuid("new", "later")


def test_a_table_is_replaced_under_its_users(mapper, disks):
    disk = disks()
    mapper.create("live", [dm.Linear(MiB, disk, 0)])
    with open_path("/dev/mapper/live", writable=True) as device:
        device.write(0, b"first", durable=True)
        mapper.replace("live", [dm.Linear(MiB, disk, MiB)])
        device.write(0, b"other", durable=True)
    with open_path(disk) as device:
        assert device.read(0, 5) == b"first"
        assert device.read(MiB, 5) == b"other"


def test_a_replacement_that_the_kernel_refuses_leaves_the_old_table_running(mapper, disks):
    disk = disks()
    mapper.create("live", [dm.Linear(MiB, disk, MiB)])
    with pytest.raises(KernelError):
        mapper.replace("live", [dm.Other(MiB, "nonsense", "")])
    info = mapper.info("live")
    assert (info.active, info.inactive, info.suspended) == (True, False, False)
    assert mapper.table("live") == [dm.Linear(MiB, nodes.number_of(disk), MiB)]


def test_a_loaded_table_waits_and_can_be_forgotten(mapper):
    mapper.create("two", [dm.Zero(MiB)])
    mapper.load("two", [dm.Error(MiB)])
    assert mapper.table("two") == [dm.Zero(MiB)]
    assert mapper.table("two", inactive=True) == [dm.Error(MiB)]
    assert mapper.info("two").inactive
    mapper.clear("two")
    assert not mapper.info("two").inactive
    mapper.load("two", [dm.Error(MiB)])
    mapper.resume("two")
    assert mapper.table("two") == [dm.Error(MiB)]


def test_a_suspended_device_runs_again_whatever_happens(mapper):
    mapper.create("held", [dm.Zero(MiB)])
    with mapper.suspended("held"):
        assert mapper.info("held").suspended
    assert not mapper.info("held").suspended
    with pytest.raises(RuntimeError, match="in between"), mapper.suspended("held", flush=False, freeze=False):
        raise RuntimeError("in between")
    assert not mapper.info("held").suspended
    with pytest.raises(KeyboardInterrupt), mapper.suspended("held"):
        raise KeyboardInterrupt
    assert not mapper.info("held").suspended


def test_a_read_only_table_makes_a_read_only_device(mapper, disks):
    path = mapper.create("ro", [dm.Linear(MiB, disks())], read_only=True)
    assert mapper.info("ro").read_only
    with pytest.raises(Exception, match="read-only"):
        open_path(path, writable=True)


def holder_of(path):
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1]); print('open', flush=True); input()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_removing_what_is_in_use(mapper):
    path = mapper.create("busy", [dm.Zero(MiB)])
    holder = holder_of(path)
    try:
        with pytest.raises(InUse, match=rf"/dev/mapper/busy: is in use: process {holder.pid} \(python"):
            mapper.remove("busy", timeout_s=0.05)
        assert os.path.exists(path)
        mapper.remove("busy", deferred=True)
        assert mapper.info("busy").deferred_remove
        assert mapper.message("busy", "@cancel_deferred_remove") == ""
        assert not mapper.info("busy").deferred_remove
        mapper.remove("busy", deferred=True)
    finally:
        holder.communicate("\n", timeout=60)
    assert became(lambda: not mapper.exists("busy"))


def became(condition):
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


def test_removing_by_force_makes_users_fail(mapper, disks):
    path = mapper.create("stuck", [dm.Linear(MiB, disks())])
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 4096) as page:
            assert os.readv(fd, [page]) == 4096
            mapper.remove("stuck", force=True, timeout_s=0)
            with pytest.raises(OSError, match="Input/output error"):
                os.preadv(fd, [page], 0)
        assert mapper.info("stuck").deferred_remove
    finally:
        os.close(fd)
    assert became(lambda: not mapper.exists("stuck"))


def test_nodes_of_others_stay(mapper, tmp_path):
    os.makedirs("/dev/mapper", exist_ok=True)
    with open("/dev/mapper/mine", "w", encoding="ascii") as file:
        file.write("somebody's")
    with pytest.raises(KernelError, match="expected no entry"):
        mapper.create("mine", [dm.Zero(MiB)])
    assert mapper.devices() == []
    with open("/dev/mapper/mine", encoding="ascii") as file:
        assert file.read() == "somebody's"
    os.unlink("/dev/mapper/mine")
    os.symlink("../dm-99", "/dev/mapper/mine")  # what an earlier device left
    path = mapper.create("mine", [dm.Zero(MiB)])
    info = mapper.info("mine")
    assert os.stat(path).st_rdev == os.makedev(info.major, info.minor)
    os.unlink(path)
    os.mknod(path, 0o060660, os.makedev(7, 0))
    mapper.remove("mine")
    assert os.path.exists(path), "another device's node has that name now"
    os.unlink(path)


def test_a_pool_is_not_failed_under_its_thin_devices(mapper, disks):
    pool = mapper.create("pool", [dm.ThinPool(2 * MiB, disks(2 * MiB), disks(2 * MiB), 64 * KiB)])
    mapper.message("pool", "create_thin 0")
    mapper.create("thin", [dm.Thin(MiB, pool, 0)])
    with pytest.raises(InUse, match=r"/dev/mapper/pool: is in use: used by /dev/dm-\d+"):
        mapper.remove("pool", force=True)
    assert mapper.status("pool")[0].healthy


def test_without_the_kernel_s_node_one_is_made(mapper, monkeypatch):
    mapper.create("bare", [dm.Zero(MiB)])
    info = mapper.info("bare")
    os.unlink("/dev/mapper/bare")
    os.rename(info.path, info.path + ".away")
    try:
        assert nodes.ensure("bare", os.makedev(info.major, info.minor)) == "/dev/mapper/bare"
        assert not os.path.islink("/dev/mapper/bare")
    finally:
        os.rename(info.path + ".away", info.path)
    mapper.remove("bare")
    assert not os.path.lexists("/dev/mapper/bare")


def test_udevd_is_waited_for_a_bounded_time(mapper, tmp_path, monkeypatch):
    control = tmp_path / "control"
    control.write_bytes(b"")
    monkeypatch.setattr(nodes, "_UDEV_CONTROL", str(control))
    monkeypatch.setattr(nodes, "UDEV_TIMEOUT_S", 0.05)
    path = mapper.create("alone", [dm.Zero(MiB)])  # udevd does not come
    assert os.path.exists(path)
    made = []

    real = nodes._appears

    def appears(path, dev):
        os.symlink(f"../dm-{os.minor(dev)}", path)
        made.append(path)
        return real(path, dev)

    monkeypatch.setattr(nodes, "_appears", appears)
    assert mapper.create("served", [dm.Zero(MiB)]) == made[0]


def test_striped(mapper, disks):
    first, second = disks(), disks()
    path = mapper.create("striped", [dm.Striped(4 * MiB, 64 * KiB, ((first, 0), (second, MiB)))])
    with open_path(path, writable=True) as device:
        device.write(0, b"a" * 64 * KiB, b"b" * 64 * KiB, durable=True)
    with open_path(second) as device:
        assert device.read(MiB, 64 * KiB) == b"b" * 64 * KiB
    [status] = mapper.status("striped")
    assert isinstance(status, dm.StripedStatus)
    assert status.alive == (True, True)
    assert status.devices == (nodes.number_of(first), nodes.number_of(second))
    assert mapper.table("striped") == [
        dm.Striped(4 * MiB, 64 * KiB, ((nodes.number_of(first), 0), (nodes.number_of(second), MiB)))
    ]


def test_snapshots_of_old_style_and_their_merge(mapper, disks):
    disk, store = disks(), disks(MiB)
    mapper.create("base", [dm.Linear(4 * MiB, disk)])
    origin = mapper.create("origin", [dm.SnapshotOrigin(4 * MiB, "/dev/mapper/base")])
    snapshot = mapper.create("snap", [dm.Snapshot(4 * MiB, "/dev/mapper/base", store, 4096)])
    with open_path(snapshot, writable=True) as device:
        device.write(MiB, b"changed in the snapshot", durable=True)
    with open_path(origin) as device:
        assert device.read(MiB, 7) == bytes(7)
    [status] = mapper.status("snap")
    assert isinstance(status, dm.SnapshotStatus)
    assert (status.total, status.problem, status.merged) == (MiB, "", False)
    assert 0 < status.metadata < status.used < MiB
    assert mapper.table("snap")[0].store == nodes.number_of(store)
    mapper.remove("snap")
    mapper.suspend("origin")
    mapper.load("origin", [dm.SnapshotMerge(4 * MiB, "/dev/mapper/base", store, 4096)])
    mapper.resume("origin")
    assert became(lambda: mapper.status("origin")[0].merged)
    assert isinstance(mapper.table("origin")[0], dm.SnapshotMerge)
    with open_path(origin) as device:
        assert device.read(MiB, 23) == b"changed in the snapshot"


def test_a_snapshot_whose_store_is_full_says_so(mapper, disks):
    disk, store = disks(), disks(64 * KiB)
    snapshot = mapper.create("snap", [dm.Snapshot(4 * MiB, disk, store, 4096, overflow=True)])
    with open_path(snapshot, writable=True) as device, pytest.raises(OSError, match="Input/output error"):
        device.write(0, bytes(range(256)) * 4096, durable=True)
    assert mapper.status("snap")[0].problem in ("Overflow", "Invalid")


def test_thin_devices(mapper, disks):
    meta, data = disks(2 * MiB), disks()
    pool = mapper.create("pool", [dm.ThinPool(SPACE, meta, data, 64 * KiB, low_water_blocks=10)])
    assert mapper.message("pool", "create_thin 5") == ""
    path = mapper.create("thin5", [dm.Thin(64 * MiB, pool, 5)])
    with open_path(path, writable=True) as device:
        device.write(0, b"thin" * 16 * KiB, durable=True)
    [status] = mapper.status("pool")
    assert isinstance(status, dm.ThinPoolStatus)
    assert (status.mode, status.healthy, status.transaction) == ("rw", True, 0)
    assert (status.data_used_blocks, status.data_total_blocks) == (1, SPACE // (64 * KiB))
    assert (status.error_if_full, status.discard, status.passdown, status.held_root) == (True, True, True, None)
    assert 0 < status.metadata_used_blocks < status.metadata_total_blocks == 512
    [thin] = mapper.status("thin5")
    assert (thin.mapped, thin.highest) == (64 * KiB, 64 * KiB - 1)
    with mapper.suspended("thin5"):
        mapper.message("pool", "create_snap 6 5")
    copy = mapper.create("thin6", [dm.Thin(64 * MiB, pool, 6)])
    with open_path(copy) as device:
        assert device.read(0, 4) == b"thin"
    mapper.message("pool", "set_transaction_id 0 1")
    assert mapper.status("pool")[0].transaction == 1
    for text, number in (("create_thin 5", 17), ("delete 99", 61), ("set_transaction_id 7 8", 22)):
        with pytest.raises(KernelError, match="DM_TARGET_MSG") as caught:
            mapper.message("pool", text)
        assert caught.value.errno == number
    assert mapper.table("pool")[0] == dm.ThinPool(
        SPACE, nodes.number_of(meta), nodes.number_of(data), 64 * KiB, low_water_blocks=10
    )
    assert mapper.table("thin6") == [dm.Thin(64 * MiB, nodes.number_of(pool), 6)]


def test_events_are_waited_for(mapper, disks):
    meta, data = disks(2 * MiB), disks(2 * MiB)
    pool = mapper.create("pool", [dm.ThinPool(2 * MiB, meta, data, 64 * KiB, low_water_blocks=28)])
    mapper.message("pool", "create_thin 0")
    path = mapper.create("thin", [dm.Thin(2 * MiB, pool, 0)])
    before = mapper.info("pool").event_nr
    woken = []

    def wait():
        with dm.Mapper() as other:
            woken.append(other.wait("pool", before))

    waiter = threading.Thread(target=wait)
    with dm.Watch() as watch:
        assert watch.wait(0.01) == {}
        waiter.start()
        with open_path(path, writable=True) as device:
            device.write(0, b"x" * 512 * KiB, durable=True)
        assert watch.wait(60) == {"pool": before + 1}
        assert watch.wait(0.01) == {}
        mapper.create("another", [dm.Zero(MiB)])
        assert set(watch.wait(10)) <= {"another"}
    waiter.join(60)
    assert woken[0].event_nr == before + 1
    assert mapper.wait("pool", before).event_nr == before + 1  # a number that is past is no wait


def test_verity(mapper, disks, tmp_path):
    data, hashes = disks(MiB), disks(MiB)
    content = random.Random(1).randbytes(MiB)
    with open_path(data, writable=True) as device:
        device.write(0, content, durable=True)
    level = [hashlib.sha256(b"salt" + content[at : at + 4096]).digest() for at in range(0, MiB, 4096)]
    leaves = [b"".join(level[at : at + 128]) for at in range(0, 256, 128)]
    top = b"".join(hashlib.sha256(b"salt" + leaf).digest() for leaf in leaves).ljust(4096, b"\0")
    with open_path(hashes, writable=True) as device:
        device.write(0, top, *leaves, durable=True)
    root = hashlib.sha256(b"salt" + top).digest()
    path = mapper.create("verity", [dm.Verity(MiB, data, hashes, root, b"salt")], read_only=True)
    with open_path(path) as device:
        assert device.read(0, MiB) == content
    assert mapper.status("verity")[0].verified
    assert mapper.table("verity")[0] == dm.Verity(MiB, nodes.number_of(data), nodes.number_of(hashes), root, b"salt")
    mapper.remove("verity")
    with open_path(data, writable=True) as device:
        device.write(8192, bytes([content[8192] ^ 0xFF]), durable=True)
    path = mapper.create("verity", [dm.Verity(MiB, data, hashes, root, b"salt")], read_only=True)
    with open_path(path) as device, pytest.raises(OSError, match="Input/output error"):
        device.read(8192, 4096)
    assert not mapper.status("verity")[0].verified


def test_crypt_keeps_its_key_to_itself(mapper, disks):
    disk, key = disks(), "c0ffee" * 10 + "c0de"
    target = dm.Crypt(MiB, "aes-xts-plain64", key, disk)
    path = mapper.create("crypt", [target])
    assert key not in repr(target)
    with open_path(path, writable=True) as device:
        device.write(0, b"secret" * 100, durable=True)
    with open_path(disk) as device:
        assert b"secret" not in device.read(0, 4096)
    assert mapper.table("crypt") == [dm.Crypt(MiB, "aes-xts-plain64", key, nodes.number_of(disk))]
    with open_path(path) as device:
        assert device.read(0, 6) == b"secret"


def test_a_failing_disk_is_an_error_in_bounded_time(mapper, disks):
    disk = disks()
    path = mapper.create("flakey", [dm.Other(MiB, "flakey", f"{nodes.number_of(disk)} 0 0 60")])
    with open_path(path) as device, pytest.raises(OSError, match="Input/output error"):
        device.read(0, 4096)
    mapper.replace("flakey", [dm.Linear(MiB, disk)])
    with open_path(path) as device:
        device.read(0, 4096)


def test_a_full_pool_is_an_error_in_bounded_time(mapper, disks):
    meta, data = disks(2 * MiB), disks(MiB)
    pool = mapper.create("pool", [dm.ThinPool(MiB, meta, data, 64 * KiB)])
    mapper.message("pool", "create_thin 0")
    path = mapper.create("thin", [dm.Thin(8 * MiB, pool, 0)])
    with open_path(path, writable=True) as device, pytest.raises(OSError, match=r"No space left|Input/output error"):
        device.write(0, bytes([1]) * 2 * MiB, durable=True)
    status = mapper.status("pool")[0]
    assert (status.mode, status.data_used_blocks, status.healthy) == ("out_of_data_space", 16, False)
    mapper.remove("thin")
    mapper.message("pool", "delete 0")
    assert became(lambda: mapper.status("pool")[0].healthy)


def test_a_pool_grows_under_its_thin_devices(mapper, disks, tmp_path):
    meta, data = disks(2 * MiB), disks(MiB)
    pool = mapper.create("pool", [dm.ThinPool(MiB, meta, data, 64 * KiB)])
    os.truncate(loop.state(int(data.removeprefix("/dev/loop"))).backing, 4 * MiB)
    assert loop.refresh(data) == 4 * MiB
    mapper.replace("pool", [dm.ThinPool(4 * MiB, meta, data, 64 * KiB)])
    assert mapper.status("pool")[0].data_total_blocks == 64
    with pytest.raises(KernelError):
        mapper.replace("pool", [dm.ThinPool(MiB, meta, data, 64 * KiB)])  # no pool shrinks
    assert not mapper.info("pool").suspended
    assert mapper.status("pool")[0].data_total_blocks == 64
    assert pool == "/dev/mapper/pool"


def test_garbage_where_a_pool_keeps_its_metadata(mapper, disks):
    meta, data = disks(2 * MiB), disks(MiB)
    with open_path(meta, writable=True) as device:
        device.write(0, random.Random(2).randbytes(4096), durable=True)
    with pytest.raises(KernelError, match=r"pool: DM_TABLE_LOAD: .*superblock"):
        mapper.create("pool", [dm.ThinPool(MiB, meta, data, 64 * KiB)])
    assert mapper.devices() == []


def test_a_bad_sector_is_an_error_and_its_neighbours_are_read(mapper, disks):
    if mapper.target_version("dust") is None:
        pytest.skip("this kernel has no dm-dust")
    path = mapper.create("dust", [dm.Other(MiB, "dust", f"{nodes.number_of(disks())} 0 512")])
    mapper.message("dust", "addbadblock 100")
    mapper.message("dust", "enable")
    with open_path(path) as device:
        device.read(0, 4096)
        with pytest.raises(OSError, match="Input/output error"):
            device.read(100 * 512, 512)
    assert mapper.status("dust")[0].text.split()[1] == "fail_read_on_bad_block"


def test_a_removed_image_serves_its_users_to_the_end(mapper, disks):
    disk = disks()
    path = mapper.create("over", [dm.Linear(MiB, disk)])
    image = loop.state(int(disk.removeprefix("/dev/loop"))).backing
    os.unlink(image)
    assert loop.state(int(disk.removeprefix("/dev/loop"))).deleted
    with pytest.raises(NotFound, match="no such file"):
        loop.find(image)
    with open_path(path, writable=True) as device:
        device.write(0, b"still there", durable=True)
        assert device.read(0, 11) == b"still there"
    with pytest.raises(InUse, match=r"used by /dev/dm-\d+"):
        loop.detach(disk)
