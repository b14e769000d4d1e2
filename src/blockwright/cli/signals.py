"""Signals that end the command: they unwind its stack.

Knows: which signals there are. Refuses to know: what they end, and how none is missed (``signal_watch``).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

if sys.platform != "win32":
    from blockwright.cli.signal_watch import Watch
else:
    Watch = object

_ENDING: Final = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived: unwinds the stack, so that what was begun is removed.

    A class of its own, since click takes KeyboardInterrupt for itself.
    """


def obey() -> None:
    """Have the signals raise Interrupted in the main thread; those that were ignored before stay so, as for nohup."""
    _handle(_stop)


def ignore() -> None:
    """Have the signals do nothing."""
    _handle(signal.SIG_IGN)


def watch() -> None:
    """Have no signal missed from now on, in a process that is the command's own; called by its main thread.

    Does nothing where no thread can be interrupted, as on Windows.
    """
    global _watch  # noqa: PLW0603 - signals are the process's
    if sys.platform != "win32" and _watch is None:
        _watch = Watch()


def unwatch() -> bool:
    """End ``watch`` and its thread, since who forks must have no threads; return whether there was one."""
    global _watch  # noqa: PLW0603 - the same
    if sys.platform == "win32" or _watch is None:
        return False
    _watch.end()
    _watch = None
    return True


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _stop(_number: int, _frame: FrameType | None) -> None:
    if sys.platform != "win32" and _watch is not None:
        _watch.forget()
    raise Interrupted


_watch: Watch | None = None
