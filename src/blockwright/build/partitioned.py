"""A partitioned disk: a GPT, an EFI system partition where something is to boot, and the root.

Knows: which partitions there are, their order, types and sizes. Refuses to know: what makes a disk boot (``esp``).
"""

from __future__ import annotations

from uuid import UUID

from blockwright.build.definition import Boot, Definition
from blockwright.build.plan import DiskPlan, Part, ext4_options
from blockwright.codec.identity import derive_uuid
from blockwright.fs.ext4.plan import Ext4Plan
from blockwright.fs.ext4.plan import plan as plan_ext4
from blockwright.table.gpt import plan as gpt
from blockwright.table.gpt.names import TYPES
from blockwright.tree.node import Directory
from blockwright.units import MiB, align_down, align_up

_ROOT_TYPES = {"X64": "root-x86-64", "IA32": "root-x86", "AA64": "root-arm64", "ARM": "root-arm"}


def plan_partitioned(
    tree: Directory, definition: Definition, seed: bytes, time_ns: int, root_plan: Ext4Plan | None
) -> DiskPlan:
    """Return the disk; ``root_plan`` is the root file system where a stream has placed it already.

    The root comes last, so that it can take what remains and grow later. Raises as ``plan_disk`` does.
    """
    root_guid = derive_uuid(seed, "partition.root")
    root_type = "linux-generic"
    esp = None
    if definition.boot.boot is not Boot.NONE:
        from blockwright.build.esp import find_machine, plan_esp

        machine = find_machine(tree, definition)
        esp = plan_esp(tree, machine, definition, root_guid, seed, time_ns, streamed=root_plan is not None)
        root_type = _ROOT_TYPES.get(machine.suffix, root_type)
    if root_plan is None and not definition.root_takes_rest:
        size = definition.root_size
        size = None if size is None else align_up(size, definition.root.block_size)
        root_plan = plan_ext4(tree, ext4_options(definition.root, seed, time_ns, size))
    requests = [
        gpt.Request(
            type_guid=TYPES[root_type],
            size=MiB if root_plan is None else root_plan.size,
            name=definition.root.label or "root",
            remaining=definition.root_takes_rest,
            guid=root_guid,
        )
    ]
    if esp is not None:
        requests.insert(0, _esp_request(esp.size, derive_uuid(seed, "partition.esp")))
    table = gpt.plan(requests, seed=seed, size=definition.disk_size, sector_size=definition.sector_size)
    last = table.partitions[-1]
    if root_plan is None:
        size = align_down(last.size, definition.root.block_size)
        root_plan = plan_ext4(tree, ext4_options(definition.root, seed, time_ns, size))
    parts = [Part("root", last.start, root_plan, last)]
    if esp is not None:
        first = table.partitions[0]
        parts.insert(0, Part("esp", first.start, esp.moved(first.start // definition.sector_size), first))
    return DiskPlan(table.size, table, tuple(parts), gpt.segments(table))


def streamed_root(definition: Definition) -> tuple[int, int | None]:
    """Return where the root of a streamed build begins and its size, None for automatic; both in bytes.

    It lies behind an EFI system partition whose size is fixed beforehand. Raises NoSpace.
    """
    rest = definition.root_takes_rest
    requests = [gpt.Request(type_guid=TYPES["linux-generic"], size=definition.root_size or MiB, remaining=rest)]
    if definition.boot.boot is not Boot.NONE:
        from blockwright.build.esp import streamed_size

        requests.insert(0, _esp_request(streamed_size(definition), None))
    table = gpt.plan(requests, seed=b"", size=definition.disk_size, sector_size=definition.sector_size)
    last = table.partitions[-1]
    size = last.size if rest else definition.root_size
    return last.start, None if size is None else align_down(size, definition.root.block_size)


def _esp_request(size: int, guid: UUID | None) -> gpt.Request:
    return gpt.Request(type_guid=TYPES["esp"], size=size, name="esp", guid=guid)
