"""Files that share blocks, where the file system has such, and what is said where it has not."""

import errno
import os

import pytest

from blockwright.device import clone
from tests.support.volumes import xfs


def test_one_is_made_on_xfs(tmp_path):
    with xfs(tmp_path) as folder:
        source, target = str(folder / "a"), str(folder / "b")
        with open(source, "wb") as file:
            file.write(os.urandom(8 << 20))
        free = os.statvfs(folder).f_bfree
        assert clone.clone_file(source, target)
        assert clone.can_clone(str(folder))
        assert sorted(os.listdir(folder)) == ["a", "b"]
        with open(source, "rb") as one, open(target, "rb") as other:
            assert one.read() == other.read()
        assert free - os.statvfs(folder).f_bfree < 256
        with pytest.raises(FileExistsError):
            clone.clone_file(source, target)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY])
def test_where_there_is_no_such_thing_nothing_is_left(tmp_path, monkeypatch, number):
    def refuse(_source: int, _target: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(clone, "share_blocks", refuse)
    (tmp_path / "a").write_bytes(b"x")
    assert not clone.clone_file(str(tmp_path / "a"), str(tmp_path / "b"))
    assert not clone.can_clone(str(tmp_path))
    assert os.listdir(tmp_path) == ["a"]


def test_what_ends_it_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(_source: int, _target: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clone, "share_blocks", interrupt)
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(KeyboardInterrupt):
        clone.clone_file(str(tmp_path / "a"), str(tmp_path / "b"))
    with pytest.raises(KeyboardInterrupt):
        clone.can_clone(str(tmp_path))
    assert os.listdir(tmp_path) == ["a"]


def test_two_at_once_may_ask(tmp_path, monkeypatch):
    asked = []

    def refuse(_source: int, _target: int) -> None:
        if not asked:
            asked.append(clone.can_clone)
            assert not clone.can_clone(str(tmp_path))
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    monkeypatch.setattr(clone, "share_blocks", refuse)
    assert not clone.can_clone(str(tmp_path))
    assert asked
    assert os.listdir(tmp_path) == []


def test_any_other_failure_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(_source: int, _target: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(clone, "share_blocks", fail)
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(OSError, match="space"):
        clone.clone_file(str(tmp_path / "a"), str(tmp_path / "b"))
    assert os.listdir(tmp_path) == ["a"]
