"""`blockwright build --verity`: veritysetup verifies the disk, and every place that says the root hash agrees."""

import hashlib
import json
import os
import random
import re
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.command import blockwright, document
from tests.support.tools import run, tool

X86_64_ROOT = UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
X86_64_VERITY = UUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5")
ELF = b"\x7fELF\2\1\1" + bytes(9) + (2).to_bytes(2, "little") + (62).to_bytes(2, "little")


def program() -> bytes:
    """As much of an EFI program for x86-64 as is looked at."""
    head = bytearray(4096)
    head[:2] = b"MZ"
    head[0x3C:0x40] = (0x80).to_bytes(4, "little")
    head[0x80:0x86] = b"PE\0\0\x64\x86"
    return bytes(head)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "bin").mkdir(parents=True)
    (root / "boot").mkdir()
    (root / "bin" / "sh").write_bytes(ELF + random.Random(1).randbytes(300_000))
    (root / "boot" / "vmlinuz-6.1").write_bytes(program() + random.Random(2).randbytes(100_000))
    (root / "large").write_bytes(random.Random(3).randbytes(9_000_000))
    with open(root / "sparse", "wb") as file:
        file.truncate(20 << 20)
        file.seek(10 << 20)
        file.write(b"in the middle")
    (tmp_path / "loader.efi").write_bytes(program())
    return root


def archive(source: Path, to: Path) -> Path:
    subprocess.run(["tar", "czSf", to, "-C", source, "."], check=True)
    return to


def verified(image: Path, tmp_path: Path) -> dict[str, object]:
    """Have veritysetup hold the disk to the root hash that the partitions' UUIDs say; return what dump tells."""
    told = json.loads(run([tool("sfdisk"), "--json", image]).stdout)["partitiontable"]
    sector = told.get("sectorsize", 512)
    root, hashes = told["partitions"][-2:]
    root_hash = (UUID(root["uuid"]).bytes + UUID(hashes["uuid"]).bytes).hex()
    assert (UUID(root["type"]), UUID(hashes["type"])) == (X86_64_ROOT, X86_64_VERITY)
    assert root["attrs"] == hashes["attrs"] == "GUID:60"
    data = tmp_path / "root.ext4"
    with open(image, "rb") as disk:
        disk.seek(root["start"] * sector)
        data.write_bytes(disk.read(root["size"] * sector))
    offset = str(hashes["start"] * sector)
    run([tool("veritysetup"), "verify", "--hash-offset", offset, data, image, root_hash])
    run([tool("e2fsck"), "-fn", data])
    shown = run([tool("veritysetup"), "dump", "--hash-offset", offset, image]).stdout
    return {
        "root_hash": root_hash,
        **dict(re.findall(r"^([A-Za-z ]+):\s+(.*?)(?: \[bytes\])?$", shown, re.MULTILINE)),
    }


OPTIONS = [
    [],
    ["--size", "100M"],
    ["--size", "100000256", "--root-size", "60M"],
    ["--size", "300M"],
    ["--block-size", "1024", "--root-size", "20481k"],
    ["--free", "40%", "--label", "sixteen bytes ok"],
]


@pytest.mark.parametrize("way", ["directory", "stream"])
@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_veritysetup_verifies_the_partitions(source: Path, tmp_path: Path, way: str, options: list[str]) -> None:
    image = tmp_path / "disk.img"
    given = source if way == "directory" else archive(source, tmp_path / "source.tar.gz")
    built = document("build", given, "-o", image, "--verity", *options)
    assert "No problems found" in run([tool("sgdisk"), "-v", image]).stdout
    dump = verified(image, tmp_path)
    part = built["parts"][-1]
    assert part["role"] == "verity"
    assert part["file_system"]["root_hash"] == dump["root_hash"]
    assert (part["file_system"]["uuid"], part["file_system"]["salt"]) == (dump["UUID"], dump["Salt"])
    root = built["parts"][0]["file_system"]
    assert root["size"] <= part["file_system"]["data_blocks"] * 4096 < root["size"] + 4096
    assert part["file_system"]["size"] <= part["partition"]["size"]
    assert image.stat().st_size == built["size"]
    assert image.stat().st_blocks * 512 < 16 << 20, "holes must stay holes"


@pytest.mark.parametrize("way", ["directory", "stream"])
@pytest.mark.parametrize("options", [[], ["--size", "300M"]], ids=" ".join)
def test_the_boot_entry_says_the_root_hash(source: Path, tmp_path: Path, way: str, options: list[str]) -> None:
    image = tmp_path / "disk.img"
    given = source if way == "directory" else archive(source, tmp_path / "source.tar.gz")
    boot = ["--boot", "systemd-boot", "--loader", tmp_path / "loader.efi", "--cmdline", "quiet"]
    blockwright("build", given, "-o", image, "--verity", *boot, *options)
    dump = verified(image, tmp_path)
    entry = run([tool("mtype"), "-i", f"{image}@@1048576", "::/loader/entries/6.1.conf"]).stdout
    assert f"options root=/dev/mapper/root ro roothash={dump['root_hash']} quiet\n" in entry
    assert document("check", image)["clean"]


def test_sectors_of_4096_bytes(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    built = document("build", source, "-o", image, "--verity", "--sector-size", "4096")
    root, hashes = built["parts"]
    data = tmp_path / "root.ext4"
    with open(image, "rb") as disk:
        disk.seek(root["start"])
        data.write_bytes(disk.read(root["partition"]["size"]))
    root_hash = hashes["file_system"]["root_hash"]
    run([tool("veritysetup"), "verify", "--hash-offset", str(hashes["start"]), data, image, root_hash])


def test_the_same_bytes_each_time_and_a_dry_run_that_knows_them(source: Path, tmp_path: Path) -> None:
    digests = []
    for name in ("1.img", "2.img"):
        built = document("build", source, "-o", tmp_path / name, "--verity")
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).digest())
    assert digests[0] == digests[1]
    dry = document("build", source, "--dry-run", "--verity")
    assert dry["parts"] == built["parts"]
    blockwright("build", archive(source, tmp_path / "s.tar.gz"), "--dry-run", "--verity", code=2)


def test_salt_and_uuids_follow_from_the_seed(source: Path, tmp_path: Path) -> None:
    one, two, three = (
        document("build", source, "--dry-run", "--verity", "--seed", seed)["parts"][-1]["file_system"]
        for seed in ("a", "a", "b")
    )
    assert one == two
    assert one["salt"] != three["salt"]
    assert one["root_hash"] != three["root_hash"]


def test_one_byte_is_seen_by_both(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    hashes = document("build", source, "-o", image, "--verity")["parts"][-1]
    data = tmp_path / "root.ext4"
    with open(image, "r+b") as disk:
        disk.seek((1 << 20) + (2 << 20))
        byte = disk.read(1)[0]
        disk.seek(-1, os.SEEK_CUR)
        disk.write(bytes([byte ^ 1]))
        disk.seek(1 << 20)
        data.write_bytes(disk.read(hashes["start"] - (1 << 20)))
    root_hash = hashes["file_system"]["root_hash"]
    offset = str(hashes["start"])
    run([tool("veritysetup"), "verify", "--hash-offset", offset, data, image, root_hash], ok=(1, 2))


def test_what_contradicts_itself_is_refused(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    boot = ["--boot", "systemd-boot", "--loader", tmp_path / "loader.efi"]
    for options in (
        ["--table", "none"],
        ["--boot", "kernel"],
        [*boot, "--cmdline", "rw"],
        [*boot, "--cmdline", "roothash=00"],
    ):
        blockwright("build", source, "-o", image, "--verity", *options, code=2)
    (source / "bin" / "sh").unlink()
    blockwright("build", source, "-o", image, "--verity", code=5)
    assert not image.exists()
