"""Hash trees as others read them: collisions across leaves, unsigned bytes, the kernel's own lookups."""

import os
import random
import re
from pathlib import Path

from blockwright.fs.ext4.dirhash import hash_names
from blockwright.fs.ext4.layout import HashVersion, SuperFlag
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.tree.node import Directory, File, Node
from blockwright.units import MiB
from tests.support.e2fs import debugfs
from tests.support.ext4 import e2fsck, write_plan
from tests.support.mounting import mounted
from tests.support.tools import run, tool

OPTIONS = Ext4Options(block_size=1024, seed=b"collision", free=0.5)
ALIKE = (b"85434", b"112990")
"""Two names with the hash 0x1eb9ebd8 under the seed of OPTIONS."""
PER_LEAF = (1024 - 12) // 16


def hashes(names: list[bytes], version: int = HashVersion.half_md4) -> list[int]:
    return list(hash_names(names, version, OPTIONS.effective_hash_seed.bytes)[0])


def names_around_a_collision() -> list[bytes]:
    """Names whose leaves are full such that the two alike lie on both sides of a boundary."""
    first, second = hashes(list(ALIKE))
    assert first == second
    others = [b"%d" % index for index in range(200_000, 203_000)]
    ordered = sorted(zip(hashes(others), others, strict=True))
    below = [name for value, name in ordered if value < first][: PER_LEAF - 1]
    above = [name for value, name in ordered if value > first][:200]
    return [*below, *ALIKE, *above]


def directory_of(names: list[bytes]) -> Directory:
    files: dict[bytes, Node] = {name: File() for name in names}
    return Directory(entries={b"d": Directory(entries=files)})


def test_a_hash_that_spans_two_leaves(tmp_path):
    names = names_around_a_collision()
    image = write_plan(plan(directory_of(names), OPTIONS), tmp_path / "image")
    e2fsck(image)
    assert "Hash 0x1eb9ebd9" in debugfs(image, "htree_dump /d"), "bit 0: go on in the leaf before"
    with mounted(image, tmp_path / "at", "rw") as at:
        for name in names:
            os.unlink(os.path.join(os.fsencode(at), b"d", name))  # each found by its hash
        assert os.listdir(at / "d") == []
    e2fsck(image)


def test_the_kernel_finds_names_of_any_bytes(tmp_path):
    rng = random.Random(5)
    allowed = [byte for byte in range(1, 256) if byte != 0x2F]
    names = {bytes(rng.choices(allowed, k=rng.randrange(3, 256))) for _ in range(3000)}
    options = Ext4Options(block_size=1024, seed=b"collision", size=64 * MiB)
    image = write_plan(plan(directory_of(sorted(names)), options), tmp_path / "image")
    assert "Indirect levels: 1" in debugfs(image, "htree_dump /d")
    with mounted(image, tmp_path / "at", "rw") as at:
        folder = os.path.join(os.fsencode(at), b"d")
        assert set(os.listdir(folder)) == names
        for name in names:
            os.rename(os.path.join(folder, name), os.path.join(folder, b"new " + name[:200]))
    e2fsck(image)


def dumped_hashes(image: Path) -> dict[str, int]:
    """The hash of each name in /d, as debugfs computes it."""
    found = re.findall(r"\b\d+ 0x([0-9a-f]{8})-[0-9a-f]{8} \(\d+\) (\S+)", debugfs(image, "htree_dump /d"))
    return {name: int(value, 16) for value, name in found}


def test_unsigned_bytes_hash_as_e2fsck_says(tmp_path):
    names = ["ü" * (index % 30 + 1) + str(index) for index in range(400)]
    image = write_plan(plan(directory_of([name.encode() for name in names]), OPTIONS), tmp_path / "image")
    for version, flags in (
        (HashVersion.half_md4, SuperFlag.signed_hash),
        (HashVersion.half_md4_unsigned, SuperFlag.unsigned_hash),
    ):
        run([tool("debugfs"), "-w", "-R", f"set_super_value flags {flags.value}", image])
        run([tool("e2fsck"), "-fyD", image], ok=(0, 1))
        assert dumped_hashes(image) == dict(
            zip(names, hashes([name.encode() for name in names], version), strict=True)
        )
