"""Loop devices: files as block devices of the kernel, by the loop driver's own interface (linux/loop.h).

with attach("disk.img", read_only=True) as device:
    print(device.path)
"""

from __future__ import annotations

from blockwright.system.linux.loop.attach import attach
from blockwright.system.linux.loop.change import refresh, set_direct_io
from blockwright.system.linux.loop.detach import LoopDevice, detach
from blockwright.system.linux.loop.gc import Collected, gc
from blockwright.system.linux.loop.state import LoopState, find, state, states

__all__ = [
    "Collected",
    "LoopDevice",
    "LoopState",
    "attach",
    "detach",
    "find",
    "gc",
    "refresh",
    "set_direct_io",
    "state",
    "states",
]
