"""A planned ext4 file system as a device.

Knows: how to read through a plan. Refuses to know: how the plan was made.
"""

from __future__ import annotations

from blockwright.device.planned import PlannedDevice
from blockwright.fs.ext4.plan import Ext4Plan


def open_plan(plan: Ext4Plan) -> PlannedDevice:
    """Return a read-only device over the whole file system; reading file contents reads their sources."""
    return PlannedDevice(plan.size, plan.segments(), granularity=plan.geometry.block_size)
