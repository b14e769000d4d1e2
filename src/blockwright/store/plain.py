"""One object as a disk that is read: any range of it, always of the version that was there at the beginning.

Knows: ranges of an object. Refuses to know: what a disk holds, and the cache that belongs in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from blockwright.device.base import BlockDevice, Traits, Waits
from blockwright.device.vector import total
from blockwright.errors import ObjectNotFound, PreconditionFailed, SourceChanged
from blockwright.store.objects import ObjectInfo, Objects
from blockwright.units import KiB

PARALLELISM: Final = 16
"""Requests at once that a store answers as fast as one."""


class ObjectDevice(BlockDevice):
    """The bytes of an object, read-only and of the version of ``info``: SourceChanged where that is gone."""

    def __init__(self, objects: Objects, info: ObjectInfo) -> None:
        super().__init__(info.size, Traits(parallelism=PARALLELISM, preferred_block=64 * KiB, waits=Waits.PEER))
        self._objects = objects
        self._info = info

    def _read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        length = total(buffers)
        if not length:
            return
        try:
            data = self._objects.get(self._info.key, offset, offset + length, match=self._info.version)
        except (ObjectNotFound, PreconditionFailed):
            raise SourceChanged(
                f"{self._objects.name_of(self._info.key)}: is not what it was when it was opened: expected the "
                f"version {self._info.version.etag}"
            ) from None
        position = 0
        for buffer in buffers:
            buffer[:] = data[position : position + len(buffer)]
            position += len(buffer)
