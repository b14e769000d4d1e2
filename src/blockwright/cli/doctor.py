"""``blockwright doctor``.

Knows: how what was found is shown. Refuses to know: where to look.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from blockwright.cli.output import in_colour, print_json, show_text
from blockwright.cli.params import json_option
from blockwright.doctor import JOBS, Line, Plugin, Report, State, examine, plugins

LACKING = 4
"""Exit code where a job that was asked for cannot be done here."""
_COLOURS = {State.READY: "green", State.MISSING: "yellow", State.UNKNOWN: "cyan", State.ABSENT: "bright_black"}


@click.command()
@click.argument("jobs", nargs=-1, type=click.Choice(sorted(JOBS)), metavar="[JOB]...")
@click.option("--loader-dir", metavar="DIR", help="Look for boot loaders in DIR instead of this host.")
@click.option("-q", "--quiet", is_flag=True, help="Show only what is missing.")
@json_option
def doctor(*, jobs: Sequence[str], loader_dir: str | None, quiet: bool, as_json: bool) -> int:
    """Tell what this machine can do, why, and what to install or do for what is missing.

    Nothing is changed, and no program is started; plugins of installed packages are imported. With a JOB only what
    that job needs is told, and the exit code is 4 where it cannot be done here; without one it is 0. The jobs are
    attach, bios, build, convert, dm, edit, mount, nbd, registry, secure-boot, serve, store, thin, uefi and verity.
    """
    report = examine(loader_dir=loader_dir)
    lacking = {job: report.missing(JOBS[job]) for job in JOBS}
    asked = list(jobs) or sorted(JOBS)
    added = () if jobs else plugins()
    if as_json:
        print_json("blockwright.doctor/1", _document(report, asked, lacking, added))
    else:
        shown = _chosen(report, jobs)
        if quiet:
            shown = [line for line in shown if line.state in (State.MISSING, State.UNKNOWN)]
            added = tuple(each for each in added if each.problem)
        for text in [*_topics(shown), *_plugins(added), *([] if quiet else _jobs(asked, lacking))]:
            sys.stdout.write(f"{text}\n")
    return LACKING if jobs and any(lacking[job] for job in jobs) else 0


def _chosen(report: Report, jobs: Sequence[str]) -> list[Line]:
    if not jobs:
        return list(report.lines)
    wanted = {line.name for job in jobs for line in report.of(JOBS[job])}
    return [line for line in report.lines if line.name in wanted]


def _topics(lines: Sequence[Line]) -> Iterator[str]:
    topic = ""
    width = max((len(line.name) for line in lines), default=0)
    for line in lines:
        if line.topic != topic:
            topic = line.topic
            yield topic
        state = line.state.value.ljust(7)
        state = click.style(state, fg=_COLOURS[line.state]) if in_colour() else state
        yield f"  {state}  {line.name.ljust(width)}  {show_text(line.found)}"
        indent = " " * (width + 13)
        yield f"{indent}for: {line.gives}"
        if line.remedy:
            yield f"{indent}do: {show_text(line.remedy)}"


def _plugins(added: Sequence[Plugin]) -> Iterator[str]:
    if added:
        yield "plugins"
    width = max((len(show_text(each.name)) for each in added), default=0)
    for each in added:
        state = "broken" if each.problem else "ready"
        coloured = click.style(state.ljust(7), fg="yellow" if each.problem else "green")
        whose = show_text(f"{each.group} of {each.package} {each.version}".strip())
        yield f"  {coloured if in_colour() else state.ljust(7)}  {show_text(each.name).ljust(width)}  {whose}"
        indent = " " * (width + 13)
        if each.problem:
            yield f"{indent}{show_text(each.problem)}"
        yield f"{indent}for: {show_text(each.gives)}"
        if each.remedy:
            yield f"{indent}do: {show_text(each.remedy)}"


def _jobs(names: Sequence[str], lacking: dict[str, list[Line]]) -> Iterator[str]:
    yield "jobs"
    width = max(len(name) for name in names)
    for name in names:
        why = f"; needs {', '.join(line.name for line in lacking[name])}" if lacking[name] else ""
        text = ("no " if lacking[name] else "yes").ljust(7)
        yield f"  {text}  {name.ljust(width)}  {JOBS[name].what}{why}"


def _document(
    report: Report, asked: Sequence[str], lacking: dict[str, list[Line]], added: Sequence[Plugin]
) -> dict[str, Any]:
    host = report.host
    return {
        "system": {
            "platform": host.system,
            "machine": host.machine,
            "release": host.release,
            "distribution": host.os_release.get("ID"),
            "packages": host.tool or None,
        },
        "lines": [asdict(line) | {"state": line.state.value} for line in report.lines],
        "plugins": [asdict(each) | {"problem": each.problem or None, "remedy": each.remedy} for each in added],
        "jobs": [
            {"name": name, "what": JOBS[name].what, "ready": not lacking[name]}
            | {"missing": [line.name for line in lacking[name]]}
            for name in asked
        ],
    }
