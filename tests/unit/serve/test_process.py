import os
import signal
import subprocess
import sys
import threading

import pytest

from blockwright.errors import NotFound, Unavailable, UsageError
from blockwright.serve import run as service
from blockwright.serve.definition import ExportsFile
from blockwright.serve.process import ENDED, Signals, become, pid_file
from blockwright.serve.run import Service


@pytest.fixture
def heard():
    """Whoever starts the tests may have had SIGHUP ignored, as nohup does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heard")
def test_signals_wait_to_be_asked_for():
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert {signals.wait(), signals.wait()} == {signal.SIGTERM, signal.SIGHUP}
        threading.Thread(target=signals.end).start()
        assert signals.wait() == ENDED
    assert signal.getsignal(signal.SIGTERM) is before
    signals.end()  # too late, and harmless


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.wait() == signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_pid_file_follows_no_link(tmp_path):
    path, other = tmp_path / "pid", tmp_path / "other"
    other.write_text("of value")
    (tmp_path / f"pid.{os.getpid()}").symlink_to(other)
    with pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        assert not path.is_symlink()
    assert other.read_text() == "of value"


def test_a_pid_file_lives_as_long_as_the_context(tmp_path):
    path = tmp_path / "pid"
    path.write_text("999999999\n")  # a dead one's
    with pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        assert os.listdir(tmp_path) == ["pid"]
    assert os.listdir(tmp_path) == []
    with pid_file(str(path)):
        path.write_text("1\n")
    assert path.read_text() == "1\n"  # another one's by now
    with pid_file(None):
        pass
    with pytest.raises(FileNotFoundError, match="missing"), pid_file(str(tmp_path / "missing" / "pid")):
        pass


def test_root_is_given_up_for_good():
    if os.getuid() != 0:
        with pytest.raises(Unavailable, match="needs root"):
            become("root")
        return
    program = (
        "import os\n"
        "from blockwright.serve.process import become\n"
        "os.setgroups([0, 4])\n"
        "become('nobody')\n"
        "print(os.getresuid(), os.getresgid(), 0 in os.getgroups())\n"
        "try:\n    os.setuid(0)\nexcept PermissionError:\n    print('gone')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "(65534, 65534, 65534) (65534, 65534, 65534) False\ngone\n"


def test_to_become_oneself_needs_nothing():
    become(str(os.getuid()))


@pytest.mark.parametrize("user", ["no-such-user", "4294967290", "", "9" * 30, "a\0b"])
def test_an_unknown_user_is_told(user):
    with pytest.raises(NotFound, match="no such user"):
        become(user)


def test_the_parent_is_watched_by_who_we_have_become(monkeypatch):
    """The kernel forgets whom to tell when a process changes its user (prctl(2), PR_SET_PDEATHSIG)."""
    calls = []

    def watch(*parent):
        calls.append(("watch", *parent))
        raise UsageError("the parent has ended already")

    monkeypatch.setattr(service, "become", lambda user: calls.append(("become", user)))
    monkeypatch.setattr(service, "end_with_parent", watch)
    with pytest.raises(UsageError):
        service.run(Service(ExportsFile, user="somebody", with_parent=True))
    assert calls == [("become", "somebody"), ("watch", os.getppid())]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_parent_that_has_ended_is_noticed():
    program = "from blockwright.serve.process import end_with_parent\nend_with_parent(1 << 30)\n"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert "the parent has ended already" in done.stderr
