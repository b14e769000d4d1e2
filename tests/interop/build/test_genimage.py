"""genimage's files: the same tables as genimage makes, and what is refused or told."""

import json
import random
from pathlib import Path

import pytest

from blockwright.build.read import read_definition
from blockwright.errors import BlockwrightError
from tests.support.command import blockwright
from tests.support.tools import run, tool

MBR = """\
/* a board */
image boot.vfat {
  vfat {
    label = "BOOT"
    files = { "zImage" }
    file boot/dtb.bin { image = "zImage" }
  }
  size = 32M
}
image root.ext4 { ext4 { label = "rootfs" } size = 60M }  # the root
image sdcard.img {
  hdimage { disk-signature = 0x12345678 }
  partition u-boot { in-partition-table = "no" offset = 8K image = "u-boot.bin" }
  partition boot { partition-type = 0xC bootable = "true" image = "boot.vfat" offset = 1M }
  partition rootfs { partition-type = 0x83 image = "root.ext4" }
  partition data { partition-type = 0x83 size = 7M }
  partition d2 { partition-type = 0x83 size = 3000s }
  partition d3 { partition-type = 0x82 size = 4M }
}
"""
GPT = """\
include("images.cfg")
image disk.img {
  size = 200M
  hdimage { partition-table-type = "gpt" align = 1M disk-uuid = "11111111-2222-3333-4444-555555555555" }
  partition esp { partition-type-uuid = U image = "boot.vfat" bootable = true
                  partition-uuid = "21111111-2222-3333-4444-555555555555" }
  partition root { image = "root.ext4" partition-uuid = "31111111-2222-3333-4444-555555555555" }
  partition raw { image = "raw.bin" partition-uuid = "41111111-2222-3333-4444-555555555555" }
  partition swap { partition-type-uuid = S size = 5M partition-uuid = "51111111-2222-3333-4444-555555555555" }
  partition home { partition-type-uuid = H autoresize = true partition-uuid = "61111111-2222-3333-4444-555555555555" }
}
"""
BARE = """\
image small.img {
  hdimage {}
  partition one { partition-type = 0x83 size = 1M }
  partition two { partition-type = 0xDA image = "raw.bin" }
  partition three { partition-type = 0x83 size = 64K offset = 4M }
}
"""
EXTENDED = """\
image e.img {
  hdimage { extended-partition = 4 disk-signature = 0x1 }
  partition one { partition-type = 0x83 size = 1M }
  partition two { partition-type = 0x83 size = 1M }
  partition three { partition-type = 0x83 size = 1M }
  partition four { partition-type = 0x82 size = 2M }
}
"""
HYBRID = """\
image h.img {
  hdimage { partition-table-type = hybrid align = 64K }
  partition one { partition-type = 0x0c bootable = true size = 1M
                  partition-uuid = "21111111-2222-3333-4444-555555555555" }
  partition two { size = 2M partition-uuid = "31111111-2222-3333-4444-555555555555" }
  partition three { partition-type = 0x83 size = 2M partition-uuid = "41111111-2222-3333-4444-555555555555" }
}
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    for name in ("input", "root/etc", "root/home/me", "images"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/etc/hostname").write_text("board")
    (tmp_path / "root/home/me/notes").write_text("notes")
    (tmp_path / "input/zImage").write_text("kernel")
    (tmp_path / "input/u-boot.bin").write_bytes(random.Random(1).randbytes(300_000))
    (tmp_path / "input/raw.bin").write_bytes(random.Random(2).randbytes(300_032))
    return tmp_path


def table(image: Path) -> dict:
    told = json.loads(run([tool("sfdisk"), "--json", image]).stdout)["partitiontable"]
    for each in told["partitions"]:
        del each["node"]
    return {key: told[key] for key in ("label", "sectorsize", "partitions")}


@pytest.mark.slow
@pytest.mark.parametrize("text", [MBR, GPT, BARE, HYBRID, EXTENDED], ids=["mbr", "gpt", "bare", "hybrid", "extended"])
def test_the_table_is_genimages(board: Path, text: str) -> None:
    (board / "images.cfg").write_text(MBR.partition("image sdcard")[0])
    (board / "board.cfg").write_text(text)
    words = ["--config", "board.cfg", "--rootpath", "root", "--tmppath", "tmp", "--includepath", board]
    run([tool("genimage"), *words, "--inputpath", "input", "--outputpath", "images"], cwd=board)
    image = next(each for each in (board / "images").iterdir() if each.suffix == ".img")
    blockwright("build", "-f", board / "board.cfg", "-o", board / "ours.img")
    assert table(board / "ours.img") == table(image)
    blockwright("check", board / "ours.img")
    if text is not MBR:
        return
    ours = f"{board}/ours.img"
    assert blockwright("fs", "ls", "-R", f"{ours}:1", "/").stdout.split() == [b"boot", b"boot/dtb.bin", b"zImage"]
    assert blockwright("fs", "cat", f"{ours}:2", "/home/me/notes").stdout == b"notes"
    loader = (board / "input/u-boot.bin").read_bytes()
    for disk in (board / "ours.img", image):
        assert disk.read_bytes()[8192 : 8192 + len(loader)] == loader


def test_mount_points_split_the_tree(board: Path) -> None:
    images = 'image a { ext4 {} size = 8M }\nimage b { ext2 {} size = 200% mountpoint = "/home" }\n'
    disk = "image d { hdimage {} partition a { image = a } partition b { image = b } }\n"
    (board / "board.cfg").write_text(images + disk)
    blockwright("build", "-f", board / "board.cfg", "-o", board / "ours.img")
    assert blockwright("fs", "ls", "-R", f"{board}/ours.img:1", "/").stdout.split() == [
        b"etc",
        b"etc/hostname",
        b"home",
        b"lost+found",
    ]
    assert b"me/notes" in blockwright("fs", "ls", "-R", f"{board}/ours.img:2", "/").stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("size = 7M", "size = 7M\n holes = {}", "holes: asks for what cannot be made here"),
        ("size = 7M", "size = 7M\n colour = red", "colour: is not known in partition"),
        ('ext4 { label = "rootfs" }', "squashfs {}", "found squashfs, which cannot be made"),
        ('label = "rootfs"', '\nextraargs = "-O x"', "extraargs: asks for what cannot be made here"),
        ('label = "rootfs"', '\nfeatures = "^64bit"', "features: asks for what cannot be made here"),
        ("size = 60M", 'size = 60M\n exec-pre = "rm -rf /"', "exec-pre: asks for a program to run"),
        ("disk-signature = 0x12345678", "\npartition-table-type = none", "asks for a table of kind none"),
        ("disk-signature = 0x12345678", "gpt = true gpt-location = 1M", "asks for a GPT elsewhere"),
        ("image sdcard.img", "flash f {}\nimage sdcard.img", "asks for a flash chip"),
        ('image = "u-boot.bin"', 'image = "${HOME}"', "expected no variable of the environment"),
        ('image = "u-boot.bin"', 'image = "nowhere"', "nowhere: no such file"),
        ("size = 4M }", "size = 4M", "expected a brace that closes it"),
        ("size = 7M", "size = 7X", "size: size '7X'"),
        ("offset = 8K", "offset = 64", "expected bytes 64 to"),
    ],
)
def test_what_cannot_be_made_is_named_with_its_line(board: Path, old: str, new: str, said: str) -> None:
    assert old in MBR
    (board / "board.cfg").write_text(MBR.replace(old, new))
    if "offset" not in old:
        with pytest.raises(BlockwrightError) as caught:
            read_definition(str(board / "board.cfg"))
        assert said in str(caught.value)
        assert "board.cfg:" in str(caught.value)
        return
    done = blockwright("build", "-f", board / "board.cfg", "-o", board / "ours.img", code=1)
    assert said in done.stderr.decode()
    assert not (board / "ours.img").exists()
