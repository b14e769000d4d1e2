"""Maps of blocks as they are written, read again by what reads those of mke2fs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockwright.fs.ext4.layout import InodeFlag
from blockwright.fs.ext4.options import Ext4Options, Features
from blockwright.fs.ext4.plan_extents import ExtentRun
from blockwright.fs.ext4.plan_maps import DIRECT, ExtentMaps, IndirectMaps, maps_of
from blockwright.fs.ext4.profiles import TYPES

FAN_OUT = 256


def walk(root: bytes, blocks: dict[int, bytes]) -> dict[int, int]:
    """Logical to physical block of a map of 1 KiB blocks; each block of `blocks` is looked at once."""

    def pointers(data: bytes) -> list[int]:
        return [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]

    found: dict[int, int] = {}
    left = dict(blocks)

    def below(place: int, level: int, first: int) -> None:
        for index, pointer in enumerate(pointers(left.pop(place))):
            at = first + index * FAN_OUT ** (level - 1)
            if pointer and level == 1:
                found[at] = pointer
            elif pointer:
                below(pointer, level - 1, at)

    top = pointers(root)
    found |= {index: pointer for index, pointer in enumerate(top[:DIRECT]) if pointer}
    first = DIRECT
    for level in (1, 2, 3):
        if top[DIRECT - 1 + level]:
            below(top[DIRECT - 1 + level], level, first)
        first += FAN_OUT**level
    assert not left, "a block that nothing leads to"
    return found


EDGES = [0, 11, 12, 12 + 256, 12 + 256 + 65536, 12 + 256 + 65536 + 65536, 12 + 256 + 65536 + 3 * 65536]
starts = st.one_of(
    st.builds(lambda edge, by: max(0, edge + by), st.sampled_from(EDGES), st.integers(-3, 3)),
    st.integers(0, 400_000),
)


@given(st.lists(st.tuples(starts, st.integers(1, 700)), max_size=6))
@settings(max_examples=80)
def test_pointers_lead_to_every_block_and_are_counted_before(pieces):
    wanted: dict[int, int] = {}
    runs: list[ExtentRun] = []
    physical = 1000
    for start, count in sorted(pieces):
        first = max(start, runs[-1].logical + runs[-1].blocks if runs else 0)
        runs.append(ExtentRun(first, physical, count))
        wanted |= {first + i: physical + i for i in range(count)}
        physical += count + 7
    maps = IndirectMaps(1024)
    places = [5_000_000 + 3 * i for i in range(maps.needed(runs))]
    root, contents = maps.build(12, runs, places)
    assert walk(root, dict(zip(places, contents, strict=True))) == wanted


@pytest.mark.parametrize(
    ("runs", "blocks"),
    [
        ([], 0),
        ([(0, 12)], 0),
        ([(0, 13)], 1),
        ([(0, 268)], 1),
        ([(0, 269)], 3),
        ([(268, 1)], 2),
        ([(0, 12 + 256 + 65536)], 1 + 1 + 256),
        ([(0, 12 + 256 + 65536 + 1)], 1 + 1 + 256 + 3),
        ([(12 + 256 + 65536, 1)], 3),
        ([(12 + 256, 1), (12 + 256 + 65535, 1)], 3),
        ([(12 + 256, 1), (12 + 256 + 1, 1)], 2),
        ([(12 + 256 + 65536, 1), (12 + 256 + 2 * 65536, 1)], 5),
    ],
)
def test_blocks_of_pointers(runs, blocks):
    assert IndirectMaps(1024).count(runs) == blocks


def test_the_largest_file():
    maps = IndirectMaps(1024)
    assert maps.most_blocks == 12 + 256 + 256**2 + 256**3
    assert maps.count([(maps.most_blocks - 1, 1)]) == 3


def test_one_piece_in_the_inode():
    maps = IndirectMaps(4096)
    root = maps.single(77, 12)
    assert root == maps.build(12, [ExtentRun(0, 77, 12)], [])[0]
    assert maps.single(77, 13) is None
    assert ExtentMaps(4096, None).single(77, 32769) is None


def test_features_choose_the_map():
    assert maps_of(Ext4Options().form, 1).flag == InodeFlag.extents
    old = Ext4Options(features=TYPES["ext2"]).form
    assert (maps_of(old, 1).flag, maps_of(old, 1).empty) == (0, bytes(60))


def test_blocks_of_extents_are_summed_where_metadata_is():
    runs = [ExtentRun(2 * i, 100 + 3 * i, 1) for i in range(5)]
    plain, summed = ExtentMaps(4096, None), ExtentMaps(4096, 1)
    assert plain.needed(runs) == summed.needed(runs) == 1
    assert plain.build(12, runs, [50])[1][0][-4:] == bytes(4) != summed.build(12, runs, [50])[1][0][-4:]


def test_the_types_of_mke2fs():
    assert Features() == TYPES["ext4"]
    assert TYPES["ext3"].names == ("has_journal", *TYPES["ext2"].names)
