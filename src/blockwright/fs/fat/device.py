"""A planned FAT volume as a device.

Knows: the granularity of its extents. Refuses to know: everything else about the plan.
"""

from __future__ import annotations

from blockwright.device.planned import PlannedDevice
from blockwright.fs.fat.plan import FatPlan


def open_plan(plan: FatPlan) -> PlannedDevice:
    """Return a read-only device that reads as the planned volume; holes are told in whole sectors."""
    return PlannedDevice(plan.size, plan.segments(), granularity=plan.geometry.sector_size)
