"""The files of an image as fsspec opens them, on each file system; what is written is then checked as a whole."""

import errno
import gc
import io
import os
import tarfile
from datetime import UTC, datetime

import fsspec
import pytest

from blockwright.errors import InUse, UsageError
from blockwright.fsspec import ImageFileSystem
from tests.support.inprocess import blockwright

pytestmark = pytest.mark.unprivileged

TIME = 1_600_000_000


@pytest.fixture(params=["ext4", "fat32", "partition"])
def image(request, tmp_path):
    """Return the address of a file system, and the fsspec URL of its root."""
    tree = tmp_path / "tree"
    (tree / "etc" / "deep").mkdir(parents=True)
    (tree / "etc" / "hosts").write_bytes(b"127.0.0.1 localhost\n")
    (tree / "etc" / "large").write_bytes(bytes(range(256)) * 4000)
    (tree / "etc" / "deep" / "x.txt").write_bytes(b"x")
    if request.param != "fat32":
        (tree / "link").symlink_to("/etc/hosts")
        (tree / "nowhere").symlink_to("gone")
    for path in sorted(tree.rglob("*")):
        os.utime(path, (TIME, TIME), follow_symlinks=False)
    disk = tmp_path / "disk.img"
    if request.param == "partition":
        blockwright("build", "-o", disk, "--size", "64M", "--table", "gpt", tree)
        return f"{disk}:1"
    blockwright("fs", "mkfs", disk, "--type", request.param, "--size", "64M", "--source", tree)
    return str(disk)


@pytest.fixture
def fs(image):
    found, root = fsspec.url_to_fs(f"blockwright://{image}/")
    assert isinstance(found, ImageFileSystem)
    assert (found.image, root) == (image, "/")
    yield found
    assert found._holders == 0
    assert blockwright("check", image).returncode == 0
    ImageFileSystem.clear_instance_cache()


def test_a_url_opens_a_file(image):
    with fsspec.open(f"blockwright://{image}/etc/hosts") as file:
        assert file.read() == b"127.0.0.1 localhost\n"
    with fsspec.open(f"blockwright://{image}/etc/hosts", "r") as file:
        assert file.readline() == "127.0.0.1 localhost\n"


def test_what_is_there(fs):
    assert fs.ls("/etc", detail=False) == ["/etc/deep", "/etc/hosts", "/etc/large"]
    told = {each["name"]: (each["type"], each["size"]) for each in fs.ls("/etc")}
    assert told["/etc/hosts"] == ("file", 20)
    assert told["/etc/deep"][0] == "directory"
    assert [each["name"] for each in fs.ls("etc/hosts/")] == ["/etc/hosts"]
    assert {"/etc/deep/x.txt", "/etc/hosts", "/etc/large"} <= set(fs.find("/"))
    assert fs.glob("/etc/**/*.txt") == ["/etc/deep/x.txt"]
    assert fs.du("/etc") == 20 + 1_024_000 + 1
    assert [(top, set(folders)) for top, folders, _ in fs.walk("/etc")] == [("/etc", {"deep"}), ("/etc/deep", set())]
    assert fs.isdir("/")
    assert fs.isfile("/etc/hosts")
    assert not fs.exists("/etc/gone")
    assert fs.modified("/etc/hosts") == datetime.fromtimestamp(TIME, UTC)
    assert fs.unstrip_protocol("/etc") == f"blockwright://{fs.image}/etc"
    assert fsspec.url_to_fs(fs.unstrip_protocol("/etc"))[0] is fs


def test_links(fs):
    if not fs.lexists("/link"):
        pytest.skip("the file system has no links")
    info = fs.info("/link")
    assert (info["islink"], info["destination"], info["type"], info["size"]) == (True, "/etc/hosts", "file", 20)
    assert fs.cat("/link") == b"127.0.0.1 localhost\n"
    assert fs.info("/nowhere")["type"] == "link"
    assert fs.lexists("/nowhere")
    with pytest.raises(FileNotFoundError):
        fs.open("/nowhere")


def test_reading_here_and_there(fs):
    whole = bytes(range(256)) * 4000
    with fs.open("/etc/large") as file:
        assert file.size == len(whole)
        file.seek(-300, os.SEEK_END)
        assert file.read() == whole[-300:]
        with fs.open("/etc/hosts") as other:  # two at once
            assert other.read(3) == b"127"
        file.seek(12_345)
        assert file.read(500_000) == whole[12_345:512_345]
    assert fs.cat_file("/etc/large", 5, -7) == whole[5:-7]
    assert fs.head("/etc/large", 10) == whole[:10]
    assert fs.cat_ranges(["/etc/large"] * 2, [0, 100], [4, 110]) == [whole[:4], whole[100:110]]


def test_writing(fs):
    fs.pipe("/etc/new", b"new")
    with fs.open("/etc/new", "ab") as file:
        file.write(b" and more")
    with fs.open("/etc/hosts", "wt") as file:
        file.write("::1\n")
    assert fs.cat(["/etc/new", "/etc/hosts"]) == {"/etc/new": b"new and more", "/etc/hosts": b"::1\n"}
    assert fs.modified("/etc/hosts") > datetime.fromtimestamp(TIME, UTC)
    with pytest.raises(FileExistsError):
        fs.open("/etc/new", "xb")
    fs.touch("/etc/new", truncate=False)
    assert fs.size("/etc/new") == 12
    fs.touch("/etc/new")
    assert fs.size("/etc/new") == 0


def test_seeking_while_writing(fs):
    with fs.open("/etc/new", "wb") as file:
        file.write(b"....tail")
        file.seek(0)
        file.write(b"head")
    assert fs.cat("/etc/new") == b"headtail"


def test_directories(fs):
    fs.makedirs("/a/b/c")
    fs.makedirs("/a/b/c", exist_ok=True)
    with pytest.raises(FileExistsError):
        fs.makedirs("/a/b/c")
    fs.pipe("/a/b/c/f", b"f")
    with pytest.raises(OSError) as caught:
        fs.rmdir("/a/b/c")
    assert caught.value.errno == errno.ENOTEMPTY
    with pytest.raises(IsADirectoryError):
        fs.rm("/a")
    fs.mv("/a/b", "/moved")
    assert fs.cat("/moved/c/f") == b"f"
    fs.copy("/moved", "/copied", recursive=True)
    assert fs.cat("/copied/c/f") == b"f"
    fs.rm(["/moved", "/copied/c/f"], recursive=True)
    fs.rmdir("/copied/c")
    fs.rm("/copi*", recursive=True)
    assert not fs.exists("/moved")
    assert not fs.exists("/copied")
    fs.rm("/a", recursive=True)


def test_there_and_back(fs, tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "f").write_bytes(b"body" * 5000)
    (tmp_path / "in" / "g").write_bytes(b"")
    fs.put(f"{tmp_path}/in", "/put", recursive=True)
    fs.get("/put", f"{tmp_path}/out", recursive=True)
    assert (tmp_path / "out" / "sub" / "f").read_bytes() == b"body" * 5000
    assert (tmp_path / "out" / "g").read_bytes() == b""


def interrupted(write):
    write(b"half")
    raise ZeroDivisionError


def test_a_transaction_is_all_or_nothing(fs):
    with fs.transaction:
        fs.pipe("/one", b"1")
        with fs.open("/two", "wb") as file:
            file.write(b"2")
        assert not fs.exists("/one")
    assert fs.cat(["/one", "/two"]) == {"/one": b"1", "/two": b"2"}
    with pytest.raises(ZeroDivisionError), fs.transaction:
        interrupted(lambda data: fs.pipe("/three", data))
    assert not fs.exists("/three")
    fs.pipe("/four", b"4")
    assert fs.cat("/four") == b"4"


def test_what_is_not_closed_or_raises_is_not_written(fs):
    with pytest.raises(ZeroDivisionError), fs.open("/etc/hosts", "wb") as file:
        interrupted(file.write)
    fs.open("/etc/forgotten", "wb").write(b"half")
    gc.collect()
    assert fs.cat("/etc/hosts") == b"127.0.0.1 localhost\n"
    assert not fs.exists("/etc/forgotten")


def test_what_is_missing_or_of_another_kind(fs):
    for call in (
        lambda: fs.open("/gone"),
        lambda: fs.open("/gone/x", "wb"),
        lambda: fs.info("/gone"),
        lambda: fs.ls("/etc/hosts/x"),
        lambda: fs.rm("/gone"),
        lambda: fs.mv("/gone", "/there"),
        lambda: fs.rmdir("/gone"),
    ):
        with pytest.raises(FileNotFoundError):
            call()
    for mode in ("rb", "wb", "ab"):
        with pytest.raises(IsADirectoryError):
            fs.open("/etc", mode)
    with pytest.raises(NotADirectoryError):
        fs.rmdir("/etc/hosts")
    with pytest.raises(NotImplementedError):
        fs.open("/etc/hosts", "r+b")


def test_who_reads_keeps_writers_away_until_the_file_is_closed(fs):
    file = fs.open("/etc/hosts")
    with pytest.raises(InUse):
        fs.rm("/etc/hosts")
    file.close()
    fs.rm("/etc/hosts")


def test_an_image_that_is_not_there(tmp_path):
    for url in (f"blockwright://{tmp_path}/gone.img/etc", f"blockwright://{tmp_path}/", "blockwright://"):
        with pytest.raises(FileNotFoundError, match="expected a file of the host"):
            fsspec.url_to_fs(url)
    with pytest.raises(UsageError, match="expected an image"):
        fsspec.filesystem("blockwright")
    with pytest.raises(FileNotFoundError):
        fsspec.filesystem("blockwright", image=str(tmp_path / "gone.img")).ls("/")


def test_libraries_open_it(fs, image):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("member"))
    fs.pipe("/etc/a.tar", packed.getvalue())
    inner, _ = fsspec.url_to_fs(f"tar://::blockwright://{image}/etc/a.tar")
    assert inner.ls("", detail=False) == ["member"]
    inner.fo.close()
