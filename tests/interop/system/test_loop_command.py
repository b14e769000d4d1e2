"""`blockwright loop`, as a shell calls it."""

import json
import os
import subprocess

import pytest

from blockwright.system.linux import loop
from blockwright.units import MiB
from tests.support.command import COMMAND, UNMEASURED, blockwright, document
from tests.support.killed import fork
from tests.support.loops import attached, needs_loop, sparse
from tests.support.tools import run, tool


@needs_loop
def test_attach_find_list_and_detach(image):
    path = blockwright("loop", "attach", image).stdout.decode().strip()
    assert attached(image) == [path]
    assert blockwright("loop", "find", image).stdout.decode() == f"{path}\n"
    listed = document("loop", "list")
    assert listed["schema"] == "blockwright.loop/1"
    [found] = [each for each in listed["devices"] if each["path"] == path]
    assert (found["backing"], found["size"], found["read_only"]) == (str(image), 8 * MiB, False)
    text = blockwright("loop", "list").stdout.decode()
    assert any(line.startswith(path) and line.endswith(str(image)) for line in text.splitlines())
    error = blockwright("loop", "attach", image, code=1).stderr.decode()
    assert error == f"blockwright: {image}: is in use: {path} covers bytes 0 to {8 * MiB - 1}\n"
    blockwright("loop", "detach", path)
    assert attached(image) == []
    assert b"is not attached to a loop device" in blockwright("loop", "find", image, code=5).stderr
    blockwright("loop", "detach", path)  # what is free already is free


@needs_loop
def test_the_size_follows_the_image(image):
    path = blockwright("loop", "attach", image).stdout.decode().strip()
    os.truncate(image, 16 * MiB)
    assert document("loop", "find", image)["devices"][0]["size"] == 8 * MiB
    assert blockwright("loop", "refresh", path).stdout == b""
    assert document("loop", "find", image)["devices"][0]["size"] == 16 * MiB
    blockwright("loop", "detach", path)
    assert b"is not attached" in blockwright("loop", "refresh", path, code=5).stderr


@needs_loop
def test_what_is_no_whole_sector_is_left_out_and_told(image):
    os.truncate(image, 8 * MiB + 100)
    done = blockwright("loop", "attach", image)
    assert done.stderr.decode() == f"blockwright: {image}: its last 100 bytes are no whole sector, and left out\n"
    assert document("loop", "find", image)["devices"][0]["size"] == 8 * MiB
    blockwright("loop", "detach", done.stdout.decode().strip())
    assert blockwright("loop", "attach", image, "--size", "1M").stderr == b""


@needs_loop
def test_a_partition_of_an_image(image):
    run([tool("sgdisk"), "-n", "1:2048:4095", "-n", "2:4096:8191", image])
    found = document("loop", "attach", f"{image}:2", "--read-only")["devices"][0]
    assert (found["offset"], found["size"], found["read_only"]) == (2 * MiB, 2 * MiB, True)
    blockwright("loop", "attach", f"{image}:2", "--offset", "1M", "--size", "2M", code=2)
    blockwright("loop", "attach", f"{image}:1", "--block-size", "4k", "--device", "nonsense", code=5)
    blockwright("loop", "attach", f"{image}:7", code=5)
    assert len(attached(image)) == 1


@needs_loop
def test_gc_prints_what_it_detached(image):
    pid = fork()
    if not pid:
        loop.attach(image).__enter__()
        os._exit(0)
    os.waitpid(pid, 0)
    [path] = attached(image)
    assert document("loop", "gc")["detached"] == [path]
    assert blockwright("loop", "gc").stdout == b""


def test_images_and_devices_that_are_not_there(tmp_path):
    blockwright("loop", "attach", tmp_path / "none", code=5)
    blockwright("loop", "find", tmp_path / "none", code=5)
    blockwright("loop", "detach", "/dev/loop9999", code=5)
    blockwright("loop", "detach", "/dev/null", code=2)


def as_nobody(*arguments, code):
    if os.geteuid() != 0:
        pytest.skip("needs root, to give it up")
    command = [tool("setpriv", package="util-linux"), "--reuid=65534", "--regid=65534", "--clear-groups"]
    environment = {**os.environ, **UNMEASURED}
    done = subprocess.run(
        [*command, *COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stderr


@needs_loop
def test_without_privilege_it_says_so_and_exits_with_4(tmp_path_factory):
    image = sparse(tmp_path_factory.mktemp("open") / "disk.img", MiB)
    for folder in image.parents[:-2]:
        folder.chmod(0o755)
    line = as_nobody("loop", "attach", image, "--read-only", code=4)
    assert line == "blockwright: /dev/loop-control: open: permission denied: needs root (CAP_SYS_ADMIN)\n"
    error = json.loads(as_nobody("loop", "attach", "-r", "--json", image, code=4))["error"]
    assert (error["class"], error["device"], error["code"]) == ("Unavailable", "/dev/loop-control", 4)
    as_nobody("loop", "list", code=0)
