"""Signals end the command whenever they come, in the instant before a call that blocks too."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from blockwright.cli import signals
from tests.support.inprocess import blockwright


def run_code(code: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python in a process of its own, whose standard input is a pipe that nobody writes to."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            process.wait(60)  # not communicate(), which closes the pipe
        except subprocess.TimeoutExpired:
            process.kill()
        assert process.stdout is not None
        assert process.stderr is not None
        return subprocess.CompletedProcess(command, process.wait(), process.stdout.read(), process.stderr.read())


# A signal that comes in that instant is noted, and interrupts nothing: which is what `interrupt_main` does.
NOTED = """
    import _thread, os, signal, sys, threading, time
    from blockwright.cli import signals
    from blockwright.cli.run import run
    reads, blocks = os.read, threading.Event()
    def read(fd, length):
        if fd == 0:
            blocks.set()
        return reads(fd, length)
    os.read = read
    def note():
        blocks.wait()
        time.sleep(0.2)
        for number in map(int, sys.argv[1].split(",")):
            _thread.interrupt_main(number)
    threading.Thread(target=note, daemon=True).start()
"""


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP], [signal.SIGTERM] * 9])
def test_a_signal_that_interrupts_nothing_ends_the_command(tmp_path, numbers) -> None:
    code = (
        NOTED
        + """
    sys.exit(run(["extract", "-", sys.argv[2]], last=True))
    """
    )
    done = run_code(code, ",".join(str(int(each)) for each in numbers), str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (130, b"blockwright: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_is_interrupted_for_nothing_goes_on() -> None:
    """The main thread may have been busy, and is interrupted in what it does next: that must be nobody's error."""
    code = """
    import os, signal, sys, threading
    from blockwright.cli import signals
    signals.watch()
    signals.obey()
    main, (take, give) = threading.get_ident(), os.pipe()
    threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGURG)).start()
    threading.Timer(0.4, os.write, (give, b"data")).start()
    sys.stdout.write(os.read(take, 9).decode())
    """
    done = run_code(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"data", b"")


def test_what_ends_leaves_the_process_as_it_was() -> None:
    handler, fd = signal.getsignal(signal.SIGURG), signal.set_wakeup_fd(-1)
    try:
        threads = set(threading.enumerate())  # others may end meanwhile
        signals.watch()
        signals.watch()
        assert len(set(threading.enumerate()) - threads) == 1
        signals.unwatch()
        signals.unwatch()
        assert not set(threading.enumerate()) - threads
        assert signal.getsignal(signal.SIGURG) is handler
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.set_wakeup_fd(fd)


def test_a_run_within_another_program_watches_nothing() -> None:
    threads, handler = set(threading.enumerate()), signal.getsignal(signal.SIGURG)
    blockwright("inspect", "null:1M")
    assert not set(threading.enumerate()) - threads
    assert signal.getsignal(signal.SIGURG) is handler


def test_who_attaches_in_the_background_forks_without_threads() -> None:
    code = """
    import sys, threading
    from blockwright.cli import nbd_attach, run
    def fork(work, *, forked):
        print(threading.active_count(), flush=True)
        return 7
    nbd_attach.in_background = fork
    sys.exit(run.run(["nbd", "attach", "--background", "nbd://localhost/x"], last=True))
    """
    done = run_code(code)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"1\n", b"")


# In the background: `hold` is what the process does that stays; the other one waits for it, in a read of one byte.
FORKED = """
    import _thread, os, signal, sys, threading, time
    from blockwright.cli import nbd_attach, run
    parent, reads, (begun, begin) = os.getpid(), os.read, os.pipe()
    def note():
        reads(begun, 1)
        time.sleep(0.2)
        _thread.interrupt_main(int(sys.argv[1]))
    def missed(fd, length):
        if length == 1 and os.getpid() == parent:
            threading.Thread(target=note, daemon=True).start()
        return reads(fd, length)
    def in_parent(start, **more):
        signal.alarm(90)
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
        print(os.getpid(), flush=True)
        os.write(begin, b"x")
        while True:
            signal.pause()
    def in_child(start, **more):
        os.write(begin, b"x")
        threading.Thread(target=note, daemon=True).start()
        return reads(0, 1)
    if sys.argv[2] == "parent":
        os.read = missed
    nbd_attach.hold = {"parent": in_parent, "child": in_child}[sys.argv[2]]
    sys.exit(run.run(["nbd", "attach", "--background", "nbd://localhost/x"], last=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_interrupts_nothing_ends_who_waits_for_the_background(number) -> None:
    done = run_code(FORKED, str(int(number)), "parent")
    assert (done.returncode, done.stderr) == (130, b"blockwright: interrupted\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_signal_that_interrupts_nothing_ends_the_background_before_it_is_ready() -> None:
    done = run_code(FORKED, str(int(signal.SIGTERM)), "child")
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"blockwright: interrupted\n")


def test_a_run_within_another_program_watches_nothing_when_it_has_forked() -> None:
    code = """
    import sys, threading
    from blockwright.cli import nbd_attach, run
    nbd_attach.in_background = lambda work, *, forked: 7 if forked is None else 8
    sys.exit(run.run(["nbd", "attach", "--background", "nbd://localhost/x"]))
    """
    done = run_code(code)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"", b"")
