"""Run commands in turn, several rounds, and tell medians, ranges and peak memory."""

from __future__ import annotations

import compileall
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import blockwright


@dataclass
class Row:
    """What one contender took: seconds and peak resident bytes of each round."""

    name: str
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the rounds in seconds."""
        return statistics.median(self.seconds)

    def text(self, base: float | None = None) -> str:
        """Return a line: median, range, memory, and the ratio to ``base`` seconds."""
        ratio = f"  {self.median / base:6.3f}x" if base else ""
        span = f"{min(self.seconds):.2f}-{max(self.seconds):.2f}"
        return f"{self.name:<28} {self.median:8.2f} s  ({span})  {max(self.memory) >> 20:5d} MiB{ratio}"


@dataclass
class Contender:
    """A command, the output it makes, and how often it takes part (slow peers once)."""

    name: str
    argv: Sequence[str]
    output: Path
    rounds: int = 5


def once(
    argv: Sequence[str], output: Path, *, keep: bool = False, stdin: BinaryIO | None = None
) -> tuple[float, int]:
    """Run a command on ``stdin``, sync its output, and return (seconds, peak resident bytes).

    The output is removed before, unless the command is to change one that is there (``keep``).
    """
    if not keep:
        output.unlink(missing_ok=True)
    _forget_peak()
    started = time.perf_counter()
    if stdin is not None:
        stdin.seek(0)
    process = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)}: exit {process.returncode}: {errors.decode(errors='replace')[-500:]}")
    if output.exists():
        descriptor = os.open(output, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def _forget_peak() -> None:
    """Let the kernel forget the most this process ever had: a child made by vfork begins with that as its peak.

    It still begins with what this process has now, about 30 MiB, so no less is ever told of it.
    """
    with suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def compare(
    contenders: Sequence[Contender],
    after: Callable[[Contender], None] | None = None,
    stdin: BinaryIO | None = None,
) -> dict[str, Row]:
    """Run all contenders in turn, round by round, and return their rows."""
    rows = {each.name: Row(each.name) for each in contenders}
    for turn in range(max(each.rounds for each in contenders)):
        for each in contenders:
            if turn >= each.rounds:
                continue
            seconds, memory = once(each.argv, each.output, stdin=stdin)
            rows[each.name].seconds.append(seconds)
            rows[each.name].memory.append(memory)
            if after is not None and turn == 0:
                after(each)
            each.output.unlink(missing_ok=True)
    return rows


def compile_modules() -> None:
    """Compile our modules as an installer does, also where Python is told not to write what it compiles."""
    compileall.compile_dir(Path(blockwright.__file__).parent, quiet=1)
