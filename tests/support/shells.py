"""Interactive shells at a terminal: a line is typed, completed with the tabulator key, and read back."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 60.0
"""When a shell that says nothing has failed; no test waits for it otherwise."""


class Terminal:
    """A shell whose keyboard and screen we are."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._seen = ""

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """Return where the screen shows a pattern, and forget what came before."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            found = re.search(pattern, self._seen)
            if found:
                self._seen = self._seen[found.end() :]
                return found
            ready, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"waited for {pattern!r}, found {self._seen[-2000:]!r}"
            try:
                self._seen += os.read(self._master, 65536).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"the shell ended: {self._seen[-2000:]!r}") from None

    def run(self, line: str) -> None:
        """Run a line to its end."""
        self.type(f"{line}; echo done''=$?\n")
        found = self.expect(r"done=(\d+)")
        assert found[1] == "0", line

    def completed(self, line: str) -> str:
        """Return what a line becomes when the tabulator is pressed behind it."""
        self.type(f"{line}\t")
        # The line is not run: it is made the argument of an echo, whose output is told from what was typed.
        self.type("\x01echo @''@ \x05 @''@\n")
        return self.expect(r"@@ (blockwright[^\r\n]*?) *@@")[1]


def command_in(folder: Path) -> Path:
    """Make `blockwright` a program in `folder`, and return its path."""
    folder.mkdir(exist_ok=True)
    program = folder / "blockwright"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m blockwright "$@"\n')
    program.chmod(0o755)
    return program


@contextmanager
def shell(*arguments: str, folder: Path) -> Iterator[Terminal]:
    """Give a shell in `folder`, at a terminal of its own, with our command to be found."""
    command_in(folder / "bin")
    master, slave = pty.openpty()
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "TERM": "dumb",
        "PS1": "$ ",
        "COLUMNS": "400",
        "INPUTRC": "/dev/null",
    }
    process = subprocess.Popen(
        arguments, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment, start_new_session=True
    )
    os.close(slave)
    try:
        yield Terminal(master)
    finally:
        process.kill()
        process.wait()
        os.close(master)
