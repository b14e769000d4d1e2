"""Each rule of the check finds what breaks it, in an image of our own, at the byte that was changed or its owner."""

import random

import pytest
from hypothesis import given, settings

from blockwright.device.memory import MemoryDevice
from blockwright.errors import NotThisFormat
from blockwright.fs.ext4 import check as check_package
from blockwright.fs.ext4.check import MAX_FINDINGS, check
from blockwright.fs.ext4.check.bitmaps import BitmapPass
from blockwright.fs.ext4.check.claims import Claims, Overlap, set_bits
from blockwright.fs.ext4.check.links import check_connections
from blockwright.fs.ext4.check.state import DirectoryState, State
from blockwright.fs.ext4.device import open_plan
from blockwright.fs.ext4.layout import RoCompat
from blockwright.fs.ext4.options import Ext4Options
from blockwright.fs.ext4.plan import plan
from blockwright.tree.content import BytesContent
from blockwright.tree.node import Directory, File, Symlink
from tests.support.ext4_mutations import Inventory, Place
from tests.support.trees import NAMES, PatternContent, trees

NOW = 1_900_000_000


def image(**options) -> bytes:
    names = {b"name-%03d-%s" % (i, b"x" * 30): File() for i in range(300)}
    pieces = tuple((8192 * i, 4096) for i in range(120))
    tree = Directory(
        entries={
            b"file": File(content=BytesContent(bytes(range(256)) * 20), xattrs={b"user.inner": b"v" * 20}),
            b"outer": File(xattrs={b"user.outer": b"w" * 300, b"user.other": b"x"}),
            b"pieces": File(content=PatternContent(8192 * 120, pieces)),
            b"link": Symlink(b"target"),
            b"long": Symlink(b"t" * 100),
            b"folder": Directory(entries={b"inner": Directory(entries={b"leaf": File()})}),
            b"many": Directory(entries=names),
        }
    )
    with open_plan(plan(tree, Ext4Options(block_size=1024, seed=b"rules", **options))) as device:
        return device.read(0, device.size)


CLEAN = image(size=6 << 20)
INVENTORY = Inventory(CLEAN)


def changed(place: Place, value: int, *, fix: bool = True) -> bytearray:
    data = bytearray(CLEAN)
    data[place.offset : place.offset + place.width] = value.to_bytes(
        place.width, "big" if place.big_endian else "little"
    )
    if fix and place.fix is not None:
        place.fix(data)
    return data


def rules(data: bytes) -> set[str]:
    return {finding.rule.removeprefix("ext4.") for finding in check(MemoryDevice(content=data), now=NOW)}


def places(structure: str, name: str) -> list[Place]:
    found = [place for place in INVENTORY.structures[structure] if place.name == name]
    assert found, sorted({place.name for place in INVENTORY.structures[structure]})
    return found


def inode_places(number: int, name: str) -> list[Place]:
    start = INVENTORY.volume.inode_position(number)
    found = [p for s in ("inode", "reserved inode") for p in INVENTORY.structures[s]]
    return [p for p in found if p.name == name and start <= p.offset < start + 256]


def number_of(path: bytes) -> int:
    from blockwright.fs.ext4 import read

    with read.open(MemoryDevice(content=CLEAN)) as fs:
        return fs.resolve(path, follow=False)


def test_clean():
    assert check(MemoryDevice(content=CLEAN), now=NOW) == []


@pytest.mark.parametrize("name", ["s_wtime", "s_mtime", "s_mkfs_time", "s_lastcheck"])
def test_a_time_in_the_future_is_no_damage(name):
    place = places("superblock", name)[0]
    assert rules(changed(place, NOW + 500_000_000)) == set()


@pytest.mark.parametrize(
    ("structure", "name", "value", "rule"),
    [
        ("superblock", "s_free_blocks_count_lo", 7, "superblock.free-blocks"),
        ("superblock", "s_free_inodes_count", 7, "superblock.free-inodes"),
        ("superblock", "s_r_blocks_count_lo", 1 << 20, "superblock.reserved-blocks"),
        ("superblock", "s_first_ino", 5, "superblock.first-inode"),
        ("superblock", "s_feature_compat", 0x203C, "superblock.features"),
        ("superblock", "s_feature_ro_compat", 0x40047B, "superblock.features"),
        ("superblock", "s_want_extra_isize", 33, "superblock.want-extra-isize"),
        ("superblock", "s_log_groups_per_flex", 40, "superblock.flex"),
        ("superblock", "s_inodes_per_group", 24, "superblock.unusable"),
        ("superblock", "s_feature_incompat", 0x12C2, "superblock.unusable"),
        ("superblock", "s_journal_inum", 9, "journal.superblock"),
        ("group", "bg_free_blocks_count_lo", 3, "group.free-blocks"),
        ("group", "bg_free_inodes_count_lo", 3, "group.free-inodes"),
        ("group", "bg_used_dirs_count_lo", 99, "group.directories"),
        ("group", "bg_block_bitmap_csum_lo", 99, "block-bitmap.checksum"),
        ("group", "bg_inode_bitmap_csum_hi", 99, "inode-bitmap.checksum"),
        ("group", "bg_inode_table_lo", 1 << 20, "group.inode-table"),
        ("group", "bg_block_bitmap_lo", 1, "group.overlap"),
        ("block bitmap", "byte 0", 0, "block-bitmap.bits"),
        ("inode bitmap", "byte 0", 0, "inode-bitmap.bits"),
        ("inode bitmap", "byte 1023", 0, "inode-bitmap.padding"),
        ("journal", "h_magic", 0, "journal.superblock"),
        ("journal", "s_start", 1, "journal.start"),
        ("journal", "s_errno", 5, "journal.error"),
        ("journal", "s_nr_users", 2, "journal.users"),
        ("journal", "h_blocktype", 3, "journal.version"),
        ("extent header", "eh_magic", 1, "map.extent-header"),
        ("extent", "ee_start_lo", 0, "map.extent-start"),
        ("extent", "ee_start_hi", 1, "map.extent-start"),
        ("entry", "inode", 1 << 20, "directory.inode"),
        ("entry", "rec_len", 9, "directory.entry"),
        ("entry", "file_type", 5, "directory.type"),
        ("entry tail", "checksum", 0, "directory.checksum"),
        ("entry tail", "type", 0, "directory.checksum"),
        ("index", "root reserved", 1, "index.root"),
        ("index", "root hash", 9, "index.hash"),
        ("index", "root levels", 3, "index.depth"),
        ("index", "root flags", 1, "index.flags"),
        ("index", "limit", 3, "index.limit"),
        ("index", "count", 0, "index.count"),
        ("index", "block", 500, "index.block"),
        ("index", "block", 1, "index.reference"),
        ("index", "hash", 0xFFFFFF00, "index.range"),
        ("index", "hash", 0xFFFFFF00, "index.order"),
        ("inner attribute", "e_hash", 1, "attribute.hash"),
        ("inner attribute", "e_value_size", 2000, "attribute.room"),
        ("inner attribute", "e_name_len", 250, "attribute.overlap"),
        ("attribute", "h_magic", 1, "attribute.header"),
        ("attribute", "h_blocks", 2, "attribute.header"),
        ("attribute", "h_refcount", 2, "attribute.references"),
        ("attribute", "e_name_index", 0, "attribute.name"),
        ("attribute", "e_value_offs", 40, "attribute.overlap"),
        ("attribute", "value", 0, "attribute.hash"),
        ("symlink", "target", 0, "inode.symlink"),
    ],
)
def test_a_field_in_a_structure(structure, name, value, rule):
    chosen = places(structure, name)
    assert rule in set().union(*(rules(changed(place, value)) for place in chosen[-3:]))


@pytest.mark.parametrize(
    ("path", "name", "value", "rule"),
    [
        (b"file", "i_links_count", 7, "links.count"),
        (b"file", "i_links_count", 0, "inode.deletion-time"),
        (b"file", "i_mode", 0, "inode.mode"),
        (b"file", "i_mode", 0o040755, "directory.type"),
        (b"file", "i_size_lo", 10, "inode.size"),
        (b"file", "i_blocks_lo", 2, "inode.block-count"),
        (b"file", "i_dtime", NOW, "inode.deletion-time"),
        (b"file", "i_dtime", 20, "inode.deletion-time"),
        (b"file", "i_faddr", 1, "inode.fragment"),
        (b"file", "i_flags", 0, "inode.flags"),
        (b"file", "i_flags", 0x80000 | 0x1000, "inode.flags"),
        (b"file", "i_flags", 0x80000 | 0x800, "inode.flags"),
        (b"file", "i_flags", 0x80000 | 0x40000000, "inode.flags"),
        (b"file", "i_flags", 0x80000 | 0x10000000, "inode.flags"),
        (b"file", "i_extra_isize", 7, "inode.extra-size"),
        (b"file", "i_file_acl_lo", 1 << 30, "attribute.block"),
        (b"file", "i_file_acl_lo", 1, "attribute.header"),
        (b"outer", "i_file_acl_lo", 0, "inode.block-count"),
        (b"link", "i_size_lo", 5, "inode.symlink"),
        (b"folder", "i_size_lo", 0, "inode.size"),
        (b"folder", "i_links_count", 9, "links.count"),
        (b"many", "i_flags", 0x80000, "directory.dots"),
        (b"", "i_mode", 0o100644, "inode.root"),
        (b"pieces", "i_size_lo", 5000, "inode.size"),
        (b"pieces", "i_size_lo", 900_000, "map.extent-bounds"),
    ],
)
def test_a_field_of_an_inode(path, name, value, rule):
    (place,) = inode_places(number_of(path), name)
    if (path, name) == (b"many", "i_flags"):  # without the flag, its root block is one of entries that hide others
        assert rules(changed(place, value))
        return
    found = check(MemoryDevice(content=changed(place, value)), now=NOW)
    assert "ext4." + rule in {finding.rule for finding in found}, found


@pytest.mark.parametrize(("number", "rule"), [(1, "inode.bad-blocks"), (5, "inode.reserved"), (6, "inode.reserved")])
def test_reserved_inodes(number, rule):
    place = Place("i_mode", INVENTORY.volume.inode_position(number), 2, fix=INVENTORY.fix_inode(number))
    assert rule in rules(changed(place, 0o040755))


@pytest.mark.parametrize("name", ["i_atime", "i_ctime", "i_mtime", "i_crtime"])
def test_a_time_of_the_last_epoch(name):
    """Where the seconds are negative, both bits of the epoch are what old kernels wrote of times before 1970."""
    (seconds,), (extra,) = (inode_places(number_of(b"file"), field) for field in (name, name + "_extra"))
    for epoch, found in ((0, set()), (1, set()), (2, set()), (3, {"inode.time"})):
        data = changed(extra, epoch, fix=False)
        data[seconds.offset : seconds.offset + 4] = (0x80000000).to_bytes(4, "little")
        seconds.fix(data)
        assert rules(data) == found
    (extra,) = inode_places(number_of(b"file"), name + "_extra")
    assert rules(changed(extra, 3)) == set()


def test_a_directory_with_too_many_links_to_count(monkeypatch):
    monkeypatch.setattr("blockwright.fs.ext4.check.links.MAX_LINKS", 4)
    (place,) = inode_places(2, "i_links_count")
    assert rules(CLEAN) == {"links.count"}
    assert rules(changed(place, 1)) == set()
    features = places("superblock", "s_feature_ro_compat")[0]
    value = INVENTORY.volume.superblock.s_feature_ro_compat & ~RoCompat.dir_nlink
    assert rules(changed(features, value)) == {"links.count", "links.feature"}


def test_an_offset_is_that_of_the_field():
    (place,) = inode_places(number_of(b"file"), "i_links_count")
    (finding,) = check(MemoryDevice(content=changed(place, 9)), now=NOW)
    assert finding.offset == place.offset
    assert "expected 1 links, found 9" in str(finding)
    assert finding.repairable


def test_a_checksum_that_was_not_made_right():
    (place,) = inode_places(number_of(b"file"), "i_uid")
    assert rules(changed(place, 9, fix=False)) == {"inode.checksum"}
    assert rules(changed(place, 9)) == set()


def test_blocks_that_two_files_claim():
    first, second = (inode_places(number_of(path), "i_block[20]")[0] for path in (b"file", b"long"))
    stolen = int.from_bytes(CLEAN[first.offset : first.offset + 4], "little")
    assert "block.claimed-twice" in rules(changed(second, stolen))


def test_a_directory_that_hangs_from_itself():
    """The only name of inner's parent moves into inner: the two are a loop without the root."""
    data = bytearray(CLEAN)
    inner = number_of(b"folder/inner")
    for place in INVENTORY.structures["entry"]:
        if place.name == "inode" and CLEAN[place.offset : place.offset + 4] == number_of(b"folder").to_bytes(
            4, "little"
        ):
            name = CLEAN[place.offset + 8 : place.offset + 14]
            if name == b"folder":
                data[place.offset : place.offset + 4] = inner.to_bytes(4, "little")
                place.fix(data)
    found = rules(data)
    assert {"directory.unconnected", "directory.link"} & found


def test_the_resize_inode():
    block = INVENTORY.volume.superblock.s_first_data_block + 2
    data = bytearray(CLEAN)
    pointers = [p for p in INVENTORY.structures["pointer"] if p.offset // 1024 != block]
    place = next(p for p in pointers if int.from_bytes(CLEAN[p.offset : p.offset + 4], "little"))
    data[place.offset : place.offset + 4] = (5000).to_bytes(4, "little")
    assert rules(data) & {"resize.inode", "map.pointer", "inode.block-count"}


def test_findings_are_bounded(monkeypatch):
    monkeypatch.setattr("blockwright.fs.ext4.check.state.MAX_FINDINGS", 20)
    table = INVENTORY.volume.descriptor(0).inode_table * 1024
    data = bytearray(CLEAN)
    rng = random.Random(1)
    for number in range(11, 300):
        at = table + 256 * number
        data[at : at + 128] = rng.randbytes(128)
    assert len(check(MemoryDevice(content=data), now=NOW)) == 20
    assert MAX_FINDINGS == check_package.MAX_FINDINGS


def test_what_is_no_file_system():
    with pytest.raises(NotThisFormat):
        check(MemoryDevice(content=bytes(5000)))
    with pytest.raises(NotThisFormat):
        check(MemoryDevice(content=b""))


def test_too_many_groups(monkeypatch):
    monkeypatch.setattr("blockwright.fs.ext4.check.groups.MAX_GROUPS", 0)
    found = check(MemoryDevice(content=CLEAN), now=NOW)
    assert [finding.rule for finding in found] == ["ext4.unreadable"]


@settings(max_examples=40)
@given(trees(sparse=False, names=NAMES.filter(lambda name: name != b"lost+found")))
def test_what_we_write_is_clean(tree):
    with open_plan(plan(tree, Ext4Options(seed=b"any"))) as device:
        assert check(device, now=1 << 40) == []


# -- what a hostile image costs --------------------------------------------------------------------------------


class Counted(int):
    """A number that counts how often it is compared."""

    compared = 0
    __hash__ = int.__hash__

    def __eq__(self, other):
        Counted.compared += 1
        return int(self) == int(other)


def test_a_chain_of_directories_that_begins_at_its_end_costs_its_length():
    state = State(INVENTORY.volume, NOW)
    numbers = [Counted(number) for number in range(11, 2011)]
    for number, parent in zip(numbers, [*numbers[1:], Counted(2)], strict=True):
        state.directories[number] = DirectoryState(INVENTORY.volume.inode(2), [], parent, parent)
    state.directories[2] = DirectoryState(INVENTORY.volume.inode(2), [], 2, 2)
    check_connections(state)
    assert state.findings == []
    assert Counted.compared < 20 * len(numbers)
    state.directories[numbers[-1]].parent = state.directories[numbers[-1]].dotdot = numbers[5]
    check_connections(state)
    assert [finding.rule for finding in state.findings] == ["ext4.directory.loop"]


def test_a_group_looks_at_its_own_runs_only():
    class Runs(list):
        looked_at = 0

        def __getitem__(self, part):
            found = super().__getitem__(part)
            self.looked_at += len(found)
            return found

    state = State(INVENTORY.volume, NOW)
    for block in range(0, 40_000, 4):
        state.claims.add(block, 2, 12)
    state.claims.add(0, 1, 12)
    found = BitmapPass(state)
    found.runs = runs = Runs(found.runs)
    bitmaps = b"".join(bytes(found._used(group * 800, 800)) for group in range(50))
    assert bitmaps == b"\x33" * 5000
    assert runs.looked_at <= len(runs) + 50


# -- claims ----------------------------------------------------------------------------------------------------


def test_claims():
    claims = Claims()
    for start, count, owner in ((10, 5, 1), (15, 5, 1), (40, 1, 2), (18, 4, 3), (0, 2, 4)):
        claims.add(start, count, owner)
    assert list(claims.overlaps()) == [Overlap(18, 2, 1, 3)]
    assert list(claims.merged()) == [(0, 2), (10, 22), (40, 41)]
    assert claims.contains(41) is False
    assert claims.contains(40) is True
    assert claims.contains(2) is False
    clusters = claims.in_clusters(8, 0)
    assert list(clusters.merged()) == [(0, 3), (5, 6)]
    assert list(clusters.overlaps()) == []
    claims.add(23, 1, 5)  # of the cluster that ends the run before
    assert list(claims.in_clusters(8, 0).overlaps()) == []


def test_what_lies_within_another_claim():
    claims = Claims()
    for start, count, owner in ((10, 10, 1), (12, 1, 2), (15, 2, 3), (25, 1, 4)):
        claims.add(start, count, owner)
    assert list(claims.overlaps()) == [Overlap(12, 1, 1, 2), Overlap(15, 2, 1, 3)]


def test_set_bits():
    for start in range(20):
        for count in range(25):
            bitmap = bytearray(6)
            if start + count == 48:
                continue
            set_bits(bitmap, start, count)
            assert int.from_bytes(bitmap, "little") == ((1 << count) - 1) << start
