"""What the README tells people to run, on this machine."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.tools import package_file, tool

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ci, pytest.mark.unprivileged]


@pytest.fixture
def run_script(tmp_path):
    """`run_script(*arguments)` is what scripts/run printed, in a build directory of its own."""
    if not os.access(ROOT / ".venv" / "bin" / "python", os.X_OK):
        pytest.skip("the checkout has no .venv")
    tool("qemu-system-x86_64")
    package_file("/usr/share/ovmf/OVMF.fd", package="ovmf")

    def run(*arguments: str | os.PathLike[str], returns: int = 0) -> str:
        done = subprocess.run(
            [ROOT / "scripts" / "run", *arguments],
            env={**os.environ, "BLOCKWRIGHT_BUILD": str(tmp_path / "build")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=280,
            check=False,
        )
        output = done.stdout.decode("utf-8", "replace")
        assert done.returncode == returns, output
        return output

    return run


def test_run_builds_a_disk_that_says_hello(run_script):
    output = run_script()
    assert re.search(
        r"^hello from blockwright: Linux \S+-cloud-amd64 x86_64, root on \S+ ext4$", output, re.MULTILINE
    )


def test_run_boots_the_user_s_own_tree(run_script, tmp_path):
    run_script()
    tree = tmp_path / "build" / "tree"
    (tree / "sbin" / "init").write_text("#!/bin/sh\nmount -t devtmpfs dev /dev\necho my own init\npoweroff -f\n")
    archive = tmp_path / "own.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tree, "."], check=True)
    assert "my own init" in run_script(archive)


def test_run_says_what_does_not_boot(run_script, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "not syncing: No working init found" in run_script(tmp_path / "empty", returns=1)


def test_run_stops_where_nothing_is_built(run_script, tmp_path):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "disk.img").write_bytes(b"of an earlier run")
    (tmp_path / "junk").write_bytes(b"junk")
    output = run_script(tmp_path / "junk", returns=1)
    assert "junk: expected a directory or a tar archive" in output
    assert "inspect" not in output
