"""The commands that change a file system in place, as a shell calls them; fsck and mtools or debugfs judge."""

import json
import os
import random
import subprocess

import pytest

from tests.support.command import blockwright, document
from tests.support.e2fs import debugfs
from tests.support.serving import serving
from tests.support.tools import run, tool


@pytest.fixture(params=["ext4", "fat"])
def image(request, tmp_path):
    """A file system in a file of its own."""
    path = tmp_path / f"{request.param}.img"
    bw("mkfs", path, "--type", request.param, "--size", "40M", "--seed", "test", "--label", "LABEL")
    yield path
    run([tool("fsck.fat"), "-n", path] if request.param == "fat" else [tool("e2fsck"), "-fn", path])


def bw(command, *arguments, **more):
    return blockwright("fs", command, *arguments, **more)


def listed(image, path="/"):
    found = document("fs", "ls", image, path, "-R")["entries"]
    return {each["name"]: each for each in found if not each["name"].startswith("lost+found")}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    (folder / "inner").mkdir(parents=True)
    (folder / "one.txt").write_bytes(b"one" * 1000)
    (folder / "inner" / "a longer name.txt").write_bytes(b"two")
    (folder / "empty").write_bytes(b"")
    return folder


def test_put_directories_and_files(image, source):
    bw("put", image, source, "/", code=2)
    bw("put", image, "-r", source, "/", "--owner", "0:0")
    bw("put", image, "-r", f"{source}/.", "/merged/here", "-p", "--owner", "0:0")
    bw("put", image, source / "one.txt", source / "empty", "/merged", "--mode", "444", "--owner", "0:0")
    bw("put", image, source / "one.txt", "/renamed")
    found = listed(image)
    assert set(found) == {
        "renamed",
        *(f"{at}{name}" for at in ("source/", "merged/here/") for name in ("inner", "one.txt", "empty")),
        *(f"{at}inner/a longer name.txt" for at in ("source/", "merged/here/")),
        *("source", "merged", "merged/here", "merged/one.txt", "merged/empty"),
    }
    assert found["merged/one.txt"]["mode"] == 0o444
    assert bw("cat", image, "/merged/here/one.txt").stdout == b"one" * 1000
    wanted = os.stat(source / "one.txt").st_mtime_ns
    assert abs(found["source/one.txt"]["mtime_ns"] - wanted) < 2 * 10**9
    bw("put", image, source / "one.txt", "/renamed", "--no-replace", code=2)


def test_write_standard_input(image):
    bw("write", image, "/new/dir/file", code=5, input=b"")
    bw("write", image, "/new/dir/file", "-p", "--mode", "444", input=b"first")
    bw("write", image, "/new/dir/file", "--append", input=b" second")
    bw("write", image, "/new/dir/file", "--offset", "2", input=b"RS")
    assert bw("cat", image, "/new/dir/file").stdout == b"fiRSt second"
    assert listed(image)["new/dir/file"]["mode"] == 0o444
    long = random.Random(1).randbytes(3 << 20)
    bw("write", image, "/new/dir/file", input=long)
    assert bw("cat", image, "/new/dir/file").stdout == long
    bw("write", image, "/behind", "--offset", "5000", input=b"end")
    assert bw("cat", image, "/behind").stdout == bytes(5000) + b"end"
    bw("write", image, "/new", code=2, input=b"")


def test_names(image, source):
    bw("mkdir", image, "/a/b", code=5)
    bw("mkdir", image, "-p", "/a/b", "/a/b", "/c")
    bw("put", image, "-r", source, "/a")
    bw("mv", image, "/a/source/one.txt", "/c")
    bw("mv", image, "/a/source", "/c/moved")
    bw("mv", image, "/c/moved/empty", "/c/one.txt", "--no-replace", code=2)
    bw("mv", image, "/c/moved/empty", "/c/one.txt")
    bw("mv", image, "/c", "/c/moved", code=2)
    bw("rm", image, "/c/moved", code=2)
    assert set(listed(image)) == {
        *("a", "a/b", "c", "c/one.txt", "c/moved", "c/moved/inner", "c/moved/inner/a longer name.txt")
    }
    bw("rm", image, "-r", "/c/moved", "/a")
    bw("rm", image, "/a", code=5)
    bw("rm", image, "-f", "/a", "/c/one.txt")
    bw("rm", image, "-r", "/", code=2)
    assert set(listed(image)) == {"c"}


def test_metadata(image, source):
    bw("put", image, "-r", f"{source}/.", "/")
    bw("chmod", image, "a-w", "/one.txt")
    assert not listed(image)["one.txt"]["mode"] & 0o222
    bw("chmod", image, "-R", "u+w", "/inner", "/one.txt")
    assert listed(image)["one.txt"]["mode"] & 0o200
    bw("chmod", image, "u=q", "/one.txt", code=2)
    bw("touch", image, "-d", "2020-02-03T04:05:06", "/one.txt", "/made")
    bw("touch", image, "-c", "/not made")
    found = listed(image)
    assert "not made" not in found
    assert {found[name]["mtime_ns"] for name in ("one.txt", "made")} == {1580702706 * 10**9}
    assert document("fs", "label", image)["label"] == "LABEL"
    bw("label", image, "OTHER")
    assert bw("label", image).stdout == b"OTHER\n"


def test_what_fat_has_not(image):
    fat = image.name == "fat.img"
    bw("touch", image, "/file")
    code = 2 if fat else 0
    bw("chown", image, "5:6", "/file", code=code)
    bw("setxattr", image, "/file", "user.a", "value", code=code)
    bw("ln", image, "/file", "/other", code=code)
    bw("ln", image, "-s", "somewhere", "/link", code=code)
    if not fat:
        found = listed(image)
        assert (found["other"]["uid"], found["other"]["gid"], found["other"]["links"]) == (5, 6, 2)
        assert found["file"]["xattrs"] == {"user.a": b"value".hex()}
        assert found["link"]["target"] == "somewhere"
        bw("setxattr", image, "/file", "user.a", "--remove")
        assert not listed(image)["file"]["xattrs"]
        assert "User:     5" in debugfs(image, "stat /file")


def test_more_than_one_transaction_is_said_before(image, tmp_path):
    if image.name != "fat.img":
        pytest.skip("ext4 has a journal")
    before = image.read_bytes()
    for name in ("a", "b"):
        bw("mkdir", image, f"/{name}")
    done = bw("mv", image, "/a", "/b")
    assert done.stderr.count(b"\n") == 1, "two sectors of directories"
    assert b"more than one transaction" in done.stderr
    image.write_bytes(before)
    assert not bw("put", image, "-r", os.path.dirname(__file__) + "/table", "/new").stderr, "one new entry is seen"
    whole = image.read_bytes()
    bw("touch", image, "--atomic", "/new/test_gpt_peers.py", "/c", code=2)
    assert image.read_bytes() == whole
    bw("touch", image, "--atomic", "/c")


def test_parts_and_servers(tmp_path, source):
    disk = tmp_path / "disk.img"
    blockwright("disk", "create", disk, "128M", "--table", "gpt")
    blockwright("disk", "add", disk, "--size", "48M")
    blockwright("disk", "add", disk)
    bw("mkfs", f"{disk}:1", "--type", "fat", "--label", "ESP", "-q")
    bw("mkfs", disk, "--partition", "2", "--source", source, "-q")
    bw("mkfs", f"{disk}:2", code=2)
    shown = json.loads(blockwright("inspect", disk, "--json").stdout)
    assert [each["file_system"]["kind"] for each in shown["regions"]] == ["fat32", "ext4"]
    start, size = shown["regions"][0]["start"], shown["regions"][0]["size"]
    bw("put", f"{disk}:{start},{size}", source / "one.txt", "/BOOT.TXT")
    run([tool("mcopy"), "-i", f"{disk}@@{start}", "::/BOOT.TXT", tmp_path / "copied"], env={"MTOOLS_SKIP_CHECK": "1"})
    assert (tmp_path / "copied").read_bytes() == b"one" * 1000
    socket = tmp_path / "sock"
    with serving(disk, "--from", "raw", "--socket", socket):
        bw("write", f"nbd+unix:///?socket={socket}#2", "/through", input=b"the server")
    assert bw("cat", f"{disk}:2", "/through").stdout == b"the server"
    assert b"clean" in blockwright("check", disk).stdout


def test_an_edit_that_fails_leaves_the_image_as_it_was(image, tmp_path):
    bw("write", image, "/there", input=b"there")
    before = image.read_bytes()
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(60 << 20)
        file.write(b"1")
    subprocess.run(["cp", "--sparse=never", big, tmp_path / "bigger"], check=True)
    said = bw("put", image, tmp_path / "bigger", "/there", code=1).stderr
    assert b"expected" in said
    assert b"found" in said
    assert bw("cat", image, "/there").stdout == b"there"
    bw("mkdir", image, "/one", "/missing/two", code=5)
    assert set(listed(image)) == {"there"}
    assert len(image.read_bytes()) == len(before)
