"""Calls that the kernel may not end by itself, waited for no longer than somebody is ready to wait.

Knows: threads. Refuses to know: what is called.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")


def within(
    timeout_s: float,
    function: Callable[[], _Result],
    *,
    late: Callable[[_Result], None],
    progress: Callable[[], object] = lambda: None,
) -> _Result:
    """Return what ``function`` returns, or raise what it raises; TimeoutError where it has not ended by then.

    As long as ``progress`` returns something else each time, it has that time again. What has not ended goes on by
    itself, and ``late`` gets what it returns in the end.
    """
    lock = threading.Lock()
    done = threading.Event()
    results: list[_Result] = []
    errors: list[BaseException] = []
    given_up = False

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            errors.append(error)
        else:
            with lock:
                if given_up:
                    late(result)
                else:
                    results.append(result)
        done.set()

    before = progress()
    threading.Thread(target=run, name="bounded call", daemon=True).start()
    while not done.wait(timeout_s):
        now = progress()
        if now == before:
            break
        before = now
    with lock:
        given_up = not done.is_set() and not results
    if errors:
        raise errors[0]
    if given_up:
        raise TimeoutError(f"not done after {timeout_s:g} s")
    return results[0]
