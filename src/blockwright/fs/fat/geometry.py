"""Where everything of a FAT volume lies, and how a new one's numbers are chosen.

Knows: arithmetic between sectors, clusters and bytes, and mkfs.fat's choice of cluster sizes.
Refuses to know: contents, and whether a volume on disk is sound (``volume`` reads one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from blockwright.errors import NoSpace, UsageError
from blockwright.fs.fat import layout
from blockwright.fs.fat.floppy import Floppy, floppy_of
from blockwright.units import GiB, KiB, MiB, align_up, ceil_div

FATS: Final = 2
ALIGNMENT: Final = 4 * KiB
"""Where the clusters of a new volume begin: a multiple of this or of the cluster, whichever is more."""
RESERVED_32: Final = 32
ROOT_ENTRIES: Final = 512
MAX_ROOT_ENTRIES: Final = 65520
MAX_SECTORS: Final = 0xFFFFFFFF
MAX_CLUSTERS_12: Final = layout.MIN_FAT16 - 1 - layout.EDGE
MIN_CLUSTERS_16: Final = layout.MIN_FAT16 + layout.EDGE
MAX_CLUSTERS_16: Final = layout.MIN_FAT32 - 1 - layout.EDGE
MIN_CLUSTERS_32: Final = layout.MIN_FAT32 + layout.EDGE
MAX_CLUSTERS_32: Final = layout.MAX_FAT32 - layout.EDGE
BOUNDS: Final = {
    12: (1, MAX_CLUSTERS_12),
    16: (MIN_CLUSTERS_16, MAX_CLUSTERS_16),
    32: (MIN_CLUSTERS_32, MAX_CLUSTERS_32),
}
"""The least and the most clusters of a new volume, by type."""
_CLUSTERS_32: Final = ((260 * MiB, 512), (8 * GiB, 4096), (16 * GiB, 8192), (32 * GiB, 16384))
"""Sizes up to which FAT32 takes a cluster of so many bytes; 32 KiB beyond."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A volume's numbers. Sizes that are not in bytes say so; clusters count from 2."""

    bits: int
    sector_size: int
    sectors_per_cluster: int
    reserved_sectors: int
    fats: int
    fat_sectors: int
    root_entries: int
    total_sectors: int
    clusters: int
    root_cluster: int = 0
    media: int = layout.MEDIA
    sectors_per_track: int = 63
    heads: int = 255

    @property
    def size(self) -> int:
        """Bytes from the boot sector to the end."""
        return self.total_sectors * self.sector_size

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster."""
        return self.sectors_per_cluster * self.sector_size

    @property
    def fat_size(self) -> int:
        """Bytes in one FAT."""
        return self.fat_sectors * self.sector_size

    def fat_start(self, copy: int = 0) -> int:
        """The first byte of a FAT."""
        return (self.reserved_sectors + copy * self.fat_sectors) * self.sector_size

    @property
    def root_start(self) -> int:
        """The first byte of the fixed root directory of FAT12 and FAT16."""
        return self.fat_start(self.fats)

    @property
    def root_size(self) -> int:
        """Bytes in the fixed root directory; 0 in FAT32."""
        return self.root_entries * layout.ENTRY_SIZE

    @property
    def data_start(self) -> int:
        """The first byte of cluster 2."""
        return align_up(self.root_start + self.root_size, self.sector_size)

    def cluster_start(self, cluster: int) -> int:
        """The first byte of a cluster."""
        return self.data_start + (cluster - layout.FIRST_CLUSTER) * self.cluster_size

    @property
    def end_cluster(self) -> int:
        """The number behind the last cluster's."""
        return self.clusters + layout.FIRST_CLUSTER


@dataclass(frozen=True, slots=True)
class Need:
    """What the tree needs: entries of a fixed root, and clusters as a function of their size.

    ``bodies`` are the sizes in bytes of all that takes clusters; the root directory is ``root_bytes``, which takes
    clusters in FAT32 only.
    """

    root_bytes: int
    bodies: list[int]

    def clusters(self, bits: int, cluster_size: int) -> int:
        """Return the clusters that everything takes."""
        mask = cluster_size - 1
        shift = mask.bit_length()
        count = sum([(size + mask) >> shift for size in self.bodies])
        return count + (max(1, self.root_bytes + mask >> shift) if bits == 32 else 0)


def choose(
    need: Need, *, size: int | None, bits: int | None, sector_size: int, cluster_size: int | None, free: float
) -> Geometry:
    """Return the numbers of a new volume that holds ``need``, of ``size`` bytes or as small as it can be.

    FAT12 is taken where it is asked for, or where the size has room for no other.

    Raises NoSpace with both sizes; UsageError where the size cannot be of the type that was asked for.
    """
    if size is not None:
        return _of_size(need, size // sector_size, bits, sector_size, cluster_size, free)
    if bits == 12:
        return _smallest_12(need, sector_size, cluster_size, free)
    if bits != 32:
        for each in _cluster_sizes(sector_size, cluster_size):
            wanted = max(_with_free(need.clusters(16, each), free), MIN_CLUSTERS_16)
            if wanted <= MAX_CLUSTERS_16:
                found = _with_clusters(16, need, wanted, sector_size, each)
                if bits == 16 or found.size < _least_32(sector_size):
                    return found
    for each in _cluster_sizes(sector_size, cluster_size):
        wanted = max(_with_free(need.clusters(32, each), free), MIN_CLUSTERS_32)
        found = _with_clusters(32, need, wanted, sector_size, each)
        usual = each >= _usual_32(found.size, sector_size) or cluster_size is not None
        if usual and bits != 16 and wanted <= MAX_CLUSTERS_32 and found.total_sectors <= MAX_SECTORS:
            return found
    raise UsageError(f"fat: the content is more than FAT{bits or 32} can hold with clusters of 32 KiB")


def _smallest_12(need: Need, sector_size: int, cluster_size: int | None, free: float) -> Geometry:
    for each in _cluster_sizes(sector_size, cluster_size):
        wanted = max(_with_free(need.clusters(12, each), free), 1)
        if wanted <= MAX_CLUSTERS_12:
            return _with_clusters(12, need, wanted, sector_size, each)
    raise UsageError(f"fat: the content is more than FAT12 can hold, which takes {MAX_CLUSTERS_12} clusters")


def _cluster_sizes(sector_size: int, cluster_size: int | None) -> list[int]:
    """Return the cluster sizes that may be taken, ascending."""
    if cluster_size is not None:
        return [cluster_size]
    return [1 << power for power in range(9, 16) if 1 << power >= sector_size]


def _with_free(clusters: int, free: float) -> int:
    """Return the least number of clusters of which the fraction ``free`` is left."""
    total = clusters
    while total - clusters < free * total:
        total = max(total + 1, int(clusters / (1 - free)))
    return total


def _usual_32(size: int, sector_size: int) -> int:
    """Return the cluster size in bytes that mkfs.fat gives FAT32 of ``size`` bytes."""
    for limit, cluster in _CLUSTERS_32:
        if size <= limit:
            return max(cluster, sector_size)
    return max(32768, sector_size)


def _least_32(sector_size: int) -> int:
    """Return the size in bytes of the smallest FAT32, with a cluster to the sector."""
    return _with_clusters(32, Need(0, []), MIN_CLUSTERS_32, sector_size, sector_size).size


def _frame(bits: int, need: Need, sector_size: int) -> tuple[int, int]:
    """Return (least reserved sectors, root entries) of a new volume."""
    if bits == 32:
        return RESERVED_32, 0
    step = max(sector_size, ALIGNMENT) // layout.ENTRY_SIZE
    entries = max(ROOT_ENTRIES, align_up(need.root_bytes, step * layout.ENTRY_SIZE) // layout.ENTRY_SIZE)
    if entries > MAX_ROOT_ENTRIES:
        needed = need.root_bytes // layout.ENTRY_SIZE
        raise UsageError(
            f"fat: the root directory of FAT{bits} holds {MAX_ROOT_ENTRIES} entries, and {needed} are needed"
        )
    return 1, entries


def _fat_sectors(bits: int, clusters: int, sector_size: int) -> int:
    return ceil_div((clusters + layout.FIRST_CLUSTER) * bits, 8 * sector_size)


def _build(
    bits: int, reserved: int, root_entries: int, fat_sectors: int, total: int, sector_size: int, cluster_size: int
) -> Geometry:
    """Return the geometry with its clusters aligned: what that takes goes into the reserved sectors."""
    step = max(cluster_size, ALIGNMENT) // sector_size
    before = FATS * fat_sectors + ceil_div(root_entries * layout.ENTRY_SIZE, sector_size)
    reserved = align_up(reserved + before, step) - before
    spc = cluster_size // sector_size
    return Geometry(
        bits=bits,
        sector_size=sector_size,
        sectors_per_cluster=spc,
        reserved_sectors=reserved,
        fats=FATS,
        fat_sectors=fat_sectors,
        root_entries=root_entries,
        total_sectors=total,
        clusters=max(0, total - reserved - before) // spc,
        root_cluster=layout.FIRST_CLUSTER if bits == 32 else 0,
    )


def _with_clusters(bits: int, need: Need, clusters: int, sector_size: int, cluster_size: int) -> Geometry:
    """Return the volume of exactly so many clusters."""
    reserved, root_entries = _frame(bits, need, sector_size)
    fat_sectors = _fat_sectors(bits, clusters, sector_size)
    frame = _build(bits, reserved, root_entries, fat_sectors, 0, sector_size, cluster_size)
    total = frame.data_start // sector_size + clusters * frame.sectors_per_cluster
    return _build(bits, reserved, root_entries, fat_sectors, total, sector_size, cluster_size)


def _with_sectors(bits: int, need: Need, total: int, sector_size: int, cluster_size: int) -> Geometry:
    """Return the volume of exactly so many sectors, its FAT as small as it can be."""
    reserved, root_entries = _frame(bits, need, sector_size)
    # More sectors of FAT leave fewer clusters to describe: the least that suffices is found by halving.
    low, high = 1, _fat_sectors(bits, total * sector_size // cluster_size, sector_size)
    while low < high:
        middle = (low + high) // 2
        found = _build(bits, reserved, root_entries, middle, total, sector_size, cluster_size)
        if _fat_sectors(bits, found.clusters, sector_size) <= middle:
            high = middle
        else:
            low = middle + 1
    return _build(bits, reserved, root_entries, low, total, sector_size, cluster_size)


def _of_size(
    need: Need, total: int, bits: int | None, sector_size: int, cluster_size: int | None, free: float
) -> Geometry:
    """Return the volume of so many sectors with the usual cluster size, or the nearest that the content fits."""
    size = total * sector_size
    if total > MAX_SECTORS:
        raise UsageError(f"fat: expected at most {MAX_SECTORS} sectors of {sector_size} bytes, found {total}")
    floppy = floppy_of(total, bits, sector_size, cluster_size)
    if floppy is not None:
        return _floppy(need, floppy, free)
    kinds = [bits] if bits else [32, 16] if size >= _least_32(sector_size) else [16]
    candidates = [each for kind in kinds for each in _candidates(kind, need, total, sector_size, cluster_size)]
    if not candidates and bits is None:
        kinds = [12]
        candidates = _candidates(12, need, total, sector_size, cluster_size)
    for found in candidates:
        if need.clusters(found.bits, found.cluster_size) <= found.clusters - int(free * found.clusters):
            return found
    if not candidates:
        low, high = BOUNDS[kinds[0]]
        raise UsageError(f"fat: {size} bytes cannot be FAT{kinds[0]}, which takes {low} to {high} clusters")
    best = max(candidates, key=lambda each: each.clusters)
    taken = need.clusters(best.bits, best.cluster_size) * best.cluster_size
    needed = best.data_start + int(taken / (1 - free))
    raise NoSpace(f"fat: the content needs about {needed} bytes, found a size of {size}")


def _candidates(bits: int, need: Need, total: int, sector_size: int, cluster_size: int | None) -> list[Geometry]:
    """Return the volumes of so many sectors that are of the type, the one with the usual cluster size first.

    Where that is not possible larger clusters are better (there were too many), then smaller (too few); content
    that does not fit may fit in the smallest.
    """
    low, high = BOUNDS[bits]
    usual = {12: sector_size, 16: max(2048, sector_size), 32: _usual_32(total * sector_size, sector_size)}[bits]
    found = [
        _with_sectors(bits, need, total, sector_size, each) for each in _cluster_sizes(sector_size, cluster_size)
    ]
    legal = [each for each in found if low <= each.clusters <= high]
    legal.sort(key=lambda each: (each.cluster_size < usual, abs(each.cluster_size - usual)))
    return [*legal[:1], *sorted(legal[1:], key=lambda each: each.cluster_size)]


def _floppy(need: Need, floppy: Floppy, free: float) -> Geometry:
    """Return the numbers of a floppy. Raises UsageError, NoSpace where it cannot hold what is needed."""
    entries = need.root_bytes // layout.ENTRY_SIZE
    if entries > floppy.root_entries:
        raise UsageError(
            f"fat: the root directory of a floppy of {floppy.name} holds {floppy.root_entries} entries, and {entries}"
            " are needed"
        )
    before = 1 + FATS * floppy.fat_sectors + floppy.root_entries * layout.ENTRY_SIZE // 512
    clusters = (floppy.sectors - before) // floppy.sectors_per_cluster
    needed = need.clusters(12, floppy.sectors_per_cluster * 512)
    if needed > clusters - int(free * clusters):
        raise NoSpace(
            f"fat: the content needs {needed} clusters, and a floppy of {floppy.name} has {clusters} of"
            f" {floppy.sectors_per_cluster * 512} bytes"
        )
    return Geometry(
        bits=12,
        sector_size=512,
        sectors_per_cluster=floppy.sectors_per_cluster,
        reserved_sectors=1,
        fats=FATS,
        fat_sectors=floppy.fat_sectors,
        root_entries=floppy.root_entries,
        total_sectors=floppy.sectors,
        clusters=clusters,
        media=floppy.media,
        sectors_per_track=floppy.sectors_per_track,
        heads=floppy.heads,
    )
