import os

import pytest

from blockwright.build.definition import Definition, Table
from blockwright.device.file import FileDevice
from blockwright.device.guarded import GuardedDevice
from blockwright.errors import NotAllowed, NotFound, ReadOnly, Unsupported, UsageError
from blockwright.format.qcow2.create import Options, create
from blockwright.fs.ext4 import read as ext4
from blockwright.resolve import open_file_system
from blockwright.serve.image import Image, parse_track, scratch_file
from blockwright.tree.changes import Changes

BARE = Definition(table=Table.NONE)


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "hello").write_bytes(b"hello")
    return folder


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


def test_a_directory_is_a_read_only_disk(tree):
    with Image(str(tree), disk=BARE)() as device:
        assert not device.traits.writable
        assert ext4.probe(device)


def test_an_overlay_makes_it_writable_and_is_forgotten(tree, tmp_path):
    for where in (None, str(tmp_path / "scratch")):
        with Image(str(tree), disk=BARE, overlay=True, overlay_file=where)() as device:
            device.write(8192, b"written")
            assert device.read(8192, 7) == b"written"
            assert not os.path.exists(tmp_path / "scratch")


def test_a_scratch_file_is_never_one_that_is_there(raw):
    with pytest.raises(UsageError, match="exists"):
        scratch_file(str(raw))
    with pytest.raises(FileNotFoundError):
        scratch_file(str(raw.parent / "missing" / "scratch"))


def test_a_file_is_guarded_unless_its_format_was_given(raw):
    with Image(str(raw))() as device:
        assert isinstance(device, GuardedDevice)
        with pytest.raises(ReadOnly):
            device.write(0, b"QED\0")
    with Image(str(raw), form="raw")() as device:
        device.write(0, b"QED\0")
        device.flush()
    with pytest.raises(Unsupported, match="found qed"):
        Image(str(raw))()
    with pytest.raises(Unsupported, match="found qed"):
        Image(str(raw), overlay=True)()
    with Image(str(raw), form="raw", writable=False)() as device:
        assert device.read(0, 4) == b"QED\0"


@pytest.mark.parametrize("text", ["{raw}:0,4096", "mem:64k"])
def test_what_nobody_probes_is_not_guarded(raw, text):
    with Image(text.format(raw=raw))() as device:
        device.write(0, b"QED\0")


def test_nothing_stays_open_when_it_fails(raw, tmp_path):
    with pytest.raises(UsageError):
        Image(str(raw), overlay=True, overlay_file=str(raw))()
    with Image(str(raw))():  # locked for nobody
        pass
    with pytest.raises(NotFound):
        Image(str(tmp_path / "missing"))()


def test_equal_images_are_equal():
    assert Image("a", overlay=True) == Image("a", overlay=True)
    assert Image("a") != Image("a", writable=False)


def test_checkpoints_are_parsed():
    assert parse_track(()) == ()
    assert parse_track(("a", "b=x=y"), "/f") == (("a", None), ("b", "/f/x=y"))
    assert parse_track(("b=/x",), "/f") == (("b", "/x"),)


@pytest.mark.parametrize("texts", [("",), ("=x",), ("a=",), ("a", "a"), ("a", "a=x"), ("a=x", "b=x")])
def test_checkpoints_that_are_none(texts):
    with pytest.raises(UsageError, match="track: expected"):
        parse_track(texts)


def test_an_image_is_tracked_through_all_that_it_is_wrapped_in(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(1 << 20))
    image = Image(str(path), track=(("a", None), ("kept", str(tmp_path / "map"))))
    with image() as device:
        assert [each.name for each in device.checkpoints] == ["a", "kept"]
        device.write(70_000, b"x")
        assert device.checkpoints[0] is not device.checkpoints[1]
    with image() as device:
        told = [[each.flags for each in one.extents(0, device.size)] for one in device.checkpoints]
        assert told == [[0], [0, 1, 0]]
    os.utime(path, ns=(0, 0))
    with image() as device:
        assert [each.flags for each in device.checkpoints[1].extents(0, device.size)] == [1]


def test_an_overlays_checkpoint_cannot_be_kept(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(4096))
    with pytest.raises(UsageError, match="an overlay's writes end with the server"):
        Image(str(path), overlay=True, track=(("a", "map"),))()
    with Image(str(path), overlay=True, track=(("a", None),))() as device:
        device.write(0, b"x")
        assert [each.flags for each in device.checkpoints[0].extents(0, 4096)] == [1]


def test_a_qcow2_image_is_served_as_the_disk_in_it(tmp_path):
    path = tmp_path / "disk.qcow2"
    with FileDevice(path, create=True) as file:
        create(file, 1 << 20, Options())
    with Image(str(path))() as device:
        assert device.size == 1 << 20
        device.write(0, b"QFI\xfb")  # its guest's to choose: the file's own mark says what the file is
        device.flush()
    with Image(str(path), overlay=True)() as device:
        device.write(0, b"over")
        assert device.read(0, 4) == b"over"
    with Image(str(path), writable=False)() as device:
        assert device.read(0, 4) == b"QFI\xfb"
    with Image(str(path), form="raw", writable=False)() as device:
        assert device.size == os.path.getsize(path)


def test_a_file_that_names_another_is_not_served_unasked(tmp_path):
    path, base = tmp_path / "disk.qcow2", tmp_path / "base"
    base.write_bytes(b"base" * 1000)
    with FileDevice(path, create=True) as file:
        create(file, 1 << 20, Options(backing_file="base", backing_format="raw"))
    with pytest.raises(NotAllowed):
        Image(str(path))()
    with Image(str(path), allow_backing=(str(tmp_path),))() as device:
        assert device.read(0, 4) == b"base"


def test_a_directory_is_changed_on_its_way_and_an_image_is_served_as_it_is(tree, raw):
    changed = Definition(table=Table.NONE, changes=Changes(exclude=("hello",), hostname="box"))
    with Image(str(tree), disk=changed)() as device, open_file_system(device, source="disk") as system:
        assert sorted(system.tree().entries) == [b"etc", b"lost+found"]
    with pytest.raises(UsageError, match="as it is"):
        Image(str(raw), disk=changed)()
