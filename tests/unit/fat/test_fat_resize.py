"""FAT volumes get another size: every file stays what it was, and what is not safe is refused by name."""

import random
import struct
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.errors import BlockwrightError, NoSpace, NotFound, ReadOnly, Unsupported, UsageError
from blockwright.fs.fat import check, edit, layout, read
from blockwright.fs.fat.allocation import Run
from blockwright.fs.fat.device import open_plan
from blockwright.fs.fat.geometry import Geometry
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import plan
from blockwright.fs.fat.resize import check_size, minimum_size, resize
from blockwright.fs.fat.resize.target import bounds, fat_room, target_of
from blockwright.fs.fat.resize.tree import Segment, _segments, read_tree
from blockwright.fs.fat.resize.values import read_values
from blockwright.fs.fat.volume import read_volume
from blockwright.testing.crash import CrashDevice
from blockwright.tree import BytesContent, Directory, File
from blockwright.units import GiB, KiB, MiB
from tests.support.disks import memory
from tests.support.fatresize import empty, file, fill, geometry, judge, larger, over, seen, used
from tests.support.fatvolumes import fat_trees, planned

OWN = {
    "own fat12": {"bits": 12, "size": 1 * MiB},
    "own fat16": {"bits": 16, "size": 9 * MiB},
    "own fat32": {"bits": 32, "size": 40 * MiB, "label": "ESP"},
    "own sectors": {"bits": 16, "sector_size": 4096, "size": 24 * MiB},
    "floppy": {"size": 1440 * KiB},
}
THEIRS = {
    "fat12": (400 * KiB, "-F", "12", "-s", "1"),
    "fat12 in two": (600 * KiB, "-F", "12", "-s", "2"),
    "fat16": (3 * MiB, "-F", "16", "-s", "1"),
    "fat32": (36 * MiB, "-F", "32", "-s", "1"),
    "one fat": (3 * MiB, "-F", "16", "-s", "1", "-f", "1"),
    "reserved": (36 * MiB, "-F", "32", "-s", "1", "-R", "100"),
    "reserved 16": (3 * MiB, "-F", "16", "-s", "1", "-R", "7"),
    "sectors": (20 * MiB, "-F", "32", "-S", "4096", "-s", "1"),
    "64 KiB": (300 * MiB, "-F", "16", "-s", "128", "-a"),
    "root": (3 * MiB, "-F", "16", "-s", "1", "-r", "2000"),
}
FACTORS = {"fat12": 3.9, "own fat12": 2, "floppy": 1.3, "64 KiB": 3, "own fat16": 3}


def made(name, folder, *, full=False):
    if name in OWN:
        device = memory(open_plan(plan(Directory(), FatOptions(seed=b"r", **OWN[name]))))
    else:
        device = empty(folder, *THEIRS[name])
    return fill(device, full=full)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", [*OWN, *THEIRS])
def test_it_grows_and_shrinks_with_everything_in_it(name, full, tmp_path):
    device = made(name, tmp_path, full=full and name != "64 KiB")
    contents, before = seen(device), geometry(device)
    size = int(before.size * FACTORS.get(name, 5)) // 4096 * 4096
    if full and name == "one fat":
        with pytest.raises(NoSpace, match=r"takes \d+ free clusters to move, found \d+: remove \d+ bytes of files"):
            resize(device, size)
        judge(device, contents, tmp_path / "volume")
        return
    report = resize(device, size)
    after = geometry(device)
    assert (report.kind, report.method) == (f"fat{before.bits}", "ordered")
    assert (report.old_size, report.size, device.size) == (before.size, size, size)
    kept = (before.bits, before.fats, before.root_entries, before.sectors_per_cluster)
    assert (after.bits, after.fats, after.root_entries, after.sectors_per_cluster) == kept
    assert after.size == size
    assert after.fat_sectors > before.fat_sectors
    assert (after.data_start - before.data_start) % before.cluster_size == 0
    assert after.clusters > before.clusters
    judge(device, contents, tmp_path / "volume")
    assert resize(device, size).method == "none"
    least = minimum_size(device)
    with pytest.raises((NoSpace, UsageError), match=f"expected at least {least} bytes"):
        resize(device, least - before.sector_size)
    assert resize(device, least).size == least
    assert device.size == size
    judge(device, contents, tmp_path / "volume")
    assert minimum_size(device) == least


def test_what_the_fats_have_room_for_moves_nothing(tmp_path):
    device = fill(empty(tmp_path, 2 * MiB, "-F", "32", "-s", "4"))
    contents, before = seen(device), geometry(device)
    size = before.data_start + fat_room(before) * before.cluster_size
    assert size > before.size
    whole = CrashDevice(larger(device, size + 511), owns=False)
    assert resize(whole).size == size
    judge(whole, contents, tmp_path / "volume")
    after = geometry(whole)
    assert after == replace(before, total_sectors=size // 512, clusters=fat_room(before))
    ends = before.data_start
    assert max(event.offset for event in whole.events if not event.is_flush) < ends
    # A cluster more would need another sector of each FAT, which costs more than it gives.
    wider = larger(whole, size + 2 * before.cluster_size)
    assert resize(wider).size == size


def test_it_becomes_as_large_as_it_was_and_bad_clusters_stay(tmp_path):
    device = fill(empty(tmp_path, 3 * MiB, "-F", "16", "-s", "1"))
    contents, before = seen(device), geometry(device)
    bad = [before.end_cluster - 1, before.end_cluster - 700]
    for cluster in bad:
        mark(device, cluster, 0xFFF7)
    least = minimum_size(device)
    assert least < before.cluster_start(bad[1]), "bad clusters are not in use"
    resize(device, least)
    resize(device, before.size)
    values = read_values(device, before)
    assert [values[cluster] for cluster in bad] == [0xFFF7, 0xFFF7]
    resize(device, 12 * MiB)
    after = geometry(device)
    shift = (after.data_start - before.data_start) // before.cluster_size
    assert shift > 0
    values = read_values(device, after)
    assert [index + shift for index, value in enumerate(values) if value == 0xFFF7] == sorted(bad)
    judge(device, contents, tmp_path / "volume")


def mark(device, cluster, value):
    where = geometry(device)
    width = where.bits // 8
    for copy in range(where.fats):
        device.write(where.fat_start(copy) + width * cluster, value.to_bytes(width, "little"))


def test_what_is_behind_the_end_does_not_count(tmp_path):
    """Entries behind the last cluster's hold anything, and so does what a device has behind a volume."""
    device = fill(empty(tmp_path, 2 * MiB, "-F", "32", "-s", "4"))
    contents, before = seen(device), geometry(device)
    for copy in range(2):
        start = before.fat_start(copy) + 4 * before.end_cluster
        device.write(start, b"\x07\0\0\0" * ((before.fat_start(copy) + before.fat_size - start) // 4))
    for size in (before.data_start + fat_room(before) * before.cluster_size, 9 * MiB):
        grown = larger(device, size)
        resize(grown)
        judge(grown, contents, tmp_path / "volume")


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_the_type_stays(bits, tmp_path):
    """The limits that a refusal names are sizes that it takes, and a sector beyond is refused."""
    size = {12: 400 * KiB, 16: 3 * MiB, 32: 36 * MiB}[bits]
    device = fill(empty(tmp_path, size, "-F", str(bits), "-s", "1"))
    contents = seen(device)
    low, high = bounds(geometry(device))
    if bits != 32:
        before = device.read(0, device.size)
        with pytest.raises(UsageError, match=f"FAT{bits} has {high} clusters at the most.*make a new file") as caught:
            resize(device, 900 * MiB)
        assert device.read(0, device.size) == before
        most = int(str(caught.value).split("expected at most ")[1].split()[0])
        for check_it in (resize, check_size):
            with pytest.raises(UsageError, match=f"expected at most {most} bytes"):
                check_it(device, most + 512)
        resize(device, most)
        assert geometry(device).clusters == high
        judge(device, contents, tmp_path / "volume")
    if bits != 12:
        least = minimum_size(device)
        with pytest.raises(UsageError, match=f"least {least} bytes, .*FAT{bits} has {low} clusters at the least"):
            resize(device, least - 512)
        resize(device, least)
        assert geometry(device).clusters == low
        judge(device, contents, tmp_path / "volume")


def test_a_small_fat32_may_stay_small(tmp_path):
    device = fill(empty(tmp_path, 2 * MiB, "-F", "32", "-s", "1"))
    least = minimum_size(device)
    assert least < 1 * MiB
    contents = seen(device)
    resize(device, least)
    judge(device, contents, tmp_path / "volume")


def test_the_reserved_sectors_that_a_boot_sector_can_tell_of_are_a_limit():
    large = Geometry(32, 512, 1, 32, 2, 32750, 0, 32 + 65500 + 32750 * 128 - 2, 32750 * 128 - 2, 2)
    assert target_of(large, 8 * GiB).geometry.reserved_sectors == 65532
    more = replace(large, reserved_sectors=36)
    with pytest.raises(Unsupported, match="would take 65536 reserved sectors, and a boot sector can say") as caught:
        target_of(more, 8 * GiB)
    most = int(str(caught.value).split("expected at most ")[1].split()[0])
    assert target_of(more, most) == (target_of(more, most).geometry, 0)
    assert target_of(more, most).geometry.size == most


def test_memory_and_writes_follow_the_fats_and_not_the_size():
    device = MemoryDevice(600 * GiB)
    small = open_plan(plan(Directory(), FatOptions(seed=b"r", bits=32, size=64 * GiB)))
    for extent in small.extents():
        if not extent.flags:
            device.write(extent.offset, small.read(extent.offset, extent.length))
    with edit.open(over(device)) as editor:
        editor.put(b"/file", file(100_000, 1))
    whole = CrashDevice(device, owns=False)
    assert resize(whole, 600 * GiB).size == 600 * GiB
    assert sum(len(event.data) for event in whole.events if event.data) < 2 * MiB
    with read.open(over(whole)) as files:
        assert files.open(b"/file").read(0, 100_000) == random.Random(1).randbytes(100_000)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_tree_at_any_sizes(data):
    """Against a dictionary of what is in it: sizes one after another, each done, or refused and nothing changed."""
    source = random.Random(data.draw(st.integers(0, 1 << 32)))
    bits, sector = data.draw(st.sampled_from([(12, 512), (16, 512), (32, 512), (12, 4096), (16, 1024)]))
    tree = data.draw(fat_trees())
    device = memory(open_plan(plan(tree, FatOptions(seed=b"h", bits=bits, sector_size=sector))))
    for number in range(data.draw(st.integers(0, 6))):
        # A directory that has to grow for a name may find a full volume.
        with suppress(NoSpace, NotFound), edit.open(over(device)) as editor:
            free = editor.files.usage().free
            size = min(free, source.choice([1, 3000, 20000, free]))
            editor.put(b"/extra %d" % number, file(size, number))
            if number and source.random() < 0.5:
                editor.rm(b"/extra %d" % source.randrange(number))
                break
    contents = seen(device)
    for _ in range(3):
        size = data.draw(st.integers(1, 4 * device.size // sector)) * sector
        before = geometry(device)
        try:
            assert resize(device, size).size <= size
        except (NoSpace, UsageError):
            assert geometry(device) == before
        assert seen(device) == contents
        assert [str(each) for each in check.check(device)] == []


# -- refused -------------------------------------------------------------------------------------------------------


def first_of(device, path):
    with read.open(over(device)) as files:
        entry = files.resolve(path) * 32
    raw = device.read(entry, 32)
    return entry, struct.unpack_from("<H", raw, 26)[0] | struct.unpack_from("<H", raw, 20)[0] << 16


def crossed(device):
    _, first = first_of(device, b"/plain")
    entry, _ = first_of(device, b"/in pieces")
    device.write(entry + 26, struct.pack("<H", first & 0xFFFF))


def loop(device):
    _, first = first_of(device, b"/dir")
    mark(device, first, first)


def lost(device):
    mark(device, geometry(device).end_cluster - 9, layout.MASK[geometry(device).bits])


def copies(device):
    where = geometry(device)
    device.write(where.fat_start(1) + 40, b"\1\2")


@pytest.mark.parametrize(
    ("change", "what"),
    [(crossed, "in a chain before it"), (loop, "twice"), (lost, "in none"), (copies, "differs from the first")],
)
@pytest.mark.parametrize("shape", ["fat16", "fat32"])
def test_damage_is_refused_by_name(change, what, shape, tmp_path):
    device = made(shape, tmp_path)
    change(device)
    before = device.read(0, device.size)
    for size in (device.size * 4, device.size - 512):
        with pytest.raises(UsageError, match=rf"fat: is damaged: mend it first, as with fsck.fat -a: .*{what}"):
            resize(device, size)
    assert device.read(0, device.size) == before


def test_an_unclean_volume_that_is_sound_is_resized_and_clean(tmp_path):
    device = made("fat32", tmp_path)
    contents = seen(device)
    device.write(65, b"\1")
    judged = [each.rule for each in check.check(device)]
    assert "fat.dirty" in judged
    resize(device, 100 * MiB)
    judge(device, contents, tmp_path / "volume")


@pytest.mark.parametrize("shape", ["fat12", "fat16"])
def test_a_bad_cluster_where_the_fats_would_grow_is_refused(shape, tmp_path):
    device = empty(tmp_path, *THEIRS[shape])
    where = geometry(device)
    for copy in range(2):
        start = where.fat_start(copy)
        device.write(start + 3, b"\xf7\x0f" if where.bits == 12 else b"\xff\xf7\xff")
    before = device.read(0, device.size)
    with pytest.raises(Unsupported, match="a cluster that is marked as bad lies where the FATs would grow"):
        resize(device, 2 * device.size)
    assert device.read(0, len(before)) == before


def test_a_system_file_does_not_move(tmp_path):
    device = made("fat16", tmp_path)
    contents = seen(device)
    with read.open(over(device)) as files:
        paths = [path for path, data in contents.items() if data]
        lowest = min(paths, key=lambda path: min(each.position for each in files.placement(files.resolve(path))))
    entry, _ = first_of(device, lowest)
    device.write(entry + 11, bytes((layout.READ_ONLY | layout.HIDDEN | layout.SYSTEM,)))
    before = device.read(0, device.size)
    with pytest.raises(Unsupported, match=r"lies where the FATs would grow, and does not move, since it is a system"):
        resize(device, 12 * MiB)
    assert device.read(0, len(before)) == before
    resize(device, minimum_size(device))


def test_other_boot_sectors(tmp_path):
    """One that has no flags, and FATs that are not copies: nothing moves, and what need not move is done."""
    old = made("fat16", tmp_path)
    contents = seen(old)
    old.write(38, b"\0")
    split = made("fat32", tmp_path)
    split.write(40, b"\x81\0")
    for device, what in ((old, "cannot say that it is being changed"), (split, "not copies of one another")):
        before = device.read(0, device.size)
        with pytest.raises(Unsupported, match=f"needs larger FATs, and .*{what}"):
            resize(device, 5 * device.size)
        assert device.read(0, len(before)) == before
        size = device.size
        resize(device, minimum_size(device))
        resize(device, size)
        assert seen(device) == contents


def test_devices_that_are_not_enough(tmp_path):
    device = made("fat16", tmp_path)
    with pytest.raises(UsageError, match="resize: expected at most the device's 3145728 bytes, found 6291456"):
        resize(over(device), 6 * MiB)
    path = tmp_path / "file"
    path.write_bytes(device.read(0, device.size))
    with FileDevice(path) as readonly, pytest.raises(ReadOnly):
        resize(readonly, 6 * MiB)
    with FileDevice(path) as readonly:
        assert minimum_size(readonly) == minimum_size(device)


# -- interrupted ---------------------------------------------------------------------------------------------------


def interrupted(tmp_path, shape="fat16", size=9 * MiB, *, full=True):
    device = larger(made(shape, tmp_path, full=full), size)
    whole = CrashDevice(device, owns=False)
    resize(whole, size)
    return device, whole


def test_who_else_changes_it_is_told_that_a_resize_was_interrupted(tmp_path):
    device, whole = interrupted(tmp_path)
    contents = seen(device)
    marked = 0
    for count in range(len(whole.events) + 1):
        disk = whole.cut(count)
        if not read_volume(disk).mark:
            continue
        marked += 1
        assert "fat.resize" in [each.rule for each in check.check(disk)]
        with pytest.raises(UsageError, match="a change of its size was interrupted: resize it again, as before"):
            edit.open(over(disk))
    assert marked > len(whole.events) // 2
    assert seen(whole) == contents


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", ["fat12", "fat16"])
def test_another_size_may_follow(shape, full, tmp_path):
    """Larger, smaller, as before: each finishes with the FATs there were, or is refused with nothing lost."""
    size = {"fat12": 800 * KiB, "fat16": 9 * MiB}[shape]
    device, whole = interrupted(tmp_path, shape, size, full=full)
    contents, before, after = seen(device), geometry(device), geometry(whole)
    chance, done = random.Random(shape), set()
    for told, disk in whole.cuts(chance, torn_for_each=1):
        other = chance.choice([before.size, before.size + 8 * KiB, size - 100 * KiB, minimum_size(disk)])
        try:
            resize(disk, other)
            done.add(geometry(disk).fat_sectors)
            assert geometry(disk).fats == 2, told
            judge(disk, contents, told=told)
        except BlockwrightError:
            assert seen(disk) == contents, told
        resize(disk, size)
        assert geometry(disk).fats == 2, told
        judge(disk, contents, told=told)
    assert done >= {before.fat_sectors, after.fat_sectors}


@pytest.mark.parametrize("full", [False, True])
def test_a_full_volume_lives_with_one_fat_for_a_while(full, tmp_path):
    _, whole = interrupted(tmp_path, full=full)
    states = {geometry(whole.cut(count)).fats for count in range(len(whole.events) + 1)}
    assert states == ({1, 2} if full else {2})


def test_copies_of_directories_take_what_is_free(tmp_path):
    device = made("fat16", tmp_path)
    tree = read_tree(device, read_volume(device))
    assert tree.folder_clusters > 9
    assert used(device) == tree.owned.count(1)
    assert not tree.segments


@pytest.mark.parametrize(("before", "moved"), [(340, []), (341, [341])])
def test_an_entry_in_two_sectors_does_not_change_but_its_cluster_moves_too(before, moved):
    twelve = Geometry(12, 512, 1, 1, 2, 12, 512, 5000, 4000)
    expected = Segment(0 if moved else before, [*moved, 5, 6], 900)
    assert _segments([Run(before, 1), Run(5, 2), Run(900, 1)], 10, twelve) == [expected]


def test_a_volume_without_a_file():
    for options in ({"bits": 12}, {"bits": 16}, {"bits": 32}):
        device = memory(open_plan(plan(Directory(), FatOptions(seed=b"e", **options))))
        size = 3 * device.size
        resize(device, size)
        judge(device, {})
        assert geometry(device).size == size


def test_what_was_planned_by_us_is_the_same_tree(tmp_path):
    device = planned(bits=32)
    contents = seen(device)
    resize(device, 6 * device.size)
    judge(device, contents, tmp_path / "volume")
    with edit.open(over(device)) as editor:
        editor.put(b"/new", File(content=BytesContent(b"x" * 100_000)))
    judge(device, {**contents, b"/new": b"x" * 100_000}, tmp_path / "volume")
