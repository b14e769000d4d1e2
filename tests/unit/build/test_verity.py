"""The hash partition: what follows from the root hash, and that the last bytes of a file system are proven too."""

from uuid import UUID

from blockwright.build.verity import UNKNOWN, partition_guids, plan_verity


def test_the_halves_of_the_root_hash_are_the_identities():
    root_hash = bytes(range(32))
    assert partition_guids(root_hash) == (
        UUID("00010203-0405-0607-0809-0a0b0c0d0e0f"),
        UUID("10111213-1415-1617-1819-1a1b1c1d1e1f"),
    )
    assert partition_guids(UNKNOWN)[0] != partition_guids(UNKNOWN)[1]


def test_a_part_of_a_block_at_the_end_is_proven():
    assert plan_verity(4096, b"", None).parameters.data_blocks == 1
    assert plan_verity(4097, b"", None).parameters.data_blocks == 2


def test_what_is_told_before_and_after_the_hash_is_known():
    plan = plan_verity(1 << 20, b"seed", None)
    assert plan.summary.root_hash is None
    known = plan_verity(1 << 20, b"seed", bytes(32))
    assert known.summary == plan.summary._replace(root_hash="00" * 32)
    assert (plan.kind, plan.tree_start, plan.size) == ("verity", 4096, 4096 + 2 * 4096 + 4096)
    assert known.segments().end == 512
