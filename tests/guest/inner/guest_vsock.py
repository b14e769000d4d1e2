"""NBD between a virtual machine and its host's side, over the kernel's own vsock loopback."""

import os
import re
import subprocess

import pytest

from blockwright.attach import nbd
from blockwright.device.file import FileDevice, open_path
from blockwright.errors import NotFound
from blockwright.nbd.client.connect import connect
from blockwright.units import MiB
from tests.support.command import COMMAND, blockwright, document
from tests.support.loops import sparse
from tests.support.serving import serving

PORT = 10809
LOCAL = f"nbd+vsock://1:{PORT}"


def test_an_export_is_read_and_written_over_vsock(tmp_path):
    image, data = sparse(tmp_path / "disk.img", 8 * MiB), os.urandom(3 * MiB)
    with serving(image, "--vsock", str(PORT), "--allow", "cid=1"):
        assert document("nbd", "info", LOCAL)["size"] == 8 * MiB
        with connect(LOCAL, writable=True) as device:
            device.write(MiB, data)
            device.flush()
            assert device.read(MiB, len(data)) == data
        blockwright("nbd", "copy", LOCAL, tmp_path / "copy.img")
    with FileDevice(image) as device:
        assert device.read(MiB, len(data)) == data
    assert (tmp_path / "copy.img").read_bytes() == image.read_bytes()


def test_who_is_not_allowed_sees_nothing(tmp_path):
    with (
        serving(sparse(tmp_path / "disk.img", MiB), "--vsock", str(PORT), "--allow", "cid=77"),
        pytest.raises(NotFound),
    ):
        connect(LOCAL)


def test_the_kernel_has_it_as_a_device(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKWRIGHT_HOME", str(tmp_path / "home"))
    image, data = sparse(tmp_path / "disk.img", 8 * MiB), os.urandom(MiB)
    with serving(image, "--vsock", str(PORT)):
        with nbd.attach(LOCAL) as attached, open_path(attached.path, writable=True) as device:
            device.write(4 * MiB, data, durable=True)
        with FileDevice(image) as device:
            assert device.read(4 * MiB, MiB) == data


def test_the_whole_conformance_list_over_vsock(tmp_path):
    with serving(sparse(tmp_path / "disk.img", 8 * MiB), "--vsock", str(PORT)):
        done = subprocess.run(
            [*COMMAND, "nbd", "check", "--timeout", "60", LOCAL],
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b0 failed", done.stdout) or "failed" not in done.stdout
