"""`blockwright dm` in a kernel of our own, beside dmsetup: each reads what the other made."""

import contextlib
import os
import subprocess
import threading
import time
from glob import glob

import pytest

from blockwright.device.file import open_path
from blockwright.errors import NotFound
from blockwright.system.linux import dm, loop
from blockwright.system.linux.dm import nodes
from blockwright.units import KiB, MiB
from tests.support.command import COMMAND
from tests.support.inprocess import blockwright, document
from tests.support.loops import sparse
from tests.support.tools import run, tool

KEY = "c0ffee" * 10 + "c0de"


@pytest.fixture
def disks(tmp_path, monkeypatch):
    """`disks(size)`: the path of one more loop device; what stands on them goes at the end, the last first."""
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    attached = []

    def disk(size=8 * MiB):
        attached.append(loop.attach(sparse(tmp_path / f"{len(attached)}.img", size)))
        return attached[-1].path

    yield disk
    with dm.Mapper() as mapper:
        for entry in sorted(mapper.devices(), key=lambda each: each.dev, reverse=True):
            mapper.remove(entry.name)
    for each in attached:
        each.detach()


def dmsetup(*arguments):
    return run([tool("dmsetup"), *arguments]).stdout.strip()


def ours(*arguments, table=None, code=0):
    return blockwright("dm", *arguments, input=table and table.encode(), code=code).stdout.decode().strip()


def without_trailing_blanks(text):
    return "\n".join(line.rstrip() for line in text.splitlines())


def test_what_we_make_dmsetup_reads(disks):
    disk = disks()
    number = nodes.number_of(disk)
    text = f"# two windows\n0 2048 linear {disk} 8\n2048 2048 striped 2 128 {disk} 0 {number} 4096\n4096 8 error\n"
    assert ours("create", "made", "--uuid", "made-1", "-", table=text) == "/dev/mapper/made"
    expected = f"0 2048 linear {number} 8\n2048 2048 striped 2 128 {number} 0 {number} 4096\n4096 8 error"
    assert without_trailing_blanks(dmsetup("table", "made")) == ours("table", "made") == expected
    assert without_trailing_blanks(dmsetup("status", "made")) == ours("status", "/dev/mapper/made")
    assert dmsetup("info", "-c", "--noheadings", "-o", "name,uuid,attr", "made") == "made:made-1:L--w"
    assert dmsetup("ls").split()[0] == "made"
    assert ours("rename", "made", "named") == "/dev/mapper/named"
    assert dmsetup("info", "-c", "--noheadings", "-o", "name", "named") == "named"
    with open_path("/dev/mapper/named") as device:
        assert device.size == 2 * MiB + 4096
    ours("remove", "named")
    assert dmsetup("ls") == "No devices found"
    assert not os.path.lexists("/dev/mapper/named")


def test_what_dmsetup_makes_we_read(disks):
    disk = disks()
    number = nodes.number_of(disk)
    dmsetup("create", "theirs", "-r", "-u", "theirs-1", "--table", f"0 2048 linear {disk} 16")
    assert ours("table", "theirs") == f"0 2048 linear {number} 16"
    info = document("dm", "info", "theirs")
    shown = dmsetup("info", "-c", "--noheadings", "-o", "major,minor,open,events,uuid", "theirs")
    assert f"{info['major']}:{info['minor']}:{info['open_count']}:{info['event_nr']}:{info['uuid']}" == shown
    assert (info["read_only"], info["suspended"], info["path"]) == (True, False, "/dev/mapper/theirs")
    text = dict(line.split(None, 1) for line in ours("info", "theirs").splitlines())
    assert text == {
        "name": "theirs",
        "uuid": "theirs-1",
        "number": f"{info['major']}:{info['minor']}",
        "state": "running",
        "mode": "ro",
        "tables": "active",
        "open": "0",
        "events": "0",
    }
    [entry] = document("dm", "list")["devices"]
    assert {name: entry[name] for name in ("name", "major", "minor", "uuid", "event_nr")} == {
        name: info[name] for name in ("name", "major", "minor", "uuid", "event_nr")
    }
    assert ours("list").splitlines()[1].split() == ["theirs", text["number"], "0", "theirs-1"]
    assert ours("deps", "theirs").split() == [number, disk]
    major, minor = number.split(":")
    assert dmsetup("deps", "theirs").endswith(f": ({major}, {minor})")
    dmsetup("remove", "theirs")
    ours("info", "theirs", code=5)
    assert document("dm", "list")["devices"] == []


def test_targets(disks):
    shown = {line.split()[0]: line.split()[1].removeprefix("v") for line in dmsetup("targets").splitlines()}
    assert dict(line.split() for line in ours("targets").splitlines()) == shown
    told = document("dm", "targets")
    assert {each["type"]: each["version"] for each in told["targets"]} == shown
    assert f"Driver version:    {told['interface']}" in dmsetup("version")


def test_a_table_is_loaded_cleared_and_resumed_as_by_dmsetup(disks):
    number = nodes.number_of(disks())
    dmsetup("create", "x", "--table", "0 2048 zero")
    ours("load", "x", table=f"0 4096 linear {number} 0")
    assert dmsetup("table", "--inactive", "x") == ours("table", "--inactive", "x") == f"0 4096 linear {number} 0"
    assert ours("table", "x") == "0 2048 zero"
    assert "active, inactive" in ours("info", "x")
    ours("clear", "x")
    assert ours("table", "--inactive", "x") == ""
    ours("suspend", "x")
    assert dmsetup("info", "-c", "--noheadings", "-o", "suspended", "x") == "Suspended"
    assert "suspended" in ours("info", "x")
    dmsetup("load", "x", "--table", f"0 4096 linear {number} 0")
    ours("resume", "x")
    assert dmsetup("table", "x") == f"0 4096 linear {number} 0"
    assert dmsetup("info", "-c", "--noheadings", "-o", "suspended", "x") == "Active"
    dmsetup("create", "y", "--notable")
    assert "without a table" in ours("info", "y")
    ours("rename", "y", "--set-uuid", "y-1")
    assert dmsetup("info", "-c", "--noheadings", "-o", "uuid", "y") == "y-1"


def test_a_table_goes_through_a_pipe(disks):
    disk = disks()
    ours("create", "one", table=f"0 2048 crypt aes-xts-plain64 {KEY} 0 {disk} 0 1 allow_discards")
    hidden = f"0 2048 crypt aes-xts-plain64 {'0' * 64} 0 {nodes.number_of(disk)} 0 1 allow_discards"
    assert ours("table", "one") == dmsetup("table", "one") == hidden
    text = ours("table", "one", "--show-keys")
    assert text == dmsetup("table", "--showkeys", "one") == hidden.replace("0" * 64, KEY)
    ours("remove", "one")
    ours("create", "two", table=text)
    assert dmsetup("table", "--showkeys", "two") == text


def test_a_pool_by_messages_and_its_events(disks):
    meta, data = disks(2 * MiB), disks(2 * MiB)
    pool = ours("create", "pool", table=f"0 4096 thin-pool {meta} {data} 128 28 1 error_if_no_space")
    assert ours("message", "pool", "0", "create_thin", "0") == ""
    assert ours("message", "pool", "0", "@stats_create", "-", "4096") == "0"
    assert ours("message", "pool", "0", "@stats_list") == dmsetup("message", "pool", "0", "@stats_list")
    ours("create", "thin", table=f"0 4096 thin {pool} 0")
    [status] = document("dm", "status", "pool")["targets"]
    assert (status["size"], status["status"]["mode"], status["status"]["data_used_blocks"]) == (2 * MiB, "rw", 0)
    assert ours("status", "pool") == dmsetup("status", "pool")
    before = document("dm", "info", "pool")["event_nr"]
    ours("wait", "pool", "--timeout", "0.1", code=1)
    waiters = [
        subprocess.Popen([*COMMAND, "dm", "wait", "pool", str(before), *options], stdout=subprocess.PIPE)
        for options in ([], ["--timeout", "60"])
    ]
    with open_path("/dev/mapper/thin", writable=True) as device:
        device.write(0, b"x" * 512 * KiB, durable=True)
    assert [each.communicate(timeout=60)[0] for each in waiters] == [f"{before + 1}\n".encode()] * 2
    assert dmsetup("info", "-c", "--noheadings", "-o", "events", "pool") == str(before + 1)


@pytest.mark.parametrize("timeout_s", [None, 60])
def test_a_wait_ends_with_its_device(disks, timeout_s):
    ours("create", "x", table="0 8 zero")
    failed, ready = [], threading.Event()

    def wait():
        with dm.Mapper() as mapper:
            before = mapper.info("x").event_nr
            ready.set()
            try:
                mapper.wait("x", before, timeout_s=timeout_s)
            except NotFound as error:
                failed.append(str(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    ready.wait()
    time.sleep(0.3)  # so that it most often waits by now
    ours("remove", "x", "--retry")
    waiter.join(60)
    assert failed == ["x: no such device-mapper device"]


def has_open(pid, path):
    for each in glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(each) == path:
                return True
    return False


@pytest.mark.parametrize("options", [[], ["--timeout", "60"]], ids=str)
def test_a_wait_ends_with_a_signal(disks, options):
    ours("create", "x", table="0 8 zero")
    waiter = subprocess.Popen([*COMMAND, "dm", "wait", "x", *options], stderr=subprocess.PIPE)
    while not has_open(waiter.pid, "/dev/mapper/control"):
        assert waiter.poll() is None
        time.sleep(0.01)
    waiter.terminate()
    assert waiter.communicate(timeout=60)[1] == b"blockwright: interrupted\n"
    assert waiter.returncode == 130


def test_what_is_in_use_stays_or_goes_later(disks):
    path = ours("create", "x", table=f"0 2048 linear {disks()} 0")
    fd = os.open(path, os.O_RDONLY)
    try:
        assert b"/dev/mapper/x: is in use" in blockwright("dm", "remove", "x", code=1).stderr
        assert dmsetup("info", "-c", "--noheadings", "-o", "open", "x") == "1"
        ours("remove", "x", "--deferred")
        assert "when its last user closes it" in ours("info", "x")
        ours("remove", "x", "--force")
        assert dmsetup("table", "x") == "0 2048 error"
    finally:
        os.close(fd)
    ours("info", "x", code=5)


def test_what_is_refused(disks, tmp_path):
    disk = disks()
    for table, code, message in (
        ("0 2048 nonsense 1 2", 1, "nonsense: unknown target type"),
        (f"0 2048 linear {disk}", 1, "linear"),
        ("0 2048 linear /dev/no-such-disk 0", 5, "/dev/no-such-disk: no such device"),
        (f"0 {1 << 40} linear {disk} 0", 1, "DM_TABLE_LOAD"),
        ("0 8 zero\n16 8 zero", 2, "standard input: line 2: expected it to start at sector 8"),
    ):
        told = blockwright("dm", "create", "x", input=table.encode(), code=code).stderr.decode()
        assert message in told
        assert dmsetup("ls") == "No devices found"
    ours("create", "x", table="0 8 zero")
    ours("create", "x", table="0 8 zero", code=1)
    ours("create", "a/b", table="0 8 zero", code=2)
    for command in (["table"], ["status"], ["deps"], ["resume"], ["suspend"], ["remove"], ["clear"], ["wait"]):
        assert ours(*command, "nobody", code=5) == ""
    ours("load", "nobody", table="0 8 zero", code=5)
    ours("rename", "nobody", "somebody", code=5)
    ours("message", "nobody", "0", "text", code=5)
