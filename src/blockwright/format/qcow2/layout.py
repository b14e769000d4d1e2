"""The bytes of a qcow2 image: header, extensions, table entries, snapshot entries.

All numbers are big-endian. Every count and offset of a header is checked here against a named limit and against the
format's rules, so that what ``parse_header`` returns can be used without asking again.

Knows: bytes, bits and limits. Refuses to know: where they come from. Spec: QEMU ``docs/interop/qcow2.rst``.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import Final

from blockwright.codec.record import Buffer, Record, raw, u8, u16, u32, u64
from blockwright.codec.words import pack_words, unpack_words
from blockwright.errors import Corrupt, LimitExceeded, NotSupported, NotThisFormat, Unsupported
from blockwright.units import MAX_SIZE, MiB, align_up, ceil_div

SPEC: Final = "qcow2"
MAGIC: Final = b"QFI\xfb"

MIN_CLUSTER_BITS: Final = 9
MAX_CLUSTER_BITS: Final = 21
MAX_L1_BYTES: Final = 32 * MiB
MAX_REFCOUNT_TABLE_BYTES: Final = 8 * MiB
MAX_SNAPSHOTS: Final = 65536
MAX_NAME: Final = 1023
"""Bytes of a file's name in a header."""
MAX_HEADER_BYTES: Final = 1 << MAX_CLUSTER_BITS
MAX_EXTENSIONS: Final = 256
"""Extensions of a header; there are six kinds."""
SUBCLUSTERS: Final = 32

V2_HEADER: Final = 72
V3_HEADER: Final = 104

COPIED: Final = 1 << 63
"""The cluster's refcount is exactly one, so it may be written in place."""
COMPRESSED: Final = 1 << 62
ZERO: Final = 1
"""Of a standard L2 entry since version 3: the cluster reads as zeros."""
OFFSET_MASK: Final = 0x00FF_FFFF_FFFF_FE00
"""The host offset in an L1 or L2 entry."""
L1_RESERVED: Final = 0x7F00_0000_0000_01FF
L2_RESERVED: Final = 0x3F00_0000_0000_01FE
"""Bits of a standard entry that must be 0; in an extended one bit 0 must be, too."""
REFCOUNT_OFFSET_MASK: Final = 0xFFFF_FFFF_FFFF_FE00
ALL_SUBCLUSTERS: Final = (1 << SUBCLUSTERS) - 1
SECTOR: Final = 512
_FEATURE: Final = 48
"""Bytes of a feature's name."""


class Incompatible(IntFlag):
    """What a reader must know of."""

    DIRTY = 1
    CORRUPT = 2
    DATA_FILE = 4
    COMPRESSION = 8
    EXTENDED_L2 = 16


KNOWN_INCOMPATIBLE: Final = 31
LAZY_REFCOUNTS: Final = 1
"""Of the compatible features."""
AUTOCLEAR_BITMAPS: Final = 1
AUTOCLEAR_RAW_DATA: Final = 2


class ExtensionType(IntEnum):
    """What a header extension is."""

    END = 0
    BACKING_FORMAT = 0xE279_2ACA
    FEATURE_NAMES = 0x6803_F857
    BITMAPS = 0x2385_2875
    ENCRYPTION = 0x0537_BE77
    DATA_FILE = 0x4441_5441


class Compression(IntEnum):
    """How compressed clusters are compressed."""

    ZLIB = 0
    ZSTD = 1


class Header(Record, size=112, byte_order=">"):
    """The image header; version 2 ends at byte 72, and what lies behind counts as 0 then."""

    magic: bytes = raw(0, 4)
    version: int = u32(4, 3)
    backing_file_offset: int = u64(8)
    backing_file_size: int = u32(16)
    cluster_bits: int = u32(20)
    size: int = u64(24)
    crypt_method: int = u32(32)
    l1_size: int = u32(36)
    l1_table_offset: int = u64(40)
    refcount_table_offset: int = u64(48)
    refcount_table_clusters: int = u32(56)
    nb_snapshots: int = u32(60)
    snapshots_offset: int = u64(64)
    incompatible_features: int = u64(72)
    compatible_features: int = u64(80)
    autoclear_features: int = u64(88)
    refcount_order: int = u32(96, 4)
    header_length: int = u32(100, 112)
    compression_type: int = u8(104)


class SnapshotHeader(Record, size=40, byte_order=">"):
    """The fixed part of an entry of the snapshot table; extra data, id and name follow, padded to 8 bytes."""

    l1_table_offset: int = u64(0)
    l1_size: int = u32(8)
    id_size: int = u16(12)
    name_size: int = u16(14)
    date_s: int = u32(16)
    date_ns: int = u32(20)
    vm_clock_ns: int = u64(24)
    vm_state_size: int = u32(32)
    extra_size: int = u32(36)


class SnapshotExtra(Record, size=24, byte_order=">"):
    """What of a snapshot's extra data is known."""

    vm_state_size: int = u64(0)
    disk_size: int = u64(8)
    icount: int = u64(16)


@dataclass(frozen=True, slots=True)
class Geometry:
    """What follows from cluster size, refcount width and kind of L2 entries. Bytes and counts."""

    cluster_bits: int
    refcount_order: int = 4
    extended: bool = False

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def unit(self) -> int:
        """Bytes that are allocated at once: a subcluster, or a cluster where there are none."""
        return self.cluster // SUBCLUSTERS if self.extended else self.cluster

    @property
    def l2_entries(self) -> int:
        """Entries of one L2 table."""
        return self.cluster // (16 if self.extended else 8)

    @property
    def l2_span(self) -> int:
        """Bytes of the disk that one L2 table maps."""
        return self.l2_entries << self.cluster_bits

    @property
    def refcounts(self) -> int:
        """Refcounts in one block of them, which is one cluster."""
        return (self.cluster * 8) >> self.refcount_order

    @property
    def max_refcount(self) -> int:
        """The largest refcount that can be stored."""
        return (1 << (1 << self.refcount_order)) - 1

    @property
    def table_entries(self) -> int:
        """Entries of the refcount table in one cluster."""
        return self.cluster // 8

    def l1_entries(self, size: int) -> int:
        """Return the L1 entries that a disk of ``size`` bytes needs."""
        return ceil_div(size, self.l2_span)

    def clusters(self, length: int) -> int:
        """Return the clusters that ``length`` bytes take."""
        return ceil_div(length, self.cluster)

    def compressed(self, entry: int) -> tuple[int, int]:
        """Return where the data of a compressed cluster begins in the file, and the bytes it may take from there."""
        bits = 62 - (self.cluster_bits - 8)
        offset = entry & ((1 << bits) - 1)
        sectors = (entry >> bits) & ((1 << (self.cluster_bits - 8)) - 1)
        return offset, (sectors + 1) * SECTOR - offset % SECTOR

    def compressed_entry(self, offset: int, length: int) -> int:
        """Return the L2 entry for ``length`` compressed bytes at ``offset``."""
        bits = 62 - (self.cluster_bits - 8)
        assert offset < 1 << bits, "an allocator keeps below"
        sectors = (offset + length - 1) // SECTOR - offset // SECTOR
        return COMPRESSED | sectors << bits | offset


@dataclass(frozen=True, slots=True)
class Extension:
    """A header extension: its type as a number, and its bytes."""

    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """A header that holds: its record, geometry, extensions, and the names of other files."""

    record: Header
    geometry: Geometry
    extensions: tuple[Extension, ...]
    backing_file: bytes | None = None

    def extension(self, kind: ExtensionType) -> bytes | None:
        """Return the data of the first extension of this type."""
        return next((each.data for each in self.extensions if each.type == kind), None)

    @property
    def backing_format(self) -> str | None:
        """The format that the backing file is said to have."""
        data = self.extension(ExtensionType.BACKING_FORMAT)
        return None if data is None else data.decode("ascii", "replace")

    @property
    def data_file(self) -> bytes | None:
        """The name of the external data file; empty where the header says that there is one and not its name."""
        if not self.record.incompatible_features & Incompatible.DATA_FILE:
            return None
        return self.extension(ExtensionType.DATA_FILE) or b""

    def has(self, feature: Incompatible) -> bool:
        """Whether the incompatible feature is set."""
        return bool(self.record.incompatible_features & feature)


def parse_header(data: Buffer, file_size: int) -> ImageHeader:
    """Return the header in ``data``, the first bytes of a file of ``file_size`` bytes: a cluster, or all there is.

    Raises NotThisFormat without the magic, Corrupt where a rule is broken, Unsupported for what is refused by name,
    LimitExceeded. Offsets in messages are those of the broken field.
    """
    if bytes(data[:4]) != MAGIC:
        raise NotThisFormat("qcow2: expected the magic 514649fb, found another", offset=0, spec=SPEC)
    if len(data) < V2_HEADER:
        raise Corrupt(f"qcow2 header: expected at least 72 bytes, found {len(data)}", offset=0, spec=SPEC)
    record = _record(data)
    _check_features(record)
    geometry = _geometry(record)
    _check_tables(record, geometry, file_size)
    extensions = _extensions(data, record, geometry)
    backing = _backing_name(data, record, geometry)
    return ImageHeader(record, geometry, extensions, backing)


def header_cluster_bits(data: Buffer) -> int:
    """Return the cluster bits that the first 24 bytes state, at least those of the smallest cluster."""
    bits = int.from_bytes(data[20:24], "big")
    return max(MIN_CLUSTER_BITS, min(bits, MAX_CLUSTER_BITS))


def _record(data: Buffer) -> Header:
    padded = bytes(data[: Header.SIZE]).ljust(Header.SIZE, b"\0")
    record = Header.parse(padded)
    if record.version not in (2, 3):
        raise Unsupported(f"qcow2: expected version 2 or 3, found {record.version}", offset=4, spec=SPEC)
    if record.version == 2:
        return Header.parse(padded[:V2_HEADER].ljust(Header.SIZE, b"\0")).replace(
            refcount_order=4, header_length=V2_HEADER
        )
    if record.header_length < V3_HEADER or record.header_length % 8 or record.header_length > len(data):
        raise Corrupt(
            f"qcow2 header length: expected a multiple of 8 from 104 to {len(data)}, found {record.header_length}",
            offset=100,
            spec=SPEC,
        )
    if record.header_length < Header.SIZE:
        record.compression_type = 0
    return record


def _check_features(record: Header) -> None:
    unknown = record.incompatible_features & ~KNOWN_INCOMPATIBLE
    if unknown:
        raise Unsupported(f"qcow2: incompatible features {unknown:#x} are not known", offset=72, spec=SPEC)
    if record.crypt_method:
        name = {1: "AES", 2: "LUKS"}.get(record.crypt_method, f"method {record.crypt_method}")
        raise Unsupported(f"qcow2: is encrypted with {name}, which is not read", offset=32, spec=SPEC)
    known = {each.value for each in Compression}
    if record.compression_type not in known:
        raise Unsupported(f"qcow2: compression type {record.compression_type} is not known", offset=104, spec=SPEC)
    if bool(record.compression_type) != bool(record.incompatible_features & Incompatible.COMPRESSION):
        raise Corrupt(
            f"qcow2: compression type {record.compression_type} and its feature bit contradict one another",
            offset=104,
            spec=SPEC,
        )


def _geometry(record: Header) -> Geometry:
    if not MIN_CLUSTER_BITS <= record.cluster_bits <= MAX_CLUSTER_BITS:
        raise Corrupt(f"qcow2 cluster bits: expected 9 to 21, found {record.cluster_bits}", offset=20, spec=SPEC)
    if record.refcount_order > 6:
        raise Corrupt(f"qcow2 refcount order: expected 0 to 6, found {record.refcount_order}", offset=96, spec=SPEC)
    extended = bool(record.incompatible_features & Incompatible.EXTENDED_L2)
    if extended and record.cluster_bits < 14:
        raise Corrupt(
            f"qcow2 cluster bits: expected at least 14 with extended L2 entries, found {record.cluster_bits}",
            offset=20,
            spec=SPEC,
        )
    return Geometry(record.cluster_bits, record.refcount_order, extended)


def _check_tables(record: Header, geometry: Geometry, file_size: int) -> None:
    if record.size > MAX_SIZE:
        raise LimitExceeded(f"qcow2 size: expected at most {MAX_SIZE} bytes, found {record.size}", offset=24)
    needed = geometry.l1_entries(record.size)
    if record.l1_size < needed:
        raise Corrupt(f"qcow2 L1 size: expected at least {needed} entries, found {record.l1_size}", offset=36)
    if record.l1_size * 8 > MAX_L1_BYTES:
        found = record.l1_size * 8
        raise LimitExceeded(f"qcow2 L1 size: expected at most {MAX_L1_BYTES} bytes, found {found}", offset=36)
    check_run(record.l1_table_offset, record.l1_size * 8, geometry, file_size, "L1 table", 40)
    length = record.refcount_table_clusters * geometry.cluster
    if not record.refcount_table_clusters:
        raise Corrupt("qcow2 refcount table: expected at least one cluster, found none", offset=56, spec=SPEC)
    if length > max(MAX_REFCOUNT_TABLE_BYTES, geometry.cluster):
        raise LimitExceeded(f"qcow2 refcount table: expected at most 8 MiB, found {length} bytes", offset=56)
    check_run(record.refcount_table_offset, length, geometry, file_size, "refcount table", 48)
    if record.nb_snapshots > MAX_SNAPSHOTS:
        raise LimitExceeded(f"qcow2 snapshots: expected at most 65536, found {record.nb_snapshots}", offset=60)
    if record.nb_snapshots:
        check_run(record.snapshots_offset, record.nb_snapshots * 40, geometry, file_size, "snapshot table", 64)


def check_run(offset: int, length: int, geometry: Geometry, file_size: int, what: str, at: int) -> None:
    """Raise Corrupt unless a structure begins at a cluster and ends within the file. ``at`` is where it is named."""
    if length and (offset % geometry.cluster or not offset):
        raise Corrupt(
            f"qcow2 {what}: expected an offset that is a multiple of {geometry.cluster}, found {offset}",
            offset=at,
            spec=SPEC,
        )
    if length and offset + length > align_up(file_size, geometry.cluster):
        raise Corrupt(
            f"qcow2 {what}: expected an end within the {file_size} bytes of the file, found {offset + length}",
            offset=at,
            spec=SPEC,
        )


def _extensions(data: Buffer, record: Header, geometry: Geometry) -> tuple[Extension, ...]:
    position = record.header_length
    end = min(len(data), geometry.cluster)
    if record.backing_file_offset:
        end = min(end, record.backing_file_offset)
    found: list[Extension] = []
    while position + 8 <= end:
        kind = int.from_bytes(data[position : position + 4], "big")
        length = int.from_bytes(data[position + 4 : position + 8], "big")
        if kind == ExtensionType.END:
            break
        if length > end - position - 8:
            raise Corrupt(
                f"qcow2 header extension {kind:#x}: expected at most {end - position - 8} bytes, found {length}",
                offset=position + 4,
                spec=SPEC,
            )
        found.append(Extension(kind, bytes(data[position + 8 : position + 8 + length])))
        if len(found) > MAX_EXTENSIONS:
            raise LimitExceeded(f"qcow2 header: expected at most {MAX_EXTENSIONS} extensions", offset=position)
        position += 8 + align_up(length, 8)
    return tuple(found)


def _backing_name(data: Buffer, record: Header, geometry: Geometry) -> bytes | None:
    if not record.backing_file_offset:
        return None
    size, offset = record.backing_file_size, record.backing_file_offset
    if not 0 < size <= MAX_NAME:
        raise Corrupt(f"qcow2 backing file name: expected 1 to 1023 bytes, found {size}", offset=16, spec=SPEC)
    if offset < V2_HEADER or offset + size > min(geometry.cluster, len(data)):
        raise Corrupt(
            f"qcow2 backing file name: expected to lie within the first cluster, found it at {offset}",
            offset=8,
            spec=SPEC,
        )
    return bytes(data[offset : offset + size])


def entries(data: Buffer) -> array[int]:
    """Return big-endian 64-bit entries as numbers."""
    return unpack_words(data, "Q", "big")


def entry_bytes(values: array[int]) -> bytes:
    """Return numbers as big-endian entries."""
    return pack_words(values, "big")


def _packed_extensions(extensions: Sequence[Extension]) -> bytes:
    packed = [
        each.type.to_bytes(4, "big")
        + len(each.data).to_bytes(4, "big")
        + each.data.ljust(align_up(len(each.data), 8), b"\0")
        for each in extensions
    ]
    return b"".join(packed) + bytes(8)


def pack_header(image: ImageHeader) -> bytes:
    """Return the first bytes of the image: header, extensions, name of the backing file.

    ``backing_file_offset`` and ``backing_file_size`` are set by where the name comes to lie. Raises LimitExceeded
    where that is not within the first cluster.
    """
    record = image.record.replace(magic=MAGIC)
    length = V2_HEADER if record.version == 2 else record.header_length
    extensions = _packed_extensions(image.extensions)
    name = image.backing_file or b""
    record.backing_file_offset = length + len(extensions) if name else 0
    record.backing_file_size = len(name)
    packed = record.pack()[:length].ljust(length, b"\0") + extensions + name
    if len(packed) > image.geometry.cluster:
        raise LimitExceeded(
            f"qcow2 header: expected at most a cluster of {image.geometry.cluster} bytes, found {len(packed)}"
        )
    return packed


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Another header for an image: ``early`` is a name to be written first, at its offset; then ``sector``.

    All that the present header says is where it was until the first sector is written, so that a power cut leaves the
    one or the other.
    """

    image: ImageHeader
    sector: bytes
    early: tuple[int, bytes] | None = None


def with_bitmaps(image: ImageHeader, head: Buffer, extension: bytes | None) -> Rewritten:
    """Return a header with another extension for bitmaps, or without. Raises as ``_rewritten`` does."""
    autoclear = image.record.autoclear_features & ~AUTOCLEAR_BITMAPS
    record = image.record.replace(autoclear_features=autoclear | (AUTOCLEAR_BITMAPS if extension is not None else 0))
    return _rewritten(replace(image, record=record), image, head, _with(image, ExtensionType.BITMAPS, extension))


def with_backing(image: ImageHeader, head: Buffer, name: bytes | None, form: str | None) -> Rewritten:
    """Return a header that names another backing file, or none. Raises as ``_rewritten`` does."""
    kind = None if form is None else form.encode("ascii", "replace")
    extensions = _with(image, ExtensionType.BACKING_FORMAT, kind)
    return _rewritten(replace(image, backing_file=name), image, head, extensions)


def _with(image: ImageHeader, kind: ExtensionType, data: bytes | None) -> list[Extension]:
    """Return the extensions with another one of that type, which comes first, or without."""
    others = [each for each in image.extensions if each.type != kind]
    return others if data is None else [Extension(kind, data), *others]


def _rewritten(new: ImageHeader, old: ImageHeader, head: Buffer, extensions: list[Extension]) -> Rewritten:
    """Return ``new`` with these extensions, in place of ``old``; ``head`` is the first sector as it is.

    Names of features, which are for people, make room where that is short. Raises NotSupported where there is none,
    since names of files take it.
    """
    name, length = new.backing_file or b"", new.record.header_length
    record = new.record.replace(magic=MAGIC)
    early = None
    while True:
        end = _extensions_end(length, extensions)
        moves = bool(name) and (name != old.backing_file or record.backing_file_offset < end)
        if end + (len(name) if moves else 0) <= SECTOR:
            break
        far = _far_place(old, len(name)) if moves and end <= SECTOR else 0
        if far:
            early, moves = (far, name), False
            record.backing_file_offset = far
            break
        names = next((each for each in extensions if each.type == ExtensionType.FEATURE_NAMES), None)
        if names is None:
            raise NotSupported("qcow2 header: has no room for this beside the names of its files")
        gone = max(1, ceil_div(end - SECTOR, _FEATURE))
        left = Extension(names.type, names.data[: max(0, ceil_div(len(names.data), _FEATURE) - gone) * _FEATURE])
        place = extensions.index(names)
        extensions[place : place + 1] = [left] if left.data else []
    if moves or not name:
        record.backing_file_offset = end if name else 0
    record.backing_file_size = len(name)
    packed = record.pack()[:length] + bytes(head[Header.SIZE : length])
    packed += _packed_extensions(extensions) + (name if moves else b"")
    image = replace(new, record=record, extensions=tuple(extensions))
    return Rewritten(image, packed + bytes(head[len(packed) : SECTOR]), early)


def _extensions_end(length: int, extensions: Sequence[Extension]) -> int:
    return length + sum(8 + align_up(len(each.data), 8) for each in extensions) + 8


def _far_place(old: ImageHeader, length: int) -> int:
    """Return where behind the first sector a name fits in the first cluster beside ``old``; 0 for nowhere."""
    start, size = old.record.backing_file_offset, old.record.backing_file_size
    place = max(SECTOR, _extensions_end(old.record.header_length, old.extensions))
    if size and place < start + size and start < place + length:
        place = start + size
    return place if place + length <= old.geometry.cluster else 0


# -- refcounts -----------------------------------------------------------------------------------------------

_CODES: Final = {3: "B", 4: "H", 5: "I", 6: "Q"}


def unpack_refcounts(data: Buffer, order: int) -> array[int]:
    """Return the refcounts in a block, or a part of one, as numbers."""
    if order < 3:
        width, packed = 1 << order, bytes(data)
        spread = bytearray(len(packed) * 8 // width)
        for place in range(8 // width):  # the least significant bits of a byte are the first count in it
            shift = place * width
            spread[place :: 8 // width] = packed.translate(bytes(x >> shift & (1 << width) - 1 for x in range(256)))
        return array("B", bytes(spread))
    return unpack_words(data, _CODES[order], "big")


def pack_refcounts(counts: array[int], order: int) -> bytes:
    """Return the bytes of refcounts; as many as fill whole bytes."""
    if order < 3:
        width = 1 << order
        length, packed = len(counts) * width // 8, 0
        for place in range(8 // width):  # as long numbers: no count reaches the next byte
            packed |= int.from_bytes(counts[place :: 8 // width].tobytes(), "little") << (place * width)
        return packed.to_bytes(length, "little")
    return pack_words(counts, "big")


def new_refcounts(geometry: Geometry) -> array[int]:
    """Return a block's refcounts, all 0."""
    code = _CODES.get(geometry.refcount_order, "B")
    return array(code, bytes(geometry.refcounts * array(code).itemsize))
