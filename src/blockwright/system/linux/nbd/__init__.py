"""Network block devices: connected sockets as block devices of the kernel, by the nbd driver's own interface.

The handshake comes before: ``attach.nbd`` does it. A socket whose connection died can be replaced while requests
wait, and the size can change.
"""

from __future__ import annotations

from blockwright.system.linux.nbd.attach import By, attach, available
from blockwright.system.linux.nbd.control import Control, DeadLinks
from blockwright.system.linux.nbd.detach import NbdDevice, detach
from blockwright.system.linux.nbd.gc import Collected, gc
from blockwright.system.linux.nbd.layout import ClientFlag, ServerFlag, Settings
from blockwright.system.linux.nbd.state import NbdState, number_of, state, states

__all__ = [
    "By",
    "ClientFlag",
    "Collected",
    "Control",
    "DeadLinks",
    "NbdDevice",
    "NbdState",
    "ServerFlag",
    "Settings",
    "attach",
    "available",
    "detach",
    "gc",
    "number_of",
    "state",
    "states",
]
