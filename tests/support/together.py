"""Calls that are made at the same time, each in a thread of its own."""

import threading
from collections.abc import Callable, Iterable

END_S = 120
"""Seconds after which a thread that has not ended has failed; no test waits for them."""


def run_together(calls: Iterable[Callable[[], object]]) -> None:
    """Make the calls at once, see to it that all end, and raise the first error of any."""
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(END_S)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
