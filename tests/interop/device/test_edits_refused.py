"""Whatever holds an image keeps every command that edits one away from it, and the message names the holder."""

import re
import subprocess
import sys

import pytest

from tests.support.command import blockwright
from tests.support.loaders import debian_loaders
from tests.support.loops import needs_loop
from tests.support.mounting import mounted
from tests.support.serving import serving
from tests.support.tools import run, tool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="holders are found as Linux tells of them")

PROMPT = b"qemu-io> "
EDITS = {
    "chmod": ["644", "/file"],
    "chown": ["0:0", "/file"],
    "label": ["NEW"],
    "ln": ["/file", "/other"],
    "mkdir": ["/dir"],
    "mkfs": ["--force"],
    "mv": ["/file", "/other"],
    "put": [__file__, "/"],
    "resize": [],
    "rm": ["/file"],
    "setxattr": ["/file", "user.a", "b"],
    "touch": ["/file"],
    "write": ["/file"],
}


def edit(command, image, code):
    arguments = [__file__, image, "/"] if command == "put" else [image, *EDITS[command]]
    arguments = [image, __file__, "/"] if command == "put" else arguments
    return blockwright("fs", command, *arguments, code=code, input=b"text").stderr.decode()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    blockwright("fs", "mkfs", path, "--size", "8M", "--seed", "test", "-q")
    blockwright("fs", "write", path, "/file", input=b"before")
    return path


def refused_by(image, holder, commands=("write", "mkfs")):
    before = image.read_bytes() if image.is_file() else b""
    for command in commands:
        said = edit(command, image, 1)
        assert re.search(holder, said), f"{command}: {said}"
    assert not before or image.read_bytes() == before


def test_every_command_that_edits_is_here():
    listed = blockwright("fs", "--help").stdout.decode().partition("Commands:")[2]
    found = {line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "}
    assert found - {"ls", "cat", "get", "stat", "df"} == set(EDITS)


def test_what_qemu_has_open(image):
    process = subprocess.Popen([tool("qemu-io"), "-f", "raw", image], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        # Its prompt comes when it has the image. Whoever tried to write before could have it held, and qemu-io end.
        assert process.stdout.read(len(PROMPT)) == PROMPT
        refused_by(image, rf"disk\.img: is in use: process {process.pid} \(qemu-io\)", EDITS)
    finally:
        process.communicate(b"quit\n", timeout=60)
    edit("write", image, 0)


def test_what_we_serve(image, tmp_path):
    with serving(image, "--from", "raw", "--socket", tmp_path / "sock") as it:
        refused_by(image, rf"disk\.img: is in use: process {it.process.pid} ")
        blockwright("fs", "write", f"nbd+unix:///?socket={tmp_path / 'sock'}", "/file", input=b"through the server")
    assert blockwright("fs", "cat", image, "/file").stdout == b"through the server"


def test_what_we_serve_read_only(image, tmp_path):
    with serving(image, "--from", "raw", "--read-only", "--socket", tmp_path / "sock") as it:
        refused_by(image, rf"disk\.img: is in use: process {it.process.pid} ")


@needs_loop
def test_what_we_serve_read_only_from_what_changes_disks(tmp_path):
    disk = tmp_path / "disk.img"
    blockwright("disk", "create", disk, "16M", "--table", "gpt")
    blockwright("disk", "add", disk, "--size", "8M")
    blockwright("fs", "mkfs", f"{disk}:1", "-q")
    loaders = debian_loaders(tmp_path / "loaders", "extlinux")
    before = disk.read_bytes()
    with serving("--read-only", "--socket", tmp_path / "sock", disk):
        for command in (
            ["disk", "add", disk],
            ["disk", "set", f"{disk}:1", "--name", "x"],
            ["disk", "resize", disk, "32M"],
            ["disk", "boot-code", disk, "--clear"],
            ["boot", "install", disk, "syslinux", "--keep-config"],
            ["loopless", disk, "create-gpt"],
            ["loopless", f"{disk}:1", "mkfs"],
            ["loopless", "--loader", loaders, f"{disk}:1", "syslinux"],
            ["loopless", f"{disk}:1", "rm", "/x"],
            ["loopless", f"{disk}:1", "set-bootable", "true"],
        ):
            said = blockwright(*command, code=1).stderr.decode()
            assert "is in use: process" in said, f"{command}: {said}"
        assert blockwright("disk", "table", disk, "--json").stdout
    assert disk.read_bytes() == before


def test_what_is_attached_and_what_is_mounted(image, tmp_path):
    with mounted(image, tmp_path / "at") as at:
        loop = run(["findmnt", "-n", "-o", "SOURCE", at]).stdout.strip()
        refused_by(image, rf"disk\.img: is in use: attached to {loop}", EDITS)
        said = edit("write", loop, 1)
        assert re.search(rf"{loop}: is in use: mounted on {at}", said) or "read-only" in said, said
