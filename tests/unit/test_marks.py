"""A mark is held by the process that took it, for as long as it runs, and seen by every other."""

import os
import subprocess
import sys

from blockwright import marks
from tests.support.killed import fork

_TAKES = "import sys; from blockwright import marks; print(marks.take(sys.argv[1]), flush=True); sys.stdin.read()"


def _other(path):
    process = subprocess.Popen([sys.executable, "-c", _TAKES, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_what_another_process_has_is_held_until_it_is_killed(tmp_path):
    path = str(tmp_path / "marks")
    process, mark = _other(path)
    assert mark
    assert marks.is_held(path, mark)
    assert marks.is_held(path, mark)  # to have asked changes nothing
    assert not marks.is_held(path, mark + 1)
    process.kill()
    process.communicate()
    assert not marks.is_held(path, mark)


def test_a_process_has_one_mark_in_a_file_and_sees_it_itself(tmp_path):
    path = str(tmp_path / "marks")
    mark = marks.take(path)
    assert mark
    assert marks.take(path) == mark
    assert marks.is_held(path, mark)
    read, end = os.pipe()
    pid = fork()
    if not pid:
        # Seen, and so still there after this process itself has asked; and not the child's own.
        os.write(end, bytes([marks.is_held(path, mark), marks.take(path) != mark]))
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 2) == b"\1\1"
    os.close(read)
    os.close(end)


def test_a_file_that_was_removed_marks_nothing(tmp_path):
    path = tmp_path / "marks"
    mark = marks.take(str(path))
    path.unlink()
    assert not marks.is_held(str(path), mark)
    assert marks.take(str(path)) not in (0, mark)


def test_where_nothing_can_be_locked_there_is_no_mark(tmp_path):
    assert marks.take(str(tmp_path / "no/folder")) == 0
    assert marks.take(str(tmp_path)) == 0
    assert marks.is_held(str(tmp_path), 7)  # what cannot be asked may be
    assert not marks.is_held(str(tmp_path), 1 << 70)


def test_what_was_dropped_is_held_by_nobody_and_not_open(tmp_path):
    path = str(tmp_path / "marks")
    mark = marks.take(path)
    assert marks.taken(path)
    marks.drop(path)
    marks.drop(path)
    assert not marks.taken(path)
    assert all(os.path.realpath(f"/proc/self/fd/{fd}") != path for fd in os.listdir("/proc/self/fd"))
    assert not marks.is_held(path, mark)
