"""Where loaders' files are looked for, what is found there, and what is said where nothing is."""

from pathlib import Path

import pytest

from blockwright.boot import loaders as find
from blockwright.boot.kinds import NONE, Bios, Uefi, Ways, parse_ways
from blockwright.boot.shelf import MAX_LOADER, of_directory, of_host, of_tree
from blockwright.errors import LimitExceeded, NotFound, NotThisFormat, UsageError
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory
from blockwright.tree.overlay import with_files
from tests.support import loaders


def put(top: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(content)
    return top


def test_extlinux_of_the_tree_comes_before_that_of_the_host(tmp_path: Path) -> None:
    put(tmp_path, {"usr/bin/extlinux": b"not this one"})
    tree = with_files(Directory(), {"usr/bin/extlinux": BytesContent(loaders.extlinux())}, mtime_ns=0)
    assert find.syslinux([of_tree(tree), of_host(str(tmp_path))]).image == loaders.ldlinux()
    with pytest.raises(NotThisFormat, match="expected the program extlinux"):
        find.syslinux([of_host(str(tmp_path))])


def test_the_three_files_of_a_directory_come_before_the_program(tmp_path: Path) -> None:
    names = {"ldlinux.bss": loaders.boot_sector(), "bios/core/ldlinux.sys": loaders.ldlinux(b"6.99")}
    put(tmp_path, {**names, "bios/com32/elflink/ldlinux/ldlinux.c32": loaders.module()})
    assert find.syslinux([of_directory(str(tmp_path))]).version == (6, 99)
    (tmp_path / "ldlinux.bss").unlink()
    put(tmp_path, {"extlinux": loaders.extlinux()})
    assert find.syslinux([of_directory(str(tmp_path))]).version == (6, 4)


def test_code_for_the_first_sector(tmp_path: Path) -> None:
    put(tmp_path, {"usr/lib/syslinux/mbr/gptmbr.bin": b"g" * 440, "usr/share/syslinux/mbr.bin": b"m" * 10})
    host = [of_host(str(tmp_path))]
    assert find.disk_code(host, "gpt") == b"g" * 440
    assert find.disk_code(host, "mbr") == b"m" * 10 + bytes(430)
    put(tmp_path, {"usr/lib/syslinux/mbr/gptmbr.bin": b"g" * 441})
    with pytest.raises(NotThisFormat, match="at most 440"):
        find.disk_code(host, "gpt")


def test_what_is_missing_is_named_with_its_places_and_its_package(tmp_path: Path) -> None:
    shelves = [of_tree(Directory()), of_host(str(tmp_path))]
    for looked, words in (
        (lambda: find.syslinux(shelves), ("usr/bin/extlinux", "package extlinux")),
        (lambda: find.grub(shelves), ("usr/lib/grub/i386-pc/kernel.img", "package grub-pc-bin")),
        (lambda: find.disk_code(shelves, "gpt"), ("syslinux/mbr/gptmbr.bin", "package syslinux-common")),
        (lambda: find.uefi(shelves, Uefi.UKI, "AA64"), ("linuxaa64.efi.stub", "package systemd-boot-efi")),
        (lambda: find.uefi(shelves, Uefi.GRUB, "X64"), ("monolithic/grubx64.efi", "package grub-efi-amd64-bin")),
    ):
        with pytest.raises(NotFound) as caught:
            looked()
        for word in (*words, "in the tree", str(tmp_path), "--loader-dir"):
            assert word in str(caught.value)
    with pytest.raises(NotFound, match="no image for UEFI on ALPHA"):
        find.uefi(shelves, Uefi.GRUB, "ALPHA")
    with pytest.raises(NotFound, match="no such directory"):
        of_directory(str(tmp_path / "nowhere"))


def test_grub_is_read_from_one_directory(tmp_path: Path) -> None:
    put(tmp_path, {f"i386-pc/{name}": content for name, content in loaders.grub_files().items()})
    found = find.grub([of_directory(str(tmp_path))])
    assert found.part("diskboot.img") == b"d" * 512
    with pytest.raises(NotFound, match=r"holds no zfs\.mod"):
        found.part("zfs.mod")


def test_files_that_cannot_be_a_loader(tmp_path: Path) -> None:
    host = of_host(str(tmp_path))
    (tmp_path / "usr/bin/extlinux").mkdir(parents=True)
    assert host.read("usr/bin/extlinux") is None
    assert host.read("usr/bin/extlinux/below") is None
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(MAX_LOADER + 1)
    with pytest.raises(LimitExceeded):
        host.read("large")


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("none", NONE),
        ("grub", Ways(bios=Bios.GRUB)),
        ("uki", Ways(uefi=Uefi.UKI)),
        ("syslinux,systemd-boot", Ways(Bios.SYSLINUX, Uefi.SYSTEMD_BOOT)),
        ("kernel,grub", Ways(Bios.GRUB, Uefi.KERNEL)),
    ],
)
def test_ways_by_name(text: str, ways: Ways) -> None:
    assert parse_ways(text) == ways
    assert bool(ways) == (text != "none")


@pytest.mark.parametrize("text", ["", "lilo", "grub,syslinux", "uki,kernel", "grub,grub", "none,grub", "grub,"])
def test_ways_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="boot: expected"):
        parse_ways(text)
