"""Runs the `blockwright` command as a shell would, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}
"""What keeps a process that is started from being measured: it imports no coverage, and writes no file of it."""

COMMAND = [sys.executable, "-W", "error", "-m", "blockwright"]


def blockwright(
    *arguments: str | os.PathLike[str],
    code: int = 0,
    input: bytes | None = None,  # noqa: A002 - subprocess's own name for it
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end and hold it to its exit code; a failing run must say one line and no traceback."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        timeout=120,
        env={**os.environ, **(env or {})},
        check=False,
    )
    shown = f"{arguments}: exit {done.returncode}\n{done.stdout[-2000:]!r}\n{done.stderr[-4000:]!r}"
    assert done.returncode == code, shown
    if code not in (0, 3):
        assert done.stderr.count(b"\n") == 1, shown
        assert b"Traceback" not in done.stderr, shown
        assert b"internal error" not in done.stderr, shown
    return done


def document(*arguments: str | os.PathLike[str], code: int = 0) -> dict[str, Any]:
    """Run the command with --json and return what it printed."""
    parsed: dict[str, Any] = json.loads(blockwright(*arguments, "--json", code=code).stdout)
    return parsed


def interrupt(process: subprocess.Popen[bytes], number: signal.Signals) -> bytes:
    """Return what the process says that is sent this signal, once; it has a minute to end."""
    process.send_signal(number)
    try:
        return process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[1]


def files_in(folder: str | os.PathLike[str]) -> Sequence[str]:
    """The names in a folder, sorted: what a failed run must leave as it was."""
    return sorted(os.listdir(folder))
