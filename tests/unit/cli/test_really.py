"""``--yes-really`` names a disk, so what is written has to be one."""

import pytest

from tests.support.inprocess import blockwright


@pytest.mark.parametrize("command", ["convert", "build"])
def test_a_name_where_no_disk_is_written(tmp_path, command):
    source, output = tmp_path / "source", tmp_path / "out.img"
    if command == "convert":
        source.write_bytes(bytes(4096))
        told = blockwright("convert", source, output, "--yes-really", "Ultra Fit", code=2)
    else:
        source.mkdir()
        told = blockwright("build", source, "-o", output, "--yes-really", "Ultra Fit", code=2)
    assert b"--yes-really: expected a disk to write over" in told.stderr
    assert not output.exists()
