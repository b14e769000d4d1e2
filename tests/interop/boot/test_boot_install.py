"""`boot install` on images that others have made: files by e2fsck's and fsck.fat's leave, boots in QEMU, refusals."""

import hashlib
import random
import re
import shutil
import struct
from pathlib import Path

import pytest

from blockwright.boot import loaders as found
from blockwright.boot.install import Request, install
from blockwright.boot.kernel import named_kernel
from blockwright.boot.kinds import Bios, Ways
from blockwright.boot.shelf import of_directory
from blockwright.boot.syslinux import MAGIC, Syslinux, word_sum
from blockwright.device.base import BlockDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.fs.ext4.check import check
from blockwright.testing.crash import CrashDevice
from blockwright.tree.content import BytesContent
from tests.support.bootdisks import GREETING, MIB, Piece, make_disk, root_files, volume
from tests.support.command import blockwright, document
from tests.support.loaders import debian_loaders
from tests.support.qemu import Firmware, boot_disk
from tests.support.smallroot import debian_kernel
from tests.support.tools import package_file, run, tool

OPTIONS = ["--serial", "--cmdline", "quiet panic=-1"]


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
    assert re.search(f"{GREETING}: ext4 .*root=PARTUUID=[0-9a-f-]+ rw quiet", console)


CI, SOAK = pytest.mark.ci, pytest.mark.soak


@pytest.mark.parametrize(
    ("table", "pieces", "ways", "firmwares"),
    [
        pytest.param("gpt", [Piece("ext4", 48)], ["syslinux"], ["seabios"], id="extlinux on ext4, GPT", marks=CI),
        pytest.param(
            "mbr",
            [Piece("fat", 64, ("-F", "32")), Piece("ext4", 48)],
            ["disk.img:1", "syslinux"],
            ["seabios"],
            id="syslinux on FAT32, MBR",
            marks=CI,
        ),
        pytest.param(
            "gpt",
            [Piece("fat", 32), Piece("ext4", 48)],
            ["disk.img:1", "syslinux"],
            ["seabios"],
            id="FAT16",
            marks=SOAK,
        ),
        pytest.param("gpt", [Piece("bios", 1), Piece("ext4", 48)], ["grub"], ["seabios"], id="GRUB, GPT", marks=SOAK),
        pytest.param(
            "mbr", [Piece("ext4", 48, ("-b", "1024"))], ["grub"], ["seabios"], id="GRUB, MBR, 1 KiB", marks=CI
        ),
        pytest.param(
            "gpt",
            [Piece("fat", 64), Piece("ext4", 48)],
            ["syslinux,grub-efi"],
            ["seabios", "ovmf"],
            id="hybrid",
            marks=CI,
        ),
        pytest.param(
            "mbr",
            [Piece("fat", 64), Piece("ext4", 48)],
            ["grub,uki"],
            ["seabios", "ovmf"],
            id="hybrid, MBR",
            marks=SOAK,
        ),
    ],
)
def test_an_image_starts(
    kernel: Path,
    parts: Path,
    tmp_path: Path,
    table: str,
    pieces: list[Piece],
    ways: list[str],
    firmwares: list[Firmware],
) -> None:
    image = make_disk(tmp_path / "disk.img", table, pieces, root_files(tmp_path / "root", kernel))
    *home, way = ways
    where = tmp_path / home[0] if home else image
    blockwright("boot", "install", where, way, *OPTIONS, "--loader-dir", parts)
    assert document("check", image)["clean"]
    for firmware in firmwares:
        greets(image, firmware)


@SOAK
def test_a_bare_file_system_starts(kernel: Path, parts: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(48 * MIB)
    run([tool("mke2fs"), "-q", "-F", "-t", "ext4", "-d", root_files(tmp_path / "root", kernel), image])
    options = ["--serial", "--cmdline", "root=/dev/nvme0n1 ro", "--loader-dir", parts]
    blockwright("boot", "install", image, "syslinux", *options)
    run([tool("e2fsck"), "-fn", image])
    boot_disk(image, firmware="seabios", expect=GREETING.encode(), timeout=240)


def install_small(tmp_path: Path, parts: Path, table: str, pieces: list[Piece], way: str, *options: str) -> Path:
    """An image with a loader and a kernel that is none but by its mark."""
    kernel = tmp_path / "vmlinuz"
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    kernel.write_bytes(head)
    image = make_disk(tmp_path / "disk.img", table, pieces)
    blockwright("boot", "install", image, way, "--kernel", kernel, "--loader-dir", parts, *options)
    return image


def test_what_is_put_on_ext4(parts: Path, tmp_path: Path) -> None:
    image = install_small(tmp_path, parts, "gpt", [Piece("ext4", 32)], "syslinux")
    part = volume(image, 1, 32, tmp_path / "part")
    run([tool("e2fsck"), "-fn", part])
    shown = run([tool("debugfs"), "-R", "stat /boot/extlinux/ldlinux.sys", part]).stdout
    assert "Mode:  0444" in shown
    assert re.search(r"Flags: 0x8001[0-9a-f]", shown), "extents, and immutable"
    names = {each["name"] for each in document("fs", "ls", f"{image}:1", "/boot/extlinux")["entries"]}
    assert names == {"ldlinux.sys", "ldlinux.c32", "extlinux.conf"}
    config = blockwright("fs", "cat", f"{image}:1", "/boot/extlinux/extlinux.conf").stdout.decode()
    guid = document("inspect", image)["regions"][0]["partition"]["guid"]
    assert f"APPEND root=PARTUUID={guid} rw\n" in config
    assert "LINUX /boot/vmlinuz-linux\n" in config
    loader = blockwright("fs", "cat", f"{image}:1", "/boot/extlinux/ldlinux.sys").stdout
    assert word_sum(loader[: len(loader) - 1024]) == MAGIC
    assert "legacy BIOS bootable" in run([tool("sgdisk"), "-A", "1:show", "-i", "1", image]).stdout
    assert image.read_bytes()[:440] == (parts / "gptmbr.bin").read_bytes()


def test_over_what_extlinux_has_installed(parts: Path, tmp_path: Path) -> None:
    """extlinux leaves both of its files immutable."""
    image = install_small(tmp_path, parts, "gpt", [Piece("ext4", 32)], "syslinux")
    at = f"{image}?offset={1 << 20}"
    for name in ("ldlinux.c32", "ldlinux.sys"):
        run([tool("debugfs"), "-w", "-R", f"set_inode_field /boot/extlinux/{name} flags 0x80010", at])
    kernel = tmp_path / "vmlinuz"
    blockwright("boot", "install", image, "syslinux", "--kernel", kernel, "--loader-dir", parts)
    shown = run([tool("debugfs"), "-R", "stat /boot/extlinux/ldlinux.c32", at]).stdout
    assert re.search(r"Mode:  0444   Flags: 0x8001[0-9a-f]", shown)
    run([tool("e2fsck"), "-fn", volume(image, 1, 32, tmp_path / "part")])


@pytest.mark.parametrize(("bits", "mib"), [("16", 32), ("32", 64)])
def test_what_is_put_on_fat(parts: Path, tmp_path: Path, bits: str, mib: int) -> None:
    pieces = [Piece("fat", mib, ("-F", bits))]
    image = install_small(tmp_path, parts, "mbr", pieces, "syslinux", "--cmdline", "root=/dev/sda2")
    part = volume(image, 1, mib, tmp_path / "part")
    for name in ("ldlinux.sys", "ldlinux.c32"):
        assert re.search(r"^ A?\s*S?\s*H?.*R", run([tool("mattrib"), "-i", part, f"::/syslinux/{name}"]).stdout), name
    run([tool("fsck.fat"), "-n", part])
    assert part.read_bytes()[3:11] == b"SYSLINUX"
    run([tool("sfdisk"), "--verify", image])
    assert image.read_bytes()[446] == 0x80
    assert image.read_bytes()[:440] == (parts / "mbr.bin").read_bytes()


def test_all_modules_of_grub_are_put_there_when_asked(parts: Path, tmp_path: Path) -> None:
    image = install_small(tmp_path, parts, "mbr", [Piece("ext4", 32)], "grub", "--grub-modules")
    names = {each["name"] for each in document("fs", "ls", f"{image}:1", "/boot/grub/i386-pc")["entries"]}
    assert names >= {each.name for each in (parts / "i386-pc").glob("*.mod")}
    got = blockwright("fs", "cat", f"{image}:1", "/boot/grub/i386-pc/ext2.mod").stdout
    assert got == (parts / "i386-pc" / "ext2.mod").read_bytes()
    run([tool("e2fsck"), "-fn", volume(image, 1, 32, tmp_path / "part")])


@pytest.mark.parametrize("way", ["syslinux", "grub"])
def test_once_more_changes_the_times_only(parts: Path, tmp_path: Path, way: str) -> None:
    image = install_small(tmp_path, parts, "gpt", [Piece("bios", 1), Piece("ext4", 32)], way)
    kernel = tmp_path / "vmlinuz"
    for _ in range(2):
        blockwright("boot", "install", image, way, "--kernel", kernel, "--loader-dir", parts)
        run([tool("e2fsck"), "-fn", volume(image, 2, 32, tmp_path / "part")])
        assert document("check", image)["clean"]


def test_loaders_of_the_system_itself_are_taken(tmp_path: Path, kernel: Path) -> None:
    root = root_files(tmp_path / "root", kernel)
    for path in ("usr/bin/extlinux", "usr/lib/syslinux/mbr/gptmbr.bin"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(package_file(path, package="extlinux"), root / path)
    marked = bytearray((root / "usr/lib/syslinux/mbr/gptmbr.bin").read_bytes())
    marked[-1] ^= 1  # what the host has is another one
    (root / "usr/lib/syslinux/mbr/gptmbr.bin").write_bytes(marked)
    image = make_disk(tmp_path / "disk.img", "gpt", [Piece("ext4", 48)], root)
    written = document("boot", "install", image, "syslinux")["written"]
    assert f"{image}:1: /boot/extlinux/ldlinux.sys" in written
    assert image.read_bytes()[:440] == bytes(marked)
    config = blockwright("fs", "cat", f"{image}:1", "/boot/extlinux/extlinux.conf").stdout.decode()
    assert f"LINUX /boot/{kernel.name}\n" in config
    assert "MENU LABEL Test System 1\n" in config


def test_a_configuration_that_is_there_is_kept_when_asked(parts: Path, tmp_path: Path) -> None:
    image = install_small(tmp_path, parts, "mbr", [Piece("ext4", 32)], "grub")
    mine = tmp_path / "grub.cfg"
    mine.write_text("echo mine\n")
    blockwright("fs", "put", f"{image}:1", mine, "/boot/grub/grub.cfg")
    blockwright("boot", "install", image, "grub", "--loader-dir", parts, "--keep-config")
    assert blockwright("fs", "cat", f"{image}:1", "/boot/grub/grub.cfg").stdout == b"echo mine\n"


@pytest.mark.parametrize(
    ("table", "pieces", "arguments", "code", "said"),
    [
        ("gpt", [Piece("ext4", 32, ("-O", "inline_data"))], ["syslinux"], 1, "SYSLINUX: on ext4 with inline_data"),
        ("gpt", [Piece("ext4", 32, ("-O", "bigalloc"))], ["syslinux"], 1, "SYSLINUX: on ext4 with bigalloc"),
        ("gpt", [Piece("ext4", 32, ("-O", "encrypt"))], ["syslinux"], 1, "SYSLINUX: on ext4 with encrypt"),
        ("mbr", [Piece("ext4", 32, ("-O", "inline_data"))], ["grub"], 1, "GRUB: on ext4 with inline_data"),
        ("mbr", [Piece("ext4", 32, ("-O", "ea_inode"))], ["grub"], 1, "GRUB: on ext4 with ea_inode"),
        ("mbr", [Piece("ext4", 32, ("-O", "casefold"))], ["grub"], 1, "GRUB: on ext4 with casefold"),
        ("gpt", [Piece("ext4", 32)], ["grub"], 5, "type bios-boot for GRUB"),
        ("gpt", [Piece("ext4", 32)], ["uki"], 5, "EFI system partition"),
        ("gpt", [Piece("ext4", 32), Piece("ext4", 32)], ["syslinux"], 2, "--root N"),
        ("gpt", [Piece("ext4", 32)], ["syslinux", "--partition", "7"], 5, "file system in partition 7"),
        ("gpt", [Piece("fat", 64)], ["syslinux"], 2, "say root=… in --cmdline"),
        ("gpt", [Piece("fat", 64, ("-S", "4096"))], ["syslinux"], 1, "in sectors of 512 bytes, found some of 4096"),
        ("gpt", [Piece("ext4", 32)], ["lilo"], 2, "found 'lilo'"),
        ("gpt", [Piece("ext4", 32)], ["none"], 2, "found none"),
        ("gpt", [Piece("ext4", 32)], ["grub", "--loader", "{kernel}"], 2, "use --loader-dir"),
        ("gpt", [Piece("fat", 64)], ["kernel", "--serial"], 2, "a bare kernel without a command line"),
    ],
)
@pytest.mark.slow
def test_what_cannot_start_is_refused_and_left_alone(
    parts: Path, tmp_path: Path, table: str, pieces: list[Piece], arguments: list[str], code: int, said: str
) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(bytes(0x202) + b"HdrS" + bytes(100))
    image = make_disk(tmp_path / "disk.img", table, pieces)
    before = hashlib.sha256(image.read_bytes()).digest()
    options = ["--kernel", kernel, "--loader-dir", parts]
    shown = [each.format(kernel=kernel) for each in arguments]
    done = blockwright("boot", "install", image, *shown, *options, code=code)
    assert said in done.stderr.decode()
    assert hashlib.sha256(image.read_bytes()).digest() == before


def test_a_kernel_is_needed_and_must_be_one(parts: Path, tmp_path: Path) -> None:
    image = make_disk(tmp_path / "disk.img", "mbr", [Piece("ext4", 32)])
    done = blockwright("boot", "install", image, "grub", "--loader-dir", parts, code=5)
    assert b"holds no kernel" in done.stderr
    (tmp_path / "text").write_text("no kernel")
    options = ["--kernel", tmp_path / "text", "--loader-dir", parts]
    assert b"bzImage" in blockwright("boot", "install", image, "grub", *options, code=1).stderr


def test_a_range_is_no_place_for_a_loader(tmp_path: Path) -> None:
    done = blockwright("boot", "install", f"{tmp_path}/x:0,512", "grub", code=2)
    assert b"found a range" in done.stderr


def chain_holds(disk: BlockDevice, start: int, parts: Syslinux) -> bool:
    """Whether the boot sector at ``start`` leads to a whole ldlinux.sys, as the loader reads it."""
    at, _, more = parts.areas()
    sector = disk.read(start, 512)
    [low] = struct.unpack_from("<I", sector, more.sector_low)
    image = disk.read(start + low * 512, 512)
    if image[at : at + 4] != MAGIC.to_bytes(4, "little"):
        return False
    for index in range(more.extent_count):
        if len(image) < more.extents + 10 * (index + 1):
            break
        lba, count = struct.unpack_from("<QH", image, more.extents + 10 * index)
        if not count or start + (lba + count) * 512 > disk.size:
            break
        image += disk.read(start + lba * 512, count * 512)
    [words] = struct.unpack_from("<I", image, at + 12)
    return words * 4 <= len(image) and bool(words) and word_sum(image[: words * 4]) == MAGIC


def test_power_cut_at_every_write_of_an_installation_over_another(parts: Path, tmp_path: Path) -> None:
    """The file system is sound by our check, and the loader that was there, or the new one, is whole."""
    image = install_small(tmp_path, parts, "gpt", [Piece("ext4", 16)], "syslinux")
    loader = found.syslinux([of_directory(str(parts))])
    kernel = named_kernel("vmlinuz", BytesContent((tmp_path / "vmlinuz").read_bytes()))
    request = Request(
        Ways(bios=Bios.SYSLINUX),
        kernel=kernel,
        shelves=(of_directory(str(parts)),),
        search_system=False,
        time_ns=10**18,
    )
    with MemoryDevice(content=image.read_bytes()) as before, CrashDevice(before, owns=False) as device:
        assert chain_holds(before, MIB, loader)
        install(device, "disk", request)
        assert chain_holds(device.cut(len(device.events)), MIB, loader)
        for what, disk in device.cuts(random.Random("boot"), torn_for_each=1):
            assert chain_holds(disk, MIB, loader), what
            with Window(disk, MIB, 16 * MIB, owns=False) as part:
                findings = check(part)
            assert not findings, f"{what}: {findings[:3]}"


def test_the_chain_can_be_found_broken(parts: Path, tmp_path: Path) -> None:
    image = install_small(tmp_path, parts, "gpt", [Piece("ext4", 16)], "syslinux")
    loader = found.syslinux([of_directory(str(parts))])
    data = bytearray(image.read_bytes())
    at = data.find(b"\r\nSYSLINUX 6") + 0x2000
    data[at] ^= 1
    assert not chain_holds(MemoryDevice(content=bytes(data)), MIB, loader)


def sparse_kernel(path: Path) -> Path:
    """What has the mark of a kernel, and a hole."""
    with path.open("wb") as file:
        file.write(bytes(0x202) + b"HdrS" + b"x" * 5000)
        file.truncate(1 << 20)
        file.seek(0, 2)
        file.write(b"end")
    path.chmod(0o640)
    return path


def allocated(image: Path, path: str) -> tuple[int, int, int]:
    """The size, the bytes that are allocated for it, and the permissions."""
    found = document("fs", "stat", f"{image}:1", path)
    return found["size"], found["allocated"], found["mode"] & 0o777


@pytest.mark.parametrize(("way", "filled"), [("syslinux", True), ("grub", False)])
def test_holes_of_a_kernel_are_filled_where_its_loader_cannot_read_them(
    parts: Path, tmp_path: Path, way: str, filled: bool
) -> None:
    root = tmp_path / "root"
    (root / "boot").mkdir(parents=True)
    kernel = sparse_kernel(root / "boot" / "vmlinuz-1")
    image = make_disk(tmp_path / "disk.img", "mbr", [Piece("ext4", 16)], root)
    assert allocated(image, "/boot/vmlinuz-1")[1] < 100_000
    built = tmp_path / "built.img"
    blockwright("build", root, "-o", built, "--table", "mbr", "--boot", way, "--loader-dir", parts)
    blockwright("boot", "install", image, way, "--loader-dir", parts)
    for made in (image, built):
        size, taken, mode = allocated(made, "/boot/vmlinuz-1")
        assert (taken >= size) == filled
        assert (size, mode) == ((1 << 20) + 3, 0o640)
        assert blockwright("fs", "cat", f"{made}:1", "/boot/vmlinuz-1").stdout == kernel.read_bytes()
        run([tool("e2fsck"), "-fn", volume(made, 1, made.stat().st_size // MIB - 1, tmp_path / "part")])


@pytest.mark.parametrize("path", ["../x", "/boot/./x", "boot//x"])
def test_a_directory_is_told_by_its_own_name(tmp_path, path):
    image = tmp_path / "disk.img"
    blockwright("fs", "mkfs", image, "--size", "8M", "-q")
    before = image.read_bytes()
    arguments = ("boot", "install", image, "syslinux", "--keep-config", "--directory", path)
    assert "expected a directory by its own name" in blockwright(*arguments, code=2).stderr.decode()
    assert image.read_bytes() == before
