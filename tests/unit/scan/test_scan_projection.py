import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from blockwright.errors import Corrupt, ScanFailed
from blockwright.scan.policy import Budget
from blockwright.scan.projection import project
from blockwright.scan.workplace import PREFIX, workplace
from blockwright.tree.content import Content
from blockwright.tree.node import Directory, File, Symlink
from tests.support.command import interrupt
from tests.support.killed import killed_at_every_step
from tests.support.scantrees import debian, file, hostile, tree_of

ROOM = Budget(size=1 << 24, files=1000)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "root"
    made.mkdir()
    return made


def listed(folder: Path) -> dict[bytes, int]:
    """Every path in a projection with its mode."""
    found = {}
    for here, folders, names in os.walk(os.fsencode(folder)):
        for name in [*folders, *names]:
            path = os.path.join(here, name)
            found[os.path.relpath(path, os.fsencode(folder))] = os.lstat(path).st_mode
    return found


def test_a_hostile_tree_leaves_regular_files_and_plain_directories_only(folder):
    made = project(hostile(), str(folder), ROOM)
    modes = listed(folder)
    assert {stat.S_IFMT(mode) for mode in modes.values()} == {stat.S_IFREG, stat.S_IFDIR}
    assert {stat.S_IMODE(mode) for mode in modes.values()} == {0o644, 0o755}
    assert all(stat.S_IMODE(mode) == 0o755 for mode in modes.values() if stat.S_ISDIR(mode))
    assert (folder / "closed/hidden").read_bytes() == b"hidden"
    assert (folder / "a\nb: Evil FOUND").read_bytes() == b"newline"
    assert (folder / "setuid").stat().st_mode & 0o7777 == 0o755
    assert (folder / "setuid").samefile(folder / "again")
    assert (folder / "sparse").stat().st_size == 1 << 20
    for name in ("dev", "fifo", "socket", "out", "passwd", "loop", "lib", "huge"):
        assert not os.path.lexists(folder / name)
    assert made.left_out.files == 2
    assert made.left_out.names[0].endswith("d/d/deep")
    assert made.left_out.names[1] == "huge"
    assert made.left_out.size == (1 << 43) + 4


def test_what_lies_behind_links_at_known_paths_is_there(folder):
    tree = tree_of(
        {
            b"lib": Symlink(b"usr/lib"),
            b"usr/lib/apk/db/installed": file(b"P:musl\n"),
            b"etc/os-release": Symlink(b"/usr/lib/os-release"),
            b"usr/lib/os-release": file(b"ID=alpine\n"),
            b"var/lib/rpm": Symlink(b"../../usr/lib/sysimage/rpm"),
            b"usr/lib/sysimage/rpm/rpmdb.sqlite": file(b"SQLite"),
        }
    )
    project(tree, str(folder), ROOM)
    for path in ("lib/apk/db/installed", "usr/lib/apk/db/installed", "etc/os-release", "var/lib/rpm/rpmdb.sqlite"):
        assert stat.S_ISREG(os.lstat(folder / path).st_mode)


def test_the_budget_goes_to_what_scanners_read(folder):
    tree = debian(**{"aa": file(b"x" * 4000), "srv/pom.xml": file(b"<project/>"), "zz": file(b"z")})
    made = project(tree, str(folder), Budget(size=1200, files=6))
    assert (folder / "var/lib/dpkg/status").is_file()
    assert (folder / "srv/pom.xml").is_file()
    assert made.left_out.names == ("aa",)
    assert (made.left_out.files, made.left_out.size) == (1, 4000)
    assert made.size <= 1200
    assert made.files == 6


def test_the_budget_of_files(folder):
    made = project(debian(), str(folder), Budget(size=1 << 20, files=2))
    assert made.files == 2
    assert made.left_out.names == ("var/lib/dpkg/status", "usr/bin/openssl")


def test_names_of_many_left_out_are_bounded(folder):
    tree = tree_of({b"%d" % number: file(b"x") for number in range(100)})
    made = project(tree, str(folder), Budget(size=0, files=1000))
    assert (made.left_out.files, len(made.left_out.names)) == (100, 20)


def test_numbers_have_each_content_once_and_no_empty_file(folder):
    shared = file(b"one")
    tree = tree_of({b"a\n": shared, b"b/c": shared, b"d": file(b"two"), b"e": file(b"")})
    made = project(tree, str(folder), ROOM, numbered=True)
    assert sorted(made.names.values()) == [b"a\n", b"d"]
    assert sorted(os.listdir(folder)) == sorted(made.names)
    assert all(name.isdecimal() for name in made.names)


@pytest.mark.parametrize("name", [b"..", b".", b"a\0b", b"../../x", b"/x/..", b""])
@pytest.mark.parametrize("within", [False, True])
def test_names_that_are_none_lead_nowhere(folder, name, within):
    node = Directory(entries={b"x": file(b"x")}) if within else file(b"x")
    try:
        project(Directory(entries={name: node}), str(folder), ROOM)
    except Corrupt:
        assert os.listdir(folder) == []
    else:
        assert name == b""
    assert os.listdir(folder.parent) == ["root"]


def test_what_is_in_the_way_is_left_out_and_not_followed(folder, tmp_path):
    (tmp_path / "other").write_bytes(b"before")
    (folder / "b").symlink_to(tmp_path / "other")
    (folder / "d").symlink_to(tmp_path)
    made = project(tree_of({b"b": file(b"x"), b"d/other": file(b"x")}), str(folder), ROOM)
    assert (tmp_path / "other").read_bytes() == b"before"
    assert made.left_out.names == ("b", "d/other")


class _Broken(Content):
    def read_into(self, offset, buffer, /):
        raise OSError(28, "No space left on device")


def test_a_host_without_room_is_one_line_and_nothing_half_written(folder):
    with pytest.raises(ScanFailed, match="a: put before the scanner: no space left on device"):
        project(tree_of({b"a": File(content=_Broken(10))}), str(folder), ROOM)
    assert os.listdir(folder) == []


# ------------------------------------------------------------------------------------------------- workplaces


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, Corrupt("x")])
def test_a_workplace_is_gone_whatever_ends_it(tmp_path, error):
    def work():
        with workplace(str(tmp_path)) as place:
            project(hostile(), place.folder("root"), ROOM)
            os.chmod(place.folder("home"), 0)
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        work()
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_what_lives_is_not(tmp_path):
    def make():
        with workplace(str(tmp_path)) as place:
            project(debian(), place.folder("root"), ROOM)

    left = 0
    for _ in killed_at_every_step(make, steps={"os.mkdir", "fcntl.flock", "os.chmod"}):
        left += bool(os.listdir(tmp_path))
        with workplace(str(tmp_path)) as one, workplace(str(tmp_path)) as two:
            assert one.path != two.path
            assert len(os.listdir(tmp_path)) == 2
        assert os.listdir(tmp_path) == []
    assert left


def test_nothing_else_is_removed(tmp_path):
    (tmp_path / f"{PREFIX}file").write_bytes(b"")
    (tmp_path / f"{PREFIX}link").symlink_to("/")
    (tmp_path / "other").mkdir()
    with workplace(str(tmp_path)):
        pass
    assert sorted(os.listdir(tmp_path)) == sorted([f"{PREFIX}file", f"{PREFIX}link", "other"])


def test_a_workdir_that_is_none_is_one_line(tmp_path):
    with pytest.raises(ScanFailed, match="no such file"), workplace(str(tmp_path / "none")):
        pass
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ScanFailed, match="not a directory"), workplace(str(tmp_path / "file")):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_nothing(tmp_path, number):
    code = textwrap.dedent("""
        import sys, time
        from blockwright.cli import signals
        from blockwright.scan.workplace import workplace
        signals.watch()
        signals.obey()
        with workplace(sys.argv[1]) as place:
            place.folder("root")
            print("ready", flush=True)
            time.sleep(60)
    """)
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout.readline() == b"ready\n"
    assert os.listdir(tmp_path)
    interrupt(child, number)
    assert child.returncode > 0
    assert os.listdir(tmp_path) == []
