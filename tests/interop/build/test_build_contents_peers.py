"""What a build adds to its source, as other programs see it on the disk."""

import pytest

from tests.support.inprocess import blockwright
from tests.support.loaders import debian_loaders
from tests.support.smallroot import debian_kernel, small_root
from tests.support.tools import run, tool


def part(image, number, to):
    """A copy of a partition; the number is sgdisk's."""
    told = run([tool("sgdisk"), "-i", str(number), image]).stdout
    values = dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)
    first, last = (int(values[f"{each} sector"].split()[0]) for each in ("First", "Last"))
    with open(image, "rb") as file:
        file.seek(first * 512)
        to.write_bytes(file.read((last - first + 1) * 512))
    return to, values["Partition unique GUID"].strip().lower()


@pytest.fixture
def disk(tmp_path):
    root = small_root(tmp_path / "rootfs", "#!/bin/busybox sh\n")
    (root / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    contexts = tmp_path / "contexts"
    contexts.write_text("/.* u:r:any:s0\n/etc/.* u:r:etc:s0\n/boot(/.*)? u:r:boot:s0\n/lost\\+found -d u:r:lost:s0\n")
    (tmp_path / "user-data").write_text("#cloud-config\n")
    output = tmp_path / "disk.img"
    blockwright(
        *("build", root, "-o", output, "--boot", "syslinux,systemd-boot", "--kernel", debian_kernel()),
        *("--loader-dir", debian_loaders(tmp_path / "loaders"), "--owner", "7:8", "--fstab"),
        *("--selinux-contexts", contexts, "--cloud-init", tmp_path / "user-data", "--cloud-init-as", "partition"),
    )
    return output


def test_a_disk_that_boots_with_all_that_is_added(disk, tmp_path):
    esp, esp_guid = part(disk, 1, tmp_path / "esp")
    seed, _ = part(disk, 2, tmp_path / "seed")
    root, root_guid = part(disk, 3, tmp_path / "root")
    for each in (esp, seed):
        run([tool("fsck.fat"), "-n", each])
    run([tool("e2fsck"), "-fn", root])
    assert "user-data" in run([tool("mdir"), "-b", "-i", seed]).stdout
    debugfs = tool("debugfs")
    fstab = run([debugfs, "-R", "cat /etc/fstab", root]).stdout.splitlines()[1:]
    assert fstab == [
        f"PARTUUID={root_guid} / ext4 defaults,errors=remount-ro 0 1",
        f"PARTUUID={esp_guid} /boot/efi vfat umask=0077,nofail 0 2",
    ]
    labels = {"/etc/fstab": "etc", "/boot/efi": "boot", "/boot/extlinux/ldlinux.sys": "boot", "/lost+found": "lost"}
    for path, kind in {**labels, "/": "any", "/sbin/init": "any"}.items():
        told = run([debugfs, "-R", f"ea_get {path} security.selinux", root]).stdout
        assert f"u:r:{kind}:s0" in told, (path, told)
    assert "User:     7   Group:     8" in run([debugfs, "-R", "stat /sbin/init", root]).stdout
    assert "User:     0   Group:     0" in run([debugfs, "-R", "stat /etc/fstab", root]).stdout
    console = run([debugfs, "-R", "cat /boot/extlinux/extlinux.conf", root]).stdout
    assert f"root=PARTUUID={root_guid}" in console
