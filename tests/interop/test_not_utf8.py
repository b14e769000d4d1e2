"""Arguments that are no UTF-8: kept as bytes where bytes are kept, else refused in one line, never a traceback."""

import os
from pathlib import Path

import pytest

from tests.support.command import blockwright, document
from tests.support.e2fs import mke2fs
from tests.support.loaders import debian_loaders
from tests.support.tools import run, tool

RAW = b"x\xff"
NAME = os.fsdecode(RAW)


def label_of(image: Path) -> bytes:
    with image.open("rb") as file:
        file.seek(1024 + 0x78)
        return file.read(16).rstrip(b"\0")


def test_a_label_of_ext4_is_bytes(tmp_path: Path) -> None:
    image = tmp_path / "image"
    blockwright("fs", "mkfs", image, "--size", "16M", "--label", NAME)
    run([tool("e2fsck"), "-fn", image])
    assert label_of(image) == RAW
    blockwright("fs", "label", image, "other")
    assert label_of(image) == b"other"
    blockwright("fs", "label", image, NAME * 8)
    assert label_of(image) == RAW * 8
    for command in (["label", image, NAME * 8 + "x"], ["mkfs", image, "--force", "--label", NAME * 8 + "x"]):
        assert b"ext4 label" in blockwright("fs", *command, code=2).stderr
    assert label_of(image) == RAW * 8
    blockwright("loopless", image, "mkfs", NAME)
    assert label_of(image) == RAW
    run([tool("e2fsck"), "-fn", image])


@pytest.mark.parametrize("kind", ["ext4", "fat"])
def test_a_seed_is_bytes(tmp_path: Path, kind: str) -> None:
    found = []
    for number, seed in enumerate((NAME, NAME, os.fsdecode(b"x\xfe"))):
        options = ["--type", kind, "--size", "16M", "--seed", seed]
        found.append(document("fs", "mkfs", tmp_path / str(number), *options)["uuid"])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("suffix", ["vhd", "vhdx", "vdi", "qcow2", "vmdk"])
def test_the_name_of_an_image(tmp_path: Path, suffix: str) -> None:
    disk, image = tmp_path / "disk", Path(tmp_path, f"{NAME}.{suffix}")
    disk.write_bytes(b"content of the disk".ljust(1 << 20))
    blockwright("convert", disk, image)
    blockwright("compare", disk, image)


@pytest.mark.parametrize("table", ["gpt", "mbr"])
def test_what_must_be_text_is_refused(tmp_path: Path, table: str) -> None:
    image = tmp_path / "image"
    blockwright("disk", "create", image, "16M", "--table", table)
    blockwright("disk", "add", image, "--size", "1M")
    before = image.read_bytes()
    for command in (["add", image, "--size", "1M", "--name", NAME], ["set", image, "1", "--name", NAME]):
        words = b"UTF-8" if table == "gpt" else b"no place for its name"
        assert words in blockwright("disk", *command, code=2).stderr
    done = blockwright("loopless", image, "create-part", "2", "0", "0", NAME, code=2)
    assert (b"UTF-8" if table == "gpt" else b"expected a GPT") in done.stderr
    assert image.read_bytes() == before


def test_a_built_partitions_name_is_text(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    options = ["-o", tmp_path / "disk", "--partition", f"mount=/,name={NAME}"]
    assert b"name: expected text" in blockwright("build", tmp_path / "tree", *options, code=2).stderr
    assert not (tmp_path / "disk").exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("--directory", NAME, b"directory: "), ("--cmdline", f"root=/dev/sda {NAME}", b"kernel command line: ")],
)
def test_what_loaders_are_told_is_text(tmp_path: Path, option: str, value: str, words: bytes) -> None:
    image = mke2fs(tmp_path / "image", "16M", "-t", "ext4", "-O", "^64bit")
    kernel = tmp_path / "kernel"
    head = bytearray(4096)
    head[0x1FE:0x200], head[0x202:0x206] = b"\x55\xaa", b"HdrS"
    kernel.write_bytes(head)
    before = image.read_bytes()
    options = ["--kernel", kernel, "--loader-dir", debian_loaders(tmp_path / "loaders"), option, value]
    done = blockwright("boot", "install", image, "syslinux", *options, code=2)
    assert words + b"expected text in UTF-8" in done.stderr
    assert image.read_bytes() == before
