"""Overlays of qemu-img and ours: made, rebased and committed by either, and equal to the other's word for it."""

import itertools
import shutil

import pytest

from tests.support.command import blockwright
from tests.support.qcow2 import qemu_check
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged


def qemu(*arguments):
    return run([tool("qemu-img"), *arguments])


def io(image, *commands, form="qcow2"):
    run([tool("qemu-io"), "-f", form, *itertools.chain.from_iterable(("-c", each) for each in commands), image])


@pytest.fixture
def chain(tmp_path):
    """base (raw, 6M) <- mid (10M) <- top, and what top reads as; other is another file for below."""
    qemu("create", "-q", "-f", "raw", tmp_path / "base", "6M")
    io(tmp_path / "base", "write -P 1 0 4M", form="raw")
    blockwright("disk", "create", tmp_path / "mid", "10M", "--backing", "base", "--backing-format", "raw")
    io(tmp_path / "mid", "write -P 7 1M 100k", "write -z 2M 1M", "write -P 9 9M 1k")
    blockwright("disk", "create", tmp_path / "top", "--backing", "mid", "--allow-backing", tmp_path)
    io(tmp_path / "top", "write -P 8 3M 70k", "write -c -P 4 5M 64k", "write -z 9M 64k")
    qemu("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", tmp_path / "other", "7M")
    io(tmp_path / "other", "write -P 1 0 2M", "write -P 3 6M 1M")
    qemu("convert", "-O", "raw", tmp_path / "top", tmp_path / "want")
    return tmp_path


def same(folder, name="top", form="qcow2"):
    qemu("compare", "-f", form, "-F", "raw", folder / name, folder / "want")
    if form == "qcow2":
        qemu_check(folder / name)


def test_made_as_qemu_makes_it(chain):
    info = qemu("info", chain / "mid").stdout
    assert "virtual size: 10 MiB" in info
    assert "backing file: base" in info
    assert "backing file format: raw" in info
    assert "virtual size: 10 MiB" in qemu("info", chain / "top").stdout


@pytest.mark.parametrize("target", ["other", "base", None])
def test_rebased(chain, target):
    where = ["--no-backing"] if target is None else ["--backing", target]
    blockwright("disk", "rebase", chain / "top", *where, "--allow-backing", chain)
    same(chain)
    shutil.copy(chain / "top", chain / "again")
    qemu("rebase", "-f", "qcow2", "-F", "qcow2", "-b", "mid", chain / "again")
    same(chain, "again")
    blockwright("disk", "rebase", chain / "again", "--backing", "other", "--allow-backing", chain)
    same(chain, "again")


def test_renamed_only(chain):
    (chain / "mid").rename(chain / "moved")
    blockwright("disk", "rebase", "-u", chain / "top", "--backing", "moved", "--backing-format", "qcow2")
    same(chain)


def test_committed_step_by_step(chain):
    blockwright("disk", "commit", chain / "top", "--allow-backing", chain)
    same(chain, "mid")
    same(chain)
    assert (chain / "top").stat().st_blocks < 600
    blockwright("disk", "commit", chain / "mid", "--keep", "--allow-backing", chain)
    same(chain, "base", "raw")
    same(chain)


def test_committed_by_qemu_and_gone_on_with(chain):
    qemu("commit", "-q", chain / "top")
    same(chain)
    blockwright("disk", "commit", chain / "mid", "--allow-backing", chain)
    same(chain, "base", "raw")


def test_what_is_refused(chain):
    for arguments, says in (
        (("rebase", chain / "top"), "expected --backing FILE or --no-backing"),
        (("rebase", chain / "top", "--no-backing"), "is not opened unasked"),
        (("rebase", chain / "top", "--backing", "top", "--allow-backing", chain), "its own backing file"),
        (("rebase", chain / "top", "--backing", "gone", "--allow-backing", chain), "expected the name of a file"),
        (("rebase", "-u", chain / "top", "--backing", "gone"), "expected the format"),
        (("commit", chain / "top"), "is not opened unasked"),
        (("create", chain / "new"), "expected one, such as 20G"),
        (("create", chain / "new", "1M", "--backing", "base", "--table", "gpt"), "is for qcow2 images"),
    ):
        done = blockwright("disk", *arguments, code=2) if "unasked" not in says else failing("disk", *arguments)
        assert says in done.stderr.decode()
    same(chain)
    assert not (chain / "new").exists()
    blockwright("disk", "snapshot", "create", chain / "top", "s", "--allow-backing", chain)
    assert (
        "has snapshots"
        in blockwright("disk", "commit", chain / "top", "--allow-backing", chain, code=2).stderr.decode()
    )


def failing(*arguments):
    import subprocess

    from tests.support.command import COMMAND

    return subprocess.run([*COMMAND, *arguments], capture_output=True, check=False)


def test_a_backing_file_whose_format_nobody_states_is_not_written(chain):
    qemu("rebase", "-u", "-f", "qcow2", "-b", "", chain / "mid")
    io(chain / "mid", "write -P 7 1M 100k")
    run([tool("qemu-img"), "create", "-q", "-f", "qcow2", "-o", "compat=1.1", chain / "bare", "1M"])
    from blockwright.device.file import FileDevice
    from blockwright.format.qcow2.open import no_files, open_qcow2

    with open_qcow2(FileDevice(chain / "bare", writable=True), writable=True, below=no_files, data=no_files) as disk:
        disk.put_backing(b"base", None)
    done = blockwright("disk", "commit", chain / "bare", "--allow-backing", chain, code=2)
    assert "does not state the format" in done.stderr.decode()
