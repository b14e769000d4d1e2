import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from blockwright.errors import NotFound, ScanFailed
from blockwright.scan import process
from blockwright.scan.process import MAX_ERRORS, environment, find_program, run
from blockwright.scan.workplace import workplace


@pytest.fixture
def place(tmp_path):
    with workplace(str(tmp_path)) as made:
        yield made


def shell(place, text, *, timeout_s=60.0, max_output=1 << 20):
    return run(["/bin/sh", "-c", text], place, environ=environment(place), timeout_s=timeout_s, max_output=max_output)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def test_status_output_and_last_words(place):
    done = shell(place, "echo out; echo one >&2; echo two >&2; exit 7")
    assert (done.status, done.output, done.errors) == (7, b"out\n", b"one\ntwo\n")
    assert done.told == "exit status 7: two"
    assert shell(place, "kill -9 $$").told == "ended by SIGKILL"


def test_the_environment_and_the_directory_are_its_own(place, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    lines = shell(place, "env; pwd; ls -A; cat").output.decode().splitlines()
    assert {line.split("=")[0] for line in lines if "=" in line} <= {
        "PATH", "HOME", "TMPDIR", "LC_ALL", "TZ", "PWD", "OLDPWD", "SHLVL", "_"
    }  # fmt: skip
    assert lines[-1] == os.path.join(place.path, "cwd")
    assert environment(place, network=True)["HTTPS_PROXY"] == "http://proxy"


@pytest.mark.slow
def test_a_program_that_takes_too_long_ends_with_its_children(place, monkeypatch):
    began = time.monotonic()
    text = "trap '' TERM; sleep 300 & echo $! > ../pid; mv ../pid ../child; sleep 300"

    def clock():  # the time is over when the program has come so far
        return time.monotonic() + 100 * os.path.exists(os.path.join(place.path, "child"))

    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    with pytest.raises(ScanFailed, match=r"sh: expected an end within 60 s, found none"):
        shell(place, text)
    assert time.monotonic() - began < 120
    with open(os.path.join(place.path, "child")) as file:
        assert ends(int(file.read()))


def test_a_program_that_says_too_much_ends(place):
    with pytest.raises(ScanFailed, match="at most 1 MiB of output, found more"):
        shell(place, "cat /dev/zero")
    assert len(shell(place, "head -c 1000000 /dev/zero >&2; echo end >&2").errors) == MAX_ERRORS


def test_a_child_that_holds_the_pipes_is_not_waited_for(place):
    began = time.monotonic()
    done = shell(place, "sleep 300 & echo $! > ../child; echo whole")
    assert done.output == b"whole\n"
    assert time.monotonic() - began < 120
    with open(os.path.join(place.path, "child")) as file:
        assert ends(int(file.read()))


def test_a_program_that_closes_its_output_is_waited_for(place):
    done = shell(place, "exec >&- 2>&-; sleep 0.3; exit 5")
    assert done.status == 5
    with pytest.raises(ScanFailed, match="expected an end"):
        shell(place, "exec >&- 2>&-; sleep 60", timeout_s=0.3)


def test_an_interruption_ends_the_group(place, monkeypatch):
    gather, child = process._gather, os.path.join(place.path, "child")

    def interrupt(_number, _frame):
        raise KeyboardInterrupt

    def kick():
        while not os.path.exists(child):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGALRM)

    def gathered(*arguments):
        kicking.start()
        return gather(*arguments)

    kicking = threading.Thread(target=kick, daemon=True)
    monkeypatch.setattr(process, "_gather", gathered)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            shell(place, "sleep 300 & echo $! > ../pid; mv ../pid ../child; wait")
    finally:
        signal.signal(signal.SIGALRM, before)
    with open(os.path.join(place.path, "child")) as file:
        assert ends(int(file.read()))


def test_programs_that_cannot_be_started(place, tmp_path):
    with pytest.raises(ScanFailed, match="none: cannot be started: no such file"):
        run([str(tmp_path / "none")], place, environ={}, timeout_s=1)
    assert find_program("there-is-no-such-program") is None
    with pytest.raises(NotFound):
        find_program("sh", str(tmp_path / "none"))
    assert find_program("sh", "/bin/sh") == "/bin/sh"
