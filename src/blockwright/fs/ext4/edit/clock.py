"""The time that changes are stamped with: the one place of the editor that looks at a clock.

Knows: SOURCE_DATE_EPOCH comes before the clock. Refuses to know: which fields hold times.
"""

from __future__ import annotations

import os
import time

from blockwright.errors import UsageError


def now_ns() -> int:
    """Return the present in nanoseconds since 1970, or what SOURCE_DATE_EPOCH says in seconds."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return time.time_ns()
    if not text.isdecimal():
        raise UsageError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, found {text[:64]!r}")
    return int(text) * 1_000_000_000
