"""What changed since a checkpoint, as clients of others see it, and a backup made of it by ours."""

import json
import random

import pytest

from tests.support.command import blockwright
from tests.support.serving import serving
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged
BLOCK = 64 << 10
SIZE = 64 * BLOCK + 12_345


def changed(uri, name):
    """The changed blocks, as nbdinfo reads them from the wire."""
    context = f"blockwright:changed-since:{name}"
    told = json.loads(run([tool("nbdinfo"), "--json", f"--map={context}", uri]).stdout)
    blocks = set()
    position = 0
    for extent in told:
        assert extent["offset"] == position
        position += extent["length"]
        assert extent["type"] in (0, 1)
        if extent["type"]:
            blocks |= set(range(extent["offset"] // BLOCK, -(-position // BLOCK)))
    assert position == SIZE
    return blocks


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(3).randbytes(SIZE))
    return path


def qemu_io(uri, *commands):
    arguments = [each for command in commands for each in ("-c", command)]
    told = run([tool("qemu-io"), "-f", "raw", *arguments, uri]).stdout
    assert "failed" not in told


def test_a_full_and_an_incremental_copy_are_the_disk(image, tmp_path):
    backup, scratch = tmp_path / "backup", tmp_path / "scratch"
    with serving(image, "--from", "raw", "--socket", tmp_path / "sock", "--track", "full", "--track", "unused") as it:
        assert "blockwright:changed-since:full" in run([tool("nbdinfo"), it.uri]).stdout
        assert changed(it.uri, "full") == set()
        blockwright("convert", it.uri, backup)
        assert backup.read_bytes() == image.read_bytes()
        qemu_io(it.uri, "write -P 1 128k 1k", f"write -P 2 {5 * BLOCK - 512} 1k", "flush")
        qemu_io(it.uri, f"write -z {9 * BLOCK} 64k", f"discard {11 * BLOCK} 128k", f"aio_write -P 3 {40 * BLOCK} 3k")
        assert changed(it.uri, "full") == {2, 4, 5, 9, 11, 12, 40}
        assert changed(it.uri, "unused") == {2, 4, 5, 9, 11, 12, 40}
        run([tool("nbdcopy"), it.uri, scratch])
        told = json.loads(blockwright("convert", "--json", "--changed-since", "full", it.uri, backup).stdout)
        assert told["copied"] + told["zeroed"] == 7 * BLOCK
        assert backup.read_bytes() == scratch.read_bytes() == image.read_bytes()


def test_a_checkpoint_in_a_file_goes_on_in_the_next_run(image, tmp_path):
    arguments = (image, "--from", "raw", "--socket", tmp_path / "sock", "--track", f"daily={tmp_path}/daily.map")
    with serving(*arguments) as it:
        qemu_io(it.uri, "write 64k 512", "flush")
    with serving(*arguments) as it:
        assert changed(it.uri, "daily") == {1}
        qemu_io(it.uri, "write 192k 512", "flush")
    with serving(*arguments) as it:
        assert changed(it.uri, "daily") == {1, 3}


def test_after_a_server_that_was_killed_all_has_changed(image, tmp_path):
    arguments = (image, "--from", "raw", "--socket", tmp_path / "sock", "--track", f"daily={tmp_path}/daily.map")
    with serving(*arguments, code=None) as it:
        qemu_io(it.uri, "write 64k 512", "flush")
        it.process.kill()
        it.wait()
    (tmp_path / "sock").unlink(missing_ok=True)
    with serving(*arguments) as it:
        assert changed(it.uri, "daily") == set(range(65))


def test_an_overlay_has_no_checkpoint_in_a_file(image, tmp_path):
    done = blockwright(
        "serve", image, "--overlay", "--socket", tmp_path / "sock", "--track", f"a={tmp_path}/map", code=2
    )
    assert "an overlay's writes end with the server" in done.stderr.decode()
    assert not (tmp_path / "map").exists()


def test_a_checkpoint_that_is_not_there_is_named(image, tmp_path):
    with serving(image, "--from", "raw", "--socket", tmp_path / "sock") as it:
        done = blockwright("convert", "--changed-since", "full", it.uri, tmp_path / "backup", code=2)
        assert "blockwright:changed-since:full" in done.stderr.decode()
