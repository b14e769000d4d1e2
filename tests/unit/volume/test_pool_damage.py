"""Volumes of files that are damaged are not brought up, and pools that were not made to their end are undone."""

import os

import pytest

from blockwright.errors import Damaged
from blockwright.units import MiB
from blockwright.volume import create_pool, open_pool, pool_names
from blockwright.volume.pool import undo_unfinished
from blockwright.volume.spec import unfinished_pools
from tests.support import volumes
from tests.support.command import blockwright
from tests.support.killed import fork
from tests.support.volumes import SIZE, content


@pytest.fixture
def pool(tmp_path, monkeypatch):
    volumes.make_pool("overlay", tmp_path, monkeypatch)
    with open_pool("p") as driver:
        driver.create("a", SIZE)
        driver.snapshot("a", "b")
        yield driver


def overlay_of(pool):
    folder = pool.spec.text("directory")
    return next(os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".qcow2"))


def test_an_image_that_does_not_hold_is_told_and_its_volume_not_used(pool):
    path = overlay_of(pool)
    with open(path, "r+b") as file:
        good = file.read(8)
        file.seek(0)
        file.write(b"damaged!")
    [told] = pool.up().damaged
    name = told.partition(":")[0]
    with pytest.raises(Damaged, match=rf"^{name}: is damaged and not used: .*see 'pool check'"):
        pool.activate(name)
    assert Damaged.exit_code == 3
    with open(path, "r+b") as file:
        file.write(good)
    assert pool.up().damaged == []
    assert content(pool, "b") == bytes(SIZE)


def test_a_base_cut_inside_a_sector_is_told(pool):
    folder = pool.spec.text("directory")
    base = next(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".raw"))
    os.truncate(base, 1000)
    told = [each.partition(f": expected {SIZE} bytes as in the journal, found ") for each in pool.up().damaged]
    assert [(each[0][0], each[2]) for each in told] == [("a", "1000"), ("b", "1000")]
    assert "volume.layer.size" in [each.rule for each in pool.check()]


def test_the_command_tells_by_its_exit_code(pool, tmp_path):
    with open(overlay_of(pool), "r+b") as file:
        file.write(b"damaged!")
    for words in (["up", "p"], ["up"], ["check", "p"]):
        blockwright("pool", *words, code=3, env={"BLOCKWRIGHT_HOME": str(tmp_path / "home")})


@pytest.mark.parametrize("place", ["pool: intended", "pool: laid out", "pool: saved"])
def test_who_dies_while_a_pool_is_made_leaves_it_or_none(tmp_path, monkeypatch, place):
    volumes.unsync(monkeypatch)
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    pid = fork() if hasattr(os, "fork") else pytest.skip("needs fork")
    if not pid:
        create_pool("p", "file", {}, checkpoint=lambda name: os._exit(9) if name == place else None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    made = place == "pool: saved"
    assert (pool_names(), unfinished_pools()) == (["p"] if made else [], ["p"])
    assert undo_unfinished() == ([] if made else ["p: undone: a pool that was not made to its end"])
    assert (pool_names(), unfinished_pools()) == (["p"] if made else [], [])
    if not made:
        create_pool("p", "file", {})
    with open_pool("p") as pool:
        pool.create("a", MiB)
