"""VHDX images that contradict themselves or need what is not known, and logs that hold one thing or another."""

import random

import pytest

from blockwright.codec.checksum import crc32c
from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, LimitExceeded, NotAllowed, NotThisFormat, Unsupported, UsageError
from blockwright.format.open import open_image
from blockwright.format.policy import Policy
from blockwright.format.vhdx import layout
from blockwright.format.vhdx.check import check
from blockwright.format.vhdx.create import Options, create
from blockwright.format.vhdx.image import read_headers
from blockwright.format.vhdx.layout import HEADERS, REGION_TABLES, sealed
from blockwright.format.vhdx.log import SECTOR, Descriptor, EntryHeader, find_replay, pack_entry
from blockwright.units import GiB, KiB, MiB, TiB
from tests.support.blockimages import METADATA, locator_item, new, opened, over, parent_of

SIZE = 3 * MiB
BAT, LOG = 3 * MiB, MiB
GUID = b"this log's guid."


def image():
    file = new("vhdx", SIZE)
    with opened("vhdx", file, owns=False) as disk:
        disk.write(0, b"a" * 1000)
        disk.write(2 * MiB, b"b" * 1000)
    assert check(file) == []
    return file


def reopened(file):
    return opened("vhdx", file, writable=False, owns=False)


# -- structures -----------------------------------------------------------------------------------------------


def test_the_header_written_last_counts_and_either_will_do():
    file = image()
    header, current = read_headers(file)
    other = HEADERS[1 - current]
    assert layout.parse_header(file.read(other, 4096), other).sequence == header.sequence - 1
    file.write(HEADERS[current] + 100, b"damage")
    (found,) = check(file)
    assert (found.rule, found.offset) == ("vhdx.header", HEADERS[current] + 4)
    assert reopened(file).read(0, 3) == b"aaa"
    file.write(other, b"x")
    with pytest.raises(Corrupt, match="vhdx header"):
        reopened(file)


def test_either_region_table_will_do():
    file = image()
    file.write(REGION_TABLES[0] + 20, b"damage")
    assert reopened(file).read(0, 3) == b"aaa"
    assert [(each.rule, each.offset) for each in check(file)] == [("vhdx.regions", REGION_TABLES[0] + 4)]
    file.write(REGION_TABLES[1], b"x")
    with pytest.raises(Corrupt, match="region table: expected the checksum"):
        reopened(file)


def with_region(entry):
    file = image()
    table = bytearray(file.read(REGION_TABLES[0], 64 * KiB))
    table[8:12] = (3).to_bytes(4, "little")
    table[16 + 64 : 16 + 96] = entry.pack()
    for offset in REGION_TABLES:
        file.write(offset, sealed(bytes(table)))
    return file


def test_regions_that_are_not_known():
    entry = layout.RegionEntry(guid=b"unknown region g", offset=MiB, length=MiB, required=1)
    with pytest.raises(Unsupported, match=r"region 6e6b6e75-776f-206e-\S+: is required and not known"):
        reopened(with_region(entry))
    assert reopened(with_region(entry.replace(required=0))).read(0, 3) == b"aaa"
    with pytest.raises(Corrupt, match="expected one, found two"):
        reopened(with_region(entry.replace(guid=layout.BAT)))


def with_item(entry):
    file = image()
    table = bytearray(file.read(METADATA, 64 * KiB))
    table[10:12] = (6).to_bytes(2, "little")
    table[32 + 160 : 32 + 192] = entry.pack()
    file.write(METADATA, table)
    return file


def test_items_that_are_not_known():
    entry = layout.MetadataEntry(guid=b"unknown item gui", offset=70 * KiB, length=4, flags=layout.REQUIRED)
    with pytest.raises(Unsupported, match=r"metadata 6e6b6e75-\S+: is required and not known"):
        reopened(with_item(entry))
    assert reopened(with_item(entry.replace(flags=0))).read(0, 3) == b"aaa"
    with pytest.raises(Corrupt, match="found two"):
        reopened(with_item(entry.replace(guid=layout.LOGICAL)))
    with pytest.raises(Corrupt, match="behind the table and within"):
        reopened(with_item(entry.replace(guid=layout.PARENT, offset=2 * MiB, flags=0)))


@pytest.mark.parametrize(
    ("at", "data", "error", "message"),
    [
        (0, b"x", NotThisFormat, "expected vhdxfile"),
        (METADATA, b"x", Corrupt, "expected the signature metadata"),
        (METADATA + 10, b"\xff\xff", Corrupt, "at most 2047 items"),
        (METADATA + 64 * KiB, b"\0\0\x30\0", Corrupt, "block size: expected a power of two"),
        (METADATA + 64 * KiB + 4, b"\2", Corrupt, "expected a parent locator"),
        (METADATA + 64 * KiB + 8, b"\1", Corrupt, "whole sectors"),
        (METADATA + 64 * KiB + 8, bytes(7) + b"\1", LimitExceeded, "at most 70368744177664 bytes"),
        (METADATA + 64 * KiB + 8, bytes(5) + b"\1", Corrupt, "expected a region of at least"),
        (METADATA + 64 * KiB + 32, b"\1\4", Corrupt, "sectors: expected 512 or 4096"),
        (BAT + 8, b"\5", Corrupt, r"entry 1: expected a known state, found 0x5 \(byte 3145736"),
        (BAT + 8, b"\7\0\x40", Corrupt, "expected a known state"),
        (BAT + 8, b"\6\0\x10", Corrupt, "over the log|expected a place of its own"),
        (BAT + 8, b"\6\0\0\0\1", Corrupt, "expected a place within"),
    ],
)
def test_damage_is_refused(at, data, error, message):
    file = image()
    file.write(at, data)
    with pytest.raises(error, match=message):
        reopened(file)


def test_check_names_every_block_that_lies_wrong():
    file = image()
    file.write(BAT + 8, file.read(BAT, 8))
    found = check(file)
    assert [each.rule for each in found] == ["vhdx.overlap"]
    file.write(BAT + 8, b"\6\0\0\0\1")
    assert [(each.rule, each.offset) for each in check(file)] == [("vhdx.block.range", BAT + 8)]
    file.write(BAT + 8, b"\4")
    assert [(each.rule, each.offset) for each in check(file)] == [("vhdx.block.state", BAT + 8)]
    file.write(BAT + 8, bytes(8))
    file.resize(file.size + 2 * MiB)
    assert [each.rule for each in check(file)] == ["vhdx.leak"]


def test_states_that_read_as_zeros():
    for state in (1, 2, 3):
        file = image()
        file.write(BAT, bytes([state]))
        assert reopened(file).read(0, 1000) == bytes(1000)
        with opened("vhdx", file, owns=False) as disk:
            disk.write(5, b"x")
        assert reopened(file).read(0, 8) == b"\0\0\0\0\0x\0\0"


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="a disk of 1 to 70368744177664 bytes"):
        create(MemoryDevice(0), 65 * TiB, Options())
    with pytest.raises(UsageError, match="blocks of 1048576 bytes make a disk of at most"):
        create(MemoryDevice(0), 60 * TiB, Options(block_size=MiB))
    with pytest.raises(UsageError, match="block size"):
        Options(block_size=512 * KiB).check()
    with pytest.raises(UsageError, match="sector size"):
        Options(sector_size=1024).check()
    with opened("vhdx", new("vhdx", SIZE)) as disk, pytest.raises(UsageError, match="the block table has room"):
        disk.resize(TiB)


def test_more_blocks_than_one_block_of_bits_stands_for():
    """Every 4096 blocks of 1 MiB the table has an entry that is no block of data."""
    file = MemoryDevice(0)
    create(file, 9 * GiB, Options(block_size=MiB))
    with opened("vhdx", file, owns=False) as disk:
        for at in (4 * GiB - 5, 8 * GiB - 5):
            disk.write(at, b"straddling")
    assert check(file) == []
    with opened("vhdx", file) as disk:
        assert disk.read(4 * GiB - 6, 12) == disk.read(8 * GiB - 6, 12) == b"\0straddling\0"
        assert next(each.offset for each in disk.extents() if not each.flags) >= 4 * GiB - MiB


# -- the log --------------------------------------------------------------------------------------------------


def logged(parts, *, sequence=7, cut=None, start=0, file=None):
    """Return an image whose log has these entries, each its own tail unless it says otherwise."""
    file = file or image()
    position = start
    for number, entry in enumerate(parts(file, position, sequence)):
        data = entry[: cut if number == cut else None]
        first = min(len(data), MiB - position)
        file.write(LOG + position, data[:first])
        if first < len(data):
            file.write(LOG, data[first:])
        position = (position + len(entry)) % MiB
    header, current = read_headers(file)
    file.write(HEADERS[current], sealed(header.replace(log_guid=GUID).pack()))
    return file


def moved(file):
    """Return the first sector of the block table with the first block and the third one exchanged."""
    table = bytearray(file.read(BAT, SECTOR))
    table[:8], table[16:24] = table[16:24], table[:8]
    return bytes(table)


def one(file, position, sequence):
    yield pack_entry([(BAT, moved(file))], position=position, sequence=sequence, guid=GUID, file_size=file.size)


@pytest.mark.parametrize("start", [0, 512 * KiB, MiB - SECTOR], ids=["at once", "later", "around the end"])
def test_a_log_is_read_over_the_file_and_replayed_by_who_writes(start):
    file = logged(one, start=start)
    before = file.read(0, file.size)
    assert [each.rule for each in check(file)] == ["vhdx.log"]
    with reopened(file) as disk:
        assert disk.read(0, 3) == b"bbb"
        assert disk.read(2 * MiB, 3) == b"aaa"
    assert file.read(0, file.size) == before
    opened("vhdx", file, owns=False).close()
    assert check(file) == []
    assert file.read(BAT, 3) != before[BAT : BAT + 3]
    with reopened(file) as disk:
        assert disk.read(0, 3) == b"bbb"


def test_entries_in_pieces_are_replayed_in_order_from_the_tail():
    """The second entry's tail is the first; both change one sector, and the second one makes zeros besides."""

    def parts(file, position, sequence):
        wrong = bytes(SECTOR)
        first = pack_entry([(BAT, wrong)], position=position, sequence=sequence, guid=GUID, file_size=file.size)
        yield first
        second = bytearray(
            pack_entry([(BAT, moved(file))], position=position, sequence=sequence + 1, guid=GUID, file_size=file.size)
        )
        zeros = Descriptor(
            signature=b"zero",
            leading=(2 * SECTOR).to_bytes(8, "little"),
            offset=2 * MiB + 512 * KiB,
            sequence=sequence + 1,
        )
        second[96:128] = zeros.pack()
        header = EntryHeader.parse(second)
        header.replace(count=2, tail=position).pack_into(second)
        yield sealed(bytes(second))

    file = image()
    file.write(2 * MiB + 512 * KiB, b"z" * 3 * SECTOR)
    logged(parts, file=file)
    with reopened(file) as disk:
        assert disk.read(0, 3) == b"bbb"
    opened("vhdx", file, owns=False).close()
    assert file.read(2 * MiB + 512 * KiB, 3 * SECTOR) == bytes(2 * SECTOR) + b"z" * SECTOR


def test_an_entry_that_is_torn_never_was():
    def parts(file, position, sequence):
        entry = next(one(file, position, sequence))
        yield entry
        second = pack_entry(
            [(BAT, bytes(SECTOR))], position=position + len(entry), sequence=sequence + 1, guid=GUID, file_size=0
        )
        yield second[:-1] + bytes([second[-1] ^ 1])

    with reopened(logged(parts)) as disk:
        assert disk.read(0, 3) == b"bbb"


def test_a_sequence_with_a_gap_does_not_count():
    """An entry whose tail is not there any more gives way to the one before it."""

    def parts(file, position, sequence):
        entry = next(one(file, position, sequence))
        yield entry
        yield pack_entry([(BAT, bytes(SECTOR))], position=8 * SECTOR, sequence=sequence + 1, guid=GUID, file_size=0)

    with reopened(logged(parts)) as disk:
        assert disk.read(0, 3) == b"bbb"


def test_a_log_of_another_guid_is_none():
    def parts(file, position, sequence):
        yield pack_entry([(BAT, bytes(SECTOR))], position=0, sequence=9, guid=b"o" * 16, file_size=file.size)

    file = logged(parts)
    with reopened(file) as disk:
        assert disk.read(0, 3) == b"aaa"
    assert [each.rule for each in check(file)] == ["vhdx.log"]


def test_a_log_may_make_the_file_longer_and_knows_one_that_was_cut():
    def parts(file, position, sequence):
        entry = bytearray(next(one(file, position, sequence)))
        EntryHeader.parse(entry).replace(last_size=file.size + 2 * MiB).pack_into(entry)
        yield sealed(bytes(entry))

    file = logged(parts)
    size = file.size
    with reopened(file) as disk:
        assert disk.read(0, 3) == b"bbb"
    assert file.size == size
    opened("vhdx", file, owns=False).close()
    assert file.size == size + 2 * MiB
    file = logged(one)
    file.resize(file.size - MiB)
    with pytest.raises(Corrupt, match="expected a file of at least"):
        reopened(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signature": b"what"}, "expected a descriptor, found b'what'"),
        ({"sequence": 1}, "descriptor 0 is not of it"),
        ({"offset": BAT + 1}, "descriptor 0 is not of it"),
        ({"signature": b"zero", "leading": (1 << 40).to_bytes(8, "little")}, "at most 1073741824 bytes of zeros"),
        ({"signature": b"zero", "leading": (700).to_bytes(8, "little")}, "whole sectors of zeros"),
        ({"offset": 1 << 60}, "expected a file of at most"),
    ],
)
def test_entries_that_lie_are_refused(change, message):
    def parts(file, position, sequence):
        entry = bytearray(next(one(file, position, sequence)))
        Descriptor.parse(entry, 64).replace(**change).pack_into(entry, 64)
        yield sealed(bytes(entry))

    with pytest.raises((Corrupt, LimitExceeded), match=message):
        reopened(logged(parts))


def test_entries_over_one_another_cost_no_more_than_a_few_sums():
    log = bytearray(MiB)
    for position in range(0, MiB, SECTOR):
        header = EntryHeader(signature=b"loge", length=MiB, sequence=1, guid=GUID)
        header.pack_into(log, position)
    with pytest.raises(LimitExceeded, match="entries apart"):
        find_replay(bytes(log), GUID)
    assert crc32c(b"123456789") == 0xE3069283


def test_more_of_the_table_than_one_entry_holds_goes_through_several():
    """Blocks all over a large disk: more sectors of the block table change than an entry of the log has room for."""
    file = MemoryDevice(0)
    create(file, 200 * GiB, Options(block_size=MiB))
    with opened("vhdx", file, owns=False) as disk:
        for number in range(100):
            disk.write(number * 2 * GiB, b"%d" % number)
        disk.flush()
    assert check(file) == []
    with opened("vhdx", file) as disk:
        assert disk.read(198 * GiB, 2) == b"99"


# -- parents --------------------------------------------------------------------------------------------------


def differencing(tmp_path, name="base.vhdx"):
    parent = parent_of("vhdx, differencing", random.Random(3).randbytes(SIZE))
    file = over("vhdx, differencing", parent, name)
    (tmp_path / "base.vhdx").write_bytes(parent.read(0, parent.size))
    path = tmp_path / "top.vhdx"
    path.write_bytes(file.read(0, file.size))
    return path


def test_a_parent_is_opened_by_policy_only(tmp_path):
    path = differencing(tmp_path)
    with FileDevice(path) as file, pytest.raises(NotAllowed, match=r"base\.vhdx"):
        open_image(file, path=str(path))
    policy = Policy((str(tmp_path),))
    with open_image(FileDevice(path), path=str(path), policy=policy) as disk:
        assert disk.read(0, SIZE) == random.Random(3).randbytes(SIZE)
    path = differencing(tmp_path, "..\\..\\etc\\shadow")
    with FileDevice(path) as file, pytest.raises(NotAllowed, match="found one elsewhere"):
        open_image(file, path=str(path), policy=policy)


def test_a_parent_that_was_written_to_since_is_refused(tmp_path):
    path = differencing(tmp_path)
    with open_image(FileDevice(tmp_path / "base.vhdx", writable=True), writable=True) as disk:
        disk.write(0, b"changed")
    with FileDevice(path) as file, pytest.raises(Corrupt, match="vhdx parent: expected the data id"):
        open_image(file, path=str(path), policy=Policy((str(tmp_path),)))


def test_locators_that_cannot_be():
    assert layout.parse_locator(locator_item({"a": "b", "key": "value"})) == {"a": "b", "key": "value"}
    good = locator_item({"a": "b"})
    with pytest.raises(Corrupt, match="at least 20 bytes"):
        layout.parse_locator(good[:10])
    with pytest.raises(Unsupported, match="is not known"):
        layout.parse_locator(b"x" + good[1:])
    with pytest.raises(Corrupt, match="found 65535 keys"):
        layout.parse_locator(good[:18] + b"\xff\xff" + good[20:])
    with pytest.raises(Corrupt, match="key 0 reaches beyond"):
        layout.parse_locator(good[:-1])


def test_bits_of_sectors_say_whose_they_are():
    """A block of which two sectors are its own: bit 0 of a byte stands for the first one."""
    content = random.Random(4).randbytes(SIZE)
    parent = parent_of("vhdx, differencing", content)
    file = over("vhdx, differencing", parent, "p")

    def top(*, writable=True):
        below = opened("vhdx", parent, writable=False, owns=False)
        return opened("vhdx, differencing", file, owns=False, below=below, writable=writable)

    with top() as disk:
        disk.write(MiB, b"o" * MiB)
    bits = file.size
    file.resize(bits + MiB)
    file.write(bits + MiB // 512 // 8, b"\x05")
    file.write(BAT + 8 * 4096, (bits | 6).to_bytes(8, "little"))
    file.write(BAT + 8, bytes([file.read(BAT + 8, 1)[0] | 7]))
    wanted = bytearray(content)
    wanted[MiB : MiB + 512] = wanted[MiB + 1024 : MiB + 1536] = b"o" * 512
    with top() as disk:
        assert disk.read(0, SIZE) == wanted
        disk.write(MiB + 700, b"new")
        wanted[MiB + 700 : MiB + 703] = b"new"
        assert disk.read(0, SIZE) == wanted
    assert check(file) == []
    with top(writable=False) as disk:
        assert disk.read(0, SIZE) == wanted
    file.write(BAT + 8, bytes([file.read(BAT + 8, 1)[0] | 7]))
    file.write(BAT + 8 * 4096, bytes(8))
    with top(writable=False) as disk, pytest.raises(Corrupt, match="block 1: expected bits of its sectors"):
        disk.read(0, SIZE)
