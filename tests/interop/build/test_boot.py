"""A disk with Debian's kernel, systemd-boot and busybox starts under OVMF and greets; so does a streamed one."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.command import blockwright, document
from tests.support.qemu import boot_disk
from tests.support.smallroot import debian_kernel, small_root
from tests.support.tools import package_file, run, tool

GREETING = b"hello from the guest"
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo "hello from the guest: $(/bin/busybox uname -s), $(/bin/busybox grep -o 'root=PARTUUID=[^ ]*' /proc/cmdline)"
/bin/busybox touch /written && echo "and it can write"
/bin/busybox poweroff -f
"""


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    return small_root(tmp_path / "rootfs", INIT)


@pytest.fixture
def kernel() -> Path:
    return debian_kernel()


@pytest.fixture
def loader() -> Path:
    return package_file("usr/lib/systemd/boot/efi/systemd-bootx64.efi", package="systemd-boot-efi")


@pytest.mark.ci
@pytest.mark.parametrize("way", ["directory", "stream"])
def test_systemd_boot_starts_the_kernel(rootfs: Path, kernel: Path, loader: Path, tmp_path: Path, way: str) -> None:
    image = tmp_path / "disk.img"
    options = ["--boot", "systemd-boot", "--loader", loader, "--cmdline", "console=ttyS0 quiet", "--free", "20%"]
    shutil.copy(kernel, rootfs / "boot" / kernel.name)
    if way == "directory":
        blockwright("build", rootfs, "-o", image, *options)
    else:
        archive = tmp_path / "rootfs.tar.gz"
        subprocess.run(["tar", "czf", archive, "-C", rootfs, "."], check=True)
        blockwright("build", archive, "-o", image, *options)
    assert "No problems found" in run([tool("sgdisk"), "-v", image]).stdout
    assert document("check", image)["clean"]
    console = boot_disk(image, expect=b"and it can write", timeout=300)
    guid = document("inspect", image)["regions"][1]["partition"]["guid"]
    assert GREETING.decode() in console
    assert f"root=PARTUUID={guid}" in console


def test_the_boot_partition_holds_what_firmware_and_loader_look_for(
    rootfs: Path, kernel: Path, loader: Path, tmp_path: Path
) -> None:
    image, esp = tmp_path / "disk.img", tmp_path / "esp.fat"
    options = ["--boot", "systemd-boot", "--kernel", kernel, "--loader", loader, "--cmdline", "console=ttyS0"]
    blockwright("build", rootfs, "-o", image, *options)
    part = document("inspect", image)["regions"][0]
    assert part["partition"]["type"] == "esp"
    with open(image, "rb") as disk:
        disk.seek(part["start"])
        esp.write_bytes(disk.read(part["size"]))
    run([tool("fsck.fat"), "-n", esp])
    version = kernel.name.removeprefix("vmlinuz-")
    entry = run([tool("mtype"), "-i", esp, f"::/loader/entries/{version}.conf"]).stdout
    guid = document("inspect", image)["regions"][1]["partition"]["guid"]
    assert f"options root=PARTUUID={guid} rw console=ttyS0" in entry
    assert "title Test System 1" in entry
    for inside, outside in ((f"/{version}/linux", kernel), ("/EFI/BOOT/BOOTX64.EFI", loader)):
        got = tmp_path / "got"
        blockwright("fs", "get", f"{image}:1", inside, got, "--force")
        assert got.read_bytes() == outside.read_bytes()


def test_the_kernel_itself_as_the_program_firmware_starts(rootfs: Path, kernel: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    blockwright("build", rootfs, "-o", image, "--boot", "kernel", "--kernel", kernel)
    names = [each["name"] for each in document("fs", "ls", f"{image}:1", "/EFI/BOOT")["entries"]]
    assert names == ["BOOTX64.EFI"]
    assert blockwright("fs", "cat", f"{image}:1", "/efi/boot/bootx64.efi").stdout == kernel.read_bytes()


def test_a_kernel_that_is_no_program_is_refused(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no kernel")
    done = blockwright(
        "build", rootfs, "-o", tmp_path / "disk.img", "--boot", "kernel", "--kernel", tmp_path / "text", code=1
    )
    assert b"PE" in done.stderr
    assert not (tmp_path / "disk.img").exists()
