"""Whether the files that a device stands on are still what a tree was made from.

Knows: which metadata of a file moves when its bytes do. Refuses to know: devices that stand on no file; those are
not verified.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from blockwright.device.base import BlockDevice
from blockwright.errors import SourceChanged
from blockwright.tree.content import Verify


class _Identity(NamedTuple):
    size: int
    mtime_ns: int
    ctime_ns: int


def verifier(device: BlockDevice, source: str) -> Verify | None:
    """Return a function that raises SourceChanged once a file below ``device`` is written to or cut off.

    None where the device stands on no file that can be asked. ``source`` is what the message calls the device.
    """
    first = _identities(device)
    if not first:
        return None

    def verify() -> None:
        found = _identities(device)
        if found != first:
            before, after = next(
                ((old, new) for old, new in zip(first, found, strict=False) if old != new), (first, found)
            )
            raise SourceChanged(f"{source}: changed since it was looked at: expected {before}, found {after}")

    return verify


def _identities(device: BlockDevice) -> list[_Identity]:
    """Return what tells a change of each file that holds bytes of the device."""
    with device.backing(0, device.size) as runs:
        if runs is None:
            return []
        found = []
        for fd in dict.fromkeys(run.fd for run in runs):
            status = os.fstat(fd)
            found.append(_Identity(status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        return found
