"""Our client inside TLS with nbdkit and qemu-nbd: as the address says, and never otherwise."""

import random
from functools import partial

import pytest

from blockwright.errors import NotTrusted, Refused, RemoteProtocolError
from blockwright.nbd.client import pool
from blockwright.nbd.client.connect import connect, describe
from blockwright.nbd.client.options import ClientOptions
from blockwright.testing import check_device
from blockwright.units import KiB
from tests.support.certificates import Authority, folder
from tests.support.command import blockwright, document
from tests.support.nbdpeers import nbdkit
from tests.support.together import run_together

SIZE = 4 << 20


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    base = tmp_path_factory.mktemp("tls")
    ours, others = Authority(base / "ours"), Authority(base / "others", "Another authority")
    client = ours.issue("alice", server=False)
    server = ours.issue("s", server=True, hosts=["localhost"])
    return {
        "good": folder(base / "good", ours, server=server, client=client),
        "stranger": folder(base / "stranger", others, client=others.issue("alice", server=False)),
    }


def kit(tmp_path, certificates, *plugin, mode="require"):
    return nbdkit(tmp_path, f"--tls={mode}", f"--tls-certificates={certificates}", "--tls-verify-peer", *plugin)


def inside(server, certificates, host="localhost"):
    uri = server.uri().replace("nbd+unix", "nbds+unix")
    return f"{uri}&tls-certificates={certificates}&tls-hostname={host}"


def test_a_device_inside_tls_keeps_the_contract(tmp_path, made):
    with kit(tmp_path, made["good"], "memory", "300000") as server:

        def make():
            device = connect(inside(server, made["good"]), writable=True)
            assert device.session.tls
            device.zero(0, device.size)
            return device

        check_device(make, bytes(300_000), operations=40)
        assert document("nbd", "info", inside(server, made["good"]))["tls"] is True


def test_threads_share_a_session(tmp_path, made):
    with kit(tmp_path, made["good"], "memory", str(SIZE)) as server:
        content = random.Random(1).randbytes(SIZE)
        options = ClientOptions(connections=1)
        with connect(inside(server, made["good"]), writable=True, options=options) as device:
            device.write(0, content)

            def read(seed):
                chance = random.Random(seed)
                for _ in range(60):
                    offset, length = chance.randrange(SIZE // 2), chance.choice((1, 5000, 70_000, 700_000))
                    assert device.read(offset, length) == content[offset : offset + length]

            run_together(partial(read, seed) for seed in range(5))


def test_who_does_not_prove_himself_gets_nothing(tmp_path, made):
    with kit(tmp_path, made["good"], "memory", "1M") as server:
        with pytest.raises(NotTrusted):
            connect(inside(server, made["stranger"]))
        with pytest.raises(NotTrusted):
            connect(inside(server, made["good"], host="elsewhere.test"))
        assert blockwright("nbd", "info", inside(server, made["stranger"]), code=1).stderr.count(b"\n") == 1


def test_the_address_decides_and_nothing_else(tmp_path, made):
    with kit(tmp_path, made["good"], "memory", "1M") as server:
        with pytest.raises(Refused, match="nbds:// asks for TLS"):
            describe(server.uri())
        blockwright("nbd", "info", server.uri(), code=4)
    with (
        nbdkit(tmp_path, "memory", "1M") as server,
        pytest.raises(Refused, match="asks for it and the server refuses"),
    ):
        connect(inside(server, made["good"]))
    with kit(tmp_path, made["good"], "memory", "1M", mode="on") as server:
        assert not describe(server.uri()).session.tls
        assert describe(inside(server, made["good"])).session.tls
    with (
        nbdkit(tmp_path, "--mask-handshake=0", "memory", "1M") as server,
        pytest.raises((Refused, RemoteProtocolError), match="no TLS"),
    ):
        connect(inside(server, made["good"]))


def test_a_server_that_comes_back_is_met_inside_tls(tmp_path, made, monkeypatch):
    monkeypatch.setattr(pool, "FIRST_PAUSE_S", 0.01)
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    with (
        kit(tmp_path, made["good"], "file", tmp_path / "disk") as server,
        connect(inside(server, made["good"]), writable=True) as device,
    ):
        device.write(0, b"x" * 64 * KiB)
        server.kill()
        server.start()
        assert device.read(0, 64 * KiB) == b"x" * 64 * KiB
        device.flush()
        assert (device.reconnects, device.session.tls) == (1, True)


def test_a_copy_inside_tls(tmp_path, made):
    with kit(tmp_path, made["good"], "sparse-random", "64M", "seed=7", "percent=50", "runlength=1000000") as server:
        copied = document("nbd", "copy", inside(server, made["good"]), tmp_path / "disk", "--verify")
        assert copied["copied"] > 10 << 20
        blockwright("nbd", "copy", tmp_path / "disk", inside(server, made["good"]), "--force")
