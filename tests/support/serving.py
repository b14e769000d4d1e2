"""Runs `blockwright serve` as a process of its own, and asks for what it says."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.command import COMMAND

START_S = 60
"""Seconds after which a server that says nothing has failed; no test waits for them."""


class Serving:
    """A server under way: its addresses, its process, and its log so far."""

    def __init__(self, process: subprocess.Popen[str], addresses: list[str]) -> None:
        self.process = process
        self.addresses = addresses
        self.log: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def uri(self) -> str:
        return self.addresses[0]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.log.append(line.rstrip("\n"))
                self._changed.notify_all()

    def said(self, what: str | Callable[[str], bool]) -> str:
        """Wait for a line of the log that has `what` in it, and return it."""
        fits = what if callable(what) else lambda line: what in line
        with self._changed:
            found = self._changed.wait_for(lambda: next((line for line in self.log if fits(line)), None), START_S)
        assert found, f"{what} is not in the log: {self.log}"
        return found

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        code = self.process.wait(START_S)
        self._reader.join(START_S)
        return code

    def resident(self, key: str = "VmRSS") -> int:
        """Bytes of memory that the process has now."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            line = next(line for line in file if line.startswith(f"{key}:"))
        return int(line.split()[1]) * 1024


@contextmanager
def serving(
    *arguments: str | os.PathLike[str], count: int = 1, env: dict[str, str] | None = None, code: int | None = 0
) -> Iterator[Serving]:
    """Serve until the context ends; `count` addresses are waited for. It must end with `code` unless that is None."""
    where = {"--socket", "-U", "--listen", "--vsock", "--exports"}
    assert where.intersection(arguments), "the usual port may be in use by a test session beside this one"
    process = subprocess.Popen(
        [*COMMAND, "serve", *map(os.fspath, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        addresses = [process.stdout.readline().rstrip("\n") for _ in range(count)]
        if not all(addresses):
            raise AssertionError(f"it did not serve: {process.communicate(timeout=START_S)}")
        server = Serving(process, addresses)
        yield server
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        found = server.wait()
        assert code is None or found == code, server.log
        assert not any("Traceback" in line for line in server.log), server.log
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(START_S)
        process.stdout.close()
        if "server" in locals():
            server._reader.join(START_S)
        process.stderr.close()
