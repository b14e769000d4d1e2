"""Disks of listed partitions, by the command, as others read them."""

import base64
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from blockwright.units import MiB
from tests.support.command import blockwright, document
from tests.support.loops import needs_loop
from tests.support.tools import run, tool


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("etc/hostname", "home/me/notes", "home/.keep", "boot/loader/entry", "var/lib/db/x"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def sfdisk(image: Path) -> list[dict]:
    return json.loads(run([tool("sfdisk"), "--json", image]).stdout)["partitiontable"]["partitions"]


def listed(image: Path, part: int) -> set[str]:
    return set(blockwright("fs", "ls", "-R", f"{image}:{part}", "/").stdout.decode().split("\n")) - {"", "lost+found"}


def cut(image: Path, part: int, to: Path) -> Path:
    where = sfdisk(image)[part - 1]
    with open(image, "rb") as disk:
        disk.seek(where["start"] * 512)
        to.write_bytes(disk.read(where["size"] * 512))
    return to


TOML = """\
sources = ["root"]
size = "300M"

[[partition]]
type = "esp"
size = "34M"
mount = "/boot"

[[partition]]
mount = "/"
attributes = ["growfs"]
label = "system"

[[partition]]
mount = "/home"
size = "rest"
file-system = "ext3"
weight = 2000
minimum = "20M"

[[partition]]
mount = "/var/lib"
size = "rest"
file-system = "ext2"
maximum = "64M"
directories = ["/empty/deep"]

[[partition]]
type = "swap"
size = "8M"
label = "pages"
file-system-uuid = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

[[partition]]
size = "3M"
image = "blob"
name = "firmware"
type = "11111111-2222-3333-4444-555555555555"
uuid = "21111111-2222-3333-4444-555555555555"
"""


@pytest.mark.slow
def test_one_tree_over_several_partitions(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "disk.toml").write_text(TOML)
    (tmp_path / "blob").write_bytes(blob := random.Random(1).randbytes(3 * MiB))
    image = tmp_path / "disk.img"
    blockwright("build", "-f", tmp_path / "disk.toml", "-o", image)
    blockwright("check", image)
    assert b"No problems found" in run([tool("sgdisk"), "-v", image]).stdout.encode()
    parts = sfdisk(image)
    assert [each.get("name") for each in parts] == ["boot", "system", "home", "lib", "pages", "firmware"]
    assert [each["size"] * 512 // MiB for each in parts] == [
        34,
        parts[1]["size"] // 2048,
        parts[2]["size"] // 2048,
        64,
        8,
        3,
    ]
    assert parts[1]["attrs"] == "GUID:59"
    assert parts[5]["uuid"] == "21111111-2222-3333-4444-555555555555"
    assert parts[-1]["start"] + parts[-1]["size"] > (300 - 2) * 2048
    assert listed(image, 1) == {"loader", "loader/entry"}
    assert listed(image, 2) == {"boot", "etc", "etc/hostname", "home", "var", "var/lib"}
    assert listed(image, 3) == {".keep", "me", "me/notes"}
    assert listed(image, 4) == {"db", "db/x", "empty", "empty/deep"}
    assert cut(image, 6, tmp_path / "cut").read_bytes() == blob
    run([tool("fsck.fat"), "-n", cut(image, 1, tmp_path / "cut")])
    for number in (2, 3, 4):
        run([tool("e2fsck"), "-fn", cut(image, number, tmp_path / "cut")])
    swap = cut(image, 5, tmp_path / "cut")
    told = run([tool("swaplabel"), swap]).stdout
    assert "pages" in told
    assert "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee" in told
    # What flags say reads back as the same disk, byte for byte.
    written = blockwright("build", "-f", tmp_path / "disk.toml", "--print-definition").stdout
    (tmp_path / "again.toml").write_bytes(written)
    blockwright("build", "-f", tmp_path / "again.toml", "-o", tmp_path / "again.img")
    assert (tmp_path / "again.img").read_bytes() == image.read_bytes()


def test_swap_is_what_mkswap_writes(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    words = "file-system=swap,size=1M,label=swäp,file-system-uuid=aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
    blockwright("build", "--table", "none", "--partition", words, "-o", ours)
    theirs.write_bytes(bytes(MiB))
    run([tool("mkswap"), "-q", "-p", "4096", "-L", "swäp", "-U", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", theirs])
    assert ours.read_bytes() == theirs.read_bytes()
    blockwright("build", "--table", "none", "--partition", "file-system=swap,size=36k", "-o", tmp_path / "x", code=2)


@needs_loop
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root")
def test_the_kernel_swaps_to_it(tmp_path: Path) -> None:
    image = tmp_path / "swap"
    blockwright("build", "--table", "none", "--partition", "file-system=swap,size=1M", "-o", image)
    device = run([tool("losetup"), "--find", "--show", image]).stdout.strip()
    try:
        done = subprocess.run([tool("swapon"), device], capture_output=True, text=True, check=False)
        if "not permitted" in done.stderr:
            pytest.skip(done.stderr)
        assert done.returncode == 0, done.stderr
        assert device in Path("/proc/swaps").read_text()
        run([tool("swapoff"), device])
    finally:
        run([tool("losetup"), "--detach", device])


def test_flags_and_the_file_make_the_same_disk(tree: Path, tmp_path: Path) -> None:
    flags = [
        "--size",
        "64M",
        "--table",
        "mbr",
        "--label",
        "x",
        "--journal-size",
        "0",
        "--reserved",
        "3%",
        "--inodes",
        "99",
    ]
    text = (
        'size = "64M"\ntable = "mbr"\nlabel = "x"\njournal-size = 0\nreserved = 0.03\ninodes = 99\nsources = "root"\n'
    )
    (tmp_path / "disk.toml").write_text(text + 'output = "b.img"\nformat = "raw"\n')
    blockwright("build", tree, *flags, "-o", tmp_path / "a.img")
    assert blockwright("build", "-f", tmp_path / "disk.toml").stdout.decode().strip() == str(tmp_path / "b.img")
    assert (tmp_path / "a.img").read_bytes() == (tmp_path / "b.img").read_bytes()
    blockwright("build", "-f", tmp_path / "disk.toml", "--label", "y", "-o", tmp_path / "c.img")
    assert b"y" in run([tool("e2label"), cut(tmp_path / "c.img", 1, tmp_path / "cut")]).stdout.encode()


def test_logical_partitions_and_the_dry_run(tree: Path, tmp_path: Path) -> None:
    words = [word for number in range(4) for word in ("--partition", f"size={number + 1}M,type=0x8{number % 2 + 2}")]
    flags = ["--table", "mbr", "--disk-id", "0xdeadbeef", "--partition", "mount=/,attributes=active", *words]
    told = document("build", tree, *flags, "--dry-run")
    blockwright("build", tree, *flags, "-o", tmp_path / "disk.img")
    parts = sfdisk(tmp_path / "disk.img")
    assert [each["type"] for each in parts] == ["83", "82", "83", "f", "82", "83"]
    assert parts[0]["bootable"]
    numbers = [each["partition"]["number"] for each in told["parts"]]
    assert numbers == [1, 2, 3, 5, 6]
    starts = [each["start"] for each in told["parts"]]
    assert starts == [each["start"] * 512 for each in parts if each["type"] != "f"]
    blockwright("check", tmp_path / "disk.img")
    script = run([tool("sfdisk"), "--dump", tmp_path / "disk.img"]).stdout
    assert "0xdeadbeef" in script
    # The same script, written by sfdisk: the same partitions by our reader.
    other = tmp_path / "other.img"
    other.write_bytes(bytes(os.path.getsize(tmp_path / "disk.img")))
    run([tool("sfdisk"), "--quiet", other], input=script)
    ours, theirs = (document("disk", "table", name) for name in (tmp_path / "disk.img", other))
    assert {**ours, "image": ""} == {**theirs, "image": ""}


def test_two_tebibytes_are_the_end_of_an_mbr(tree: Path, tmp_path: Path) -> None:
    flags = ["--table", "mbr", "--size", "3T", "--partition", "mount=/", "--partition", "size=rest,type=0x83"]
    said = blockwright("build", tree, *flags, "-o", tmp_path / "disk.img", code=2).stderr.decode()
    assert "partition 2: expected a start and a size of at most 4294967295 sectors" in said
    assert not (tmp_path / "disk.img").exists()


def test_hybrid_by_key_and_by_command(tree: Path, tmp_path: Path) -> None:
    words = ["--seed", "x", "--partition", "type=esp,size=34M", "--partition", "mount=/,attributes=legacy-boot"]
    plain = words
    hybrid = [*words[:3], f"{words[3]},hybrid=0x0c", words[4], f"{words[5]},hybrid=linux"]
    blockwright("build", tree, *hybrid, "-o", tmp_path / "a.img")
    blockwright("build", tree, *plain, "-o", tmp_path / "b.img")
    blockwright("disk", "hybrid", tmp_path / "b.img", "1:0x0c", "2", "--active", "2")
    assert (tmp_path / "a.img").read_bytes() == (tmp_path / "b.img").read_bytes()
    told = run([tool("fdisk"), "-l", "-t", "mbr", tmp_path / "a.img"]).stdout
    assert [line.split()[-1] for line in told.splitlines() if "img" in line][-3:] == ["GPT", "(LBA)", "Linux"]
    verdict = run([tool("sgdisk"), "-v", tmp_path / "a.img"]).stdout
    assert "No problems found" in verdict
    blockwright("check", tmp_path / "a.img")
    # gdisk makes the same partitions hybrid ones.
    run([tool("sgdisk"), "--hybrid=1:2", tmp_path / "b.img"])
    blockwright("check", tmp_path / "b.img")
    blockwright("disk", "hybrid", tmp_path / "b.img", "--clear")
    assert run([tool("sgdisk"), "-p", tmp_path / "b.img"]).stdout.count("\n") > 5
    for wrong in (["9"], ["1:0xee"], ["1", "1"], ["x"], [], ["1", "--active", "2"]):
        code = 5 if wrong == ["9"] else 2
        blockwright("disk", "hybrid", tmp_path / "b.img", *wrong, code=code)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["mount=/home"], 2, 'expected a partition to mount at "/"'),
        (["mount=/", "mount=/etc/hostname"], 2, "/etc/hostname: expected a directory to mount at"),
        (["mount=/,size=1M", "size=1M"], 1, "partition '/': ext4: the content does not fit the size: needs"),
        (["size=1M,type=home"], 2, "expected a partition with a mount point"),
        (["mount=/,files=nowhere:/x"], 5, "nowhere: no such file"),
        (["mount=/,start=0"], 1, "partition 1: expected to start at byte"),
        (["mount=/,type=nonsense"], 2, "partition type 'nonsense'"),
        (["mount=/", "hashes=true"], 2, "expected verity, and one partition for its hashes"),
    ],
)
def test_what_cannot_be_made_leaves_nothing(
    tree: Path, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    (tree / "big").write_bytes(random.Random(2).randbytes(3 * MiB))
    flags = [flag for word in words for flag in ("--partition", word)]
    done = blockwright("build", tree, *flags, "-o", tmp_path / "disk.img", code=code)
    assert said in done.stderr.decode()
    assert not (tmp_path / "disk.img").exists()


def test_a_compressed_source_for_several_partitions(tree: Path, tmp_path: Path) -> None:
    run([tool("tar"), "-C", tree, "-czf", tmp_path / "root.tgz", "."])
    flags = ["--seed", "x", "--partition", "mount=/home,size=8M", "--partition", "mount=/"]
    blockwright("build", tmp_path / "root.tgz", *flags, "-o", tmp_path / "disk.img")
    blockwright("check", tmp_path / "disk.img")
    assert blockwright("fs", "cat", f"{tmp_path}/disk.img:1", "/me/notes").stdout == b"home/me/notes"
    assert listed(tmp_path / "disk.img", 2) >= {"etc/hostname", "var/lib/db/x"}


def test_what_changes_a_tree_has_its_keys_and_fstab_its_lines(tree: Path, tmp_path: Path) -> None:
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)
    (tmp_path / "keys").write_text(f"ssh-ed25519 {base64.b64encode(blob).decode()} me\n")
    (tmp_path / "root" / "x.pyc").write_text("gone")
    (tmp_path / "root" / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    text = 'sources = "root"\noutput = "o.img"\nsize = "64M"\nowner = "0:0"\nexclude = ["*.pyc"]\nfstab = true\n'
    text += 'authorized-keys = ["keys"]\n[[partition]]\nmount = "/home"\n[[partition]]\nmount = "/"\n'
    (tmp_path / "disk.toml").write_text(text + '[[partition]]\ntype = "swap"\nsize = "1M"\n')
    blockwright("build", "-f", tmp_path / "disk.toml")
    image = tmp_path / "o.img"
    parts = sfdisk(image)
    told = blockwright("fs", "cat", f"{image}:2", "/etc/fstab").stdout.decode().splitlines()[1:]
    names = [f"PARTUUID={parts[number]['uuid'].lower()}" for number in (1, 0, 2)]
    assert [line.split()[:2] for line in told] == [[names[0], "/"], [names[1], "/home"], [names[2], "none"]]
    assert b"x.pyc" not in blockwright("fs", "ls", f"{image}:2", "/").stdout
    assert blockwright("fs", "cat", f"{image}:2", "/root/.ssh/authorized_keys").stdout.startswith(b"ssh-ed25519")
    (tmp_path / "again.toml").write_bytes(
        blockwright("build", "-f", tmp_path / "disk.toml", "--print-definition").stdout
    )
    before = image.read_bytes()
    blockwright("build", "-f", tmp_path / "again.toml", "--force")
    assert image.read_bytes() == before
    (tmp_path / "disk.toml").write_text(text.replace("fstab = true", 'fstab = "yes"'))
    said = blockwright("build", "-f", tmp_path / "disk.toml", "--force", code=1).stderr
    assert b"disk.toml:6: fstab: expected true or false" in said
