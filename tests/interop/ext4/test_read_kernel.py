"""What Linux wrote, our reader shows as Linux does, and our check finds nothing; needs root for the mounts.

Nothing here writes to inline_data through the host's kernel: fallocate of such a file has deadlocked Linux 6.18's
journal thread, and with it every later sync(2) of the machine.
"""

import contextlib
import os
import random
import subprocess
from pathlib import Path

import pytest

from blockwright.device.file import FileDevice
from blockwright.errors import Unsupported
from blockwright.fs.ext4 import read
from blockwright.fs.ext4.check import check
from tests.support.e2fs import e2fsck_complains, mke2fs
from tests.support.mounting import differences, mounted
from tests.support.tools import run

SETS = {
    "ext2": ("-t", "ext2"),
    "ext2-1k": ("-t", "ext2", "-b", "1024"),
    "ext3": ("-t", "ext3", "-b", "1024"),
    "ext4": ("-t", "ext4"),
    "ext4-1k": ("-t", "ext4", "-b", "1024"),
    "ea-inode": ("-t", "ext4", "-O", "ea_inode"),
    "bigalloc": ("-t", "ext4", "-O", "bigalloc", "-C", "16384"),
    "meta-bg": ("-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"),
    "128-byte-inodes": ("-t", "ext4", "-I", "128"),
    "no-extents": ("-t", "ext4", "-O", "^extent,^64bit"),
    "large-dir": ("-t", "ext4", "-b", "1024", "-O", "large_dir"),
}


def work(place: Path, rng: random.Random) -> None:
    """Make, grow, shrink, link, rename and delete, as a year of use would."""
    folders = [place]
    for index in range(12):
        folder = rng.choice(folders) / f"folder{index}"
        folder.mkdir()
        folders.append(folder)
    files = []
    for index in range(400):
        path = rng.choice(folders) / f"file{index}{'-' * rng.randrange(60)}"
        path.write_bytes(rng.randbytes(rng.choice([0, 1, 50, 61, 150, 1000, 5000, 40_000])))
        files.append(path)
    for path in rng.sample(files, 150):
        change(path, rng.choice(folders), rng)
    crowded = place / "crowded"
    crowded.mkdir()
    for index in range(1500):
        (crowded / f"{rng.randrange(10**9)}-{index}").symlink_to("t" * (1 + index % 300))
    for name in rng.sample(sorted(os.listdir(crowded)), 700):
        (crowded / name).unlink()
    os.mkfifo(place / "fifo")
    os.mknod(place / "device", 0o020600, os.makedev(300, 70_000))


def change(path: Path, folder: Path, rng: random.Random) -> None:
    kind = rng.randrange(6)
    if kind == 0:
        os.truncate(path, rng.randrange(100_000))
    elif kind == 1:
        with path.open("r+b") as file:
            for _ in range(20):
                file.seek(rng.randrange(400_000))
                file.write(rng.randbytes(3000))
    elif kind == 2:
        path.rename(folder / f"renamed{rng.randrange(10**9)}")
    elif kind == 3:
        path.unlink()
    elif kind == 4:
        os.link(path, folder / f"linked{rng.randrange(10**9)}")
    else:
        for size in rng.sample([1, 10, 40, 100, 300, 500], 2):
            os.setxattr(path, f"user.attribute{size}", rng.randbytes(size))


@pytest.mark.parametrize("name", SETS)
def test_what_linux_wrote(name, tmp_path):
    image = mke2fs(tmp_path / "image", "64M", *SETS[name])
    with mounted(image, tmp_path / "mount", "rw") as place:
        rng = random.Random(name)
        work(place, rng)
        if name == "ea-inode":
            os.setxattr(place / "folder0", "user.large", rng.randbytes(30_000))
            os.setxattr(place / "crowded", "user.larger", rng.randbytes(60_000))
    with mounted(image, tmp_path / "mount", "ro") as place, read.open(FileDevice(image)) as fs:
        assert differences(fs.tree(), place) == []
    with FileDevice(image) as device:
        assert check(device) == []
    assert not e2fsck_complains(image)


@pytest.mark.parametrize("features", ["fast_commit", "orphan_file", "casefold"])
def test_newer_features_in_a_copy_taken_while_mounted(features, tmp_path):
    image = mke2fs(tmp_path / "image", "64M", "-t", "ext4", "-O", features)
    copy = tmp_path / "copy"
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(mounted(image, tmp_path / "mount", "rw"))
        except AssertionError as error:
            pytest.skip(f"this kernel does not know {features}: {error}")
        if "casefold" in features:
            folder = place / "Folded"
            folder.mkdir()
            run(["chattr", "+F", folder])
            for number in range(300):
                (folder / f"Straße-{number}").touch()
        open_and_gone = (place / "gone").open("wb")
        open_and_gone.write(b"x" * 9000)
        (place / "gone").unlink()
        (place / "kept").write_bytes(b"kept")
        fd = os.open(place / "kept", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        subprocess.run(["sync", "-f", place], check=True)
        run(["cp", "--sparse=always", image, copy])
        open_and_gone.close()
    try:
        with read.open(FileDevice(copy)) as fs:
            with fs.open(b"kept") as device:
                assert device.read(0, device.size) == b"kept"
            assert b"gone" not in fs.tree().entries
            if "casefold" in features:
                for number in range(0, 300, 7):
                    wanted = f"Folded/STRASSE-{number}"
                    assert fs.resolve(wanted.encode()) == fs.resolve(f"Folded/Straße-{number}".encode())
    except Unsupported as error:
        assert features == "fast_commit"
        assert "fast commits" in str(error)  # noqa: PT017 - and only for that
    with FileDevice(image) as device:
        assert check(device) == []
