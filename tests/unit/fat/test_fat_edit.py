"""What the editor of FAT volumes promises beyond what every editor does."""

import dataclasses
import tracemalloc

import pytest

from blockwright.device.memory import MemoryDevice
from blockwright.device.window import Window
from blockwright.errors import Corrupt, NoSpace, ReadOnly, SourceChanged, UsageError
from blockwright.fs.editor import Attributes, CommitPolicy
from blockwright.fs.fat import check, edit, layout, read
from blockwright.fs.fat.allocation import AllocationTable
from blockwright.fs.fat.device import open_plan
from blockwright.fs.fat.options import FatOptions
from blockwright.fs.fat.plan import plan
from blockwright.fs.fat.volume import read_volume
from blockwright.testing.fault import FaultDevice
from blockwright.tree import BytesContent, Content, Directory, File, Symlink
from blockwright.units import GiB, KiB, MiB
from tests.support.disks import memory
from tests.support.fatvolumes import TIME_NS, file, planned, small32
from tests.support.fsedits import differences

pytestmark = pytest.mark.unprivileged


def opened(device, **policy):
    return edit.open(Window(device, 0, device.size, owns=False), policy=CommitPolicy(**policy))


def info_of(device):
    volume = read_volume(device)
    return volume.info_sector * volume.geometry.sector_size


def free_in_table(device):
    volume = read_volume(device)
    return sum(values.count(0) for _, values in AllocationTable(device, volume.geometry).pages())


@pytest.mark.parametrize("count", [layout.UNKNOWN_COUNT, 0, 7, 0x7FFFFFFF])
def test_the_count_of_free_clusters_is_right_whatever_it_was(count):
    device = small32()
    device.write(info_of(device) + 488, count.to_bytes(4, "little"), layout.UNKNOWN_COUNT.to_bytes(4, "little"))
    with opened(device) as editor:
        editor.put(b"/new", file(5000))
    found = layout.FsInfo.parse(device.read(info_of(device), 512))
    assert found.fsi_free_count == free_in_table(device)
    assert check.check(device) == []


def test_bits_beside_entries_of_32_stay():
    device = small32()
    start = read_volume(device).geometry.fat_start()
    for cluster in range(2, 40):
        device.write(start + cluster * 4 + 3, bytes((device.read(start + cluster * 4 + 3, 1)[0] | 0xA0,)))
    with opened(device) as editor:
        editor.rm(b"/many", recursive=True)
    assert {device.read(start + cluster * 4 + 3, 1)[0] & 0xF0 for cluster in range(2, 40)} == {0xA0}


def test_an_unclean_volume_is_changed_where_it_is_sound_and_clean_behind_it():
    device = small32()
    geometry = read_volume(device).geometry
    lost = geometry.fat_start() + (geometry.end_cluster - 3) * 4
    for copy in range(geometry.fats):
        device.write(lost + copy * geometry.fat_size, b"\xff\xff\xff\x0f")
    device.write(65, b"\1")
    with opened(device) as editor:
        editor.put(b"/new", file(5000))
    assert [each.rule for each in check.check(device)] == ["fat.cluster.lost"]


def test_an_unclean_volume_that_is_damaged_is_refused():
    device = small32()
    device.write(65, b"\1")
    geometry = read_volume(device).geometry
    device.write(geometry.fat_start() + geometry.fat_size + 8 * 4, b"\1\2\3\4")
    with pytest.raises(UsageError, match=r"not left clean, and is damaged: .*fsck\.fat -a.*FAT 2: differs"):
        opened(device)


def test_a_read_only_device_is_refused():
    device = planned(bits=16)
    with pytest.raises(ReadOnly):
        edit.open(Window(device, 0, device.size, read_only=True, owns=False))


def test_a_full_root_says_both_numbers_and_changes_nothing():
    device = memory(open_plan(plan(Directory(), FatOptions(size=4 * MiB, bits=16))))
    with opened(device) as editor:
        for number in range(512):
            editor.put(b"/F%d" % number, file(0))
        with pytest.raises(
            NoSpace, match="expected 1 free places side by side in a directory of at most 512 entries"
        ):
            editor.put(b"/MORE", file(10))
        editor.rm(b"/F7")
        editor.put(b"/MORE", file(10))
        with pytest.raises(NoSpace, match="expected 2 free places"):
            editor.mv(b"/F9", b"/a long name")
        assert editor.files.find(editor.files.root_inode, b"F9")
    assert check.check(device) == []


def test_a_full_volume_says_both_numbers_and_what_is_given_back_can_be_used():
    device = memory(open_plan(plan(Directory(), FatOptions(size=4 * MiB, bits=16))))
    split = []
    with opened(device, on_split=split.append) as editor:
        free = editor.files.usage().free
        editor.put(b"/half", file(free // 2))
        editor.commit()
        with pytest.raises(NoSpace, match=r"expected [0-9]+ free clusters of [0-9]+ bytes, found [0-9]+"):
            editor.write(b"/half", BytesContent(bytes(free)))
        editor.rm(b"/half")
        assert editor.files.usage().free == free
        editor.put(b"/all", file(free))
        assert split == ["FAT has no journal: clusters that are given back must be so before they are used again"]
        assert editor.files.usage().free == 0
    assert check.check(device) == []


def test_a_directory_of_65536_entries_is_full():
    device = memory(open_plan(plan(Directory(entries={b"D": Directory()}), FatOptions(size=40 * MiB, bits=32))))
    entries = {b"F%d" % number: File(mtime_ns=TIME_NS) for number in range(65534)}
    with opened(device) as editor:
        editor.put(b"/D", Directory(entries=entries))
        with pytest.raises(NoSpace, match="at most 65536 entries"):
            editor.put(b"/D/more", file(0))


def test_aliases_of_like_names_are_unique():
    device = memory(open_plan(plan(Directory(), FatOptions(size=40 * MiB, bits=32))))
    with opened(device) as editor:
        for number in range(3000):
            editor.put(b"/the same beginning %d.text" % number, file(0))
            if number % 3 == 0:
                editor.rm(b"/the same beginning %d.text" % number)
    assert check.check(device) == []
    with read.open(device) as files:
        assert len(list(files.entries(files.root_inode))) == 2000


@pytest.mark.parametrize("directory", [False, True])
def test_a_name_changes_its_case(directory):
    device = planned(bits=16)
    with opened(device) as editor:
        node = Directory() if directory else file(700)
        for before, after in ((b"name", b"NAME"), (b"Long Name of it", b"LONG name of IT")):
            editor.put(b"/" + before, node)
            editor.mv(b"/" + before, b"/" + after)
            names = [entry.name for entry in editor.files.entries(editor.files.root_inode)]
            assert after in names
            assert before not in names
    assert check.check(device) == []


def test_what_fat_has_not_is_refused():
    device = planned(bits=16)
    with opened(device) as editor:
        for change in (
            lambda: editor.put(b"/link", Symlink(b"README")),
            lambda: editor.ln(b"/README", b"/second"),
            lambda: editor.set_attributes(b"/README", Attributes(uid=0)),
            lambda: editor.set_attributes(b"/README", Attributes(immutable=True)),
            lambda: editor.set_attributes(b"/README", Attributes(dos=layout.DIRECTORY)),
            lambda: editor.set_attributes(b"/", Attributes(mtime_ns=0)),
            lambda: editor.set_xattr(b"/README", b"user.a", b""),
            lambda: editor.set_label("more than eleven"),
            lambda: editor.put(b"/CON", file(1)),
            lambda: editor.put(b"/a?", file(1)),
            lambda: editor.truncate(b"/README", 1 << 32),
        ):
            with pytest.raises(UsageError):
                change()
        before = device.read(0, device.size)
    assert device.read(0, device.size) == before


def test_attributes():
    device = planned(bits=16)
    with opened(device) as editor:
        editor.set_attributes(b"/README", Attributes(dos=layout.HIDDEN | layout.SYSTEM, mtime_ns=TIME_NS + 10**9))
        editor.set_attributes(b"/read me.first", Attributes(permissions=0o644, atime_ns=-5))
        assert editor.files.stat(b"/README").mtime_ns == TIME_NS
        assert editor.files.stat(b"/read me.first").mode & 0o777 == 0o644
        assert editor.files.stat(b"/read me.first").atime_ns == layout.EPOCH_S * 10**9
    assert check.check(device) == []


def test_a_hard_link_of_a_tree_is_copied():
    device = planned(bits=16)
    both = file(900)
    with opened(device) as editor:
        editor.put(b"/new", Directory(entries={b"A": both, b"B": both}))
        assert editor.files.stat(b"/new/A").inode != editor.files.stat(b"/new/B").inode
    assert check.check(device) == []


class Vanishing(Content):
    """Ends before it should."""

    def read_into(self, offset, buffer, /):
        raise SourceChanged("gone")


def test_a_source_that_fails_leaves_nothing():
    device = planned(bits=16)
    with opened(device) as editor:
        free = editor.files.usage().free
        before = list(editor.files.entries(editor.files.root_inode))
        for change in (
            lambda: editor.put(b"/new", File(content=Vanishing(9000))),
            lambda: editor.put(b"/README", File(content=Vanishing(9000))),
            lambda: editor.write(b"/README", Vanishing(9000)),
            lambda: editor.write(b"/README", Vanishing(9000), offset=512),
            lambda: editor.write(b"/README", Vanishing(9000), offset=5),
        ):
            with pytest.raises(SourceChanged):
                change()
            assert editor.files.usage().free == free
        assert list(editor.files.entries(editor.files.root_inode)) == before
        content = device.read(0, device.size)
    assert check.check(device) == []
    assert device.size == len(content)


def test_atomic_refuses_what_is_seen_in_parts():
    device = planned(bits=16)
    before = device.read(0, device.size)
    editor = opened(device, atomic=True)
    editor.put(b"/many/a", file(10))
    editor.put(b"/b", file(10))
    with pytest.raises(UsageError, match="not one transaction: FAT has no journal: 2 sectors"):
        editor.commit()
    editor.close()
    assert read_volume(device).dirty is False
    again = MemoryDevice(content=before)
    with read.open(again) as was, read.open(Window(device, 0, device.size, owns=False)) as files:
        assert [each.name for each in files.entries(1)] == [each.name for each in was.entries(1)]
    with opened(device, atomic=True) as editor:
        editor.put(b"/whole", Directory(entries={b"%d" % number: file(number) for number in range(100)}))
    assert check.check(device) == []


def test_after_a_commit_that_failed_nothing_more_is_committed():
    device = planned(bits=16)
    with edit.open(FaultDevice(device, owns=False)) as count:
        count.put(b"/probe", file(1))
    faulty = FaultDevice(device, fail_at=3, names={"flush"}, owns=False)
    editor = edit.open(faulty)
    editor.put(b"/new", file(1000))
    editor.put(b"/many/new", file(1000))
    with pytest.raises(OSError, match="Input/output error"):
        editor.commit()
    with pytest.raises(UsageError, match="a commit failed"):
        editor.commit()
    editor.close()
    assert read_volume(device).dirty
    with opened(device):
        pass


def test_entries_behind_the_end_of_a_directory_are_not_brought_back():
    device = planned(bits=16)
    with read.open(Window(device, 0, device.size, owns=False)) as files:
        inode = files.resolve(b"/empty")
        cluster = files._entry(inode).dir_fst_clus_lo
        position = files.geometry.cluster_start(cluster)
    device.write(position + 10 * 32, b"GHOST   TXT\x20")
    with opened(device) as editor, pytest.raises(Corrupt, match="behind its end"):
        editor.put(b"/empty/new", file(1))


def test_memory_follows_what_is_changed():
    options = FatOptions(size=512 * GiB, bits=32, seed=b"test", cluster_size=4 * KiB)
    volume = plan(Directory(), options)
    assert volume.geometry.fat_size > 500 * MiB
    device = memory(open_plan(volume))
    tracemalloc.start()
    try:
        with opened(device) as editor:
            editor.put(b"/one", file(100 * KiB))
            editor.mkdir(b"/dir", Directory())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MiB
    assert said_free(device) == volume.geometry.clusters - 1 - 25 - 1


def said_free(device):
    return layout.FsInfo.parse(device.read(info_of(device), 512)).fsi_free_count


def test_a_fat_that_is_not_mirrored_is_changed_alone():
    device = small32()
    volume = read_volume(device)
    device.write(40, b"\x81\0")
    with opened(device) as editor:
        editor.put(b"/new", file(5000))
    geometry = volume.geometry
    first, second = (device.read(geometry.fat_start(copy), geometry.fat_size) for copy in (0, 1))
    assert first != second
    assert dataclasses.replace(read_volume(device), mirrored=True, active_fat=0) == volume
    with read.open(device) as files:
        assert files.stat(b"/new").size == 5000


@pytest.mark.parametrize("to", [b"/zero", b"/empty/README"], ids=["over", "new"])
def test_a_move_of_what_is_damaged_changes_nothing(to):
    """What is wrong with a file behind its end shows before its entry is made anew."""
    device = small32()
    with read.open(Window(device, 0, device.size, owns=False)) as files:
        last = files.placement(files.resolve(b"/README"))[-1]
    geometry = read_volume(device).geometry
    cluster = (last.position - geometry.data_start) // geometry.cluster_size + layout.FIRST_CLUSTER
    for copy in range(geometry.fats):
        device.write(geometry.fat_start(copy) + cluster * 4, (geometry.end_cluster + 5).to_bytes(4, "little"))
    original = MemoryDevice(content=device.read(0, device.size))
    with opened(device) as editor:
        with pytest.raises(Corrupt, match="fat chain"):
            editor.mv(b"/README", to)
        with pytest.raises(Corrupt, match="fat chain"):
            editor.mv(b"/README", b"/a long name that takes more than a sector of places " + b"x" * 150)
        editor.put(b"/new", file(5))
    with read.open(original) as before, read.open(Window(device, 0, device.size, owns=False)) as after:
        tree = after.tree()
        del tree.entries[b"new"]
        assert differences(before.tree(), tree) == []
