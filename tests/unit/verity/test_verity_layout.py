"""The superblock: what it holds, and that nothing else gets past it; where the levels lie."""

from uuid import UUID

import pytest

from blockwright.errors import Corrupt, Misaligned, NotThisFormat, Unsupported, UsageError
from blockwright.units import MAX_SIZE
from blockwright.verity.layout import Parameters, Superblock, parse_root, parse_superblock
from blockwright.verity.plan import Level, area_end, plan_tree, tree_start

UUID_ = UUID("12345678-9abc-def0-1234-56789abcdef0")
PARAMETERS = Parameters(3, "sha512", b"salt", 1024, 2048)

# veritysetup 2.6.1: format --hash sha512 --salt 73616c74 --uuid 12345678-9abc-def0-1234-56789abcdef0
# --data-block-size 1024 --hash-block-size 2048 of 3072 bytes; its first 92 bytes, zeros behind them.
VERITYSETUP = bytes.fromhex(
    "7665726974790000 01000000 01000000 123456789abcdef0123456789abcdef0"
    "7368613531320000000000000000000000000000000000000000000000000000"
    "00040000 00080000 0300000000000000 0400 000000000000 73616c74"
)


def test_the_superblock_is_veritysetups():
    assert PARAMETERS.superblock(UUID_) == VERITYSETUP.ljust(512, b"\0")
    assert parse_superblock(VERITYSETUP.ljust(512, b"\0")) == (PARAMETERS, UUID_)


@pytest.mark.parametrize(
    ("change", "error", "offset"),
    [
        ({"signature": b"verity\0\1"}, NotThisFormat, 0),
        ({"version": 2}, Unsupported, 8),
        ({"hash_type": 0}, Unsupported, 12),
        ({"algorithm": b"md5"}, Unsupported, 32),
        ({"algorithm": b"\xff" * 32}, Unsupported, 32),
        ({"data_block_size": 0}, Corrupt, 64),
        ({"data_block_size": 1536}, Corrupt, 64),
        ({"data_block_size": 1 << 20}, Corrupt, 64),
        ({"hash_block_size": 256}, Corrupt, 68),
        ({"data_blocks": 0}, Corrupt, 72),
        ({"data_blocks": MAX_SIZE // 4096 + 1}, Corrupt, 72),
        ({"salt_size": 257}, Corrupt, 80),
    ],
)
def test_what_no_tree_can_have_is_refused_with_its_place(change, error, offset):
    data = Superblock.parse(VERITYSETUP.ljust(512, b"\0")).replace(**change).pack()
    with pytest.raises(error) as raised:
        parse_superblock(data, offset=4096)
    assert type(raised.value) is error
    assert raised.value.offset == 4096 + offset


def test_a_short_superblock_is_none():
    with pytest.raises(NotThisFormat):
        parse_superblock(VERITYSETUP)


@pytest.mark.parametrize(
    "arguments",
    [(0,), (1, "md5"), (1, "sha256", bytes(257)), (1, "sha256", b"", 4095), (1, "sha256", b"", 4096, 1 << 20)],
)
def test_parameters_are_checked(arguments):
    with pytest.raises(UsageError):
        Parameters(*arguments)


def test_a_root_hash_is_hexadecimal_and_of_the_digests_length():
    root = bytes(range(64))
    assert parse_root(root.hex().upper(), PARAMETERS) == root
    for text in ("", "ab" * 63, "zz" * 64, " " + root.hex(), "a" * 1000):
        with pytest.raises(UsageError, match="128 hexadecimal digits"):
            parse_root(text, PARAMETERS)


def test_one_block_has_no_tree():
    assert plan_tree(Parameters(1)).levels == ()
    assert plan_tree(Parameters(1)).size == 0


def test_levels_lie_with_the_highest_first():
    plan = plan_tree(Parameters(128 * 128 + 1))
    assert plan.levels == (Level(3 * 4096, 129, 128 * 128 + 1), Level(4096, 2, 129), Level(0, 1, 2))
    assert plan.size == (129 + 2 + 1) * 4096
    assert plan_tree(Parameters(128)).levels == (Level(0, 1, 128),)


@pytest.mark.parametrize(("algorithm", "slot"), [("sha1", 32), ("sha256", 32), ("sha384", 64), ("sha512", 64)])
def test_slots_are_powers_of_two(algorithm, slot):
    parameters = Parameters(100, algorithm, hash_block=512)
    assert parameters.slot_size == slot
    assert parameters.slots == 512 // slot


def test_the_largest_tree_is_planned_at_once_and_fits():
    for data_block in (512, 4096, 512 << 10):
        largest = Parameters(MAX_SIZE // 4 // data_block, "sha512", data_block=data_block, hash_block=512)
        assert area_end(largest, largest.data_size, superblock=True) <= MAX_SIZE
        assert len(plan_tree(largest).levels) <= 18


def test_where_a_tree_begins():
    assert tree_start(Parameters(9), 0, superblock=True) == 4096
    assert tree_start(Parameters(9), 3584, superblock=True) == 4096
    assert tree_start(Parameters(9), 4096, superblock=True) == 8192
    assert tree_start(Parameters(9, hash_block=512), 4096, superblock=True) == 4608
    assert tree_start(Parameters(9), 8192, superblock=False) == 8192
    for offset, superblock in ((100, True), (512, False), (-512, True)):
        with pytest.raises(Misaligned):
            tree_start(Parameters(9), offset, superblock=superblock)
