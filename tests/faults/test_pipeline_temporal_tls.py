"""A real Temporal server behind TLS: who is trusted, who is let in, and what is told where that fails."""

import re
import socket
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockwright.pipeline.images import Images
from tests.faults.test_pipeline_temporal import server
from tests.support.certificates import ED25519, Authority
from tests.support.inprocess import blockwright
from tests.support.pipeline import POOL, command, docker_archive, home, parsed
from tests.support.temporal import worker
from tests.support.tlsproxy import TlsProxy, tls_proxy

__all__ = ["home", "server"]
pytestmark = pytest.mark.ci
KEY = "sesame.open-7"


class Keys:
    """Two authorities, a server's certificate, and clients'."""

    def __init__(self, folder: Path) -> None:
        self.ours, self.others = Authority(folder / "ours"), Authority(folder / "others", "Another authority")
        self.server = self.ours.issue("server", server=True, addresses=["127.0.0.1"])
        self.client = self.ours.issue("rack7", server=False, kind=ED25519)
        self.stranger = self.others.issue("stranger", server=False, kind=ED25519)
        self.late = self.ours.issue("late", server=False, kind=ED25519, expired=True)

    def trusting(self) -> tuple[str, ...]:
        return ("--temporal-tls", "--temporal-tls-ca", str(self.ours.certificate))

    def showing(self, pair: tuple[Path, Path]) -> tuple[str, ...]:
        return (*self.trusting(), "--temporal-tls-cert", str(pair[0]), "--temporal-tls-key", str(pair[1]))


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def proxy(server, keys) -> Iterator[TlsProxy]:
    with tls_proxy(server, keys.server) as found:
        yield found


@pytest.fixture(scope="module")
def mutual(server, keys) -> Iterator[TlsProxy]:
    with tls_proxy(server, keys.server, keys.ours.certificate) as found:
        yield found


def refuse(expected: str, address: str, *words: str, code: int = 1, env: dict[str, str] | None = None) -> None:
    """Hold a command that reaches no server to its one line."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        done = blockwright("image", "cancel", "0123456789ab", "--temporal", address, "--on", "a", *words, code=code)
    line = done.stderr.decode().rstrip()
    assert line.startswith(f"blockwright: temporal: {address}: ")
    assert re.search(expected, line.partition(address)[2]), line
    assert not re.search(r"tonic|rustls|Custom|[{(]", line), line


def test_worker_and_command_through_tls_with_a_certificate_each(home, tmp_path, mutual, keys):
    words = ("--temporal", mutual.address, "--on", "a", *keys.showing(keys.client))
    with worker(mutual.address, "a", *keys.showing(keys.client)):
        found = parsed("fetch-and-create", docker_archive(tmp_path), "--pool", POOL, "--scan", "off", *words)
        assert found["did"] == ["download", "verify", "scan", "create"]
        run = found["run"]
        assert parsed("image", "cancel", run, *words)["state"] == "ready"
        assert command("image", "activate", run, *words)[0]
        assert parsed("image", "retry", run, *words)["did"] == []
        assert command("image", "deactivate", run, *words)[0]
        command("image", "rm", "--snapshots", run, *words)
    assert mutual.subjects == {"rack7"}


def test_all_of_it_from_the_environment_and_an_api_key_with_every_request(home, tmp_path, proxy, keys):
    environ = {
        "TEMPORAL_ADDRESS": proxy.address,
        "TEMPORAL_NAMESPACE": "default",
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(keys.ours.certificate),
        "TEMPORAL_API_KEY": KEY,
    }
    proxy.seen.clear()
    with worker(proxy.address, "a", env=environ):
        words = ("fetch-and-create", docker_archive(tmp_path), "--pool", POOL, "--scan", "off", "--on", "a", "--json")
        out, lines = command(*words, env=environ)
    called = {each[":path"].rpartition("/")[2] for each in proxy.seen}
    assert {"StartWorkflowExecution", "PollActivityTaskQueue", "PollWorkflowTaskQueue"} <= called
    assert proxy.values("authorization") == {f"Bearer {KEY}"}
    for text in (out, *lines, *kept(home)):
        assert KEY not in text


def kept(folder: Path) -> list[str]:
    """All that a home keeps, as text."""
    with Images() as images:
        assert images.list()  # it is there by now
    return [each.read_bytes().decode("latin-1") for each in folder.rglob("*") if each.is_file()]


def test_an_api_key_from_a_file_and_none_without_one(home, tmp_path, proxy, keys):
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    words = ("image", "cancel", "0123456789ab", "--temporal", proxy.address, "--on", "a")
    for more, sent in (((), None), (("--temporal-api-key-file", str(file)), f"Bearer {KEY}")):
        proxy.seen.clear()
        assert "no such run" in command(*words, *keys.trusting(), *more, code=5)[1][0]
        assert proxy.values("authorization") == {sent}


def test_an_api_key_that_is_not_let_in_is_not_told(home, server, keys):
    with tls_proxy(server, keys.server, api_key="another") as strict:
        environ = {"TEMPORAL_API_KEY": KEY}
        refuse("refused: no such key: Bearer …$", strict.address, *keys.trusting(), code=4, env=environ)
        words = ("image", "cancel", "0123456789ab", "--temporal", strict.address, "--on", "a", *keys.trusting())
        assert "no such run" in command(*words, code=5, env={"TEMPORAL_API_KEY": "another"})[1][0]


def test_a_server_that_is_not_trusted(home, tmp_path, server, keys, proxy):
    other = ("--temporal-tls", "--temporal-tls-ca", str(keys.others.certificate))
    refuse("is of no authority that is trusted", proxy.address, *other)
    _, (line,) = command("worker", "--temporal", proxy.address, "--host", "a", *other, code=1)
    assert "is of no authority that is trusted" in line
    refuse("is of no authority that is trusted", proxy.address, "--temporal-tls")
    named = (*keys.trusting(), "--temporal-tls-server-name", "temporal.example")
    refuse("for another name than temporal.example", proxy.address, *named)
    late = keys.ours.issue("server", server=True, addresses=["127.0.0.1"], expired=True)
    with tls_proxy(server, late) as expired:
        refuse("certificate has expired", expired.address, *keys.trusting())
    elsewhere = keys.ours.issue("server", server=True, hosts=["temporal.example"])
    with tls_proxy(server, elsewhere) as behind:
        refuse("for another name than 127.0.0.1", behind.address, *keys.trusting())
        words = ("image", "cancel", "0123456789ab", "--temporal", behind.address, "--on", "a")
        assert "no such run" in command(*words, *named, code=5)[1][0]


def test_one_end_speaks_tls_and_the_other_does_not(home, server, keys, proxy):
    refuse("wants --temporal-tls", proxy.address)
    refuse("speaks no TLS", server, *keys.trusting())
    refuse("speaks no TLS", server, env={"TEMPORAL_API_KEY": KEY})


def test_a_server_that_asks_for_certificates(home, mutual, keys):
    mutual.subjects.clear()
    refuse("--temporal-tls-cert", mutual.address, *keys.trusting())
    for pair in (keys.stranger, keys.late):
        refuse("certificate", mutual.address, *keys.showing(pair))
    assert mutual.subjects == set()


def test_a_key_that_only_others_can_read(home, mutual, keys):
    for _ in range(40):  # certtool makes every other one so: a byte longer than it is
        certificate, key = keys.ours.issue("us", server=False)
        if b"\x02\x01\x01\x04\x21" in b64decode("".join(key.read_text().split("-----")[2].split())):
            break
    else:
        pytest.skip("certtool makes no such keys any more")
    refuse("openssl pkcs8", mutual.address, *keys.showing((certificate, key)), code=2)


def test_what_is_wrong_is_told_before_anybody_is_contacted(home, keys):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        for words in (
            keys.showing(keys.client)[:-2],
            keys.trusting()[1:],
            ("--temporal-tls", "--temporal-tls-ca", "/nowhere/ca.pem"),
            ("--temporal-api-key-file", "/nowhere/key"),
        ):
            for start in (("worker", "--host", "a"), ("image", "retry", "0123456789ab", "--on", "a")):
                blockwright(*start, "--temporal", address, *words, code=2)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_options_without_a_host_are_not_passed_over(home, tmp_path, monkeypatch):
    path = docker_archive(tmp_path)
    for words in (("--temporal-tls",), ("--namespace", "n"), ("--temporal-api-key-file", "key")):
        assert b"--on HOST" in blockwright("fetch-and-create", path, *words, code=2).stderr
    assert b"TEMPORAL_ADDRESS" in blockwright("fetch-and-create", path, "--on", "a", code=2).stderr
    for name, value in (("ADDRESS", "127.0.0.1:1"), ("TLS", "junk"), ("API_KEY", "a b")):
        monkeypatch.setenv(f"TEMPORAL_{name}", value)
    blockwright("fetch-and-create", path, "--pool", POOL, "--scan", "off")  # it is made here


def test_a_namespace_that_is_not_there_is_one_line(home, tmp_path, server):
    _, (line,) = command("worker", "--temporal", server, "--host", "a", "--namespace", "nowhere", code=1)
    assert line.startswith(f"blockwright: temporal: {server}: ")
    assert "nowhere" in line
    words = ("--pool", POOL, "--scan", "off", "--temporal", server, "--on", "a", "--namespace", "nowhere")
    _, lines = command("fetch-and-create", docker_archive(tmp_path), *words, code=1)
    assert lines[-1] == f"blockwright: temporal: {server}: Namespace nowhere is not found."
