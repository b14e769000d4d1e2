"""Messages to a thin pool: what is sent, and what is made of the kernel's answer and of the state behind it."""

import errno
from types import SimpleNamespace

import pytest

from blockwright.errors import InUse, KernelError, NotFound, UsageError
from blockwright.system.linux.dm import layout, status, tables
from blockwright.system.linux.thin import Pool

GOOD = "{} 11/512 0/32 {} rw discard_passdown error_if_no_space - 1024 "
NEEDS_CHECK = "0 512/512 1/32 - ro discard_passdown error_if_no_space needs_check 1024 "
POOL = (253, 0)


class Kernel:
    """A Mapper with one pool; `behind` is the status it has once a message came, `refuses` what it answers to it."""

    def __init__(self, *, behind=None, refuses=None, first="thin-pool", active=()):
        self.sent, self.behind, self.refuses = [], behind, refuses
        self.transaction, self.root = 0, "-"
        self.first, self.active = first, {name: tables.Thin(512, "253:0", identity) for name, identity in active}
        self.held = set()

    def status(self, name):
        text = self.behind if self.sent and self.behind else GOOD.format(self.transaction, self.root)
        return [status.parse(layout.Line(0, 4096, self.first, text))]

    def message(self, name, text):
        self.sent.append((text, sorted(self.held)))
        if self.refuses:
            raise self.refuses
        word, *values = text.split()
        if word == "set_transaction_id":
            self.transaction = int(values[1])
        elif word == "reserve_metadata_snap":
            self.root = "77"
        elif word == "release_metadata_snap":
            self.root = "-"

    def info(self, name):
        return SimpleNamespace(major=253, minor=0, suspended=name in self.held, active=True)

    def devices(self):
        return [SimpleNamespace(name=each) for each in ("pool", "gone", *self.active)]

    def dependencies(self, name):
        if name == "gone":
            raise NotFound(name)
        return [POOL] if name in self.active else [(7, 0)]

    def table(self, name):
        return [self.active[name]]

    def suspend(self, name):
        self.held.add(name)

    def resume(self, name):
        self.held.remove(name)

    def create(self, name, table, *, uuid, read_only):
        if self.refuses:
            raise self.refuses
        return f"/dev/mapper/{name} {table[0].parameters()} {table[0].length} {read_only}"


@pytest.mark.parametrize(
    ("operation", "values", "text"),
    [
        ("create", (5,), "create_thin 5"),
        ("snapshot", (6, 5), "create_snap 6 5"),
        ("delete", (16777215,), "delete 16777215"),
        ("set_transaction", (0, 9), "set_transaction_id 0 9"),
        ("reserve", (), "reserve_metadata_snap"),
        ("release", (), "release_metadata_snap"),
    ],
)
class TestEachMessage:
    def test_is_sent_and_followed_by_the_status(self, operation, values, text):
        kernel = Kernel()
        found = getattr(Pool(kernel, "pool"), operation)(*values)
        assert [sent for sent, _ in kernel.sent] == [text]
        assert found == kernel.status("pool")[0]

    def test_has_failed_where_the_pool_went_read_only_over_it(self, operation, values, text):
        pool = Pool(Kernel(behind=NEEDS_CHECK), "pool")
        with pytest.raises(KernelError, match=r"found it ro and needs a check: its meta") as found:
            getattr(pool, operation)(*values)
        assert found.value.errno == errno.EROFS

    def test_has_failed_where_the_pool_failed(self, operation, values, text):
        with pytest.raises(KernelError, match=r"found it Fail$"):
            getattr(Pool(Kernel(behind="Fail"), "pool"), operation)(*values)

    def test_has_failed_where_the_kernel_says_so(self, operation, values, text):
        refused = KernelError("DM_TARGET_MSG", "pool", errno.ENODATA, "no such thin device in the pool")
        with pytest.raises(KernelError) as found:
            getattr(Pool(Kernel(refuses=refused), "pool"), operation)(*values)
        assert found.value is refused

    def test_tells_both_where_the_kernel_says_so_and_the_pool_is_read_only(self, operation, values, text):
        refused = KernelError("DM_TARGET_MSG", "pool", errno.EOPNOTSUPP, "not supported")
        with pytest.raises(KernelError, match=r"ro and needs a check; the kernel answered: .*not supported"):
            getattr(Pool(Kernel(refuses=refused, behind=NEEDS_CHECK), "pool"), operation)(*values)


def test_a_pool_without_room_takes_messages():
    full = "0 11/512 32/32 - out_of_data_space discard_passdown error_if_no_space - 1024"
    assert Pool(Kernel(behind=full), "pool").delete(1).mode == "out_of_data_space"


def test_a_success_that_changed_nothing_is_none():
    with pytest.raises(KernelError, match="expected transaction 3 behind it, found 2"):
        Pool(Kernel(behind=GOOD.format(2, "-")), "pool").set_transaction(2, 3)
    with pytest.raises(KernelError, match="expected a held root, found none"):
        Pool(Kernel(behind=GOOD.format(2, "-")), "pool").reserve()
    with pytest.raises(KernelError, match="expected held_root None behind it, found 5"):
        Pool(Kernel(behind=GOOD.format(2, "5")), "pool").release()


@pytest.mark.parametrize("identity", [-1, 1 << 24])
def test_identities_that_no_device_has(identity):
    kernel = Kernel()
    pool = Pool(kernel, "pool")
    for call in (
        lambda: pool.create(identity),
        lambda: pool.delete(identity),
        lambda: pool.snapshot(identity, 0),
        lambda: pool.snapshot(0, identity),
        lambda: pool.activate("x", identity, 512),
    ):
        with pytest.raises(UsageError, match="expected an identity from 0 to 16777215"):
            call()
    assert kernel.sent == []


def test_what_is_no_pool():
    with pytest.raises(UsageError, match="linear: expected a thin pool, found linear"):
        Pool(Kernel(first="linear"), "linear")


def test_an_active_origin_stands_still_for_its_snapshot():
    kernel = Kernel(active=[("a", 1), ("b", 2)])
    pool = Pool(kernel, "pool")
    pool.snapshot(3, 2)
    pool.snapshot(4, 9)
    assert kernel.sent == [("create_snap 3 2", ["b"]), ("create_snap 4 9", [])]
    assert not kernel.held
    kernel.suspend("a")
    pool.snapshot(5, 1)
    assert kernel.held == {"a"}  # it is somebody else's to resume


def test_an_active_origin_runs_again_whatever_happens():
    kernel = Kernel(active=[("a", 1)], refuses=KernelError("DM_TARGET_MSG", "pool", errno.EEXIST, "file exists"))
    with pytest.raises(KernelError, match="file exists"):
        Pool(kernel, "pool").snapshot(1, 1)
    assert kernel.sent == [("create_snap 1 1", ["a"])]
    assert not kernel.held


@pytest.mark.parametrize("error", [KernelError("DM_DEV_SUSPEND", "b", errno.EIO, "failed"), KeyboardInterrupt()])
def test_all_names_of_an_origin_run_again_where_one_could_not_be_suspended(error, monkeypatch):
    kernel = Kernel(active=[("a", 1), ("b", 1), ("c", 1)])

    def suspend(name):
        kernel.held.add(name)
        if name == "b":
            raise error

    monkeypatch.setattr(kernel, "suspend", suspend)
    with pytest.raises(type(error)):
        Pool(kernel, "pool").snapshot(2, 1)
    assert (kernel.sent, kernel.held) == ([], set())


def test_no_identity_is_active_twice():
    pool = Pool(Kernel(active=[("a", 1)]), "pool")
    assert pool.active() == {"a": 1}
    with pytest.raises(InUse, match="pool: thin device 1: is active as a"):
        pool.activate("b", 1, 512)
    assert pool.activate("b", 2, 1024, read_only=True) == "/dev/mapper/b 253:0 2 1024 True"
    missing = Kernel(refuses=KernelError("DM_TABLE_LOAD", "b", errno.ENODATA, "no such thin device in the pool"))
    with pytest.raises(NotFound, match="pool: no thin device 2"):
        Pool(missing, "pool").activate("b", 2, 1024)
