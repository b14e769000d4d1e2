"""Processes are told apart, whatever numbers they have."""

import os
import subprocess
import sys

import pytest

from blockwright import owner
from blockwright.owner import Owner


def test_this_process_is_alive_and_survives_text():
    me = Owner.current()
    assert me.pid == os.getpid()
    assert me.alive
    assert Owner.parse(str(me)) == me


def test_a_forked_child_is_another():
    read, end = os.pipe()
    Owner.current()
    pid = os.fork()
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
    process = subprocess.Popen([sys.executable, "-c", ""])
    found = owner.process_identity(process.pid)
    assert found is not None
    other = Owner(owner.boot_identity(), *found)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not other.alive
    process.wait()


@pytest.mark.parametrize("text", ["", "/", "a/1", "a/1.", "a/.1", "a/x.y", "a/-1.2", "1.2", "a/1.2.3", "a/²." * 90])
def test_any_text_is_an_owner_that_may_not_live(text):
    assert not Owner.parse(text).alive
