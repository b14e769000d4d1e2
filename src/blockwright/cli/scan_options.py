"""Options of the commands that scan: by what, and against which policy.

Knows: spelling. Refuses to know: scanners, and what a policy means.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from blockwright.cli.options import OrPlugin
from blockwright.cli.params import Seconds
from blockwright.errors import UsageError
from blockwright.plugin import SCANNERS as PLUGINS

if TYPE_CHECKING:  # what scans is imported when something is scanned
    from blockwright.scan import Policy, ScannerOptions

_PASSED = (
    "program",
    "database",
    "suite",
    "server",
    "update",
    "severity",
    "fixed_only",
    "max_database_age",
    "allow_incomplete",
    "allow",
)
SCANNERS = ("trivy", "trivy-image", "debsecan", "clamav")


@dataclass(frozen=True, slots=True)
class Scanning:
    """How something is scanned, as it was asked for."""

    scanner: str | None
    program: str
    database: str
    suite: str
    server: str
    update: bool
    timeout_s: float
    workdir: str
    policy_file: str | None
    severity: tuple[str, ...]
    fixed_only: bool
    max_database_age: str | None
    allow_incomplete: bool
    allow: tuple[str, ...]

    def options(self) -> ScannerOptions:
        """Return where the scanner and what it needs are."""
        from blockwright.scan import ScannerOptions

        return ScannerOptions(
            program=self.program,
            database=self.database,
            suite=self.suite,
            server=self.server,
            update=self.update,
            timeout_s=self.timeout_s,
        )

    def policy(self) -> Policy:
        """Return the file's policy, or the default one, with what options say in place of it.

        Raises FormatError for the file, UsageError for an option, NotFound.
        """
        from blockwright.scan import DEFAULT_POLICY
        from blockwright.scan.policy_file import parse_age, parse_severities, read_policy

        policy = DEFAULT_POLICY if self.policy_file is None else read_policy(self.policy_file)
        if self.severity:
            words = [word for text in self.severity for word in text.split(",")]
            policy = replace(policy, severities=_told("--severity", parse_severities, words))
        if self.fixed_only:
            policy = replace(policy, fixed_only=True)
        if self.max_database_age is not None:
            age_s = _told("--max-database-age", parse_age, self.max_database_age)
            policy = replace(policy, max_database_age_s=age_s)
        if self.allow_incomplete:
            policy = replace(policy, allow_incomplete=True)
        return replace(policy, allow=(*policy.allow, *map(_allowed, self.allow)))


def _told(option: str, parse: Callable[[Any], Any], value: object) -> Any:
    try:
        return parse(value)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None


def _allowed(text: str) -> Any:
    from datetime import date

    from blockwright.scan import Allowed

    identity, _, until = text.rpartition("=")
    try:
        return Allowed(identity, date.fromisoformat(until)) if identity else _no_exception(text)
    except ValueError:
        return _no_exception(text)


def _no_exception(text: str) -> None:
    raise UsageError(f"--allow: expected a finding and a date such as CVE-2024-1234=2027-01-31, found {text[:64]!r}")


def scan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says by what is scanned and against which policy, and pass it as ``scanning``."""

    @wraps(command)
    def with_scanning(
        *, timeout: float, workdir: str | None, scanner: str | None, policy_file: str | None, **others: Any
    ) -> Any:
        given = {name: others.pop(name) for name in _PASSED}
        given |= {name: given[name] or "" for name in ("program", "database", "suite", "server")}
        where = os.path.abspath(workdir or tempfile.gettempdir())
        scanning = Scanning(scanner=scanner, timeout_s=timeout, workdir=where, policy_file=policy_file, **given)
        return command(scanning=scanning, **others)

    for option in reversed(_options()):
        option(with_scanning)
    return with_scanning


def _options() -> list[Callable[[Any], Any]]:
    option = click.option
    return [
        option(
            "--scanner", type=OrPlugin([*SCANNERS, "none"], PLUGINS), help="What scans.  [default: what is installed]"
        ),
        option("--policy", "policy_file", metavar="FILE", help="What is accepted, as TOML."),
        option("--severity", multiple=True, metavar="WORD,…", help="Accept nothing of it.  [default: HIGH,CRITICAL]"),
        option("--fixed-only", is_flag=True, help="Accept what no newer version mends."),
        option("--allow", multiple=True, metavar="ID=DATE", help="Accept a finding to the end of a day, UTC."),
        option("--max-database-age", metavar="AGE", help="Such as 7d, 12h or any.  [default: 7d]"),
        option("--allow-incomplete", is_flag=True, help="Accept that files over the budget were left out."),
        option("--program", metavar="FILE", help="The scanner's program.  [default: on PATH]"),
        option("--database", metavar="PATH", help="Its data: Trivy's cache, ClamAV's signatures, debsecan's data."),
        option("--suite", metavar="NAME", help="Debian release for debsecan.  [default: what SOURCE says]"),
        option("--server", metavar="URL", help="A Trivy server, which has the database. TRIVY_TOKEN is its token."),
        option("--update", is_flag=True, help="Let Trivy fetch its database first."),
        option("--timeout", type=Seconds(), default=1800.0, show_default=True, help="Seconds a scanner may take."),
        option(
            "--workdir", metavar="DIR", help="Where the scanner's copy of files lies meanwhile.  [default: TMPDIR]"
        ),
    ]
