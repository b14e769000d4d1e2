"""What images of large blocks have in common, where no format's own test looks."""

import threading

import pytest

from blockwright.device.extent import DATA, HOLE, ZERO
from blockwright.device.file import FileDevice
from blockwright.device.window import Window
from blockwright.errors import NoSpace, NotSupported, ReadOnly
from blockwright.format.blocks import apart, bits_of, overlaps
from blockwright.format.registry import find_format
from blockwright.format.vhd.layout import pack_header
from blockwright.format.vhd.open import read_image
from blockwright.units import KiB, MiB
from tests.support.blockimages import OVER, VDI, Lends, format_of, lent, new, opened, over, parent_of
from tests.support.qcow2 import save

SIZE = 3 * MiB
KINDS = ["vhd", "vhdx", "vdi"]


def test_bits_and_overlaps():
    assert bits_of(b"\xa0\x01", high_first=True) == bytes([1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    assert bits_of(b"\xa0\x01", high_first=False) == bytes([0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    assert list(overlaps([(0, 4, "a"), (4, 8, "b"), (9, 20, "c"), (12, 13, "d"), (19, 25, "e"), (30, 30, "f")])) == [
        (12, "d", "c"),
        (19, "e", "c"),
    ]
    assert apart([20, 0, 10], 10, [(30, 40, "x"), (40, 50, "y")])
    for starts, others in (
        ([0, 9], []),
        ([0], [(9, 12, "x")]),
        ([20], [(0, 21, "x")]),
        ([], [(0, 2, ""), (1, 3, "")]),
    ):
        assert not apart(starts, 10, others)


@pytest.mark.parametrize("kind", KINDS)
def test_room_for_a_block_is_its_own_when_what_was_put_there_is(kind, tmp_path):
    path = save(new(kind, SIZE), tmp_path / "image")
    with opened(kind, FileDevice(path, writable=True)) as disk:
        assert disk.places
        with disk.placing(4096, 8 * KiB) as runs:
            (run,) = runs
            assert run.writable
            assert run.length == 8 * KiB
            with open(path, "r+b") as file:
                file.seek(run.offset)
                file.write(b"p" * run.length)
        assert disk.read(0, 16 * KiB) == bytes(4096) + b"p" * 8192 + bytes(4096)
        with disk.placing(0, 4096) as runs:
            assert runs is None
        with pytest.raises(RuntimeError), disk.placing(2 * MiB, 4096):
            raise RuntimeError
        assert disk.read(2 * MiB, 4096) == bytes(4096)
        disk.write(2 * MiB, b"afterwards")
    with opened(kind, FileDevice(path), writable=False) as disk:
        assert disk.read(4096, 1) == b"p"
        assert disk.read(2 * MiB, 10) == b"afterwards"


@pytest.mark.parametrize("kind", KINDS)
def test_holes_within_blocks_are_told(kind, tmp_path):
    path = save(new(kind, SIZE), tmp_path / "image")
    with opened(kind, FileDevice(path, writable=True)) as disk:
        disk.write(64 * KiB, b"d" * 64 * KiB)
        found = list(disk.extents())
        assert (64 * KiB, 64 * KiB, DATA) in found
        assert sum(each.length for each in found if not each.flags & ZERO) <= 72 * KiB
        assert found[-1].flags == HOLE | ZERO
        disk.zero(64 * KiB, 64 * KiB)
        assert all(each.flags & ZERO for each in disk.extents())


@pytest.mark.parametrize("kind", KINDS)
def test_threads_that_write_to_new_blocks_at_once(kind):
    """Sixteen threads, each its own sixteenth of every block: one of them makes the block, and none loses a byte."""
    file = new(kind, SIZE)
    with opened(kind, file, owns=False) as disk:

        def work(number):
            for at in range(number * 4096, SIZE, 16 * 4096):
                disk.write(at, bytes([number + 1]) * 4096)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        wanted = b"".join(bytes([number % 16 + 1]) * 4096 for number in range(SIZE // 4096))
        assert disk.read(0, SIZE) == wanted
    assert format_of(kind).check(file) == []
    with opened(kind, file) as disk:
        assert disk.read(0, SIZE) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_written_to_is_refused(kind, tmp_path):
    path = save(new(kind, SIZE), tmp_path / "image")
    with FileDevice(path) as file, pytest.raises(ReadOnly, match="expected a file to write to"):
        opened(kind, file)
    with opened(kind, FileDevice(path), writable=False) as disk:
        disk.flush()
        with pytest.raises(ReadOnly):
            disk.write(0, b"x")


@pytest.mark.parametrize("kind", OVER)
def test_zeros_over_a_parent_are_written(kind):
    parent = parent_of(kind, b"p" * SIZE)
    file = over(kind, parent, "p")
    with opened(kind, file, owns=False, below=lent(kind, parent)) as disk:
        with pytest.raises(NotSupported):
            disk.zero(0, 512, fast_only=True)
        disk.zero(512, 1024)
        assert disk.read(0, 2048) == b"p" * 512 + bytes(1024) + b"p" * 512
        assert not disk.places


@pytest.mark.parametrize("kind", KINDS)
def test_what_others_left_behind_the_end_is_zeros_when_the_disk_grows(kind):
    file = new(kind, MiB + 64 * KiB)
    with opened(kind, file, owns=False) as disk:
        disk.write(MiB, b"x")
        (place,) = disk.resolve(MiB, MiB + 512)
        file.write(place.host + 64 * KiB, b"left here" * 100)
        disk.resize(2 * MiB)
        assert disk.read(MiB, MiB) == b"x" + bytes(MiB - 1)
    with opened(kind, file, writable=False) as disk:
        assert disk.read(MiB, MiB) == b"x" + bytes(MiB - 1)


def test_a_file_that_cannot_grow_is_full():
    file = new("vdi", SIZE)
    with VDI.open(Window(file, 0, file.size), Lends(), writable=True) as disk, pytest.raises(NoSpace):
        disk.write(0, b"x")


def test_a_block_that_is_cut_reads_as_zeros_behind_its_end():
    file = new("vhdx", SIZE)
    with opened("vhdx", file, owns=False) as disk:
        disk.write(0, b"x" * MiB)
    file.resize(file.size - MiB // 2)
    with opened("vhdx", file, owns=False) as disk:
        assert disk.read(0, MiB) == b"x" * (MiB // 2) + bytes(MiB // 2)
        disk.write(MiB - 1, b"y")
        assert disk.read(MiB // 2, MiB // 2) == bytes(MiB // 2 - 1) + b"y"


@pytest.mark.parametrize(("kind", "table"), [("vhd", 1536), ("vhdx", 3 * MiB), ("vdi", 512)])
def test_check_finds_the_block_that_a_file_ends_within(kind, table):
    file = new(kind, SIZE)
    with opened(kind, file, owns=False) as disk:
        disk.write(0, b"x" * SIZE)
        (first, *_) = disk.resolve(0, SIZE)
        last = (SIZE - 1) // disk.block_size
        part = SIZE - last * disk.block_size
        (place,) = disk.resolve(last * disk.block_size, SIZE)
    assert first.length
    check = find_format(kind).load().check
    file.resize(place.host + part)
    assert not [each for each in check(file, Lends()) if each.rule == f"{kind}.block.cut"]
    file.resize(place.host + part - 700)
    (found,) = [each for each in check(file, Lends()) if each.rule == f"{kind}.block.cut"]
    assert found.offset == table + last * (8 if kind == "vhdx" else 4)
    assert f"expected {part} bytes of it in the file, found {part - 700}" in found.message


def test_what_lies_behind_a_shorter_parent_becomes_zeros():
    """Sectors of a block that would be the parent's, which ends before: what the file holds there is no content."""
    parent = parent_of("vhd, differencing", b"p" * SIZE)
    file = over("vhd, differencing", parent, "p")
    with opened("vhd, differencing", file, owns=False, below=lent("vhd, differencing", parent)) as disk:
        disk.write(2 * MiB, b"j" * 512 * KiB)
    header = read_image(file).header
    block = int.from_bytes(file.read(header.table_offset + 4 * 4, 4), "big") * 512
    file.write(block, b"\x80" + bytes(127))
    short = parent_of("vhd, differencing", b"p" * MiB)
    file.write(512, pack_header(header.replace(parent_uuid=read_image(short).footer.uuid)))
    wanted = b"p" * MiB + bytes(MiB) + b"j" * 512 + bytes(MiB - 512)
    with opened("vhd, differencing", file, owns=False, below=lent("vhd, differencing", short)) as disk:
        assert disk.read(0, SIZE) == wanted
        disk.write(2 * MiB + 1024, b"x")
        assert disk.read(0, SIZE) == wanted[: 2 * MiB + 1024] + b"x" + wanted[2 * MiB + 1025 :]
