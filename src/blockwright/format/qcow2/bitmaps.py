"""The bitmaps of an image: made, forgotten, begun anew.

Each change is a directory beside the old one, and one sector that names it: whatever ends it leaves the bitmaps as
they were.

Knows: what each change asks for. Refuses to know: marks, and the way to the disk (``recording``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.device.checkpoint import MAX_BLOCKS, Checkpoint
from blockwright.errors import LimitExceeded, NotFound, UsageError
from blockwright.format.qcow2.bitmap import AUTO, IN_USE, Bitmap, BitmapsExtension, read_bitmaps
from blockwright.format.qcow2.layout import ImageHeader, with_bitmaps
from blockwright.format.qcow2.recording import MAX_RECORDED, Kept, Recording
from blockwright.format.qcow2.write import WritableQcow2
from blockwright.units import KiB

MAX_NAME: Final = 1023
"""Bytes of a bitmap's name: what QEMU takes."""
MIN_GRANULARITY: Final = 512
MAX_GRANULARITY: Final = 1 << 31


def find_bitmap(file: BlockDevice, image: ImageHeader, name: str) -> Bitmap:
    """Return the bitmap of that name, which can be used. Raises NotFound, UsageError, FormatError."""
    known = read_bitmaps(file, image)
    found = next((each for each in known if each.name == name), None)
    if found is None:
        raise _missing(name, [each.name for each in known])
    if not found.consistent:
        raise _inconsistent(name)
    return found


def create_bitmap(disk: WritableQcow2, name: str, *, granularity: int | None = None, recorded: bool = True) -> None:
    """Begin to keep what changes, in blocks of ``granularity`` bytes: 64 KiB, or a cluster where that is more.

    Nothing is marked at first. Unless ``recorded``, nothing will be. Raises UsageError for a name that is taken and
    for what cannot be, NotSupported where the header has no room.
    """
    image = disk.image
    if image.record.version < 3:
        raise UsageError("bitmap: expected an image of version 3, found version 2")
    if not 0 < len(name.encode("utf-8", "surrogateescape")) <= MAX_NAME:
        raise UsageError(f"bitmap: expected a name of 1 to {MAX_NAME} bytes, found {name[:40]!r}")
    block = max(64 * KiB, image.geometry.cluster) if granularity is None else granularity
    if block & (block - 1) or not MIN_GRANULARITY <= block <= MAX_GRANULARITY:
        raise UsageError(f"granularity: expected a power of two from 512 bytes to 2 GiB, found {block}")
    if disk.size > MAX_BLOCKS * block:
        raise UsageError(f"granularity: expected at least {disk.size // MAX_BLOCKS} bytes here, found {block}")
    with_bitmaps(image, bytes(512), bytes(BitmapsExtension.SIZE))

    def change(recording: Recording) -> None:
        if recording.find(name) is not None:
            raise UsageError(f"bitmap {name!r}: is there already")
        recording.add(Bitmap(name, block, AUTO if recorded else 0, 0, 0, valid=True), disk.size)

    disk.change_bitmaps(change)


def remove_bitmap(disk: WritableQcow2, name: str) -> None:
    """Forget the bitmap, also one that cannot be used. Raises NotFound."""
    disk.change_bitmaps(lambda recording: recording.remove(_find(recording, name)))


def clear_bitmap(disk: WritableQcow2, name: str) -> None:
    """Have the bitmap mark nothing, and what changes from now on. Raises NotFound, UsageError, LimitExceeded."""

    def change(recording: Recording) -> None:
        kept = _usable(recording, name)
        marks = Checkpoint("bitmap", disk.size, block=kept.bitmap.granularity)
        recording.replace(kept, kept.bitmap, marks)

    disk.change_bitmaps(change)


def record_bitmap(disk: WritableQcow2, name: str, *, recorded: bool) -> None:
    """Begin or end to mark in the bitmap what changes. Raises NotFound, UsageError."""

    def change(recording: Recording) -> None:
        kept = _usable(recording, name)
        flags = kept.bitmap.flags & ~AUTO | (AUTO if recorded else 0)
        recording.replace(kept, replace(kept.bitmap, flags=flags), kept.marks)

    disk.change_bitmaps(change)


def _find(recording: Recording, name: str) -> Kept:
    found = recording.find(name)
    if found is None:
        raise _missing(name, [each.bitmap.name for each in recording.kept])
    return found


def _usable(recording: Recording, name: str) -> Kept:
    found = _find(recording, name)
    if recording.crowded:
        raise LimitExceeded(f"bitmaps: expected at most {MAX_RECORDED}, found more: remove some first")
    if found.marks is None or found.bitmap.flags & IN_USE:
        raise _inconsistent(name)
    return found


def _missing(name: str, known: list[str]) -> NotFound:
    there = f"expected one of {', '.join(map(repr, known[:20]))}" if known else "the image has none"
    return NotFound(f"bitmap {name!r}: {there}")


def _inconsistent(name: str) -> UsageError:
    return UsageError(
        f"bitmap {name!r}: was not stored when the image was used last, and says nothing: remove it, and copy all"
    )
