"""What gzip, xz and zstd write is inspected, converted and served where it lies."""

import random
import subprocess

import pytest

from tests.support.command import blockwright
from tests.support.serving import serving
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged
COMMANDS = {
    "gz": ["gzip", "-c"],
    "xz": ["xz", "-c", "-0"],
    "blocks.xz": ["xz", "-c", "-0", "--block-size=1MiB"],
    "zst": ["zstd", "-q", "-c"],
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A disk of 12 MiB with an ext4 in a partition."""
    path = tmp_path_factory.mktemp("disk") / "disk.img"
    blockwright("disk", "create", path, "12M", "--table", "gpt")
    blockwright("disk", "add", path)
    with open(path, "r+b") as file:
        file.seek(5 << 20)
        file.write(random.Random(1).randbytes(500_000))
    return path


@pytest.mark.parametrize("kind", COMMANDS)
def test_used_where_it_lies(kind, disk, tmp_path):
    packed, out = tmp_path / f"disk.img.{kind}", tmp_path / "out.qcow2"
    command, *options = COMMANDS[kind]
    with open(packed, "wb") as file:
        subprocess.run([tool(command), *options, disk], stdout=file, check=True)
    assert b"gpt" in blockwright("inspect", packed).stdout.lower()
    blockwright("convert", packed, out)
    run([tool("qemu-img"), "compare", "-f", "qcow2", "-F", "raw", out, disk])
    with serving(packed, "--socket", str(tmp_path / "socket")) as server:
        run([tool("qemu-img"), "compare", "-f", "raw", "-F", "raw", server.uri, disk])
    assert b"only read" in blockwright("disk", "rm", packed, "1", code=2).stderr
