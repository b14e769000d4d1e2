"""The snapshots of an image as disks: each command reads them, as qemu-img convert -l does, and none changes them."""

import os
import random

import pytest

from blockwright.errors import NotAllowed, NotFound, ReadOnly, UsageError
from blockwright.format.policy import Policy
from blockwright.nbd.wire import TransmissionFlag
from blockwright.resolve import open_device
from blockwright.units import KiB, MiB
from tests.support.command import blockwright, document
from tests.support.serving import serving
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged
SIZE = 2 * MiB


def qemu_io(path, *commands):
    run([tool("qemu-io"), "-f", "qcow2", *(part for each in commands for part in ("-c", each)), path])


def qemu(*arguments):
    return run([tool("qemu-img"), *arguments])


@pytest.fixture
def image(tmp_path):
    """An image with two snapshots, of other sizes than it has, over a raw file of noise."""
    (tmp_path / "base").write_bytes(random.Random(4).randbytes(SIZE))
    path = tmp_path / "disk.qcow2"
    qemu("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", path)
    qemu_io(path, "write -P 1 0 300k", "write -z 1M 100k")
    qemu("snapshot", "-c", "before: 1", path)
    qemu("resize", "-q", path, "3M")
    qemu_io(path, "write -P 2 200k 300k", "write -P 3 2500k 10k")
    qemu("snapshot", "-c", "between", path)
    qemu_io(path, "write -P 4 0 3M")
    return path


@pytest.mark.parametrize(("name", "size"), [("before: 1", SIZE), ("between", 3 * MiB), ("2", 3 * MiB)])
def test_each_reads_as_qemu_img_reads_it(image, tmp_path, name, size):
    expected = tmp_path / "expected"
    by = f"snapshot.id={name}" if name == "2" else f"snapshot.name={name}"
    qemu("convert", "-l", by, "-O", "raw", image, expected)
    os.truncate(expected, size)  # qemu-img reads on to the size of now; to apply it brings back that of then
    text = f"{image}#snapshot={name}"
    allow = ("--allow-backing", tmp_path)
    blockwright("convert", text, tmp_path / "found", *allow)
    assert (tmp_path / "found").read_bytes() == expected.read_bytes()
    assert document("compare", text, expected, "--strict", *allow)["equal"]
    policy = Policy((str(tmp_path),))
    with open_device(text, policy=policy) as then, open_device(str(image), policy=policy) as now:
        assert then.read(0, 512) != now.read(0, 512)
    assert document("inspect", text, *allow)["size"] == expected.stat().st_size
    blockwright("convert", f"{image}:512,1024#snapshot={name}", tmp_path / "part", *allow)
    assert (tmp_path / "part").read_bytes() == expected.read_bytes()[512:1536]
    with serving(text, *allow, "--socket", tmp_path / "sock") as server:
        blockwright("convert", server.uri, tmp_path / "served")
        assert document("nbd", "info", server.uri)["flags"] & TransmissionFlag.READ_ONLY
    assert (tmp_path / "served").read_bytes() == expected.read_bytes()


def test_what_it_stands_on_is_opened_by_policy(image, tmp_path):
    with pytest.raises(NotAllowed, match="base"):
        open_device(f"{image}#snapshot=between")
    with open_device(f"{image}#snapshot=between", policy=Policy((str(tmp_path),))) as disk:
        assert disk.read(250 * KiB, 1) == b"\2"


def test_nothing_changes_them(image, tmp_path):
    before = image.read_bytes()
    text = f"{image}#snapshot=between"
    (tmp_path / "data").write_bytes(b"data")
    for command in (
        ("convert", tmp_path / "data", text, "--force"),
        ("convert", tmp_path / "data", tmp_path / "new.qcow2#snapshot=x"),
        ("disk", "size", text, "4M"),
        ("disk", "table", text, "gpt"),
        ("disk", "snapshot", "create", text, "more"),
        ("fs", "mkfs", text),
        ("fs", "rm", text, "/x"),
        ("check", "--repair", text),
        ("boot", "install", text, "syslinux"),
    ):
        said = blockwright(*command, code=2).stderr
        assert b"a snapshot is read only" in said, (command, said)
    assert image.read_bytes() == before
    assert not (tmp_path / "new.qcow2#snapshot=x").exists()
    with pytest.raises(ReadOnly):
        open_device(text, writable=True)


def test_what_has_none(image, tmp_path):
    policy = Policy((str(tmp_path),))
    with pytest.raises(NotFound, match="snapshot 'gone': expected one of 'before: 1', 'between'"):
        open_device(f"{image}#snapshot=gone", policy=policy)
    for name, form in (("base", "raw"), ("disk.vmdk", "vmdk")):
        if form != "raw":
            qemu("create", "-q", "-f", form, tmp_path / name, "1M")
        with pytest.raises(UsageError, match=f"expected an image of the format qcow2, found {form}"):
            open_device(f"{tmp_path / name}#snapshot=a")
    with pytest.raises(UsageError, match="size '1M#snapshot=a': expected a number"):
        open_device("mem:1M#snapshot=a")


def test_files_in_one(tmp_path):
    """A partition's file system as it was, by check, fs and extract."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/note").write_text("first\n")
    disk = tmp_path / "disk.qcow2"
    blockwright("build", tmp_path / "tree", "-o", disk)
    blockwright("disk", "snapshot", "create", disk, "first")
    blockwright("fs", "rm", f"{disk}:1", "/note")
    assert blockwright("fs", "cat", f"{disk}:1#snapshot=first", "/note").stdout == b"first\n"
    assert blockwright("fs", "cat", f"{disk}#snapshot=first", "/note", "--partition", "1").stdout == b"first\n"
    blockwright("fs", "cat", f"{disk}:1", "/note", code=5)
    names = [each["name"] for each in document("check", f"{disk}#snapshot=first")["places"]]
    assert names == [str(disk), f"{disk}#snapshot=first", f"{disk}:1#snapshot=first"]
    blockwright("extract", f"{disk}:1#snapshot=first", tmp_path / "out")
    assert (tmp_path / "out/note").read_text() == "first\n"
