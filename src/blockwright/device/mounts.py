"""What Linux tells of the file system that a file lies on.

Knows: /proc/self/mountinfo. Refuses to know: files.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def is_in_memory(device: int) -> bool:
    """Whether the file system with this ``st_dev`` keeps its files in memory; False where nobody tells."""
    if sys.platform != "linux":
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            # "36 35 98:0 /root /mount/point options - type source options": proc_pid_mountinfo(5)
            place, _, kind = line.partition(" - ")
            if place.split(" ", 3)[2] == number:
                return kind.split(" ", 1)[0] in _IN_MEMORY
    return False
