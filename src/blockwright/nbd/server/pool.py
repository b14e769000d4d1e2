"""Threads that wait for a device in place of the threads that read from clients.

Knows: jobs, and whose turn it is. Refuses to know: what they do; a job never raises.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

Job = Callable[[], None]

KEPT_FREE_FROM: Final = 4
"""Threads from which on one of them is kept from whoever has all the others."""


class Workers:
    """Up to ``count`` threads, each started when all others have something to do.

    Jobs are submitted for somebody, a connection, and begin in turns: one of each who waits, in the order of asking.
    Where there are several threads nobody has all of them, so that others need not wait for his slowest job.
    Where the host gives no thread the others do, and where there is none ``submit`` does the job itself.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = max(1, count)
        self._most = self._count - 1 if self._count >= KEPT_FREE_FROM else self._count
        self._name = name
        self._changed = threading.Condition()
        self._waiting: dict[object, deque[Job]] = {}
        self._under_way: dict[object, int] = {}
        self._threads: list[threading.Thread] = []
        self._unfinished = 0
        self._closing = False

    def submit(self, job: Job, whose: object = None) -> None:
        """Have the job done."""
        with self._changed:
            if len(self._threads) <= min(self._count - 1, self._unfinished):
                self._start()
            someone = bool(self._threads)
            if someone:
                self._unfinished += 1
                self._waiting.setdefault(whose, deque()).append(job)
                self._changed.notify()
        if not someone:
            job()

    def close(self) -> None:
        """Let the jobs that were submitted end, and then the threads."""
        with self._changed:
            self._closing = True
            threads = list(self._threads)
            self._changed.notify_all()
        for thread in threads:
            thread.join()

    def _start(self) -> None:
        """Start one more thread, if there is one to be had."""
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self._threads.append(thread)

    def _run(self) -> None:
        while (found := self._take()) is not None:
            whose, job = found
            job()
            del job, found  # what it holds is not needed until the next one
            with self._changed:
                self._unfinished -= 1
                self._under_way[whose] -= 1
                if not self._under_way[whose]:
                    del self._under_way[whose]
                self._changed.notify()

    def _take(self) -> tuple[object, Job] | None:
        """Wait for a job, and return it with whose it is; None when there are no more."""
        with self._changed:
            while True:
                for whose, jobs in self._waiting.items():
                    under_way = self._under_way.get(whose, 0)
                    if under_way < self._most:
                        self._under_way[whose] = under_way + 1
                        job = jobs.popleft()
                        del self._waiting[whose]
                        if jobs:
                            self._waiting[whose] = jobs  # behind all others
                        return whose, job
                if self._closing and not self._waiting:
                    return None
                self._changed.wait()
