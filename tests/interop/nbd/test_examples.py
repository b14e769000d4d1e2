"""Each example is run, and does what it says."""

import errno
import json
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from blockwright.nbd.uri import parse_uri
from tests.support.rawnbd import RawClient
from tests.support.tools import run, tool

EXAMPLES = Path(__file__).parents[3] / "examples"
TESTED = {"backend.py", "file_server.py", "memory_server.py", "client.py"}


@contextmanager
def example(name, *arguments):
    """Run a server until the context ends; give its addresses, and take what it prints at the end."""
    command = [sys.executable, "-W", "error", EXAMPLES / name, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = {"uri": process.stdout.readline().strip()}
            assert said["uri"], process.stderr.read()
            yield said
            process.send_signal(signal.SIGINT)
            said["out"], errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            assert errors == ""
        finally:
            process.kill()


def client(uri):
    return run([sys.executable, "-W", "error", EXAMPLES / "client.py", uri]).stdout.splitlines()


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.glob("*.py")} == TESTED


def test_four_methods_are_a_backend(tmp_path):
    with example("backend.py", tmp_path / "s") as said:
        assert client(said["uri"]) == ["size: 1 MiB", "allocated: 1 MiB", "first bytes: hello, disk"]
        (export,) = json.loads(run([tool("nbdinfo"), "--json", said["uri"]]).stdout)["exports"]
        assert (export["description"], export["export-size"]) == ("a disk in four methods", 1 << 20)
        run([tool("qemu-io"), "-f", "raw", "-c", "write -P 7 0 64k", "-c", "read -P 7 0 64k", said["uri"]])
    assert not (tmp_path / "s").exists()


def test_a_file_server(tmp_path):
    for name in ("one.img", "two.img"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(1 << 20)
    with example("file_server.py", tmp_path / "s", tmp_path / "one.img", tmp_path / "two.img") as said:
        listed = json.loads(run([tool("nbdinfo"), "--list", "--json", said["uri"]]).stdout)["exports"]
        assert [each["export-name"] for each in listed] == ["one.img", "two.img"]
        assert client(said["uri"].replace(":///", ":///two.img"))[2] == "first bytes: hello, disk"
    assert (tmp_path / "two.img").read_bytes()[:11] == b"hello, disk"


def test_a_memory_server():
    with example("memory_server.py", "127.0.0.1:0", "64M") as said:
        assert client(said["uri"]) == ["size: 64 MiB", "allocated: 0 B", "first bytes: hello, disk"]
        address = parse_uri(said["uri"])
        with RawClient(socket.create_connection((address.host, address.port))) as odd:
            odd.go()
            odd.request(77)
            assert odd.reply()[0] == errno.EINVAL
    assert "other: 1 requests, 0 B" in said["out"]
    assert "write: 1 requests, 11 B" in said["out"]
    assert "memory in use: 64 KiB" in said["out"]


@pytest.mark.parametrize("name", sorted(TESTED))
def test_an_example_says_how_it_is_run(name):
    text = (EXAMPLES / name).read_text()
    assert f"python examples/{name}" in text.split('"""')[1]
