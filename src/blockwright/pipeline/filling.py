"""A fetched source becomes the file system of a volume: how large that is, and how it is written.

Nothing is extracted: a tree is planned as ext4 and written straight to where the volume will be.

Knows: sources by how often they can be read. Refuses to know: pools, and steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from blockwright.build.definition import Definition, RootOptions, Table
from blockwright.build.holding import ext4_options
from blockwright.build.plan import plan_disk
from blockwright.build.run import build
from blockwright.device.base import BlockDevice
from blockwright.device.extent import ZERO
from blockwright.device.file import open_path
from blockwright.device.spool import scratch_device
from blockwright.errors import ArchiveRejected, Rejection
from blockwright.fs.ext4.plan import Draft
from blockwright.fs.ext4.plan_sizing import smallest
from blockwright.pipeline.context import Context, rules_of
from blockwright.pipeline.inputs import Inputs
from blockwright.pipeline.request import Request
from blockwright.pipeline.states import Event
from blockwright.source import Source
from blockwright.source.layered import LayeredSource
from blockwright.tree.content import Content, Fill, Place, Runs
from blockwright.tree.node import Directory, File
from blockwright.tree.spool import Spool
from blockwright.units import MiB, align_up

FREE: Final = 0.2
"""The share of a volume that is free where no size is asked for."""
LEAST: Final = 8 * MiB
"""Bytes of the smallest volume that is made without being asked for."""
_PIECE: Final = 1 << 20


class Counted(NamedTuple):
    """Names, files and bytes of a tree; files with several names count once."""

    names: int
    files: int
    size: int


class KnownSource(Source):
    """A source that can be read anywhere, with its tree, which was read already. It owns nothing."""

    addressable = True

    def __init__(self, source: Source, tree: Directory) -> None:
        self.kind, self.name, self.remarks = source.kind, source.name, source.remarks
        self._tree = tree

    def read(self, place: Place | None = None) -> Directory:
        """Return the tree."""
        return self._tree

    def close(self) -> None:
        """Do nothing: the source stays open."""


def tree_of(source: Source, context: Context) -> Directory:
    """Return what a source holds, read to its end and verified; the context has it for the next one who asks.

    Contents of what passes once have sizes and no bytes.
    """
    if context.tree is None:
        if isinstance(source, LayeredSource):
            context.tree = source.look()
        elif source.addressable:
            context.tree = source.read()
        else:
            tree = source.read(source.shown(let_pass, context.watch("verify")))
            context.forget()  # it has passed; who wants its bytes opens it again
            context.tree = tree
    return context.tree


def readable_tree(inputs: Inputs, context: Context) -> Directory:
    """Return what the source holds such that every body can be read anywhere, as long as the context is not closed.

    Bodies of what passes once, and of compressed layers, go to a file without a name. Raises ArchiveRejected where
    they are more than is kept so.
    """
    source = context.source(inputs)
    if context.tree is not None and (source.addressable or context.readable):
        return context.tree
    if source.addressable:
        return tree_of(source, context)
    most, size = rules_of(inputs.request).spool, int(inputs.outputs(Event.VERIFY)["content_bytes"])
    if size > most:
        text = f"spool: expected at most {most} bytes to keep while they are scanned, found {size}"
        raise ArchiveRejected(Rejection.BYTES, text, source=source.name)
    kept = Spool(context.keep(scratch_device(f"{source.name}, kept")))
    context.tree = source.read(source.shown(kept.place, context.watch("scan")))
    context.readable = True
    return context.tree


def definition_of(request: Request, size: int | None) -> Definition:
    """Return a bare ext4 file system of that size; None is what its content needs, and ``FREE`` beside it."""
    root = RootOptions(label=request.label, free=0.0 if size is not None else FREE)
    return Definition(table=Table.NONE, size=size, root=root, seed=request.seed, time_s=request.time_s)


def size_for(tree: Directory, request: Request) -> int:
    """Return the size of the volume that is to hold the tree. Raises NoSpace where the one asked for is too small."""
    if request.size is not None:
        plan_disk(tree, definition_of(request, request.size), b"size")
        return request.size
    options = ext4_options(definition_of(request, None).root.partition, b"size", 0, None)
    geometry = smallest(Draft.of(tree, options).demand, options).geometry
    return max(LEAST, align_up(geometry.blocks * options.block_size, MiB))


def fill(inputs: Inputs, context: Context, path: str, size: int) -> None:
    """Write the file system to ``path``, which is a file that is not there yet, or a block device."""
    source = context.source(inputs)
    if context.readable and context.tree is not None:
        source = KnownSource(source, context.tree)
    elif source.addressable:
        source = KnownSource(source, tree_of(source, context))
    build(source, path, definition_of(inputs.request, size), force=True, progress=context.watch("create"))


def layers_in(source: Source) -> Mapping[str, Any]:
    """Return what is told of a source's layers, nothing where it has none."""
    if not isinstance(source, LayeredSource):
        return {}
    layers: list[dict[str, Any]] = [
        {"digest": each.digest, "diff_id": each.diff_id, "stored_bytes": each.content.size} for each in source.layers
    ]
    for layer, origin in zip(layers, source.origins, strict=False):  # none says so where there is one reference
        layer["reference"] = origin
    return {"layers": layers}


def count(tree: Directory) -> Counted:
    """Return how much a tree holds."""
    names, size, seen, stack = 0, 0, set[int](), [tree]
    while stack:
        for node in stack.pop().entries.values():
            names += 1
            if isinstance(node, Directory):
                stack.append(node)
            elif isinstance(node, File) and id(node) not in seen:
                seen.add(id(node))
                size += node.content.size
    return Counted(names, len(seen), size)


class PassedBody(Content):
    """A body that passed: its size and runs are known, and its bytes are not kept."""

    __slots__ = ("_runs",)

    def __init__(self, size: int, runs: Runs) -> None:
        super().__init__(size)
        self._runs = tuple(runs)

    def runs(self) -> Runs:
        return self._runs

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        raise AssertionError("a body that passed has no bytes any more")


def let_pass(size: int, runs: Runs, fill: Fill, /) -> Content:
    """Take a body's bytes and keep none: a ``Place`` for those who look at a tree only."""
    buffer = memoryview(bytearray(min(_PIECE, max((length for _, length in runs), default=0))))
    for _, length in runs:
        left = length
        while left:
            part = buffer[: min(len(buffer), left)]
            fill(part)
            left -= len(part)
    return PassedBody(size, runs)


def digest_of(path: str, size: int, progress: Callable[[int, int], None]) -> str:
    """Return the SHA-256 of what was written to ``path``, with zeros up to ``size`` where it is shorter."""
    with open_path(path) as device:
        return digest_of_device(device, progress, size)


def digest_of_device(device: BlockDevice, progress: Callable[[int, int], None], size: int | None = None) -> str:
    """Return the SHA-256 of a device's bytes; what is known to be zeros is not read."""
    hasher, whole = hashlib.sha256(), device.size if size is None else size
    buffer, zeros = memoryview(bytearray(_PIECE)), bytes(_PIECE)
    for extent in device.extents(0, device.size):
        for start in range(extent.offset, extent.end, _PIECE):
            length = min(_PIECE, extent.end - start)
            if extent.flags & ZERO:
                hasher.update(zeros if length == _PIECE else bytes(length))
            else:
                device.read_into(start, buffer[:length])
                hasher.update(buffer[:length])
            progress(start + length, whole)
    for start in range(device.size, whole, _PIECE):
        hasher.update(zeros[: whole - start])
    return f"sha256:{hasher.hexdigest()}"
