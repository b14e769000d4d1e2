"""Copy a disk to a file, a device or an NBD server, holes and all.

Knows: how an output comes to be. Refuses to know: how formats and protocols work: they are devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from blockwright.device.base import BlockDevice
from blockwright.device.copy import CopyResult, copy
from blockwright.device.copy_runs import Ranges
from blockwright.device.extent import Extent
from blockwright.device.output import OutputFile
from blockwright.errors import NoSpace, NotSupported, UsageError
from blockwright.format.mapped import MappedDevice
from blockwright.format.output import ImageOptions, format_by_name, new_image
from blockwright.nbd.client.options import ClientOptions
from blockwright.resolve import open_device, open_output, parse_address

Progress = Callable[[int, int], None]
RAW = ImageOptions()


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
) -> CopyResult:
    """Make ``output`` hold the bytes of ``source``; what reads as zeros becomes a hole where that can be.

    ``output`` is an address. A file appears under its name when it is whole and durable, and after a failure what was
    there before is there. A block device and an NBD export are written in place, and what lies behind the source's
    size is left alone. ``verify`` reads it back and compares. ``requests`` and ``client`` are as in ``copy`` and
    ``open_device``. ``image`` says which format a file or block device gets. Raises UsageError where ``output`` holds
    something, without ``force``.
    """
    image.check()
    if not image.raw:
        return _convert_to_image(source, output, image, force=force, verify=verify, progress=progress)
    with open_output(output, size=source.size, force=force, client=client) as out:
        return copy(
            source,
            out.device,
            target_is_zero=out.target_is_zero,
            detect_zeroes=isinstance(source, MappedDevice),  # which has room for whole clusters only
            verify=verify,
            write_back=True,
            progress=progress,
            requests=requests,
        )


def output_format(output: str) -> str:
    """Return the format that a file gets by its name; raw for what is no file."""
    address = parse_address(output)
    return format_by_name(address.rest) if address.scheme == "file" and not address.is_part else "raw"


def _convert_to_image(
    source: BlockDevice, output: str, image: ImageOptions, *, force: bool, verify: bool, progress: Progress | None
) -> CopyResult:
    """Make ``output`` a new image; what is zeros in the source takes no room, wherever it is found to be."""
    address = parse_address(output)
    if address.scheme != "file" or address.is_part:
        raise UsageError(f"{output}: expected a file for an image of the format {image.form}")
    with OutputFile(address.rest, force=force) as out, new_image(out.device, source.size, image) as target:
        result = copy(
            source, target, target_is_zero=True, detect_zeroes=True, verify=verify, write_back=True, progress=progress
        )
        target.flush()
        return result


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

    ``source`` is an NBD export that was opened with ``context`` (``qemu:dirty-bitmap:NAME``) selected. ``output`` is
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
    """Return the ranges of an NBD export whose flags in the meta context are not 0. Raises NotSupported."""
    from blockwright.nbd.client.device import NbdDevice

    if not isinstance(source, NbdDevice):
        raise NotSupported(f"meta context {context}: expected an NBD export as a whole, found another device")
    device = source
    device.check_context(context)

    def ranges() -> Iterator[tuple[int, int]]:
        start = end = 0
        extent: Extent
        for extent in device.context_extents(context):
            if not extent.flags:
                continue
            if extent.offset > end:
                if end > start:
                    yield start, end - start
                start = extent.offset
            end = extent.end
        if end > start:
            yield start, end - start

    return ranges
