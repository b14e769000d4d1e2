"""Processes are told apart, whatever numbers they have."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from blockwright import owner
from blockwright.owner import Owner
from tests.support.killed import fork


def test_this_process_is_alive_and_survives_text():
    me = Owner.current()
    assert me.pid == os.getpid()
    assert me.alive
    assert Owner.parse(str(me)) == me


def test_a_forked_child_is_another():
    read, end = os.pipe()
    Owner.current()
    pid = fork()
    if not pid:
        os.write(end, str(Owner.current()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    child = Owner.parse(os.read(read, 1000).decode())
    os.close(read)
    os.close(end)
    assert child.pid == pid
    assert not child.alive


def test_a_number_used_again_is_another_process():
    me = Owner.current()
    assert not Owner(me.boot, me.pid, me.start + 1).alive
    assert not Owner("another boot", me.pid, me.start).alive


def test_one_that_ended_is_not_alive_though_nobody_asked_for_its_code():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)  # it may end when it is told
    found = owner.process_identity(process.pid)
    assert found is not None
    other = Owner(owner.boot_identity(), *found)
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(b"\n")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not other.alive
    process.wait()


_ENDS_BUT_FOR_A_THREAD = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print(flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process has no state of its first thread")
def test_one_lives_as_long_as_any_of_its_threads():
    process = subprocess.Popen(
        [sys.executable, "-c", _ENDS_BUT_FOR_A_THREAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    found = owner.process_identity(process.pid)
    assert found is not None
    while b") Z " not in Path(f"/proc/{process.pid}/stat").read_bytes():
        assert process.poll() is None
    assert Owner(owner.boot_identity(), *found).alive
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not Owner(owner.boot_identity(), *found).alive
    process.communicate()


def test_one_of_another_pid_namespace_lives_as_long_as_its_mark(tmp_path):
    marks = str(tmp_path / "marks")
    me = Owner.current(marks)
    assert me.space == owner.process_space() != 0
    assert me.mark
    assert not me.foreign
    other = replace(me, space=me.space + 1, pid=me.pid + 1)  # whatever number it has here
    assert Owner.parse(str(other), marks) == other
    assert other.foreign
    assert other.alive
    assert other.text == f"process {other.pid} of another PID namespace"
    assert not replace(other, mark=other.mark + 1).alive
    assert replace(other, mark=0).alive  # it could have none, and nobody can know
    assert not replace(other, boot="another boot").alive


def test_owners_of_before_there_were_marks_are_read():
    me = Owner.current()
    assert Owner.parse(f"{me.boot}/{me.pid}.{me.start}").alive
    assert not Owner.parse(f"{me.boot}/{me.pid}.{me.start + 1}").alive


@pytest.mark.parametrize("text", ["", "/", "a/1", "a/1.", "a/.1", "a/x.y", "a/-1.2", "1.2", "a/1.2.3", "a/²." * 90])
def test_any_text_is_an_owner_that_may_not_live(text):
    assert not Owner.parse(text).alive
