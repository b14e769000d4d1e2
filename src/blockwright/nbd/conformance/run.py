"""Runs the list of checks against a server.

Knows: which checks apply, and what an exception out of one means. Refuses to know: any rule, and how results are
shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from blockwright.errors import BlockwrightError, NotSupported, RemoteProtocolError, UsageError
from blockwright.nbd.conformance.facts import Facts
from blockwright.nbd.conformance.model import CHECKS, Check, Failed, NotApplicable, Outcome, Result
from blockwright.nbd.conformance.probe import Dial, Lost, Probe
from blockwright.nbd.conformance.survey import survey
from blockwright.nbd.transport import TlsStarter
from blockwright.nbd.uri import NbdUri

SURVEY_S: Final = 5.0
"""Seconds that each question of the first look has at least: haste must not hide what a server offers."""
SLOW_S: Final = 45.0
"""Seconds that a slow check has: a server is asked to lose patience within 30."""


def check_server(
    uri: NbdUri,
    dial: Dial,
    *,
    start_tls: TlsStarter | None = None,
    write: bool = False,
    slow: bool = False,
    only: Collection[str] = (),
    timeout_s: float = 5.0,
) -> Iterator[Result]:
    """Yield the result of each check, in the order of the list; with ``only``, of those.

    The export's content is not changed; with ``write`` it is for moments, and is put back. ``timeout_s`` is what a
    check has in all; what takes longer has failed. ``dial`` connects to the server, as often as it is called, and
    one connection after another must be possible. ``start_tls`` is needed where ``uri.tls``.

    Raises UsageError for an id that is not in the list, NotSupported where TLS cannot be started, OSError and
    NotFound where nobody answers at all.
    """
    known = {each.id for each in CHECKS}
    unknown = sorted(set(only) - known)
    if unknown:
        raise UsageError(f"{unknown[0]}: is no check: expected ids such as {CHECKS[0].id}")
    if uri.tls and start_tls is None:
        raise NotSupported(f"{uri}: the address asks for TLS, and no way to start it was given")
    facts = Facts()

    def make(seconds: float) -> Probe:
        return Probe(uri, dial, start_tls, facts, seconds)

    survey(lambda: make(max(timeout_s, SURVEY_S)), facts)
    for check in CHECKS:
        if only and check.id not in only:
            continue
        reason = _reason_against(check, facts, write=write, slow=slow)
        if reason is not None:
            yield Result(check, Outcome.NOT_APPLICABLE, reason)
            continue
        yield _run(check, make(max(timeout_s, SLOW_S) if check.slow else timeout_s))


def _reason_against(check: Check, facts: Facts, *, write: bool, slow: bool) -> str | None:
    for need in check.needs:
        reason = facts.missing(need)
        if reason is not None:
            return reason
    if check.writes and not write:
        return "would write, which was not allowed"
    if check.slow and not slow:
        return "would wait for long, which was not asked for"
    return None


def _run(check: Check, probe: Probe) -> Result:
    """Run one check. A server that says nothing in time, or goes away, has failed it."""
    try:
        check.run(probe)
    except (Failed, RemoteProtocolError) as error:
        return Result(check, Outcome.FAILED, str(error))
    except NotApplicable as reason:
        return Result(check, Outcome.NOT_APPLICABLE, str(reason))
    except TimeoutError:
        return Result(check, Outcome.FAILED, f"expected an answer, found none within {probe.moment.seconds:g} s")
    except (Lost, OSError, BlockwrightError) as error:
        return Result(check, Outcome.ERROR, str(error))
    finally:
        probe.close()
    return Result(check, Outcome.PASSED)
