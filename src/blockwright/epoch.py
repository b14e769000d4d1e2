"""The time that what is made or changed is stamped with: SOURCE_DATE_EPOCH comes before the clock.

Knows: the variable, as reproducible-builds.org has it. Refuses to know: which fields hold times.
"""

from __future__ import annotations

import os
import time

from blockwright.errors import UsageError


def source_date_epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH in seconds; None where it is not set. Raises UsageError for what is no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > 11:
        raise UsageError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, found {text[:64]!r}")
    return int(text)


def now_ns() -> int:
    """Return the present in nanoseconds since 1970, or SOURCE_DATE_EPOCH. Raises UsageError as that does."""
    seconds = source_date_epoch()
    return time.time_ns() if seconds is None else seconds * 1_000_000_000
