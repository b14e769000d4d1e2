"""Threads that wait for a device in place of the threads that read from clients.

Knows: jobs. Refuses to know: what they do; a job never raises.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

Job = Callable[[], None]


class Workers:
    """Up to ``count`` threads, each started when all others have something to do. Jobs begin in order.

    Where the host gives no thread the others do, and where there is none ``submit`` does the job itself.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = max(1, count)
        self._name = name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._unfinished = 0

    def submit(self, job: Job) -> None:
        """Have the job done."""
        with self._lock:
            if len(self._threads) <= min(self._count - 1, self._unfinished):
                self._start()
            someone = bool(self._threads)
            if someone:
                self._unfinished += 1
                self._jobs.put(job)
        if not someone:
            job()

    def _start(self) -> None:
        """Start one more thread, if there is one to be had."""
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Let the jobs that were submitted end, and then the threads."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            with self._lock:
                self._unfinished -= 1
