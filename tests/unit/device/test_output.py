import os
import stat
import sys

import pytest

from blockwright.device.file import FileDevice
from blockwright.device.memory import MemoryDevice
from blockwright.device.output import OutputFile
from blockwright.errors import InUse, NotFound, UsageError

pytestmark = pytest.mark.unprivileged


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.img"


def names(path):
    return sorted(os.listdir(path.parent))


def test_appears_complete(path):
    with OutputFile(path, size=100) as output:
        assert output.target_is_zero
        output.device.write(5, b"abc")
        assert not path.exists()
        assert len(names(path)) == 1
    assert path.read_bytes() == bytes(5) + b"abc" + bytes(92)
    assert names(path) == ["out.img"]


def test_a_device_that_is_not_there_is_not_made_a_file(path, monkeypatch):
    monkeypatch.setattr("blockwright.device.output.DEVICES", str(path.parent))
    (path.parent / "disk").mkdir()
    for name in (path, path.parent / "disk" / "by-id"):
        with pytest.raises(NotFound, match="no such device"):
            OutputFile(name, force=True)
    assert names(path) == ["disk"]
    path.write_bytes(b"")
    with OutputFile(path, force=True):
        pass
    with pytest.raises(FileNotFoundError):
        OutputFile(path.parent / "none" / "out.img")


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="/dev/shm is not mounted")
def test_files_of_shared_memory_are_files():
    name = f"/dev/shm/blockwright-{os.getpid()}"
    with OutputFile(name, size=1):
        pass
    try:
        with pytest.raises(UsageError, match="exists already"):
            OutputFile(name)
        assert os.path.getsize(name) == 1
        with OutputFile(name, force=True, size=2):
            assert os.path.getsize(name) == 1  # what was there is there until the end
    finally:
        os.unlink(name)


def test_a_file_that_a_path_through_proc_leads_to_is_a_file(path):
    path.write_bytes(b"before")
    if not os.path.exists("/proc/self/cwd"):
        pytest.skip("folders have no other names here")
    with pytest.raises(UsageError, match="exists already"):
        OutputFile(f"/proc/self/root{path}")
    assert path.read_bytes() == b"before"


def test_an_open_descriptor_is_told_through_any_link(path, tmp_path):
    if not os.path.exists("/proc/thread-self/fd"):
        pytest.skip("descriptors have no names here")
    with open(path, "wb+") as file:
        for number, folder in enumerate(("/proc/self/fd", "/proc/thread-self/fd", "/dev/fd")):
            link = tmp_path / f"link{number}"
            link.symlink_to(f"{folder}/{file.fileno()}")
            file.write(b"before")
            file.flush()
            with OutputFile(link, size=3) as output:
                output.device.write(0, b"new")
            file.seek(0)
            assert file.read() == b"new"
            file.seek(0)


def test_a_new_file_has_the_mode_that_the_umask_leaves(path):
    before = os.umask(0o027)
    try:
        with OutputFile(path):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
@pytest.mark.parametrize("existing", [None, b"before"])
def test_whatever_ends_it_leaves_what_was_there(path, error, existing):
    if existing is not None:
        path.write_bytes(existing)
    output = OutputFile(path, size=10, force=True)

    def write_half():
        with output:
            output.device.write(0, b"half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert names(path) == ([] if existing is None else ["out.img"])
    assert existing is None or path.read_bytes() == existing
    assert output.device.closed


def test_an_existing_file_needs_force_and_keeps_mode_and_owner(path):
    path.write_bytes(b"before")
    path.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    was = path.stat()
    with pytest.raises(UsageError, match=r"out\.img: exists already"):
        OutputFile(path)
    assert path.read_bytes() == b"before"
    with OutputFile(path, force=True, size=3):
        pass
    now = path.stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (was.st_mode, was.st_uid, was.st_gid)
    assert path.read_bytes() == bytes(3)


def test_a_private_file_is_never_readable_by_others_on_the_way(path):
    path.touch(0o600)
    with OutputFile(path, force=True):
        (temporary,) = set(names(path)) - {"out.img"}
        assert stat.S_IMODE((path.parent / temporary).stat().st_mode) == 0o600


def test_a_symlink_is_followed_and_kept(path, tmp_path):
    (tmp_path / "there").mkdir()
    real = tmp_path / "there" / "real.img"
    path.symlink_to(real)
    with OutputFile(path, size=2):  # it leads nowhere yet
        assert len(os.listdir(real.parent)) == 1
    with OutputFile(path, size=3, force=True):
        pass
    assert path.is_symlink()
    assert real.stat().st_size == 3


def test_the_longest_name_has_room_for_what_is_added(tmp_path):
    path = tmp_path / ("ü" * 127)
    with OutputFile(path, size=1):
        pass
    assert path.stat().st_size == 1


def test_a_file_in_use_is_not_replaced(path):
    path.write_bytes(b"before")
    with FileDevice(path, writable=True):
        with pytest.raises(InUse, match=r"out\.img: is in use"):
            OutputFile(path, force=True)
        with OutputFile(path, force=True, force_unlocked=True):
            pass
    assert names(path) == ["out.img"]


def test_what_cannot_be_written_at_any_offset_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, "directory"), (tmp_path / "pipe", "pipe"), ("/dev/null", "character device")):
        with pytest.raises(UsageError, match=kind):
            OutputFile(path, force=True)


def test_a_dash_is_neither_standard_output_nor_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="/dev/stdout"):
        OutputFile("-", force=True)
    with OutputFile("./-", size=1):
        pass
    assert os.listdir(tmp_path) == ["-"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        OutputFile(tmp_path / "no" / "out.img")


def test_an_open_descriptor_by_name_is_written_in_place(path):
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("descriptors have no names here")
    with open(path, "wb+") as file:
        file.write(b"before")
        file.flush()
        with OutputFile(f"/proc/self/fd/{file.fileno()}", size=3) as output:
            output.device.write(0, b"new")
        file.seek(0)
        assert file.read() == b"new"
    assert names(path) == ["out.img"]


def test_a_failing_sync_discards(path, monkeypatch):
    path.write_bytes(b"before")

    def fail(fd):
        raise OSError(5, "lost")

    with monkeypatch.context() as patch:
        patch.setattr("blockwright.device.hostfile.sync_data", fail)
        with pytest.raises(OSError, match="out"), OutputFile(path, force=True, size=3):
            pass
    assert names(path) == ["out.img"]
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize(("force", "named_by"), [(True, "replace"), (False, "link")])
def test_the_file_is_synced_before_it_is_named_and_the_folder_behind(path, monkeypatch, force, named_by):
    order = []
    for module, name in (("hostfile", "sync_data"), ("output.os", named_by), ("output.os", "fsync")):
        target = f"blockwright.device.{module}.{name}"
        original = os.fdatasync if name == "sync_data" else getattr(os, name)
        monkeypatch.setattr(target, lambda *args, name=name, original=original: (order.append(name), original(*args)))
    with OutputFile(path, force=force):
        pass
    assert order == ["sync_data", named_by, "fsync"]


@pytest.mark.parametrize("links", [True, False])
def test_of_two_at_once_without_force_the_first_to_end_has_the_name(path, monkeypatch, links):
    def refuse(*_names):
        raise PermissionError("no links here")  # as on FAT

    if not links:
        monkeypatch.setattr("blockwright.device.output.os.link", refuse)
    first, second = OutputFile(path, size=1), OutputFile(path, size=2)
    first.commit()
    with pytest.raises(UsageError, match="exists already; --force replaces it"):
        second.commit()
    assert names(path) == ["out.img"]
    assert path.stat().st_size == 1


def test_an_owner_who_cannot_be_set_is_no_reason_to_fail(path, monkeypatch):
    def unknown(*_args):
        raise OSError(22, "no such number in this user namespace")

    path.write_bytes(b"before")
    monkeypatch.setattr("blockwright.device.output.os.chown", unknown)
    with OutputFile(path, force=True, size=1):
        pass
    assert path.read_bytes() == bytes(1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_may_be_written_to_and_not_read(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir(0o300)
    try:
        with OutputFile(folder / "out.img", size=1):
            pass
    finally:
        folder.chmod(0o700)
    assert os.listdir(folder) == ["out.img"]


@pytest.mark.parametrize(("number", "told"), [(22, False), (5, True)])
def test_a_folder_that_is_not_synced_is_told_where_the_medium_fails(path, monkeypatch, number, told):
    def fail(_fd):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("blockwright.device.output.os.fsync", fail)
    output = OutputFile(path, size=1)
    if told:
        with pytest.raises(OSError, match=str(path.parent)):
            output.commit()
    else:
        output.commit()
    assert names(path) == ["out.img"]


def test_a_size_that_cannot_be_leaves_nothing(path):
    with pytest.raises(UsageError):
        OutputFile(path, size=1 << 63)
    assert names(path) == []


def test_discard_is_idempotent(path):
    output = OutputFile(path)
    output.discard()
    output.discard()
    assert names(path) == []


def test_a_full_disk_is_one_error_that_names_the_output(path, monkeypatch):
    def full(fd, offset, buffers, *, durable=False):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("blockwright.device.hostfile.write_full", full)
    from blockwright.device.copy import copy

    with (
        pytest.raises(OSError, match=r"No space left on device: '.*out\.img'"),
        OutputFile(path, size=9_000_000) as output,
    ):
        copy(MemoryDevice(content=b"x" * 9_000_000), output.device, target_is_zero=True)
    assert names(path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can tell whether a process still writes")
def test_what_killed_processes_left_goes_with_the_next_output_of_that_name(path):
    beside = {
        kind: path.parent / name
        for kind, name in {
            "dead": ".out.img.0123456789ab.partial",
            "young": ".out.img.1123456789ab.partial",
            "used": ".out.img.2123456789ab.partial",
            "other": ".out.imgs.3123456789ab.partial",
            "suffix": ".out.img.4123456789ab.partial.bak",
            "short": ".out.img.0123.partial",
        }.items()
    }
    for each in beside.values():
        each.touch()
    (path.parent / ".out.img.5123456789ab.partial").mkdir()
    (path.parent / ".out.img.6123456789ab.partial").symlink_to("short")
    with FileDevice(beside["used"], writable=True):
        for each in beside.values():
            if each != beside["young"]:
                os.utime(each, (1, 1))
        before = set(names(path))
        with OutputFile(path, size=1):
            pass
        assert before - set(names(path)) == {beside["dead"].name}
    os.utime(beside["used"], (1, 1))
    with OutputFile(path, size=1, force=True):
        pass
    assert not beside["used"].exists()
