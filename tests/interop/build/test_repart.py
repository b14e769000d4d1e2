"""repart.d's files: the same table as systemd-repart makes, and what is refused or told."""

import os
import random
import re
from pathlib import Path

import pytest

from blockwright.build.read import read_definition
from blockwright.errors import FormatError
from blockwright.table.gpt.names import TYPES as GPT_TYPES
from tests.support.command import blockwright
from tests.support.tools import run, tool

RANDOM = 4
TYPES = ["linux-generic", "home", "srv", "var", "swap", "esp", "root-x86-64", "root-x86-64-verity"]


def definitions(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def random_files(source: random.Random) -> dict[str, str]:
    files = {}
    for number in range(source.randint(1, 7)):
        lines = [
            "[Partition]",
            f"Type={source.choice(TYPES)}",
        ]
        least = 0
        if source.random() < 0.6:
            lines.append(f"Weight={source.choice([0, 1, 333, 1000, 2000, 777777, 10])}")
        if source.random() < 0.5:
            least = source.randint(1, 60 << 20)
            lines.append(f"SizeMinBytes={least}")
        if source.random() < 0.4:
            lines.append(f"SizeMaxBytes={max(least, source.randint(11 << 20, 200 << 20))}")
        if source.random() < 0.3:
            lines.append(f"PaddingWeight={source.choice([0, 50, 1000])}")
        if source.random() < 0.2:
            lines.append(f"PaddingMinBytes={source.randint(0, 9 << 20)}")
        elif source.random() < 0.2:
            lines.append(f"PaddingMaxBytes={source.randint(0, 9 << 20)}")
        marks = [key for key in ("ReadOnly", "NoAuto") if source.random() < 0.2]
        lines += [f"{key}={source.choice(['yes', 'no'])}" for key in marks]
        if source.random() < 0.2:
            lines.append(f"Label={source.choice(TYPES)}")
        files[f"{number:02}.conf"] = "\n".join(lines) + "\n"
    return files


def table(image: Path) -> list[str]:
    lines = run([tool("sfdisk"), "--dump", image]).stdout.splitlines()
    return [re.sub(r"uuid=[^,]*, ?", "", line.partition(":")[2]) for line in lines if "start=" in line]


def by_repart(folder: Path, image: Path, size: str) -> list[str]:
    words = ["--dry-run=no", "--empty=create", f"--size={size}", f"--definitions={folder}", f"--seed={'0' * 31}1"]
    run([tool("systemd-repart"), *words, image])
    return table(image)


REAL = {
    "10-esp.conf": "[Partition]\nType=esp\nSizeMinBytes=64M\nSizeMaxBytes=64M\n",
    "20-root.conf": "[Partition]\n# a comment\nType=root-x86-64\nLabel=my root\nWeight=2000\nPaddingMinBytes=1M\n",
    "25-var.conf": "[Partition]\nType=var\nSizeMinBytes=100M\nUUID=11111111-2222-3333-4444-555555555555\n",
    "30-home.conf": "[Partition]\nType=home\nWeight=333\nPaddingWeight=100\nReadOnly=yes\n",
    "35-masked.conf": "",
    "40-swap.conf": "[Partition]\nType=swap\nSizeMaxBytes=64M\nNoAuto=yes\nPriority=1\n",
}


@pytest.mark.slow
def test_every_type_has_the_marks_and_the_label_that_are_systemd_reparts(tmp_path: Path) -> None:
    """By UUID, since the program has names for fewer than there are here."""
    marks = "ReadOnly=yes\nNoAuto=yes\nGrowFileSystem=yes\n"
    sizes = "SizeMinBytes=10M\nSizeMaxBytes=10M\n"
    files = {
        f"{number:02}{more[:1]}.conf": f"[Partition]\nType={each}\n{sizes}{more}"
        for number, each in enumerate([*GPT_TYPES.values(), "11111111-2222-3333-4444-555555555555"])
        for more in ("", marks)
    }
    folder = definitions(tmp_path / "repart.d", files)
    done = blockwright("build", "-f", folder, "--size", "1200M", "-o", tmp_path / "ours.img")
    assert b"00R.conf:6: NoAuto: has no effect on a partition of type esp" in done.stderr
    ours = table(tmp_path / "ours.img")
    assert len(ours) == len(files)
    assert ours == by_repart(folder, tmp_path / "theirs.img", "1200M")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, *range(RANDOM)])
def test_the_table_is_systemd_reparts(tmp_path: Path, seed: int | None) -> None:
    source = random.Random(seed)
    files = random_files(source)
    size = source.choice(["300M", "1G", "5G", "777M"])
    if seed is None:
        files, size = {name: text for name, text in REAL.items() if text}, "1G"
    folder = definitions(tmp_path / "repart.d", files)
    if seed is None:
        (folder / "35-masked.conf").symlink_to(os.devnull)
        (folder / "README").write_text("not a definition")
    blockwright("build", "-f", folder, "--size", size, "-o", tmp_path / "ours.img")
    assert table(tmp_path / "ours.img") == by_repart(folder, tmp_path / "theirs.img", size)


def test_files_are_put_into_file_systems(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "hello").write_text("hello")
    (tmp_path / "blob").write_bytes(random.Random(1).randbytes(8192))
    files = {
        "1.conf": f"[Partition]\nType=esp\nFormat=vfat\nCopyFiles={tree}:/EFI\nSizeMinBytes=40M\nSizeMaxBytes=40M\n",
        "2.conf": f"[Partition]\nCopyFiles={tree}:/\\\n  \nMakeDirectories=/usr/x /home\nMinimize=best\n",
        "3.conf": f"[Partition]\nType=linux-generic\nCopyBlocks={tmp_path}/blob\nSplitName=-\n",
        "4.conf": "[Partition]\nType=swap\nFormat=swap\nLabel=the swap\n",
    }
    done = blockwright("build", "-f", definitions(tmp_path / "repart.d", files), "-o", tmp_path / "disk.img")
    assert b"3.conf:4: SplitName: has no effect" in done.stderr
    image = tmp_path / "disk.img"
    blockwright("check", image)
    assert blockwright("fs", "cat", f"{image}:1", "/EFI/hello").stdout == b"hello"
    assert blockwright("fs", "ls", f"{image}:2", "/").stdout.split() == [b"hello", b"home", b"lost+found", b"usr"]
    assert b"the swap" in image.read_bytes()


def test_data_and_hash_are_the_root_and_its_hashes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "hello").write_text("hello")
    files = {
        "1.conf": f"[Partition]\nType=root-x86-64\nCopyFiles={tree}:/\nVerity=data\nVerityMatchKey=r\nMinimize=1\n",
        "2.conf": "[Partition]\nType=root-x86-64-verity\nVerity=hash\nVerityMatchKey=r\n",
    }
    done = blockwright("build", "-f", definitions(tmp_path / "repart.d", files), "-o", tmp_path / "disk.img")
    assert b"UUIDs follow from the root hash" in done.stderr
    blockwright("check", tmp_path / "disk.img")
    (tmp_path / "repart.d" / "2.conf").unlink()
    said = blockwright("build", "-f", tmp_path / "repart.d", "-o", tmp_path / "x.img", code=1).stderr
    assert b"Verity: expected one data and one hash" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Encrypt=key-file", "Encrypt: asks for a volume that is encrypted"),
        ("EncryptedVolume=x", "EncryptedVolume: asks for volumes that are encrypted, which cannot be made"),
        ("Format=btrfs", "Format: expected one of ext2, ext3, ext4, vfat, swap, found 'btrfs'"),
        ("Verity=signature", "Verity: expected off, data or hash"),
        ("CopyBlocks=auto", "CopyBlocks: expected a file, found auto"),
        ("ExcludeFiles=/x", "ExcludeFiles: asks for excludes"),
        ("Subvolumes=/x", "Subvolumes: asks for subvolumes"),
        ("Label=%m", "Label: expected no specifier but %%"),
        ("UUID=null", "UUID: expected a UUID, found null"),
        ("Weight=-1", "Weight: expected a weight"),
        ("SizeMinBytes=many", "SizeMinBytes: size 'many'"),
        ("Typ=esp", "Typ: is not known: did you mean Type?"),
        ("Type=moon", "Type: expected a type that is known, or a UUID"),
        ("Flags=0x10000000000000000", "expected 64 bits"),
        ("nonsense", "expected Key=Value within [Partition]"),
        ("[Match]", "[Match]: expected [Partition]"),
    ],
)
def test_what_cannot_be_made_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    folder = definitions(tmp_path / "repart.d", {"10.conf": f"[Partition]\n\nLabel=x\n{line}\n"})
    with pytest.raises(FormatError) as caught:
        read_definition(str(folder))
    assert str(caught.value).startswith(f"{folder}/10.conf:4: ")
    assert said in str(caught.value)
