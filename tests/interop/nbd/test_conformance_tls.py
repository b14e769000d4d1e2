"""The probe inside and outside TLS, on our server and on those of others."""

import os
import socket
from functools import partial

import pytest

from blockwright.cli.run import run as command
from blockwright.device.memory import MemoryDevice
from blockwright.nbd.conformance import CHECKS, Outcome, check_server
from blockwright.nbd.dial import dial
from blockwright.nbd.protocol.server import Tls
from blockwright.nbd.server.connection import Options
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.server import Server
from blockwright.nbd.tls import client_start_tls, server_start_tls
from blockwright.nbd.uri import NbdUri, parse_uri
from blockwright.units import MiB
from tests.interop.nbd.test_conformance import LONG_S, NBDKIT, QEMU, RACES, SHORT_S, process
from tests.support.certificates import Authority, folder
from tests.support.tools import tool

SIZE = 64 * MiB
WAITS = {"W02", "W03", "W04", "W05", "W24"}
"""nbdkit 1.32 skips the payload of a WRITE that it refuses past its TLS, and so waits for ever."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    base = tmp_path_factory.mktemp("tls")
    ours = Authority(base / "ours")
    return folder(
        base / "both",
        ours,
        server=ours.issue("s", server=True, hosts=["localhost"], addresses=["127.0.0.1"]),
        client=ours.issue("alice", server=False),
    )


def address(path, certificates, *, export="", tls):
    query = f"&tls-certificates={certificates}&tls-hostname=localhost" if tls else ""
    return parse_uri(f"nbd{'s' if tls else ''}+unix:///{export}?socket={path}{query}")


def results(uri, *, timeout_s=LONG_S, only=()):
    start = client_start_tls(uri) if uri.tls else None
    found = list(check_server(uri, partial(dial, uri), start_tls=start, write=True, timeout_s=timeout_s, only=only))
    assert [str(each) for each in found if each.outcome is Outcome.ERROR] == []
    return {each.check.id: each for each in found}


def failed(found):
    return {key: each.message for key, each in found.items() if each.outcome is Outcome.FAILED}


def passed(found):
    return {key for key, each in found.items() if each.outcome is Outcome.PASSED}


@pytest.mark.parametrize("mode", [Tls.REQUIRE, Tls.ALLOW])
def test_our_own_server(certificates, mode):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    options = Options(tls=mode, start_tls=server_start_tls(certificates, verify_clients=True))
    with Server([Export("disk", MemoryDevice(SIZE))], [listener], options):
        inside = results(parse_uri(f"nbds://localhost:{port}/disk?tls-certificates={certificates}"))
        outside = results(NbdUri("tcp", "disk", host="localhost", port=port))
        told = command(
            ["nbd", "check", "--timeout", "60", f"nbds://localhost:{port}/disk?tls-certificates={certificates}"]
        )
    assert failed(inside) == {}
    assert failed(outside) == {}
    assert told == 0
    assert {"P03", "P04", "P08", "P09", "P11", "P12", "P13", "P14", "P15", "P16"} <= passed(inside)
    assert ({"P05", "P06", "P07"} if mode is Tls.REQUIRE else {"P10"}) <= passed(outside)


def test_nbdkit(tmp_path, certificates):
    path = tmp_path / "nbdkit"
    tls = [f"--tls-certificates={certificates}", "--tls=require"]
    with process([tool("nbdkit"), "-f", "-U", path, *tls, "memory", str(SIZE)], path):
        outside = results(address(path, certificates, tls=False))
        inside = results(
            address(path, certificates, tls=True), only=[each.id for each in CHECKS if each.id not in WAITS]
        )
    with process([tool("nbdkit"), "-f", "-U", tmp_path / "again", *tls, "memory", str(SIZE)], tmp_path / "again"):
        waits = results(address(tmp_path / "again", certificates, tls=True), timeout_s=SHORT_S, only=WAITS)
    assert failed(inside).keys() - RACES == NBDKIT, failed(inside)
    assert failed(waits).keys() == WAITS
    assert failed(outside) == {}
    assert {"P05", "P06", "P07"} <= passed(outside)


def test_qemu_nbd(tmp_path, certificates):
    path, image = tmp_path / "qemu", tmp_path / "qemu.img"
    image.touch()
    os.truncate(image, SIZE)
    creds = f"tls-creds-x509,id=tls0,endpoint=server,dir={certificates}"
    argv = [tool("qemu-nbd"), "--object", creds, "--tls-creds", "tls0", "-f", "raw", "-k", path, "-x", "disk", "-t"]
    with process([*argv, "-e", "16", "--discard=unmap", image], path):
        outside = results(address(path, certificates, export="disk", tls=False))
        inside = results(address(path, certificates, export="disk", tls=True))
    assert failed(inside).keys() - RACES == {*QEMU, "P07"}, failed(inside)
    assert failed(outside).keys() - RACES == {"L04", "O04", "O05", "P07"}, failed(outside)
    assert failed(outside)["P07"].startswith("expected NBD_REP_ACK, found NBD_REP_ERR_TLS_REQD")
