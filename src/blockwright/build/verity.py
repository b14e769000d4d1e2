"""The hash partition of a disk: its size, its superblock, and what follows from the root hash.

Knows: one root file system under dm-verity, and how systemd finds it. Refuses to know: how its hashes are computed
(``seal``), and the rest of the disk.

Source: UAPI.2 Discoverable Partitions Specification, "Partition Types", for types and UUIDs;
systemd-veritysetup-generator(8) for the kernel command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from blockwright.device.planned import SegmentTable
from blockwright.units import ceil_div
from blockwright.verity.layout import Parameters, identity
from blockwright.verity.plan import area_end, tree_start

BLOCK = 4096
"""Bytes of data and of hash blocks: what every Linux can open."""

UNKNOWN = bytes(31) + b"\1"
"""What stands for a root hash while it is not known: as long, and of two halves that differ."""


class Summary(NamedTuple):
    """What people ask of a hash area; ``root_hash`` is None before the data was written."""

    root_hash: str | None
    algorithm: str
    salt: str
    uuid: str
    data_blocks: int
    block_size: int
    tree_start: int


@dataclass(frozen=True, slots=True)
class VerityPlan:
    """The hash area of a root file system. Its tree is not a segment: it is written as the data is."""

    parameters: Parameters
    uuid: UUID
    root_hash: bytes | None

    @property
    def kind(self) -> str:
        """``verity``."""
        return "verity"

    @property
    def size(self) -> int:
        """Bytes in the area."""
        return area_end(self.parameters, 0, superblock=True)

    @property
    def tree_start(self) -> int:
        """The byte of the area at which the tree begins."""
        return tree_start(self.parameters, 0, superblock=True)

    @property
    def summary(self) -> Summary:
        """The numbers that people ask of it."""
        given = self.parameters
        return Summary(
            root_hash=None if self.root_hash is None else self.root_hash.hex(),
            algorithm=given.algorithm,
            salt=given.salt.hex(),
            uuid=str(self.uuid),
            data_blocks=given.data_blocks,
            block_size=given.data_block,
            tree_start=self.tree_start,
        )

    def segments(self) -> SegmentTable:
        """Return the superblock."""
        table = SegmentTable()
        table.add_bytes(0, self.parameters.superblock(self.uuid))
        return table


def plan_verity(size: int, seed: bytes, root_hash: bytes | None) -> VerityPlan:
    """Return the hash area for a file system of ``size`` bytes, whose last block is filled up with zeros."""
    salt, uuid = identity(seed)
    return VerityPlan(Parameters(ceil_div(size, BLOCK), salt=salt), uuid, root_hash)


def partition_guids(root_hash: bytes) -> tuple[UUID, UUID]:
    """Return the identities of the root partition and its hash partition: the root hash's first and last 128 bits."""
    return UUID(bytes=root_hash[:16]), UUID(bytes=root_hash[-16:])
