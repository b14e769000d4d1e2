"""A BIOS's loader in a disk that is planned: its files in a tree, and what is filled in when the tree has its places.

Knows: how contents are found among segments. Refuses to know: loaders (``boot.bios``) and partitions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from blockwright.boot import bios, menu
from blockwright.boot.bios import Code, Starter
from blockwright.boot.kernel import Kernel
from blockwright.boot.uefi import Files
from blockwright.device.planned import SegmentTable
from blockwright.errors import Unsupported
from blockwright.fs.reader import Placed
from blockwright.tree.content import PlacedContent
from blockwright.tree.late import LateContent
from blockwright.tree.lookup import lookup
from blockwright.tree.node import Directory, File
from blockwright.tree.solid import SolidContent, is_solid

__all__ = ["CORE_SIZE", "Code", "CorePlan", "PlannedLoader"]

CORE_SIZE = bios.CORE_SIZE


class CoreSummary(NamedTuple):
    """What people ask of a core image."""

    core_size: int


@dataclass(frozen=True, slots=True)
class CorePlan:
    """A core image in a partition of its own, which holds nothing else."""

    image: bytes

    @property
    def kind(self) -> str:
        """``grub core``."""
        return "grub core"

    @property
    def size(self) -> int:
        """Bytes in the image."""
        return len(self.image)

    @property
    def summary(self) -> CoreSummary:
        """The numbers that people ask of it."""
        return CoreSummary(len(self.image))

    def segments(self) -> SegmentTable:
        """Return the image."""
        table = SegmentTable()
        table.add_bytes(0, self.image)
        return table


@dataclass(slots=True)
class PlannedLoader:
    """A loader on its way into a plan: ``files`` first, ``code`` when they have their places, and so on again."""

    starter: Starter
    home: bios.Home
    _image: LateContent | None = field(default=None, init=False)

    def files(self, entry: menu.Entry) -> Files:
        """Return the loader's files by path; the one that must know its place is still to be filled in."""
        files = self.starter.files(self.home, entry)
        image = self.starter.image(self.home)
        if image is not None:
            self._image = files[image.path] = LateContent(len(image.blank))
        return files

    def code(
        self, segments: SegmentTable, *, start: int, size: int, number: int, core_at: int, core_room: int
    ) -> Code:
        """Return what is outside of files, for a home whose segments are those, and fill in what is inside."""
        runs = [] if self._image is None else placement(segments, self._image)
        code = self.starter.code(self.home, bios.Site(start, size, number, runs, core_at, core_room))
        if self._image is not None:
            self._image.fill(code.image)
        return code


def fill_holes(tree: Directory, kernel: Kernel) -> None:
    """Have the kernel and its RAM disk without holes, where they are in the tree.

    Raises Unsupported where that is too late, since a stream has placed them.
    """
    for path in (kernel.path if kernel.in_tree else None, kernel.initrd_path):
        node = None if path is None else lookup(tree, path.encode())
        if isinstance(node, File) and not is_solid(node.content):
            if isinstance(node.content, PlacedContent):
                raise Unsupported(
                    f"/{path}: expected no holes, which SYSLINUX cannot read, in what an archive has of it"
                )
            node.content = SolidContent(node.content)


def placement(segments: SegmentTable, content: LateContent) -> list[Placed]:
    """Return where the bytes of a content lie among the segments, ascending by their place in it."""
    rows = zip(segments.sources, segments.source_offsets, segments.starts, segments.lengths, strict=True)
    return sorted(Placed(offset, start, length) for source, offset, start, length in rows if source is content)
