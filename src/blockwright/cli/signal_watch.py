"""A thread that lets no signal be missed.

Python only notes a signal when it comes, and acts on it before the main thread's next instruction. One that comes in
the instant before a call blocks is noted, and the call blocks all the same: for as long as nobody writes to the pipe
that it reads. So a thread looks whether what was noted has been acted on, and interrupts such a call until it has.

Knows: how signals reach the main thread. Refuses to know: which they are, and what they do.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from contextlib import suppress
from typing import Final

assert sys.platform != "win32", "threads cannot be interrupted there"

_PATIENCE_S: Final = 0.05
"""How long the main thread may take to act on a signal before its call is interrupted."""


class Watch:
    """A pipe that holds a byte for each signal from when it is noted until it is acted on, and who looks at it."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        self._main = threading.get_ident()
        self._ended = threading.Event()
        # What interrupts the main thread's call: does nothing else, and nobody but us has it sent.
        self._handler = signal.signal(signal.SIGURG, lambda _number, _frame: self.forget())
        self._fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        self._thread.start()

    def forget(self) -> None:
        """Say that what was noted is acted on."""
        with suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

    def end(self) -> None:
        """End the thread; have the process as it was before."""
        signal.set_wakeup_fd(self._fd)
        signal.signal(signal.SIGURG, self._handler)
        self._ended.set()
        with suppress(BlockingIOError):
            os.write(self._write, b"\0")
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the main thread's
        noted = select.poll()  # select() takes no descriptor from 1024 on
        noted.register(self._read, select.POLLIN)
        while True:
            noted.poll()
            if self._ended.wait(_PATIENCE_S):
                return
            if noted.poll(0):
                signal.pthread_kill(self._main, signal.SIGURG)
