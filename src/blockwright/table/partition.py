"""A partition table as a value, whatever kind stores it.

Knows: positions, identities, names. Refuses to know: how a table is laid out on disk, and what partitions hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from blockwright.errors import NotFound


@dataclass(frozen=True, slots=True)
class Partition:
    """A run of a disk with a type and an identity. ``start`` and ``size`` in bytes, ``number`` from 1.

    ``name`` may hold lone surrogates where the disk does: every name that can be read can be written back.
    """

    number: int
    type_guid: UUID
    guid: UUID
    start: int
    size: int
    name: str = ""
    attributes: int = 0

    @property
    def end(self) -> int:
        """The first byte behind the partition."""
        return self.start + self.size

    @property
    def identity(self) -> str:
        """What Linux has as PARTUUID."""
        return str(self.guid)


@dataclass(frozen=True, slots=True)
class MbrPartition:
    """A run of a master boot record's disk. ``start`` and ``size`` in bytes, ``number`` from 1; from 5, logical."""

    number: int
    start: int
    size: int
    os_type: int
    active: bool
    disk_signature: int

    @property
    def end(self) -> int:
        """The first byte behind the partition."""
        return self.start + self.size

    @property
    def identity(self) -> str:
        """What Linux has as PARTUUID."""
        return f"{self.disk_signature:08x}-{self.number:02x}"


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """Partitions in ascending numbers, and the disk they lie on.

    ``size`` is the disk's, in bytes. Partitions may lie in [``usable_start``, ``usable_end``). The table has room
    for ``entry_count`` partitions and stores each in ``entry_size`` bytes, from byte ``entries_start`` on.
    """

    kind: str
    disk_guid: UUID
    sector_size: int
    size: int
    usable_start: int
    usable_end: int
    entries_start: int
    partitions: tuple[Partition, ...] = ()
    entry_count: int = 128
    entry_size: int = 128

    @property
    def identity(self) -> str:
        """What Linux has as PTUUID."""
        return str(self.disk_guid)

    def partition(self, number: int) -> Partition:
        """Return the partition of that number. Raises NotFound naming those that exist."""
        return _of_number(self.partitions, number)

    def gaps(self) -> list[tuple[int, int]]:
        """Return the (start, size) of every usable run in bytes that no partition takes, ascending."""
        found, position = [], self.usable_start
        for partition in sorted(self.partitions, key=lambda each: each.start):
            if partition.start > position:
                found.append((position, partition.start - position))
            position = max(position, partition.end)
        if self.usable_end > position:
            found.append((position, self.usable_end - position))
        return found


@dataclass(frozen=True, slots=True)
class MbrTable:
    """Partitions in ascending numbers, and the disk they lie on, as a master boot record has them.

    ``size`` is the disk's, in bytes; ``extended`` are the (start, size) of runs that hold the logical partitions.
    """

    disk_signature: int
    sector_size: int
    size: int
    partitions: tuple[MbrPartition, ...] = ()
    extended: tuple[tuple[int, int], ...] = ()
    kind: str = "mbr"

    @property
    def identity(self) -> str:
        """What Linux has as PTUUID."""
        return f"{self.disk_signature:08x}"

    def partition(self, number: int) -> MbrPartition:
        """Return the partition of that number. Raises NotFound naming those that exist."""
        return _of_number(self.partitions, number)


AnyPartition = Partition | MbrPartition
AnyTable = PartitionTable | MbrTable

_Kind = TypeVar("_Kind", Partition, MbrPartition)


def _of_number(partitions: tuple[_Kind, ...], number: int) -> _Kind:
    for partition in partitions:
        if partition.number == number:
            return partition
    present = ", ".join(str(each.number) for each in partitions) or "none"
    raise NotFound(f"partition {number}: is not in the table; those that are: {present}")
