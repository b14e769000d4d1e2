"""Single-field mutations of ext2, ext3 and ext4 images, most of them with the checksums made right again.

Knows: where structures lie, by our own reader, and how they are summed. Refuses to know: what a mutation means.
A mutation follows from the image's bytes and a seed, so naming both replays it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from blockwright.codec.checksum import crc32c_raw
from blockwright.codec.record import Record
from blockwright.device.memory import MemoryDevice
from blockwright.errors import FormatError
from blockwright.fs.ext4 import layout
from blockwright.fs.ext4.directory import block_checksum, directory_blocks, has_tail, index_checksum, index_offset
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.mapping import block_runs
from blockwright.fs.ext4.volume import Volume, read_superblock
from blockwright.fs.ext4.xattr_read import attribute_block_checksum

Fix = Callable[[bytearray], None]


@dataclass(frozen=True)
class Place:
    """A field: its name, byte of the image and width, and what makes the sums over it right again."""

    name: str
    offset: int
    width: int
    big_endian: bool = False
    fix: Fix | None = None


@dataclass(frozen=True)
class Mutation:
    """One changed field. `patches` are all bytes that differ: (offset, old, new)."""

    seed: str
    name: str
    offset: int
    old: int
    new: int
    summed: bool
    patches: list[tuple[int, bytes, bytes]] = field(repr=False)


class Inventory:
    """All fields of an image that a mutation may pick, by structure."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        device = MemoryDevice(content=data)
        self.volume = Volume(
            device, read_superblock(device, verify=False), source=None, verify=False, super_block=None
        )
        self.bs = self.volume.block_size
        self.csum = self.volume.has_checksums
        self.structures: dict[str, list[Place]] = {}
        self._superblock()
        self._groups()
        self._inodes()
        self._journal()
        self._quotas()
        self._orphans()
        self._mmp()

    def add(self, structure: str, place: Place) -> None:
        self.structures.setdefault(structure, []).append(place)

    def record(self, structure: str, record: type[Record], base: int, limit: int, fix: Fix | None) -> None:
        """Add every field of a record: integers whole, bytes in words."""
        big = record is layout.JournalSuperblock
        for name, (offset, code, width, _default) in record.FIELDS.items():
            if offset + width > limit:
                continue
            if code.endswith("s"):
                for at in range(0, width, 4):
                    part = min(4, width - at)
                    self.add(structure, Place(f"{name}[{at}]", base + offset + at, part, big, fix))
            else:
                self.add(structure, Place(name, base + offset, width, big, fix))

    # -- fixed places ----------------------------------------------------------------------------------------

    def _superblock(self) -> None:
        self.record("superblock", layout.Superblock, 1024, 1024, fix_superblock if self.csum else None)

    def _groups(self) -> None:
        geo, volume = self.volume.geometry, self.volume
        for group in range(geo.groups):
            position = volume.descriptor_position(group)
            self.record("group", layout.GroupDescriptor, position, geo.desc_size, self.fix_group(group))
            descriptor = volume.descriptor(group)
            flags = descriptor.bg_flags
            if not flags & layout.GroupFlag.block_uninit:
                fix = self.fix_bitmap(
                    group, 0x18, descriptor.block_bitmap, geo.blocks_per_group // geo.cluster_blocks
                )
                for at in range(self.bs):
                    self.add("block bitmap", Place(f"byte {at}", descriptor.block_bitmap * self.bs + at, 1, fix=fix))
            if not flags & layout.GroupFlag.inode_uninit:
                fix = self.fix_bitmap(group, 0x1A, descriptor.inode_bitmap, geo.inodes_per_group)
                for at in range(self.bs):
                    self.add("inode bitmap", Place(f"byte {at}", descriptor.inode_bitmap * self.bs + at, 1, fix=fix))

    def _journal(self) -> None:
        superblock = self.volume.superblock
        if not superblock.s_feature_compat & layout.Compat.has_journal or not superblock.s_journal_inum:
            return
        runs = block_runs(self.volume, self.volume.inode(superblock.s_journal_inum))
        self.record("journal", layout.JournalSuperblock, runs[0].physical * self.bs, 0x100, None)

    def _quotas(self) -> None:
        """Add the header of each quota file, and of its other blocks the words that are something."""
        superblock = self.volume.superblock
        if not superblock.s_feature_ro_compat & layout.RoCompat.quota:
            return
        for number in (superblock.s_usr_quota_inum, superblock.s_grp_quota_inum, superblock.s_prj_quota_inum):
            for run in block_runs(self.volume, self.volume.inode(number)) if number else []:
                start, data = run.physical * self.bs, self.volume.blocks(run.physical, run.blocks, "quota")
                for at in range(0, len(data), 4):
                    header = run.logical == 0 and at < 32
                    if header or any(data[at : at + 4]) or at % 512 == 0:
                        name = f"header[{at}]" if header else "word"
                        self.add("quota header" if header else "quota", Place(name, start + at, 4))

    def _orphans(self) -> None:
        superblock = self.volume.superblock
        if not superblock.s_feature_compat & layout.Compat.orphan_file:
            return
        inode = self.volume.inode(superblock.s_orphan_file_inum)
        for run in block_runs(self.volume, inode):
            for block in range(run.physical, run.physical + run.blocks):
                fix, tail = self.fix_orphans(inode, block), self.bs - layout.ORPHAN_TAIL.size
                self.add("orphans", Place("entry", block * self.bs + block % (tail // 4) * 4, 4, fix=fix))
                self.add("orphans", Place("magic", block * self.bs + tail, 4, fix=fix))
                self.add("orphans", Place("checksum", block * self.bs + tail + 4, 4))

    def _mmp(self) -> None:
        superblock = self.volume.superblock
        if not superblock.s_feature_incompat & layout.Incompat.mmp:
            return
        start = superblock.s_mmp_block * self.bs
        fix = self.fix_mmp(start)
        for name, at, width in (("magic", 0, 4), ("sequence", 4, 4), ("time", 8, 8), ("node", 16, 4)):
            self.add("mmp", Place(name, start + at, width, fix=fix))
        self.add("mmp", Place("checksum", start + 1020, 4))

    # -- inodes and what hangs from them ---------------------------------------------------------------------

    def _inodes(self) -> None:
        geo, volume = self.volume.geometry, self.volume
        for group in range(geo.groups):
            descriptor = volume.descriptor(group)
            if descriptor.bg_flags & layout.GroupFlag.inode_uninit:
                continue
            first = group * geo.inodes_per_group + 1
            used = geo.inodes_per_group - descriptor.itable_unused
            for number in range(first, first + used):
                inode = volume.inode(number)
                structure = "inode"
                if not any(inode.raw):
                    if number % 16:
                        continue
                    structure = "unused inode"
                elif number < superblock_first(volume):
                    structure = "reserved inode"
                end = 128 + inode.extra_isize if geo.inode_size > 128 else 128
                self.record(structure, layout.Inode, inode.position, end, self.fix_inode(number))
                if any(inode.raw):
                    self._attached(inode)

    def _attached(self, inode: Inode) -> None:
        fix = self.fix_inode(inode.number)
        if inode.flags & layout.InodeFlag.extents:
            self._extents(inode, inode.block, inode.position + 0x28, fix)
        elif inode.kind in (0o040000, 0o100000) and not inode.flags & layout.InodeFlag.inline_data:
            for level, at in ((1, 48), (2, 52)):
                block = int.from_bytes(inode.block[at : at + 4], "little")
                if block:
                    self._pointers(block, level)
        if inode.kind == 0o040000 and inode.flags & layout.InodeFlag.inline_data:
            self._entries(inode.block, 4, inode.position + 0x28, fix)
        elif inode.kind == 0o040000:
            self._directory(inode)
        elif inode.kind == 0o120000 and not inode.fast_symlink and not inode.flags & layout.InodeFlag.inline_data:
            for run in block_runs(self.volume, inode):
                self.add("symlink", Place("target", run.physical * self.bs + inode.size // 2, 1))
                self.add("symlink", Place("end", run.physical * self.bs + inode.size, 1))
        body = 128 + inode.extra_isize
        if inode.raw[body : body + 4] == layout.XATTR_MAGIC.to_bytes(4, "little"):
            self.add("inner attribute", Place("h_magic", inode.position + body, 4, fix=fix))
            self._attributes("inner attribute", inode.raw[body + 4 :], 0, inode.position + body + 4, fix)
        if inode.file_acl:
            self._attribute_block(inode.file_acl)

    def _extents(self, inode: Inode, data: bytes, position: int, fix: Fix | None) -> None:
        _magic, entries, _most, depth, _generation = layout.EXTENT_HEADER.unpack_from(data)
        for at, name in enumerate(("eh_magic", "eh_entries", "eh_max", "eh_depth")):
            self.add("extent header", Place(name, position + 2 * at, 2, fix=fix))
        for index in range(entries):
            at = 12 + 12 * index
            if depth == 0:
                fields = (("ee_block", 0, 4), ("ee_len", 4, 2), ("ee_start_hi", 6, 2), ("ee_start_lo", 8, 4))
            else:
                fields = (("ei_block", 0, 4), ("ei_leaf_lo", 4, 4), ("ei_leaf_hi", 8, 2), ("ei_unused", 10, 2))
            for name, offset, width in fields:
                self.add("extent", Place(name, position + at + offset, width, fix=fix))
            if depth:
                _block, low, high, _unused = layout.EXTENT_INDEX.unpack_from(data, at)
                block = high << 32 | low
                child = self.volume.blocks(block, 1, "extent")
                self._extents(inode, child, block * self.bs, self.fix_extents(inode, block))
                tail = 12 + 12 * layout.EXTENT_HEADER.unpack_from(child)[2]
                self.add("extent header", Place("et_checksum", block * self.bs + tail, 4))

    def _pointers(self, block: int, level: int) -> None:
        data = self.volume.blocks(block, 1, "pointers")
        for at in range(0, self.bs, 4):
            pointer = int.from_bytes(data[at : at + 4], "little")
            if pointer or at % 64 == 0:
                self.add("pointer", Place(f"level {level}", block * self.bs + at, 4))
            if pointer and level > 1:
                self._pointers(pointer, level - 1)

    def _directory(self, inode: Inode) -> None:
        for _logical, position, block in directory_blocks(self.volume, inode):
            fix = self.fix_directory(inode, position)
            node = index_offset(block, self.bs) if inode.flags & layout.InodeFlag.index else None
            self._entries(block, 0, position, fix)
            if node is None:
                if has_tail(block):
                    for name, at, width in (
                        ("zero", -12, 4),
                        ("rec_len", -8, 2),
                        ("type", -5, 1),
                        ("checksum", -4, 4),
                    ):
                        self.add("entry tail", Place(name, position + self.bs + at, width))
                continue
            if node == 32:
                names = (("reserved", 24, 4), ("hash", 28, 1), ("length", 29, 1), ("levels", 30, 1), ("flags", 31, 1))
                for name, at, width in names:
                    self.add("index", Place("root " + name, position + at, width, fix=fix))
            self.add("index", Place("limit", position + node, 2, fix=fix))
            self.add("index", Place("count", position + node + 2, 2, fix=fix))
            count = layout.DX_COUNT_LIMIT.unpack_from(block, node)[1]
            for entry in range(count):
                if entry:
                    self.add("index", Place("hash", position + node + 8 * entry, 4, fix=fix))
                self.add("index", Place("block", position + node + 8 * entry + 4, 4, fix=fix))

    def _entries(self, block: bytes, start: int, position: int, fix: Fix | None) -> None:
        at = start
        end = len(block) - (12 if has_tail(block) else 0)
        while at + 8 <= end:
            _inode, length, name_length, _type = layout.DIR_ENTRY.unpack_from(block, at)
            for name, offset, width in (("inode", 0, 4), ("rec_len", 4, 2), ("name_len", 6, 1), ("file_type", 7, 1)):
                self.add("entry", Place(name, position + at + offset, width, fix=fix))
            for offset in range(name_length):
                self.add("entry name", Place(f"name[{offset}]", position + at + 8 + offset, 1, fix=fix))
            if name_length < 3:
                self.add("entry name", Place("after", position + at + 8 + name_length, 1, fix=fix))
            if length < 8:
                return
            at += length

    def _attribute_block(self, block: int) -> None:
        data = self.volume.blocks(block, 1, "attributes")
        fix = self.fix_attributes(block)
        for at, name in enumerate(("h_magic", "h_refcount", "h_blocks", "h_hash", "h_checksum")):
            self.add("attribute", Place(name, block * self.bs + 4 * at, 4, fix=fix))
        self._attributes("attribute", data, 32, block * self.bs, fix)

    def _attributes(self, structure: str, data: bytes, start: int, position: int, fix: Fix | None) -> None:
        at = start
        while data[at : at + 4] not in (b"\0\0\0\0", b""):
            name_length, _index, offset, value_inode, size, _hash = layout.XATTR_ENTRY.unpack_from(data, at)
            names = (
                ("e_name_len", 0, 1),
                ("e_name_index", 1, 1),
                ("e_value_offs", 2, 2),
                ("e_value_inum", 4, 4),
                ("e_value_size", 8, 4),
                ("e_hash", 12, 4),
                ("e_name", 16, 1),
            )
            for name, where, width in names:
                if where < 16 or name_length:
                    self.add(structure, Place(name, position + at + where, width, fix=fix))
            if size and not value_inode:
                self.add(structure, Place("value", position + offset, 1, fix=fix))
            at += 16 + (name_length + 3 & ~3)
        self.add(structure, Place("end", position + at, 4, fix=fix))

    # -- sums ------------------------------------------------------------------------------------------------

    def fix_group(self, group: int) -> Fix | None:
        volume = self.volume
        position, size = volume.descriptor_position(group), volume.geometry.desc_size
        if volume.descriptor_checksum(group, bytes(size)) is None:
            return None

        def fix(data: bytearray) -> None:
            found = volume.descriptor_checksum(group, bytes(data[position : position + size]))
            assert found is not None
            data[position + 0x1E : position + 0x20] = found.to_bytes(2, "little")

        return fix

    def fix_bitmap(self, group: int, offset: int, block: int, bits: int) -> Fix | None:
        volume, size = self.volume, self.bs
        fix_group = self.fix_group(group)
        if not self.csum or fix_group is None:
            return None
        position = volume.descriptor_position(group)

        def fix(data: bytearray) -> None:
            found = crc32c_raw(volume.seed, bytes(data[block * size : block * size + bits // 8]))
            data[position + offset : position + offset + 2] = (found & 0xFFFF).to_bytes(2, "little")
            if volume.geometry.desc_size >= 64:
                at = position + offset + 0x20
                data[at : at + 2] = (found >> 16).to_bytes(2, "little")
            fix_group(data)

        return fix

    def fix_inode(self, number: int) -> Fix | None:
        if not self.csum:
            return None
        volume = self.volume
        position, size = volume.inode_position(number), volume.geometry.inode_size

        def fix(data: bytearray) -> None:
            inode = Inode(number, bytes(data[position : position + size]), position)
            found = inode.checksum(volume.seed)
            data[position + 0x7C : position + 0x7E] = (found & 0xFFFF).to_bytes(2, "little")
            if inode.extra_isize >= 4 and size > 128:
                data[position + 0x82 : position + 0x84] = (found >> 16).to_bytes(2, "little")

        return fix

    def fix_extents(self, inode: Inode, block: int) -> Fix | None:
        if not self.csum:
            return None
        seed, size = self.volume.inode_seed(inode), self.bs

        def fix(data: bytearray) -> None:
            start = block * size
            tail = 12 + 12 * int.from_bytes(data[start + 4 : start + 6], "little")
            if tail + 4 <= size:
                found = crc32c_raw(seed, bytes(data[start : start + tail]))
                data[start + tail : start + tail + 4] = found.to_bytes(4, "little")

        return fix

    def fix_directory(self, inode: Inode, position: int) -> Fix | None:
        if not self.csum:
            return None
        seed, size = self.volume.inode_seed(inode), self.bs
        offset = index_offset(self.data[position : position + size], size)

        def fix(data: bytearray) -> None:
            block = bytes(data[position : position + size])
            if offset is not None:
                found = index_checksum(block, seed, offset)
                if found is not None:
                    at = position + offset + 8 * int.from_bytes(block[offset : offset + 2], "little") + 4
                    data[at : at + 4] = found.to_bytes(4, "little")
            elif has_tail(block):
                data[position + size - 4 : position + size] = block_checksum(block, seed).to_bytes(4, "little")

        return fix

    def fix_attributes(self, block: int) -> Fix | None:
        if not self.csum:
            return None
        volume, size = self.volume, self.bs

        def fix(data: bytearray) -> None:
            start = block * size
            found = attribute_block_checksum(volume.seed, block, bytes(data[start : start + size]))
            data[start + 16 : start + 20] = found.to_bytes(4, "little")

        return fix

    def fix_orphans(self, inode: Inode, block: int) -> Fix | None:
        if not self.csum:
            return None
        seed, size = crc32c_raw(self.volume.inode_seed(inode), block.to_bytes(8, "little")), self.bs

        def fix(data: bytearray) -> None:
            end = (block + 1) * size
            data[end - 4 : end] = crc32c_raw(seed, bytes(data[end - size : end - 8])).to_bytes(4, "little")

        return fix

    def fix_mmp(self, start: int) -> Fix | None:
        if not self.csum:
            return None
        seed = self.volume.seed

        def fix(data: bytearray) -> None:
            data[start + 1020 : start + 1024] = crc32c_raw(seed, bytes(data[start : start + 1020])).to_bytes(
                4, "little"
            )

        return fix


def superblock_first(volume: Volume) -> int:
    """The first inode that is not reserved."""
    return volume.superblock.first_ino


def fix_superblock(data: bytearray) -> None:
    """Make a superblock's checksum right."""
    data[1024 + 0x3FC : 2048] = layout.superblock_checksum(data[1024:2048]).to_bytes(4, "little")


def mutate(inventory: Inventory, seed: str) -> Mutation:
    """The mutation that follows from an image and a seed."""
    rng = random.Random(seed)
    structure = rng.choice(sorted(inventory.structures))
    place = rng.choice(inventory.structures[structure])
    order: Literal["big", "little"] = "big" if place.big_endian else "little"
    data = inventory.data
    old = int.from_bytes(data[place.offset : place.offset + place.width], order)
    most = (1 << 8 * place.width) - 1
    choices = [0, 1, most, old + 1, old - 1, old ^ 1 << rng.randrange(8 * place.width), rng.randint(0, most)]
    choices += [rng.randrange(64), rng.randrange(5000)]
    new = rng.choice(choices) & most
    if new == old:
        new = old ^ 1
    changed = bytearray(data)
    changed[place.offset : place.offset + place.width] = new.to_bytes(place.width, order)
    summed = place.fix is not None and rng.random() < 0.85
    if summed:
        assert place.fix is not None
        try:
            place.fix(changed)
        except (FormatError, IndexError):
            summed = False
    return Mutation(seed, f"{structure}: {place.name}", place.offset, old, new, summed, differences(data, changed))


def differences(old: bytes, new: bytearray) -> list[tuple[int, bytes, bytes]]:
    """The runs of bytes that differ, in pages."""
    found = []
    for start in range(0, len(old), 4096):
        before, after = old[start : start + 4096], bytes(new[start : start + 4096])
        if before != after:
            found.append((start, before, after))
    return found
