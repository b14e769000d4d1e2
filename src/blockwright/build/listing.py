"""Every partition that a disk gets, in order: those that are listed, and those that what it is asked for needs.

The partition that firmware starts programs from, the one for GRUB's core image and the one for the root's hashes are
what is listed as such; where none is, the first two come in front and the last one behind the root. One for
cloud-init comes behind those in front.

Knows: which partition is what to the build. Refuses to know: sizes, and what any of them holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from blockwright.boot.kinds import Bios
from blockwright.build.definition import Definition, Table
from blockwright.build.partition import BOOT_TYPES, PartitionDefinition
from blockwright.errors import UsageError

ROOT: Final = "root"
BOOT: Final = "esp"
CORE: Final = "core"
HASHES: Final = "verity"
SEED: Final = "cidata"
ROLES: Final = (ROOT, BOOT, CORE, HASHES, SEED)
"""The parts that a build knows; any other has a role of its own."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A partition and its role. ``index`` is its place in the list, from 1, and 0 where it is not listed."""

    role: str
    part: PartitionDefinition
    index: int


def listing(definition: Definition, *, volume: bool = False) -> list[Entry]:
    """Return every partition in order, each with its role; ``volume`` is for cloud-init. Raises UsageError."""
    parts = definition.listed
    names: dict[int, str] = {}
    for index, part in enumerate(parts):
        if part.is_root:
            names[index] = ROOT
    if definition.has_boot_partition:
        _first(names, BOOT, parts, lambda part: part.type in BOOT_TYPES and part.image is None)
    if _needs_core(definition):
        _first(names, CORE, parts, lambda part: part.type == "bios-boot" and part.image is None)
    if definition.verity:
        _first(names, HASHES, parts, lambda part: part.hashes)
    taken = set(ROLES)
    entries = []
    for index, part in enumerate(parts):
        role = names.get(index) or _own_role(part, index + 1, taken)
        taken.add(role)
        entries.append(Entry(role, part, index + 1 if definition.partitions else 0))
    _check(definition, entries)
    return _completed(definition, entries, volume=volume)


def _first(
    names: dict[int, str],
    role: str,
    parts: Sequence[PartitionDefinition],
    suits: Callable[[PartitionDefinition], bool],
) -> None:
    for index, part in enumerate(parts):
        if index not in names and suits(part):
            names[index] = role
            return


def _own_role(part: PartitionDefinition, number: int, taken: set[str]) -> str:
    role = part.mount or part.name or part.label or part.type or part.kind
    return role if role not in taken else f"{role} ({number})"


def _needs_core(definition: Definition) -> bool:
    return definition.boot.ways.bios is Bios.GRUB and definition.table is Table.GPT


def _check(definition: Definition, entries: list[Entry]) -> None:
    roles = {entry.role: entry for entry in entries}
    for entry in entries:
        if entry.part.hashes and entry.role != HASHES:
            raise UsageError(f"{entry.part.what}: expected verity, and one partition for its hashes")
        part = entry.part
        empty = part.image is None and part.size is None and not part.rest and not part.minimum
        if entry.part.type == "bios-boot" and entry.role != CORE and empty:
            raise UsageError(f"{entry.part.what}: expected boot by grub on a GPT, an image, or a size")
    if BOOT in roles and definition.boot.esp_size is not None:
        raise UsageError("build: expected the boot partition's size in its entry, since it is listed")
    if HASHES in roles and entries.index(roles[HASHES]) < entries.index(roles[ROOT]):
        raise UsageError("build: expected the root's hashes behind the root, found them before it")


def _completed(definition: Definition, entries: list[Entry], *, volume: bool) -> list[Entry]:
    """Return the entries with those that nobody listed."""
    roles = {entry.role for entry in entries}
    front = []
    if _needs_core(definition) and CORE not in roles:
        front.append(Entry(CORE, PartitionDefinition(type="bios-boot", name="bios"), 0))
    if definition.has_boot_partition and BOOT not in roles:
        name = "esp" if definition.boot.ways.uefi is not None else "xbootldr"
        front.append(Entry(BOOT, PartitionDefinition(type=name, name=name, size=definition.boot.esp_size), 0))
    if volume:
        part = PartitionDefinition(type="microsoft-basic-data", file_system="fat", name=SEED)
        front.append(Entry(SEED, part, 0))
    result = front + entries
    if definition.verity and HASHES not in roles:
        at = next(index for index, entry in enumerate(result) if entry.role == ROOT)
        result.insert(at + 1, Entry(HASHES, PartitionDefinition(hashes=True), 0))
    return result
