"""Snapshots, bitmaps and sizes of images in files: opened, changed, closed.

Knows: which formats have snapshots. Refuses to know: how a format keeps them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.errors import UsageError
from blockwright.format.policy import REFUSE, Policy
from blockwright.format.qcow2.bitmap import Bitmap, read_bitmaps
from blockwright.format.qcow2.bitmaps import clear_bitmap, create_bitmap, record_bitmap, remove_bitmap
from blockwright.format.qcow2.device import Qcow2Device
from blockwright.format.qcow2.snapshot import Snapshot, read_snapshots
from blockwright.format.qcow2.snapshots import apply_snapshot, create_snapshot, delete_snapshot
from blockwright.format.qcow2.write import WritableQcow2
from blockwright.resolve import open_device
from blockwright.units import SECTOR, align_up


class Images:
    """How an image is opened: its format, None for what it says, and what it may name."""

    def __init__(self, *, form: str | None = None, policy: Policy = REFUSE, force_unlocked: bool = False) -> None:
        self._form = form
        self._policy = policy
        self._force_unlocked = force_unlocked

    def list(self, text: str) -> Sequence[Snapshot]:
        """Return the snapshots of the image, in the order in which they were made. Raises UsageError, FormatError."""
        with self._open(text, writable=False) as disk:
            return read_snapshots(_qcow2(disk, text).file, _qcow2(disk, text).image)

    def create(self, text: str, name: str) -> Snapshot:
        """Keep the image's present state under ``name``. Raises as ``create_snapshot`` does."""
        with self._changing(text) as disk:
            return create_snapshot(disk, name, time_ns=time.time_ns())

    def apply(self, text: str, name: str) -> Snapshot:
        """Make the image what it was then. Raises as ``apply_snapshot`` does."""
        with self._changing(text) as disk:
            return apply_snapshot(disk, name)

    def delete(self, text: str, name: str) -> Snapshot:
        """Forget a snapshot of the image. Raises NotFound."""
        with self._changing(text) as disk:
            return delete_snapshot(disk, name)

    def bitmaps(self, text: str) -> Sequence[Bitmap]:
        """Return the bitmaps of the image. Raises UsageError, FormatError."""
        with self._open(text, writable=False) as disk:
            return read_bitmaps(_qcow2(disk, text).file, _qcow2(disk, text).image)

    def create_bitmap(self, text: str, name: str, *, granularity: int | None = None, recorded: bool = True) -> None:
        """Begin to keep in the image what changes on its disk. Raises as ``create_bitmap`` does."""
        with self._changing(text) as disk:
            create_bitmap(disk, name, granularity=granularity, recorded=recorded)

    def remove_bitmap(self, text: str, name: str) -> None:
        """Forget a bitmap of the image. Raises NotFound."""
        with self._changing(text) as disk:
            remove_bitmap(disk, name)

    def clear_bitmap(self, text: str, name: str) -> None:
        """Have a bitmap of the image mark nothing. Raises NotFound, UsageError."""
        with self._changing(text) as disk:
            clear_bitmap(disk, name)

    def record_bitmap(self, text: str, name: str, *, recorded: bool) -> None:
        """Begin or end to mark in a bitmap of the image what changes. Raises NotFound, UsageError."""
        with self._changing(text) as disk:
            record_bitmap(disk, name, recorded=recorded)

    def resize(self, text: str, size: int | Callable[[int], int], *, shrink: bool = False) -> int:
        """Give the image's disk ``size`` bytes, rounded up to whole sectors, and return that.

        ``size`` may be a function of the size that the disk has.

        Raises UsageError where it would become smaller and ``shrink`` does not say that it may.
        """
        with self._open(text, writable=True) as disk:
            size = align_up(size(disk.size) if callable(size) else size, SECTOR)
            if not isinstance(disk, ResizableDevice):
                raise UsageError(f"{text}: expected an image in a file, whose size can change")
            if size < disk.size and not shrink:
                raise UsageError(f"{text}: has {disk.size} bytes: --shrink cuts off what lies behind {size}")
            disk.resize(size)
            disk.flush()
        return size

    def _open(self, text: str, *, writable: bool) -> BlockDevice:
        return open_device(
            text, writable=writable, form=self._form, policy=self._policy, force_unlocked=self._force_unlocked
        )

    @contextmanager
    def _changing(self, text: str) -> Iterator[WritableQcow2]:
        with self._open(text, writable=True) as disk:
            found = _qcow2(disk, text)
            assert isinstance(found, WritableQcow2), "it was opened for writing"
            yield found
            found.flush()


def _qcow2(disk: BlockDevice, text: str) -> Qcow2Device:
    if not isinstance(disk, Qcow2Device):
        raise UsageError(f"{text}: expected an image of the format qcow2, which has snapshots and bitmaps")
    return disk
