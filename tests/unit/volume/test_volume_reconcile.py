"""Journal and files are brought to agree, whichever of them is not as it was."""

import os
from pathlib import Path

import pytest

from blockwright.errors import InUse, NotFound, Unsupported
from blockwright.journal import Journal
from blockwright.volume import State, open_pool
from blockwright.volume.file.layers import PART
from tests.support.volumes import (
    SIZE,
    assert_clean,
    content,
    contents,
    fill_with,
    make_pool,
    pattern,
    write,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    make_pool("overlay", tmp_path, monkeypatch)
    with open_pool("p") as pool:
        pool.create("a", SIZE, fill=fill_with(pattern(1)))
        pool.snapshot("a", "b")
        write(pool, "a", 0, b"x" * 4096)
        pool.create("c", SIZE)
    return tmp_path


def _journal(folder: Path) -> Path:
    return folder / "home/pools/p/journal.db"


def _lose(folder: Path) -> None:
    for each in _journal(folder).parent.glob("journal.db*"):
        each.unlink()


def test_nothing_to_do_changes_nothing(folder):
    with open_pool("p") as pool:
        before = pool.list()
        assert pool.reconcile().lines == []
        assert pool.list() == before


def test_a_lost_journal_is_rebuilt(folder):
    with open_pool("p") as pool:
        before = contents(pool)
    _lose(folder)
    with open_pool("p") as pool:
        assert sorted(pool.reconcile().adopted) == ["a", "b", "c"]
        assert pool.reconcile().lines == []
        assert contents(pool) == before
        assert pool.get("b").origin == "a"
        assert_clean(pool)
        largest = max(each.id for each in pool.list())
        assert pool.create("d", SIZE).id > largest
        pool.snapshot("a", "e")
        pool.remove("a")
        assert content(pool, "e") == before["a"]
        assert_clean(pool)


@pytest.mark.parametrize("data", [b"", b"no database at all" * 300])
def test_a_broken_journal_is_set_aside(folder, data):
    with open_pool("p") as pool:
        before = contents(pool)
    _lose(folder)
    _journal(folder).write_bytes(data)
    with open_pool("p") as pool:
        pool.reconcile()
        assert contents(pool) == before
        assert_clean(pool)
    assert bool(list(_journal(folder).parent.glob("journal.db.set-aside*"))) == bool(data)


def test_a_lost_journal_is_rebuilt_before_anything_is_told(folder):
    _lose(folder)
    with open_pool("p") as pool:
        assert [each.name for each in pool.list()] == ["a", "b", "c"]


def test_a_journal_that_is_broken_within_is_set_aside(folder):
    with open_pool("p") as pool:
        before = contents(pool)
    with open(_journal(folder), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        for at in range(4096, size, 4096):
            file.seek(at)
            file.write(b"\xff" * 64)
    with open_pool("p") as pool:
        assert [each.name for each in pool.list()] == ["a", "b", "c"]
        assert contents(pool) == before
        assert_clean(pool)
    assert list(_journal(folder).parent.glob("journal.db.set-aside*"))


def test_a_newer_journal_is_refused_and_left(folder):
    with Journal(str(_journal(folder))) as journal, journal.transaction() as db:
        db.execute("UPDATE part SET version = 9 WHERE name = ?", (PART.name,))
    with pytest.raises(Unsupported, match="newer"):
        open_pool("p")


def test_a_volume_whose_file_went_is_lost_and_comes_back(folder):
    (file,) = (folder / "p-volumes").glob("c.*")
    away = folder / "away"
    os.rename(file, away)
    with open_pool("p") as pool:
        assert pool.reconcile().lost == ["c"]
        assert pool.get("c").state is State.LOST
        with pytest.raises(NotFound, match="lost"):
            pool.open("c")
        os.rename(away, file)
        assert pool.reconcile().corrected == [f"c is inactive, {SIZE} bytes"]
        os.unlink(file)
        pool.reconcile()
        pool.remove("c")
        assert_clean(pool)


def test_layers_that_went_lose_what_stands_on_them(folder):
    (base,) = (folder / "p-volumes").glob("a.1.1.raw")
    os.unlink(base)
    with open_pool("p") as pool:
        assert sorted(pool.reconcile().lost) == ["a", "b"]
        pool.remove("a")
        pool.remove("b")
        assert [each.name for each in pool.list()] == ["c"]
        assert_clean(pool)


def test_what_is_not_whole_is_swept_and_strange_files_are_left(folder):
    volumes = folder / "p-volumes"
    (volumes / "x.9.9.raw.part").write_bytes(b"half")
    (volumes / "notes.txt").write_bytes(b"mine")
    with open_pool("p") as pool:
        assert pool.reconcile().corrected == ["x.9.9.raw.part was not whole"]
        assert [each.rule for each in pool.check()] == ["volume.file.unknown"]
    assert (volumes / "notes.txt").read_bytes() == b"mine"
    assert not (volumes / "x.9.9.raw.part").exists()


def test_a_file_that_was_put_there_is_adopted_under_a_free_name(folder):
    (folder / "p-volumes" / "c.77.88.raw").write_bytes(pattern(5))
    with open_pool("p") as pool:
        assert pool.reconcile().adopted == ["c-77"]
        assert content(pool, "c-77") == pattern(5)
        assert_clean(pool)
        assert pool.create("d", SIZE).id > 77


@pytest.mark.parametrize("name", ["copy", "a-copy"])
def test_a_copy_of_a_volumes_file_is_another_volume(folder, name):
    """Its number is another layer's, and neither is to become the other."""
    with open_pool("p") as pool:
        before = contents(pool)
    (folder / "p-volumes" / f"{name}.90.1.raw").write_bytes(pattern(8))
    for lost in (False, True):
        if lost:
            _lose(folder)
        with open_pool("p") as pool:
            assert name in pool.reconcile().adopted
            assert contents(pool) == before | {name: pattern(8)}
            assert_clean(pool)
    with open_pool("p") as pool:
        assert pool.create("new", SIZE).id > 90
        pool.remove("a")
        pool.remove("b")
        assert contents(pool) == {"c": before["c"], name: pattern(8), "new": bytes(SIZE)}
        assert_clean(pool)


def test_names_that_are_taken_twice_over(folder):
    with open_pool("p") as pool:
        pool.create("c-77", SIZE)
    (folder / "p-volumes" / "c.77.88.raw").write_bytes(pattern(5))
    with open_pool("p") as pool:
        assert pool.reconcile().adopted == ["c-77x"]
        assert_clean(pool)


@pytest.mark.parametrize("data", [b"", b"QFI\xfb" + b"\xff" * 600, b"junk"])
def test_hostile_files_are_no_volumes(folder, data):
    (folder / "p-volumes" / "evil.70.71.qcow2").write_bytes(data)
    with open_pool("p") as pool:
        assert pool.reconcile().lines == []
        assert {each.rule for each in pool.check()} == {"volume.file.unknown"}


def test_an_image_that_stands_on_itself_or_elsewhere_is_no_volume(folder):
    from blockwright.device.file import FileDevice
    from blockwright.format.qcow2.create import Options, create

    for number, below in ((70, "evil.70.70.qcow2"), (71, "/etc/passwd"), (72, "../../../etc/passwd")):
        with FileDevice(folder / "p-volumes" / f"evil.{number}.{number}.qcow2", create=True) as file:
            create(file, SIZE, Options(backing_file=below, backing_format="raw"))
    with open_pool("p") as pool:
        assert pool.reconcile().lines == []


def test_check_tells_of_sizes_and_parents(folder):
    (file,) = (folder / "p-volumes").glob("c.*")
    os.truncate(file, SIZE // 2)
    (upper,) = (folder / "p-volumes").glob("b.*")
    os.chmod(upper, 0o600)
    with open(upper, "r+b") as image:
        image.seek(8)
        at = int.from_bytes(image.read(8), "big")
        image.seek(at)
        image.write(b"z")
    with open_pool("p") as pool:
        assert {each.rule for each in pool.check()} == {"volume.size", "volume.layer.parent"}


def test_a_dead_holder_leaves_no_traces(folder, tmp_path):
    import subprocess
    import sys

    code = (
        "import os, signal; from blockwright.volume import open_pool\n"
        "d = open_pool('p').open('a', writable=True); print(d.control, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    assert os.path.exists(told)
    with open_pool("p") as pool:
        pool.snapshot("a", "s")
        assert not os.path.exists(os.path.dirname(told))
        pool.open("a", writable=True).close()
        assert_clean(pool)


def test_an_operation_under_way_keeps_others_off_its_names_only(folder):
    with open_pool("p") as pool, open_pool("p") as other:

        def fill(path: str, size: int) -> None:
            with pytest.raises(InUse, match="create of new is not done yet"):
                other.create("new", SIZE)
            assert other.create("d", SIZE).name == "d"
            assert other.reconcile().lines == []
            fill_with(pattern(3))(path, size)

        pool.create("new", SIZE, fill=fill)
        assert content(pool, "new") == pattern(3)
        assert_clean(pool)
