"""What the kernel said in its log of why it refused: device-mapper gives reasons nowhere else.

Knows: /dev/kmsg (Documentation/ABI/testing/dev-kmsg). Refuses to know: what was asked.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

MAX_LINES: Final = 3
_MAX_RECORDS: Final = 256
_RECORD: Final = 8192


class KernelLog:
    """The log from a point on. Where it may not be read (dmesg_restrict, a container) it says nothing."""

    def __init__(self) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open("/dev/kmsg", os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))

    def mark(self) -> None:
        """Pass over all that was said until now."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.lseek(self._fd, 0, os.SEEK_END)

    def said(self) -> str:
        """Return what device-mapper said since ``mark``, in one line; empty where it said nothing."""
        found: list[str] = []
        for _ in range(_MAX_RECORDS if self._fd >= 0 else 0):
            try:
                record = os.read(self._fd, _RECORD)
            except BrokenPipeError:  # lines were lost: the log is a ring
                continue
            except OSError:
                break
            text = record.partition(b";")[2].partition(b"\n")[0].decode("utf-8", "backslashreplace")
            if text.startswith("device-mapper:"):
                found.append(text.removeprefix("device-mapper:").strip())
        return "; ".join(found[:MAX_LINES])

    def close(self) -> None:
        """Let go of the log. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
