"""Archives that are objects of a store, through a proxy that breaks off."""

import gzip
import json
import os
import signal
import subprocess
import threading
import time

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import BlockwrightError, NotFound, SourceChanged
from blockwright.source import open_source
from blockwright.store import cloud
from blockwright.tree.spool import Spool
from tests.support.command import COMMAND
from tests.support.faultproxy import Fault, faulty
from tests.support.registry import digest, layer
from tests.support.tarmaker import archive, member

pytest.importorskip("obstore", reason="obstore is not installed")
pytestmark = pytest.mark.unprivileged
BODY = os.urandom(900_000)
MONDAY = "Mon, 19 Oct 2015 07:28:00 GMT"


def docker_archive():
    inner = layer(b"inner", b"x")
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [digest(inner)]}}
    ).encode()
    name = f"{digest(config).removeprefix('sha256:')}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": ["a:b"], "Layers": ["layer.tar"]}]).encode()
    return archive(member(name.encode(), config), member(b"manifest.json", manifest), member(b"layer.tar", inner))


@pytest.fixture
def content():
    plain = archive(member(b"big", BODY))
    files = {"plain.tar": plain, "packed": gzip.compress(plain, 1), "image.tar": docker_archive(), "text": b"x" * 999}
    return {f"/{name}": (data, f'"{name}"', MONDAY) for name, data in files.items()} | {
        "/empty": (b"", '"e"', MONDAY)
    }


@pytest.fixture
def proxy(content, monkeypatch):
    monkeypatch.setattr(cloud, "_RETRIES", 1)
    with faulty(content) as proxy:
        yield proxy


def read(url):
    """Return the names of the tree at a URL, and all that was placed of its files."""
    memory = MemoryDevice(0)
    with open_source(url) as source:
        tree = source.read() if source.addressable else source.read(Spool(memory).place)
        return sorted(tree.entries), memory.read(0, memory.size)


@pytest.mark.parametrize("name", ["plain.tar", "packed"])
def test_an_archive_is_read_while_it_is_fetched(proxy, name):
    left = [Fault(cut=1 << 17)] * 4
    # The first request is for what it begins with.
    proxy.fault = lambda method, path, headers: (
        left.pop() if left and method == "GET" and headers.get("range") != "bytes=0-511" else None
    )
    names, placed = read(f"{proxy.url}/{name}")
    assert names == [b"big"]
    assert BODY in placed
    assert not left


def test_a_container_image_is_its_layers(proxy):
    assert read(f"{proxy.url}/image.tar")[0] == [b"inner"]


def test_an_archive_that_changes_meanwhile_is_refused(proxy, content):
    def change(method, path, headers):
        if method == "GET" and headers.get("range") != "bytes=0-511":
            content["/plain.tar"] = archive(member(b"big", BODY[::-1])), '"other"', MONDAY

    proxy.fault = change
    with pytest.raises(SourceChanged):
        read(f"{proxy.url}/plain.tar")


@pytest.mark.parametrize("name", ["text", "empty"])
def test_what_is_no_archive(proxy, name):
    with pytest.raises(BlockwrightError):
        read(f"{proxy.url}/{name}")


def test_what_is_not_there(proxy):
    with pytest.raises(NotFound, match="no such object"):
        read(f"{proxy.url}/none")


@pytest.mark.slow
def test_a_signal_ends_what_waits_for_a_store(proxy, tmp_path):
    asked = threading.Event()

    def stall(method, path, headers):
        if method == "GET" and headers.get("range") != "bytes=0-511":
            asked.set()
            return Fault(slow=1)
        return None

    proxy.fault = stall
    command = [*COMMAND, "build", f"{proxy.url}/plain.tar", "-o", tmp_path / "disk.img"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert asked.wait(60)
        time.sleep(1)  # until it waits for the first piece, 64 KiB, of which 1 KiB comes in a second
        process.send_signal(signal.SIGINT)
        try:
            assert process.communicate(timeout=50)[1] == b"blockwright: interrupted\n"
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == []
