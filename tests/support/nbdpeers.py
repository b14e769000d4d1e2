"""Other people's NBD servers, for as long as a test needs them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.tools import tool

PATIENCE_S = 60.0
GREETING = b"NBDMAGIC"


class Running:
    """A server in a process of its own, which listens on ``socket``."""

    def __init__(self, argv: Sequence[str], path: Path, log: Path, pid_file: Path | None = None) -> None:
        self.argv = list(argv)
        self.pid_file = pid_file  # of a server that goes into the background
        self.path = path
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def uri(self, export: str = "") -> str:
        return f"nbd+unix:///{export}?socket={self.path}"

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while not self._listens():
            ended = self.process.poll() is not None and (self.pid_file is None or self.process.returncode)
            if ended or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"{self.argv}: does not listen\n{self.log.read_text(errors='replace')}", pytrace=False)
            time.sleep(0.01)

    def _listens(self) -> bool:
        """Whether it has greeted a client: one that only may connect can still be about to end."""
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.settimeout(PATIENCE_S)
            probe.connect(str(self.path))
            return probe.recv(len(GREETING), socket.MSG_WAITALL) == GREETING
        return False

    def kill(self) -> None:
        """End it at once, as by a power cut of its process."""
        if self.pid_file is not None and self.pid_file.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self.pid_file.read_text()), signal.SIGKILL)
            self.pid_file.unlink()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)
            self.process = None


@contextlib.contextmanager
def running(argv: Sequence[str | os.PathLike[str]], path: Path, pid_file: Path | None = None) -> Iterator[Running]:
    """Have ``argv`` run, and give it when it listens on the Unix socket ``path``; killed at the end."""
    server = Running([os.fspath(each) for each in argv], path, path.with_suffix(".log"), pid_file)
    try:
        yield server
    except BaseException:
        sys.stderr.write(f"{server.argv}: {server.log.read_text(errors='replace')}\n")  # why it may have hung up
        raise
    finally:
        server.kill()


def nbdkit(folder: Path, *arguments: str | os.PathLike[str]) -> contextlib.AbstractContextManager[Running]:
    """nbdkit with these arguments, on a socket in ``folder``."""
    path = folder / "nbdkit.sock"
    return running([tool("nbdkit"), "-f", "-U", path, *arguments], path)


def qemu_nbd(folder: Path, *arguments: str | os.PathLike[str]) -> contextlib.AbstractContextManager[Running]:
    """qemu-nbd for many clients, one behind the other or at once."""
    path = folder / "qemu.sock"
    return running([tool("qemu-nbd"), "-t", "-e", "16", "-k", path, *arguments], path)


def nbd_server(folder: Path, exports: dict[str, Path], extra: str = "") -> contextlib.AbstractContextManager[Running]:
    """nbd-server with exports by name, of which it lists all."""
    path = folder / "server.sock"
    config = ["[generic]", f"unixsock = {path}", "allowlist = true", extra]
    for name, file in exports.items():
        config += [f"[{name}]", f"exportname = {file}", "flush = true", "fua = true", "trim = true"]
    (folder / "server.conf").write_text("\n".join(config) + "\n")
    # It serves one client and ends where it is told to stay in the foreground.
    arguments = ["-C", folder / "server.conf", "-p", folder / "server.pid"]
    return running([tool("nbd-server"), *arguments], path, folder / "server.pid")
