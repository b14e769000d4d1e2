"""Plan, device, read and check of whole volumes."""

import random
import stat
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockwright.device.memory import MemoryDevice
from blockwright.errors import Corrupt, FormatError, LimitExceeded, NotFound, NotThisFormat, UsageError
from blockwright.fs.fat import check, layout, read
from blockwright.fs.fat.allocation import PAGE, AllocationTable
from blockwright.fs.fat.chains import ChainSource
from blockwright.fs.fat.device import open_plan
from blockwright.fs.fat.geometry import Geometry
from blockwright.fs.fat.plan import FatOptions, plan
from blockwright.fs.fat.volume import read_volume
from blockwright.tree import Directory, File, PlacedContent, Special, Symlink
from blockwright.tree.content import PlacedRun
from blockwright.units import GiB, MiB
from tests.support.devices import BlockedDevice
from tests.support.disks import memory
from tests.support.fatvolumes import TIME_NS, directory, fat_trees, file, planned, sample
from tests.support.trees import PatternContent, content_bytes

SHAPES = [
    {"bits": 16},
    {"bits": 32},
    {"bits": 32, "sector_size": 4096},
    {"sector_size": 2048},
    {"size": 300 * MiB, "label": "MY DISK"},
    {"size": 1 * GiB, "bits": 16},
]


def compare(ours, theirs, path=""):
    assert set(ours.entries) == set(theirs.entries), path
    for name, node in ours.entries.items():
        other = theirs.entries[name]
        where = f"{path}/{name!r}"
        assert type(node) is type(other), where
        assert other.mtime_ns == node.mtime_ns // (2 * 10**9) * 2 * 10**9, where
        if isinstance(node, Directory):
            compare(node, other, where)
        else:
            assert content_bytes(node.content) == content_bytes(other.content), where
            assert bool(node.permissions & 0o222) == bool(other.permissions & 0o222), where


def rules(device):
    return sorted({finding.rule for finding in check.check(device)})


@pytest.mark.parametrize("options", SHAPES)
def test_what_was_planned_is_read(options):
    tree = sample()
    with read.open(open_plan(plan(tree, FatOptions(**options)))) as fs:
        compare(tree, fs.tree())
        assert fs.label == options.get("label", "")
    assert rules(planned(**options)) == []


@pytest.mark.parametrize("options", SHAPES)
def test_summary_is_what_is_read(options):
    planned_volume = plan(sample(), FatOptions(seed=b"s", **options))
    summary = planned_volume.summary
    with read.open(open_plan(planned_volume)) as fs:
        assert fs.kind == planned_volume.kind
        assert fs.uuid.replace("-", "").lower() == summary.volume_id
        assert fs.usage().free == summary.free_clusters * summary.cluster_size
        assert fs.usage().size == summary.clusters * summary.cluster_size
        assert fs.geometry == planned_volume.geometry


def test_same_input_gives_the_same_bytes_in_any_order_of_names():
    tree, turned = sample(), sample()
    turned.entries = dict(reversed(turned.entries.items()))
    first, second = (open_plan(plan(each, FatOptions(seed=b"s"))) for each in (tree, turned))
    assert first.read(0, first.size) == second.read(0, second.size)
    other = open_plan(plan(tree, FatOptions(seed=b"t")))
    assert other.read(0, 512) != first.read(0, 512)


def test_boot_sector_is_the_specifications():
    device = planned(bits=32, size=64 * MiB, hidden_sectors=2048, label="esp", volume_id=0x1234ABCD)
    boot = device.read(0, 512)
    assert boot[:13] == b"\xeb\x58\x90MSWIN4.1\x00\x02"
    assert struct.unpack_from("<BHBHHBHHHII", boot, 13) == (1, 38, 2, 0, 0, 0xF8, 0, 63, 255, 2048, 131072)
    assert struct.unpack_from("<IHHIHH", boot, 36)[1:] == (0, 0, 2, 1, 6)
    assert boot[66:90] == b"\x29\xcd\xab\x34\x12ESP        FAT32   "
    assert boot[510:] == b"\x55\xaa"
    assert device.read(6 * 512, 1024) == device.read(0, 1024)
    info = device.read(512, 512)
    assert (info[:4], info[484:488], info[508:]) == (b"RRaA", b"rrAa", b"\0\0\x55\xaa")
    fat = device.read(38 * 512, 16)
    assert fat[:12].hex() == "f8ffff0fffffff0fffffff0f"


def test_hidden_sectors_of_a_moved_plan():
    moved = plan(sample(), FatOptions()).moved(2048)
    assert open_plan(moved).read(28, 4) == struct.pack("<I", 2048)


def test_paths_ignore_case_and_know_short_names():
    with read.open(planned(bits=16)) as fs:
        assert fs.stat(b"/efi/boot/bootx64.EFI").size == 9000
        assert fs.stat(b"/EFI/BOOT/fbx64.efi") == fs.stat(b"efi/boot/FBX64.EFI")
        assert fs.stat("/üNÏCÖDÉ \U0001f427 NAME".encode()).size == 5000
        assert fs.stat(b"/many/somelo~1.txt").size == 0
        assert fs.stat(b"/MANY/somelo~2.txt").size == 1
        with pytest.raises(NotFound):
            fs.stat(b"/many/none")
        assert fs.find(fs.root_inode, b"\xff") is None


def test_stat_and_entries():
    with read.open(planned(bits=32, size=64 * MiB)) as fs:
        root = fs.stat(b"/")
        assert (root.kind, root.size % 512) == (stat.S_IFDIR, 0)
        got = fs.stat(b"/read me.first")
        assert (got.mode, got.size, got.allocated) == (stat.S_IFREG | 0o444, 513, 1024)
        assert (got.mtime_ns, got.crtime_ns) == (TIME_NS, TIME_NS)
        names = {entry.name: entry.kind for entry in fs.entries(fs.root_inode)}
        assert names[b"EFI"] == stat.S_IFDIR
        assert names[b"README"] == stat.S_IFREG
        assert b"." not in {entry.name for entry in fs.entries(fs.resolve(b"/EFI"))}
        assert fs.stat(b"/EFI").size == 512
        assert dict(fs.xattrs(root.inode)) == {}
        for wrong in (fs.open_inode, fs.link_target):
            with pytest.raises(UsageError):
                wrong(fs.root_inode)
        with pytest.raises(UsageError):
            list(fs.entries(fs.resolve(b"/README")))
        for inode in (0, 2, 1 << 40):
            with pytest.raises(Corrupt, match="not in use"):
                fs.stat_inode(inode)


def test_files_in_pieces_are_read_as_one():
    device = planned(bits=16)
    geometry = read_volume(device).geometry
    with read.open(memory(device)) as fs:
        data = fs.open(b"/EFI/BOOT/BOOTX64.EFI").read(0, 9000)
        entry = fs.resolve(b"/EFI/BOOT/BOOTX64.EFI") * 32
    first = struct.unpack("<H", device.read(entry + 26, 2))[0]
    # Move the file's clusters to the volume's end, in reverse order.
    chain = [geometry.end_cluster - 1 - 2 * number for number in range(18)]
    for index, cluster in enumerate(chain):
        device.write(geometry.cluster_start(cluster), device.read(geometry.cluster_start(first + index), 512))
        following = chain[index + 1] if index + 1 < len(chain) else 0xFFFF
        for copy in range(2):
            device.write(geometry.fat_start(copy) + 2 * cluster, struct.pack("<H", following))
            device.write(geometry.fat_start(copy) + 2 * (first + index), b"\0\0")
    device.write(entry + 26, struct.pack("<H", chain[0]))
    assert rules(device) == []
    with read.open(device) as fs, fs.open(b"/EFI/BOOT/BOOTX64.EFI") as body:
        assert body.read(0, 9000) == data
        assert body.read(500, 600) == data[500:1100]
        assert body.read(8999, 1) == data[-1:]
        assert sum(extent.length for extent in body.extents()) == 9000
        buffers = [bytearray(700), bytearray(1300)]
        body.read_into(100, *buffers)
        assert b"".join(buffers) == data[100:2100]


def test_hard_links_are_copied():
    node = file(5000, 7)
    tree = directory(one=node, two=node)
    with read.open(open_plan(plan(tree, FatOptions()))) as fs:
        assert fs.open(b"/one").read(0, 5000) == fs.open(b"/two").read(0, 5000)
        assert fs.resolve(b"/one") != fs.resolve(b"/two")
        assert fs.usage().free == (fs.geometry.clusters - 20) * 512


def test_holes_are_allocated_and_read_as_zeros():
    content = PatternContent(100_000, runs=[(4096, 4096), (50_000, 1000)])
    tree = Directory(entries={b"sparse": File(content=content)})
    device = open_plan(plan(tree, FatOptions()))
    with read.open(device) as fs:
        assert fs.open(b"/sparse").read(0, 100_000) == content_bytes(content)
        assert fs.stat(b"/sparse").allocated == 100_352


@pytest.mark.parametrize(
    ("name", "node", "what"),
    [
        (b"link", Symlink(b"x"), "files and directories only"),
        (b"pipe", Special(stat.S_IFIFO), "files and directories only"),
        (b"placed", File(content=PlacedContent(5, [PlacedRun(0, 5, 0)])), "placed already"),
        (b"huge", File(content=PatternContent(1 << 32)), "at most 4294967295 bytes"),
        (b"a:b", File(), "':'"),
        (b"aux", Directory(), "device"),
        (b"README", File(), "same name as dir/README to FAT"),
    ],
)
def test_what_fat_cannot_hold_is_refused_by_path(name, node, what):
    tree = directory(dir=Directory(entries={b"readme": File(), name: node}))
    with pytest.raises(UsageError, match=f"dir/.*{what}"):
        plan(tree, FatOptions())


def test_what_fat_cannot_hold_is_dropped_where_that_was_asked_for():
    tree = directory(a=Symlink(b"x"), b=file(1), c=Special(stat.S_IFSOCK))
    with read.open(open_plan(plan(tree, FatOptions(drop_unsupported=True)))) as fs:
        assert list(fs.tree().entries) == [b"b"]


def test_a_directory_has_65536_entries_at_the_most():
    names = Directory(entries={f"{number:05}".encode(): File() for number in range(65534)})
    tree = directory(full=names)
    assert plan(tree, FatOptions()).summary.files == 65534
    names.entries[b"x"] = File()
    with pytest.raises(UsageError, match="full: expected at most 65536 entries"):
        plan(tree, FatOptions())


@pytest.mark.parametrize(
    "options",
    [
        {"label": "twelve chars"},
        {"label": "a/b"},
        {"label": " x"},
        {"label": "\u00e9"},
        {"bits": 13},
        {"sector_size": 513},
        {"cluster_size": 3000},
        {"cluster_size": 65536},
        {"free": 0.96},
        {"size": 0},
        {"hidden_sectors": 1 << 32},
        {"volume_id": -1},
    ],
)
def test_bad_options_are_usage_errors(options):
    with pytest.raises(UsageError):
        FatOptions(**options)


def test_memory_follows_the_content_not_the_size():
    table = plan(sample(), FatOptions(size=512 * GiB)).segments()
    assert len(table) < 100
    assert sum(len(each) for each in table.sources if isinstance(each, bytes)) < 20_000


@pytest.mark.parametrize("bits", [16, 32])
def test_computed_tables_are_what_they_would_be_written_as(bits):
    source = random.Random(bits)
    ends, cluster = [], 1
    while cluster < 60000:
        cluster += source.choice([1, 1, 2, 700, 5000])
        ends.append(min(cluster, 65500))
    mask = layout.MASK[bits]
    expected = [mask & ~0xFF | 0xF8, mask, *range(3, ends[-1] + 2)]
    for end in ends:
        expected[end] = mask
    whole = struct.pack(f"<{len(expected)}{'H' if bits == 16 else 'I'}", *expected)
    from array import array

    chains = ChainSource(bits, array("Q", ends))
    assert chains.length == len(whole)
    for _ in range(300):
        start = source.randrange(len(whole))
        buffer = bytearray(source.randrange(min(9000, len(whole) - start + 1)))
        chains.read_into(start, memoryview(buffer))
        assert buffer == whole[start : start + len(buffer)]


def test_a_full_fat16_ends_in_its_last_cluster():
    tree = directory(file=File(content=PatternContent(65508 * 512)))
    volume = plan(tree, FatOptions(bits=16, cluster_size=512))
    assert volume.geometry.clusters == 65508
    assert rules(open_plan(volume)) == []
    assert read.open(open_plan(volume)).usage().free == 0


# -- chains --------------------------------------------------------------------------------------------------------


def table_of(entries, bits=32):
    """A FAT alone, on a device of its own."""
    count = len(entries)
    if bits == 12:
        value = sum(entry << 12 * index for index, entry in enumerate(entries))
        data = value.to_bytes((count * 12 + 7) // 8, "little")
    else:
        data = struct.pack(f"<{count}{'H' if bits == 16 else 'I'}", *entries)
    size = -(-len(data) // 512) * 512
    geometry = Geometry(bits, 512, 1, 1, 1, size // 512, 0, 1 << 30, count - 2)
    return AllocationTable(MemoryDevice(content=bytes(512) + data.ljust(size, b"\0")), geometry)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from([12, 16, 32]))
def test_chains_are_followed_as_a_list_would_be(data, bits):
    count = data.draw(st.integers(10, 4000 if bits == 12 else 3 * PAGE))
    source = random.Random(data.draw(st.integers(0, 1 << 32)))
    cuts = sorted(source.sample(range(2, count + 1), min(count - 2, source.choice([1, 2, 5, 100]))))
    pieces = [list(range(a, b)) for a, b in zip([2, *cuts], [*cuts, count], strict=True) if a < b]
    source.shuffle(pieces)
    chain = [cluster for piece in pieces for cluster in piece]
    high = 0xA0000000 if bits == 32 and source.random() < 0.5 else 0
    entries = [0] * count
    for cluster, following in zip(chain, [*chain[1:], layout.MASK[bits]], strict=True):
        entries[cluster] = following | high
    table = table_of(entries, bits)
    runs = table.runs(chain[0], len(chain), whole=True)
    assert [cluster for run in runs for cluster in range(run.start, run.start + run.length)] == chain
    part = source.randrange(1, len(chain) + 1)
    runs = table.runs(chain[0], part, whole=False)
    assert [cluster for run in runs for cluster in range(run.start, run.start + run.length)] == chain[:part]
    with pytest.raises(Corrupt, match="expected"):
        table.runs(chain[0], len(chain) + 1, whole=False)


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        ([0, 0, 3, 4, 2], "twice"),
        ([0, 0, 2, 0, 0], "twice"),
        ([0, 0, 3, 0, 0], "from 2 to 4, found 0"),
        ([0, 0, 3, 9, 0], "from 2 to 4, found 9"),
        ([0, 0, 3, 4, 5], "from 2 to 4, found 5"),
        ([0, 0, 3, 0x0FFFFFF7, 0], "found 268435447"),
        ([0, 0, 3, 0x0FFFFFFF, 0], "expected 1000 clusters, found 2"),
    ],
)
def test_broken_chains_are_corrupt(entries, what):
    with pytest.raises(Corrupt, match=what):
        table_of(entries).runs(2, 1000, whole=False)


def test_a_long_loop_ends_soon():
    count = 200_000
    entries = [0, 0, *[each + 1 for each in range(2, count)]]
    entries[-1] = 2
    with pytest.raises(Corrupt, match="twice"):
        table_of(entries).runs(2, 1 << 28, whole=False)


def test_a_loop_in_pieces_ends_before_the_limit_does(monkeypatch):
    table = table_of([0, 0, 4, 0, 6, 0, 2])
    calls = 0
    run_length = table.run_length

    def counted(cluster, limit):
        nonlocal calls
        calls += 1
        assert calls < 100, "walks a loop round and round"
        return run_length(cluster, limit)

    monkeypatch.setattr(table, "run_length", counted)
    with pytest.raises(Corrupt, match="twice"):
        table.runs(2, 1 << 28, whole=True)


# -- damage --------------------------------------------------------------------------------------------------------


def broken(change, **options):
    """The rules that a volume breaks after `change(device, geometry)`."""
    device = planned(**{"bits": 32, "label": "L", **options})
    change(device, read_volume(device).geometry)
    return rules(device)


def poke(offset, data):
    return lambda device, geometry: device.write(offset, data)


def in_fats(cluster, value):
    def change(device, geometry):
        for copy in range(geometry.fats):
            device.write(geometry.fat_start(copy) + 4 * cluster, struct.pack("<I", value))

    return change


def in_root(slot, offset, data):
    return lambda device, geometry: device.write(geometry.cluster_start(2) + 32 * slot + offset, data)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (poke(65, b"\1"), ["fat.backup.differs", "fat.dirty"]),
        (poke(3, b"x"), ["fat.backup.differs"]),
        (poke(50, b"\0"), ["fat.backup.missing"]),
        (poke(36, b"\1\0"), ["fat.boot.fields"]),
        (poke(44, b"\0"), ["fat.boot.fields"]),
        (poke(6 * 512 + 71, b"x"), ["fat.backup.differs"]),
        (poke(512, b"x"), ["fat.info.signature"]),
        (poke(512 + 488, b"\1\0\0\0"), ["fat.info.free"]),
        (poke(512 + 488, b"\xff\xff\xff\xff"), []),
        (lambda d, g: d.write(g.fat_start(1) + 80, b"\0\0\0\0"), ["fat.table.copies"]),
        (in_fats(0, 0), ["fat.table.media"]),
        (in_fats(1, 0x07FFFFFF), ["fat.dirty.table"]),
        (in_fats(5000, 0x0FFFFFFF), ["fat.cluster.lost", "fat.info.free"]),
        (in_fats(5000, 0x0FFFFFF7), ["fat.info.free"]),
        (in_fats(5000, 70000), ["fat.cluster.lost", "fat.info.free", "fat.table.range"]),
        (in_root(0, 0, b"X"), ["fat.label"]),
        (in_root(0, 0, b"\xe5"), ["fat.label"]),
        (in_root(0, 26, b"\1"), ["fat.label.content"]),
        (in_root(1, 0, b"*"), ["fat.name.characters"]),
        (in_root(1, 0, b"A B"), []),
        (in_root(1, 1, b"."), ["fat.name.characters"]),
        (in_root(1, 0, b"MANY "), ["fat.name.duplicate"]),
        (in_root(1, 28, b"\1"), ["fat.directory.size"]),
        (in_root(1, 12, b"\x20"), ["fat.name.missing"]),
        (in_root(4, 0, b"\xe5"), ["fat.cluster.lost"]),
    ],
)
def test_damage_is_found(change, found):
    assert broken(change) == found


def test_directories_are_checked():
    def dots(device, geometry):
        start = geometry.cluster_start(3)
        assert device.read(start, 2) == b". "
        device.write(start + 26, b"\7")

    assert broken(dots) == ["fat.directory.dots"]
    assert broken(lambda d, g: d.write(g.cluster_start(3) + 32, b"xx")) == ["fat.directory.dots"]
    assert broken(lambda d, g: d.write(g.cluster_start(3) + 32 + 20, b"\1")) == ["fat.directory.dots"]


def find_entry(device, path):
    with read.open(memory(device)) as fs:
        return fs.resolve(path) * 32


@pytest.mark.parametrize(
    ("offset", "data", "found"),
    [
        (28, struct.pack("<I", 9000 - 512), ["fat.chain.long", "fat.cluster.lost"]),
        (28, struct.pack("<I", 9000 + 512), ["fat.file.size"]),
        (28, struct.pack("<I", 0), ["fat.chain.long", "fat.cluster.lost"]),
        (26, struct.pack("<H", 2), ["fat.chain.shared", "fat.cluster.lost"]),
        (26, struct.pack("<H", 0), ["fat.cluster.lost", "fat.file.size"]),
        (26, struct.pack("<H", 1), ["fat.chain.range", "fat.cluster.lost"]),
        (26, struct.pack("<H", 60000), ["fat.chain.free", "fat.cluster.lost"]),
        (11, b"\x28", ["fat.cluster.lost", "fat.label.content"]),
    ],
)
def test_files_are_checked(offset, data, found):
    device = planned(bits=32)
    device.write(find_entry(device, b"/EFI/BOOT/BOOTX64.EFI") + offset, data)
    assert rules(device) == found


@pytest.mark.parametrize(
    ("back", "offset", "data", "found"),
    [
        (1, 13, b"\0", ["fat.long-name.checksum"]),
        (1, 0, b"\2", ["fat.long-name.order"]),
        (2, 0, b"\2", ["fat.long-name.order"]),
        (1, 12, b"\1", ["fat.long-name.reserved"]),
        (1, 26, b"\1", ["fat.long-name.reserved"]),
        (1, 0, b"\xe5", ["fat.long-name.orphan"]),
    ],
)
def test_long_names_are_checked(back, offset, data, found):
    device = planned(bits=32)
    entry = find_entry(device, "/Ünïcödé \U0001f427 name".encode())
    device.write(entry - 32 * back + offset, data)
    assert rules(device) == found


def test_directories_that_loop_are_corrupt():
    device = planned(bits=32)
    entry = find_entry(device, b"/EFI/BOOT")
    device.write(
        entry + 26, struct.pack("<H", struct.unpack("<H", device.read(find_entry(device, b"/EFI") + 26, 2))[0])
    )
    with read.open(memory(device)) as fs, pytest.raises(Corrupt, match="two directories"):
        fs.tree()
    assert "fat.chain.shared" in rules(device)
    with read.open(device) as fs, pytest.raises(Corrupt, match="directories"):
        fs.resolve(b"/EFI" + b"/BOOT" * 5000)


def test_inactive_fats_may_differ_where_the_volume_says_so():
    device = planned(bits=32)
    for sector in (0, 6):
        device.write(512 * sector + 40, b"\x81")
    geometry = read_volume(device).geometry
    device.write(geometry.fat_start(0) + 8, bytes(100))
    assert rules(device) == []
    with read.open(device) as fs:
        compare(sample(), fs.tree())


def test_what_is_not_fat_is_told():
    strange = bytes(range(100, 116)) + bytes(8000)
    for content in (b"", bytes(511), bytes(4096), strange, b"\xeb\x52\x90NTFS    " + bytes(600)):
        device = MemoryDevice(content=content)
        assert not read.probe(device)
        with pytest.raises(NotThisFormat):
            read.open(device)
        with pytest.raises(NotThisFormat):
            check.check(device)
    assert read.probe(planned(bits=16))


def test_a_truncated_volume_is_corrupt():
    device = planned(bits=16)
    short = MemoryDevice(content=device.read(0, device.size - 512))
    with pytest.raises(Corrupt, match="size: expected at most"):
        read.open(short)
    assert rules(short) == ["fat.boot.fields"]


def test_of_directories_that_nest_without_end_the_end_of_the_path_is_told():
    deep = 2000
    device = memory(open_plan(plan(directory(D=directory()), FatOptions(seed=b"test", bits=16))))
    geometry = read_volume(device).geometry
    names = [name.ljust(11) + b"\x10" + bytes(14) for name in (b".", b"..", b"D")]
    places = [geometry.cluster_start(cluster) for cluster in range(2, 2 + deep)]
    for number, place in enumerate(places):
        clusters = (number + 2, number + 1 if number else 0, number + 3)
        entries = [name + struct.pack("<HI", cluster, 0) for name, cluster in zip(names, clusters, strict=True)]
        device.write(place, b"".join(entries[: 3 if number < deep - 1 else 2]))
    device.write(places[-1], b"?")
    ends = struct.pack("<H", 0xFFFF) * deep
    for copy in range(geometry.fats):
        device.write(geometry.fat_start(copy) + 4, ends)
    [finding] = check.check(device)
    assert finding.rule == "fat.directory.dots"
    assert finding.message.startswith("...")
    assert "/D/D/: expected '.'" in finding.message
    assert len(finding.message) < 2000


@pytest.mark.parametrize("bits", [16, 32])
def test_a_device_that_takes_whole_sectors_is_checked(bits):
    device = planned(bits=bits)
    assert check.check(BlockedDevice(device)) == []
    device.write(read_volume(device).geometry.fat_start(1) + 100, b"\x55")
    assert [finding.rule for finding in check.check(BlockedDevice(device))] == ["fat.table.copies"]


def test_a_volume_of_too_many_clusters_is_not_checked():
    device = MemoryDevice(1 << 38)
    spill = plan(Directory(), FatOptions(size=100 * GiB)).segments()
    for start, data in zip(spill.starts, spill.sources, strict=True):
        if isinstance(data, bytes):
            device.write(start, data)
    device.write(13, b"\1")
    device.write(36, struct.pack("<I", 1_700_000))
    with pytest.raises(LimitExceeded):
        check.check(device)


# -- random trees --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fat_trees(), st.sampled_from([{}, {"bits": 32}, {"sector_size": 4096}, {"bits": 32, "label": "X"}]))
def test_any_tree_comes_back(tree, options):
    device = open_plan(plan(tree, FatOptions(**options)))
    assert rules(device) == []
    with read.open(device) as fs:
        epoch = layout.EPOCH_S * 10**9
        clamp(tree, epoch)
        compare(tree, fs.tree())


def clamp(tree, epoch):
    for node in tree.entries.values():
        node.mtime_ns = max(node.mtime_ns, epoch)
        if isinstance(node, Directory):
            clamp(node, epoch)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_ends_in_a_tree_or_a_format_error(data):
    device = planned(**data.draw(st.sampled_from([{"bits": 16}, {"bits": 32}])))
    places = [*range(600), *range(19000, 19200), *range(36000, 38000), *range(544000, 548000)]
    for offset in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=4)):
        device.write(offset, data.draw(st.binary(min_size=1, max_size=4)))
    try:
        check.check(device)
        with read.open(device) as fs:
            for node in fs.tree().entries.values():
                if isinstance(node, File):
                    content_bytes(node.content)
    except FormatError:
        pass


def test_a_tree_of_files_that_share_a_chain_is_refused_before_each_chain_is_walked():
    size = 1 << 20
    tree = directory(**{f"F{number}": file(size if number == 0 else 1) for number in range(64)})
    device = memory(open_plan(plan(tree, FatOptions(seed=b"test", bits=16))))
    with read.open(device) as fs:
        big = fs.resolve(b"/F0")
        first = layout.DirEntry.parse(device.read(big * 32, 32)).dir_fst_clus_lo
        for number in range(1, 64):
            entry = fs.resolve(f"/F{number}".encode()) * 32
            device.write(entry + 26, struct.pack("<HI", first, size))
        with pytest.raises(Corrupt, match="files hold more than"):
            fs.tree()
