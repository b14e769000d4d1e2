"""Devices that the kernel verifies as they are read, beside veritysetup; what is damaged gives EIO and is named."""

import errno
import hashlib
import os
import random
import re
from pathlib import Path

import pytest

from blockwright.attach import verity
from blockwright.attach.partitions import gc as gc_partitions
from blockwright.device.file import FileDevice, open_path
from blockwright.errors import IntegrityError, InUse, NotFound, NotThisFormat, ReadOnly, UsageError
from blockwright.system.linux import dm, loop
from blockwright.system.linux.registry import Registry
from blockwright.verity.format import write_area
from blockwright.verity.layout import Parameters, identity
from blockwright.verity.plan import area_end
from tests.support.command import blockwright, document
from tests.support.killed import killed_at_every_step
from tests.support.loops import swept
from tests.support.tools import run, tool

CONTENT = random.Random("verity").randbytes(3 << 20)
SALT, UUID_ = identity(b"guest")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    with swept(tmp_path):
        yield
        with dm.Mapper() as mapper:
            for entry in mapper.devices():
                mapper.remove(entry.name)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(CONTENT)
    return path


def formatted(data, hashes=None, *, algorithm="sha256", data_block=4096, hash_block=4096):
    """A hash file, or an area behind the data; the root hash as text."""
    parameters = Parameters(len(CONTENT) // data_block, algorithm, SALT, data_block, hash_block)
    offset = 0 if hashes else len(CONTENT)
    with FileDevice(hashes or data, writable=True, create=hashes is not None) as area, open_path(data) as device:
        area.resize(area_end(parameters, offset, superblock=True))
        source = device if hashes else area
        return write_area(source, area, parameters, hash_offset=offset, uuid=UUID_).hex()


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def read_all(path):
    with open_path(path) as device:
        return device.read(0, device.size)


def nothing_left():
    assert list(loop.states()) == []
    assert [record.name for kind in ("verity", "loop") for record in Registry(kind).records()] == []
    with dm.Mapper() as mapper:
        assert mapper.devices() == []


@pytest.mark.parametrize(
    ("algorithm", "data_block", "hash_block"),
    [("sha256", 4096, 4096), ("sha512", 4096, 4096), ("sha1", 512, 1024), ("sha256", 1024, 512)],
)
def test_all_of_it_is_read_through_the_kernel(data, tmp_path, algorithm, data_block, hash_block):
    hashes = tmp_path / "hashes"
    root = formatted(data, hashes, algorithm=algorithm, data_block=data_block, hash_block=hash_block)
    with verity.open_verified(str(data), str(hashes), root, "proven") as opened:
        assert (opened.path, opened.size) == ("/dev/mapper/proven", len(CONTENT))
        assert hashlib.sha256(read_all(opened.path)).digest() == hashlib.sha256(CONTENT).digest()
        with dm.Mapper() as mapper:
            assert [each.verified for each in mapper.status("proven")] == [True]
        with pytest.raises(ReadOnly):
            open_path(opened.path, writable=True)
        with pytest.raises(InUse, match="exists already"):
            verity.open_verified(str(data), str(hashes), root, "proven")
    nothing_left()


def test_one_flipped_byte_gives_eio_there_and_verify_names_it(data, tmp_path):
    hashes = tmp_path / "hashes"
    root = formatted(data, hashes)
    flip(data, 300 * 4096 + 17)
    with verity.open_verified(str(data), str(hashes), root, "proven") as opened, dm.Mapper() as mapper:
        with open_path(opened.path) as device:
            assert device.read(0, 256 * 4096) == CONTENT[: 256 * 4096]
            with pytest.raises(OSError) as raised:
                device.read(300 * 4096, 4096)
            assert raised.value.errno == errno.EIO
            assert device.read(700 * 4096, 4096) == CONTENT[700 * 4096 :][:4096]
        assert [each.verified for each in mapper.status("proven")] == [False]
    found = document("verity", "verify", data, hashes, root, code=3)
    assert [(each["rule"], each["offset"]) for each in found["findings"]] == [("verity.data", 300 * 4096)]
    nothing_left()


def test_the_command_with_hashes_behind_the_data(data):
    root = blockwright("verity", "format", data, "--seed", "guest").stdout.decode().strip()
    assert blockwright("verity", "open", data, root, "behind").stdout == b"/dev/mapper/behind\n"
    assert read_all("/dev/mapper/behind") == CONTENT
    blockwright("verity", "open", data, root, "behind", code=1)
    blockwright("loop", "gc")
    assert os.path.exists("/dev/mapper/behind"), "it is meant to stay"
    blockwright("verity", "close", "behind")
    blockwright("verity", "close", "behind", code=5)
    nothing_left()


def test_without_a_superblock(data, tmp_path):
    hashes = tmp_path / "hashes"
    bare = ["--no-superblock", "--salt", "ab", "--algorithm", "sha512"]
    root = blockwright("verity", "format", data, hashes, *bare).stdout.decode().strip()
    blockwright("verity", "open", data, hashes, root, "bare", *bare)
    assert read_all("/dev/mapper/bare") == CONTENT
    blockwright("verity", "close", "bare")
    nothing_left()


def test_veritysetup_opens_ours_and_we_open_its(data, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    root = formatted(data, ours)
    run([tool("veritysetup"), "open", data, "theirs", ours, root])
    assert read_all("/dev/mapper/theirs") == CONTENT
    with pytest.raises(InUse):
        verity.open_verified(str(data), str(ours), root, "theirs")
    with pytest.raises(NotFound):
        verity.close("theirs")
    with dm.Mapper() as mapper:
        their_table = mapper.table("theirs")
    run([tool("veritysetup"), "close", "theirs"])
    printed = run([tool("veritysetup"), "format", data, theirs]).stdout
    root = re.search(r"Root hash:\s+(\S+)", printed)[1]
    with verity.open_verified(str(data), str(theirs), root, "ours") as opened, dm.Mapper() as mapper:
        assert read_all(opened.path) == CONTENT
        assert "ours is active" in run([tool("veritysetup"), "status", "ours"]).stdout
        (mine,) = mapper.table("ours")
        assert (mine.length, mine.hash_start_blocks) == (their_table[0].length, their_table[0].hash_start_blocks)
    nothing_left()


def test_what_does_not_belong_together_is_refused_before_anything_is_made(data, tmp_path):
    hashes = tmp_path / "hashes"
    root = formatted(data, hashes)
    with pytest.raises(IntegrityError, match="not the one of the root hash"):
        verity.open_verified(str(data), str(hashes), "00" * 32, "wrong")
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        verity.open_verified(str(data), str(hashes), "00", "wrong")
    with pytest.raises(NotThisFormat):
        verity.open_verified(str(data), str(data), root, "wrong")
    with pytest.raises(NotThisFormat, match="behind the data"):
        verity.open_verified(str(data), None, root, "wrong")
    with pytest.raises(NotFound):
        verity.open_verified(str(tmp_path / "none"), str(hashes), root, "wrong")
    os.truncate(data, len(CONTENT) - 4096)
    with pytest.raises(IntegrityError, match="bytes of data"):
        verity.open_verified(str(data), str(hashes), root, "wrong")
    nothing_left()


def test_a_device_in_use_stays_and_says_who(data, tmp_path):
    hashes = tmp_path / "hashes"
    root = formatted(data, hashes)
    verity.open_verified(str(data), str(hashes), root, "held")
    with open("/dev/mapper/held", "rb"), pytest.raises(InUse, match="is in use"):
        verity.close("held")
    verity.close("held")
    nothing_left()


def test_what_others_removed_is_cleaned_up(data, tmp_path):
    hashes = tmp_path / "hashes"
    root = formatted(data, hashes)
    verity.open_verified(str(data), str(hashes), root, "gone")
    with dm.Mapper() as mapper:
        mapper.remove("gone")
    assert len(list(loop.states())) == 2
    with pytest.raises(NotFound):
        verity.close("gone")
    nothing_left()


def test_killed_between_any_two_steps(data, tmp_path):
    hashes = tmp_path / "hashes"
    root = formatted(data, hashes)

    def job():
        verity.open_verified(str(data), str(hashes), root, "killed", owned=True)
        verity.close("killed")

    steps = left = 0
    for step in killed_at_every_step(job, at_most=2000):
        steps += 1
        left += bool(list(loop.states()))
        verity.gc()
        gc_partitions()
        assert list(loop.states()) == [], f"killed before step {step}"
        assert os.listdir("/dev/mapper") == ["control"], f"killed before step {step}"
    nothing_left()
    assert steps > 20
    assert left > 10


def test_a_built_disk_is_mounted_through_its_hash_partition(tmp_path, mount):
    source, image = tmp_path / "source", tmp_path / "disk.img"
    (source / "bin").mkdir(parents=True)
    (source / "bin" / "sh").write_bytes(Path("/proc/self/exe").read_bytes())
    (source / "file").write_bytes(CONTENT)
    built = document("build", source, "-o", image, "--verity")
    root = built["parts"][-1]["file_system"]["root_hash"]
    with verity.open_verified(f"{image}:1", f"{image}:2", root, "root") as opened:
        point = mount(opened.path, fstype="ext4")
        assert (point / "file").read_bytes() == CONTENT
        run(["umount", point])
    nothing_left()
