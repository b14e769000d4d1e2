"""What this machine can do, and what to install for what is missing: looked at, never tried.

Nothing is changed, no module of the kernel is loaded, no program is started; an ordinary user sees what root sees,
where the host lets everybody look. Plugins alone are tried: whether one can be imported nothing else says.

Knows: which parts of a host our jobs stand on. Refuses to know: how any job is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from blockwright.doctor import extras, kernel, loaders, privileges, programs, state
from blockwright.doctor.host import Host
from blockwright.doctor.jobs import JOBS, Job
from blockwright.doctor.line import Line, State
from blockwright.doctor.plugins import Plugin, plugins

__all__ = ["JOBS", "Host", "Job", "Line", "Plugin", "Report", "State", "examine", "plugins"]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found of a host, line by line."""

    host: Host
    lines: tuple[Line, ...]

    def missing(self, job: Job) -> list[Line]:
        """Return the lines for want of which the job cannot be done; of alternatives the first one."""
        found = {line.name: line for line in self.lines}
        return [
            found[alternatives[0]]
            for alternatives in job.needs
            if not any(found[name].state in (State.READY, State.UNKNOWN) for name in alternatives)
        ]

    def of(self, job: Job) -> list[Line]:
        """Return the lines that the job depends on."""
        wanted = {name for alternatives in job.needs for name in alternatives}
        return [line for line in self.lines if line.name in wanted]


def examine(host: Host | None = None, *, loader_dir: str | None = None) -> Report:
    """Return what the host has for us; ``loader_dir`` is looked for loaders in instead of the host.

    Raises NotFound where there is no such directory.
    """
    looked_at = Host() if host is None else host
    lines = [
        *privileges.lines(looked_at),
        *kernel.lines(looked_at),
        *loaders.lines(looked_at, loader_dir),
        *extras.lines(looked_at),
        *programs.lines(looked_at),
        *state.lines(looked_at),
    ]
    return Report(looked_at, tuple(lines))
