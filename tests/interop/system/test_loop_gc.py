"""What a died process leaves of loop devices is found and removed, and nothing else is."""

import json
import os
import signal
import subprocess
import sys

from blockwright.system.linux import loop
from blockwright.system.linux.registry import Registry
from blockwright.units import MiB
from tests.support.killed import fork, killed_at_every_step
from tests.support.loops import attached, became_free, needs_loop, sparse
from tests.support.tools import run, tool

pytestmark = needs_loop


def names():
    return [record.name for record in Registry("loop").records()]


def test_killed_between_any_two_steps(image, tmp_path):
    other = sparse(tmp_path / "other.img", MiB)
    foreign = run([tool("losetup"), "--find", "--show", other]).stdout.strip()
    kept = loop.attach(sparse(tmp_path / "kept.img", MiB))

    def job():
        with loop.attach(image, owned=True):
            pass

    left = steps = 0
    for step in killed_at_every_step(job):
        steps += 1
        found = attached(image)
        left += len(found)
        gone = list(loop.gc().detached)
        # The kernel itself frees what was told to go while its killed user still had it open.
        assert gone in (found, []), f"killed before step {step}"
        assert became_free(image), f"killed before step {step}"
        assert attached(other) == [foreign]
        assert names() == [os.path.basename(kept.path)]
    assert steps > 8
    assert left > 3


def test_killed_before_it_was_to_stay(image):
    for step in killed_at_every_step(lambda: loop.attach(image)):
        # From some step on the attachment stands and is to stay, as if the process had ended by itself.
        loop.gc()
        for path in attached(image):
            [record] = Registry("loop").records()
            assert record.owner is None, f"killed before step {step}"
            loop.detach(path)
        assert names() == []
    assert len(attached(image)) == 1


def test_what_a_living_process_attached_for_a_block_stays(image):
    with loop.attach(image) as device:
        assert loop.gc() == loop.Collected((), ())
        assert attached(image) == [device.path]
    assert names() == []


def test_what_was_attached_to_stay_stays(image):
    device = loop.attach(image)
    assert loop.gc() == loop.Collected((), ())
    assert attached(image) == [device.path]
    assert names() == [os.path.basename(device.path)]
    run([tool("losetup"), "--detach", device.path])
    assert loop.gc() == loop.Collected((), ())
    assert names() == []


def test_a_later_attachment_of_the_same_device_is_not_ours(image, tmp_path):
    pid = fork()
    if not pid:
        loop.attach(image).__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    [path] = attached(image)
    run([tool("losetup"), "--detach", path])
    run([tool("losetup"), path, image])  # the same device, on the same image
    assert loop.gc() == loop.Collected((), ())
    assert attached(image) == [path]
    assert names() == []


def test_a_device_in_use_is_told_and_kept_for_later(image):
    pid = fork()
    if not pid:
        loop.attach(image).__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    [path] = attached(image)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1]); print('open', flush=True); input()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        result = loop.gc()
        assert result.detached == ()
        assert f"process {holder.pid}" in result.held[0]
        assert names() == [os.path.basename(path)]
    finally:
        holder.communicate("\n", timeout=60)
    assert became_free(image)  # its last user closed it
    loop.gc()
    assert names() == []


def test_records_that_cannot_be_read_are_swept(home):
    folder = home / "run" / "loop"
    folder.mkdir(parents=True)
    odd = {"number": "x", "image": 5, "boot": "another", "owner": "me"}
    contents = ["", "{", "[1]", "[" * 100_000, json.dumps(odd), json.dumps({**odd, "owner": [1, 2]}), "\ud800{}"]
    for number, content in enumerate(contents):
        (folder / f"loop{90 + number}.json").write_bytes(content.encode("utf-8", "surrogatepass"))
        (folder / f"loop{80 + number}.json").write_bytes(content.encode("utf-8", "surrogatepass") + b"\n")
    assert loop.gc() == loop.Collected((), ())
    assert len(list(folder.iterdir())) == 2 * len(contents) - 2, "somebody may be about to write those"
    for each in folder.iterdir():
        os.utime(each, (0, 0))
    assert loop.gc() == loop.Collected((), ())
    assert list(folder.iterdir()) == []
