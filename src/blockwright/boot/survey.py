"""What an image holds that can be made to start: its partitions with file systems, and which of them is for what.

Knows: how the boot partition, the root and a loader's home are told. Refuses to know: loaders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.device.window import Window
from blockwright.errors import NotFound, UsageError
from blockwright.resolve import Known, identify, table_of
from blockwright.table.gpt.names import ATTRIBUTES, TYPES
from blockwright.table.partition import AnyPartition, AnyTable, MbrPartition, Partition

_ESP_MBR: Final = 0xEF
_LEGACY_BOOT: Final = 1 << ATTRIBUTES["legacy-boot"]
_FILE_SYSTEMS: Final = (Known.EXT4, Known.FAT)


@dataclass(frozen=True, slots=True)
class Volume:
    """A partition with a file system, or a whole image that is one; then its number is 0."""

    number: int
    start: int
    size: int
    fat: bool
    partition: AnyPartition | None

    @property
    def is_esp(self) -> bool:
        """Whether firmware looks for programs there."""
        partition = self.partition
        if isinstance(partition, MbrPartition):
            return partition.os_type == _ESP_MBR
        return self.fat and partition is not None and partition.type_guid == TYPES["esp"]

    @property
    def is_marked(self) -> bool:
        """Whether it is the partition that a BIOS starts."""
        if isinstance(self.partition, MbrPartition):
            return self.partition.active
        return self.partition is not None and bool(self.partition.attributes & _LEGACY_BOOT)

    def open(self, device: BlockDevice) -> BlockDevice:
        """Return the volume as a device of its own, which leaves ``device`` open when it is closed."""
        return Window(device, self.start, self.size, owns=False)


@dataclass(frozen=True, slots=True)
class Survey:
    """An image: its table, None for a bare file system, and its volumes in the order of their numbers."""

    name: str
    table: AnyTable | None
    volumes: tuple[Volume, ...]

    def numbered(self, number: int) -> Volume:
        """Return the volume of that number. Raises NotFound."""
        for volume in self.volumes:
            if volume.number == number:
                return volume
        raise NotFound(f"{self.name}: expected a file system in partition {number}; {self._listing()}")

    def esp(self) -> Volume:
        """Return the EFI system partition. Raises NotFound, and UsageError where there are several."""
        found = [volume for volume in self.volumes if volume.is_esp]
        if not found:
            raise NotFound(f"{self.name}: expected an EFI system partition with FAT on it; {self._listing()}")
        return self._only(found, "EFI system partition")

    def root(self, number: int | None) -> Volume | None:
        """Return the root, told by its number or by being the only one with ext; None where there is none."""
        if number is not None:
            return self.numbered(number)
        found = [volume for volume in self.volumes if not volume.fat]
        return self._only(found, "root: name one by --root N") if found else None

    def home(self, number: int | None, root: Volume | None, *, marked: bool) -> Volume:
        """Return where a BIOS's loader is to live: by number, else the root, else the only volume there is.

        ``marked`` says that the one a BIOS starts is meant where there is one already. Raises NotFound, UsageError.
        """
        if number is not None:
            return self.numbered(number)
        found = [volume for volume in self.volumes if volume.is_marked and marked]
        if len(found) == 1:
            return found[0]
        if root is not None:
            return root
        if not self.volumes:
            raise NotFound(f"{self.name}: expected a file system for the loader; {self._listing()}")
        return self._only(list(self.volumes), f"partition for the loader: name one as {self.name}:N")

    def core_room(self) -> tuple[int, int]:
        """Return where GRUB's core image can be: the byte it starts at, and how many bytes there are.

        Raises NotFound where a GPT has no partition for it, UsageError for a bare file system.
        """
        table = self.table
        if table is None:
            raise UsageError(
                f"{self.name}: expected a partition table, before whose partitions GRUB can be, found none"
            )
        if table.kind == "gpt":
            for each in table.partitions:
                if isinstance(each, Partition) and each.type_guid == TYPES["bios-boot"]:
                    return each.start, each.size
            raise NotFound(
                f"{self.name}: expected a partition of type bios-boot for GRUB on a GPT, found none: add one of 1 MiB"
            )
        starts = [each.start for each in (*table.partitions, *getattr(table, "extended", ()))]
        return table.sector_size, min(starts, default=table.size) - table.sector_size

    def _only(self, found: list[Volume], what: str) -> Volume:
        if len(found) > 1:
            numbers = ", ".join(str(volume.number) for volume in found)
            raise UsageError(f"{self.name}: expected one {what}; found {numbers}")
        return found[0]

    def _listing(self) -> str:
        if not self.volumes:
            return "it has no file systems that are known"
        kinds = ", ".join(f"{each.number} ({'fat' if each.fat else 'ext4'})" for each in self.volumes)
        return f"it has file systems in {kinds}"


def survey(device: BlockDevice, name: str) -> Survey:
    """Return what an image holds. Raises FormatError for a table that does not hold."""
    known = identify(device)
    if known in _FILE_SYSTEMS:
        return Survey(name, None, (Volume(0, 0, device.size, known is Known.FAT, None),))
    table = table_of(device, name)
    volumes = []
    for each in table.partitions:
        with Window(device, each.start, each.size, owns=False) as part:
            inside = identify(part)
        if inside in _FILE_SYSTEMS:
            volumes.append(Volume(each.number, each.start, each.size, inside is Known.FAT, each))
    return Survey(name, table, tuple(volumes))
