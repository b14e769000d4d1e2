"""A transaction as large as the log takes, and how it is escaped there: read back by the reader of logs."""

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, Unsupported
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.edit.log import LogWriter
from blockwright.fs.ext4.edit.recover import recovered
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.replay import open_journal, patched, read_log
from blockwright.tree.node import Directory
from blockwright.units import MiB

MAGIC = bytes.fromhex("c03b3998")
"""What the journal's own blocks begin with."""


def writer(block_size: int) -> LogWriter:
    made = plan(Directory(), Ext4Options(size=64 * MiB, block_size=block_size, journal=1024 * block_size))
    with open_plan(made) as planned:
        device = MemoryDevice(content=planned.read(0, planned.size))
    transaction = recovered(device, source=None)
    return LogWriter(transaction, open_journal(transaction.volume))


def written(log: LogWriter, blocks: dict[int, bytes]) -> dict[int, bytes]:
    """What a reader finds in the log behind a commit of these blocks."""
    log.write_commit(log.write_body(blocks))
    log.write_superblock(counts=True)
    volume = log._transaction.volume
    found, _ = read_log(open_journal(volume))
    return {number: patched(volume, patch) for number, patch in found.items()}


@pytest.mark.parametrize("block_size", [1024, 4096])
def test_as_many_blocks_as_are_said_to_fit_do(block_size: int) -> None:
    log = writer(block_size)
    most = log.most
    blocks = {2000 + at: at.to_bytes(4, "little") * (block_size // 4) for at in range(most)}
    assert written(log, blocks) == blocks
    assert 1023 - 5 - 1023 * 16 // block_size <= most < 1023
    log = writer(block_size)
    with pytest.raises(Corrupt, match="journal: expected block 1024 to be mapped"):
        written(log, {2000 + at: bytes(block_size) for at in range(most + 4)})


def test_what_looks_like_the_journals_own_comes_back_as_it_was() -> None:
    blocks = {2000: MAGIC + b"x" * 1020, 2001: MAGIC[:3] + b"y" * 1021, 2002: b"z" * 1020 + MAGIC}
    log = writer(1024)
    assert written(log, blocks) == blocks
    journal = open_journal(log._transaction.volume)
    logged = [log._transaction.raw.read(journal.place(journal.first + at) * 1024, 1024) for at in range(5)]
    assert [at for at, block in enumerate(logged) if block[:4] == MAGIC] == [0, 4]  # descriptor and commit


def test_a_block_behind_what_the_tags_can_say_is_refused() -> None:
    log = writer(1024)
    assert not log._wide
    with pytest.raises(Unsupported, match="journal: block 4294967296 needs 64 bits"):
        log.write_body({1 << 32: bytes(1024)})
