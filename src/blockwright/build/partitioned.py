"""A partitioned disk: a GPT, an EFI system partition where something is to boot, the root, and its hashes.

Knows: which partitions there are, their order, types, identities and sizes. Refuses to know: what makes a disk boot
(``esp``), and what a hash area is (``verity``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from blockwright.boot.machine import programs_machine
from blockwright.boot.uefi import with_root, with_verity_root
from blockwright.build.definition import Boot, Definition
from blockwright.build.plan import DiskPlan, Part, ext4_options
from blockwright.build.verity import UNKNOWN, partition_guids, plan_verity
from blockwright.codec.identity import derive_uuid
from blockwright.errors import NotFound
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.fs.ext4.plan import plan as plan_ext4
from blockwright.table.gpt import plan as gpt
from blockwright.table.gpt.names import TYPES, parse_attributes
from blockwright.tree.node import Directory
from blockwright.units import MiB, align_down, align_up

if TYPE_CHECKING:  # a disk without an EFI partition needs no FAT
    from blockwright.build.esp import Machine
    from blockwright.build.plan import AnyPlan
    from blockwright.fs.fat.plan import FatPlan

_ROOT_TYPES = {
    "X64": "root-x86-64",
    "IA32": "root-x86",
    "AA64": "root-arm64",
    "ARM": "root-arm",
    "RISCV64": "root-riscv64",
    "LOONGARCH64": "root-loongarch64",
}
"""Types of the Discoverable Partitions Specification by UEFI's suffix; their hashes' have ``-verity`` behind."""

_READ_ONLY = parse_attributes(["read-only"])


def plan_partitioned(
    tree: Directory, definition: Definition, seed: bytes, time_ns: int, root_plan: Ext4Plan | None
) -> DiskPlan:
    """Return the disk; ``root_plan`` is the root file system where a stream has placed it already.

    The root comes last but for its hashes, so that it can take what remains and grow later. Raises as ``plan_disk``
    does.
    """
    draft = _Draft.of(tree, definition, seed, time_ns, streamed=root_plan is not None)
    esp = draft.esp()
    if root_plan is None:
        size = definition.root_size
        if definition.root_takes_rest:
            _, size = _root_place(definition, None if esp is None else esp.size)
        elif size is not None:
            size = align_up(size, definition.root.block_size)
        root_plan = plan_ext4(tree, ext4_options(definition.root, seed, time_ns, size))
    return draft.disk(root_plan, esp)


def streamed_root(definition: Definition) -> tuple[int, int | None]:
    """Return where the root of a streamed build begins and its size, None for automatic; both in bytes.

    It lies behind an EFI system partition whose size is fixed beforehand. Raises NoSpace.
    """
    if definition.boot.boot is Boot.NONE:
        return _root_place(definition, None)
    from blockwright.build.esp import streamed_size

    return _root_place(definition, streamed_size(definition))


def _root_place(definition: Definition, esp_size: int | None) -> tuple[int, int | None]:
    """Return where the root begins and its size, None for automatic, behind an EFI system partition of that size."""
    given = definition.root_size
    requests = [gpt.Request(TYPES["linux-generic"], given or MiB, remaining=definition.root_takes_rest)]
    if esp_size is not None:
        requests.insert(0, gpt.Request(TYPES["esp"], esp_size))
    if definition.verity:
        requests.append(gpt.Request(TYPES["linux-generic"], _hashes_size(definition, given or MiB)))
    table = gpt.plan(requests, seed=b"", size=definition.disk_size, sector_size=definition.sector_size)
    root = table.partitions[0 if esp_size is None else 1]
    if definition.root_takes_rest:
        given = root.size
    return root.start, None if given is None else align_down(given, definition.root.block_size)


def _hashes_size(definition: Definition, root_size: int) -> int:
    """Return the size of the hash partition; for a root that takes the rest, what a root as large as the disk has."""
    if definition.root_takes_rest and definition.disk_size is not None:
        root_size = definition.disk_size
    return plan_verity(root_size, b"", None).size


@dataclass(frozen=True, slots=True)
class _Draft:
    """What a disk is planned from, but for the root file system and its hash."""

    tree: Directory
    definition: Definition
    seed: bytes
    time_ns: int
    machine: Machine | None
    root_type: str
    streamed: bool

    @classmethod
    def of(cls, tree: Directory, definition: Definition, seed: bytes, time_ns: int, *, streamed: bool) -> _Draft:
        """Find what starts the disk, and what kind of root that means."""
        machine = None
        if definition.boot.boot is not Boot.NONE:
            from blockwright.build.esp import find_machine

            machine = find_machine(tree, definition)
        return cls(tree, definition, seed, time_ns, machine, _root_type(tree, definition, machine), streamed)

    def esp(self, root_hash: bytes = UNKNOWN) -> FatPlan | None:
        """Return the EFI system partition, of the same size with any root hash; None where nothing is to boot."""
        if self.machine is None:
            return None
        from blockwright.build.esp import plan_esp

        cmdline = self.definition.boot.cmdline
        if self.definition.verity:
            cmdline = with_verity_root(cmdline, root_hash.hex())
        else:
            cmdline = with_root(cmdline, str(self._guids(root_hash)[0]))
        return plan_esp(
            self.tree, self.machine, self.definition, cmdline, self.seed, self.time_ns, streamed=self.streamed
        )

    def disk(self, root: Ext4Plan, esp: FatPlan | None, root_hash: bytes | None = None) -> DiskPlan:
        """Return the disk; with verity one that is sealed with its root hash, or still to be."""
        definition = self.definition
        attributes = _READ_ONLY if definition.verity else 0
        root_guid, hashes_guid = self._guids(UNKNOWN if root_hash is None else root_hash)
        kind, name = TYPES[self.root_type], definition.root.label or "root"
        rest = definition.root_takes_rest
        wanted: list[tuple[str, AnyPlan, gpt.Request]] = [
            ("root", root, gpt.Request(kind, root.size, name, rest, guid=root_guid, attributes=attributes))
        ]
        if esp is not None:
            guid = derive_uuid(self.seed, "partition.esp")
            wanted.insert(0, ("esp", esp, gpt.Request(TYPES["esp"], esp.size, "esp", guid=guid)))
        if definition.verity:
            kind, size = TYPES[f"{self.root_type}-verity"], _hashes_size(definition, root.size)
            request = gpt.Request(kind, size, f"{name}-verity", guid=hashes_guid, attributes=attributes)
            wanted.append(("verity", plan_verity(root.size, self.seed, root_hash), request))
        sector = definition.sector_size
        requests = [request for _, _, request in wanted]
        table = gpt.plan(requests, seed=self.seed, size=definition.disk_size, sector_size=sector)
        parts = []
        for (role, plan, _), run in zip(wanted, table.partitions, strict=True):
            assert plan.size <= run.size, f"{role}: {plan.size} bytes in a partition of {run.size}"
            if esp is not None and plan is esp:  # FAT writes down where it is
                plan = esp.moved(run.start // sector)  # noqa: PLW2901 - the same volume
            parts.append(Part(role, run.start, plan, run))
        seal = partial(self._sealed, root) if definition.verity and root_hash is None else None
        return DiskPlan(table.size, table, tuple(parts), gpt.segments(table), seal)

    def _sealed(self, root: Ext4Plan, root_hash: bytes) -> DiskPlan:
        return self.disk(root, self.esp(root_hash), root_hash)

    def _guids(self, root_hash: bytes) -> tuple[UUID, UUID]:
        """Return the identities of the root partition and of its hashes'."""
        if self.definition.verity:
            return partition_guids(root_hash)
        return derive_uuid(self.seed, "partition.root"), derive_uuid(self.seed, "partition.verity")


def _root_type(tree: Directory, definition: Definition, machine: Machine | None) -> str:
    """Return the type of the root partition: that of the machine it is for, where that is known or must be."""
    suffix = None if machine is None else machine.suffix
    if definition.verity and suffix is None:
        suffix = programs_machine(tree)
        if suffix is None:
            raise NotFound(
                "build: the tree holds no program that tells its machine, which a verity partition's type names"
            )
    found = _ROOT_TYPES.get(suffix or "", "linux-generic")
    if definition.verity and f"{found}-verity" not in TYPES:
        raise NotFound(f"build: there is no type of partition for the hashes of a root for {suffix}")
    return found
