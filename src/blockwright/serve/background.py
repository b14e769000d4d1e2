"""Going on in the background: the command returns when what it started is ready, or has failed.

Knows: processes and standard streams. Refuses to know: what is done there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from blockwright.errors import NotSupported


def in_background(work: Callable[[Callable[[], None]], int], *, forked: Callable[[], None] | None = None) -> int:
    """Call ``work`` in a process of its own, and return 0 in this one when it says that it is ready.

    It says so by calling what it is given, which takes its standard streams away. Until then it shares them, and
    whatever code it ends with is returned here. It returns in that process what ``work`` does. Called before there
    are threads; ``forked`` is called first in both processes, and may start some. Raises NotSupported where there are
    no such processes.
    """
    if sys.platform == "win32":
        raise NotSupported("background: this system does not let a process go on without its terminal")
    sys.stdout.flush()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        os.setsid()
        if forked is not None:
            forked()
        return work(lambda: _tell_ready(write))
    os.close(write)
    try:
        if forked is not None:
            forked()
        ready = os.read(read, 1)
        if ready:
            return 0
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(read)


def _tell_ready(write: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    if nothing > 2:  # it is one of them where that was closed
        os.close(nothing)
    with suppress(OSError):  # nobody waits for it any more
        os.write(write, b"\1")
    os.close(write)
