"""What is refused, and with which words; any damage gives an error of ours, and a refusal changes nothing."""

import os
import time

import pytest

from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import (
    BlockwrightError,
    Corrupt,
    LimitExceeded,
    NoSpace,
    NotThisFormat,
    ReadOnly,
    Unsupported,
    UsageError,
)
from blockwright.fs.ext4.check import check
from blockwright.fs.ext4.layout import Superblock
from blockwright.fs.ext4.resize import minimum_size, resize
from blockwright.units import GiB, MiB, TiB
from tests.support.command import blockwright, document
from tests.support.devices import BlockedDevice
from tests.support.e2fs import mke2fs
from tests.support.ext4_mutations import Inventory, fix_superblock, mutate
from tests.support.ext4_resize import SETS, judge_resized, make_image

ROUNDS = 60
MAX_SECONDS = 10


def refused(image, size, error, words):
    before = image.read_bytes() if image.stat().st_size < GiB else None
    with FileDevice(image, writable=True) as device, pytest.raises(error, match=words):
        resize(device, size)
    if before is not None:
        assert image.read_bytes() == before


def patched(image, **values):
    data = bytearray(image.read_bytes()[:2048])
    superblock = Superblock.parse(data, 1024).replace(**values)
    superblock.pack_into(data, 1024)
    fix_superblock(data)
    with image.open("r+b") as file:
        file.write(data)
    return image


@pytest.fixture
def image(tmp_path):
    return make_image(tmp_path / "image", "ext4", 20 * MiB)[0]


def test_features(tmp_path):
    image = mke2fs(tmp_path / "image", "20M", "-t", "ext4", "-O", "bigalloc")
    refused(image, 40 * MiB, Unsupported, "bigalloc")
    image = mke2fs(tmp_path / "old", "100M", "-t", "ext4", "-O", "^64bit", "-b", "4096")
    refused(image, 16 * TiB, Unsupported, "without the feature 64bit")
    image = mke2fs(tmp_path / "new", "20M", "-t", "ext4", "-O", "64bit", "-b", "1024")
    refused(image, 900 * TiB, LimitExceeded, "groups")


def test_states(image):
    state = Superblock.parse(image.read_bytes()[:2048], 1024).s_state
    refused(patched(image, s_state=state | 2), 40 * MiB, UsageError, "errors are on record")
    refused(patched(image, s_state=state & ~1), 40 * MiB, UsageError, "was not unmounted")
    patched(image, s_state=state, s_feature_ro_compat=0x1000 | 0x1)
    refused(image, 40 * MiB, UsageError, "read-only")


def test_sizes(image):
    refused(image, MiB, NoSpace, "at least")
    refused(image, 0, NoSpace, "room for one group")
    with FileDevice(image) as device, pytest.raises(ReadOnly):
        resize(device, None)
    with FileDevice(image, writable=True) as device, Window(device, 0, device.size) as part:
        with pytest.raises(UsageError, match="at most the device's"):
            resize(part, 40 * MiB)
        assert resize(part, None).method == "none"
    with pytest.raises(NotThisFormat):
        resize(MemoryDevice(MiB))


def test_blocks_smaller_than_the_devices(tmp_path):
    for name, size in (("ext4", 70 * MiB), ("ext2", 70 * MiB), ("meta", 300 * MiB)):
        image, tree = make_image(tmp_path / name, name, 20 * MiB)
        os.truncate(image, size)
        with BlockedDevice(FileDevice(image, writable=True), 4096) as device:
            report = resize(device)
        judge_resized(image, tree, report, name)


@pytest.mark.parametrize("name", ["ext4", "ext2", "sparse2-meta"])
def test_damage_gives_errors_of_ours(name, tmp_path):
    image = mke2fs(tmp_path / "image", "3M", *SETS[name], "-b", "1024", "-g", "1024", "-N", "64")
    inventory = Inventory(image.read_bytes())
    worked = 0
    for number in range(ROUNDS):
        mutation = mutate(inventory, f"resize.{name}.{number}")
        data = bytearray(inventory.data)
        for offset, _old, new in mutation.patches:
            data[offset : offset + len(new)] = new
        for size in (9 * MiB, 2 * MiB):
            started = time.process_time()  # what others do meanwhile is not counted
            device = MemoryDevice(content=bytes(data).ljust(9 * MiB, b"\0"))
            try:
                minimum_size(device)
                resize(device, size)
                worked += 1
            except BlockwrightError:
                pass
            except Exception as error:
                raise AssertionError(f"replay: {name}, number {number}, to {size}: {mutation}") from error
            assert time.process_time() - started < MAX_SECONDS, f"replay: {name}, number {number}, to {size}"
    assert 0 < worked < 2 * ROUNDS


def test_the_command(image):
    before = document("fs", "resize", image, "--minimum")["minimum"]
    done = document("fs", "resize", image, "64M")
    assert (done["old_size"], done["size"], done["kind"]) == (20 * MiB, 64 * MiB, "ext4")
    assert b"64 MiB to" in blockwright("fs", "resize", image, "min").stdout
    with FileDevice(image) as device:
        assert check(device) == []
        assert device.size == 64 * MiB
    assert document("fs", "resize", image, "min")["size"] <= before
    assert document("fs", "resize", image)["size"] == 64 * MiB
    error = blockwright("fs", "resize", image, "1M", code=1).stderr
    assert b"expected at least" in error


def test_a_file_that_grew_for_nothing_is_as_long_as_before(image):
    """Planning needs the longer file; what is damaged shows only then."""
    data = bytearray(image.read_bytes())
    data[2048 + 4] ^= 1  # the first descriptor, whose checksum does not hold then
    image.write_bytes(data)
    refused(image, 40 * MiB, Corrupt, "descriptor of group 0: checksum")


def test_a_damaged_journal_is_seen_before_anything_is_written(image):
    refused(patched(image, s_journal_inum=2), 40 * MiB, Corrupt, "journal")
