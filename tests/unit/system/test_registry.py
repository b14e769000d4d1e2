import errno
import json
import os
import subprocess
import sys

import pytest

from blockwright import owner
from blockwright.system.linux import registry
from blockwright.system.linux.registry import Registry
from tests.support.killed import fork

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are told apart by /proc")


@pytest.fixture
def records(tmp_path):
    return Registry("thing", str(tmp_path))


def test_a_record_comes_back(records):
    records.put("a", {"number": 1}, owned=True)
    records.put("b", {"number": 2}, owned=False)
    first, second = records.records()
    assert (first.name, first.fields, first.alive, first.current) == ("a", {"number": 1}, True, True)
    assert first.owner == owner.process_identity(os.getpid())
    assert (second.name, second.owner, second.alive, second.current) == ("b", None, False, True)
    records.remove("a")
    records.remove("a")
    assert [each.name for each in records.records()] == ["b"]
    assert records.get("a") is None


def test_an_owner_is_dead_when_its_process_is(records):
    pid = fork()
    if not pid:
        records.put("a", {}, owned=True)
        os._exit(0)
    os.waitpid(pid, 0)
    [found] = records.records()
    assert found.owner is not None
    assert not found.alive


def test_a_later_process_of_the_same_number_is_another(records, monkeypatch):
    records.put("a", {}, owned=True)
    monkeypatch.setattr(owner, "process_identity", lambda pid: (pid, 0))
    [found] = records.records()
    assert not found.alive


def test_an_owner_in_another_pid_namespace_lives_as_long_as_its_mark(records, tmp_path):
    records.put("a", {}, owned=True)
    path = tmp_path / "thing/a.json"
    document = json.loads(path.read_text())
    number, start, space, mark = document["owner"]
    assert mark
    for value, alive in (
        ([number + 1, start, space + 1, mark], True),
        ([number, start, space + 1, mark + 1], False),
        ([number, start + 1, space, mark], False),
        ([number, start], True),  # as records were before
    ):
        path.write_text(json.dumps({**document, "owner": value}) + "\n")
        [found] = records.records()
        assert found.alive is alive


def test_a_zombie_is_dead():
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()
    process.stdout.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert owner.process_identity(process.pid) is None
    process.wait()


def test_records_of_another_boot_are_told(records, monkeypatch):
    records.put("a", {}, owned=False)
    monkeypatch.setattr(registry, "boot_identity", lambda: "another")
    [found] = records.records()
    assert not found.current


def test_where_records_are(monkeypatch, tmp_path):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path))
    assert registry.directory() == str(tmp_path / "run")
    monkeypatch.delenv("BLOCKWRIGHT_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert registry.directory() == "/run/blockwright"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert registry.directory() == "/run/user/1000/blockwright"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert registry.directory() == "/state/blockwright"


def test_no_directory_is_no_records(tmp_path):
    assert list(Registry("thing", str(tmp_path / "none")).records()) == []


def test_the_last_whole_line_counts(records, tmp_path):
    records.put("a", {"step": 1}, owned=True)
    records.put("a", {"step": 2}, owned=False)
    path = tmp_path / "thing" / "a.json"
    assert path.read_text().count("\n") == 2
    with path.open("a") as file:
        file.write('{"step": 3, "cut off')
    found = Registry("thing", str(tmp_path)).get("a")
    assert found is not None
    assert (found.fields, found.owner) == ({"step": 2}, None)
    records.remove("a")
    records.put("a", {"step": 4}, owned=False)
    assert path.read_text().count("\n") == 1


def test_a_record_that_is_being_written_is_let_be(records, tmp_path):
    records.put("a", {}, owned=False)
    path = tmp_path / "thing" / "a.json"
    path.write_text("")
    assert list(records.records()) == []
    assert path.exists(), "its maker has opened it, and not written yet"
    os.utime(path, (0, 0))
    assert list(records.records()) == []
    assert not path.exists()


def test_a_record_that_was_cut_short_is_told(records, monkeypatch):
    records.put("a", {"step": 1}, owned=False)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:-5]))
    with pytest.raises(OSError, match=r"a\.json") as raised:
        records.put("a", {"step": 2}, owned=False)
    assert raised.value.errno == errno.ENOSPC
    found = records.get("a")
    assert found is not None
    assert found.fields == {"step": 1}
