"""Signed programs: sbsign signs what we put together, sbverify and osslsigncode find it sound, firmware starts it."""

import shlex
import sys
from pathlib import Path

import pytest

from tests.support.command import blockwright
from tests.support.loaders import debian_loaders
from tests.support.qemu import BootError, boot_disk, snakeoil
from tests.support.smallroot import debian_kernel, small_root
from tests.support.tools import package_file, run, tool

GREETING = b"hello from the guest"
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo "hello from the guest: $(/bin/busybox cat /proc/cmdline)"
/bin/busybox poweroff -f
"""
OPTIONS = ["--serial", "--cmdline", "quiet panic=-1"]


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    return small_root(tmp_path / "rootfs", INIT)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return debian_loaders(tmp_path / "loaders")


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, Path]:
    encrypted, certificate = snakeoil()
    plain = tmp_path / "key.pem"
    run([tool("openssl"), "rsa", "-in", encrypted, "-passin", "pass:snakeoil", "-out", plain])
    return plain, certificate


def signing(key: tuple[Path, Path]) -> list[str]:
    command = f"{tool('sbsign')} --key {key[0]} --cert {key[1]} --output {{out}} {{in}}"
    return ["--sign-command", command]


@pytest.mark.parametrize("way", ["uki", "systemd-boot", "grub-efi"])
def test_what_we_put_together_keeps_its_signature(
    rootfs: Path, parts: Path, key: tuple[Path, Path], tmp_path: Path, way: str
) -> None:
    image, program = tmp_path / "disk.img", tmp_path / "program.efi"
    given = ["--boot", way, "--kernel", debian_kernel(), "--loader-dir", parts, *OPTIONS]
    blockwright("build", rootfs, "-o", image, *given, *signing(key))
    program.write_bytes(blockwright("fs", "cat", f"{image}:1", "/EFI/BOOT/BOOTX64.EFI").stdout)
    done = run([tool("sbverify"), "--cert", key[1], program])
    assert "Signature verification OK" in done.stdout + done.stderr
    told = run([tool("osslsigncode"), "verify", "-CAfile", key[1], program]).stdout
    assert "Succeeded" in told, told
    damaged = bytearray(program.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    program.write_bytes(damaged)
    assert run([tool("sbverify"), "--cert", key[1], program], ok={1}).returncode == 1


def test_a_unified_image_has_every_section(rootfs: Path, parts: Path, tmp_path: Path) -> None:
    image, program = tmp_path / "disk.img", tmp_path / "program.efi"
    more = {"splash": b"BM picture", "devicetree": b"\xd0\x0d\xfe\xed tree", "initrd": b"070701 files"}
    for name, content in more.items():
        (tmp_path / name).write_bytes(content)
    given = ["--boot", "uki", "--kernel", debian_kernel(), "--loader-dir", parts, *OPTIONS]
    given += [word for name in more for word in (f"--{name}", tmp_path / name)]
    (rootfs / "etc").mkdir(exist_ok=True)
    (rootfs / "etc" / "os-release").write_text("ID=test\nPRETTY_NAME=Test\n")
    blockwright("build", rootfs, "-o", image, *given)
    program.write_bytes(blockwright("fs", "cat", f"{image}:1", "/EFI/BOOT/BOOTX64.EFI").stdout)
    told = run([tool("objdump"), "-h", program]).stdout
    names = [line.split()[1] for line in told.splitlines() if line.strip()[:1].isdigit()]
    for name in (".sbat", ".osrel", ".cmdline", ".uname", ".dtb", ".splash", ".initrd", ".linux"):
        assert names.count(name) == 1, told
    for section, expected in ((".splash", more["splash"]), (".dtb", more["devicetree"]), (".initrd", more["initrd"])):
        out = tmp_path / "section"
        run([tool("objcopy"), "-O", "binary", "--only-section", section, program, out])
        assert out.read_bytes().rstrip(b"\0") == expected
    blockwright(
        "build", rootfs, "-o", image, "--force", "--boot", "grub-efi", "--splash", tmp_path / "splash", code=2
    )


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("{python} -c \"raise SystemExit('no_key')\" {in} {out}", 1, b"exit 1: no_key"),
        ("no-such-signer {in} {out}", 5, b"no-such-signer: no such program"),
        ("true {in} {out}", 1, b"expected the file {out}, found none"),
        ("cp {in} {out}", 1, b"expected the same program with a signature"),
        ("sbsign {in}", 2, b"expected {out} among its arguments"),
        ("'", 2, b"No closing quotation"),
    ],
)
def test_a_command_that_signs_nothing_is_told_in_one_line(
    rootfs: Path, parts: Path, tmp_path: Path, command: str, code: int, text: bytes
) -> None:
    image = tmp_path / "disk.img"
    given = ["--boot", "uki", "--kernel", debian_kernel(), "--loader-dir", parts]
    command = command.replace("{python}", shlex.quote(sys.executable))
    done = blockwright("build", rootfs, "-o", image, *given, "--sign-command", command, code=code)
    assert text in done.stderr
    assert not image.exists()


@pytest.mark.ci
def test_firmware_starts_what_is_signed_and_nothing_else(
    rootfs: Path, parts: Path, key: tuple[Path, Path], tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    given = ["--boot", "uki", "--kernel", debian_kernel(), "--loader-dir", parts, *OPTIONS]
    blockwright("build", rootfs, "-o", image, *given, *signing(key))
    boot_disk(image, firmware="secure", expect=GREETING, timeout=240)
    blockwright("build", rootfs, "-o", image, "--force", *given)
    with pytest.raises(BootError, match="Access Denied"):
        boot_disk(image, firmware="secure", expect=GREETING, timeout=240)


@pytest.mark.soak
def test_a_shim_starts_a_signed_loader_and_that_a_signed_kernel(
    rootfs: Path, parts: Path, key: tuple[Path, Path], tmp_path: Path
) -> None:
    """Debian's shim, signed for this firmware, trusts Debian's GRUB, which has the shim judge Debian's kernel."""
    image = tmp_path / "disk.img"
    ours = parts / "shimx64.efi.signed"
    ours.unlink()
    unsigned = package_file("usr/lib/shim/shimx64.efi", package="shim-unsigned")
    run([tool("sbsign"), "--key", key[0], "--cert", key[1], "--output", ours, unsigned])
    given = ["--boot", "grub-efi", "--shim", "--kernel", debian_kernel(), "--loader-dir", parts, *OPTIONS]
    blockwright("build", rootfs, "-o", image, *given)
    boot_disk(image, firmware="secure", expect=GREETING, timeout=240, memory=512)


def test_debians_own_shim_goes_to_the_disk_as_it_is(rootfs: Path, parts: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    given = ["--boot", "grub-efi", "--shim", "--kernel", debian_kernel(), "--loader-dir", parts]
    blockwright("build", rootfs, "-o", image, *given)
    for path, name in (
        ("BOOTX64.EFI", "shimx64.efi.signed"),
        ("grubx64.efi", "grubx64.efi.signed"),
        ("mmx64.efi", "mmx64.efi.signed"),
    ):
        found = blockwright("fs", "cat", f"{image}:1", f"/EFI/BOOT/{path}").stdout
        assert found == (parts / name).read_bytes()


def test_an_image_that_exists_gets_them_too(
    rootfs: Path, parts: Path, key: tuple[Path, Path], tmp_path: Path
) -> None:
    image, program = tmp_path / "disk.img", tmp_path / "program.efi"
    given = ["--kernel", debian_kernel(), "--loader-dir", parts]
    blockwright("build", rootfs, "-o", image, "--boot", "systemd-boot", *given)
    blockwright("boot", "install", image, "uki", "--shim", *given, *signing(key))
    read = lambda name: blockwright("fs", "cat", f"{image}:1", f"/EFI/BOOT/{name}").stdout  # noqa: E731 - thrice
    assert read("BOOTX64.EFI") == (parts / "shimx64.efi.signed").read_bytes()
    program.write_bytes(read("grubx64.efi"))
    run([tool("sbverify"), "--cert", key[1], program])
    blockwright("boot", "install", image, "syslinux", "--shim", *given, code=2)
    blockwright("boot", "install", image, "kernel", "--shim", *given, code=2)
