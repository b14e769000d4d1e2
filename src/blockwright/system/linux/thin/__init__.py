"""Thin pools of device-mapper: what they are told, and what they keep of their devices.

with Mapper() as mapper:
pool = Pool(mapper, "pool")
pool.create(0)
path = pool.activate("first", 0, 4 * GiB)
"""

from __future__ import annotations

from blockwright.system.linux.thin.check import check_metadata, is_harmless
from blockwright.system.linux.thin.layout import (
    MAX_IDENTITY,
    Details,
    Superblock,
    check_block,
    metadata_size,
)
from blockwright.system.linux.thin.metadata import Metadata
from blockwright.system.linux.thin.pool import Pool

__all__ = [
    "MAX_IDENTITY",
    "Details",
    "Metadata",
    "Pool",
    "Superblock",
    "check_block",
    "check_metadata",
    "is_harmless",
    "metadata_size",
]
