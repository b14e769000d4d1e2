"""The label of a device that is split for a pool: whole, torn, hostile; and what a pool is asked to be."""

import random

import pytest

from blockwright.codec.checksum import crc32c
from blockwright.errors import Corrupt, FormatError, NoSpace, NotThisFormat, Unsupported, UsageError
from blockwright.system.linux.dm import ThinPoolStatus
from blockwright.units import GiB, KiB, MiB
from blockwright.volume import PoolSpec
from blockwright.volume.thin.label import Label, parse_label
from blockwright.volume.thin.settings import form_of, metadata_wanted, settled
from blockwright.volume.thin.water import check_room, growth_of

SIZE = 4 * GiB
LABEL = Label.of("main", 77, SIZE, 64 * KiB)


def spec(**options):
    return PoolSpec("main", "thin", "/nowhere", options)


def sealed(data):
    data = bytearray(data)
    data[20:24] = bytes(4)
    data[20:24] = crc32c(bytes(data)).to_bytes(4, "little")
    return bytes(data)


def test_a_label_is_read_as_it_was_written():
    assert len(LABEL.pack()) == 512
    assert parse_label(LABEL.pack(), SIZE) == LABEL
    assert parse_label(LABEL.swapped.pack() + bytes(3584), SIZE) == LABEL.swapped != LABEL
    assert LABEL.swapped.swapped == LABEL


def test_parts_do_not_overlap_and_reach_the_end():
    assert (LABEL.start_of(0), LABEL.metadata, LABEL.start_of(1)) == (MiB, 3 * MiB, 4 * MiB)
    assert LABEL.data_start == LABEL.start_of(1) + LABEL.metadata == 7 * MiB
    assert LABEL.data_size(SIZE) == SIZE - 7 * MiB
    assert LABEL.data_size(SIZE - 1) == SIZE - 7 * MiB - 64 * KiB
    with pytest.raises(NoSpace, match="expected a device of 5308416 bytes or more, found 5242880"):
        Label.of("main", 1, 5 * MiB, 64 * KiB)


def test_labels_that_are_refused():
    with pytest.raises(NotThisFormat):
        parse_label(bytes(512), SIZE)
    with pytest.raises(NotThisFormat):
        parse_label(LABEL.pack()[:100], SIZE)
    with pytest.raises(Corrupt, match="expected checksum"):
        parse_label(LABEL.pack()[:100] + b"x" + LABEL.pack()[101:], SIZE)
    with pytest.raises(Corrupt, match="expected parts within 7340032 bytes"):
        parse_label(LABEL.pack(), 7 * MiB)
    newer = bytearray(LABEL.pack())
    newer[16] = 2
    with pytest.raises(Unsupported, match="expected version 1, found 2"):
        parse_label(sealed(newer), SIZE)


def test_any_label_is_a_value_or_a_format_error():
    for number in range(2000):
        source = random.Random(f"label.{number}")
        data = bytearray(LABEL.pack())
        for _ in range(source.choice([1, 2, 8])):
            data[source.randrange(16, 128)] = source.choice([0, 1, 255, source.randrange(256)])
        try:
            found = parse_label(sealed(data), SIZE)
        except FormatError:
            continue
        assert found.start_of(1) + found.metadata == found.data_start < SIZE
        assert 0 < found.data_size(SIZE) <= SIZE - found.data_start


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "/dev/a", "size": GiB}, "has no option size for a pool of one device"),
        ({"device": "/dev/a", "data": "/dev/b"}, "has no option data for a pool of one device"),
        ({"data": "/dev/b"}, "expected a device for data and one for metadata"),
        ({"data": "/dev/b", "metadata": "/dev/c", "limit": "1G"}, "has no option limit for a pool of two devices"),
        ({"size": GiB, "force": True}, "has no option force for a pool of files"),
    ],
)
def test_options_that_no_such_pool_has(options, message):
    with pytest.raises(UsageError, match=message):
        form_of(spec(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"full": "maybe"}, "full: expected error or queue, found 'maybe'"),
        ({"low_water": "95"}, "low_water: expected 1 to 90 percent"),
        ({"low_water": "much"}, "low_water: expected 1 to 90 percent"),
        ({"limit": "1G"}, "expected grow_by and limit, found one of them"),
        ({"limit": "1G", "grow_by": "0"}, "grow_by: expected more than 0"),
        ({"block": "4K"}, "expected a multiple of 64 KiB"),
    ],
)
def test_settings_that_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        settled(spec(**options))


def test_settings_are_saved_as_numbers():
    found = settled(spec(full="queue", low_water="25%", grow_by="1G", limit="100000001"))
    assert found == {
        "block": 64 * KiB,
        "full": "queue",
        "low_water": 25,
        "grow_by": GiB,
        "limit": 1526 * 64 * KiB,
    }
    assert metadata_wanted(spec(metadata_size="128K"), GiB, 64 * KiB) == 128 * KiB
    with pytest.raises(UsageError, match="metadata_size: expected 131072 to 17045913600, found 4096"):
        metadata_wanted(spec(metadata_size="1K"), GiB, 64 * KiB)


def status(used, total, metadata=20, of=512, mode="rw"):
    return ThinPoolStatus(
        type="thin-pool",
        text="",
        mode=mode,
        data_used_blocks=used,
        data_total_blocks=total,
        metadata_used_blocks=metadata,
        metadata_total_blocks=of,
    )


GROWS = spec(grow_by=64 * KiB * 100, limit=64 * KiB * 1000, low_water=10)


@pytest.mark.parametrize(
    ("now", "data", "metadata"),
    [
        (status(89, 100), None, None),
        (status(90, 100), 200, 512),
        (status(100, 100, mode="out_of_data_space"), 200, 512),
        (status(899, 900), 1000, 512),
        (status(1000, 1000), None, None),  # it is as large as it may be
        (status(10, 100, metadata=384), None, None),
        (status(10, 100, metadata=385), 100, 1024),
        (status(10, 100, metadata=9000, of=10023), 100, 20046),
        (status(100, 100, mode="ro"), None, None),
    ],
)
def test_when_a_pool_grows_by_itself(now, data, metadata):
    found = growth_of(GROWS, now, 64 * KiB)
    assert (found and (found.data, found.metadata)) == (data and (data * 64 * KiB, metadata * 4096))
    assert growth_of(spec(), now, 64 * KiB) is None


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (status(94, 100), "data: expected more than 6% free to make something, found 384 KiB of 6.2 MiB"),
        (status(1, 100, metadata=483), "metadata: expected 30 blocks free to make something, found 29 of 512"),
        (status(1, 100, metadata=20, of=32), "metadata: expected 16 blocks free to make something, found 12 of 32"),
    ],
)
def test_what_there_is_no_room_for(now, message):
    with pytest.raises(NoSpace, match=message):
        check_room(spec(), now, 64 * KiB)


@pytest.mark.parametrize("now", [status(93, 100), status(1, 100, metadata=482), status(1, 100, metadata=16, of=32)])
def test_what_there_is_room_for(now):
    check_room(spec(), now, 64 * KiB)
