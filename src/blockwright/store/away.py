"""Calls that hear no signal, made away from the main thread, which waits where it does.

What runs in a library's own code answers ^C when it comes back, which is up to a timeout later. A signal ends the
wait; the call itself comes to its end in a thread that nothing waits for.

Knows: threads. Refuses to know: what is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")

_LOOK_S: Final = 0.5
"""How long a wait is at most: a signal that comes just before it begins is seen when it ends."""


class _Call:
    """One call, and what became of it."""

    __slots__ = ("done", "error", "function", "result")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None


class Away:
    """Makes calls of the main thread in another one; those of other threads where they are made."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call | None] | None = None

    def __call__(self, function: Callable[[], T]) -> T:
        """Return what ``function`` returns, and raise what it raises."""
        if threading.current_thread() is not threading.main_thread():
            return function()
        if self._calls is None:
            self._calls = SimpleQueue()
            threading.Thread(target=_serve, args=(self._calls,), name="away", daemon=True).start()
        call = _Call(function)
        self._calls.put(call)
        try:
            while not call.done.wait(_LOOK_S):
                pass
        except BaseException:
            self._calls.put(None)  # the thread ends when the call does, and the next call gets another one
            self._calls = None
            raise
        if call.error is not None:
            raise call.error
        result: T = call.result
        return result

    def __del__(self) -> None:
        if self._calls is not None:
            self._calls.put(None)


def _serve(calls: SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        try:
            call.result = call.function()
        except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
            call.error = error
        call.done.set()
        del call
