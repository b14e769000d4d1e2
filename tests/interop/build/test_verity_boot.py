"""A disk built with --verity boots with its root proven by the kernel, and does not once a byte of it is changed."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.command import blockwright, document
from tests.support.initramfs import Entry, module_files, pack, programs
from tests.support.qemu import BootError, boot_disk
from tests.support.tools import package_file

GREETING = b"hello from a proven root"
INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo "hello from a proven root: $(/bin/busybox grep ' / ' /proc/mounts | /bin/busybox tail -n 1)"
/bin/busybox poweroff -f
"""
FIRST = """#!/bin/busybox sh
for each in mount insmod switch_root cut; do /bin/busybox ln -s busybox /bin/$each; done
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in {modules}; do insmod /modules/$module; done
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in roothash=*) hash=${{word#roothash=}} ;; esac
done
uuid() {{ echo "$1" | /bin/busybox sed 's/\\(........\\)\\(....\\)\\(....\\)\\(....\\)/\\1-\\2-\\3-\\4-/'; }}
data=$(blkid -t PARTUUID=$(uuid $(echo $hash | cut -c 1-32)) -o device)
tree=$(blkid -t PARTUUID=$(uuid $(echo $hash | cut -c 33-64)) -o device)
veritysetup open $data root $tree $hash
mount -o ro /dev/mapper/root /root
exec switch_root /root /sbin/init
echo "the root does not hold"
/bin/busybox poweroff -f
"""


def first_stage(kernel: Path) -> bytes:
    """A RAM disk that does what systemd's generator does with roothash=."""
    modules = module_files(kernel, ("dm-verity", "sha256_generic", "ext4"))
    entries = [Entry.directory(name) for name in ("bin", "modules", "proc", "sys", "dev", "run", "root")]
    entries += programs("busybox", "veritysetup", "blkid")
    entries += [Entry.file(f"modules/{path.name}", path.read_bytes()) for path in modules]
    entries.append(Entry("init", 0o100755, FIRST.format(modules=" ".join(path.name for path in modules)).encode()))
    return pack(entries)


@pytest.mark.ci
def test_the_kernel_proves_the_root_it_mounts(tmp_path: Path) -> None:
    kernel = package_file("boot/vmlinuz-*-cloud-amd64", package="linux-image-cloud-amd64")
    loader = package_file("usr/lib/systemd/boot/efi/systemd-bootx64.efi", package="systemd-boot-efi")
    root, image, initrd = tmp_path / "rootfs", tmp_path / "disk.img", tmp_path / "initrd"
    for name in ("bin", "dev", "proc", "sbin"):
        (root / name).mkdir(parents=True)
    shutil.copy(package_file("bin/busybox", package="busybox-static"), root / "bin" / "busybox")
    (root / "sbin" / "init").write_bytes(INIT)
    (root / "sbin" / "init").chmod(0o755)
    initrd.write_bytes(first_stage(kernel))
    options = ["--boot", "systemd-boot", "--loader", loader, "--kernel", kernel, "--initrd", initrd]
    blockwright("build", root, "-o", image, "--verity", *options, "--cmdline", "console=ttyS0")
    boot_disk(image, expect=GREETING + b": /dev/mapper/root / ext4 ro")

    place = next(each for each in document("inspect", image)["regions"] if each["partition"]["name"] == "root")
    with open(image, "r+b", buffering=0) as disk:
        body = os.pread(disk.fileno(), place["size"], place["start"])
        at = body.index(b"hello from a proven root")
        os.pwrite(disk.fileno(), b"H", place["start"] + at)
    with pytest.raises(BootError, match=r"data block \d+ is corrupted"):
        boot_disk(image, expect=GREETING)
