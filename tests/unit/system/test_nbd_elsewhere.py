"""Where there is no driver, no privilege, or no Linux, each command says so in one line and exits with 4."""

import os
import socket
import sys

import pytest

from blockwright.attach import nbd
from blockwright.cli.run import run
from blockwright.errors import Unavailable
from blockwright.system.linux import nbd as driver
from blockwright.system.linux import netlink
from blockwright.system.linux.nbd import control

# Functions of the package have the names of these two.
ATTACH, STATE = (sys.modules[f"{driver.__name__}.{each}"] for each in ("attach", "state"))

COMMANDS = [
    ["attach", "nbd://localhost/x"],
    ["detach", "/dev/nbd0"],
    ["status"],
    ["refresh", "nbd0"],
    ["gc"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each[0])
def test_on_another_system(command, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert run(["nbd", *command]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("needs Linux, this is darwin\n")
    assert captured.err.count("\n") == 1


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@needs_linux
def test_without_the_driver(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path))
    monkeypatch.setattr(control.layout, "FAMILY", "no-such-one")
    monkeypatch.setattr(STATE, "has_driver", lambda: False)
    monkeypatch.setattr(ATTACH, "check_privilege", lambda _operation, _device: None)
    assert run(["nbd", "attach", "nbd://localhost/x"]) == 4
    said = capsys.readouterr().err
    assert said == "blockwright: no-such-one: CTRL_CMD_GETFAMILY: the kernel lacks the driver: modprobe nbd\n"
    for command in COMMANDS[1:]:
        assert run(["nbd", *command]) == 4
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.endswith(": the kernel lacks the driver: modprobe nbd\n")


@needs_linux
def test_without_the_driver_s_netlink_its_ioctls_are_taken(monkeypatch):
    monkeypatch.setattr(control.layout, "FAMILY", "no-such-one")
    monkeypatch.setattr(STATE, "has_driver", lambda: True)
    monkeypatch.setattr(ATTACH, "check_privilege", lambda _operation, _device: None)
    assert driver.available() is driver.By.IOCTL


@needs_linux
@pytest.mark.parametrize(("devices", "has"), [("Block devices:\n  7 loop\n 43 nbd\n", True), ("  7 loop\n", False)])
def test_the_driver_is_known_by_its_devices(devices, has, monkeypatch):
    monkeypatch.setattr(control.blkdev, "text", lambda _path: devices)
    assert STATE.has_driver() is has


@needs_linux
@pytest.mark.parametrize(("capabilities", "fails"), [("000001ffffdfffff", True), ("000001ffffffffff", False)])
def test_without_the_privilege(capabilities, fails, monkeypatch, capsys):
    told = f"Name:\tpython\nCapPrm:\t000001ffffffffff\nCapEff:\t{capabilities}\n"
    monkeypatch.setattr(control.blkdev, "text", lambda _path: told)
    if not fails:
        control.check_privilege("attach", "/dev/nbd0")
        return
    assert run(["nbd", "attach", "nbd://localhost/x"]) == 4
    said = capsys.readouterr().err
    assert said == "blockwright: /dev/nbd*: attach: operation not permitted: needs root (CAP_SYS_ADMIN)\n"


@needs_linux
def test_a_family_that_every_kernel_has():
    with netlink.Family("nlctrl", module="none") as family:
        found = family.request(3, netlink.text(2, "nlctrl"), operation="GETFAMILY", device="nlctrl")
        fields = dict(netlink.attributes(found[0].attributes))
        assert netlink.number(fields[1], 2) == 0x10
        with pytest.raises(Unavailable, match="the driver has no group 'nobody'"):
            family.listen("nobody")
        with family.listen("notify") as events:
            assert events.wait(0.0) == []
            ours, theirs = socket.socketpair()
            with ours, theirs:
                theirs.send(b"x")
                assert events.wait(60.0, wake=[ours]) == []


@needs_linux
def test_nothing_is_attached_where_there_is_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path))
    if not os.path.isdir("/sys/block"):
        pytest.skip("needs sysfs")
    monkeypatch.setattr(STATE, "numbers", list)
    monkeypatch.setattr(STATE, "has_driver", lambda: True)
    assert list(nbd.devices()) == []
    assert nbd.gc() == driver.Collected((), ())
