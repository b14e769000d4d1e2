"""Device-mapper by its own interface, without libdevmapper (linux/dm-ioctl.h).

with Mapper() as mapper:
path = mapper.create("scratch", [Linear(64 * MiB, "/dev/loop0"), Zero(64 * MiB)])
"""

from __future__ import annotations

from blockwright.system.linux.dm.device import Info, Mapper
from blockwright.system.linux.dm.events import Watch
from blockwright.system.linux.dm.layout import Entry
from blockwright.system.linux.dm.status import (
    SnapshotStatus,
    Status,
    StripedStatus,
    ThinPoolStatus,
    ThinStatus,
    VerityStatus,
)
from blockwright.system.linux.dm.tables import (
    Crypt,
    Error,
    Linear,
    Other,
    Snapshot,
    SnapshotMerge,
    SnapshotOrigin,
    Striped,
    Target,
    Thin,
    ThinPool,
    Verity,
    Zero,
    size_of,
)
from blockwright.system.linux.dm.text import format_line, parse_table, without_keys

__all__ = [
    "Crypt",
    "Entry",
    "Error",
    "Info",
    "Linear",
    "Mapper",
    "Other",
    "Snapshot",
    "SnapshotMerge",
    "SnapshotOrigin",
    "SnapshotStatus",
    "Status",
    "Striped",
    "StripedStatus",
    "Target",
    "Thin",
    "ThinPool",
    "ThinPoolStatus",
    "ThinStatus",
    "Verity",
    "VerityStatus",
    "Watch",
    "Zero",
    "format_line",
    "parse_table",
    "size_of",
    "without_keys",
]
