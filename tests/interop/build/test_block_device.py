"""`build` onto a block device: a loop device here, which needs root."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import blockwright, document
from tests.support.tools import run, tool

SIZE = 64 << 20


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A blank loop device of 64 MiB."""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs root and loop devices")
    file = tmp_path / "medium"
    with open(file, "wb") as medium:
        medium.truncate(SIZE)
    name = run([tool("losetup", package="mount"), "--find", "--show", file]).stdout.strip()
    yield name
    run([tool("losetup", package="mount"), "--detach", name])


def test_the_table_spans_the_device(device: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"on a device")
    blockwright("build", tree, "-o", device)
    assert "No problems found" in run([tool("sgdisk"), "-v", device]).stdout
    assert document("check", device)["clean"]
    assert blockwright("fs", "cat", f"{device}:1", "/file").stdout == b"on a device"
    before = Path(device).read_bytes()
    done = blockwright("build", tree, "-o", device, code=2)
    assert b"--force" in done.stderr
    assert Path(device).read_bytes() == before
    blockwright("build", tree, "-o", device, "--force", "--size", str(SIZE))
    assert document("inspect", device)["regions"][0]["size"] > SIZE * 0.9
