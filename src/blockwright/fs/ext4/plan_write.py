"""Gives each node of a tree its blocks, its segments and its place in the inode table.

Blocks are taken in ascending order: all directories first, then everything else by inode number. The blocks of an
extent tree and of attributes follow what they belong to.

Knows: how each kind of node is stored. Refuses to know: groups, bitmaps, superblocks.

Source: Linux 6.1, Documentation/filesystems/ext4 (inodes, ifork, attributes).
"""

from __future__ import annotations

import struct

from blockwright.device.planned import SegmentTable, Source
from blockwright.errors import UsageError
from blockwright.fs.ext4.form import Form
from blockwright.fs.ext4.layout import InodeFlag
from blockwright.fs.ext4.plan_allocate import Allocator
from blockwright.fs.ext4.plan_directory import DirectoryImage
from blockwright.fs.ext4.plan_extents import ExtentRun
from blockwright.fs.ext4.plan_inode import NO_ATTRIBUTES, InodeTable, device_number
from blockwright.fs.ext4.plan_maps import Maps
from blockwright.fs.ext4.plan_measure import FAST_LINK, BlockRuns, Measured, placed_runs
from blockwright.fs.ext4.plan_tree import Inventory
from blockwright.fs.ext4.plan_xattr import MAX_SHARED, finish_block
from blockwright.tree.content import PlacedContent
from blockwright.tree.node import Directory, File, Node, Special, Symlink

_INDEX = InodeFlag.index.value
_MAX_MAJOR = 1 << 12
_MAX_MINOR = 1 << 20
_PERMISSIONS = 0o7777


class Writer:
    """Writes an inventory's inodes and segments; afterwards ``inodes`` and ``table`` hold the result."""

    def __init__(
        self, inventory: Inventory, measured: Measured, allocator: Allocator, form: Form, maps: Maps, seed: int
    ) -> None:
        self.inodes = InodeTable(len(inventory.nodes) - 1, form, seed)
        self.table = SegmentTable()
        self._inventory = inventory
        self._measured = measured
        self._allocator = allocator
        self._block_size = form.block_size
        self._form = form
        self._maps = maps
        self._single, self._flag = maps.single, maps.flag  # asked for every file
        self._seed = seed if form.metadata_csum else None
        self._shared: dict[bytes, tuple[int, int]] = {}

    def write(self) -> None:
        """Write all nodes. Raises UsageError, naming the path, for what the fields of an inode cannot hold."""
        inventory = self._inventory
        self._limit_links()
        node: Node | None = None
        try:
            for number, image in inventory.directories.items():
                node = inventory.nodes[number]
                assert node is not None, "a directory has a node"
                self._directory(number, node, image)
            for number, node in enumerate(inventory.nodes):
                if isinstance(node, File):
                    self._file(number, node)
                elif isinstance(node, Symlink):
                    self._symlink(number, node)
                elif isinstance(node, Special):
                    self._special(number, node)
        except struct.error:
            assert node is not None, "reserved inodes hold what fits"
            raise self._refused(node) from None
        for block, (place, count) in self._shared.items():
            self._attribute_block(block, place, count)

    def _refused(self, node: Node) -> UsageError:
        return UsageError(
            f"{self._inventory.path_of(node)}: expected owner and permissions within 32 and 12 bits, "
            f"found {node.uid}:{node.gid} {node.permissions:#o}"
        )

    def store(self, number: int, runs: BlockRuns, source: Source | bytes, size: int) -> tuple[bytes, int]:
        """Give blocks to ascending logical runs; return i_block and the bytes allocated, those of the tree with them.

        What lies in the blocks is ``source``, up to ``size``.
        """
        block_size, add = self._block_size, self.table.add
        extents = []
        for logical, count in runs:
            for physical, part in self._allocator.take(count):
                extents.append(ExtentRun(logical, physical, part))
                start = logical * block_size
                if start < size:
                    add(physical * block_size, min(part * block_size, size - start), source, start)
                logical += part  # noqa: PLW2901  # the rest of the run
        blocks = sum(count for _, count in runs)
        i_block, more = self._tree(number, extents)
        return i_block, (blocks + more) * block_size

    def _tree(self, number: int, extents: list[ExtentRun]) -> tuple[bytes, int]:
        """Return i_block of the extents, and how many blocks were taken for the tree below it."""
        count = self._maps.needed(extents)
        places = [start + i for start, length in self._allocator.take(count) for i in range(length)]
        i_block, contents = self._maps.build(number, extents, places)
        for place, content in zip(places, contents, strict=True):
            self.table.add_bytes(place * self._block_size, content)
        return i_block, count

    def _limit_links(self) -> None:
        """Give directories with too many subdirectories the link count 1; refuse files with too many names."""
        links, most = self._inventory.links, self._form.max_links
        if max(links) <= most:
            return
        for number, count in enumerate(links):
            node = self._inventory.nodes[number]
            if count <= most or node is None:
                continue
            if not isinstance(node, Directory):
                raise UsageError(f"{self._inventory.path_of(node)}: expected at most {most} links, found {count}")
            if not self._form.dir_nlink:
                raise UsageError(
                    f"{self._inventory.path_of(node)}: expected at most {most - 2} directories in it without "
                    f"dir_nlink, found {count - 2}"
                )
            links[number] = 1

    def _directory(self, number: int, node: Node, image: DirectoryImage) -> None:
        block_size = self._block_size
        size = image.blocks * block_size
        if image.blocks == 1:
            place = self._allocator.take_one()
            self.table.add_bytes(place * block_size, image.head)
            if image.tail:
                self.table.add_bytes((place + 1) * block_size - len(image.tail), image.tail)
            i_block, allocated = self._one(place), size
        else:
            i_block, allocated = self.store(number, [(0, image.blocks)], image.head, size)
        flags = self._maps.flag | _INDEX if image.levels else self._maps.flag
        self._put(number, node, size, flags, i_block, allocated)

    def _file(self, number: int, node: File) -> None:
        content = node.content
        size = content.size
        if not size:
            i_block, allocated = self._maps.empty, 0
        elif number in self._measured.runs:
            i_block, allocated = self.store(number, self._measured.runs[number], content, size)
        elif type(content) is PlacedContent:
            i_block, allocated = self._placed(number, content)
        else:
            allocator, block_size = self._allocator, self._block_size
            count = -(-size // block_size)
            start = allocator.cursor
            plain = self._single(start, count) if count <= allocator.gap_end - start else None
            if plain is not None:
                allocator.cursor = start + count
                self.table.add(start * block_size, size, content)
                i_block, allocated = plain, count * block_size
            else:
                i_block, allocated = self.store(number, [(0, count)], content, size)
        self._put(number, node, size, self._flag, i_block, allocated)

    def _placed(self, number: int, content: PlacedContent) -> tuple[bytes, int]:
        """Return i_block and the bytes allocated of a body that lies in place."""
        runs = self._measured.bodies.get(number) or placed_runs(content, self._block_size)
        if len(runs) == 1 and not runs[0].logical:
            plain = self._maps.single(runs[0].physical, runs[0].blocks)
            if plain is not None:
                return plain, runs[0].blocks * self._block_size
        i_block, more = self._tree(number, runs)
        return i_block, (sum(run.blocks for run in runs) + more) * self._block_size

    def _symlink(self, number: int, node: Symlink) -> None:
        target = node.target
        if len(target) < FAST_LINK:
            self._put(number, node, len(target), 0, target.ljust(60, b"\0"), 0)
            return
        place = self._allocator.take_one()
        self.table.add_bytes(place * self._block_size, target)
        self._put(number, node, len(target), self._maps.flag, self._one(place), self._block_size)

    def _one(self, place: int) -> bytes:
        """Return i_block of one block."""
        found = self._maps.single(place, 1)
        assert found is not None, "every map has room for one block in the inode"
        return found

    def _special(self, number: int, node: Special) -> None:
        if not (0 <= node.major < _MAX_MAJOR and 0 <= node.minor < _MAX_MINOR):
            raise UsageError(
                f"{self._inventory.path_of(node)}: expected a device number within 4095 and 1048575, "
                f"found {node.major}:{node.minor}"
            )
        self._put(number, node, 0, 0, device_number(node.major, node.minor), 0)

    def _put(self, number: int, node: Node, size: int, flags: int, i_block: bytes, allocated: int) -> None:
        attributes = NO_ATTRIBUTES
        if node.xattrs:
            packed = self._measured.attributes[number]
            attributes = packed.body, 0
            if packed.block is not None:
                attributes = packed.body, self._share(packed.block)
                allocated += self._block_size
        links, owner = self._inventory.links[number], (node.uid, node.gid)
        if node.permissions & ~_PERMISSIONS:
            raise self._refused(node)
        mode = (node.KIND or node.kind) | node.permissions
        data = i_block, allocated
        self.inodes.put(number, mode, owner, links, size, node.mtime_ns, flags, data, attributes)

    def _share(self, block: bytes) -> int:
        """Return where a block of attributes lies: with an equal one, while that has room for another inode."""
        place, count = self._shared.get(block, (0, MAX_SHARED))
        if count == MAX_SHARED:
            if place:
                self._attribute_block(block, place, count)
            place, count = self._allocator.take_one(), 0
        self._shared[block] = place, count + 1
        return place

    def _attribute_block(self, block: bytes, place: int, count: int) -> None:
        self.table.add_bytes(place * self._block_size, finish_block(block, count, place, self._seed))
