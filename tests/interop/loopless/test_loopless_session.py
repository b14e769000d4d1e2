"""loopless's README session by our name, and each of its verbs, beside e2fsprogs, gdisk and QEMU."""

import hashlib
import os
import random
import re
import shlex
from pathlib import Path

import pytest

from blockwright import loopless
from blockwright.errors import NotFound, UsageError
from blockwright.units import MiB
from tests.support.command import COMMAND
from tests.support.command import blockwright as in_a_process
from tests.support.inprocess import blockwright
from tests.support.loaders import debian_loaders
from tests.support.qemu import boot_disk
from tests.support.tools import run, tool

OFFSET = "?offset=1048576"


def said(*words, input=None, code=0):  # noqa: A002 - as in support.command
    return blockwright("loopless", *words, input=input, code=code).stdout


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A disk with one partition and an empty ext4, in the present directory."""
    monkeypatch.chdir(tmp_path)
    said("disk.img", "create", "64000000")
    said("disk.img", "create-gpt")
    said("disk.img", "create-part")
    said("disk.img:1", "mkfs", "label")
    return tmp_path / "disk.img"


def clean(path, offset=OFFSET):
    run([tool("e2fsck"), "-fn", f"{path}{offset}"])


SESSION = """
loopless disk.img create 1000000000
loopless disk.img create-gpt
loopless disk.img create-part
loopless disk.img part-info
loopless disk.img:1 mkfs
echo 'SAY Hello World!' | loopless disk.img:1 write /syslinux.cfg 600
loopless disk.img:1 syslinux
loopless disk.img:1 ls
loopless disk.img:1 set-bootable true
loopless disk.img install-mbr
loopless disk.img create-vmdk disk.vmdk
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The session's disk, made by a shell in which a program named loopless is ours; its folder, and what it said."""
    folder = tmp_path_factory.mktemp("session")
    loaders = debian_loaders(folder / "loaders", "extlinux", "gptmbr.bin")
    command = shlex.join([*COMMAND, "loopless", "--loader", str(loaders)])
    script = f'set -e\nloopless() {{ {command} "$@"; }}\n{SESSION}'
    return folder, run([tool("bash"), "-c", script], cwd=folder).stdout


@pytest.fixture
def session(made, monkeypatch):
    monkeypatch.chdir(made[0])
    return made[1]


def test_the_session_of_its_readme(session):
    assert session == "1\t2048\t1949696\tfalse\t\n/ldlinux.c32\n/ldlinux.sys\n/syslinux.cfg\n"
    assert said("disk.img", "part-info") == b"1\t2048\t1949696\ttrue\t\n"
    assert said("disk.img:1", "read", "/syslinux.cfg") == b"SAY Hello World!\n"
    clean("disk.img")
    assert "No problems found" in run([tool("sgdisk"), "-v", "disk.img"]).stdout
    run([tool("qemu-img"), "compare", "-f", "vmdk", "-F", "raw", "disk.vmdk", "disk.img"])
    assert os.stat("disk.img").st_blocks * 512 < 8 * MiB
    flags = run([tool("debugfs"), "-R", "stat /ldlinux.sys", f"disk.img{OFFSET}"]).stdout
    assert "Mode:  0444   Flags: 0x80010" in flags  # extents, and immutable
    before = first_sector("disk.img")
    said("--loader", "loaders", "disk.img:1", "syslinux")  # once more over what is there
    clean("disk.img")
    said("--loader", "loaders", "disk.img", "install-mbr")
    assert first_sector("disk.img") == before


def first_sector(path):
    with open(path, "rb") as file:
        return file.read(512)


@pytest.mark.ci
@pytest.mark.parametrize("image_format", ["raw", "vmdk"])
def test_the_sessions_disk_boots(session, image_format):
    path = "disk.img" if image_format == "raw" else "disk.vmdk"
    console = boot_disk(path, firmware="seabios", expect=b"Hello World!", interface="ide", image_format=image_format)
    assert "SYSLINUX 6" in console or "EXTLINUX" in console


def test_a_loader_that_is_nowhere_is_named_with_its_package(disk, tmp_path):
    (tmp_path / "empty").mkdir()
    for words in (("disk.img:1", "syslinux"), ("disk.img", "install-mbr")):
        assert re.search(b"extlinux|syslinux-common", refused("--loader", "empty", *words, code=5))
    run([tool("mke2fs"), "-q", "-t", "ext4", "-O", "inline_data", tmp_path / "inline.img", "16M"])
    debian_loaders(tmp_path / "loaders", "extlinux")
    text = refused("--loader", "loaders", "inline.img", "syslinux", code=1)
    assert b"inline_data it cannot read files" in text
    run([tool("mkfs.fat"), "-C", tmp_path / "fat.img", "16384"])
    assert b"expected ext2, ext3 or ext4, found fat16" in refused(
        "--loader", "loaders", "fat.img", "syslinux", code=1
    )


def test_a_process_of_its_own_reads_its_standard_input(disk):
    body = random.Random(3).randbytes(20_000_000)
    in_a_process("loopless", "disk.img:1", "write", "/large", "600", input=body)
    found = in_a_process("loopless", "disk.img:1", "read", "/large").stdout
    assert hashlib.sha256(found).digest() == hashlib.sha256(body).digest()
    clean(disk)
    assert re.fullmatch(rb"[0-9]+\.[0-9]+\.[0-9]+.*\n", in_a_process("loopless", "version").stdout)


def test_partitions_are_where_and_as_large_as_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said("disk.img", "create", "100000001")
    assert (tmp_path / "disk.img").stat().st_size == 100000256
    said("disk.img", "create-gpt")
    said("disk.img", "create-part", "3", "4096", "20480", "data")
    said("disk.img", "create-part", "0", "0", "2048")
    said("disk.img", "create-part", "0", "0", "0", "r\u00f6st")
    expected = "1\t24576\t2048\tfalse\t\n2\t26624\t167936\tfalse\tr\u00f6st\n3\t4096\t20480\tfalse\tdata\n"
    assert said("disk.img", "part-info").decode() == expected
    told = run([tool("sgdisk"), "-i", "3", "disk.img"]).stdout
    assert "Partition size: 20480 sectors" in told
    assert "8300" in run([tool("sgdisk"), "-p", "disk.img"]).stdout
    said("disk.img:3", "set-bootable", "true")
    assert "Attribute flags: 0000000000000004" in run([tool("sgdisk"), "-i", "3", "disk.img"]).stdout
    said("disk.img:3", "set-bootable", "false")
    assert "Attribute flags: 0000000000000000" in run([tool("sgdisk"), "-i", "3", "disk.img"]).stdout


def test_directories_get_the_mode_and_the_right_to_search(disk):
    said("disk.img:1", "write", "/a/b/file", "640", input=b"1")
    listing = run([tool("debugfs"), "-R", "ls -l /a", f"{disk}{OFFSET}"]).stdout
    assert re.search(r"40750 .* b\n", listing)
    assert "100640" in run([tool("debugfs"), "-R", "ls -l /a/b", f"{disk}{OFFSET}"]).stdout
    said("disk.img:1", "write", "/a/b/file", "604", input=b"two")
    assert said("disk.img:1", "read", "/a/b/file") == b"two"
    assert re.search(r"40705 .* b\n", run([tool("debugfs"), "-R", "ls -l /a", f"{disk}{OFFSET}"]).stdout)
    clean(disk)


def test_a_file_goes_with_the_directories_that_are_empty_then(disk):
    for path in ("/a/b/c/one", "/a/two", "/three"):
        said("disk.img:1", "write", path, "644", input=b"x")
    said("disk.img:1", "rm", "/a/b/c/one")
    assert said("disk.img:1", "ls") == b"/a/two\n/three\n"
    assert "b" not in re.findall(r"\s(\S+)\n", run([tool("debugfs"), "-R", "ls -l /a", f"{disk}{OFFSET}"]).stdout)
    said("disk.img:1", "rm", "/a/two")
    said("disk.img:1", "rm", "/three")
    assert said("disk.img:1", "ls") == b""
    clean(disk)


def test_a_link_in_the_path_of_what_goes_stays_and_so_does_what_it_leads_to(disk):
    for path in ("/real/sub/one", "/real/sub/below/two", "/other/three"):
        said("disk.img:1", "write", path, "644", input=b"x")
    blockwright("fs", "ln", "-s", "disk.img:1", "real/sub", "/link")
    said("disk.img:1", "rm", "/link/below/two")  # a directory by its own name goes
    assert b"below" not in blockwright("fs", "ls", "disk.img:1", "/real/sub").stdout
    said("disk.img:1", "rm", "/link/one")
    assert blockwright("fs", "ls", "disk.img:1", "/real").stdout == b"sub\n"
    assert blockwright("fs", "ls", "disk.img:1").stdout.split() == [b"link", b"lost+found", b"other", b"real"]
    said("disk.img:1", "rm", "/real/../other/three")
    assert blockwright("fs", "ls", "disk.img:1").stdout.split() == [b"link", b"lost+found", b"real"]
    clean("disk.img")


def test_a_range_of_bytes_is_a_part_and_so_is_the_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said("disk.img", "create", "32000000")
    said("disk.img:1048576,16777216", "mkfs", "ranged")
    said("disk.img:1048576,16777216", "write", "/f", "644", input=b"in a range")
    clean("disk.img")
    assert "ranged" in run([tool("dumpe2fs"), "-h", f"disk.img{OFFSET}"]).stdout
    said("disk.img", "mkfs")
    said("disk.img", "write", "/f", "644", input=b"on the whole")
    assert said("disk.img", "read", "/f") == b"on the whole"
    clean("disk.img", "")


def test_files_on_fat_are_listed_read_written_and_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run([tool("mkfs.fat"), "-C", "fat.img", "16384"])
    said("fat.img", "write", "/Some Folder/A file.txt", "644", input=b"1")
    said("fat.img", "write", "/Some Folder/A file.txt", "600", input=b"two")
    assert said("fat.img", "ls") == b"/Some Folder/A file.txt\n"
    assert said("fat.img", "read", "/some folder/a FILE.txt") == b"two"
    run([tool("fsck.fat"), "-n", "fat.img"])
    said("fat.img", "rm", "/Some Folder/A file.txt")
    assert said("fat.img", "ls") == b""
    run([tool("fsck.fat"), "-n", "fat.img"])


def test_two_images_are_told_apart_by_their_descriptors(disk, tmp_path):
    (tmp_path / "deeper").mkdir()
    said("disk.img", "create-vmdk", "deeper/one.vmdk")
    said("disk.img", "create-vmdk", "two.vmdk")
    texts = [(tmp_path / name).read_text() for name in ("deeper/one.vmdk", "two.vmdk")]
    identities = [re.search("^CID=([0-9a-f]{8})$", text, re.MULTILINE)[1] for text in texts]
    assert identities[0] != identities[1]
    assert 'FLAT "../disk.img" 0' in texts[0]
    run([tool("qemu-img"), "compare", "-f", "vmdk", "-F", "raw", "deeper/one.vmdk", "disk.img"])
    assert b"expected another name than the image's" in refused("disk.img", "create-vmdk", "disk.img")
    assert b"expected a raw image, found vmdk" in refused("two.vmdk", "create-vmdk", "three.vmdk")


def test_what_the_table_for_ruby_names_is_there():
    text = (Path(__file__).parents[3] / "docs" / "loopless.md").read_text()
    called = set(re.findall(r"`loopless\.(\w+)\(", text))
    assert called == set(re.findall(r"`Loopless\.(\w+)", text)) - {"version"}
    assert all(callable(getattr(loopless, name)) for name in called)
    session = text.partition("```\n")[2].partition("```")[0]
    assert session.replace("blockwright loopless", "loopless") == SESSION.lstrip("\n")


def refused(*words, code=2):
    return blockwright("loopless", *words, code=code).stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ((), 2, b"expected FILE[:PART] and a verb, or version"),
        (("disk.img",), 2, b"expected FILE[:PART] and a verb"),
        (("disk.img", "fold"), 2, b"expected one of create"),
        (("disk.img", "create"), 2, b"expected FILE create BYTES, found 0 arguments"),
        (("disk.img", "create-part", "one"), 2, b"PARTNUM: expected a number, found 'one'"),
        (("disk.img", "create-part", "1"), 2, b"partition 1: expected a number that is free"),
        (("disk.img", "create-part", "0", "4096", "2048"), 1, b"expected free room at byte 2097152"),
        (("disk.img:2", "mkfs"), 5, b"partition 2: is not in the table"),
        (("disk.img", "set-bootable", "true"), 2, b"expected the number of a partition behind the name"),
        (("disk.img:1", "set-bootable", "yes"), 2, b"expected true or false, found 'yes'"),
        (("disk.img:1", "write", "/a", "9"), 2, b"mode: expected an octal number, found '9'"),
        (("disk.img:1", "write", "/a", "10000"), 2, b"mode: expected 0 to 7777"),
        (("disk.img:1", "write", "/lost+found", "644"), 2, b"expected a regular file"),
        (("disk.img:1", "read", "/none"), 5, b"/none: no such file or directory"),
        (("disk.img:1", "rm", "/none"), 5, b"/none: no such file or directory"),
        (("disk.img:1", "rm", "/lost+found"), 2, b"expected a file, found a directory"),
        (("disk.img", "ls"), 1, b"expected a file system, found a partitioned disk"),
        (("none.img", "part-info"), 5, b"none.img: no such file"),
        (("none.img", "create-vmdk", "x.vmdk"), 5, b"none.img: no such file"),
    ],
)
def test_what_is_wrong_is_told_and_changes_nothing(disk, words, code, text):
    before = disk.read_bytes()
    assert text in refused(*words, code=code)
    assert disk.read_bytes() == before


def test_the_calls_that_ruby_had(tmp_path):
    image = str(tmp_path / "disk.img")
    loopless.create(image, 64_000_000)
    loopless.create_gpt(image)
    assert loopless.create_part(image, 2, start=4096, size=65536, label="data") == 2
    assert loopless.create_part(image) == 1
    loopless.set_bootable(image, 2)
    assert loopless.part_info(image) == [(1, 69632, 55296, False, ""), (2, 4096, 65536, True, "data")]
    loopless.mkfs(f"{image}:2", "label")
    loopless.write(f"{image}:2", b"/a/b", b"text", 0o600)
    assert loopless.ls(f"{image}:2") == [b"/a/b"]
    assert loopless.read(f"{image}:2", b"/a/b") == b"text"
    loopless.rm(f"{image}:2", b"/a/b")
    assert loopless.ls(f"{image}:2") == []
    with pytest.raises(NotFound):
        loopless.read(f"{image}:2", b"/a/b")
    with pytest.raises(UsageError, match="label"):
        loopless.mkfs(f"{image}:2", "x" * 17)
    loopless.create_vmdk(image, str(tmp_path / "disk.vmdk"))
