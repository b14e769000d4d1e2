"""A tree and a definition become a disk: its table, its file systems and where each lies, as a value.

Knows: which parts a disk has, their order and their sizes. Refuses to know: files, sources and outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from blockwright.boot.image import efi_suffix
from blockwright.boot.kernel import Kernel, find_kernel, find_loader, named_kernel, os_title
from blockwright.boot.uefi import kernel_as_program, systemd_boot, with_root
from blockwright.build.definition import Boot, Definition, RootOptions, Table
from blockwright.codec.identity import derive_uuid
from blockwright.device.planned import PlannedDevice, SegmentTable
from blockwright.errors import NotFound
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.fs.ext4.plan import plan as plan_ext4
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import FatPlan
from blockwright.fs.fat.plan import plan as plan_fat
from blockwright.table.gpt import plan as gpt
from blockwright.table.gpt.names import TYPES
from blockwright.table.partition import Partition, PartitionTable
from blockwright.tree.node import Directory, Node
from blockwright.units import MiB, align_down, align_up

ESP_MINIMUM = 64 * MiB
"""The smallest automatic EFI system partition: room for FAT32, which firmware must read, on 512-byte sectors."""
ESP_MINIMUM_4K = 272 * MiB
"""The same on 4096-byte sectors, where FAT32 begins at 65,525 clusters of one sector each."""
ESP_STREAMED = 256 * MiB
"""The automatic size where the kernel is still to come in a stream, and its size is not known yet."""

_ROOT_TYPES = {"X64": "root-x86-64", "IA32": "root-x86", "AA64": "root-arm64", "ARM": "root-arm"}


@dataclass(frozen=True, slots=True)
class Part:
    """A file system of the disk: what it is for, where it begins in bytes, and its partition if it has one."""

    role: str
    start: int
    file_system: Ext4Plan | FatPlan
    partition: Partition | None


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """A whole disk of ``size`` bytes: a table (None for a bare file system) and file systems."""

    size: int
    table: PartitionTable | None
    parts: tuple[Part, ...]
    sector_size: int

    def device(self) -> PlannedDevice:
        """Return the disk as a read-only device; nothing of it is written anywhere yet."""
        segments = SegmentTable()
        if self.table is not None:
            segments.include(gpt.segments(self.table), 0)
        for part in self.parts:
            segments.include(part.file_system.segments(), part.start)
        return PlannedDevice(self.size, segments)


@dataclass(frozen=True, slots=True)
class Machine:
    """What starts the disk: the EFI suffix of its machine, the kernel, and whether the tree was searched for it."""

    suffix: str
    kernel: Kernel


def find_machine(tree: Directory, definition: Definition) -> Machine | None:
    """Return what is to start the disk, from the definition or else from the tree; None where nothing is to.

    Raises NotFound where no kernel is named and the tree holds none.
    """
    boot = definition.boot
    if boot.boot is Boot.NONE:
        return None
    if boot.kernel is not None:
        kernel: Kernel | None = named_kernel(boot.kernel.name, boot.kernel.content)
    else:
        kernel = find_kernel(tree)
    if kernel is None:
        raise NotFound("build: the tree holds no kernel in /boot, /usr/lib/modules or /: name one with --kernel")
    if boot.initrd is not None:
        kernel = replace(kernel, initrd=boot.initrd.content)
    program = boot.loader or boot.kernel
    if program is not None:
        return Machine(efi_suffix(program.content, program.name), kernel)
    return Machine(efi_suffix(kernel.content, kernel.path), kernel)


def esp_tree(tree: Directory, machine: Machine, definition: Definition, root_guid: UUID, mtime_ns: int) -> Directory:
    """Return the files of the EFI system partition. Raises NotFound where no loader is named and none is found."""
    boot = definition.boot
    if boot.boot is Boot.KERNEL:
        return kernel_as_program(machine.kernel, mtime_ns=mtime_ns)
    loader = boot.loader.content if boot.loader else find_loader(tree, machine.suffix)
    if loader is None:
        raise NotFound(
            f"build: the tree holds no systemd-boot{machine.suffix.lower()}.efi in /usr/lib/systemd/boot/efi:"
            " name one with --loader"
        )
    return systemd_boot(
        machine.kernel,
        loader,
        title=os_title(tree),
        options=with_root(boot.cmdline, str(root_guid)),
        machine_suffix=machine.suffix,
        mtime_ns=mtime_ns,
    )


def newest_time(tree: Directory) -> int:
    """Return the newest modification time in the tree, in nanoseconds; every time of the disk follows from it."""
    newest = tree.mtime_ns
    stack: list[Node] = [tree]
    while stack:
        node = stack.pop()
        newest = max(newest, node.mtime_ns)
        if isinstance(node, Directory):
            stack.extend(node.entries.values())
    return newest


def clamp_times(tree: Directory, limit_ns: int) -> None:
    """Set every modification time above ``limit_ns`` to it, as SOURCE_DATE_EPOCH asks."""
    stack: list[Node] = [tree]
    while stack:
        node = stack.pop()
        node.mtime_ns = min(node.mtime_ns, limit_ns)
        if isinstance(node, Directory):
            stack.extend(node.entries.values())


def ext4_options(root: RootOptions, seed: bytes, time_ns: int, size: int | None) -> Ext4Options:
    """Return the planner's options for the root file system of ``size`` bytes, None for automatic."""
    return Ext4Options(
        seed=seed,
        size=size,
        free=root.free if size is None else 0.0,
        label=root.label,
        block_size=root.block_size,
        inodes=root.inodes,
        reserved_percent=None if root.reserved is None else root.reserved * 100,
        journal=root.journal,
        time_ns=time_ns,
    )


def plan_disk(tree: Directory, definition: Definition, seed: bytes, *, root_plan: Ext4Plan | None = None) -> DiskPlan:
    """Return the disk that holds ``tree`` as ``definition`` says.

    ``root_plan`` is the root file system where a stream has placed it already, at ``stream_start``.
    Raises NoSpace with both numbers, NotFound for a kernel or loader, UsageError for what a file system cannot hold.
    """
    root = definition.root
    time_ns = newest_time(tree) if definition.time_s is None else definition.time_s * 10**9
    if definition.table is Table.NONE:
        size = definition.size if root.size is None else root.size
        planned = root_plan or plan_ext4(tree, ext4_options(root, seed, time_ns, size))
        return DiskPlan(planned.size, None, (Part("root", 0, planned, None),), definition.sector_size)

    machine = find_machine(tree, definition)
    root_guid = derive_uuid(seed, "partition.root")
    esp = None
    if machine is not None:
        files = esp_tree(tree, machine, definition, root_guid, time_ns)
        esp = _plan_esp(files, definition, seed, streamed=root_plan is not None)
    size = root.size if root.size is None else align_up(root.size, root.block_size)
    if root_plan is None and (size is not None or definition.size is None):
        root_plan = plan_ext4(tree, ext4_options(root, seed, time_ns, size))
    requests = _requests(definition, esp, root_plan, root_guid, machine, seed)
    table = gpt.plan(requests, seed=seed, size=definition.size, sector_size=definition.sector_size)
    *before, last = table.partitions
    if root_plan is None:
        root_plan = plan_ext4(tree, ext4_options(root, seed, time_ns, align_down(last.size, root.block_size)))
    parts = [Part("root", last.start, root_plan, last)]
    if esp is not None:
        parts.insert(0, Part("esp", before[0].start, esp, before[0]))
    return DiskPlan(table.size, table, tuple(parts), definition.sector_size)


def stream_start(definition: Definition, esp_size: int | None) -> int:
    """Return the byte where the root file system will begin, before anything of it is known."""
    if definition.table is Table.NONE:
        return 0
    requests = [gpt.Request(type_guid=TYPES["linux-generic"], size=1)]
    if esp_size is not None:
        requests.insert(0, gpt.Request(type_guid=TYPES["esp"], size=esp_size))
    return gpt.plan(requests, seed=b"", sector_size=definition.sector_size).partitions[-1].start


def stream_esp_size(definition: Definition) -> int | None:
    """Return the size of the EFI system partition of a streamed build, which is fixed before the tree is known."""
    if definition.boot.boot is Boot.NONE:
        return None
    return definition.boot.esp_size or max(ESP_STREAMED, _esp_minimum(definition))


def _esp_minimum(definition: Definition) -> int:
    return ESP_MINIMUM if definition.sector_size == 512 else ESP_MINIMUM_4K


def _plan_esp(files: Directory, definition: Definition, seed: bytes, *, streamed: bool) -> FatPlan:
    """Plan the EFI system partition: of the size that was asked for, or as small as holds the files, in MiB."""
    size = stream_esp_size(definition) if streamed else definition.boot.esp_size
    start = stream_start(definition, None)
    options = FatOptions(
        seed=seed, label="ESP", sector_size=definition.sector_size, hidden_sectors=start // definition.sector_size
    )
    if size is None:
        size = max(_esp_minimum(definition), align_up(plan_fat(files, options).size, MiB))
    return plan_fat(files, replace(options, size=size))


def _requests(
    definition: Definition,
    esp: FatPlan | None,
    root_plan: Ext4Plan | None,
    root_guid: UUID,
    machine: Machine | None,
    seed: bytes,
) -> list[gpt.Request]:
    root_type = _ROOT_TYPES.get(machine.suffix, "linux-generic") if machine else "linux-generic"
    root = gpt.Request(
        type_guid=TYPES[root_type],
        size=MiB if root_plan is None else root_plan.size,
        name=definition.root.label or "root",
        remaining=definition.size is not None and definition.root.size is None,
        guid=root_guid,
    )
    if esp is None:
        return [root]
    guid = derive_uuid(seed, "partition.esp")
    return [gpt.Request(type_guid=TYPES["esp"], size=esp.size, name="esp", guid=guid), root]
