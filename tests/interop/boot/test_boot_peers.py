"""What we make of loaders' parts beside what their own installers make: extlinux, grub-mkimage; objcopy reads it."""

import lzma
import os
import random
import struct
from pathlib import Path

import pytest

from blockwright.boot import loaders as found
from blockwright.boot.grub import MODULES
from blockwright.boot.shelf import of_directory
from blockwright.boot.syslinux import on_ext
from blockwright.boot.uki import assemble
from blockwright.device.file import open_path
from blockwright.device.window import Window
from blockwright.fs.ext4 import read as ext4
from blockwright.tree.content import BytesContent
from tests.support.loaders import debian_loaders
from tests.support.tools import run, tool


@pytest.mark.parametrize("block_size", [1024, 4096])
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a file")
def test_extlinux_installs_the_same_bytes(tmp_path: Path, block_size: int) -> None:
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(48 << 20)
    mounted.mkdir()
    run([tool("mke2fs"), "-q", "-F", "-t", "ext4", "-b", str(block_size), image])
    run([tool("mount"), "-o", "loop", image, mounted])
    try:
        (mounted / "boot").mkdir()
        run([tool("extlinux"), "--install", mounted / "boot"])
    finally:
        run([tool("umount"), mounted])
    parts = found.syslinux([of_directory(str(debian_loaders(tmp_path / "loaders", "extlinux")))])
    with open_path(image) as device:
        sector = device.read(0, 512)
        with ext4.open(Window(device, 0, device.size, owns=False)) as files:
            inode = files.resolve(b"/boot/ldlinux.sys")
            with files.open_inode(inode) as file:
                theirs = file.read(0, file.size)
            ours = parts.install(files.placement(inode), "/boot")
            with files.open(b"/boot/ldlinux.c32") as file:
                assert file.read(0, file.size) == parts.module
    assert theirs == ours.image
    assert sector == on_ext(ours.boot_sector, start=0, size=48 << 20)


@pytest.mark.ci
def test_grub_mkimage_packs_the_same_payload(tmp_path: Path) -> None:
    directory = debian_loaders(tmp_path / "loaders", "i386-pc")
    ours = found.grub([of_directory(str(directory))])
    prefix, core = "(,gpt2)/boot/grub", tmp_path / "core.img"
    options = ["-O", "i386-pc", "-d", directory / "i386-pc", "-p", prefix, "-o", core]
    run([tool("grub-mkimage"), *options, *MODULES])
    theirs = core.read_bytes()
    packed, unpacked, _ = struct.unpack_from("<III", theirs, 512 + 8)
    start = 512 + len(ours.part("lzma_decompress.img"))
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}]
    payload = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(
        theirs[start : start + packed], unpacked
    )
    assert payload == ours.payload(prefix)
    made = ours.core(prefix)
    assert made[:508] == theirs[:508]  # behind it is how long the core is
    assert made[512 + 0x14 : start] == theirs[512 + 0x14 : start]
    assert len(made) < len(theirs) * 1.01


def test_objcopy_takes_the_sections_out_of_an_image(tmp_path: Path) -> None:
    stub = debian_loaders(tmp_path / "loaders", "linuxx64.efi.stub") / "linuxx64.efi.stub"
    sections = {
        ".linux": BytesContent(random.Random(1).randbytes(100_001)),
        ".initrd": BytesContent(random.Random(2).randbytes(70_000)),
        ".cmdline": BytesContent(b"quiet"),
        ".osrel": BytesContent(b"ID=test\n"),
    }
    content = assemble(stub.read_bytes(), sections, "stub")
    image, part = bytearray(content.size), tmp_path / "part"
    content.read_into(0, memoryview(image))
    (tmp_path / "image.efi").write_bytes(image)
    for name, wanted in sections.items():
        run([tool("objcopy"), "-O", "binary", f"--only-section={name}", tmp_path / "image.efi", part])
        assert part.read_bytes().rstrip(b"\0") == wanted.data.rstrip(b"\0")
    for name in (".text", ".data"):  # the stub's own are where they were
        run([tool("objcopy"), "-O", "binary", f"--only-section={name}", tmp_path / "image.efi", part])
        mine = part.read_bytes()
        run([tool("objcopy"), "-O", "binary", f"--only-section={name}", stub, part])
        assert mine == part.read_bytes()
