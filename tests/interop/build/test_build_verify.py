"""`check --against` and `build --verify`: what was made is what it was made from, and each change is named."""

import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from blockwright.fs.editor import Attributes
from blockwright.resolve import open_device, open_editor
from blockwright.tree.content import BytesContent
from blockwright.tree.node import File
from tests.support.inprocess import blockwright, document
from tests.support.tools import run, tool

pytestmark = pytest.mark.unprivileged


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (root / "big").write_bytes(random.Random(1).randbytes(3 << 20))
    os.link(root / "big", root / "same")
    (root / "link").symlink_to("etc/hosts")
    with open(root / "sparse", "wb") as file:
        file.truncate(20 << 20)
        file.seek(9 << 20)
        file.write(b"in the middle")
    os.utime(root / "etc" / "hosts", ns=(1, 1_500_000_000_123_456_789))
    return root


def packed(source: Path, name: str) -> Path:
    archive = source.parent / name
    with tarfile.open(archive, "w:gz" if name.endswith("gz") else "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(source, ".")
    return archive


@pytest.mark.parametrize("form", ["disk.img", "disk.qcow2"])
@pytest.mark.parametrize("archive", ["", "source.tar", "source.tar.gz"])
def test_a_disk_is_what_it_was_made_from(source: Path, archive: str, form: str) -> None:
    given = packed(source, archive) if archive else source
    image = source.parent / form
    blockwright("build", given, "-o", image, "--verify")
    told = document("check", image, "--against", given)
    assert told["same"]
    assert told["added"] == ["/lost+found"]
    assert told["names"] == 7
    assert blockwright("build", given, "-o", image, "--verify-only").stdout.startswith(os.fsencode(image))


def edit(image: Path, change) -> None:
    with open_editor(open_device(str(image), writable=True, partition=1), source="disk") as editor:
        change(editor)


CHANGES = {
    "content": (
        lambda editor: editor.write(b"/etc/hosts", BytesContent(b"127.0.0.1 localhosT\n")),
        "/etc/hosts",
        "content",
    ),
    "size": (lambda editor: editor.write(b"/etc/hosts", BytesContent(b"short")), "/etc/hosts", "size"),
    "permissions": (
        lambda editor: editor.set_attributes(b"/etc/hosts", Attributes(permissions=0o600)),
        "/etc/hosts",
        "permissions",
    ),
    "uid": (lambda editor: editor.set_attributes(b"/etc/hosts", Attributes(uid=77)), "/etc/hosts", "uid"),
    "gone": (lambda editor: editor.rm(b"/etc/hosts"), "/etc/hosts", "missing"),
    "more": (lambda editor: editor.put(b"/etc/more", File()), "/etc/more", "missing"),
}


@pytest.mark.parametrize(
    ("name", "archive"), [*((name, "") for name in CHANGES), ("content", "source.tar.gz"), ("size", "source.tar.gz")]
)
def test_each_change_of_an_image_is_named(source: Path, name: str, archive: str) -> None:
    given = packed(source, archive) if archive else source
    image = source.parent / "disk.img"
    blockwright("build", given, "-o", image, "--free", "50%")
    change, path, aspect = CHANGES[name]
    edit(image, change)
    told = document("check", image, "--against", given, "--ignore", "mtime_ns", code=3)
    assert [(each["path"], each["aspect"]) for each in told["differences"]] == [(path, aspect)]
    if name == "content":
        assert told["differences"][0]["offset"] == 18
        assert told["differences"][0]["expected"] == b"t\n".hex()
    if name == "more":
        assert document("check", image, "--against", given, "--ignore", "mtime_ns", "--added", path)["same"]
    lines = blockwright("check", image, "--against", given, "--ignore", "mtime_ns", code=3).stdout.decode()
    assert f"{path}: " in lines
    assert "1 difference from" in lines


def test_what_passes_once_is_compared_and_not_located(source: Path) -> None:
    archive = packed(source, "source.tar.gz")
    image = source.parent / "disk.img"
    blockwright("build", archive, "-o", image, "--free", "50%")
    edit(image, CHANGES["content"][0])
    from tests.support.command import blockwright as command

    done = command("check", image, "--against", "-", "--ignore", "mtime_ns", code=3, input=archive.read_bytes())
    assert b"/etc/hosts: content: differs, in a source that cannot be read twice" in done.stdout
    command("build", "-", "-o", source.parent / "two.img", "--verify", code=2, input=archive.read_bytes())
    assert not (source.parent / "two.img").exists()


def test_a_peer_is_held_to_the_same(source: Path) -> None:
    """mke2fs -d copies what is in a directory, but for fractions of seconds; debugfs then changes a group."""
    image = source.parent / "theirs.ext4"
    root = f"root_owner={source.stat().st_uid}:{source.stat().st_gid}"
    run([tool("mke2fs"), "-q", "-t", "ext4", "-E", root, "-d", source, image, "40M"])
    assert {each["aspect"] for each in document("check", image, "--against", source, code=3)["differences"]} == {
        "mtime_ns"
    }
    assert document("check", image, "--against", source, "--ignore", "mtime_ns")["same"]
    run([tool("debugfs"), "-w", "-R", "set_inode_field /etc/hosts gid 4711", image])
    told = document("check", image, "--against", source, "--ignore", "mtime_ns", code=3)
    assert [(each["path"], each["aspect"], each["found"]) for each in told["differences"]] == [
        ("/etc/hosts", "gid", 4711)
    ]


def test_fat_is_held_to_what_fat_can_hold(tmp_path: Path) -> None:
    source = tmp_path / "files"
    (source / "a long directory").mkdir(parents=True)
    (source / "a long directory" / "File.Txt").write_bytes(b"text")
    (source / "read only").write_bytes(b"")
    (source / "read only").chmod(0o444)
    os.link(source / "read only", source / "again")
    image = tmp_path / "fat.img"
    blockwright("fs", "mkfs", image, "--type", "fat", "--source", source)
    assert document("check", image, "--against", source)["same"]
    (source / "a long directory" / "File.Txt").write_bytes(b"Text")
    told = document("check", image, "--against", source, "--ignore", "mtime_ns", code=3)
    assert [(each["path"], each["aspect"], each["offset"]) for each in told["differences"]] == [
        ("/a long directory/File.Txt", "content", 0)
    ]


def test_a_link_of_an_archive_is_the_same_where_it_was_extracted(tmp_path: Path) -> None:
    """An archive may give a symbolic link any permissions, a host gives it 0777."""
    archive, image = tmp_path / "x.tar", tmp_path / "x.img"
    with tarfile.open(archive, "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname, link.mode = tarfile.SYMTYPE, "target", 0o644
        tar.addfile(link)
    blockwright("extract", archive, tmp_path / "x", "--owner", "me")
    blockwright("build", archive, "-o", image)
    for source in (tmp_path / "x", archive):
        blockwright("check", image, "--against", source, "--ignore", "uid", "--ignore", "gid", "--ignore", "mtime_ns")


def test_times_are_held_to_the_epoch(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = source.parent / "disk.img"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    blockwright("build", source, "-o", image)
    assert document("check", image, "--against", source)["same"]
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    told = document("check", image, "--against", source, code=3)
    assert {each["aspect"] for each in told["differences"]} == {"mtime_ns"}


def test_the_part_of_a_disk_must_be_clear(source: Path) -> None:
    image = source.parent / "two.img"
    run(["truncate", "-s", "64M", image])
    subprocess.run([tool("sfdisk"), "-q", image], input=b"label: gpt\n,20M\n,20M\n", check=True)
    for number in "12":
        blockwright("fs", "mkfs", f"{image}:{number}")
    done = blockwright("check", image, "--against", source, code=2)
    assert b"two.img:1 (ext4)" in done.stderr
    blockwright("check", f"{image}:2", "--against", source, code=3)
    blockwright("check", image, "--partition", "1", "--against", source, code=3)
    blockwright("check", image, "--ignore", "uid", code=2)
    blockwright("check", image, "--against", source, "--partition", "1", "--ignore", "colour", code=2)


PLACES = {
    "boot code or partition table": lambda image: 440,
    "partition table": lambda image: 1030,
    "root (partition 1): superblock": lambda image: (1 << 20) + 1100,
    "root (partition 1): /big, byte 5": lambda image: image.read_bytes().index(BIG) + 5,
    "root (partition 1): a directory": lambda image: image.read_bytes().index(b"\x05\x01hosts") + 2,
}
BIG = bytes(range(1, 201)) * 5


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("archive", "options"), [("", []), ("", ["--verity"]), ("source.tar.gz", ["--verity"])])
def test_the_first_byte_that_differs_is_placed(source: Path, place: str, archive: str, options: list[str]) -> None:
    (source / "big").write_bytes(BIG * 20)
    (source / "bin").mkdir()
    shutil.copy("/bin/true", source / "bin" / "sh")  # tells the machine, which a verity partition names
    given = packed(source, archive) if archive else source
    image = source.parent / "disk.img"
    blockwright("build", given, "-o", image, *options)
    at = PLACES[place](image)
    with open(image, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x40]))
    told = document("build", given, "-o", image, *options, "--verify-only", code=3)
    assert told["first_difference"] == at
    assert told["where"].startswith(place), told


def test_a_write_that_is_lost_is_seen(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blockwright.device.descriptor import HostDevice

    image = source.parent / "disk.img"
    real = HostDevice._write

    def lost(self, offset, buffers, *, durable):
        if offset < 1 << 20:
            real(self, offset, buffers, durable=durable)

    monkeypatch.setattr(HostDevice, "_write", lost)
    done = blockwright("build", packed(source, "source.tar.gz"), "-o", image, "--verify", code=3)
    assert b"differs from" in done.stdout


def test_what_cannot_be_verified_is_refused_before_it_is_made(source: Path) -> None:
    image = source.parent / "disk.img"
    blockwright("build", source, "-o", image, "--seed", "random", "--verify", code=2)
    blockwright("build", source, "-o", image, "--dry-run", "--verify", code=2)
    blockwright("build", source, "-o", image, "--verify-only", code=5)
    assert not image.exists()


@pytest.mark.parametrize("archive", ["", "source.tar.gz"])
def test_what_a_build_changes_of_its_source_is_said_the_same_way(source: Path, archive: str) -> None:
    given, image = packed(source, archive) if archive else source, source.parent / "disk.img"
    changes = ["--exclude", "big", "--owner", "7:8"]
    blockwright("build", given, "-o", image, *changes, "--verify")
    assert document("check", image, "--against", given, *changes)["same"]
    told = document("check", image, "--against", given, "--exclude", "big", code=3)
    assert {each["aspect"] for each in told["differences"]} == {"uid", "gid"}
    blockwright("check", image, *changes, code=2)
