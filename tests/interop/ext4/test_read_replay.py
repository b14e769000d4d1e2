"""An unclean journal, replayed in memory, gives what e2fsprogs and the kernel make of it on the disk."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from blockwright.device.extent import DATA
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, Unsupported
from blockwright.fs.ext4 import read
from blockwright.fs.ext4.replay import ReplayedDevice, open_journal
from tests.support.e2fs import FIXED, debugfs, make_source, mke2fs
from tests.support.tools import run, tool

MAGIC = bytes.fromhex("c03b3998")
VERSIONS = {
    "none": ("-t", "ext3"),
    "v1-64": ("-t", "ext4", "-O", "^metadata_csum"),
    "v2": ("-t", "ext4", "-O", "^64bit"),
    "v2-64": ("-t", "ext4"),
    "v3": ("-t", "ext4", "-O", "^64bit"),
    "v3-64": ("-t", "ext4"),
}
OPTIONS = {"v2": "-c -v 2", "v2-64": "-c -v 2", "v3": "-c -v 3", "v3-64": "-c -v 3"}


def fill_journal(image: Path, tmp_path: Path, options: str, rng: random.Random, transactions: int) -> None:
    """Log random blocks and revocations: some blocks look like the journal's own, some are logged twice."""
    free = list(range(3000, 3200))
    commands = []
    for number in range(transactions):
        chosen = sorted(rng.sample(free, rng.randrange(1, 40)))
        data = b"".join((MAGIC if rng.random() < 0.2 else b"\0\0\0\0") + rng.randbytes(4092) for _ in chosen)
        (tmp_path / f"blocks{number}").write_bytes(data)
        commands += [f"jo {options}", f"jw -b {','.join(map(str, chosen))} {tmp_path / f'blocks{number}'}"]
        if rng.random() < 0.6:
            commands.append(f"jw -r {','.join(map(str, sorted(rng.sample(free, 15))))}")
        commands.append("jc")
    debugfs(image, *commands, write=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", range(3))
def test_same_as_debugfs_replay(version, seed, tmp_path):
    image = mke2fs(tmp_path / "image", "24M", *VERSIONS[version], "-b", "4096", "-J", "size=4")
    fill_journal(image, tmp_path, OPTIONS.get(version, ""), random.Random(seed), 1 + 3 * seed)
    with read.open(FileDevice(image)) as fs:
        assert isinstance(fs.volume.device, ReplayedDevice)
        journal = {run.physical + i for run in open_journal(fs.volume)._runs for i in range(run.blocks)}
        ours = fs.volume.device.read(0, fs.volume.device.size)
        clean_extents = [extent for extent in fs.volume.device.extents() if extent.flags == DATA]
    debugfs(image, "jr", write=True)
    theirs = image.read_bytes()
    differing = [at // 4096 for at in range(0, len(ours), 4096) if ours[at : at + 4096] != theirs[at : at + 4096]]
    assert set(differing) <= journal | {0}
    changed = [block for block in range(3000, 3200) if any(theirs[block * 4096 : block * 4096 + 4096])]
    assert changed
    for block in changed:
        assert any(extent.offset <= block * 4096 < extent.end for extent in clean_extents)


def test_reads_that_cross_replayed_blocks(tmp_path):
    image = mke2fs(tmp_path / "image", "24M", "-t", "ext4", "-b", "4096", "-J", "size=4")
    fill_journal(image, tmp_path, "-c", random.Random(5), 2)
    with read.open(FileDevice(image)) as fs:
        device = fs.volume.device
        whole = device.read(2990 * 4096, 220 * 4096)
        rng = random.Random(1)
        for _ in range(300):
            start = rng.randrange(len(whole) - 1)
            length = rng.randrange(min(20_000, len(whole) - start))
            parts = [bytearray(length // 3), bytearray(length - length // 3)]
            device.read_into(2990 * 4096 + start, *parts)
            assert b"".join(parts) == whole[start : start + length]


def test_a_torn_last_transaction_does_not_count(tmp_path):
    image = mke2fs(tmp_path / "image", "24M", "-t", "ext4", "-b", "4096", "-J", "size=4")
    (tmp_path / "one").write_bytes(b"1" * 4096)
    (tmp_path / "two").write_bytes(b"2" * 4096)
    block = 3000
    first, second = f"jw -b {block} {tmp_path / 'one'}", f"jw -b {block} {tmp_path / 'two'}"
    debugfs(image, "jo -c", first, "jc", "jo -c", second, "jc", write=True)
    with read.open(FileDevice(image)) as fs:
        assert fs.volume.device.read(block * 4096, 4096) == b"2" * 4096
        journal = open_journal(fs.volume)
        commit = journal.place(journal.superblock.s_start + 5)
    data = bytearray(image.read_bytes())
    assert data[commit * 4096 : commit * 4096 + 8] == MAGIC + b"\0\0\0\2"
    data[commit * 4096 + 100] ^= 1
    with read.open(MemoryDevice(content=data)) as fs:
        assert fs.volume.device.read(block * 4096, 4096) == b"1" * 4096


def test_a_damaged_logged_block_is_found(tmp_path):
    image = mke2fs(tmp_path / "image", "24M", "-t", "ext4", "-b", "4096", "-J", "size=4")
    (tmp_path / "one").write_bytes(b"1" * 4096)
    debugfs(image, "jo -c", f"jw -b 3000 {tmp_path / 'one'}", "jc", write=True)
    data = bytearray(image.read_bytes())
    data[data.index(b"1" * 4096)] ^= 1
    with pytest.raises(Corrupt, match="logged block 3000"):
        read.open(MemoryDevice(content=data))


def test_an_external_journal_is_refused_by_name(tmp_path):
    journal = mke2fs(tmp_path / "journal", "8M", "-O", "journal_dev", "-b", "4096")
    with pytest.raises(Unsupported, match="external journal"):
        read.open(FileDevice(journal))
    image = mke2fs(tmp_path / "image", "8M", "-t", "ext2", "-O", "^metadata_csum")
    data = bytearray(image.read_bytes())
    data[1024 + 0x5C] |= 4
    read.open(MemoryDevice(content=data)).close()
    data[1024 + 0x60] |= 4
    with pytest.raises(Unsupported, match="another device"):
        read.open(MemoryDevice(content=data))


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts an image where the kernel lets us, and unmounts all at the end."""
    places = []

    def mount(image: Path, options: str) -> Path:
        place = tmp_path / f"mount{len(places)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "ext4", "-o", f"loop,{options}", image, place],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"the kernel does not mount here: {done.stderr.strip()}")
        places.append(place)
        return place

    if os.geteuid():
        pytest.skip("mounting needs root")
    yield mount
    for place in places:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-t", "ext3", "-b", "1024"),
        ("-t", "ext4", "-b", "1024"),
        ("-t", "ext4", "-b", "4096"),
        ("-t", "ext4", "-b", "4096", "-O", "^metadata_csum"),
    ],
)
@pytest.mark.parametrize(
    "options", ["data=ordered", "data=journal", "journal_checksum", "journal_async_commit,data=writeback"]
)
def test_a_copy_taken_while_mounted(arguments, options, tmp_path, mounted):
    source = make_source(tmp_path / "source", small=True)
    image = mke2fs(tmp_path / "image", "32M", *arguments, "-J", "size=4", source=source)
    place = mounted(image, options)
    rng = random.Random(3)
    for index in range(60):
        (place / f"new{index}").write_bytes(rng.randbytes(rng.randrange(3000)))
        if index % 7 == 0:
            shutil.rmtree(place / ("few" if index == 0 else f"folder{index - 7}"), ignore_errors=True)
            (place / f"folder{index}").mkdir()
        if index % 20 == 19:
            subprocess.run(["sync", "-f", place], check=True)
    os.unlink(place / "file1024")
    subprocess.run(["sync", "-f", place], check=True)
    copy = tmp_path / "copy"
    run(["cp", "--sparse=always", str(image), str(copy)])
    with read.open(FileDevice(copy)) as fs:
        assert fs.volume.superblock.s_feature_incompat & 4
        root = fs.tree()
        assert set(os.listdir(os.fsencode(place))) == set(root.entries)
        for index in range(60):
            with fs.open(b"new%d" % index) as device:
                assert device.read(0, device.size) == (place / f"new{index}").read_bytes()
        ours = fs.volume.device.read(0, fs.volume.device.size)
        size = fs.volume.block_size
        journal = {part.physical + i for part in open_journal(fs.volume)._runs for i in range(part.blocks)}
        superblock = fs.volume.geometry.super_block
    replayed = tmp_path / "replayed"
    shutil.copy(copy, replayed)
    run([tool("debugfs"), "-w", "-R", "jr", str(replayed)], env=FIXED)
    theirs = replayed.read_bytes()
    differing = {at // size for at in range(0, len(ours), size) if ours[at : at + size] != theirs[at : at + size]}
    assert differing <= journal | {superblock}
