"""An image against what it was made from: every difference, by path and aspect, without mounting.

A source that can be read anywhere is compared as it is. One that passes once is read for its metadata and a
fingerprint of each body; where a body differs it is read once more, if it can be, for the byte.

Knows: what a file system cannot hold and what a build adds, which are no differences. Refuses to know: how trees are
compared, and any file system's bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from blockwright.address import part_name
from blockwright.device.base import BlockDevice
from blockwright.device.window import Window
from blockwright.errors import UsageError
from blockwright.format.policy import REFUSE, Policy
from blockwright.fs.ext4 import layout as ext4
from blockwright.fs.ext4.read import Ext4FileSystem
from blockwright.fs.fat import layout as fat
from blockwright.fs.reader import FileSystem
from blockwright.resolve import Known, identify, open_device, open_file_system, table_of
from blockwright.source import Source
from blockwright.tree.changes.options import FILES, Changes
from blockwright.tree.compare import ASPECTS, Difference, differences
from blockwright.tree.content import Content
from blockwright.tree.node import Directory, File, Node, Symlink
from blockwright.tree.passing import Fingerprints, PassedContent, Pinpoint
from blockwright.tree.rules import Remarks

LOST_FOUND: Final = b"lost+found"
LOADERS: Final = (b"boot/extlinux", b"boot/grub/i386-pc", b"boot/grub")
"""Directories of a BIOS's loader, which ``build --boot`` puts into the root."""
_NOT_IN_FAT: Final = frozenset({"uid", "gid", "xattrs", "links"})
_NS: Final = 10**9
_SHORT_INODE: Final = 128

NO_CHANGES: Final = Changes()
Reopen = Callable[[], Source]


@dataclass(slots=True)
class Comparison:
    """What a source was compared with, ``place`` (``disk.img:1``), a file system of ``kind``.

    ``differences`` is to be iterated once, while both are open. Then ``nodes`` says how many names were compared,
    ``added`` which paths are the writer's own, and ``remarks`` what was not taken from the source.
    """

    place: str
    kind: str
    differences: Iterator[Difference]
    nodes: int = 0
    added: list[bytes] = field(default_factory=list)
    remarks: Remarks = field(default_factory=Remarks)


def open_root(
    text: str,
    *,
    partition: int | None = None,
    form: str | None = None,
    policy: Policy = REFUSE,
    force_unlocked: bool = False,
) -> tuple[FileSystem, str]:
    """Return the file system that ``text`` names, open, and its name; of a partitioned disk the only ext one.

    Raises UsageError where a disk has none or several, else as ``open_device`` and ``open_file_system`` do.
    """
    device = open_device(text, partition=partition, force_unlocked=force_unlocked, form=form, policy=policy)
    with ExitStack() as stack:
        stack.callback(device.close)
        name = text if partition is None else part_name(text, partition)
        if identify(device) in (Known.GPT, Known.MBR):
            device, name = _only_root(device, text)
        found = open_file_system(device, source=name)
        stack.pop_all()
        return found, name


def _only_root(disk: BlockDevice, text: str) -> tuple[BlockDevice, str]:
    known: list[tuple[int, Known | None]] = []
    partitions = {each.number: each for each in table_of(disk, text).partitions}
    for number, each in partitions.items():
        with Window(disk, each.start, each.size, owns=False) as window:
            known.append((number, identify(window)))
    roots = [number for number, kind in known if kind is Known.EXT4]
    if len(roots) != 1:
        shown = ", ".join(f"{part_name(text, number)} ({kind.value})" for number, kind in known if kind) or "none"
        raise UsageError(f"{text}: expected the partition that is to be compared, found file systems in {shown}")
    chosen = partitions[roots[0]]
    return Window(disk, chosen.start, chosen.size), part_name(text, chosen.number)


def compare(
    image: FileSystem,
    place: str,
    source: Source,
    *,
    time_s: int | None = None,
    ignore: Collection[str] = (),
    added: Collection[str] = (),
    changes: Changes = NO_CHANGES,
    reopen: Reopen | None = None,
) -> Comparison:
    """Return how the file system ``image``, called ``place``, differs from ``source``, both of which stay open.

    ``time_s`` is SOURCE_DATE_EPOCH as the build had it; ``ignore`` names aspects (``tree.compare.ASPECTS``), and
    ``added`` paths that the image may have of its own, with all that is below them. ``changes`` are what the build
    made of the source's tree.
    ``reopen`` returns a source that passes once anew: without it the first byte of a body that differs is not known.
    Raises what reading either raises, while ``differences`` is iterated.
    """
    unknown = set(ignore) - ASPECTS
    if unknown:
        raise UsageError(f"ignore: expected names out of {', '.join(sorted(ASPECTS))}, found {', '.join(unknown)}")
    if changes.fstab or changes.cloud_init_as != FILES:
        raise UsageError("check: fstab and a partition for cloud-init are of disks: --added takes what they made")
    comparison = Comparison(place, image.kind, iter(()))
    more = [os.fsencode(path).strip(b"/") for path in added]
    comparison.differences = _run(comparison, image, source, time_s, frozenset(ignore), more, changes, reopen)
    return comparison


def _run(
    comparison: Comparison,
    image: FileSystem,
    source: Source,
    time_s: int | None,
    ignore: frozenset[str],
    added: list[bytes],
    changes: Changes,
    reopen: Reopen | None,
) -> Iterator[Difference]:
    wanted = source.read() if source.addressable else source.read(Fingerprints().place)
    if changes:
        from blockwright.tree.changes.ready import ready

        wanted = ready(changes).apply(wanted)
    comparison.remarks = source.remarks
    found = image.tree()
    comparison.nodes = _normalise(wanted, _limits(image, time_s))
    _open_links(wanted)
    _open_links(found)
    if isinstance(image, Ext4FileSystem):
        comparison.added += _take_added(wanted, found)
    else:
        ignore |= _NOT_IN_FAT
        found.mtime_ns, wanted.mtime_ns = 0, 0  # the root has no entry that would say so
    comparison.added += [path for path in added if _take(wanted, found, path)]
    later: dict[int, list[Difference]] = {}
    for each in differences(wanted, found, contents=True, ignore=ignore):
        if isinstance(each.left, PassedContent):
            later.setdefault(each.left.number, []).append(each)
        else:
            yield each
    if later:
        yield from _pinpointed(later, reopen)


def _pinpointed(later: dict[int, list[Difference]], reopen: Reopen | None) -> Iterator[Difference]:
    """Yield differences of bodies that passed, with their bytes where the source can be had again."""
    seen: dict[int, tuple[int, bytes]] = {}
    if reopen is not None:
        contents = {number: each[0].right for number, each in later.items()}
        pinpoint = Pinpoint({number: each for number, each in contents.items() if isinstance(each, Content)})
        with reopen() as again:
            again.read(pinpoint.place)
        seen = pinpoint.found
    for number, found in later.items():
        for each in found:
            if number not in seen or not isinstance(each.right, Content):
                yield Difference(each.path, "content", None, None)
                continue
            offset, data = seen[number]
            yield Difference(each.path, "content", (offset, data), (offset, each.right.read(offset, len(data))))


# -- what a writer changes knowingly ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Limits:
    """What becomes of times and modes on the way into a file system. Nanoseconds."""

    least_ns: int
    most_ns: int
    step_ns: int
    modes: bool


def _limits(image: FileSystem, time_s: int | None) -> _Limits:
    if isinstance(image, Ext4FileSystem):
        short = image.volume.geometry.inode_size == _SHORT_INODE
        most = ext4.decode_time(*ext4.encode_time(1 << 64)) if not short else ((1 << 31) - 1) * _NS
        limits = _Limits(ext4.decode_time(*ext4.encode_time(-(1 << 64))), most, _NS if short else 1, modes=True)
    else:
        limits = _Limits(fat.EPOCH_S * _NS, fat.END_S * _NS, 2 * _NS, modes=False)
    if time_s is None:
        return limits
    return _Limits(limits.least_ns, min(limits.most_ns, time_s * _NS), limits.step_ns, limits.modes)


def _normalise(tree: Directory, limits: _Limits) -> int:
    """Give every node what the file system keeps of its time and mode; return how many names there are."""
    count = 0
    for node in _nodes(tree):
        count += 1
        _limit(node, limits)
    return count


def _open_links(tree: Directory) -> None:
    """Give all symbolic links the same permissions: a host makes its own, an archive says any, and nobody looks."""
    for node in _nodes(tree):
        if isinstance(node, Symlink):
            node.permissions = 0o777


def _nodes(tree: Directory) -> Iterator[Node]:
    """Yield the node of every name."""
    yield tree
    stack = [tree]
    while stack:
        for node in stack.pop().entries.values():
            yield node
            if isinstance(node, Directory):
                stack.append(node)


def _limit(node: Node, limits: _Limits) -> None:
    time_ns = max(limits.least_ns, min(node.mtime_ns, limits.most_ns))
    node.mtime_ns = time_ns - time_ns % limits.step_ns
    if not limits.modes:
        node.permissions = 0o755 if isinstance(node, Directory) else 0o644 if node.permissions & 0o222 else 0o444


def _take_added(wanted: Directory, found: Directory) -> list[bytes]:
    """Take out of ``found`` what a build puts there of its own, and return the paths.

    That is an empty ``lost+found``, and in a loader's directory each file that the source has not.
    """
    added = []
    own = found.entries.get(LOST_FOUND)
    if LOST_FOUND not in wanted.entries and isinstance(own, Directory) and not own.entries:
        del found.entries[LOST_FOUND]
        added.append(LOST_FOUND)
    for path in LOADERS:
        added += _take_loader(wanted, found, path.split(b"/"))
    return added


def _take_loader(wanted: Directory, found: Directory, names: list[bytes]) -> list[bytes]:
    """Take a loader's files out of ``found``, and directories that are left with nothing and are not wanted."""
    trail: list[tuple[Directory, Directory | None, bytes]] = []
    there: Directory | None = wanted
    for name in names:
        below = found.entries.get(name)
        if not isinstance(below, Directory):
            return []
        trail.append((found, there, name))
        other = there.entries.get(name) if there is not None else None
        there = other if isinstance(other, Directory) else None
        found = below
    kept = there.entries if there is not None else {}
    path = b"/".join(names)
    taken = [name for name, node in found.entries.items() if name not in kept and isinstance(node, File)]
    for name in taken:
        del found.entries[name]
    for parent, theirs, name in reversed(trail):
        node = parent.entries[name]
        if (
            isinstance(node, Directory)
            and not node.entries
            and taken
            and (theirs is None or name not in theirs.entries)
        ):
            del parent.entries[name]
    return [path + b"/" + name for name in sorted(taken)]


def _take(wanted: Directory, found: Directory, path: bytes) -> bool:
    """Take a path out of ``found`` that ``wanted`` has not; return whether it was there."""
    *parents, name = path.split(b"/")
    there: Directory | None = wanted
    for part in parents:
        below, other = found.entries.get(part), None if there is None else there.entries.get(part)
        if not isinstance(below, Directory):
            return False
        found, there = below, other if isinstance(other, Directory) else None
    if name not in found.entries or (there is not None and name in there.entries):
        return False
    del found.entries[name]
    return True
