import grp
import os
import pwd

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import UsageError
from blockwright.nbd.protocol.steps import Identity
from blockwright.nbd.server import access
from blockwright.nbd.server.access import access_list, parse_rule
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.peer import Peer
from blockwright.nbd.wire import TransmissionFlag
from tests.support.runningserver import running

V4 = Peer("tcp", "10.1.2.3", 4000)
V6 = Peer("tcp", "fe80::1%eth0", 4000)
UNIX = Peer("unix", uid=1000, gid=100, pid=1)
VSOCK = Peer("vsock", "3", 4000)
CERTIFICATE = Peer("tcp", "192.0.2.1", 4000, identity=Identity(names=("Backup.example", "alice")))
PSK = Peer("tcp", "192.0.2.1", 4000, identity=Identity(psk="alice"))
ALL = [V4, V6, UNIX, VSOCK, CERTIFICATE, PSK]


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ("10.0.0.0/8", [V4]),
        ("net=10.1.2.3", [V4]),
        ("10.1.2.4", []),
        ("fe80::/10", [V6]),
        ("0.0.0.0/0", [V4, CERTIFICATE, PSK]),
        ("tcp", [V4, V6, CERTIFICATE, PSK]),
        ("unix", [UNIX]),
        ("uid=1000", [UNIX]),
        ("uid=0", []),
        ("gid=100", [UNIX]),
        ("vsock", [VSOCK]),
        ("cid=3", [VSOCK]),
        ("cid=4", []),
        ("cn=alice", [CERTIFICATE]),
        ("name=backup.EXAMPLE", [CERTIFICATE]),
        ("name=backup", []),
        ("psk=alice", [PSK]),
        ("psk=Alice", []),
        ("192.0.2.0/24, cn=alice", [CERTIFICATE]),
        ("10.0.0.0/8,cn=alice", []),
        ("unix,uid=1000,gid=100", [UNIX]),
        ("unix,uid=1000,gid=101", []),
    ],
)
def test_a_rule_fits_whom_it_names(rule, fits):
    assert [peer for peer in ALL if parse_rule(rule).holds(peer)] == fits


def test_names_of_this_machine_become_numbers():
    user = pwd.getpwuid(os.getuid()).pw_name
    group = grp.getgrgid(os.getgid()).gr_name
    ours = Peer("unix", uid=os.getuid(), gid=os.getgid())
    assert parse_rule(f"user={user},group={group}").holds(ours)
    assert not parse_rule(f"user={user}").holds(Peer("unix", uid=os.getuid() + 1, gid=0))


@pytest.mark.parametrize(
    "rule",
    [
        "",
        ",",
        "10.0.0.1/8",
        "300.0.0.1",
        "uid=",
        "uid=x",
        "uid=-1",
        "uid=4294967296",
        "cid=" + "9" * 20,
        "gid=" + "0" * 12 + "9" * 5000,
        "user=no such user",
        "pid=3",
        "everyone",
        "10.0.0.0/8,",
        "net=unix",
        "uid=٣",
    ],
)
def test_what_is_no_rule_is_refused_by_name(rule):
    with pytest.raises(UsageError, match="rule"):
        parse_rule(rule)


def test_host_bits_are_told_with_the_network():
    with pytest.raises(UsageError, match=r"expected the network 10\.0\.0\.0/8"):
        parse_rule("10.0.0.1/8")


def test_without_rules_everybody_may():
    assert access_list([]) is None
    assert access.AccessList().refusal(V4) is None
    assert not access.AccessList().read_only(V4)


def test_with_rules_only_whom_one_fits():
    rules = access_list(["10.0.0.0/8", "uid=1000"], ["cid=3"])
    assert [peer for peer in ALL if rules.refusal(peer) is None] == [V4, UNIX, VSOCK]
    assert [peer for peer in ALL if rules.read_only(peer)] == [V6, VSOCK, CERTIFICATE, PSK]


def test_who_is_on_both_lists_may_write():
    assert not access_list(["uid=1000"], ["unix"]).read_only(UNIX)


def test_equal_lists_are_equal():
    assert access_list(["10.0.0.0/8"], ["unix"]) == access_list(["10.0.0.0/8"], ["unix"])
    assert access_list(["10.0.0.0/8"]) != access_list(["10.0.0.0/9"])


def test_too_many_rules_are_refused(monkeypatch):
    monkeypatch.setattr(access, "MAX_RULES", 2)
    with pytest.raises(UsageError, match="at most 2 rules"):
        access_list(["unix"], ["unix", "tcp"])


def test_who_may_only_read_is_offered_nothing_that_writes():
    writing = TransmissionFlag.SEND_TRIM | TransmissionFlag.SEND_WRITE_ZEROES
    writing |= TransmissionFlag.SEND_FAST_ZERO | TransmissionFlag.SEND_RESIZE
    rules = {False: access_list(["unix"]), True: access_list(["uid=4294967295"], ["unix"])}
    for only_reads, rule in rules.items():
        export = Export("", MemoryDevice(1 << 20), resizable=True, access=rule)
        with running([export]) as server, server.client() as client:
            client.go()
            assert bool(client.flags & TransmissionFlag.READ_ONLY) is only_reads
            assert client.flags & writing == (0 if only_reads else writing)
