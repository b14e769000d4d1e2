"""What a program wrote to the file it was told to write to.

Knows: that only a plain file of a bounded size counts. Refuses to know: what it says.
"""

from __future__ import annotations

import os
import stat
import sys

# Before the imports, since what is imported here is not there either.
assert sys.platform != "win32", "scanners are not run there"

from blockwright.errors import ScanFailed  # noqa: E402
from blockwright.scan.process import MAX_OUTPUT, Finished  # noqa: E402
from blockwright.units import format_size  # noqa: E402


def read_report(path: str, name: str, finished: Finished, limit: int = MAX_OUTPUT) -> bytes:
    """Return the bytes of a report. Raises ScanFailed where its program failed, wrote none, or too much."""
    if finished.status:
        raise ScanFailed(f"{name}: {finished.told}")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        said = f" ({finished.last_words})" if finished.last_words else ""
        raise ScanFailed(f"{name}: expected a report, found none{said}") from None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            raise ScanFailed(f"{name}: expected a report, found it empty")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ScanFailed(f"{name}: expected a report of at most {format_size(limit)}, found more")
    return data
