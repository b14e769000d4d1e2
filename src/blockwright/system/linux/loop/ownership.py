"""Which loop devices are ours: on record from before the kernel is asked until they are free again.

A device is proven to be ours by its disk sequence, which no later attachment of the same device has. Where a process
died before it could note the sequence, the device is ours if it stands on what was intended and was attached since.

Knows: the records, and the proof. Refuses to know: how devices are attached and detached.
"""

from __future__ import annotations

import os
from typing import Any

from blockwright.errors import KernelError
from blockwright.system.linux import blkdev
from blockwright.system.linux.ioctl import opened
from blockwright.system.linux.loop import state
from blockwright.system.linux.registry import Record, Registry


class Ownership:
    """One device's record."""

    def __init__(self, number: int, fields: dict[str, Any], registry: Registry) -> None:
        self._name = f"loop{number}"
        self._fields = fields
        self._registry = registry

    @classmethod
    def intended(cls, number: int, before: int | None, image: os.stat_result, offset: int) -> Ownership:
        """Put on record that this process is about to attach ``image`` to the device."""
        fields = {
            "number": number,
            "before": before,
            "sequence": None,
            "image": [image.st_dev, image.st_ino],
            "offset": offset,
        }
        found = cls(number, fields, Registry("loop"))
        found._registry.put(found._name, fields, owned=True)
        return found

    def attached(self, sequence: int | None, *, owned: bool) -> None:
        """Put on record that it is, and that it stays when this process ends unless it is ``owned`` by it."""
        self._fields |= {"sequence": sequence}
        self._registry.put(self._name, self._fields, owned=owned)

    def keep(self) -> None:
        """Put on record that the device stays when this process ends."""
        self._registry.put(self._name, self._fields, owned=False)

    def bind(self) -> None:
        """Put on record that the device is to go with this process."""
        self._registry.put(self._name, self._fields, owned=True)

    def forget(self) -> None:
        """Have no record, where it is still this one."""
        found = self._registry.get(self._name)
        if found is not None and found.fields == self._fields:
            self._registry.remove(self._name)


def forget(number: int, sequence: int | None) -> None:
    """Have no record of an attachment that is over."""
    registry = Registry("loop")
    found = registry.get(f"loop{number}")
    if found is not None and found.fields.get("sequence") == sequence:
        registry.remove(f"loop{number}")


def is_ours(record: Record) -> bool:
    """Whether the device of a record of this boot is still attached as the record says."""
    fields = record.fields
    number, image = fields.get("number"), fields.get("image")
    if not isinstance(number, int) or not isinstance(image, list) or len(image) != 2 or not record.current:
        return False
    found = state.state(number)
    if found is None or found.offset != fields.get("offset"):
        return False
    if isinstance(fields.get("sequence"), int):
        return bool(found.sequence == fields["sequence"])
    before = fields.get("before")
    if isinstance(before, int) and found.sequence is not None and found.sequence <= before:
        return False
    try:
        with opened(found.path, os.O_RDONLY) as fd:
            told = state.info(fd, found.path)
            same = blkdev.disk_sequence(fd, found.path) == found.sequence
    except KernelError:
        return False
    # The driver's device number is another than stat's on btrfs and overlayfs; the inode is the same everywhere.
    return same and told is not None and bool(told.lo_inode == image[1])
