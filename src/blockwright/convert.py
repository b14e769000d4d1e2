"""Copy a disk to a file, a device or an NBD server, holes and all.

Knows: how an output comes to be. Refuses to know: how formats and protocols work: they are devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from blockwright.address import parse_address
from blockwright.device.base import BlockDevice, Context, TellingDevice
from blockwright.device.copy import CopyResult, copy
from blockwright.device.copy_runs import Ranges
from blockwright.device.extent import HOLE, Extent
from blockwright.device.hostblock import HostBlockDevice
from blockwright.device.physical import check_whole
from blockwright.errors import FormatError, NoSpace, NotSupported, UsageError
from blockwright.format.describe import Described
from blockwright.format.output import ImageOptions, image_output, image_stream
from blockwright.format.registry import format_by_name
from blockwright.nbd.client.options import ClientOptions
from blockwright.nbd.wire import CHANGED_SINCE
from blockwright.resolve import open_device, open_output, sector_size_of
from blockwright.units import GiB

Progress = Callable[[int, int], None]
RAW = ImageOptions()
_DISCARD_STEP = GiB


@dataclass(frozen=True, slots=True)
class DiskWrite:
    """What becomes of a block device that is written over, beside the data that it gets.

    By default what the source tells as zeros becomes zeros, and what lies behind its end is left alone. ``discard``
    gives all of the device's space back first. ``skip_holes`` leaves what the source has no room for as it was: it
    is what bmap tools do, and right for images whose file systems never read it. ``zero_rest`` makes zeros of what
    lies behind.
    """

    discard: bool = False
    skip_holes: bool = False
    zero_rest: bool = False


DISK = DiskWrite()


def convert(
    source: BlockDevice,
    output: str,
    *,
    force: bool = False,
    verify: bool = False,
    progress: Progress | None = None,
    requests: int | None = None,
    client: ClientOptions | None = None,
    image: ImageOptions = RAW,
    disk: DiskWrite = DISK,
) -> CopyResult:
    """Make ``output`` hold the bytes of ``source``; what reads as zeros becomes a hole where that can be.

    ``output`` is an address. A file appears under its name when it is whole and durable, and after a failure what was
    there before is there. A block device and an NBD export are written in place, and what lies behind the source's
    size is left alone. ``verify`` reads it back and compares. ``requests`` and ``client`` are as in ``copy`` and
    ``open_device``. ``image`` says which format a file or block device gets. ``disk`` says what becomes of a block
    device beside the source's data. Raises UsageError where ``output`` holds something, or counts in other sectors
    than the source's table, without ``force``, and where it is a disk that was not named
    (``device.physical.confirmed``).
    """
    image.check()
    check_whole(output)
    if not image.raw:
        return _convert_to_image(source, output, image, force=force, verify=verify, progress=progress)
    with open_output(output, size=source.size, force=force, client=client) as out:
        on_disk = isinstance(out.device, HostBlockDevice)
        if disk != DISK and not on_disk:
            raise UsageError(f"{output}: expected a block device, which alone is discarded, left or zeroed")
        if on_disk and not force:
            _check_sectors(source, out.device, output)
        if disk.discard:
            _discard(out.device)
        result = copy(
            source,
            out.device,
            target_is_zero=out.target_is_zero,
            detect_zeroes=isinstance(source, Described),  # which has room for whole clusters only
            verify=verify,
            write_back=True,
            progress=progress,
            requests=requests,
            ranges=(lambda: _without_holes(source)) if disk.skip_holes else None,
        )
        if disk.zero_rest:
            out.device.zero(source.size, out.device.size - source.size)
        return result


def _check_sectors(source: BlockDevice, target: BlockDevice, output: str) -> None:
    """Raise UsageError where nobody would find the partitions of the source's table on the target."""
    from blockwright.table import read as tables

    try:
        wanted = tables.read(source, sector_size=None).sector_size
    except FormatError:
        return  # no table, or one that is no worse there
    found = sector_size_of(target)
    if found not in (None, wanted):
        raise UsageError(
            f"{output}: has sectors of {found} bytes, and the table of what is to be written counts in {wanted}: "
            "its partitions would not be found; --force writes it all the same"
        )


def _discard(device: BlockDevice) -> None:
    """Tell a disk that nothing on it is needed; in steps, for some take their time."""
    if not device.traits.discard:
        raise NotSupported("discard: the device does not take it")
    for offset in range(0, device.size, _DISCARD_STEP):
        device.discard(offset, min(_DISCARD_STEP, device.size - offset))


def _without_holes(source: BlockDevice) -> Iterator[tuple[int, int]]:
    """Yield the ranges for which the source has room, data or zeros."""
    for extent in source.extents():
        if not extent.flags & HOLE:
            yield extent.offset, extent.length


def output_format(output: str) -> str:
    """Return the format that a file gets by its name; raw for what is no file."""
    address = parse_address(output)
    address.check_writable()
    return format_by_name(address.rest) if address.scheme == "file" and not address.is_part else "raw"


def _convert_to_image(
    source: BlockDevice, output: str, image: ImageOptions, *, force: bool, verify: bool, progress: Progress | None
) -> CopyResult:
    """Make ``output`` a new image; what is zeros in the source takes no room, wherever it is found to be."""
    address = parse_address(output)
    address.check_writable()
    if address.scheme != "file" or address.is_part:
        raise UsageError(f"{output}: expected a file for an image of the format {image.form}")
    if verify and image.form == "raw":
        raise UsageError(f"{output}: --verify: a compressed raw image is not read back")
    like, again = (source, False) if verify and image.once else (None, verify)
    with image_output(address.rest, source.size, image, force=force, like=like) as target:
        return copy(
            source, target, target_is_zero=True, detect_zeroes=True, verify=again, write_back=True, progress=progress
        )


def convert_to_stream(
    source: BlockDevice, stream: BinaryIO, *, progress: Progress | None = None, image: ImageOptions = RAW
) -> CopyResult:
    """Write an image of ``source`` to ``stream``. Raises UsageError for one that is not written front to back."""
    image.check()
    with image_stream(stream, source.size, image) as target:
        return copy(source, target, target_is_zero=True, detect_zeroes=not image.raw, progress=progress)


def update(
    source: BlockDevice,
    output: str,
    context: str,
    *,
    verify: bool = False,
    progress: Progress | None = None,
    requests: int | None = None,
    client: ClientOptions | None = None,
) -> CopyResult:
    """Bring ``output``, a copy of an earlier ``source``, up to date: what has a flag in the meta context is copied.

    ``source`` is an NBD export that was opened with ``context`` (``qemu:dirty-bitmap:NAME``) selected, or the disk in
    an image that has a bitmap of that name. ``output`` is
    written in place, and made durable; after a failure it is neither the earlier nor the later state, and the same
    call mends it. ``verify`` compares what was copied. Raises NotSupported where the source has no such context,
    NoSpace where the output is smaller.
    """
    ranges = flagged(source, context)
    with open_device(output, writable=True, client=client) as target:
        if target.size < source.size:
            raise NoSpace(f"{output}: expected at least {source.size} bytes, found {target.size}")
        result = copy(source, target, verify=verify, progress=progress, requests=requests, ranges=ranges)
        target.flush()
        return result


def flagged(source: BlockDevice, context: str) -> Ranges:
    """Return the ranges of a device whose flags in the meta context are not 0. Raises NotSupported.

    The device is an NBD export, or the disk in an image that keeps bitmaps, whose names may stand for theirs.
    """
    from blockwright.nbd.client.device import NbdDevice

    if isinstance(source, TellingDevice):
        told = _told(source, context)
        return lambda: _joined(told.extents(0, source.size))

    if not isinstance(source, NbdDevice):
        raise NotSupported(f"meta context {context}: expected an NBD export as a whole, found another device")
    device = source
    device.check_context(context)
    return lambda: _joined(device.context_extents(context))


def _told(source: TellingDevice, context: str) -> Context:
    """Return what the device tells under the name, or under the one that a bitmap of that name has."""
    told = source.contexts
    name = context.removeprefix(CHANGED_SINCE)
    found = told.get(context) or next((each for key, each in told.items() if key.endswith(f":{name}")), None)
    if found is None:
        known = ", ".join(told) or "none"
        raise NotSupported(f"{name}: expected something that the image keeps, of which there is {known}")
    return found


def _joined(extents: Iterable[Extent]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of extents with a flag."""
    start = end = 0
    for extent in extents:
        if not extent.flags:
            continue
        if extent.offset > end:
            if end > start:
                yield start, end - start
            start = extent.offset
        end = extent.end
    if end > start:
        yield start, end - start
