"""What starting costs: the version, the import, help, the answer to a shell that completes; beside an empty Python.

python bench/start.py [ROUNDS]
"""

from __future__ import annotations

import compileall
import os
import shutil
import statistics
import subprocess
import sys
import time

import blockwright

ROUNDS = 21


def rows() -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return what is measured: a command and what its environment has more."""
    python = [sys.executable]
    command = [*python, "-m", "blockwright"]
    found: dict[str, tuple[list[str], dict[str, str]]] = {
        "python -c pass": ([*python, "-c", "pass"], {}),
        "import blockwright": ([*python, "-c", "import blockwright"], {}),
        "blockwright --version": ([*command, "--version"], {}),
        "blockwright --help": ([*command, "--help"], {}),
        "blockwright fs ls --help": ([*command, "fs", "ls", "--help"], {}),
        "blockwright doctor": ([*command, "doctor"], {}),
    }
    for name, line in (("a command", "blockwright conv"), ("an option", "blockwright build --b")):
        found[f"completing {name}"] = (command, {"_BLOCKWRIGHT_COMPLETE": "bash_complete", "COMP_LINE": line})
    if shutil.which("qemu-img"):
        found["qemu-img --version"] = (["qemu-img", "--version"], {})
    return found


def main(rounds: int) -> None:
    """Print medians and ranges in milliseconds, of rounds in turn."""
    compileall.compile_dir(os.path.dirname(blockwright.__file__), quiet=2)
    measured = rows()
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, (command, more) in measured.items():
            begun = time.perf_counter()
            subprocess.run(command, env={**os.environ, **more}, stdout=subprocess.DEVNULL, check=True)
            taken[name].append((time.perf_counter() - begun) * 1000)
    for name, times in taken.items():
        print(f"{name:<28} {statistics.median(times):6.1f} ms  ({min(times):.1f}-{max(times):.1f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else ROUNDS)
