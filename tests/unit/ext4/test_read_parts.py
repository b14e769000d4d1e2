"""The reader's parts one by one: geometry, inodes, maps, directory blocks, attributes, case folding."""

import dataclasses
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwright.device.extent import DATA, HOLE, ZERO, Extent, merge
from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, NotThisFormat, Unsupported
from blockwright.fs.ext4 import layout, read
from blockwright.fs.ext4.contents import BytesDevice, FileDevice, RunReader
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.directory import Budget, index_offset, long_length
from blockwright.fs.ext4.dirhash import hash_name
from blockwright.fs.ext4.geometry import geometry
from blockwright.fs.ext4.inode import Inode
from blockwright.fs.ext4.layout import Compat, Incompat, RoCompat, Superblock
from blockwright.fs.ext4.lookup import fold
from blockwright.fs.ext4.mapping import Run, block_runs
from blockwright.fs.ext4.options import Ext4Options, Features
from blockwright.fs.ext4.plan import plan
from blockwright.fs.ext4.volume import Volume, read_superblock
from blockwright.fs.ext4.xattr_read import entry_hash, name_hash, shown_acl
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File
from tests.support.trees import acl

PLAIN = Features(compat=Features().compat & ~(Compat.has_journal | Compat.resize_inode))


def image(tree: Directory, **options) -> bytes:
    with open_plan(plan(tree, Ext4Options(block_size=1024, features=PLAIN, seed=b"parts", **options))) as device:
        return device.read(0, device.size)


CLEAN = image(Directory(entries={b"file": File(content=BytesContent(b"f" * 3000))}), size=4 << 20)


def volume(data: bytes = CLEAN) -> Volume:
    device = MemoryDevice(content=data)
    return Volume(device, read_superblock(device, verify=False), source="test", verify=False, super_block=None)


# -- geometry --------------------------------------------------------------------------------------------------


def superblock(**values) -> Superblock:
    fields = {
        "s_inodes_count": 1024,
        "s_blocks_count_lo": 65536,
        "s_first_data_block": 1,
        "s_blocks_per_group": 8192,
        "s_clusters_per_group": 8192,
        "s_inodes_per_group": 128,
        "s_rev_level": 1,
        "s_inode_size": 256,
        "s_feature_ro_compat": int(RoCompat.sparse_super),
    }
    return Superblock(**{**fields, **values})


SIZE = 65536 * 1024


def test_groups():
    geo = geometry(superblock(), SIZE)
    assert geo.groups == 8
    assert (geo.group_start(0), geo.group_end(0), geo.group_start(7), geo.group_end(7)) == (1, 8193, 57345, 65536)
    assert [group for group in range(200) if geo.has_super(group)] == [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]
    assert geo.inode_place(1) == (0, 0)
    assert geo.inode_place(129) == (1, 0)
    assert geo.inode_table_blocks == 32
    assert geo.descriptor_block(0) == 2
    assert geo.descriptor_block(0, 8193) == 8194
    assert geo.group_of(8192) == 0
    assert geo.group_of(8193) == 1


def test_backups():
    everywhere = geometry(superblock(s_feature_ro_compat=0), SIZE)
    assert all(everywhere.has_super(group) for group in range(8))
    two = geometry(superblock(s_feature_compat=0x200, s_backup_bgs=struct.pack("<II", 1, 6)), SIZE)
    assert [group for group in range(8) if two.has_super(group)] == [0, 1, 6]


def test_descriptors_in_their_groups():
    """With meta_bg, each block of descriptors lies in its first group, with copies in the second and the last."""
    geo = geometry(superblock(s_feature_incompat=int(Incompat.meta_bg)), SIZE)
    wide = dataclasses.replace(geo, groups=100, blocks_count=100 * 8192)
    assert wide.descriptors_per_block == 32
    assert [wide.descriptor_block(index) for index in range(3)] == [2, 1 + 32 * 8192, 1 + 64 * 8192]
    assert wide.descriptor_block(1, 8193) == 1 + 33 * 8192
    assert wide.overhead(32) == [(1 + 32 * 8192, 1)]
    assert wide.overhead(27) == [(1 + 27 * 8192, 1)]
    assert wide.overhead(34) == []
    assert wide.overhead(63) == [(1 + 63 * 8192, 1)]
    assert wide.overhead(1) == [(8193, 1), (8194, 1)]


def test_room_for_more_descriptors_is_overhead():
    geo = geometry(superblock(s_reserved_gdt_blocks=200), SIZE)
    assert geo.overhead(3) == [(1 + 3 * 8192, 1), (2 + 3 * 8192, 201)]
    assert geo.overhead(2) == []


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"s_log_block_size": 7}, "log_block_size"),
        ({"s_log_cluster_size": 1}, "log_cluster_size"),
        ({"s_feature_ro_compat": int(RoCompat.bigalloc), "s_log_cluster_size": 20}, "log_cluster_size"),
        ({"s_inode_size": 200}, "inode_size"),
        ({"s_inode_size": 2048}, "inode_size"),
        ({"s_inode_size": 64}, "inode_size"),
        ({"s_feature_incompat": int(Incompat.bit64), "s_desc_size": 48}, "desc_size"),
        ({"s_feature_incompat": int(Incompat.bit64), "s_desc_size": 2048}, "desc_size"),
        ({"s_blocks_per_group": 0}, "blocks_per_group"),
        ({"s_blocks_per_group": 8200}, "blocks_per_group"),
        ({"s_inodes_per_group": 0}, "inodes_per_group"),
        ({"s_inodes_per_group": 8193}, "inodes_per_group"),
        ({"s_first_data_block": 70000}, "first_data_block"),
        ({"s_blocks_count_lo": 65537}, "blocks_count"),
        ({"s_inodes_count": 1025}, "inodes_count"),
        ({"s_feature_incompat": int(Incompat.meta_bg), "s_first_meta_bg": 2}, "first_meta_bg"),
        ({"s_feature_incompat": int(Incompat.meta_bg), "s_first_meta_bg": 0xFFFFFFFF}, "first_meta_bg"),
    ],
)
def test_numbers_that_lead_astray(values, match):
    with pytest.raises(Corrupt, match=match):
        geometry(superblock(**values), SIZE)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"s_rev_level": 2}, "revision"),
        ({"s_feature_incompat": 0x1}, "compression"),
        ({"s_feature_incompat": 0x1008}, "external journal"),
        ({"s_feature_incompat": 0x40001000}, "dirdata, 0x40000000"),
    ],
)
def test_what_is_refused_by_name(values, match):
    with pytest.raises(Unsupported, match=match):
        geometry(superblock(**values), SIZE)


# -- superblocks -----------------------------------------------------------------------------------------------


def test_probe():
    assert read.probe(MemoryDevice(content=CLEAN))
    assert not read.probe(MemoryDevice(content=bytes(4096)))
    assert not read.probe(MemoryDevice(content=b"short"))


def test_superblock_checksum():
    data = bytearray(CLEAN)
    data[1024 + 0x78] ^= 1
    with pytest.raises(Corrupt, match="checksum") as caught:
        read.open(MemoryDevice(content=data), source="disk.img")
    assert str(caught.value).startswith("disk.img: superblock: checksum: expected 0x")
    assert caught.value.offset == 2044
    read.open(MemoryDevice(content=data), verify=False)
    data[1024 + 0x175] = 9
    with pytest.raises(Unsupported, match="checksum type"):
        read.open(MemoryDevice(content=data))
    with pytest.raises(NotThisFormat):
        read.open(MemoryDevice(content=CLEAN), superblock=3)


# -- inodes ----------------------------------------------------------------------------------------------------


def raw_inode(size: int = 256, **values) -> bytes:
    record = layout.Inode(**{"i_extra_isize": 32, **values}).pack()
    return record[:size] if size < 160 else record.ljust(size, b"\0")


def test_halves_are_joined():
    inode = Inode(12, raw_inode(i_uid=1, i_uid_high=2, i_gid=3, i_gid_high=4, i_size_lo=5, i_size_high=6), 0)
    assert (inode.uid, inode.gid, inode.size) == (0x20001, 0x40003, 0x600000005)
    inode = Inode(12, raw_inode(i_blocks_lo=1, i_blocks_high=2, i_file_acl_lo=3, i_file_acl_high=4), 0)
    assert (inode.blocks, inode.file_acl) == (0x200000001, 0x400000003)


@pytest.mark.parametrize("extra", [0, 4, 8, 28, 32])
def test_only_fields_that_the_inode_has(extra):
    """Bytes behind i_extra_isize are attributes, not times."""
    raw = raw_inode(i_extra_isize=extra, i_mtime=5, i_mtime_extra=7 << 2, i_crtime=9, i_projid=77)
    inode = Inode(12, raw, 0)
    assert inode.mtime_ns == 5 * 10**9 + (7 if extra >= 12 else 0)
    assert inode.crtime_ns == (9 * 10**9 if extra >= 20 else None)
    assert inode.projid == (77 if extra >= 32 else None)
    small = Inode(12, raw_inode(128, i_mtime=5), 0)
    assert (small.mtime_ns, small.crtime_ns, small.extra_isize) == (5 * 10**9, None, 0)


@pytest.mark.parametrize(("major", "minor"), [(0, 0), (8, 3), (255, 255), (259, 70_000), (4095, 2**20 - 1)])
def test_device_numbers(major, minor):
    packed = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
    new = Inode(12, raw_inode(i_block=struct.pack("<II", 0, packed)), 0)
    assert new.device_number() == (major, minor)
    if major < 256 and minor < 256:
        old = Inode(12, raw_inode(i_block=struct.pack("<II", major << 8 | minor, 0)), 0)
        assert old.device_number() == (major, minor)


def test_inode_checksum_is_that_of_number_and_generation():
    inode = Inode(12, raw_inode(i_generation=3), 0)
    other = Inode(13, raw_inode(i_generation=3), 0)
    assert inode.checksum(1) != other.checksum(1)
    assert Inode(12, bytes(256), 0).checksum_holds(1)
    assert not inode.checksum_holds(1)


# -- maps ------------------------------------------------------------------------------------------------------


def leaf(*extents: tuple[int, int, int], magic: int = 0xF30A, most: int = 4, entries: int | None = None) -> bytes:
    head = struct.pack("<HHHHI", magic, len(extents) if entries is None else entries, most, 0, 0)
    return head + b"".join(struct.pack("<IHHI", logical, length, 0, block) for logical, length, block in extents)


def extent_inode(block: bytes, size: int = 100_000) -> Inode:
    raw = raw_inode(i_mode=0o100644, i_flags=int(layout.InodeFlag.extents), i_block=block, i_size_lo=size)
    return Inode(12, raw, 0)


def test_extents():
    block = leaf((0, 2, 100), (2, 3, 102), (10, 32768 + 4, 200), (20, 1, 300))
    assert block_runs(volume(), extent_inode(block)) == [
        Run(0, 5, 100, written=True),
        Run(10, 4, 200, written=False),
        Run(20, 1, 300, written=True),
    ]


@pytest.mark.parametrize(
    ("block", "match"),
    [
        (leaf(magic=1), "magic"),
        (leaf((0, 1, 100), most=5), "entries"),
        (leaf((0, 1, 100), entries=9), "entries"),
        (leaf((0, 0, 100)), "extent"),
        (leaf((5, 1, 100), (4, 1, 101)), "extent"),
        (leaf((5, 2, 100), (6, 1, 101)), "extent"),
        (leaf((0, 1, 0)), "disk blocks"),
        (leaf((0, 10, 4090)), "disk blocks"),
        (leaf((0xFFFFFFFF, 2, 100)), "extent"),
        (struct.pack("<HHHHI", 0xF30A, 0, 4, 6, 0), "depth"),
    ],
)
def test_extents_that_lead_astray(block, match):
    with pytest.raises(Corrupt, match=match):
        block_runs(volume(), extent_inode(block))


def tree_of(*children: tuple[int, int]) -> bytes:
    head = struct.pack("<HHHHI", 0xF30A, len(children), 4, 1, 0)
    return head + b"".join(struct.pack("<IIHH", logical, block, 0, 0) for logical, block in children)


def test_extent_nodes():
    data = bytearray(CLEAN)
    data[3000 * 1024 : 3000 * 1024 + 24] = leaf((0, 1, 100), most=84)
    data[3001 * 1024 : 3001 * 1024 + 24] = leaf((7, 1, 101), most=84)
    found = block_runs(volume(data), extent_inode(tree_of((0, 3000), (7, 3001))))
    assert [run.logical for run in found] == [0, 7]
    for children, match in (
        (((0, 3000), (7, 3000)), "again"),
        (((0, 3000), (0, 3001)), "extent tree"),
        (((0, 5000),), "expected blocks"),
        (((0, 3002),), "magic"),
        (((0, 3001), (5, 3000)), "extent"),
    ):
        with pytest.raises(Corrupt, match=match):
            block_runs(volume(data), extent_inode(tree_of(*children)))


def test_indirect_blocks():
    data = bytearray(CLEAN)
    pointers = {3000: [0] * 5 + [201, 202], 3001: [3002], 3002: [0, 203], 3003: [3004], 3004: [3005], 3005: [204]}
    for block, values in pointers.items():
        data[block * 1024 : block * 1024 + 4 * len(values)] = struct.pack(f"<{len(values)}I", *values)
    block = struct.pack("<15I", 100, 101, 0, *[0] * 9, 3000, 3001, 3003)
    inode = Inode(12, raw_inode(i_mode=0o100644, i_block=block, i_size_lo=0xFFFFFFFF), 0)
    triple = 12 + 256 + 256**2
    assert block_runs(volume(data), inode) == [
        Run(0, 2, 100, written=True),
        Run(17, 2, 201, written=True),
        Run(12 + 256 + 1, 1, 203, written=True),
        Run(triple, 1, 204, written=True),
    ]
    short = Inode(12, raw_inode(i_mode=0o100644, i_block=block, i_size_lo=1024), 0)
    assert block_runs(volume(data), short) == [Run(0, 1, 100, written=True)]
    for at, value, match in (
        (0, 9999, "disk blocks"),
        (12, 9999, "expected blocks"),
        (13, 3000, "disk blocks|again"),
    ):
        numbers = list(struct.unpack("<15I", block))
        numbers[at] = value
        bad = struct.pack("<15I", *numbers)
        if at == 13:
            data[3000 * 1024 : 3000 * 1024 + 4] = struct.pack("<I", 3000)
        with pytest.raises(Corrupt, match=match):
            block_runs(volume(data), Inode(12, raw_inode(i_mode=0o100644, i_block=bad, i_size_lo=0xFFFFFFFF), 0))


# -- contents --------------------------------------------------------------------------------------------------


def test_a_file_as_a_device():
    data = bytearray(CLEAN)
    data[100 * 1024 : 104 * 1024] = b"".join(bytes([65 + i]) * 1024 for i in range(4))
    runs = [Run(0, 2, 100, written=True), Run(3, 1, 200, written=False), Run(5, 2, 102, written=True)]
    expected = b"A" * 1024 + b"B" * 1024 + bytes(3 * 1024) + b"C" * 1024 + b"D" * 500
    reader = RunReader(volume(data), runs, len(expected))
    with FileDevice(volume(data), reader) as device:
        assert device.read(0, device.size) == expected
        for start in range(0, len(expected), 333):
            assert device.read(start, min(1500, len(expected) - start)) == expected[start : start + 1500]
        first, second = bytearray(1000), bytearray(2000)
        device.read_into(700, first, second)
        assert bytes(first + second) == expected[700:3700]
        assert list(device.extents()) == [
            Extent(0, 2048, DATA),
            Extent(2048, 1024, HOLE | ZERO),
            Extent(3072, 1024, ZERO),
            Extent(4096, 1024, HOLE | ZERO),
            Extent(5120, 1524, DATA),
        ]
        assert list(device.extents(2000, 100)) == list(merge([Extent(2000, 48, DATA), Extent(2048, 52, HOLE | ZERO)]))
        with device.backing(0, 100) as backing:
            assert backing is None
    assert reader.runs() == [(0, 2048), (5120, 1524)]
    with BytesDevice(b"inline data") as small:
        assert small.read(7, 4) == b"data"


def test_a_hole_to_the_end():
    with FileDevice(volume(), RunReader(volume(), [], 5000)) as device:
        assert device.read(10, 4000) == bytes(4000)
        assert list(device.extents()) == [Extent(0, 5000, HOLE | ZERO)]


# -- directories -----------------------------------------------------------------------------------------------


def test_lengths_in_blocks_of_64_kib():
    assert long_length(0xFFFF, 65536) == 65536
    assert long_length(0, 65536) == 65536
    assert long_length(12, 65536) == 12
    assert long_length(1 | 8, 1 << 18) == 65536 + 8


def test_nodes_of_a_hash_tree_are_told_apart():
    dots = struct.pack("<IHBB4sIHBB4s", 2, 12, 1, 2, b".", 2, 1012, 2, 2, b"..")
    info = struct.pack("<IBBBB", 0, 1, 8, 0, 0)
    assert index_offset((dots + info).ljust(1024, b"\0"), 1024) == 32
    assert index_offset((dots + b"\1" + info[1:]).ljust(1024, b"\0"), 1024) is None
    assert index_offset(struct.pack("<IHBB", 0, 1024, 0, 0).ljust(1024, b"\0"), 1024) == 8
    assert index_offset(struct.pack("<IHBB", 0, 1012, 0, 0).ljust(1024, b"\0"), 1024) is None


def test_every_name_of_a_large_directory_is_found_through_its_tree(monkeypatch):
    names = {b"n%d" % i: File() for i in range(6000)}
    with read.open(MemoryDevice(content=image(Directory(entries=names)))) as fs:
        monkeypatch.setattr("blockwright.fs.ext4.lookup.directory_blocks", None)  # no reading from end to end
        root = fs.root_inode
        found = [fs.find(root, name) for name in names]
        assert len(set(found)) == 6000
        assert None not in found
        for absent in (b"n6000", b"x", b"n" * 255):
            assert fs.find(root, absent) is None


def test_an_index_that_leads_to_the_same_blocks_again_and_again():
    """Each pair says that the hash that is asked for runs on into it, and all of them name one block."""
    data = bytearray(image(Directory(entries={b"n%d" % i: File() for i in range(6000)})))
    with read.open(MemoryDevice(content=bytes(data)), verify=False) as fs:
        runs = block_runs(fs.volume, fs.volume.inode(fs.root_inode))
        seed = fs.volume.superblock.s_hash_seed
    places = [(run.physical + at) * 1024 for run in runs for at in range(run.blocks)]
    hashed = hash_name(b"absent", 1, seed)[0] | 1
    root, node = places[0], places[1]
    data[root + 30] = 1  # a level of nodes, whatever there was
    data[node : node + 8] = struct.pack("<IHBB", 0, 1024, 0, 0)
    for start, offset, block in ((root, 32, 1), (node, 8, 2)):
        limit = (1024 - offset) // 8
        struct.pack_into("<HHI", data, start + offset, limit, limit, block)
        for index in range(1, limit):
            struct.pack_into("<II", data, start + offset + 8 * index, hashed, block)
    data[places[2] : places[2] + 1024] = struct.pack("<IHBB", 12, 1024, 1, 1).ljust(1024, b"x")
    with (
        read.open(MemoryDevice(content=bytes(data)), verify=False) as fs,
        pytest.raises(Corrupt, match="expected each block once"),
    ):
        fs.find(fs.root_inode, b"absent")


# -- attributes and names --------------------------------------------------------------------------------------


def test_attribute_hashes():
    """Worked through by hand from the words of the value and the bytes of the name."""
    assert name_hash(b"a") == 0x61
    assert name_hash(b"ab") == 0x61 << 5 ^ 0x62
    assert entry_hash(b"", b"\1\0\0\0") == 1
    assert entry_hash(b"", b"\1\0\0\0\2") == 1 << 16 ^ 2
    assert name_hash(b"\xff", signed=True) == 0xFFFFFFFF
    assert name_hash(b"\xff") == 0xFF


def test_access_control_lists_are_shown_in_their_second_version():
    shown = acl((1000, 6), (1001, 4))
    stored = struct.pack("<I", 1)
    for at in range(4, len(shown), 8):
        stored += shown[at : at + 8] if shown[at] in (2, 8) else shown[at : at + 4]
    assert shown_acl(stored) == shown
    for odd in (b"", b"\1\0\0\0\2", struct.pack("<IHH", 1, 99, 0), struct.pack("<I", 7)):
        assert shown_acl(odd) == odd


@pytest.mark.parametrize(
    ("left", "right"), [("Straße", "STRASSE"), ("É", "e\u0301"), ("ǅ", "ǆ"), ("a\u00adb", "AB"), ("ﬁ", "FI")]
)
def test_names_that_are_one_when_folded(left, right):
    assert fold(left.encode()) == fold(right.encode())


def test_names_that_are_not():
    assert fold(b"a") != fold(b"b")
    assert fold(b"\xff") is None


@given(st.text(max_size=20))
def test_folding_is_settled_after_one_turn(text):
    once = fold(text.encode("utf-8", "surrogatepass")) if text.isprintable() else fold(b"x")
    assert once is None or fold(once.encode()) == once


# -- hostile maps ----------------------------------------------------------------------------------------------


def test_a_directory_that_maps_the_same_blocks_again_and_again():
    """Its extents are in order and inside, but say more blocks than there are."""
    data = bytearray(CLEAN)
    clean = volume()
    root = clean.inode(2)
    first = block_runs(clean, root)[0].physical
    extents = [(index, 1, first) for index in range(4)]
    position = root.position
    data[position + 0x28 : position + 0x28 + 60] = leaf(*extents).ljust(60, b"\0")
    data[position + 4 : position + 8] = (4 * 1024).to_bytes(4, "little")
    with read.open(MemoryDevice(content=data), verify=False) as fs:
        assert [entry.name for entry in fs.entries(2)].count(b"file") == 4
        fs.volume.geometry = dataclasses.replace(fs.volume.geometry, blocks_count=first + 1)
        budget = Budget(fs.volume)
        budget.spend(root, first + 1)
        with pytest.raises(Corrupt, match="at most"):
            budget.spend(root, 1)
