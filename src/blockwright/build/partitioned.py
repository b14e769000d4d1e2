"""A partitioned disk: its table, and what each of its partitions holds.

What has a size of its own is planned first. Then the table says what is left for the others, and they are planned.

Knows: the order of that; types, identities and sizes. Refuses to know: which partitions there are (``listing``), what
one holds (``holding``), what makes a disk boot (``esp``, ``bios``), what a hash area is (``verity``), and kinds of
tables (``parts``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from blockwright.boot.cmdline import with_root, with_serial, with_verity_root
from blockwright.boot.machine import programs_machine
from blockwright.build.definition import Definition, Home, Table
from blockwright.build.holding import Holding, check_maximum, ext4_options
from blockwright.build.listing import BOOT, CORE, HASHES, ROOT, SEED, Entry, listing
from blockwright.build.partition import EXT, FAT, SWAP
from blockwright.build.parts import Wish, partition_numbers, plan_table, table_segments
from blockwright.build.plan import NO_TREES, DiskPlan, Part
from blockwright.build.trees import split, with_extras
from blockwright.build.verity import BLOCK, UNKNOWN, partition_guids, plan_verity
from blockwright.codec.identity import derive_bytes, derive_uuid
from blockwright.device.planned import SegmentTable
from blockwright.errors import NoSpace, NotFound, UsageError
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.table.gpt.names import TYPES
from blockwright.table.partition import MbrTable
from blockwright.tree.node import Directory
from blockwright.units import MiB, align_down, align_up

if TYPE_CHECKING:  # a disk that starts nothing needs no FAT and no loaders
    from blockwright.build.bios import Code, PlannedLoader
    from blockwright.build.content import Contents
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
_MOUNT_TYPES = {"/home": "home", "/srv": "srv", "/var/tmp": "tmp"}  # noqa: S108  # a partition's, not a file's
"""Types of the same specification by where it has them mounted."""
_KIND_TYPES = {SWAP: "swap"} | dict.fromkeys(FAT, "microsoft-basic-data")


def draft(
    tree: Directory,
    definition: Definition,
    seed: bytes,
    time_ns: int,
    *,
    streamed: bool = False,
    contents: Contents | None = None,
) -> Draft:
    """Return the disk as far as it is known before its parts have their places. Raises as ``plan_disk`` does.

    ``streamed`` says that the root lies in the output already, where ``streamed_root`` said; ``contents`` is what
    changed the tree, and what is beside it.
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
            root = definition.root_partition
            assert root is not None, "checked: what starts has a root"
            bios.check_features(starter, ext4_options(root, seed, time_ns, None).features.names)
    volume = _volume(definition, seed, contents)
    entries = listing(definition, volume=volume is not None)
    trees = _trees(tree, entries, NO_TREES if contents is None else contents.own, time_ns)
    root_type = _root_type(tree, definition, machine)
    return Draft(
        tree,
        definition,
        seed,
        time_ns,
        machine,
        loader,
        root_type,
        streamed,
        tuple(entries),
        trees,
        contents,
        volume,
    )


def _volume(definition: Definition, seed: bytes, contents: Contents | None) -> FatPlan | None:
    """Return the file system of cloud-init's partition, None where there is none."""
    if contents is None or contents.extras.volume is None:
        return None
    from blockwright.build.content import plan_volume

    return plan_volume(contents.extras.volume, seed, definition.sector_size)


def _trees(
    tree: Directory, entries: list[Entry], own: Mapping[int, Directory], time_ns: int
) -> Mapping[str, Directory]:
    """Return what each partition is to hold, by role."""
    parts = split(tree, [entry.part.mount for entry in entries if entry.part.mount])
    trees = {}
    for entry in entries:
        found = own.get(entry.index - 1)
        if entry.part.mount is not None:
            found = with_extras(parts[entry.part.mount], entry.part)
        trees[entry.role] = Directory(mtime_ns=time_ns) if found is None else found
    return trees


def streamed_root(definition: Definition, contents: Contents | None = None) -> tuple[int, int | None]:
    """Return where the root of a streamed build begins and its size, None for automatic; both in bytes.

    It lies behind a boot partition whose size is fixed beforehand. Raises NoSpace.
    """
    volume = _volume(definition, b"", contents)
    entries = listing(definition, volume=volume is not None)
    sizes = {entry.role: entry.part.size or MiB for entry in entries}
    root = next(entry.part for entry in entries if entry.role == ROOT)
    if BOOT in sizes:
        from blockwright.build.esp import streamed_size

        sizes[BOOT] = streamed_size(definition)
    if volume is not None:
        sizes[SEED] = volume.size
    if CORE in sizes:
        sizes[CORE] = _core_size()
    if HASHES in sizes:
        sizes[HASHES] = _hashes_size(definition, root.rest, sizes[ROOT])
    wishes = [Wish(entry.role, entry.part, "linux-generic", sizes[entry.role]) for entry in entries]
    table = plan_table(wishes, definition, b"")
    run = table.partitions[[wish.role for wish in wishes].index(ROOT)]
    size = run.size if root.rest else root.size
    if size is not None and root.rest and definition.verity:
        size = align_down(size, BLOCK)
    return run.start, None if size is None else align_down(size, root.block_size or 4096)


def _core_size() -> int:
    from blockwright.build.bios import CORE_SIZE

    return CORE_SIZE


def _hashes_size(definition: Definition, rest: bool, root_size: int) -> int:  # noqa: FBT001  # a root's own word
    """Return the size of the hash partition; for a root that takes the rest, what a root as large as the disk has."""
    if rest and definition.disk_size is not None:
        root_size = definition.disk_size
    return plan_verity(root_size, b"", None).size


@dataclass(frozen=True, slots=True)
class Draft:
    """What a disk is planned from, but for the root file system and its hash; ``trees`` by role."""

    tree: Directory
    definition: Definition
    seed: bytes
    time_ns: int
    machine: Machine | None
    loader: PlannedLoader | None
    root_type: str
    streamed: bool
    entries: tuple[Entry, ...]
    trees: Mapping[str, Directory]
    contents: Contents | None = None
    volume: FatPlan | None = None

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
        others = [f"{entry.part.mount}/" for entry in self.entries if not entry.part.is_root and entry.part.mount]
        if any(f"/{kernel.path}".startswith(each) for each in others):
            kernel = replace(kernel, in_tree=False)  # it lies in another partition, which the loader does not read
        if not self.loader.starter.reads_holes:
            fill_holes(tree, kernel)
        files, entry = kernel_in(self.loader.home, kernel, title=title, options=options, serial=serial)
        made = with_files(tree, files | self.loader.files(entry), mtime_ns=self.time_ns)
        return made if self.contents is None else self.contents.label(made)

    def finish(self, root_plan: Ext4Plan | None = None) -> DiskPlan:
        """Return the disk; ``root_plan`` is the root file system where a stream has placed it already."""
        self._fill_fstab()
        plans: dict[str, AnyPlan] = {} if root_plan is None else {ROOT: root_plan}
        if self.volume is not None:
            plans[SEED] = self.volume
        growing = [entry for entry in self.entries if entry.part.rest and entry.role not in plans]
        least: dict[str, int] = {}
        sized = self.definition.disk_size is not None
        for entry in self.entries:
            if entry in growing and (len(growing) > 1 or not sized):
                plan = self._planned(entry, None)
                least[entry.role] = plan.size
                if not sized:  # there is nothing left to have a share of
                    plans[entry.role] = plan
            elif entry not in growing and entry.role not in (ROOT, CORE, HASHES, *plans):
                plans[entry.role] = self._planned(entry, entry.part.size)
        root = next((entry for entry in self.entries if entry.role == ROOT), None)
        if root is not None and root not in growing and ROOT not in plans:
            plans[ROOT] = self._planned(root, root.part.size)
        if growing and sized:
            wishes = self._wishes(plans, least, None)
            table = plan_table(wishes, self.definition, self.seed)
            found = partition_numbers(wishes, self.definition)
            numbers = {wish.role: number for wish, number in zip(wishes, found, strict=True)}
            for entry in growing:
                size = table.partition(numbers[entry.role]).size
                if entry.role == ROOT and self.definition.verity:
                    size = align_down(size, BLOCK)  # its last block is hashed whole
                plans[entry.role] = self._planned(entry, size)
        return self._disk(plans, least)

    def _planned(self, entry: Entry, size: int | None) -> AnyPlan:
        """Return what a partition of ``size`` bytes holds, or of the least size where that is None."""
        plan = self._held(entry, size)
        if size is None:
            check_maximum(entry.part, plan)
        return plan

    def _held(self, entry: Entry, size: int | None) -> AnyPlan:
        part = entry.part
        if entry.role == BOOT and self.machine is not None:
            return self._esp(entry, UNKNOWN, size)
        tree, seed = self.trees[entry.role], self.seed
        if entry.role == ROOT:
            tree = self.root_tree(tree)
        else:
            seed = derive_bytes(self.seed, f"partition {entry.index}", 32)
        if part.size is not None and part.kind in (*EXT, SWAP):
            size = align_up(part.size, part.block_size or 4096)
        try:
            return Holding(part, tree, seed, self.time_ns, self.definition.sector_size).plan(size)
        except NoSpace as error:
            raise NoSpace(f"{part.what}: {error}") if entry.index else error from None
        except UsageError as error:
            raise UsageError(f"{part.what}: {error}") if entry.index else error from None

    def _cmdline(self, root_hash: bytes) -> str:
        boot = self.definition.boot
        if self.definition.verity:
            cmdline = with_verity_root(boot.cmdline, root_hash.hex())
        else:
            cmdline = with_root(boot.cmdline, self._root_identity())
        return with_serial(cmdline) if boot.serial else cmdline

    def _root_identity(self) -> str:
        """Return what Linux will have as the root's PARTUUID."""
        return self._identity(next(entry for entry in self.entries if entry.role == ROOT))

    def _identity(self, entry: Entry) -> str:
        """Return what Linux will have as the PARTUUID of a partition, with verity but for the root's."""
        if self.definition.table is Table.GPT:
            return str(self._guid(entry, self._guids(UNKNOWN)))
        from blockwright.build.parts_mbr import identity, numbers

        within = [entry for entry in self.entries if entry.part.in_table]
        found, _ = numbers([entry.part.logical for entry in within])
        return identity(self.definition, self.seed, found[within.index(entry)])

    def _guid(self, entry: Entry, guids: tuple[UUID, UUID]) -> UUID:
        """Return the GUID of a partition; ``guids`` are those of the root and of its hashes."""
        if entry.role in (ROOT, HASHES):
            return guids[entry.role == HASHES]
        purpose = {BOOT: "esp", CORE: "bios", SEED: "cidata"}.get(entry.role, str(entry.index))
        return entry.part.uuid or derive_uuid(self.seed, f"partition.{purpose}")

    def _fill_fstab(self) -> None:
        if self.contents is not None:
            words = {each.role: f"PARTUUID={self._identity(each)}" for each in self.entries if each.part.in_table}
            self.contents.extras.fill_fstab(self.definition, words)

    def _esp(self, entry: Entry, root_hash: bytes, size: int | None) -> FatPlan:
        """Return the boot partition, of the same size with any root hash."""
        from blockwright.build.esp import BootPartition

        assert self.machine is not None, "what starts nothing has no boot partition"
        loader = self.loader if self.loader is not None and self.loader.home.fat else None
        return BootPartition(
            self.tree,
            self.trees[entry.role],
            self.machine,
            self.definition,
            entry.part,
            loader,
            self.seed,
            self.time_ns,
            self.streamed,
        ).plan(self._cmdline(root_hash), size)

    def _disk(
        self, plans: Mapping[str, AnyPlan], least: Mapping[str, int], root_hash: bytes | None = None
    ) -> DiskPlan:
        """Return the disk; with verity one that is sealed with its root hash, or still to be."""
        held = dict(plans)
        if self.definition.verity:
            held[HASHES] = plan_verity(plans[ROOT].size, self.seed, root_hash)
        wishes = self._wishes(held, least, root_hash)
        table = plan_table(wishes, self.definition, self.seed)
        numbers = partition_numbers(wishes, self.definition)
        places: dict[str, AnyPartition] = {
            wish.role: table.partition(number) for wish, number in zip(wishes, numbers, strict=True)
        }
        self._move(held, places)
        code = self._code(table, places, held)
        if code is not None and code.boot_sector and BOOT in held:
            held[BOOT] = _fat(held[BOOT]).started_by(code.boot_sector)
        others = () if code is None else code.others
        if CORE in places:
            from blockwright.build.bios import CorePlan

            [(_, core)], others = others, ()
            held[CORE] = CorePlan(core)
        parts = []
        for role, run in places.items():
            if held[role].size > run.size:
                raise NoSpace(f"{role}: expected room for {held[role].size} bytes, found a partition of {run.size}")
            parts.append(Part(role, run.start, held[role], run))
        parts += self._outside(table, held, [(at, at + len(data)) for at, data in others])
        seal = partial(self._sealed, plans, least) if self.definition.verity and root_hash is None else None
        segments = SegmentTable()
        segments.include(table_segments(table, wishes, b"" if code is None else code.first), 0)
        for position, data in others:
            segments.add_bytes(position, data)
        segments.freeze()
        return DiskPlan(table.size, table, tuple(parts), segments, seal)

    def _move(self, held: dict[str, AnyPlan], places: Mapping[str, AnyPartition]) -> None:
        """Tell each FAT where it is, which it writes down."""
        for role, plan in held.items():
            if role in places and plan.kind.startswith("fat"):
                held[role] = _fat(plan).moved(places[role].start // self.definition.sector_size)

    def _outside(self, table: AnyTable, held: Mapping[str, AnyPlan], code: list[tuple[int, int]]) -> list[Part]:
        """Return what lies on the disk without a partition. Raises NoSpace where something else is there."""
        parts = []
        taken = [(0, _table_end(table)), *code, *((each.start, each.end) for each in table.partitions)]
        if isinstance(table, MbrTable):
            taken += [(each.start, each.end) for each in table.extended]
        for entry in self.entries:
            if entry.part.in_table or entry.part.start is None:
                continue
            start, end = entry.part.start, entry.part.start + max(held[entry.role].size, entry.part.size or 0)
            last = table.size if isinstance(table, MbrTable) else table.usable_end
            if end > last:
                said = f"expected bytes {start} to {end} to lie on the disk, found room up to byte {last}"
                raise NoSpace(f"{entry.part.what}: {said}")
            if any(start < high and low < end for low, high in taken):
                raise NoSpace(f"{entry.part.what}: expected bytes {start} to {end} to be free, found them taken")
            taken.append((start, end))
            parts.append(Part(entry.role, start, held[entry.role], None))
        return parts

    def _wishes(self, plans: Mapping[str, AnyPlan], least: Mapping[str, int], root_hash: bytes | None) -> list[Wish]:
        guids = self._guids(UNKNOWN if root_hash is None else root_hash)
        return [self._wish(entry, plans, least, guids) for entry in self.entries if entry.part.in_table]

    def _wish(
        self, entry: Entry, plans: Mapping[str, AnyPlan], least: Mapping[str, int], guids: tuple[UUID, UUID]
    ) -> Wish:
        definition, part, role = self.definition, entry.part, entry.role
        root = next((each.part for each in self.entries if each.role == ROOT), None)
        size = max(part.size or 0, part.minimum, least.get(role, 0))
        if role in plans and not part.rest:
            size = max(size, plans[role].size)
        kind, name = part.type or self._type(entry), _name(entry)
        if role == ROOT:
            name = part.name if part.name is not None else part.label or "root"
            size = align_up(size, BLOCK) if definition.verity else size  # whose last block is hashed whole
        elif role == CORE:
            size = max(size, _core_size())
        elif role == HASHES and root is not None:
            name = part.name if part.name is not None else f"{root.name or root.label or 'root'}-verity"
            size = max(size, _hashes_size(definition, root.rest, plans[ROOT].size if ROOT in plans else MiB))
        marked = None if self.loader is None or not self.loader.starter.marked else definition.bios_home
        return Wish(
            role,
            part,
            kind,
            max(size, MiB if part.rest and not part.minimum and role not in least else 0),
            name,
            guid=self._guid(entry, guids),
            read_only=definition.verity and role in (ROOT, HASHES),
            marked=(marked is Home.BOOT and role == BOOT) or (marked is Home.ROOT and role == ROOT),
        )

    def _type(self, entry: Entry) -> str:
        """Return the type of a partition that says none itself."""
        if entry.role == ROOT:
            return self.root_type
        if entry.role == HASHES:
            return f"{self.root_type}-verity"
        return _MOUNT_TYPES.get(entry.part.mount or "") or _KIND_TYPES.get(entry.part.kind, "linux-generic")

    def _code(self, table: AnyTable, places: Mapping[str, AnyPartition], held: Mapping[str, AnyPlan]) -> Code | None:
        """Return what a BIOS finds outside of files; fills in what it finds in them."""
        if self.loader is None:
            return None
        home = held[BOOT if self.loader.home.fat and BOOT in held else ROOT]
        at = places[BOOT if self.loader.home.fat and BOOT in held else ROOT]
        if CORE in places:
            core_at, room = places[CORE].start, places[CORE].size
        else:
            core_at = table.sector_size
            first = table.primary if isinstance(table, MbrTable) else table.partitions
            room = min(each.start for each in first) - core_at
        return self.loader.code(
            home.body if isinstance(home, Ext4Plan) else home.segments(),
            start=at.start,
            size=home.size,
            number=at.number,
            core_at=core_at,
            core_room=room,
        )

    def _sealed(self, plans: Mapping[str, AnyPlan], least: Mapping[str, int], root_hash: bytes) -> DiskPlan:
        entry = next((each for each in self.entries if each.role == BOOT), None)
        if entry is None:
            return self._disk(plans, least, root_hash)
        size = plans[BOOT].size if entry.part.rest else entry.part.size
        return self._disk({**plans, BOOT: self._esp(entry, root_hash, size)}, least, root_hash)

    def _guids(self, root_hash: bytes) -> tuple[UUID, UUID]:
        """Return the identities of the root partition and of its hashes'."""
        if self.definition.verity:
            return partition_guids(root_hash)
        root = self.definition.root_partition
        given = None if root is None else root.uuid
        return given or derive_uuid(self.seed, "partition.root"), derive_uuid(self.seed, "partition.verity")


def _name(entry: Entry) -> str:
    """Return what a GPT calls a partition: its name, or else its label, or what it is for."""
    part = entry.part
    if part.name is not None:
        return part.name
    return part.label or (part.mount or "").rpartition("/")[2] or part.type or part.kind


def _fat(plan: AnyPlan) -> FatPlan:
    from blockwright.fs.fat.plan import FatPlan as Plan

    assert isinstance(plan, Plan), "what is called FAT is planned by it"
    return plan


def _table_end(table: AnyTable) -> int:
    """Return the first byte behind what a table has in front."""
    return table.sector_size if isinstance(table, MbrTable) else table.usable_start


def _root_type(tree: Directory, definition: Definition, machine: Machine | None) -> str:
    """Return the type of the root partition: that of the machine it is for, where that is known or must be."""
    root = definition.root_partition
    if root is not None and root.type is not None and (not definition.verity or f"{root.type}-verity" in TYPES):
        return root.type
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
