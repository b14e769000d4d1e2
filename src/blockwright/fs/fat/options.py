"""What can be asked of a new FAT file system.

Knows: the choices, their defaults and limits. Refuses to know: how any of them is laid out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from blockwright.codec.identity import derive_u32
from blockwright.errors import UsageError
from blockwright.units import MAX_SIZE

SECTOR_SIZES: Final = (512, 1024, 2048, 4096)
MAX_CLUSTER: Final = 32768
"""Bytes in a cluster at the most; some implementations fail beyond (fatgen103, "BPB_SecPerClus")."""
MAX_FREE: Final = 0.95
_LABEL_FORBIDDEN: Final = frozenset('"*+,./:;<=>?[\\]|')


@dataclass(frozen=True, slots=True)
class FatOptions:
    """What is asked of a new file system. Sizes in bytes.

    ``size``: None for the smallest that holds the tree. ``free``: the fraction of the finished file system's
    clusters that stays free, 0 to 0.95. ``bits``: 12, 16 or 32, None for FAT32 wherever the size has room for its
    least number of clusters, as firmware prefers, then FAT16, then FAT12; just the size of a floppy is FAT12 with a
    floppy's numbers. ``cluster_size``: None for what mkfs.fat takes
    at that size. ``hidden_sectors``: the partition's first LBA, which boot code needs. ``label``: up to 11 ASCII
    characters, kept in upper case. ``volume_id``: None for the seed's. ``time_ns``: the label's time, None for the
    root directory's. ``drop_unsupported``: leave out what FAT cannot hold (links, devices) instead of refusing.
    ``boot_sector``: 512 bytes whose jump, name and code the volume's gets.
    """

    seed: bytes = b""
    size: int | None = None
    free: float = 0.0
    label: str = ""
    bits: int | None = None
    sector_size: int = 512
    cluster_size: int | None = None
    hidden_sectors: int = 0
    volume_id: int | None = None
    time_ns: int | None = None
    drop_unsupported: bool = False
    boot_sector: bytes = b""

    def __post_init__(self) -> None:
        if self.sector_size not in SECTOR_SIZES:
            raise UsageError(f"fat sector size: expected one of {SECTOR_SIZES}, found {self.sector_size}")
        if self.size is not None and not 0 < self.size <= MAX_SIZE:
            raise UsageError(f"fat size: expected a positive number of bytes, found {self.size}")
        if not 0 <= self.free <= MAX_FREE:
            raise UsageError(f"fat free fraction: expected 0 to {MAX_FREE}, found {self.free}")
        if self.bits not in (None, 12, 16, 32):
            raise UsageError(f"fat type: expected 12, 16 or 32 bits, found {self.bits}")
        cluster = self.cluster_size
        if cluster is not None and (
            cluster.bit_count() != 1 or not self.sector_size <= cluster <= max(MAX_CLUSTER, self.sector_size)
        ):
            raise UsageError(
                f"fat cluster size: expected a power of two from {self.sector_size} to {MAX_CLUSTER}, found {cluster}"
            )
        if not 0 <= self.hidden_sectors < 1 << 32:
            raise UsageError(f"fat hidden sectors: expected 32 bits, found {self.hidden_sectors}")
        if self.volume_id is not None and not 0 <= self.volume_id < 1 << 32:
            raise UsageError(f"fat volume id: expected 32 bits, found {self.volume_id}")
        if len(self.boot_sector) not in (0, 512):
            raise UsageError(f"fat boot sector: expected 512 bytes, found {len(self.boot_sector)}")
        label = self.label
        if len(label) > 11 or any(not " " <= each <= "~" or each in _LABEL_FORBIDDEN for each in label):
            raise UsageError(f"fat label: expected at most 11 ASCII characters without punctuation, found {label!r}")
        if label != label.strip(" "):
            raise UsageError(f"fat label: expected no spaces around it, found {label!r}")

    @property
    def label_bytes(self) -> bytes:
        """The label as stored, padded with spaces; empty where there is none."""
        return self.label.upper().encode("ascii").ljust(11) if self.label else b""

    @property
    def effective_volume_id(self) -> int:
        """The volume id given, or the seed's."""
        return derive_u32(self.seed, "fat volume id") if self.volume_id is None else self.volume_id
