"""``blockwright disk``: what each command prints, leaves and refuses."""

import os
import subprocess
import sys
import time

import pytest

from blockwright.table.mbr.names import TYPES, parse_type, type_name
from blockwright.units import MiB
from tests.support.command import files_in
from tests.support.inprocess import blockwright, document
from tests.support.tools import run, tool


@pytest.fixture
def gpt(tmp_path):
    return made(tmp_path, "gpt")


@pytest.fixture
def mbr(tmp_path):
    return made(tmp_path, "mbr")


def made(folder, kind):
    path = folder / f"{kind}.img"
    done = blockwright("disk", "create", path, "64M", "--table", kind, "--seed", kind)
    assert done.stdout.decode() == f"{path}\n"
    return path


def refused(path, *arguments, code=2):
    """Run a command that must fail; the image must stay as it was. Returns what was said."""
    before = path.read_bytes()
    text = blockwright("disk", *arguments, code=code).stderr.decode()
    assert path.read_bytes() == before
    return text


def numbers(path):
    return [each["number"] for each in document("disk", "table", path)["partitions"]]


def test_an_image_is_made_sparse_and_of_whole_sectors(tmp_path):
    path = tmp_path / "disk.img"
    blockwright("disk", "create", path, "1000001")
    assert path.stat().st_size == 1000448
    assert path.stat().st_blocks == 0
    assert "exists already; --force replaces it" in refused(path, "create", path, "1M")
    blockwright("disk", "create", path, "3G", "--table", "gpt", "--sector-size", "4096", "--force")
    found = document("disk", "table", path)
    assert (found["kind"], found["sector_size"], found["size"]) == ("gpt", 4096, 3 << 30)
    assert path.stat().st_blocks * 512 < MiB
    blockwright("disk", "create", tmp_path / "small.img", "8k", "--table", "gpt", code=1)
    assert files_in(tmp_path) == ["disk.img"]


@pytest.mark.parametrize("name", [["disk.qcow2"], ["disk.img", "--format", "qcow2"]])
def test_an_image_of_another_format_is_made_and_changed_alike(tmp_path, name):
    path = tmp_path / name[0]
    blockwright("disk", "create", path, "64M", "--table", "gpt", *name[1:])
    blockwright("disk", "add", path, "--size", "8M")
    blockwright("loopless", f"{path}:1", "mkfs")
    blockwright("disk", "resize", path, "96M")
    assert document("disk", "table", path)["partitions"][0]["size"] == 94 * MiB
    found = blockwright("check", path).stdout.decode()
    assert found.count("clean") == 3
    assert "No errors were found" in run([tool("qemu-img"), "check", path]).stdout
    run([tool("qemu-img"), "convert", "-O", "raw", path, tmp_path / "raw"])
    assert "No problems found" in run([tool("sgdisk"), "-v", tmp_path / "raw"]).stdout


def test_a_raw_disk_stays_one_where_that_is_said(tmp_path, gpt):
    blockwright("disk", "boot-code", gpt, "--file", fake(tmp_path))
    before = gpt.read_bytes()
    blockwright("disk", "add", gpt, code=1)  # a guest could have written this mark
    assert gpt.read_bytes() == before
    assert blockwright("disk", "add", gpt, "--from", "raw").stdout
    assert document("disk", "table", gpt, "--from", "raw")["partitions"]


def fake(folder):
    """Boot code that begins as a qcow2 image does."""
    path = folder / "fake.bin"
    path.write_bytes(b"QFI\xfb" + bytes(100))
    return path


def test_the_same_seed_gives_the_same_disk_and_none_another(tmp_path):
    made_disks = []
    for number, seed in enumerate([["--seed", "x"], ["--seed", "x"], [], []]):
        path = tmp_path / f"{number}.img"
        blockwright("disk", "create", path, "4M", "--table", "gpt", *seed)
        blockwright("disk", "add", path, *seed)
        made_disks.append(path.read_bytes())
    assert made_disks[0] == made_disks[1]
    assert len(set(made_disks)) == 3


def test_partitions_are_added_changed_and_removed(gpt):
    assert blockwright("disk", "add", gpt, "--size", "8M", "--type", "esp").stdout.decode() == f"{gpt}:1\n"
    told = document("disk", "add", gpt, "--name", "rööt", "--bootable", "--attributes", "growfs,no-auto")
    assert (told["address"], told["start"], told["name"]) == (f"{gpt}:2", 9 * MiB, "rööt")
    assert told["size"] == 54 * MiB
    assert told["attributes"] == ["legacy-boot", "growfs", "no-auto"]
    guid = "11111111-2222-4333-8444-555555555555"
    blockwright("disk", "set", f"{gpt}:2", "--size", "20M", "--type", "root-x86-64", "--guid", guid)
    blockwright("disk", "set", gpt, "1", "--bootable", "on", "--disk-guid", guid.replace("1", "a"))
    first, second = document("disk", "table", gpt)["partitions"]
    assert first["attributes"] == ["legacy-boot"]
    assert (second["attributes"], second["type"], second["guid"]) == (["growfs", "no-auto"], "root-x86-64", guid)
    assert second["size"] == 20 * MiB
    assert document("disk", "table", gpt)["guid"] == guid.replace("1", "a")
    blockwright("disk", "set", gpt, "1", "--bootable", "off", "--attributes", "")
    blockwright("disk", "set", gpt, "2", "--size", "rest")
    assert document("disk", "table", gpt)["partitions"][1]["size"] == 55 * MiB - 33 * 512
    blockwright("disk", "rm", f"{gpt}:1")
    assert numbers(gpt) == [2]
    blockwright("disk", "add", gpt, "--number", "7", "--size", "1M", "--start", "2M", "--align", "4k")
    assert numbers(gpt) == [2, 7]
    text = blockwright("disk", "table", gpt).stdout.decode()
    assert "free" in text
    assert "growfs,no-auto" in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--start", "1M", "--size", "1M"], 1, "expected free room at byte 1048576"),
        (["--size", "60M"], 1, "expected 62914560 free bytes in one piece, found 33537536"),
        (["--size", "1000"], 2, "partition size: expected a multiple of 512 bytes, found 1000"),
        (["--start", "40000001"], 2, "partition start: expected a multiple of 512"),
        (["--start", "63M", "--size", "2M"], 1, "expected 2097152 free bytes from byte 66060288 on, found 1031680"),
        (["--start", "70M"], 1, "expected free room at byte 73400320"),
        (["--number", "1"], 2, "partition 1: expected a number that is free, found it taken"),
        (["--number", "200"], 2, "partition 200: expected a number from 1 to 128"),
        (["--type", "0x83"], 2, "partition type '0x83': expected a UUID or one of"),
        (["--name", "x" * 37], 2, "expected at most 36 UTF-16 units"),
        (["--attributes", "sticky"], 2, "attribute 'sticky': expected bit-0 to bit-63"),
        (["--guid", "nonsense"], 2, "GUID: expected a UUID, found 'nonsense'"),
        (["--logical"], 2, "a GPT has no logical ones"),
        (["--align", "1000"], 2, "alignment: expected a multiple of the sector size 512"),
    ],
)
def test_what_cannot_be_added_changes_nothing(gpt, arguments, code, said):
    blockwright("disk", "add", gpt, "--size", "31M")
    assert said in refused(gpt, "add", gpt, *arguments, code=code)


def test_what_else_is_refused(gpt, mbr, tmp_path):
    blockwright("disk", "add", gpt, "--size", "8M")
    blockwright("disk", "add", gpt, "--size", "8M")
    assert "expected room for 9437184 bytes, found 8388608" in refused(gpt, "set", gpt, "1", "--size", "9M", code=1)
    assert "expected something to change" in refused(gpt, "set", gpt, "1")
    assert "expected the number of a partition" in refused(gpt, "set", gpt, "--name", "x")
    assert "partition 3: is not in the table; those that are: 1, 2" in refused(gpt, "rm", gpt, "3", code=5)
    assert "named once" in refused(gpt, "rm", f"{gpt}:1", "1")
    assert "expected a whole disk, found a part" in refused(gpt, "table", f"{gpt}:1")
    assert "holds gpt already; --force overwrites it" in refused(gpt, "table", gpt, "mbr")
    assert "a GPT has no signature" in refused(gpt, "set", gpt, "--signature", "1")
    assert "an MBR has no GUID" in refused(mbr, "set", mbr, "--disk-guid", "1" * 32)
    assert "an MBR has no place for its name" in refused(mbr, "add", mbr, "--name", "x")
    assert "an MBR has no backup" in refused(mbr, "move-backup", mbr)
    assert "expected --file or --clear" in refused(mbr, "boot-code", mbr)
    blank = tmp_path / "blank.img"
    blank.write_bytes(bytes(MiB))
    assert "found none: 'disk table IMAGE gpt' makes one" in refused(blank, "add", blank, code=1)


def test_a_file_system_is_no_table(tmp_path):
    for name, command in (("ext4", ["mke2fs", "-q", "-t", "ext4"]), ("fat", ["mkfs.fat"])):
        path = tmp_path / name
        path.write_bytes(bytes(8 * MiB))
        run([tool(command[0]), *command[1:], path])
        assert f"expected a partition table, found the file system {name}" in refused(path, "add", path, code=1)
        assert f"holds {name} already" in refused(path, "table", path, "mbr")
        blockwright("disk", "table", path, "mbr", "--force")


def test_what_is_not_known_is_no_blank_disk(tmp_path):
    path = tmp_path / "disk"
    for offset in (0, 4 * MiB - 512):
        path.write_bytes(bytes(offset) + b"something else".ljust(4 * MiB - offset, b"\0"))
        assert "holds data already; --force overwrites it" in refused(path, "table", path, "gpt")
    blockwright("disk", "table", path, "gpt", "--force")


def test_a_disk_that_was_cut_short_still_has_its_table(mbr):
    blockwright("disk", "add", mbr, "--size", "10M")
    blockwright("disk", "add", mbr, "--size", "20M")
    with mbr.open("r+b") as file:
        file.truncate(11 * MiB)
    assert "holds mbr already" in refused(mbr, "table", mbr, "gpt")
    assert "partition 2: expected to lie in sectors 1 to" in refused(mbr, "add", mbr, code=1)


def test_primary_and_logical_partitions(mbr):
    for size in ("4M", "4M", "4M"):
        blockwright("disk", "add", mbr, "--size", size, "--type", "fat32-lba")
    blockwright("disk", "add", mbr, "--type", "extended-lba", "--size", "30M")
    assert blockwright("disk", "add", mbr, "--size", "5M").stdout.decode() == f"{mbr}:5\n"
    blockwright("disk", "add", mbr, "--size", "6M", "--logical", "--type", "swap")
    blockwright("disk", "set", mbr, "2", "--bootable", "on")
    blockwright("disk", "set", mbr, "3", "--bootable", "on", "--type", "0x83")
    found = document("disk", "table", mbr)
    assert [each["number"] for each in found["partitions"]] == [1, 2, 3, 5, 6]
    assert [each["active"] for each in found["partitions"]] == [False, False, True, False, False]
    assert found["extended"] == [{"number": 4, "start": 13 * MiB, "size": 30 * MiB, "os_type": 15}]
    assert "holds the logical partitions 5, 6: remove those first" in refused(mbr, "rm", mbr, "4")
    assert "no BIOS starts a logical one" in refused(mbr, "set", mbr, "5", "--bootable", "on")
    blockwright("disk", "rm", mbr, "5")
    [last] = [each for each in document("disk", "table", mbr)["partitions"] if each["number"] > 4]
    assert (last["number"], last["type"], last["size"]) == (5, "swap", 6 * MiB)
    blockwright("disk", "set", mbr, "--signature", "0xcafe0001")
    assert document("disk", "table", mbr)["guid"] == "cafe0001"
    blockwright("disk", "rm", mbr, "5")
    blockwright("disk", "rm", mbr, "4")
    assert "extended" not in blockwright("disk", "table", mbr).stdout.decode()


def test_one_kind_becomes_the_other_and_back(gpt):
    for kind, name in (("esp", ""), ("swap", "swap space"), ("root-x86-64", ""), ("home", ""), ("linux", "")):
        blockwright("disk", "add", gpt, "--size", "8M", "--type", kind, "--name", name)
        blockwright("disk", "set", gpt, "1", "--bootable", "on")
    before = document("disk", "table", gpt)["partitions"]
    text = refused(gpt, "table", gpt, "mbr", "--convert")
    assert "expected 2 of 5 partitions one behind the other, each with a free sector" in text
    blockwright("disk", "set", gpt, "3", "--size", "7M")
    blockwright("disk", "set", gpt, "4", "--size", "7M")
    said = blockwright("disk", "table", gpt, "mbr", "--convert", "--signature", "cafef00d").stderr.decode()
    assert "an MBR has no names: lost those of partitions 2 (swap space)" in said
    found = document("disk", "table", gpt)
    assert (found["kind"], found["guid"]) == ("mbr", "cafef00d")
    rows = [(each["number"], each["type"], each["start"]) for each in found["partitions"]]
    kinds = ["esp", "swap", "linux", "linux", "linux"]
    expected = [
        (*pair, each["start"]) for pair, each in zip(zip([1, 2, 3, 5, 6], kinds, strict=True), before, strict=True)
    ]
    assert rows == expected
    assert found["partitions"][0]["active"]
    blockwright("disk", "table", gpt, "gpt", "--convert", "--guid", "1" * 32)
    back = document("disk", "table", gpt)
    assert (back["kind"], back["guid"].replace("-", "")) == ("gpt", "1" * 32)
    assert [each["number"] for each in back["partitions"]] == [1, 2, 3, 5, 6]
    assert back["partitions"][0]["attributes"] == ["legacy-boot"]


def test_what_the_other_kind_cannot_say(tmp_path, gpt, mbr):
    blockwright("disk", "add", gpt, "--size", "1M", "--type", "bios-boot")
    assert "its type bios-boot has no counterpart" in refused(gpt, "table", gpt, "mbr", "--convert")
    blockwright("disk", "add", mbr, "--start", "512", "--size", "1M")
    assert "since a GPT takes those before and behind" in refused(mbr, "table", mbr, "gpt", "--convert")
    blockwright("disk", "set", mbr, "1", "--type", "0xda")
    large = tmp_path / "large.img"
    blockwright("disk", "create", large, "4T", "--table", "gpt")
    blockwright("disk", "add", large)
    before = document("disk", "table", large)
    text = blockwright("disk", "table", large, "mbr", "--convert", code=2).stderr.decode()
    assert "a start and a size of at most 4294967295 sectors, which is all that a master boot record can say" in text
    assert document("disk", "table", large) == before


def test_the_backup_follows_a_disk_that_grew(gpt):
    blockwright("disk", "add", gpt, "--size", "8M")
    with gpt.open("r+b") as file:
        file.truncate(128 * MiB)
    assert document("disk", "table", gpt)["free"][-1]["size"] < 64 * MiB
    blockwright("disk", "move-backup", gpt)
    assert document("disk", "table", gpt)["free"][-1]["size"] > 100 * MiB
    assert b"gpt: clean" in blockwright("check", gpt).stdout


@pytest.mark.parametrize("kind", ["gpt", "mbr"])
def test_boot_code_goes_before_the_table_and_no_further(tmp_path, kind):
    path, code = made(tmp_path, kind), tmp_path / "code.bin"
    blockwright("disk", "add", path)
    before = path.read_bytes()
    code.write_bytes(b"\xfa" * 440)
    blockwright("disk", "boot-code", path, "--file", code)
    assert path.read_bytes() == b"\xfa" * 440 + before[440:]
    blockwright("disk", "set", path, "1", "--bootable", "on")
    assert path.read_bytes()[:440] == b"\xfa" * 440
    blockwright("disk", "boot-code", path, "--clear")
    assert path.read_bytes()[:440] == bytes(440)
    code.write_bytes(b"\xfa" * 441)
    assert "expected at most 440 bytes of boot code, found more" in refused(path, "boot-code", path, "--file", code)


def test_a_partition_of_a_hybrid_table_stays_where_both_have_it(gpt):
    blockwright("disk", "add", gpt, "--size", "8M")
    blockwright("disk", "add", gpt, "--size", "8M")
    data = bytearray(gpt.read_bytes())
    data[446 + 16 : 446 + 32] = (
        bytes.fromhex("80feffff0cfeffff") + (2048).to_bytes(4, "little") + (16384).to_bytes(4, "little")
    )
    gpt.write_bytes(data)
    assert "entry 2 of the hybrid MBR tells of it too" in refused(gpt, "rm", gpt, "1")
    blockwright("disk", "rm", gpt, "2")
    with gpt.open("rb") as file:
        assert file.read(512)[446 + 16 + 4] == 0x0C


def test_help_names_every_command():
    text = blockwright("disk", "--help").stdout.decode()
    for name in ("add", "boot-code", "create", "move-backup", "rm", "set", "table"):
        assert name in text
        assert blockwright("disk", name, "--help").stdout


def test_types_by_name_are_those_of_each_table():
    for number in TYPES:
        assert parse_type(type_name(number)) == number
        assert parse_type(f"0x{number:02x}") == number
    assert parse_type("efi") == 0xEF


def test_boot_code_that_comes_slowly_is_waited_for(tmp_path):
    """By standard input that does not block, in a process of its own."""
    path = tmp_path / "disk.img"
    blockwright("disk", "create", path, "1M", "--table", "mbr")
    out, into = os.pipe()
    os.set_blocking(out, False)
    command = [sys.executable, "-m", "blockwright", "disk", "boot-code", path, "--file", "-"]
    with subprocess.Popen(command, stdin=out, stderr=subprocess.PIPE) as running:
        os.close(out)
        with os.fdopen(into, "wb", buffering=0) as pipe:
            for part in (b"\xeb\xfe", b"\x90" * 398):
                time.sleep(0.8)
                pipe.write(part)
        assert (running.wait(60), running.stderr.read()) == (0, b"")
    assert path.read_bytes()[:400] == b"\xeb\xfe" + b"\x90" * 398
