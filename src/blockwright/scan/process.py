"""A scanner's program, run: nothing of ours in its environment, no shell, bounded in time and in what it says.

It is the leader of a group of processes, which ends with it: when it has exited, took too long, said too much, or we
are interrupted.

Knows: processes. Refuses to know: what any program does or says.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# Before the imports, since what is imported here is not there either.
assert sys.platform != "win32", "processes have no groups there"

from blockwright.errors import NotFound, ScanFailed  # noqa: E402
from blockwright.scan.scanner import Workplace  # noqa: E402
from blockwright.units import KiB, MiB, format_size  # noqa: E402

MAX_OUTPUT: Final = 256 * MiB
"""Bytes that a program may say on standard output, or write to a report."""

MAX_ERRORS: Final = 64 * KiB
"""Bytes of standard error that are kept, the last ones."""

GRACE_S: Final = 2.0
"""Seconds between asking a group of processes to end and ending it."""

_PASSED: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE")
"""What of our environment a program gets that may use the network."""

_FALLBACK_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program came to: its exit status (the negated signal that ended it), and what it said."""

    status: int
    output: bytes
    errors: bytes

    @property
    def last_words(self) -> str:
        """The last line of standard error, empty for none."""
        lines = self.errors.decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip()[-400:] if lines else ""

    @property
    def told(self) -> str:
        """How it ended, for people: its status, and its last words."""
        if self.status < 0:
            try:
                name = signal.Signals(-self.status).name
            except ValueError:
                name = f"signal {-self.status}"
            text = f"ended by {name}"
        else:
            text = f"exit status {self.status}"
        return f"{text}: {self.last_words}" if self.last_words else text


def find_program(name: str, given: str = "") -> str | None:
    """Return the path of a program, on PATH unless it is ``given``; None where PATH has none.

    Raises NotFound for a given one that is not there or cannot be run.
    """
    if given:
        path = shutil.which(given)
        if path is None:
            raise NotFound(f"{given}: no such program")
        return os.path.abspath(path)
    path = shutil.which(name)
    return None if path is None else os.path.abspath(path)


def environment(place: Workplace, *, network: bool = False, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the whole environment of a program: a home and a place for temporary files of its own, and a little."""
    made = {
        "PATH": os.environ.get("PATH") or _FALLBACK_PATH,
        "HOME": place.folder("home"),
        "TMPDIR": place.folder("tmp"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    if network:
        made.update({name: os.environ[name] for name in _PASSED if name in os.environ})
    return made | dict(extra or {})


def run(
    arguments: Sequence[str],
    place: Workplace,
    *,
    environ: Mapping[str, str],
    timeout_s: float,
    max_output: int = MAX_OUTPUT,
) -> Finished:
    """Run a program in an empty directory of its own and return what it came to, whatever its exit status.

    Raises ScanFailed where it cannot be started, takes longer than ``timeout_s`` or says more than ``max_output``.
    No process of its group is left, whatever happens.
    """
    name = os.path.basename(arguments[0])
    try:
        process = subprocess.Popen(  # noqa: S603 - an argument vector, made here
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=place.folder("cwd"),
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as error:
        raise ScanFailed(f"{name}: cannot be started: {str(error.strerror or error).lower()}") from error
    try:
        output, errors = _gather(process, name, timeout_s, max_output)
    except BaseException:
        _end(process, signal.SIGTERM, GRACE_S)
        raise
    finally:
        _end(process, signal.SIGKILL, None)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    return Finished(process.returncode, output, errors)


def _gather(process: subprocess.Popen[bytes], name: str, timeout_s: float, max_output: int) -> tuple[bytes, bytes]:
    """Return all that a program says until it has exited."""
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + timeout_s
    output, errors = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, errors)
        exited = False
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise ScanFailed(f"{name}: expected an end within {timeout_s:g} s, found none")
            # A grandchild that keeps a pipe open does not keep us: what was said before its end is there at once.
            ready = selector.select(0 if exited else min(left, 0.1))
            if exited and not ready:
                break
            for key, _ in ready:
                piece = os.read(key.fd, 64 * KiB)
                if not piece:
                    selector.unregister(key.fileobj)
                key.data.extend(piece)
            if len(output) > max_output:
                raise ScanFailed(f"{name}: expected at most {format_size(max_output)} of output, found more")
            del errors[:-MAX_ERRORS]
            exited = exited or _has_exited(process)
        while not _has_exited(process):
            if time.monotonic() > deadline:
                raise ScanFailed(f"{name}: expected an end within {timeout_s:g} s, found none")
            time.sleep(0.01)
    return bytes(output), bytes(errors)


def _has_exited(process: subprocess.Popen[bytes]) -> bool:
    """Whether the leader has exited; where the system can, it is left unreaped, so that its group's number stays."""
    if process.returncode is not None:
        return True
    if sys.platform == "linux":
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return process.poll() is not None


def _end(process: subprocess.Popen[bytes], how: signal.Signals, grace_s: float | None) -> None:
    """Send a signal to the group; give it ``grace_s`` seconds, or reap its leader where that is None."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, how)
    if grace_s is None:
        process.wait()
        return
    end = time.monotonic() + grace_s
    while not _has_exited(process) and time.monotonic() < end:
        time.sleep(0.01)
