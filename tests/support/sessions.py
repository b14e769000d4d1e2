"""Pages with shell sessions: their commands run in one shell, and what they print is held against the page.

In what is expected `…` stands for anything in its line, and a line of it alone for any lines, also none.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

Session = list[tuple[str, str]]
"""Commands, and what each prints."""


def sessions(page: str) -> list[Session]:
    """The fenced blocks of a page that have commands, in order."""
    found = []
    for block in re.findall(r"^```\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
        assert not parts[0], block
        found.append([_cut(part) for part in parts[1:]])
    return found


def _cut(part: str) -> tuple[str, str]:
    """Part a command, which a here-document makes longer than a line, from what it prints."""
    command, _, output = part.partition("\n")
    here = re.search(r"<<'(\w+)'", command)
    if here:
        body, mark, output = output.partition(f"\n{here[1]}\n")
        command = f"{command}\n{body}{mark}"
    return command, output


def pattern(expected: str) -> re.Pattern[str]:
    """What an expected output fits."""
    lines = [
        r"(?:.*\n)*" if line == "…\n" else ".*".join(map(re.escape, line.split("…")))
        for line in expected.splitlines(keepends=True)
    ]
    return re.compile("".join(lines))


def play(found: list[Session], place: Path, timeout_s: float = 250) -> None:
    """Run the sessions in one shell in `place`, and hold what each command prints to both streams to the page."""
    end = "--end-of-command--"
    programs = place / "programs"
    programs.mkdir(exist_ok=True)
    python = shlex.quote(sys.executable)
    for name, arguments in (("blockwright", " -m blockwright"), ("python3", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {python}{arguments} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "BLOCKWRIGHT_HOME": os.fspath(place / "home"),
    }
    steps = [each for session in found for each in session]
    script = "".join(f"{command}\necho {end}$?\n" for command, _ in steps)
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(["bash"], cwd=place, env=environment, **options) as shell:
        try:
            heard, _ = shell.communicate(f"exec 2>&1\n{script}", timeout_s)
        finally:
            with suppress(ProcessLookupError):  # what a page leaves in the background
                os.killpg(shell.pid, signal.SIGKILL)
    said = re.split(rf"{end}(\d+)\n", heard)
    for (command, expected), output, code in zip(steps, said[::2], said[1::2], strict=False):
        assert code == "0", f"{command}: exit {code}: {output}"
        assert pattern(expected).fullmatch(output), f"{command}\nexpected:\n{expected}\nfound:\n{output}"
    assert len(said) == 2 * len(steps) + 1, heard  # every command was reached
