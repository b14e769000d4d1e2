"""What a qcow2 image says of itself, for people.

Knows: names of features and how values are shown. Refuses to know: whether any of it holds (``check``).
"""

from __future__ import annotations

from blockwright.format.describe import Description
from blockwright.format.qcow2.bitmap import read_bitmaps
from blockwright.format.qcow2.device import Qcow2Device
from blockwright.format.qcow2.layout import LAZY_REFCOUNTS, Compression, ExtensionType, Incompatible
from blockwright.format.qcow2.snapshot import read_snapshots
from blockwright.units import format_size


def describe(device: Qcow2Device) -> Description:
    """Return what the image says of itself. Raises Corrupt, OSError."""
    image = device.image
    record, geometry = image.record, image.geometry
    details = [
        ("version", str(record.version)),
        ("clusters", format_size(geometry.cluster)),
        ("refcount bits", str(1 << record.refcount_order)),
    ]
    if geometry.extended:
        details.append(("subclusters", format_size(geometry.unit)))
    if record.compression_type != Compression.ZLIB:
        details.append(("compression", Compression(record.compression_type).name.lower()))
    flags = [
        name for bit, name in ((Incompatible.DIRTY, "dirty"), (Incompatible.CORRUPT, "corrupt")) if image.has(bit)
    ]
    flags += ["lazy refcounts"] if record.compatible_features & LAZY_REFCOUNTS else []
    details += [("flags", " ".join(flags))] if flags else []
    if image.backing_file is not None:
        details.append(("backing file", _shown(image.backing_file)))
        if image.backing_format is not None:
            details.append(("backing format", image.backing_format[:40]))
    if image.data_file is not None:
        details.append(("data file", _shown(image.data_file)))
    snapshots = tuple(each.name or each.id for each in read_snapshots(device.file, image))
    has_bitmaps = image.extension(ExtensionType.BITMAPS) is not None
    bitmaps = tuple(each.name for each in read_bitmaps(device.file, image)) if has_bitmaps else ()
    return Description("qcow2", device.file.size, tuple(details), snapshots, bitmaps)


def _shown(name: bytes) -> str:
    return repr(name.decode("utf-8", "replace"))
