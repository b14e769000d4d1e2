"""A partition table as a value, whatever kind stores it.

Knows: positions, identities, names. Refuses to know: how a table is laid out on disk, and what partitions hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import UUID

from blockwright.errors import NotFound

FIRST_LOGICAL: Final = 5
"""The number of the first partition in a master boot record's extended one."""


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
    """A run of a master boot record's disk. ``start`` and ``size`` in bytes, ``number`` from 1; from 5, logical.

    ``record`` is the byte of the record that tells of it: 0 where that is the master boot record itself.
    """

    number: int
    start: int
    size: int
    os_type: int
    active: bool
    disk_signature: int
    record: int = 0

    @property
    def end(self) -> int:
        """The first byte behind the partition."""
        return self.start + self.size

    @property
    def identity(self) -> str:
        """What Linux has as PARTUUID."""
        return f"{self.disk_signature:08x}-{self.number:02x}"

    @property
    def is_logical(self) -> bool:
        """Whether it lies in the extended partition."""
        return self.number >= FIRST_LOGICAL


@dataclass(frozen=True, slots=True)
class Extended:
    """The primary entry that holds the logical partitions. ``start`` and ``size`` in bytes."""

    number: int
    start: int
    size: int
    os_type: int = 0x0F

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.size


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


@dataclass(frozen=True, slots=True)
class MbrTable:
    """Partitions in ascending numbers, and the disk they lie on, as a master boot record has them.

    ``size`` is the disk's, in bytes; ``extended`` hold the logical partitions, and are not among the partitions.
    """

    disk_signature: int
    sector_size: int
    size: int
    partitions: tuple[MbrPartition, ...] = ()
    extended: tuple[Extended, ...] = ()
    kind: str = "mbr"

    @property
    def identity(self) -> str:
        """What Linux has as PTUUID."""
        return f"{self.disk_signature:08x}"

    @property
    def primary(self) -> tuple[MbrPartition | Extended, ...]:
        """What the master boot record itself tells of, the extended partition among it."""
        inner = [each for each in self.partitions if not each.is_logical]
        return tuple(sorted((*inner, *self.extended), key=lambda each: each.number))

    @property
    def logical(self) -> tuple[MbrPartition, ...]:
        """What the chain of records tells of, in its order."""
        return tuple(each for each in self.partitions if each.is_logical)

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
