"""Pools as they are specified: saved, found again, refused, destroyed."""

import json
import os
import threading

import pytest

from blockwright.errors import Corrupt, InUse, NotFound, NotSupported, Unsupported, UsageError
from blockwright.volume import create_pool, destroy_pool, load_spec, open_pool, pool_names
from blockwright.volume.file import driver
from blockwright.volume.spec import parse_spec, state_directory, write_file


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_what_was_made_is_found_again(home):
    made = create_pool("main", "file", {"snapshots": "overlay"})
    assert load_spec("main") == made
    assert pool_names() == ["main"]
    assert made.text("directory") == str(home / "pools/main/volumes")
    assert os.stat(home / "pools/main").st_mode & 0o077 == 0
    assert os.stat(home / "pools/main/volumes").st_mode & 0o077 == 0


def test_state_lies_where_the_environment_says(monkeypatch, home):
    assert state_directory() == str(home / "pools")
    monkeypatch.delenv("BLOCKWRIGHT_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert state_directory() == "/state/blockwright/pools"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"schema": "blockwright.pool/2"}, Unsupported),
        ({"schema": "another/1"}, Corrupt),
        ({"name": "other"}, Corrupt),
        ({"driver": "zfs"}, Corrupt),
        ({"options": []}, Corrupt),
        ({"created_ns": "now"}, Corrupt),
    ],
)
def test_what_does_not_hold_is_told(home, change, error):
    create_pool("main", "file")
    path = home / "pools/main/pool.json"
    document = json.loads(path.read_text()) | change
    with pytest.raises(error):
        parse_spec(json.dumps(document).encode(), "main", str(path.parent))
    with pytest.raises(Corrupt):
        parse_spec(b"[" * 300000, "main", "/x")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 64])
def test_names_of_pools(name):
    with pytest.raises(UsageError, match="pool"):
        create_pool(name, "file")


@pytest.mark.parametrize(
    "options", [{"colour": "red"}, {"snapshots": "none"}, {"expose": "iscsi"}, {"directory": "/proc/nothing/here"}]
)
def test_what_cannot_be_made_leaves_nothing(home, options):
    with pytest.raises((UsageError, OSError)):
        create_pool("main", "file", options)
    assert pool_names() == []
    assert not (home / "pools/main").exists()
    create_pool("main", "file")


def test_a_folder_that_holds_something_is_not_taken(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_bytes(b"")
    with pytest.raises(UsageError, match="empty directory"):
        create_pool("main", "file", {"directory": str(tmp_path / "full")})
    assert (tmp_path / "full" / "precious").exists()


def test_shared_blocks_are_had_or_refused(monkeypatch):
    monkeypatch.setattr(driver, "can_clone", lambda _folder: False)
    with pytest.raises(NotSupported, match="share blocks"):
        create_pool("main", "file", {"snapshots": "reflink"})
    assert create_pool("main", "file").text("snapshots") == "overlay"


def test_a_destroyed_pool_is_gone_for_whoever_has_it_open(home):
    create_pool("main", "file")
    with open_pool("main") as pool:
        destroy_pool("main")
        with pytest.raises(NotFound, match="destroyed"):
            pool.create("a", 4096)
    assert not (home / "pools/main").exists()


def test_strange_files_keep_a_pool_from_being_destroyed(home):
    create_pool("main", "file")
    (home / "pools/main/volumes/mine").write_bytes(b"")
    with pytest.raises(InUse, match="not of pool"):
        destroy_pool("main", force=True)
    assert (home / "pools/main/volumes/mine").exists()
    assert pool_names() == ["main"]


def test_of_two_at_once_one_makes_it():
    told: list[str] = []

    def make() -> None:
        try:
            create_pool("main", "file")
            told.append("made")
        except UsageError:
            told.append("exists")

    threads = [threading.Thread(target=make) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(told) == ["exists"] * 3 + ["made"]


@pytest.mark.parametrize("name", ["none/here", "folder", "folder/none/x"])
def test_what_cannot_be_written_is_named_as_it_was_given(tmp_path, name):
    (tmp_path / "folder").mkdir()
    path = str(tmp_path / name)
    with pytest.raises(OSError) as caught:
        write_file(path, b"x")
    assert (caught.value.filename, caught.value.filename2) == (path, None)
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(tmp_path / "folder") == []
