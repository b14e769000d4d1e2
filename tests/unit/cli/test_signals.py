"""Signals end the command whenever they come, in the instant before a call that blocks too."""

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
    def fork(work):
        print(threading.active_count(), flush=True)
        return 7
    nbd_attach.in_background = fork
    sys.exit(run.run(["nbd", "attach", "--background", "nbd://localhost/x"], last=True))
    """
    done = run_code(code)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"1\n", b"")
