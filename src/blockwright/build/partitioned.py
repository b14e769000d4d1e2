"""A partitioned disk: its table, what starts it, the root, and the root's hashes.

In this order: GRUB's core image for a BIOS on a GPT, the boot partition, the root, its hashes. The root comes last
but for its hashes, so that it can take what remains and grow later.

Knows: which partitions there are, their order, types, identities and sizes. Refuses to know: what makes a disk boot
(``esp``, ``bios``), what a hash area is (``verity``), and kinds of tables (``parts``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from blockwright.boot.cmdline import with_root, with_serial, with_verity_root
from blockwright.boot.machine import programs_machine
from blockwright.build.definition import Definition, Home, Table
from blockwright.build.parts import Wish, plan_table, table_segments
from blockwright.build.plan import DiskPlan, Part, ext4_options
from blockwright.build.verity import UNKNOWN, partition_guids, plan_verity
from blockwright.codec.identity import derive_u32, derive_uuid
from blockwright.device.planned import SegmentTable
from blockwright.errors import NotFound
from blockwright.fs.ext4.options import DEFAULT_FEATURES
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.fs.ext4.plan import plan as plan_ext4
from blockwright.table.gpt.names import TYPES
from blockwright.tree.node import Directory
from blockwright.units import MiB, align_down, align_up

if TYPE_CHECKING:  # a disk that starts nothing needs no FAT and no loaders
    from blockwright.build.bios import Code, PlannedLoader
    from blockwright.build.machine import Machine
    from blockwright.build.plan import AnyPlan
    from blockwright.fs.fat.plan import FatPlan
    from blockwright.table.partition import AnyPartition, AnyTable

_ROOT_TYPES = {
    "X64": "root-x86-64",
    "IA32": "root-x86",
    "AA64": "root-arm64",
    "ARM": "root-arm",
    "RISCV64": "root-riscv64",
    "LOONGARCH64": "root-loongarch64",
}
"""Types of the Discoverable Partitions Specification by UEFI's suffix; their hashes' have ``-verity`` behind."""


def draft(tree: Directory, definition: Definition, seed: bytes, time_ns: int, *, streamed: bool = False) -> Draft:
    """Return the disk as far as it is known before the root has its places. Raises as ``plan_disk`` does.

    ``streamed`` says that the root lies in the output already, where ``streamed_root`` said.
    """
    machine, loader = None, None
    ways = definition.boot.ways
    if ways:
        from blockwright.build.machine import find_machine

        machine = find_machine(tree, definition)
    if ways.bios is not None and machine is not None:
        from blockwright.boot import bios
        from blockwright.build.bios import PlannedLoader

        modules = definition.boot.grub_modules
        starter = bios.find_starter(ways.bios, machine.shelves, definition.table.value, modules=modules)
        loader = PlannedLoader(starter, bios.ROOT if definition.bios_home is Home.ROOT else bios.BOOT)
        if not loader.home.fat:
            bios.check_features(starter, DEFAULT_FEATURES.names)
    root_type = _root_type(tree, definition, machine)
    return Draft(tree, definition, seed, time_ns, machine, loader, root_type, streamed)


def streamed_root(definition: Definition) -> tuple[int, int | None]:
    """Return where the root of a streamed build begins and its size, None for automatic; both in bytes.

    It lies behind a boot partition whose size is fixed beforehand. Raises NoSpace.
    """
    if not definition.has_boot_partition:
        return _root_place(definition, None)
    from blockwright.build.esp import streamed_size

    return _root_place(definition, streamed_size(definition))


def _core_size(definition: Definition) -> int:
    """Return the size of the partition for GRUB's core image, 0 where there is none."""
    from blockwright.boot.kinds import Bios

    if definition.boot.ways.bios is not Bios.GRUB or definition.table is not Table.GPT:
        return 0
    from blockwright.build.bios import CORE_SIZE

    return CORE_SIZE


def _root_place(definition: Definition, boot_size: int | None) -> tuple[int, int | None]:
    """Return where the root begins and its size, None for automatic, behind a boot partition of that size."""
    given = definition.root_size
    wishes = _front(definition, boot_size)
    wishes.append(Wish("root", "linux-generic", given or MiB, rest=definition.root_takes_rest))
    if definition.verity:
        wishes.append(Wish("verity", "linux-generic", _hashes_size(definition, given or MiB)))
    table = plan_table(wishes, definition, b"")
    root = table.partitions[[wish.role for wish in wishes].index("root")]
    if definition.root_takes_rest:
        given = root.size
    return root.start, None if given is None else align_down(given, definition.root.block_size)


def _front(definition: Definition, boot_size: int | None, seed: bytes = b"", *, marked: bool = False) -> list[Wish]:
    """Return what comes before the root, the boot partition being of that size; None for none."""
    wishes = []
    core = _core_size(definition)
    if core:
        wishes.append(Wish("core", "bios-boot", core, "bios", guid=derive_uuid(seed, "partition.bios")))
    if boot_size is not None:
        name = "esp" if definition.boot.ways.uefi is not None else "xbootldr"
        guid = derive_uuid(seed, "partition.esp")
        wishes.append(Wish("esp", name, boot_size, name, guid=guid, marked=marked))
    return wishes


def _hashes_size(definition: Definition, root_size: int) -> int:
    """Return the size of the hash partition; for a root that takes the rest, what a root as large as the disk has."""
    if definition.root_takes_rest and definition.disk_size is not None:
        root_size = definition.disk_size
    return plan_verity(root_size, b"", None).size


@dataclass(frozen=True, slots=True)
class Draft:
    """What a disk is planned from, but for the root file system and its hash."""

    tree: Directory
    definition: Definition
    seed: bytes
    time_ns: int
    machine: Machine | None
    loader: PlannedLoader | None
    root_type: str
    streamed: bool

    def root_tree(self, tree: Directory) -> Directory:
        """Return ``tree`` with the loader's files where the root is their home, else as it is."""
        if self.loader is None or self.machine is None or self.loader.home.fat:
            return tree
        from blockwright.boot.bios import kernel_in
        from blockwright.boot.kernel import os_release, os_title
        from blockwright.build.bios import fill_holes
        from blockwright.tree.overlay import with_files

        title, serial = os_title(os_release(self.tree)), self.definition.boot.serial
        options = self._cmdline(UNKNOWN)
        kernel = self.machine.kernel
        if not self.loader.starter.reads_holes:
            fill_holes(tree, kernel)
        files, entry = kernel_in(self.loader.home, kernel, title=title, options=options, serial=serial)
        return with_files(tree, files | self.loader.files(entry), mtime_ns=self.time_ns)

    def finish(self, root_plan: Ext4Plan | None = None) -> DiskPlan:
        """Return the disk; ``root_plan`` is the root file system where a stream has placed it already."""
        esp = self._esp()
        if root_plan is None:
            definition, size = self.definition, self.definition.root_size
            if definition.root_takes_rest:
                _, size = _root_place(definition, None if esp is None else esp.size)
            elif size is not None:
                size = align_up(size, definition.root.block_size)
            tree = self.root_tree(self.tree)
            root_plan = plan_ext4(tree, ext4_options(definition.root, self.seed, self.time_ns, size))
        return self._disk(root_plan, esp)

    def _cmdline(self, root_hash: bytes) -> str:
        boot = self.definition.boot
        if self.definition.verity:
            cmdline = with_verity_root(boot.cmdline, root_hash.hex())
        else:
            cmdline = with_root(boot.cmdline, self._root_identity())
        return with_serial(cmdline) if boot.serial else cmdline

    def _root_identity(self) -> str:
        """Return what Linux will have as the root's PARTUUID."""
        if self.definition.table is Table.GPT:
            return str(self._guids(UNKNOWN)[0])
        from blockwright.build.parts_mbr import SIGNATURE

        number = 2 if self.definition.has_boot_partition else 1
        return f"{derive_u32(self.seed, SIGNATURE):08x}-{number:02x}"

    def _esp(self, root_hash: bytes = UNKNOWN) -> FatPlan | None:
        """Return the boot partition, of the same size with any root hash; None where there is none."""
        if self.machine is None or not self.definition.has_boot_partition:
            return None
        from blockwright.build.esp import BootPartition

        loader = self.loader if self.loader is not None and self.loader.home.fat else None
        return BootPartition(
            self.tree, self.machine, self.definition, loader, self.seed, self.time_ns, self.streamed
        ).plan(self._cmdline(root_hash))

    def _disk(self, root: Ext4Plan, esp: FatPlan | None, root_hash: bytes | None = None) -> DiskPlan:
        """Return the disk; with verity one that is sealed with its root hash, or still to be."""
        plans: dict[str, AnyPlan] = {"root": root}
        if esp is not None:
            plans["esp"] = esp
        if self.definition.verity:
            plans["verity"] = plan_verity(root.size, self.seed, root_hash)
        wishes = self._wishes(root, esp, root_hash)
        table = plan_table(wishes, self.definition, self.seed)
        runs: tuple[AnyPartition, ...] = table.partitions
        places = {wish.role: run for wish, run in zip(wishes, runs, strict=True)}
        if esp is not None:  # FAT writes down where it is
            plans["esp"] = esp = esp.moved(places["esp"].start // self.definition.sector_size)
        code = self._code(table, places, root, esp)
        if code is not None and code.boot_sector and esp is not None:
            plans["esp"] = esp.started_by(code.boot_sector)
        others = () if code is None else code.others
        if "core" in places:
            from blockwright.build.bios import CorePlan

            [(_, core)], others = others, ()
            plans["core"] = CorePlan(core)
        parts = []
        for role, run in places.items():
            assert plans[role].size <= run.size, f"{role}: {plans[role].size} bytes in a partition of {run.size}"
            parts.append(Part(role, run.start, plans[role], run))
        seal = partial(self._sealed, root) if self.definition.verity and root_hash is None else None
        segments = SegmentTable()
        segments.include(table_segments(table, b"" if code is None else code.first), 0)
        for position, data in others:
            segments.add_bytes(position, data)
        segments.freeze()
        return DiskPlan(table.size, table, tuple(parts), segments, seal)

    def _wishes(self, root: Ext4Plan, esp: FatPlan | None, root_hash: bytes | None) -> list[Wish]:
        definition = self.definition
        name, read_only = definition.root.label or "root", definition.verity
        root_guid, hashes_guid = self._guids(UNKNOWN if root_hash is None else root_hash)
        marked = None if self.loader is None or not self.loader.starter.marked else definition.bios_home
        wishes = _front(definition, None if esp is None else esp.size, self.seed, marked=marked is Home.BOOT)
        wishes.append(
            Wish(
                "root",
                self.root_type,
                root.size,
                name,
                rest=definition.root_takes_rest,
                guid=root_guid,
                read_only=read_only,
                marked=marked is Home.ROOT,
            )
        )
        if definition.verity:
            kind, size = f"{self.root_type}-verity", _hashes_size(definition, root.size)
            wishes.append(Wish("verity", kind, size, f"{name}-verity", guid=hashes_guid, read_only=read_only))
        return wishes

    def _code(
        self, table: AnyTable, places: dict[str, AnyPartition], root: Ext4Plan, esp: FatPlan | None
    ) -> Code | None:
        """Return what a BIOS finds outside of files; fills in what it finds in them."""
        if self.loader is None:
            return None
        if self.loader.home.fat and esp is not None:
            at, segments, size = places["esp"], esp.segments(), esp.size
        else:
            at, segments, size = places["root"], root.body, root.size
        if "core" in places:
            core_at, room = places["core"].start, places["core"].size
        else:
            core_at = table.sector_size
            room = min(each.start for each in table.partitions) - core_at
        return self.loader.code(
            segments, start=at.start, size=size, number=at.number, core_at=core_at, core_room=room
        )

    def _sealed(self, root: Ext4Plan, root_hash: bytes) -> DiskPlan:
        return self._disk(root, self._esp(root_hash), root_hash)

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
