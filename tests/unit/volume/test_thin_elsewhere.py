"""The driver `thin` where it cannot work: told as such, with nothing made."""

import sys

import pytest

from blockwright.errors import Unavailable, UsageError
from blockwright.units import GiB, KiB, MiB
from blockwright.volume import PoolSpec, create_pool, pool_names
from blockwright.volume.driver import unintended
from blockwright.volume.pool import driver_of
from blockwright.volume.thin.backing import make_files, remove_files


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_named(monkeypatch, tmp_path, platform):
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(Unavailable, match=f"the driver thin needs Linux, this is {platform}"):
        driver_of("thin")(PoolSpec("main", "thin", str(tmp_path), {}))
    with pytest.raises(Unavailable, match="needs Linux"):
        create_pool("main", "thin", {"size": GiB})
    assert pool_names() == []


def made(tmp_path, **options):
    return make_files(PoolSpec("main", "thin", str(tmp_path / "pool"), options), unintended)


def test_files_are_as_large_as_the_pool_and_its_formula(tmp_path):
    spec = made(tmp_path, size="1M", block="128K")
    folder = tmp_path / "pool" / "volumes"
    assert spec.options == {"directory": str(folder), "block": 128 * KiB}
    assert {each.name: each.stat().st_size for each in folder.iterdir()} == {"data": MiB, "metadata": 2 * MiB}
    remove_files(str(folder))
    assert not folder.exists()
    assert (made(tmp_path, size=MiB + 1).text("directory"), (folder / "data").stat().st_size) == (
        str(folder),
        MiB + 64 * KiB,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "size: expected a size, such as size=20G, found None"),
        ({"size": True}, "size: expected a size"),
        ({"size": "much"}, "much"),
        ({"size": 0}, "expected a block of 65536 bytes or more"),
        ({"size": GiB, "block": 4096}, "expected a multiple of 64 KiB"),
        ({"size": GiB, "snapshots": "overlay"}, "the driver thin has no option snapshots"),
    ],
)
def test_options_that_are_refused_make_nothing(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        made(tmp_path, **options)
    assert not (tmp_path / "pool").exists()


def test_a_folder_that_holds_something_is_not_taken(tmp_path):
    (tmp_path / "data").write_bytes(b"precious")
    with pytest.raises(UsageError, match="expected an empty directory"):
        made(tmp_path, size=GiB, directory=str(tmp_path))
    assert (tmp_path / "data").read_bytes() == b"precious"
