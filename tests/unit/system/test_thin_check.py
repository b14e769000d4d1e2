"""A pool's metadata, verified whole: each rule that can be broken, told once and by name."""

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.finding import Finding
from blockwright.system.linux.thin import check_metadata, is_harmless, layout, spaces
from blockwright.system.linux.thin.check import MAX_FINDINGS
from blockwright.system.linux.thin.layout import BLOCK, DETAILS, Superblock
from tests.support.thinpools import bitmap, image, index, node, sealed, whole

DEVICES = {1: {0: 3, 1: 9, 7: 10}, 4: {0: 3, 2: 3}, 9: {5: 3}}
"""Block 3 is used four times, which is in the tree of counts."""


def found(blocks):
    return check_metadata(MemoryDevice(content=image(blocks)))


def rules(blocks):
    return [each.rule for each in found(blocks)]


def changed(**fields):
    """Sound metadata with another superblock."""
    blocks = whole(DEVICES)
    top = Superblock.parse(blocks[0])
    for name, value in fields.items():
        setattr(top, name, value)
    return blocks | {0: sealed(top.pack(), layout.SUPERBLOCK_SALT)}


def test_sound_metadata_has_no_findings():
    assert found(whole({})) == []
    assert found(whole(DEVICES)) == []


def test_bits_are_the_kernels():
    data = bytearray(BLOCK)
    data[16] = 0b11_01_10_00  # from the right: none, one (the upper bit is the low one), two, three
    assert list(spaces.parse_bitmap(sealed(data, spaces.BITMAP_SALT, 7), 7)[:5]) == [0, 1, 2, 3, 0]


def test_a_shared_node_counts_once_and_its_blocks_too():
    blocks = whole({1: {0: 3}, 2: {}}, metadata_counts={**dict.fromkeys(range(10), 1), 9: 2})
    blocks[8] = node(8, [1, 2], [(9).to_bytes(8, "little")] * 2, width=8)
    blocks[7] = node(7, [1, 2], [DETAILS.pack(1, 0, 0, 0)] * 2)
    assert found(blocks) == []


COUNTS = dict.fromkeys(range(9 + len(DEVICES)), 1)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data_counts": {3: 4, 9: 1}}, ["thin.data.count"]),
        ({"data_counts": {3: 3, 9: 1, 10: 1}}, ["thin.data.count"]),
        ({"data_counts": {3: 2, 9: 1, 10: 1}}, ["thin.data.count"]),
        ({"data_counts": {3: 4, 9: 2, 10: 1}}, ["thin.data.leaked"]),
        ({"data_counts": {3: 4, 9: 1, 10: 1, 20: 5}}, ["thin.data.leaked"]),
        ({"metadata_counts": {**COUNTS, 30: 1}}, ["thin.metadata.leaked"]),
        ({"metadata_counts": {**COUNTS, 9: 3}}, ["thin.metadata.leaked"]),
        ({"metadata_counts": {**COUNTS, 9: 0}}, ["thin.metadata.count"]),
        ({"mapped": {1: 3, 4: 5, 9: 1}}, ["thin.device.mapped"]),
        ({"mapped": {1: 3, 4: 2}}, ["thin.device"]),
        ({"mapped": {1: 3, 4: 2, 9: 1, 11: 0}}, ["thin.device"]),
    ],
)
def test_what_does_not_agree(changes, expected):
    assert rules(whole(DEVICES, **changes)) == expected


ANY = (9).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("blocks", "expected", "message"),
    [
        ({9: bytes(BLOCK)}, "thin.metadata.node", "expected checksum"),
        ({8: node(8, [1, 4, 9], [ANY[:8]] * 3, width=8)}, "thin.device.mapped", "device 4: expected 3 blocks"),
        ({8: node(8, [1], [(7).to_bytes(8, "little")], width=8)}, "thin.metadata.tree", "node is of details, too"),
        ({8: node(8, [1], [(8).to_bytes(8, "little")], width=8)}, "thin.metadata.tree", "leads back to itself"),
        ({8: node(8, [1], [(70).to_bytes(8, "little")], width=8)}, "thin.metadata.tree", "from 1 to 63, found 70"),
        ({9: node(9, [0], [(64 << 24).to_bytes(8, "little")], width=8)}, "thin.mapping", "below 64, found 64"),
        ({9: node(9, [0], [(3 << 24 | 9).to_bytes(8, "little")], width=8)}, "thin.mapping.time", "up to 1"),
        ({9: node(9, [0], [ANY], width=8, max_entries=250)}, "thin.metadata.node", "a multiple of 3, found 250"),
        ({7: node(7, [1], [DETAILS.pack(3, 9, 0, 0)])}, "thin.device", "device 4: expected details"),
        ({5: bytes(BLOCK)}, "thin.data.map", "bitmap: expected checksum"),
        ({5: bitmap(6, [])}, "thin.data.map", "expected that of block 5, found 6"),
        ({1: index(1, [(5, 0, 0)])}, "thin.metadata.map", "a bitmap is there twice"),
        ({1: bytes(BLOCK)}, "thin.metadata.map", "index of bitmaps: expected checksum"),
        ({4: node(4, [1], [spaces.INDEX_ENTRY.pack(5, 0, 0)], width=16)}, "thin.data.map", "without a gap"),
        ({4: node(4, [], [], width=16)}, "thin.data.map", "expected 1 bitmaps, found 0"),
        ({4: node(4, [0], [spaces.INDEX_ENTRY.pack(5, 7, 0)], width=16)}, "thin.data.map.free", "found 7"),
    ],
)
def test_damage_is_named(blocks, expected, message):
    told = found(whole(DEVICES) | blocks)
    assert any(each.rule == expected and message in each.message for each in told), told


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metadata_map": bytes(128)}, "metadata: expected 2 to 64 blocks, found 0"),
        ({"magic": 1}, "expected magic"),
        (
            {"data_map": layout.SpaceMapRoot(blocks=1 << 50, bitmap_root=4, count_root=6).pack()},
            "blocks of data or fewer",
        ),
    ],
)
def test_superblocks_that_are_refused(fields, message):
    [told] = found(changed(**fields))
    assert told.rule == "thin.metadata.superblock"
    assert message in told.message


def test_findings_end():
    blocks = whole({at: {0: 3} for at in range(50)}, mapped=dict.fromkeys(range(200, 320), 0))
    assert len(found(blocks)) == MAX_FINDINGS


def test_what_a_pool_can_go_on_with():
    assert [is_harmless(Finding(each, "")) for each in ("thin.data.leaked", "thin.data.count", "thin.device")] == [
        True,
        False,
        False,
    ]


def test_while_it_runs_only_the_reserved_snapshot_is_looked_at():
    device = MemoryDevice(content=image(whole(DEVICES)))
    assert [each.rule for each in check_metadata(device, live=True)] == ["thin.metadata.held"]
    blocks = changed(held_root=20)
    held = Superblock.parse(blocks[0])
    held.block, held.held_root, held.data_map, held.metadata_map = 20, 0, bytes(128), bytes(128)
    blocks |= {20: sealed(held.pack(), layout.SUPERBLOCK_SALT), 5: bytes(BLOCK)}
    assert check_metadata(MemoryDevice(content=image(blocks)), live=True) == []
    assert check_metadata(MemoryDevice(content=image(blocks | {9: bytes(BLOCK)})), live=True) != []
