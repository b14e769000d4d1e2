"""Runs a function in a process of its own and kills that before its k-th step, for every k.

A step is what changes something and is told by Python's audit events: an ioctl, a rename, a link. The process is
killed as `kill -9` does it: nothing of it runs any more.
"""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet

STEPS = {"fcntl.ioctl", "fcntl.flock", "os.rename", "os.remove", "os.symlink", "os.mkdir"}


def fork() -> int:
    """Fork, also where a library that an earlier test used has left a thread: the child makes no use of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what Python says of threads from 3.12 on
        return os.fork()


def killed_at_every_step(
    function: Callable[[], object], *, at_most: int = 500, steps: AbstractSet[str] = STEPS
) -> Iterator[int]:
    """Yield k after `function` was killed before its k-th step; ends when it came to its end."""
    for step in range(at_most):
        pid = fork()
        if not pid:
            _run(function, step, steps)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"failed with {os.WEXITSTATUS(status)} before step {step}"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield step
    raise AssertionError(f"more than {at_most} steps")


def _run(function: Callable[[], object], step: int, steps: AbstractSet[str]) -> None:
    left = step

    def count(event: str, _arguments: object) -> None:
        nonlocal left
        if event in steps:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(count)
    try:
        function()
    except BaseException:  # noqa: BLE001 - the parent sees the code
        os._exit(99)
    os._exit(0)
