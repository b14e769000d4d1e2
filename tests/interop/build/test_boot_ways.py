"""Every way to start a disk that a build knows, down to a kernel that mounts its root and greets, in QEMU.

The disks are of Debian's loaders and kernel. Each is also read by what knows its parts: sgdisk, sfdisk, fsck.fat.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.command import blockwright, document
from tests.support.loaders import debian_loaders
from tests.support.qemu import Firmware, boot_disk
from tests.support.smallroot import debian_kernel, small_root
from tests.support.tools import package_file, run, tool

GREETING = b"hello from the guest"
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
root=$(/bin/busybox awk '$2 == "/" { print $3 }' /proc/mounts)
echo "hello from the guest: $root $(/bin/busybox cat /proc/cmdline)"
/bin/busybox poweroff -f
"""
OPTIONS = ["--serial", "--cmdline", "quiet panic=-1"]


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    return small_root(tmp_path / "rootfs", INIT)


@pytest.fixture
def kernel() -> Path:
    return debian_kernel()


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return debian_loaders(tmp_path / "loaders")


def greets(image: Path, firmware: Firmware) -> None:
    console = boot_disk(
        image, firmware=firmware, expect=b"panic=-1 console=tty0 console=ttyS0,115200\r\n", timeout=240
    )
    said = next(line for line in console.splitlines() if GREETING.decode() in line)
    inspected = document("inspect", image)["regions"]
    [root] = [each for each in inspected if (each.get("file_system") or {}).get("kind", "")[:3] == "ext"]
    assert f"root=PARTUUID={root['partition']['guid']} rw quiet" in said
    assert f"{GREETING.decode()}: {root['file_system']['kind']} " in said


CI, SOAK = pytest.mark.ci, pytest.mark.soak


@pytest.mark.parametrize(
    ("options", "firmwares"),
    [
        pytest.param(["--boot", "syslinux"], ["seabios"], id="extlinux on ext4, GPT", marks=CI),
        pytest.param(["--boot", "syslinux", "--table", "mbr"], ["seabios"], id="extlinux on ext4, MBR", marks=SOAK),
        pytest.param(
            ["--boot", "syslinux", "--table", "mbr", "--bios-home", "boot"],
            ["seabios"],
            id="syslinux on FAT32, MBR",
            marks=CI,
        ),
        pytest.param(
            ["--boot", "syslinux", "--bios-home", "boot"], ["seabios"], id="syslinux on FAT32, GPT", marks=SOAK
        ),
        pytest.param(["--boot", "grub"], ["seabios"], id="GRUB, GPT", marks=CI),
        pytest.param(["--boot", "grub", "--table", "mbr"], ["seabios"], id="GRUB, MBR", marks=CI),
        pytest.param(
            ["--boot", "syslinux", "--compat", "syslinux-6.03", "--compat", "linux-2.6.32", "--inode-size", "128"],
            ["seabios"],
            id="extlinux on ext4 for old readers",
            marks=SOAK,
        ),
        pytest.param(
            ["--boot", "syslinux", "--fs", "ext2", "--block-size", "1024", "--compat", "u-boot-write"],
            ["seabios"],
            id="extlinux on ext2",
            marks=SOAK,
        ),
        pytest.param(
            ["--boot", "grub", "--fs", "ext3", "--compat", "grub-0.97"],
            ["seabios"],
            id="GRUB on ext3 for GRUB 0.97",
            marks=SOAK,
        ),
        pytest.param(["--boot", "grub-efi"], ["ovmf"], id="GRUB for UEFI", marks=CI),
        pytest.param(["--boot", "syslinux,uki"], ["seabios", "ovmf"], id="hybrid: extlinux and UKI", marks=CI),
        pytest.param(
            ["--boot", "grub,systemd-boot", "--bios-home", "boot"],
            ["seabios", "ovmf"],
            id="hybrid: one kernel",
            marks=CI,
        ),
    ],
)
def test_a_disk_starts(
    rootfs: Path, kernel: Path, parts: Path, tmp_path: Path, options: list[str], firmwares: list[Firmware]
) -> None:
    image = tmp_path / "disk.img"
    blockwright("build", rootfs, "-o", image, *options, *OPTIONS, "--kernel", kernel, "--loader-dir", parts)
    for firmware in firmwares:
        greets(image, firmware)


@pytest.mark.ci
def test_a_streamed_disk_starts_the_kernel_it_holds(rootfs: Path, kernel: Path, parts: Path, tmp_path: Path) -> None:
    image, archive = tmp_path / "disk.img", tmp_path / "rootfs.tar.gz"
    shutil.copy(kernel, rootfs / "boot" / kernel.name)
    run([tool("tar"), "czf", archive, "-C", rootfs, "."])
    blockwright("build", archive, "-o", image, "--boot", "grub,uki", *OPTIONS, "--loader-dir", parts)
    assert document("check", image)["clean"]
    greets(image, "seabios")


@pytest.mark.parametrize("table", ["gpt", "mbr"])
@pytest.mark.parametrize("home", ["root", "boot"])
@pytest.mark.parametrize("way", ["syslinux", "grub"])
def test_tables_and_volumes_are_sound(
    rootfs: Path, kernel: Path, parts: Path, tmp_path: Path, table: str, home: str, way: str
) -> None:
    image, volume = tmp_path / "disk.img", tmp_path / "volume"
    options = ["--boot", way, "--table", table, "--bios-home", home, "--kernel", kernel, "--loader-dir", parts]
    blockwright("build", rootfs, "-o", image, *options, "--size", "200M")
    assert document("check", image)["clean"]
    found = json.loads(run([tool("sfdisk"), "--json", image]).stdout)["partitiontable"]
    assert found["label"] == {"gpt": "gpt", "mbr": "dos"}[table]
    partitions = found["partitions"]
    marked = [each for each in partitions if each.get("bootable") or "LegacyBIOSBootable" in each.get("attrs", "")]
    if table == "gpt":
        assert "No problems found" in run([tool("sgdisk"), "-v", image]).stdout
    assert len(partitions) == 1 + (home == "boot") + (way == "grub" and table == "gpt")
    assert len(marked) == (way == "syslinux")
    for each in partitions:
        with image.open("rb") as disk:
            disk.seek(each["start"] * 512)
            volume.write_bytes(disk.read(each["size"] * 512))
        if each["type"] in ("c", "BC13C2FF-59E6-4262-A352-B275FD6F7172"):
            run([tool("fsck.fat"), "-n", volume])
            assert (volume.read_bytes()[3:11] == b"SYSLINUX") == (way == "syslinux")
            assert volume.read_bytes()[:512] == volume.read_bytes()[3072:3584]
        elif each["type"] != "21686148-6449-6E6F-744E-656564454649":
            run([tool("e2fsck"), "-fn", volume])
            assert (volume.read_bytes()[3:11] == b"SYSLINUX") == (way == "syslinux" and home == "root")


def test_the_same_input_gives_the_same_bytes(rootfs: Path, kernel: Path, parts: Path, tmp_path: Path) -> None:
    made = []
    for name in ("one.img", "two.img"):
        options = ["--boot", "syslinux,uki", "--kernel", kernel, "--loader-dir", parts]
        blockwright("build", rootfs, "-o", tmp_path / name, *options)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_a_loader_for_a_bios_lives_beside_a_root_that_is_hashed(
    rootfs: Path, kernel: Path, parts: Path, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    options = ["--boot", "syslinux,systemd-boot", "--verity", "--kernel", kernel, "--loader-dir", parts]
    built = document("build", rootfs, "-o", image, *options)
    [root_hash] = [each["file_system"]["root_hash"] for each in built["parts"] if each["role"] == "verity"]
    assert document("check", image)["clean"]
    config = blockwright("fs", "cat", f"{image}:1", "/syslinux/syslinux.cfg").stdout.decode()
    assert f"roothash={root_hash}" in config
    said = blockwright("build", rootfs, "-o", image, *options, "--bios-home", "root", "--force", code=2).stderr
    assert b"--bios-home boot" in said


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--boot", "syslinux", "--sector-size", "4096"], 2, b"sectors of 512 bytes"),
        (["--boot", "grub", "--loader-dir", "{empty}"], 5, b"package grub-pc-bin"),
        (["--boot", "syslinux", "--loader-dir", "{empty}"], 5, b"package extlinux"),
        (["--boot", "uki", "--loader", "{loader}"], 1, b"systemd's stub"),
        (["--boot", "grub-efi", "--loader", "{kernel}"], 1, b"image of GRUB"),
        (["--boot", "grub,syslinux"], 2, b"one way for a BIOS"),
        (["--boot", "grub", "--loader", "{kernel}"], 2, b"--loader-dir"),
        (["--boot", "uki", "--bios-home", "boot"], 2, b"--bios-home"),
        (["--boot", "lilo"], 2, b"found 'lilo'"),
    ],
)
def test_what_cannot_start_is_refused(
    rootfs: Path, kernel: Path, tmp_path: Path, options: list[str], code: int, said: bytes
) -> None:
    (tmp_path / "empty").mkdir()
    loader = package_file("usr/lib/systemd/boot/efi/systemd-bootx64.efi", package="systemd-boot-efi")
    shown = [each.format(empty=tmp_path / "empty", kernel=kernel, loader=loader) for each in options]
    done = blockwright("build", rootfs, "-o", tmp_path / "disk.img", "--kernel", kernel, *shown, code=code)
    assert said in done.stderr
    assert not (tmp_path / "disk.img").exists()


def test_a_kernel_that_a_bios_cannot_start_is_refused(rootfs: Path, parts: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no kernel")
    options = ["--boot", "grub", "--kernel", tmp_path / "text", "--loader-dir", parts]
    assert b"bzImage" in blockwright("build", rootfs, "-o", tmp_path / "disk.img", *options, code=1).stderr
