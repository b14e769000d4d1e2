"""A tree becomes a FAT volume as a value: where every directory and file lies, and every byte beside them.

Each body takes one run of clusters, in the order of the tree, directories first. A node under two names is
copied: FAT has no hard links.

Knows: allocation and directory entries. Refuses to know: devices, and where contents come from.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from blockwright.device.planned import SegmentTable
from blockwright.errors import UsageError
from blockwright.fs.fat import layout
from blockwright.fs.fat.boot import boot_region
from blockwright.fs.fat.chains import ChainSource
from blockwright.fs.fat.entries import DOT, DOT_DOT, file_attributes, short_entry
from blockwright.fs.fat.geometry import Geometry, Need, choose
from blockwright.fs.fat.names import Name, ShortNames, check_name, encode_long, exact_short, fold, long_entries
from blockwright.fs.fat.options import FatOptions
from blockwright.tree.content import Content, PlacedContent
from blockwright.tree.node import Directory, File

__all__ = ["FatOptions", "FatPlan", "plan"]


@dataclass(slots=True)
class Folder:
    """A directory to be written. ``size`` in bytes of entries; ``cluster`` is 0 for a fixed root."""

    node: Directory
    path: bytes
    parent: Folder | None
    files: list[tuple[Name, File]] = field(default_factory=list)
    folders: list[tuple[Name, Folder]] = field(default_factory=list)
    size: int = 0
    cluster: int = 0


class Summary(NamedTuple):
    """What is told of the finished volume. ``data_start`` and sizes without a unit in bytes."""

    label: str
    volume_id: str
    sector_size: int
    cluster_size: int
    clusters: int
    free_clusters: int
    reserved_sectors: int
    fat_sectors: int
    root_entries: int
    data_start: int
    files: int
    directories: int


@dataclass(frozen=True, slots=True)
class FatPlan:
    """A whole volume, nothing of it read or written yet. ``used_clusters`` is what the tree takes."""

    options: FatOptions
    geometry: Geometry
    folders: tuple[Folder, ...]
    used_clusters: int
    files: int

    @property
    def size(self) -> int:
        """Bytes in the volume."""
        return self.geometry.size

    @property
    def kind(self) -> str:
        """``fat12``, ``fat16`` or ``fat32``."""
        return f"fat{self.geometry.bits}"

    def moved(self, hidden_sectors: int) -> FatPlan:
        """Return the same volume for a partition that starts at that LBA."""
        return replace(self, options=replace(self.options, hidden_sectors=hidden_sectors))

    def started_by(self, boot_sector: bytes) -> FatPlan:
        """Return the same volume with a loader's code in its boot sector."""
        return replace(self, options=replace(self.options, boot_sector=boot_sector))

    @property
    def summary(self) -> Summary:
        """The numbers that people ask of a volume."""
        geometry = self.geometry
        return Summary(
            label=self.options.label_bytes.decode().rstrip(),
            volume_id=f"{self.options.effective_volume_id:08x}",
            sector_size=geometry.sector_size,
            cluster_size=geometry.cluster_size,
            clusters=geometry.clusters,
            free_clusters=geometry.clusters - self.used_clusters,
            reserved_sectors=geometry.reserved_sectors,
            fat_sectors=geometry.fat_sectors,
            root_entries=geometry.root_entries,
            data_start=geometry.data_start,
            files=self.files,
            directories=len(self.folders) - 1,
        )

    def segments(self) -> SegmentTable:
        """Return every byte of the volume that is not a hole, positions relative to its start."""
        table = SegmentTable()
        geometry, options = self.geometry, self.options
        used_end = layout.FIRST_CLUSTER + self.used_clusters
        for offset, data in boot_region(geometry, options, geometry.clusters - self.used_clusters, used_end):
            table.add_bytes(offset, data)
        ends: array[int] = array("Q")
        bodies = SegmentTable()
        next_cluster = layout.FIRST_CLUSTER
        mask, shift = geometry.cluster_size - 1, (geometry.cluster_size - 1).bit_length()
        for folder in self.folders:
            if folder.parent is not None or geometry.bits == 32:
                assert folder.cluster == next_cluster, "clusters were assigned in this order"
                next_cluster += max(1, folder.size + mask >> shift)
                ends.append(next_cluster - 1)
        for folder in self.folders:
            next_cluster = self._add_folder(folder, next_cluster, ends, bodies)
        chains = ChainSource(geometry.bits, ends, geometry.media)
        for copy in range(geometry.fats):
            table.add(geometry.fat_start(copy), chains.length, chains)
        table.include(bodies, 0)
        table.freeze()
        return table

    def _add_folder(self, folder: Folder, next_cluster: int, ends: array[int], bodies: SegmentTable) -> int:
        """Add a directory's entries and its files' contents from ``next_cluster`` on; return the next free one."""
        geometry = self.geometry
        cluster_size, base = geometry.cluster_size, geometry.cluster_start(0)
        parts: list[bytes] = []
        if folder.parent is not None:
            above = folder.parent.cluster if folder.parent.parent is not None else 0
            parts.append(short_entry(DOT, 0, layout.DIRECTORY, folder.node.mtime_ns, folder.cluster, 0))
            parts.append(short_entry(DOT_DOT, 0, layout.DIRECTORY, folder.node.mtime_ns, above, 0))
        elif self.options.label_bytes:
            time_ns = folder.node.mtime_ns if self.options.time_ns is None else self.options.time_ns
            parts.append(short_entry(self.options.label_bytes, 0, layout.VOLUME, time_ns, 0, 0))
        for name, child in folder.folders:
            if name.long:
                parts.append(long_entries(name))
            parts.append(short_entry(name.short, name.case, layout.DIRECTORY, child.node.mtime_ns, child.cluster, 0))
        for name, file in folder.files:
            content = file.content
            size = content.size
            attributes = file_attributes(file.permissions)
            if name.long:
                parts.append(long_entries(name))
            parts.append(
                short_entry(name.short, name.case, attributes, file.mtime_ns, next_cluster if size else 0, size)
            )
            if size:
                start = base + next_cluster * cluster_size
                for offset, length in content.runs():
                    bodies.add(start + offset, length, content, offset)
                next_cluster += -(-size // cluster_size)
                ends.append(next_cluster - 1)
        fixed_root = folder.parent is None and geometry.bits != 32
        where = geometry.root_start if fixed_root else base + folder.cluster * cluster_size
        bodies.add_bytes(where, b"".join(parts))
        return next_cluster


def plan(root: Directory, options: FatOptions = FatOptions()) -> FatPlan:  # noqa: B008  # frozen
    """Return the volume that holds the tree.

    Raises UsageError naming the path of what FAT cannot hold (names, links, devices, files of 4 GiB, and bodies
    that were placed elsewhere already); NoSpace with both sizes where the content does not fit.
    """
    folders, bodies, files = _collect(root, options)
    for folder in folders[1:]:
        bodies.append(folder.size)
    need = Need(folders[0].size, bodies)
    geometry = choose(
        need,
        size=options.size,
        bits=options.bits,
        sector_size=options.sector_size,
        cluster_size=options.cluster_size,
        free=options.free,
    )
    cluster = layout.FIRST_CLUSTER
    for folder in folders:
        if folder.parent is not None or geometry.bits == 32:
            folder.cluster = cluster
            cluster += max(1, -(-folder.size // geometry.cluster_size))
    return FatPlan(options, geometry, tuple(folders), need.clusters(geometry.bits, geometry.cluster_size), files)


def _collect(root: Directory, options: FatOptions) -> tuple[list[Folder], list[int], int]:
    """Return every directory with its names, parents first; the sizes of all files that are not empty; how many."""
    top = Folder(root, b"", None)
    folders = [top]
    bodies: list[int] = []
    files = 0
    stack = [top]
    while stack:
        folder = stack.pop()
        entries = 2 if folder.parent is not None else int(bool(options.label_bytes))
        children = _named(folder, options)
        for path, name, node in children:
            entries += name.entries
            if isinstance(node, Directory):
                folder.folders.append((name, Folder(node, path, folder)))
            else:
                files += 1
                folder.files.append((name, node))
                if node.content.size:
                    bodies.append(node.content.size)
        folder.size = entries * layout.ENTRY_SIZE
        if folder.size > layout.MAX_DIRECTORY:
            raise UsageError(
                f"{_show(folder.path)}: expected at most 65536 entries in a directory of FAT, found {entries}"
            )
        below = [child for _, child in folder.folders]
        folders.extend(below)
        stack.extend(reversed(below))
    return folders, bodies, files


def _named(folder: Folder, options: FatOptions) -> list[tuple[bytes, Name, Directory | File]]:
    """Return the path, name and node of everything in a directory, sorted by name."""
    prefix = folder.path + b"/" if folder.path else b""
    shorts = ShortNames()
    seen: dict[str, bytes] = {}
    kept: list[tuple[bytes, str, tuple[bytes, int] | None, Directory | File]] = []
    for raw, node in sorted(folder.node.entries.items()):
        path = prefix + raw
        if not isinstance(node, Directory | File):
            if options.drop_unsupported:
                continue
            raise unsupported(path)
        if isinstance(node, File):
            check_content(path, node.content)
        text = check_name(raw, path)
        other = seen.setdefault(fold(text), path)
        if other is not path:
            raise UsageError(f"{_show(path)}: is the same name as {_show(other)} to FAT, which ignores case")
        exact = exact_short(text)
        if exact is not None:
            shorts.add(exact[0])
        kept.append((path, text, exact, node))
    result = []
    for path, text, exact, node in kept:
        name = Name(*exact, b"") if exact else Name(shorts.alias(text), 0, encode_long(text))
        result.append((path, name, node))
    return result


def unsupported(path: bytes) -> UsageError:
    """Return the refusal of a node that is neither file nor directory."""
    return UsageError(f"{_show(path)}: FAT holds files and directories only")


def check_content(path: bytes, content: Content) -> None:
    """Raise UsageError for a file's content that no FAT volume holds."""
    if isinstance(content, PlacedContent):
        raise UsageError(f"{_show(path)}: its content was placed already, which a FAT volume cannot refer to")
    if content.size > layout.MAX_FILE:
        raise UsageError(f"{_show(path)}: expected at most {layout.MAX_FILE} bytes, found {content.size}")


def _show(path: bytes) -> str:
    return ascii(path.decode("utf-8", "surrogateescape"))[1:-1][:200] or "/"
