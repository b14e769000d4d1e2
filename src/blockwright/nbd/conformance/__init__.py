"""Is a server one that the protocol's document describes? A numbered list of checks, and what each found.

    uri = parse_uri("nbd://localhost/disk")
    failed = [each for each in check_server(uri, partial(dial, uri)) if each.outcome is Outcome.FAILED]

Knows: which modules hold checks, and their order. Refuses to know: any of the rules.
"""

from typing import Final

from blockwright.nbd.conformance import (
    contexts,
    extended,
    handshake,
    info,
    limits,
    options,
    status,
    structured,
    tls,
    transmission,
    writing,
)
from blockwright.nbd.conformance.model import CHECKS, Check, Level, Need, Outcome, Result
from blockwright.nbd.conformance.run import check_server

__all__ = ["CHECKS", "Check", "Level", "Need", "Outcome", "Result", "check_server"]

_ORDER: Final = (
    handshake, options, info, contexts, tls, transmission, writing, structured, status, extended, limits
)  # fmt: skip
_PLACE: Final = {module.__name__: place for place, module in enumerate(_ORDER)}
CHECKS.sort(key=lambda check: (_PLACE[check.run.__module__], check.id))
