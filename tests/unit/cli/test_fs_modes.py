"""Modes and times are read as chmod(1) and touch(1) read them."""

import os
import stat

import pytest

from blockwright.cli.editing import parse_owner
from blockwright.cli.fs_metadata import new_mode, parse_time
from blockwright.errors import UsageError
from tests.support.tools import run, tool


@pytest.mark.parametrize(
    ("kind", "before"),
    [("file", 0o644), ("file", 0o750), ("file", 0o4711), ("directory", 0o640), ("directory", 0o750)],
)
@pytest.mark.parametrize(
    "mode", ["600", "2755", "u+x", "go-w", "a=r", "u=rwx,g=rx,o=", "+X", "ug+s", "o+t", "=r", "u+rw,a-x", "a+t"]
)
def test_modes_are_those_of_chmod(tmp_path, kind, before, mode):
    path = tmp_path / "it"
    path.mkdir() if kind == "directory" else path.touch()
    path.chmod(before)
    umask = os.umask(0)
    try:
        run([tool("chmod"), mode, path])
    finally:
        os.umask(umask)
    wanted = stat.S_IMODE(path.stat().st_mode)
    assert oct(new_mode(mode, before, is_directory=kind == "directory")) == oct(wanted)


@pytest.mark.parametrize("mode", ["", "8", "77777", "u+q", "z+r", "u+x,", "rwx"])
def test_other_modes_are_refused(mode):
    with pytest.raises(UsageError, match="mode: expected octal digits"):
        new_mode(mode, 0o644, is_directory=False)


def test_times():
    assert parse_time("@0") == 0
    assert parse_time("@-5.25") == -5_250_000_000
    assert parse_time("2020-02-03") == 1580688000 * 10**9
    assert parse_time("2020-02-03T04:05:06.5+01:00") == 1580699106 * 10**9 + 5 * 10**8
    with pytest.raises(UsageError, match="time: expected"):
        parse_time("yesterday")


def test_owners():
    assert parse_owner("0:0") == (0, 0)
    assert parse_owner("7") == (7, None)
    assert parse_owner(":8") == (None, 8)
    for text in ("", ":", "root", "1:x", "4294967296"):
        with pytest.raises(UsageError, match="owner: expected"):
            parse_owner(text)
