import errno
import os
import stat
import sys
from types import SimpleNamespace

import pytest

from blockwright.attach import partitions
from blockwright.errors import KernelError, Unavailable
from blockwright.system.linux import dm, ioctl, loop
from blockwright.system.linux.loop import layout


def test_request_numbers(monkeypatch):
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="x86_64"))
    assert ioctl.number_in(0x12, 114, 8) == 0x80081272
    assert ioctl.number_inout(0xFD, 3, 312) == 0xC138FD03
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="ppc64le"))
    assert ioctl.number_in(0x12, 114, 8) == 0x40081272
    assert ioctl.number_inout(0xFD, 3, 312) == 0xC138FD03


def test_the_driver_s_structures_have_its_sizes():
    assert layout.Info.SIZE == 232
    assert layout.Config.SIZE == 304
    assert {name: field.offset for name, field in layout.Info.FIELDS.items()} == {
        "lo_device": 0,
        "lo_inode": 8,
        "lo_rdevice": 16,
        "lo_offset": 24,
        "lo_sizelimit": 32,
        "lo_number": 40,
        "lo_flags": 52,
        "lo_file_name": 56,
    }


def test_what_is_not_linux_has_no_loop_devices(monkeypatch, tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(512))
    monkeypatch.setattr(sys, "platform", "darwin")
    for job in (
        lambda: loop.attach(image),
        lambda: loop.detach("/dev/loop0"),
        lambda: list(loop.states()),
        lambda: loop.find(image),
        lambda: loop.refresh("/dev/loop0"),
        loop.gc,
        lambda: loop.set_direct_io("/dev/loop0", True),
        dm.Mapper,
        dm.Watch,
        lambda: partitions.remove(image),
        partitions.mappings,
        partitions.gc,
    ):
        with pytest.raises(Unavailable, match="needs Linux, this is darwin"):
            job()


@pytest.mark.skipif(sys.platform != "linux", reason="the errors are Linux's")
class TestNodes:
    def test_no_driver_names_the_module(self, tmp_path):
        with pytest.raises(Unavailable, match="the kernel lacks the driver: modprobe none") as caught:
            ioctl.open_control(str(tmp_path / "control"), misc="no-such-driver", module="none")
        assert caught.value.errno == errno.ENOENT
        assert caught.value.remedy == "modprobe none"

    def test_a_refusal_names_operation_and_device(self):
        with open(os.devnull, "rb") as file, pytest.raises(KernelError) as caught:
            ioctl.call(file.fileno(), layout.GET_STATUS64, bytearray(232), operation="LOOP_GET_STATUS64", device="x")
        assert (caught.value.operation, caught.value.device, caught.value.errno) == (
            "LOOP_GET_STATUS64",
            "x",
            errno.ENOTTY,
        )

    def test_missing_privilege_is_unavailable(self):
        error = ioctl.kernel_error("x", "/dev/x", errno.EPERM)
        assert isinstance(error, Unavailable)
        assert str(error) == "/dev/x: x: operation not permitted: needs root (CAP_SYS_ADMIN)"

    def test_a_name_that_is_taken_is_not_replaced(self, tmp_path):
        path = tmp_path / "node"
        path.write_bytes(b"somebody's")
        with pytest.raises(KernelError, match="expected device 7:0, found something else"):
            ioctl.make_node(str(path), stat.S_IFBLK, 7, 0)
        assert path.read_bytes() == b"somebody's"

    def test_a_missing_node_is_made_where_that_is_allowed(self, tmp_path):
        path = str(tmp_path / "node")
        try:
            ioctl.make_node(path, stat.S_IFBLK, 7, 0)
        except Unavailable as error:
            assert error.remedy == f"mknod {path} b 7 0"  # noqa: PT017 - an ordinary user gets this instead
        else:
            assert os.stat(path).st_rdev == os.makedev(7, 0)
            ioctl.make_node(path, stat.S_IFBLK, 7, 0)

    def test_a_node_that_may_not_be_made_says_how(self, tmp_path, monkeypatch):
        def refuse(*_):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "mknod", refuse)
        with pytest.raises(Unavailable, match=r"mknod .*/node b 7 3$"):
            ioctl.make_node(str(tmp_path / "node"), stat.S_IFBLK, 7, 3)
