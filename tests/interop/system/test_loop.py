"""Loop devices of this machine's kernel, beside losetup."""

import dataclasses
import errno
import json
import logging
import mmap
import multiprocessing
import os
import socket
import subprocess
import sys
import time

import pytest

from blockwright.device.file import FileDevice, HostBlockDevice, open_path
from blockwright.errors import InUse, KernelError, NotFound, ReadOnly, UsageError
from blockwright.system.linux import blkdev, loop
from blockwright.system.linux.loop import configure, control, layout
from blockwright.system.linux.registry import Registry
from blockwright.units import KiB, MiB
from tests.support.loops import attached, became_free, needs_loop, sparse
from tests.support.tools import run, tool

pytestmark = needs_loop


def losetup(device):
    shown = run([tool("losetup"), "--json", "--list", "-O", "+PARTSCAN,LOG-SEC", device]).stdout
    return json.loads(shown)["loopdevices"][0]


def test_what_is_written_to_the_device_is_in_the_image(image):
    with loop.attach(image) as device:
        with open_path(device.path, writable=True) as disk:
            assert isinstance(disk, HostBlockDevice)
            assert disk.size == 8 * MiB
            assert disk.sector_size == 512
            disk.write(4096, b"through the kernel", durable=True)
        assert attached(image) == [device.path]
    assert attached(image) == []
    with FileDevice(image) as file:
        assert file.read(4096, 18) == b"through the kernel"


def test_losetup_tells_what_we_attached(image):
    with loop.attach(image, offset=MiB, size_limit=2 * MiB, block_size=4096, partition_scan=True) as device:
        told = losetup(device.path)
        state = device.state()
    assert told["back-file"] == str(image)
    assert (told["offset"], told["sizelimit"]) == (MiB, 2 * MiB)
    assert (told["ro"], told["partscan"], told["autoclear"], told["log-sec"]) == (False, True, False, 4096)
    assert (state.offset, state.size, state.size_limit, state.block_size) == (MiB, 2 * MiB, 2 * MiB, 4096)
    assert state.partition_scan
    assert not state.autoclear
    assert not state.direct_io


def test_we_tell_what_losetup_attached(image):
    path = run([tool("losetup"), "--find", "--show", "--read-only", "--offset", "4096", image]).stdout.strip()
    [state] = loop.find(image)
    assert (state.path, state.offset, state.size, state.read_only) == (path, 4096, 8 * MiB - 4096, True)
    assert loop.detach(path)
    assert attached(image) == []


def test_read_only_is_read_only(image):
    with loop.attach(image, read_only=True) as device:
        assert device.state().read_only
        with pytest.raises(ReadOnly, match="is read-only"):
            open_path(device.path, writable=True)
        fd = os.open(device.path, os.O_RDONLY)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x" * 512)
        os.close(fd)
        assert _write_error(device.path) in (errno.EPERM, errno.EACCES, errno.EROFS)
    assert image.read_bytes() == bytes(8 * MiB)


def _write_error(path):
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError as error:
        return error.errno
    try:
        os.pwrite(fd, b"x" * 512, 0)
    except OSError as error:
        return error.errno
    finally:
        os.close(fd)
    return 0


def test_the_image_of_a_read_only_device_is_not_even_open_for_writing(image):
    image.write_bytes(b"#!/bin/sh\nexit 7\n".ljust(4096))
    image.chmod(0o755)
    with loop.attach(image, read_only=True):
        assert subprocess.run([image], check=False).returncode == 7
    with loop.attach(image), pytest.raises(OSError, match="Text file busy"):  # the kernel runs nothing that is
        subprocess.run([image], check=False)


def test_a_descriptor_that_cannot_write_makes_no_writable_device(image):
    fd = os.open(image, os.O_RDONLY)
    try:
        with pytest.raises(ReadOnly, match=r"disk\.img: is open for reading only"):
            loop.attach(fd)
        with loop.attach(fd, read_only=True) as device:
            assert attached(image) == [device.path]
    finally:
        os.close(fd)


def test_an_image_attached_here_is_refused_to_writers_and_to_a_second_device(image):
    with loop.attach(image) as device:
        with pytest.raises(InUse, match=rf"disk\.img: is in use: {device.path} covers bytes 0 to 8388607"):
            loop.attach(image)
        with pytest.raises(InUse, match="attached to"):
            FileDevice(image, writable=True)
        link = image.with_name("link.img")
        link.hardlink_to(image)
        with pytest.raises(InUse, match=device.path):
            loop.attach(link)
        assert [each.path for each in loop.find(link)] == [device.path]
        with loop.attach(link, force_unlocked=True) as second:
            assert second.path != device.path


def test_what_qemu_writes_to_is_not_attached(image, tmp_path):
    path = tmp_path / "socket"
    process = subprocess.Popen([tool("qemu-nbd"), "--format=raw", "--persistent", f"--socket={path}", image])
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            while connection.connect_ex(str(path)):  # ends with qemu-nbd, or with the test's own limit
                assert process.poll() is None
                time.sleep(0.02)
            assert connection.recv(8) == b"NBDMAGIC"  # it has opened the image
            with pytest.raises(InUse, match=rf"process {process.pid} \(qemu-nbd\) holds a lock"):
                loop.attach(image)
            with loop.attach(image, force_unlocked=True):
                pass
    finally:
        process.kill()
        process.wait(60)


def test_qemu_does_not_write_to_what_is_attached(image):
    with loop.attach(image):
        done = subprocess.run(
            [tool("qemu-io"), "-f", "raw", "-c", "write 0 512", image], capture_output=True, text=True, check=False
        )
    assert done.returncode != 0
    assert "lock" in done.stderr


def test_parts_that_do_not_overlap_share_an_image(image):
    with loop.attach(image, size_limit=4 * MiB) as first, loop.attach(image, offset=4 * MiB) as second:
        assert attached(image) == sorted([first.path, second.path])
        with pytest.raises(InUse, match="covers bytes 4194304 to 8388607"):
            loop.attach(image, offset=6 * MiB)
        assert [each.path for each in loop.find(image, offset=4 * MiB)] == [second.path]


def test_readers_share_an_image(image):
    with loop.attach(image, read_only=True), loop.attach(image, read_only=True):
        assert len(attached(image)) == 2
        with pytest.raises(InUse):
            loop.attach(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": 8 * MiB}, r"disk\.img: expected a sector of 512 bytes or more from byte 8388608 on, found 0"),
        ({"offset": 8 * MiB - 100}, "found 100 bytes"),
        ({"offset": -1}, "expected an offset and a size of 0 or more, found -1 and 0"),
        ({"offset": 1 << 63}, "0 or more"),
        ({"block_size": 1000}, "block size: expected a power of two from 512 to 65536, found 1000"),
        ({"block_size": 256}, "found 256"),
        ({"block_size": 1 << 17}, "found 131072"),
    ],
)
def test_what_the_driver_would_take_and_make_nothing_of_is_refused(image, options, message):
    with pytest.raises(UsageError, match=message):
        loop.attach(image, **options)
    assert attached(image) == []


def test_files_that_cannot_be_attached(tmp_path):
    with pytest.raises(NotFound, match=r"none\.img: no such file"):
        loop.attach(tmp_path / "none.img")
    with pytest.raises(UsageError, match="found a directory"):
        loop.attach(tmp_path)
    with pytest.raises(UsageError, match="found a character device"):
        loop.attach("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="found a pipe"):
        loop.attach(tmp_path / "pipe")
    with pytest.raises(UsageError, match="found 0 bytes"):
        loop.attach(sparse(tmp_path / "empty.img", 0))


def test_a_block_device_under_a_loop_device_is_claimed(image, tmp_path):
    with loop.attach(image) as lower:
        with loop.attach(lower.path, offset=MiB) as upper:
            assert upper.state().size == 7 * MiB
            assert [each.path for each in loop.find(lower.path)] == [upper.path]
            node = tmp_path / "another-node"
            os.mknod(node, 0o60600, os.stat(lower.path).st_rdev)
            assert [each.path for each in loop.find(node)] == [upper.path]
            with pytest.raises(InUse, match=rf"{lower.path}: is in use"):
                loop.attach(lower.path)
            with pytest.raises(InUse, match=rf"{lower.path}: is in use"):
                HostBlockDevice(lower.path, writable=True)
            with pytest.raises(InUse, match=rf"{lower.path}: is in use"):
                lower.detach()
        with HostBlockDevice(lower.path, writable=True), pytest.raises(InUse):
            loop.attach(lower.path)


def test_direct_io_is_had_or_refused(image):
    wanted = run([tool("losetup"), "--find", "--show", "--direct-io=on", image]).stdout.strip()
    possible = losetup(wanted)["dio"]
    loop.detach(wanted)
    if possible:
        with loop.attach(image, direct_io=True) as device:
            assert device.state().direct_io
            assert losetup(device.path)["dio"] is True
    else:
        with pytest.raises(KernelError, match="the file system under the image cannot do it: expected True, found F"):
            loop.attach(image, direct_io=True)
        assert attached(image) == []


def test_direct_io_of_an_attached_device(image):
    wanted = run([tool("losetup"), "--find", "--show", "--direct-io=on", image]).stdout.strip()
    possible = losetup(wanted)["dio"]
    loop.detach(wanted)
    with loop.attach(image) as device:
        if possible:
            loop.set_direct_io(device.path, True)
            assert device.state().direct_io
        else:
            with pytest.raises(KernelError, match="LOOP_SET_DIRECT_IO"):
                loop.set_direct_io(device.path, True)
        loop.set_direct_io(device.path, False)
        assert not device.state().direct_io
    with pytest.raises(NotFound, match="is not attached"):
        loop.set_direct_io(device.path, True)


def test_what_is_done_is_told_to_a_logger(image, caplog):
    logger = logging.getLogger("test")
    with caplog.at_level(logging.DEBUG, "test"):
        device = loop.attach(image, logger=logger)
        list(loop.states(logger=logger))
        loop.refresh(device.path, logger=logger)
        loop.detach(device.path, logger=logger)
    assert caplog.messages[0] == f"attached {image} to {device.path}"
    assert f"{device.path}: attached to {image}" in caplog.messages
    assert caplog.messages[-2:] == [f"{device.path} has {8 * MiB} bytes", f"detached {device.path} from {image}"]


def test_a_size_follows_the_image_when_it_is_told_to(image):
    with loop.attach(image) as device:
        os.truncate(image, 9 * MiB + 1000)
        assert device.state().size == 8 * MiB
        assert device.refresh() == 9 * MiB + 512
        assert device.state().size == 9 * MiB + 512
    with pytest.raises(NotFound, match="is not attached"):
        loop.refresh(device.path)


def test_a_named_device(image, tmp_path):
    with loop.attach(image) as first:
        other = sparse(tmp_path / "other.img", MiB)
        with pytest.raises(InUse, match=rf"{first.path}: is in use: attached to {image}"):
            loop.attach(other, device=first.path)
    with loop.attach(other, device=first.path) as second:
        assert second.path == first.path
    with pytest.raises(UsageError, match="expected a loop device"):
        loop.attach(other, device="/dev/null")


def test_detach_is_of_this_attachment_only(image, tmp_path):
    device = loop.attach(image)
    assert loop.detach(device.path)
    assert not loop.detach(device.path)
    with loop.attach(sparse(tmp_path / "other.img", MiB), device=device.path) as later:
        device.detach()
        assert later.state().backing.endswith("other.img")
        with pytest.raises(NotFound, match="no longer the device"):
            device.state()
        assert not loop.detach(later.path, sequence=device.sequence)
        later.state()


def test_detach_says_which_process_holds_the_device(image):
    device = loop.attach(image)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; f = open(sys.argv[1]); print('open', flush=True); input()", device.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(InUse, match=rf"{device.path}: is in use: process {holder.pid} \(python"):
            device.detach(timeout_s=0.1)
    finally:
        holder.communicate("\n", timeout=60)
    device.detach()
    assert attached(image) == []


def test_detach_leaves_a_claimed_device_as_it_was(image):
    with loop.attach(image) as device, HostBlockDevice(device.path, writable=True):
        with pytest.raises(InUse, match="is in use"):
            loop.detach(device.path)
        assert not device.state().autoclear


def test_detach_takes_partitions_along(image):
    with loop.attach(image) as device:
        with open(device.path, "rb") as node:
            blkdev.add_partition(node.fileno(), device.path, 3, MiB, 2 * MiB)
        [part] = blkdev.partitions(device.path)
        assert (part.number, part.start, part.size) == (3, MiB, 2 * MiB)
    assert blkdev.partitions(device.path) == []


def test_an_unlinked_image_is_told_as_such(image):
    with loop.attach(image) as device:
        image.unlink()
        state = device.state()
        assert (state.backing, state.deleted) == (str(image), True)
        image.write_bytes(bytes(4096))
        assert loop.find(image) == []
    with pytest.raises(NotFound):
        loop.find(image.with_name("nowhere"))


def test_autoclear_goes_with_its_last_user(image):
    device = loop.attach(image, autoclear=True)
    assert device.state().autoclear
    with open(device.path, "rb") as user:
        device.close()
        assert attached(image) == [device.path]
        user.read(512)
    assert became_free(image)
    with loop.attach(image, autoclear=True) as device:
        pass
    assert became_free(image)


def test_the_older_requests_do_the_same(image, monkeypatch):
    monkeypatch.setattr(layout, "CONFIGURE", 0x4CFF)
    with loop.attach(
        image, offset=MiB, size_limit=MiB, block_size=4096, read_only=True, partition_scan=True
    ) as device:
        state = device.state()
        assert (state.offset, state.size, state.block_size) == (MiB, MiB, 4096)
        assert state.read_only
        assert state.partition_scan
    monkeypatch.setattr(layout, "SET_STATUS64", 0x4CFE)
    with pytest.raises(KernelError, match="LOOP_SET_STATUS64"):
        loop.attach(image)
    assert attached(image) == []
    assert list(Registry("loop").records()) == []


def test_a_kernel_that_passes_over_wishes_is_noticed(image, monkeypatch):
    # As Linux 5.8 does: LOOP_CONFIGURE succeeds, without size limit and partition scan.
    whole = configure._configure

    def careless(fd, path, file, wish):
        whole(fd, path, file, dataclasses.replace(wish, size_limit=0, partition_scan=False))

    monkeypatch.setattr(configure, "_configure", careless)
    with loop.attach(image, size_limit=MiB, partition_scan=True) as device:
        assert device.state().size == MiB
        assert device.state().partition_scan


def test_a_device_that_is_not_as_wished_is_detached(image, monkeypatch):
    whole = configure._configure

    def careless(fd, path, file, wish):
        whole(fd, path, file, dataclasses.replace(wish, block_size=None))

    monkeypatch.setattr(configure, "_configure", careless)
    with pytest.raises(KernelError, match=r"/dev/loop[0-9]+: attach: block size: expected 4096, found 512"):
        loop.attach(image, block_size=4096)
    assert attached(image) == []
    assert list(Registry("loop").records()) == []


def test_a_device_that_others_took_first_is_not_ours(image, tmp_path, monkeypatch):
    other = sparse(tmp_path / "other.img", MiB)
    free = control.free_number
    taken = []

    def stolen(fd):
        number = free(fd)
        if len(taken) < 3:  # what a program without our lock does between the two requests
            taken.append(run([tool("losetup"), f"/dev/loop{number}", other]))
        return number

    monkeypatch.setattr(control, "free_number", stolen)
    with loop.attach(image) as device:
        assert device.state().backing == str(image)
    assert len(taken) == 3
    assert len(attached(other)) == 3


def _attach_and_report(image, barrier, queue):
    barrier.wait()
    queue.put(loop.attach(image).path)


def test_eight_processes_get_eight_devices(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(8), context.Queue()
    images = [sparse(tmp_path / f"{number}.img", MiB) for number in range(8)]
    workers = [context.Process(target=_attach_and_report, args=(image, barrier, queue)) for image in images]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(set(found)) == 8
    assert sorted(path for image in images for path in attached(image)) == sorted(found)


def test_a_page_that_is_mapped_does_not_keep_a_device_from_being_told(image):
    with loop.attach(image) as device, open(device.path, "rb") as node:
        with mmap.mmap(node.fileno(), 4 * KiB, prot=mmap.PROT_READ) as mapped:
            assert mapped[:4] == bytes(4)
        assert loop.find(image)[0].path == device.path
