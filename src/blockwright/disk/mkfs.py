"""An empty ext4 file system on a device that exists already.

Knows: what an empty one is made of. Refuses to know: how it is laid out (``fs.ext4.plan``).
"""

from __future__ import annotations

from blockwright.device.base import BlockDevice
from blockwright.device.copy import copy
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.tree.node import Directory


def make_ext4(device: BlockDevice, *, label: str = "", seed: bytes, time_ns: int) -> None:
    """Have all of the device be an empty ext4 file system, durable; what was there is gone, and reads as zeros.

    Its features are those that boot loaders read: SYSLINUX from 6.04 on, and GRUB. Identities follow from ``seed``.
    Raises NoSpace for a device that is too small; UsageError for a label that is too long; ReadOnly.
    """
    planned = plan(
        Directory(mtime_ns=time_ns), Ext4Options(size=device.size, label=label, seed=seed, time_ns=time_ns)
    )
    with open_plan(planned) as source:
        copy(source, device)
    device.flush()
