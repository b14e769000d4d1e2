"""A file becomes a qcow2 image: its header is read and checked, and the files that it names are opened by who may.

Knows: what must hold before a byte of the disk is read or written. Refuses to know: paths and policies.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.errors import Corrupt, ReadOnly, Unsupported
from blockwright.format.qcow2.device import Qcow2Device, read_entries
from blockwright.format.qcow2.layout import (
    MAX_HEADER_BYTES,
    REFCOUNT_OFFSET_MASK,
    SPEC,
    ImageHeader,
    Incompatible,
    header_cluster_bits,
    parse_header,
)
from blockwright.format.qcow2.map import ClusterMap
from blockwright.format.qcow2.update import WritableMap
from blockwright.format.qcow2.write import WritableQcow2
from blockwright.units import align_up

OpenBelow = Callable[[bytes, "str | None"], BlockDevice]
"""Opens a backing file by its name and the name of its format, which is None where the image does not say."""
OpenData = Callable[[bytes], BlockDevice]
"""Opens an external data file by its name."""


def read_header(file: BlockDevice) -> ImageHeader:
    """Return the header of the image in ``file``. Raises as ``parse_header`` does."""
    head = file.read(0, min(512, file.size))
    wanted = min(MAX_HEADER_BYTES, 1 << header_cluster_bits(head), file.size)
    return parse_header(head if wanted <= len(head) else file.read(0, wanted), file.size)


def open_qcow2(
    file: BlockDevice,
    *,
    writable: bool = False,
    below: OpenBelow,
    data: OpenData,
    bare: bool = False,
    owns: bool = True,
) -> Qcow2Device:
    """Return the disk in ``file``, which it owns from then on unless ``owns`` is False.

    After an exception the caller still owns it. ``below`` and ``data`` are called for the files that the image names;
    ``bare`` leaves the backing file out, and what only it has reads as zeros. Raises ReadOnly for an image that is
    marked as corrupt and is to be written, and as ``read_header``, ``below`` and ``data`` do.
    """
    image = read_header(file)
    if writable:
        image = _check_writable(file, image)
    opened: list[BlockDevice] = []
    try:
        data_file = None
        if image.data_file is not None:
            if not image.data_file:
                raise Corrupt("qcow2: has an external data file and does not name it", offset=72, spec=SPEC)
            data_file = data(image.data_file)
            opened.append(data_file)
        under = None
        if image.backing_file is not None and not bare:
            under = below(image.backing_file, image.backing_format)
            opened.append(under)
        return _device(file, image, data_file, under, writable=writable, owns=owns)
    except BaseException:
        for each in opened:
            each.close()
        raise


def _device(
    file: BlockDevice,
    image: ImageHeader,
    data_file: BlockDevice | None,
    below: BlockDevice | None,
    *,
    writable: bool,
    owns: bool,
) -> Qcow2Device:
    record = image.record
    l1 = read_entries(file, record.l1_table_offset, record.l1_size)
    own, zero = data_file is None, record.version >= 3
    if not writable:
        clusters = ClusterMap(file, image.geometry, l1, record.l1_table_offset, has_zero=zero, own_data=own)
        return Qcow2Device(file, image, clusters, record.size, data_file=data_file, below=below, owns=owns)
    changing = WritableMap(file, image.geometry, l1, record.l1_table_offset, has_zero=zero, own_data=own)
    if isinstance(file, ResizableDevice):
        file.resize(align_up(file.size, image.geometry.cluster))
    counts = read_refcount_table(file, image)
    return WritableQcow2(file, image, changing, counts, data_file=data_file, below=below, owns=owns)


def read_refcount_table(file: BlockDevice, image: ImageHeader) -> array[int]:
    """Return the offsets of refcount blocks."""
    geometry, record = image.geometry, image.record
    return read_entries(file, record.refcount_table_offset, record.refcount_table_clusters * geometry.table_entries)


def _check_writable(file: BlockDevice, image: ImageHeader) -> ImageHeader:
    """Return the header of an image that may be written, with refcounts that hold."""
    if not file.traits.writable:
        raise ReadOnly("qcow2: expected a file to write to, found one that is read-only")
    if image.has(Incompatible.CORRUPT):
        raise ReadOnly("qcow2: is marked as corrupt and is not written to: check --repair first")
    if image.has(Incompatible.DIRTY):
        from blockwright.format.qcow2.repair import rebuild_refcounts

        rebuild_refcounts(file, image)
        return read_header(file)
    if any(entry & ~REFCOUNT_OFFSET_MASK for entry in read_refcount_table(file, image)):
        raise Corrupt("qcow2 refcount table: has reserved bits set", offset=image.record.refcount_table_offset)
    return image


def no_files(name: bytes, *_: object) -> BlockDevice:
    """Refuse a file that an image names: for images that have none."""
    raise Unsupported(f"qcow2: expected an image that stands alone, found one that names {name[:200]!r}")
