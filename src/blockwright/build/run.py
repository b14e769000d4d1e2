"""A build: a source is read, a disk is planned, and the plan is copied to the output.

Knows: the order of steps, for sources that can be read anywhere and for those that stream past once.
Refuses to know: what a disk is made of (``plan``), and how people ask for one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from blockwright.build.definition import Definition, NamedContent, Table
from blockwright.build.plan import DiskPlan, bare, clamp_times, disk_time_ns, ext4_options, plan_disk, streamed_root
from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.copy import copy
from blockwright.device.file import open_path
from blockwright.device.memory import ZeroDevice
from blockwright.device.output import OutputFile
from blockwright.device.window import Window
from blockwright.errors import NotFound, UsageError
from blockwright.format.output import ImageOptions, new_image
from blockwright.source import DirectorySource, Source
from blockwright.tree.content import DeviceContent, PlacedContent
from blockwright.tree.digest import tree_digest
from blockwright.tree.hostfile import HostFile
from blockwright.tree.node import Directory, File, Node
from blockwright.units import TiB

Progress = Callable[[int, int], None]

RAW = ImageOptions()
STREAM_LIMIT = 8 * TiB
"""How large a streamed disk may become where no size is given; the output is sparse, and cut off in the end."""


class Built(NamedTuple):
    """What a build made, or with ``dry_run`` would make: the plan, and the bytes that were copied."""

    plan: DiskPlan
    copied: int


def build(
    source: Source,
    output: str | None,
    definition: Definition,
    *,
    force: bool = False,
    progress: Progress | None = None,
    image: ImageOptions = RAW,
) -> Built:
    """Make ``output`` a disk with the tree of ``source``; None plans only and writes nothing.

    ``image`` says which format the output gets; it is written straight from the plan. ``progress`` is told bytes of
    the disk, or of a source that passes once, and how many there are, 0 where that is not known. The output appears
    under its name when it is whole and durable. After any failure what was there before is there, and nothing else is
    left. Raises UsageError where ``output`` exists without ``force``, NoSpace, SourceChanged, FormatError for a
    source that breaks its format's rules, OSError of the host.
    """
    definition.check()
    if output is not None:
        _refuse_output_within(source, output)
        definition = replace(definition, medium_size=_medium_size(output))
    if source.addressable:
        plan = plan_source(source, definition)
        if output is None:
            return _write_nowhere(plan, progress)
        if not image.raw:
            with OutputFile(output, force=force) as out, new_image(out.device, plan.size, image) as target:
                return _flushed(_write(plan, target, target_is_zero=True, progress=progress), target)
        with OutputFile(output, force=force, size=plan.size) as out:
            return _write(plan, out.device, target_is_zero=out.target_is_zero, progress=progress)
    if output is None:
        if definition.verity:
            raise UsageError("build: --dry-run: the root hash of what streams past once is known when it was written")
        with ZeroDevice(definition.size or STREAM_LIMIT, writable=True) as nowhere:
            return Built(_stream(source, nowhere, definition, progress), 0)
    if not image.raw:
        size = definition.size or STREAM_LIMIT
        with OutputFile(output, force=force) as out, new_image(out.device, size, image) as target:
            assert isinstance(target, ResizableDevice), "an image can be made shorter"
            plan = _stream(source, target, definition, progress)
            target.resize(plan.size)
            return _flushed(_write(plan, target, target_is_zero=True, streamed=True), target)
    with OutputFile(output, force=force) as out:
        if isinstance(out.device, ResizableDevice):
            out.device.resize(definition.size or STREAM_LIMIT)
        if not out.target_is_zero:
            out.device.zero(0, out.device.size)
        plan = _stream(source, out.device, definition, progress)
        if isinstance(out.device, ResizableDevice):
            out.device.resize(plan.size)
        return _write(plan, out.device, target_is_zero=True, streamed=True)


def _flushed(built: Built, target: BlockDevice) -> Built:
    target.flush()
    return built


def _write(
    plan: DiskPlan,
    target: BlockDevice,
    *,
    target_is_zero: bool,
    streamed: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Write the disk, but for what a stream has put into the target already."""
    if plan.seal is not None:
        from blockwright.build.seal import write_sealed

        return Built(*write_sealed(plan, target, target_is_zero=target_is_zero, streamed=streamed, progress=progress))
    with plan.device() as device:
        result = copy(device, target, target_is_zero=target_is_zero, write_back=True, progress=progress)
    return Built(plan, result.copied)


def _write_nowhere(plan: DiskPlan, progress: Progress | None) -> Built:
    """Return what would be made; identities that follow from a root hash need all of it read."""
    if plan.seal is None:
        return Built(plan, 0)
    with ZeroDevice(plan.size, writable=True) as nowhere:
        return Built(_write(plan, nowhere, target_is_zero=True, progress=progress).plan, 0)


def plan_source(source: Source, definition: Definition) -> DiskPlan:
    """Return the disk that holds the tree of an addressable source; what it holds is read while the source is open.

    Raises UsageError for a source that passes once, what reading and planning raise.
    """
    tree = _dated(source.read(), definition)
    return plan_disk(tree, definition, definition.identity_seed(tree_digest(tree)))


def _medium_size(output: str) -> int | None:
    """Return the size of the block device that is to be written, None where the output is a file."""
    try:
        if not stat.S_ISBLK(os.stat(output).st_mode):
            return None
    except OSError:
        return None
    with open_path(output) as device:
        return device.size


def _refuse_output_within(source: Source, output: str) -> None:
    """Raise UsageError where the source is a directory that holds the output of an earlier run.

    A new name within the source is fine, since the tree is read before anything is made.
    """
    if not isinstance(source, DirectorySource) or not os.path.isfile(output):
        return
    top, final = os.path.realpath(source.name), os.path.realpath(output)
    if os.path.commonpath([top, final]) == top:
        raise UsageError(f"{output}: lies within {source.name} and would become a part of the disk: move it out")


def _stream(source: Source, target: BlockDevice, definition: Definition, progress: Progress | None) -> DiskPlan:
    """Read a source that passes once: bodies go to their final blocks of ``target``; what is left is the plan.

    Nothing of the plan is written yet. It has no segments where bodies lie, so that copying it leaves them alone.
    """
    from concurrent.futures import ThreadPoolExecutor

    from blockwright.build.partitioned import draft
    from blockwright.fs.ext4.stream import StreamPlacer

    start, size = streamed_root(definition)
    root = definition.root
    with Window(target, start, owns=False) as window:
        # Identities and times follow from the tree, which is known when the stream has ended.
        placer = StreamPlacer(window, ext4_options(root, b"", 0, size))
        tree = _dated(source.read(source.shown(placer.place, progress) if progress else placer.place), definition)
        with ThreadPoolExecutor(1) as beside:
            # Bodies go to the medium while metadata is planned: the one waits, the other computes.
            flushed = beside.submit(window.flush)
            seed, time_ns = definition.identity_seed(tree_digest(tree)), disk_time_ns(tree, definition)
            options = ext4_options(root, seed, time_ns, size)
            if definition.table is Table.NONE:
                plan = bare(placer.finish(tree, options))
            else:
                readable = tree
                if definition.boot.ways or definition.verity:
                    placer.settle()
                    readable = _readable(tree, target, start)
                disk = draft(readable, definition, seed, time_ns, streamed=True)
                plan = disk.finish(placer.finish(disk.root_tree(tree), options))
            flushed.result()
    return plan


def named_file(path: str) -> NamedContent:
    """Return a file of the host that is named beside the tree. Raises NotFound, and UsageError for no file."""
    real = os.fsencode(os.path.realpath(path))
    try:
        status = os.stat(real)
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path}: expected a regular file")
    folder, name = os.path.split(real)
    return NamedContent(path, HostFile(folder, name, status, status.st_mtime_ns))


def _dated(tree: Directory, definition: Definition) -> Directory:
    if definition.time_s is not None:
        clamp_times(tree, definition.time_s * 10**9)
    return tree


def _readable(tree: Directory, target: BlockDevice, start: int) -> Directory:
    """Return the tree with placed bodies made readable from where they lie, for the boot partition to copy."""
    copies: dict[int, Node] = {}
    root = Directory(tree.permissions, tree.uid, tree.gid, tree.mtime_ns, tree.xattrs)
    stack = [(tree, root)]
    while stack:
        old, new = stack.pop()
        for name, node in old.entries.items():
            made = copies.get(id(node))
            if made is None:
                made = node
                if isinstance(node, Directory):
                    made = Directory(node.permissions, node.uid, node.gid, node.mtime_ns, node.xattrs)
                    stack.append((node, made))
                elif isinstance(node, File) and isinstance(node.content, PlacedContent):
                    starts = [start + run.position for run in node.content.placed]
                    content = DeviceContent(target, node.content.size, node.content.runs(), starts)
                    made = File(node.permissions, node.uid, node.gid, node.mtime_ns, node.xattrs, content)
                copies[id(node)] = made
            new.entries[name] = made
    return root
