"""Layers that were cut or lengthened behind the journal's back: their volumes are not used, and all others are."""

import os
from pathlib import Path

import pytest

from blockwright.errors import Damaged, NoSpace
from blockwright.journal import Journal
from blockwright.units import KiB
from blockwright.volume import State, open_pool
from blockwright.volume.file import chain
from tests.support.command import blockwright
from tests.support.killed import fork
from tests.support.volumes import SIZE, assert_clean, content, contents, fill_with, make_pool, pattern, write

HALF = SIZE // 2


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    """The folder of a pool: ``a`` and ``b`` stand on a raw file, ``c`` is one, as ``d`` is, which is active."""
    make_pool("overlay", tmp_path, monkeypatch)
    with open_pool("p") as pool:
        pool.create("a", SIZE, fill=fill_with(pattern(1)))
        pool.snapshot("a", "b")
        write(pool, "a", 0, b"x" * 4096)
        pool.create("c", SIZE, fill=fill_with(pattern(3)))
        pool.create("d", SIZE, fill=fill_with(pattern(4)))
        pool.activate("d")
    return tmp_path / "p-volumes"


def base(volumes: Path) -> Path:
    return volumes / "a.1.1.raw"


def own(volumes: Path, name: str) -> Path:
    (found,) = volumes.glob(f"{name}.*")
    return found


def sizes(pool):
    return {row["file"]: row["size"] for row in pool.journal.rows("SELECT file, size FROM layer")}


USES = {
    "open": lambda pool, name: pool.open(name),
    "open to write": lambda pool, name: pool.open(name, writable=True),
    "activate": lambda pool, name: pool.activate(name),
    "snapshot": lambda pool, name: pool.snapshot(name, "new"),
    "grow": lambda pool, name: pool.grow(name, 2 * SIZE),
}


@pytest.mark.parametrize("length", [HALF, SIZE + 4 * KiB, 1000])
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("whose", ["a base", "its own"])
def test_a_layer_of_another_length_is_refused_by_every_use(volumes, whose, use, length):
    name, file = ("b", base(volumes)) if whose == "a base" else ("c", own(volumes, "c"))
    os.chmod(file, 0o600)
    os.truncate(file, length)
    with open_pool("p") as pool:
        text = f"{file.name}: expected {SIZE} bytes as in the journal, found {length}"
        with pytest.raises(Damaged, match=f"^{name}: is damaged and not used: {text}: see 'pool check'$"):
            USES[use](pool, name)
        assert [each.name for each in pool.list()] == ["a", "b", "c", "d"]
        assert content(pool, "d") == pattern(4)
        os.truncate(file, SIZE)  # as the message says: what was cut off is zeros now
        USES[use](pool, name)
        pool.deactivate(name)


def test_an_image_whose_header_has_another_size_is_refused(volumes):
    image = own(volumes, "b")
    with open(image, "r+b") as file:
        file.seek(24)
        file.write(HALF.to_bytes(8, "big"))
    with open_pool("p") as pool:
        with pytest.raises(Damaged, match=f"expected {SIZE} bytes as in the journal, found {HALF}"):
            pool.open("b")
        assert [(each.rule, each.message) for each in pool.check()] == [
            ("volume.size", f"b: expected {SIZE} bytes, found {HALF}")
        ]


def test_one_that_is_damaged_does_not_keep_the_others_from_coming_up(volumes):
    with open_pool("p") as pool:
        pool.activate("c")
        pool.down()
    os.truncate(base(volumes), HALF)
    os.truncate(own(volumes, "c"), HALF)
    with open_pool("p") as pool:
        done = pool.up()
        cut = f"a.1.1.raw: expected {SIZE} bytes as in the journal, found {HALF}"
        assert done.damaged == [f"a: {cut}", f"b: {cut}", f"c: {cut.replace('a.1.1', own(volumes, 'c').stem)}"]
        assert done.corrected == ["d is active again"]
        assert pool.get("c").state is State.INACTIVE
        assert pool.reconcile().damaged == pool.up().damaged == pool.repair().damaged == done.damaged
        rules = [(each.rule, each.message.partition(":")[0]) for each in pool.check()]
        assert rules == [("volume.size", "c"), ("volume.layer.size", "a.1.1.raw")]
        pool.remove("c")  # what cannot be used can be removed
    home = {"BLOCKWRIGHT_HOME": str(volumes.parent / "home")}
    for words in (["pool", "up"], ["pool", "up", "p"], ["volume", "reconcile"]):
        told = blockwright(*words, code=3, env=home).stdout.decode().splitlines()
        assert told == [f"p: damaged: a: {cut}", f"p: damaged: b: {cut}"]


@pytest.mark.parametrize(("size", "length"), [(SIZE, HALF), (2 * SIZE, HALF), (2 * SIZE, 2 * SIZE)])
def test_nothing_is_merged_into_a_base_of_another_length(volumes, size, length):
    with open_pool("p") as pool:
        pool.grow("a", size)
        before = content(pool, "a")
    os.chmod(base(volumes), 0o600)
    os.truncate(base(volumes), length)
    left = base(volumes).read_bytes()
    with open_pool("p") as pool:
        pool.remove("b")
        assert len(pool.reconcile().damaged) == 1
        assert base(volumes).read_bytes() == left
        os.truncate(base(volumes), SIZE)
        with open(base(volumes), "r+b") as file:
            file.write(pattern(1))
        assert pool.reconcile().lines == []
        assert content(pool, "a") == before
        assert [path.suffix for path in volumes.glob("a.*")] == [".raw"]
        assert_clean(pool)


def test_a_base_that_is_cut_while_a_merge_is_half_done_is_not_made_larger_again(volumes):
    """Who finishes what a dead process began looks again."""

    with open_pool("p") as pool:
        pool.grow("a", 2 * SIZE)
        before = content(pool, "a")
    pid = fork() if hasattr(os, "fork") else pytest.skip("needs fork")
    if not pid:
        with open_pool("p", checkpoint=lambda name: os._exit(9) if name == "tidy: merge" else None) as pool:
            pool.remove("b")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert base(volumes).stat().st_size == 2 * SIZE
    whole = base(volumes).read_bytes()
    os.truncate(base(volumes), HALF)
    with open_pool("p") as pool:
        pool.reconcile()
        assert base(volumes).stat().st_size == HALF
        base(volumes).write_bytes(whole)
        assert pool.reconcile().finished == ["tidy of a"]
        assert content(pool, "a") == before
        assert_clean(pool)


def test_a_merge_that_failed_behind_its_growing_is_done_later(volumes, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise NoSpace("the disk is full")

    with open_pool("p") as pool:
        pool.grow("a", 2 * SIZE)
        before = content(pool, "a")
        with monkeypatch.context() as patch:
            patch.setattr(chain, "copy", full)
            pool.remove("b")
        assert base(volumes).stat().st_size == 2 * SIZE
        assert content(pool, "a") == before
        assert_clean(pool)
        assert pool.reconcile().lines == []
        assert [path.suffix for path in volumes.glob("a.*")] == [".raw"]
        assert content(pool, "a") == before
        assert_clean(pool)


def test_sizes_are_on_record_however_a_layer_comes_to_be(volumes):
    with open_pool("p") as pool:
        pool.snapshot("a", "beside")
        pool.snapshot("beside", "again")  # of what has nothing of its own
        pool.grow("b", 3 * SIZE)
        pool.snapshot("b", "copy")
        pool.remove("a")
        (volumes / "other.70.71.raw").write_bytes(pattern(5))
        pool.reconcile()
        found = sizes(pool)
        assert found == {name: chain.size_of(str(volumes / name)) for name in os.listdir(volumes)}
        assert {found[own(volumes, name).name] for name in ("b", "copy")} == {3 * SIZE}
        assert_clean(pool)


def older(volumes: Path) -> None:
    """Make the journal what the version before the sizes wrote."""
    path = volumes.parent / "home/pools/p/journal.db"
    with Journal(str(path)) as journal, journal.transaction() as db:
        db.execute("ALTER TABLE layer DROP COLUMN size")
        db.execute("UPDATE part SET version = 1 WHERE name = 'file'")


def test_an_older_journal_is_read_and_learns_the_sizes(volumes):
    with open_pool("p") as pool:
        before, expected = contents(pool), sizes(pool)
    older(volumes)
    with open_pool("p") as pool:
        assert sizes(pool)[base(volumes).name] is None
        assert sizes(pool)[own(volumes, "c").name] == SIZE  # which the volume's record tells
        assert contents(pool) == before
        assert sizes(pool) == expected
        assert pool.reconcile().lines == []
        assert_clean(pool)
    os.truncate(base(volumes), HALF)
    with open_pool("p") as pool, pytest.raises(Damaged):
        pool.open("b")


def test_an_older_journal_tells_of_a_volumes_own_file_at_once(volumes):
    older(volumes)
    os.truncate(own(volumes, "c"), HALF)
    with open_pool("p") as pool, pytest.raises(Damaged, match=f"expected {SIZE} bytes as .*, found {HALF}"):
        pool.open("c")


def test_an_image_that_is_smaller_than_what_it_stands_on_is_not_merged(volumes):
    """Another program may have made it so, and what is behind its end would come back."""
    from blockwright.device.file import FileDevice
    from blockwright.format.qcow2.create import Options, create

    (volumes / "low.70.70.raw").write_bytes(pattern(7))
    with FileDevice(volumes / "high.71.71.qcow2", create=True) as file:
        create(file, HALF, Options(backing_file="low.70.70.raw", backing_format="raw"))
    with open_pool("p") as pool:
        assert pool.reconcile().adopted == ["high"]
        assert pool.reconcile().lines == []
        assert content(pool, "high") == pattern(7)[:HALF]
        assert (volumes / "low.70.70.raw").stat().st_size == SIZE
        assert_clean(pool)
