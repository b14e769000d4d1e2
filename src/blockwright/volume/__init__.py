"""Volumes: named disks in pools, with snapshots, over interchangeable drivers.

with open_pool("main") as pool:
    pool.create("root", 4 * GiB)
    pool.snapshot("root", "root-1")
"""

from __future__ import annotations

from blockwright.volume.driver import Driver
from blockwright.volume.engine import Fill
from blockwright.volume.found import Found, PoolStatus, Reconciled
from blockwright.volume.info import Operation, State, VolumeInfo
from blockwright.volume.pool import create_pool, destroy_pool, open_pool, open_volume
from blockwright.volume.spec import PoolSpec, load_spec, pool_names

__all__ = [
    "Driver",
    "Fill",
    "Found",
    "Operation",
    "PoolSpec",
    "PoolStatus",
    "Reconciled",
    "State",
    "VolumeInfo",
    "create_pool",
    "destroy_pool",
    "load_spec",
    "open_pool",
    "open_volume",
    "pool_names",
]
