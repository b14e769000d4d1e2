"""Disks that get so many bytes more than they have."""

from pathlib import Path

import pytest

from tests.support.command import blockwright, document

pytestmark = pytest.mark.unprivileged


def test_a_size_with_plus_is_more(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    blockwright("disk", "create", disk, "4M", "--table", "gpt")
    blockwright("disk", "size", disk, "+1M")
    assert document("inspect", disk)["size"] == 5 << 20
    blockwright("disk", "resize", disk, "+3M")
    assert document("inspect", disk)["size"] == 8 << 20
    done = blockwright("disk", "size", disk, "+", code=2)
    assert done.stderr == b"blockwright: size '': expected a number with an optional unit such as 64k, 4G or 34s\n"
