"""Runs the `blockwright` command within the test's own process: as `support.command`, without an interpreter's start.

For tests of many commands. What only a process of its own shows (signals, standard streams that are closed) needs
`support.command`.
"""

import io
import json
import os
import signal
import sys
from contextlib import contextmanager
from subprocess import CompletedProcess
from typing import Any

from blockwright.cli.run import run


def blockwright(
    *arguments: str | os.PathLike[str],
    code: int = 0,
    input: bytes | None = None,  # noqa: A002 - as in support.command
) -> CompletedProcess[bytes]:
    """Run the command and hold it to its exit code; a failing run must say one line."""
    words = [os.fspath(each) for each in arguments]
    with _streams(input or b"") as (out, err):
        found = run(words)
        sys.stdout.flush()
        sys.stderr.flush()
        done = CompletedProcess(words, found, out.getvalue(), err.getvalue())
    shown = f"{arguments}: exit {found}\n{done.stdout[-2000:]!r}\n{done.stderr[-4000:]!r}"
    assert found == code, shown
    if code not in (0, 3):
        assert done.stderr.count(b"\n") == 1, shown
    return done


def document(*arguments: str | os.PathLike[str], code: int = 0) -> dict[str, Any]:
    """Run the command with --json and return what it printed."""
    parsed: dict[str, Any] = json.loads(blockwright(*arguments, "--json", code=code).stdout)
    return parsed


@contextmanager
def _streams(given: bytes):
    """Have standard streams of our own, and the signals' handlers as they were afterwards."""
    names = ("stdin", "stdout", "stderr")
    before = [getattr(sys, name) for name in names]
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    out, err = io.BytesIO(), io.BytesIO()
    wrapped = (io.TextIOWrapper(each, "utf-8", write_through=True) for each in (io.BytesIO(given), out, err))
    for name, stream in zip(names, wrapped, strict=True):
        setattr(sys, name, stream)
    try:
        yield out, err
    finally:
        for name, stream in zip(names, before, strict=True):
            getattr(sys, name).detach()
            setattr(sys, name, stream)
        for each, handler in handlers.items():
            signal.signal(each, handler)
