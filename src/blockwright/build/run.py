"""A build: a source is read, a disk is planned, and the plan is copied to the output.

Knows: the order of steps, for sources that can be read anywhere and for those that stream past once.
Refuses to know: what a disk is made of (``plan``), and how people ask for one.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from blockwright.build.content import Contents
from blockwright.build.definition import Definition, NamedContent, Table
from blockwright.build.holding import ext4_options
from blockwright.build.plan import DiskPlan, bare, clamp_times, disk_time_ns, plan_disk, streamed_root
from blockwright.build.trees import Open
from blockwright.device.base import BlockDevice, ResizableDevice
from blockwright.device.copy import copy
from blockwright.device.descriptor import is_disk
from blockwright.device.file import open_path
from blockwright.device.memory import ZeroDevice
from blockwright.device.output import OutputFile
from blockwright.device.physical import check_whole
from blockwright.device.spool import scratch_device
from blockwright.device.window import Window
from blockwright.errors import NotFound, UsageError
from blockwright.format.output import ImageOptions, image_output, image_stream
from blockwright.source import DirectorySource, Source, open_sources
from blockwright.store.address import is_store_url
from blockwright.tree.content import Content, DeviceContent, PlacedContent
from blockwright.tree.digest import tree_digest
from blockwright.tree.hostfile import HostFile
from blockwright.tree.node import Directory, File, Node
from blockwright.units import TiB

if TYPE_CHECKING:  # most disks are files
    from blockwright.store.output import BucketOutput

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
    opened: Open = open_sources,
) -> Built:
    """Make ``output`` a disk with the tree of ``source``; None plans only and writes nothing.

    ``opened`` opens what partitions name as sources of their own.
    ``image`` says which format the output gets; it is written straight from the plan. ``-`` is standard output.
    ``progress`` is told bytes of the disk, or of a source that passes once, and how many there are, 0 where that is
    not known. The output appears under its name when it is whole and durable. After any failure what was there before
    is there, and nothing else is left. Raises UsageError where ``output`` exists without ``force``, NoSpace,
    SourceChanged, FormatError for a source that breaks its format's rules, OSError of the host.
    """
    definition.check()
    with Contents(definition, opened) as contents:
        return _build(source, output, definition, contents, image, force=force, progress=progress)


def _build(
    source: Source,
    output: str | None,
    definition: Definition,
    contents: Contents,
    image: ImageOptions,
    *,
    force: bool,
    progress: Progress | None,
) -> Built:
    if output == "-" or (output is not None and not image.raw and _needs_order(source, definition, image)):
        return _build_in_order(source, output, definition, contents, image, force=force, progress=progress)
    if output is not None:
        check_whole(output)
        _refuse_output_within(source, definition, output)
        definition = for_medium(definition, output)
    if source.addressable or definition.reads_first:
        plan = plan_source(source, definition, contents)
        if output is None:
            return _write_nowhere(plan, progress)
        if not image.raw:
            with image_output(output, plan.size, image, force=force) as target:
                return _write(plan, target, target_is_zero=True, progress=progress)
        with _open_output(output, plan.size, force=force) as out:
            return _write(plan, out.device, target_is_zero=out.target_is_zero, progress=progress)
    if output is None:
        if definition.verity:
            raise UsageError("build: --dry-run: the root hash of what streams past once is known when it was written")
        with ZeroDevice(definition.size or STREAM_LIMIT, writable=True) as nowhere:
            return Built(_stream(source, nowhere, definition, progress, contents, kept=False), 0)
    if not image.raw:
        size = definition.size or STREAM_LIMIT
        with image_output(output, size, image, force=force) as target:
            return make(source, target, definition, progress, contents)
    with _open_output(output, None, force=force) as out:
        if not out.target_is_zero:
            out.device.zero(0, out.device.size)
        return make(source, out.device, definition, progress, contents)


def make(
    source: Source,
    target: BlockDevice,
    definition: Definition,
    progress: Progress | None = None,
    contents: Contents | None = None,
) -> Built:
    """Make the disk on ``target``, which reads as zeros; it gets the disk's size where it can.

    ``contents`` are the definition's, where they were made ready before. Raises what reading the source, planning and
    writing raise.
    """
    contents = contents or Contents(definition)
    if source.addressable or definition.reads_first:
        plan = plan_source(source, definition, contents)
        if isinstance(target, ResizableDevice):
            target.resize(plan.size)
        return _write(plan, target, target_is_zero=True, progress=progress)
    size = definition.size or STREAM_LIMIT
    if isinstance(target, ResizableDevice) and target.size != size:
        target.resize(size)
    plan = _stream(source, target, definition, progress, contents)
    if isinstance(target, ResizableDevice):
        target.resize(plan.size)
    return _write(plan, target, target_is_zero=True, streamed=True)


def _open_output(output: str, size: int | None, *, force: bool) -> OutputFile | BucketOutput:
    """Return the output, a file or a disk in a store; ``size`` None is whatever it becomes."""
    if is_store_url(output):
        from blockwright.store.open import create_remote

        return create_remote(output, size=size or STREAM_LIMIT, force=force)
    return OutputFile(output, force=force, size=size)


def _needs_order(source: Source, definition: Definition, image: ImageOptions) -> bool:
    """Whether an image cannot be gone back in, or cannot be made as short as a stream turns out to be."""
    planned = source.addressable or definition.reads_first
    return image.once or (not planned and not image.driver.resizes)


def _build_in_order(
    source: Source,
    output: str,
    definition: Definition,
    contents: Contents,
    image: ImageOptions,
    *,
    force: bool,
    progress: Progress | None,
) -> Built:
    """Make an image front to back. A disk that is not planned as a whole is made in a file of its own first.

    That is so where the source streams past, and where a root hash follows from what was written.
    """
    image.check()

    def target(size: int) -> AbstractContextManager[BlockDevice]:
        if output == "-":
            return image_stream(sys.stdout.buffer, size, image)
        return image_output(output, size, image, force=force)

    if output != "-":
        _refuse_output_within(source, definition, output)
    if (source.addressable or definition.reads_first) and not definition.verity:
        plan = plan_source(source, definition, contents)
        with target(plan.size) as device:
            return _write(plan, device, target_is_zero=True, progress=progress)
    with scratch_device("the disk") as scratch:
        built = make(source, scratch, definition, progress, contents)
        with target(built.plan.size) as device:
            copied = copy(scratch, device, target_is_zero=True, detect_zeroes=not image.raw).copied
        return Built(built.plan, copied)


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


def plan_source(source: Source, definition: Definition, contents: Contents | None = None) -> DiskPlan:
    """Return the disk that holds the tree of an addressable source; what it holds is read while the source is open.

    ``contents`` are the definition's, where they were made ready before. Raises UsageError for a source that passes
    once, what reading, changing and planning raise.
    """
    contents = contents or Contents(definition)
    tree = _dated(contents.apply(contents.read(source), None), definition)
    digest = tree_digest(tree)
    if contents.own:
        parts = [
            index.to_bytes(4, "big") + tree_digest(_dated(each, definition)) for index, each in contents.own.items()
        ]
        digest = hashlib.sha256(b"".join([digest, *parts])).digest()
    return plan_disk(tree, definition, definition.identity_seed(digest), contents)


def for_medium(definition: Definition, output: str) -> Definition:
    """Return the definition as it is for that output: a device that is there says how large its table is."""
    return replace(definition, medium_size=_medium_size(output))


def _medium_size(output: str) -> int | None:
    """Return the size of the block device that is to be written, None where the output is a file."""
    try:
        if not is_disk(output, os.stat(output).st_mode):
            return None
    except OSError:
        return None
    with open_path(output) as device:
        return device.size


def _refuse_output_within(source: Source, definition: Definition, output: str) -> None:
    """Raise UsageError where a directory that is read holds the output of an earlier run.

    A new name within the directory is fine, since the tree is read before anything is made.
    """
    if not os.path.isfile(output):
        return
    names = [source.name] if isinstance(source, DirectorySource) else []
    for part in definition.partitions:
        names += [name for name in (*part.sources, *(name for name, _ in part.files)) if os.path.isdir(name)]
    final = os.path.realpath(output)
    for name in names:
        top = os.path.realpath(name)
        if os.path.commonpath([top, final]) == top:
            raise UsageError(f"{output}: lies within {name} and would become a part of the disk: move it out")


def _stream(
    source: Source,
    target: BlockDevice,
    definition: Definition,
    progress: Progress | None,
    contents: Contents,
    *,
    kept: bool = True,
) -> DiskPlan:
    """Read a source that passes once: bodies go to their final blocks of ``target``; what is left is the plan.

    Nothing of the plan is written yet. It has no segments where bodies lie, so that copying it leaves them alone.
    ``kept`` says that the target keeps what is written to it.
    """
    from concurrent.futures import ThreadPoolExecutor

    from blockwright.build.partitioned import draft
    from blockwright.fs.ext4.stream import StreamPlacer

    start, size = streamed_root(definition, contents)
    root = definition.root.partition
    with Window(target, start, owns=False) as window:
        # Identities and times follow from the tree, which is known when the stream has ended.
        placer = StreamPlacer(window, ext4_options(root, b"", 0, size))
        found = source.read(source.shown(placer.place, progress) if progress else placer.place)

        def readable(content: Content) -> Content:
            placer.settle()
            assert isinstance(content, PlacedContent)
            return _content_at(content, target, start)

        tree = _dated(contents.apply(found, readable if kept else None), definition)
        if kept and tree is not found:
            placer.settle()
            _zero_dropped(found, tree, target, start)
        del found
        with ThreadPoolExecutor(1) as beside:
            # Bodies go to the medium while metadata is planned: the one waits, the other computes.
            flushed = beside.submit(window.flush)
            seed, time_ns = definition.identity_seed(tree_digest(tree)), disk_time_ns(tree, definition)
            options = ext4_options(root, seed, time_ns, size)
            if definition.table is Table.NONE:
                plan = bare(placer.finish(tree, options), definition, contents)
            else:
                whole = tree
                if definition.boot.ways or definition.verity:
                    placer.settle()
                    whole = _readable(tree, target, start)
                disk = draft(whole, definition, seed, time_ns, streamed=True, contents=contents)
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


def _content_at(content: PlacedContent, target: BlockDevice, start: int) -> Content:
    """Return a body that was placed, made readable from where it lies."""
    starts = [start + run.position for run in content.placed]
    return DeviceContent(target, content.size, content.runs(), starts)


def _zero_dropped(before: Directory, after: Directory, target: BlockDevice, start: int) -> None:
    """Have zeros where bodies lie that were left out: somebody may have wished that nobody reads them."""
    stays = {id(content) for content in _placed(after)}
    for content in _placed(before):
        if id(content) not in stays:
            for run in content.placed:
                target.zero(start + run.position, run.length)


def _placed(tree: Directory) -> Iterator[PlacedContent]:
    """Yield what was placed of each file, by each of its names."""
    stack = [tree]
    while stack:
        for node in stack.pop().entries.values():
            if isinstance(node, Directory):
                stack.append(node)
            elif isinstance(node, File) and isinstance(node.content, PlacedContent):
                yield node.content


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
                    content = _content_at(node.content, target, start)
                    made = File(node.permissions, node.uid, node.gid, node.mtime_ns, node.xattrs, content)
                copies[id(node)] = made
            new.entries[name] = made
    return root
