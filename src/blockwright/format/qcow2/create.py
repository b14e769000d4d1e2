"""A new qcow2 image, empty: its options, its layout, and the bytes of it.

Knows: what lies where in an image that holds nothing. Refuses to know: files and what comes to be written.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.errors import UsageError
from blockwright.format.qcow2.layout import (
    AUTOCLEAR_RAW_DATA,
    LAZY_REFCOUNTS,
    MAGIC,
    MAX_CLUSTER_BITS,
    MAX_L1_BYTES,
    MAX_NAME,
    MIN_CLUSTER_BITS,
    Compression,
    Extension,
    ExtensionType,
    Geometry,
    Header,
    ImageHeader,
    Incompatible,
    entry_bytes,
    new_refcounts,
    pack_header,
    pack_refcounts,
)
from blockwright.units import KiB, align_up, ceil_div

FEATURES = (
    (0, 0, b"dirty bit"),
    (0, 1, b"corrupt bit"),
    (0, 2, b"external data file"),
    (0, 3, b"compression type"),
    (0, 4, b"extended L2 entries"),
    (1, 0, b"lazy refcounts"),
    (2, 0, b"bitmaps"),
    (2, 1, b"raw external data"),
)
"""(kind, bit, name) for readers who do not know a feature."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a new image is like. Sizes in bytes; names as they are stored."""

    version: int = 3
    cluster_size: int = 64 * KiB
    refcount_bits: int = 16
    extended_l2: bool = False
    compression: str = "zlib"
    lazy_refcounts: bool = False
    backing_file: str | None = None
    backing_format: str | None = None
    data_file: str | None = None
    data_file_raw: bool = False

    def check(self) -> None:
        """Raise UsageError where the options contradict the format or one another."""
        size, bits = self.cluster_size, self.refcount_bits
        if size & (size - 1) or not 1 << MIN_CLUSTER_BITS <= size <= 1 << MAX_CLUSTER_BITS:
            raise UsageError(f"cluster size: expected a power of two from 512 bytes to 2 MiB, found {size}")
        if bits & (bits - 1) or not 1 <= bits <= 64:
            raise UsageError(f"refcount bits: expected 1, 2, 4, 8, 16, 32 or 64, found {bits}")
        if self.version not in (2, 3):
            raise UsageError(f"qcow2: expected version 2 or 3, found {self.version}")
        if self.compression not in ("zlib", "zstd"):
            raise UsageError(f"compression: expected zlib or zstd, found {self.compression!r}")
        newer = bits != 16 or self.extended_l2 or self.compression != "zlib" or self.lazy_refcounts or self.data_file
        if self.version == 2 and newer:
            raise UsageError("qcow2 version 2: has 16-bit refcounts, zlib, and none of the newer features")
        if self.extended_l2 and size < 16 * KiB:
            raise UsageError(f"extended L2 entries: expected clusters of at least 16 KiB, found {size} bytes")
        if self.backing_format is not None and self.backing_file is None:
            raise UsageError("backing format: expected a backing file")
        if self.data_file_raw and (self.data_file is None or self.backing_file is not None):
            raise UsageError("raw data file: expected a data file and no backing file")
        for name in (self.backing_file, self.data_file):
            if name is not None and not 0 < len(name.encode("utf-8", "surrogateescape")) <= MAX_NAME:
                raise UsageError(f"name of a file: expected 1 to {MAX_NAME} bytes, found {name[:60]!r}")

    @property
    def geometry(self) -> Geometry:
        """The geometry of the image."""
        return Geometry(self.cluster_size.bit_length() - 1, self.refcount_bits.bit_length() - 1, self.extended_l2)


@dataclass(frozen=True, slots=True)
class Empty:
    """An image that holds nothing: its header, and where its tables lie, in clusters."""

    header: ImageHeader
    table: int
    table_clusters: int
    blocks: int
    block_clusters: int
    end: int


def plan_empty(size: int, options: Options) -> Empty:
    """Return the layout of an empty image of a disk of ``size`` bytes. Raises UsageError.

    The header, the refcount table, its blocks, and the L1 table, one behind the other.
    """
    options.check()
    geometry = options.geometry
    l1_entries = geometry.l1_entries(size)
    if l1_entries * 8 > MAX_L1_BYTES:
        most = MAX_L1_BYTES // 8 * geometry.l2_span
        raise UsageError(
            f"qcow2: clusters of {geometry.cluster} bytes make a disk of at most {most} bytes, found {size}"
        )
    l1_clusters = geometry.clusters(l1_entries * 8)
    tables = blocks = 1
    while True:
        total = 1 + tables + blocks + l1_clusters
        needed = ceil_div(total, geometry.refcounts)
        if needed <= blocks:
            break
        blocks = needed
        tables = ceil_div(blocks, geometry.table_entries)
    table, first_block, l1 = 1, 1 + tables, 1 + tables + blocks
    record = Header(
        magic=MAGIC,
        version=options.version,
        cluster_bits=geometry.cluster_bits,
        size=size,
        l1_size=l1_entries,
        l1_table_offset=l1 * geometry.cluster,
        refcount_table_offset=table * geometry.cluster,
        refcount_table_clusters=tables,
        refcount_order=geometry.refcount_order,
        incompatible_features=_incompatible(options),
        compatible_features=LAZY_REFCOUNTS if options.lazy_refcounts else 0,
        autoclear_features=AUTOCLEAR_RAW_DATA if options.data_file_raw else 0,
        compression_type=Compression[options.compression.upper()].value,
        header_length=Header.SIZE,
    )
    backing = None if options.backing_file is None else options.backing_file.encode("utf-8", "surrogateescape")
    header = ImageHeader(record, geometry, _extensions(options), backing)
    return Empty(header, table, tables, first_block, blocks, 1 + tables + blocks + l1_clusters)


def _incompatible(options: Options) -> int:
    found = Incompatible(0)
    if options.data_file is not None:
        found |= Incompatible.DATA_FILE
    if options.compression != "zlib":
        found |= Incompatible.COMPRESSION
    if options.extended_l2:
        found |= Incompatible.EXTENDED_L2
    return found.value


def _extensions(options: Options) -> tuple[Extension, ...]:
    found = []
    if options.backing_format is not None:
        found.append(Extension(ExtensionType.BACKING_FORMAT, options.backing_format.encode()))
    if options.data_file is not None:
        found.append(Extension(ExtensionType.DATA_FILE, options.data_file.encode("utf-8", "surrogateescape")))
    if options.version >= 3 and options.cluster_size >= 4 * KiB:
        names = b"".join(bytes((kind, bit)) + name.ljust(46, b"\0") for kind, bit, name in FEATURES)
        found.append(Extension(ExtensionType.FEATURE_NAMES, names))
    return tuple(found)


def create(file: BlockDevice, size: int, options: Options) -> None:
    """Make ``file`` an image of a disk of ``size`` bytes that reads as zeros, or as its backing file.

    What the file held before is lost; a file that can grow is made as long as needed. Nothing is flushed. Raises
    UsageError, NoSpace, OSError.
    """
    plan = plan_empty(size, options)
    geometry = plan.header.geometry
    length = plan.end * geometry.cluster
    if isinstance(file, ResizableDevice):
        file.resize(0)
        file.resize(length)
    else:
        file.zero(0, length)
    table = array("Q", bytes(plan.table_clusters * geometry.cluster))
    for number in range(plan.block_clusters):
        counts = new_refcounts(geometry)
        used = min(geometry.refcounts, plan.end - number * geometry.refcounts)
        counts[:used] = array(counts.typecode, [1]) * used
        offset = (plan.blocks + number) * geometry.cluster
        table[number] = offset
        file.write(offset, pack_refcounts(counts, geometry.refcount_order))
    file.write(plan.table * geometry.cluster, entry_bytes(table[: align_up(plan.block_clusters, 64)]))
    file.write(0, pack_header(plan.header))
