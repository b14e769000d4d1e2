"""``blockwright nbd check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import click

from blockwright.cli.output import print_json, print_lines, table
from blockwright.cli.params import Seconds, json_option
from blockwright.errors import UsageError
from blockwright.nbd.conformance import CHECKS, Check, Level, Need, Outcome, Result, check_server
from blockwright.nbd.dial import dial
from blockwright.nbd.uri import NbdUri, parse_uri

BROKEN = 3


@click.command()
@click.argument("uri", required=False)
@click.option("--write", is_flag=True, help="Run the checks that write, too; what they change they put back.")
@click.option("--slow", is_flag=True, help="Run the checks that wait for half a minute, too.")
@click.option("--only", multiple=True, metavar="ID", help="Run this check only; may be given again.")
@click.option("--timeout", type=Seconds(0.1, 600), default=5.0, show_default=True, help="Seconds a check has.")
@click.option("--list", "list_all", is_flag=True, help="Print all checks, and run none.")
@json_option
def check(
    uri: str | None,
    write: bool,  # noqa: FBT001  # click
    slow: bool,  # noqa: FBT001  # click
    only: Sequence[str],
    timeout: float,
    list_all: bool,  # noqa: FBT001  # click
    as_json: bool,  # noqa: FBT001  # click
) -> int:
    """Verify that the server at URI does what NBD's document says; exit with 3 where it breaks a MUST.

    Exits with 1 where checks could not be run to their end, or there is no such export to run them on.
    The export is not changed; with --write it is for moments. The server must take one connection after another,
    and nobody else should write to the export meanwhile.

    \b
    Examples:
      blockwright nbd check nbd://localhost/disk
      blockwright nbd check 'nbd+unix:///?socket=/tmp/sock' --write --slow
      blockwright nbd check nbd://localhost --only T03 --only H04
    """  # noqa: D301  # click leaves lines as they are below a real backspace
    if list_all:
        _list(as_json=as_json)
        return 0
    if uri is None:
        raise UsageError("expected the address of a server, such as nbd://localhost/disk")
    results = list(_results(parse_uri(uri), write=write, slow=slow, only=only, timeout_s=timeout))
    unused = _why_unused(results)
    if as_json:
        print_json(
            "blockwright.nbd.check/1",
            {"summary": _counts(results), "unused": unused, "checks": [_document(e) for e in results]},
        )
    else:
        print_lines([_text(each) for each in results if each.outcome in (Outcome.FAILED, Outcome.ERROR)])
        print_lines([] if unused is None else [f"{uri}: the export itself was not verified: {unused}"])
        print_lines([_summary(results)])
    broken = any(each.outcome is Outcome.FAILED and each.check.level is Level.MUST for each in results)
    incomplete = unused is not None or any(each.outcome is Outcome.ERROR for each in results)
    return BROKEN if broken else int(incomplete)


def _results(uri: NbdUri, *, write: bool, slow: bool, only: Sequence[str], timeout_s: float) -> Iterator[Result]:
    start_tls = None
    if uri.tls:
        from blockwright.nbd.tls import client_start_tls

        start_tls = client_start_tls(uri)
    return check_server(
        uri, partial(dial, uri), start_tls=start_tls, write=write, slow=slow, only=only, timeout_s=timeout_s
    )


def _why_unused(results: Sequence[Result]) -> str | None:
    """Return why checks of the export were left out as there is none to be had; None where there is one."""
    reason = f"needs {Need.EXPORT.value}"
    return next((each.message for each in results if each.message.startswith(reason)), None)


def _list(*, as_json: bool) -> None:
    if as_json:
        print_json("blockwright.nbd.checks/1", {"checks": [_rule(each) for each in CHECKS]})
        return
    print_lines(table([(each.id, each.level.value, each.title, f"[{each.section}]") for each in CHECKS], "<<<<"))


def _rule(check: Check) -> dict[str, object]:
    return {
        "id": check.id,
        "title": check.title,
        "level": check.level.value,
        "section": check.section,
        "needs": [each.value for each in check.needs],
        "writes": check.writes,
        "slow": check.slow,
    }


def _document(result: Result) -> dict[str, object]:
    return {**_rule(result.check), "outcome": result.outcome.value, "message": result.message}


def _counts(results: Sequence[Result]) -> dict[str, int]:
    found = Counter(each.outcome for each in results)
    return {each.value.replace(" ", "_"): found[each] for each in Outcome}


def _text(result: Result) -> str:
    check = result.check
    mark = "error" if result.outcome is Outcome.ERROR else check.level.value
    return f"{check.id} {mark}: {check.title}: {result.message} [{check.section}]"


def _summary(results: Sequence[Result]) -> str:
    found = Counter(each.outcome for each in results)
    shown = [each for each in Outcome if found[each] or each is not Outcome.ERROR]
    text = ", ".join(f"{found[each]} {each.value}" for each in shown)
    held_back = sum(each.check.writes and each.message.startswith("would write") for each in results)
    return text + (f" ({held_back} would write: --write)" if held_back else "")
