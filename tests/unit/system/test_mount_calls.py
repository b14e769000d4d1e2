"""mount(2): options by name, what is mounted where, and what is refused. Real mounts are in test_volume_exposed."""

import io
import os

import pytest

from blockwright.errors import KernelError, UsageError
from blockwright.system.linux import mount


def test_options_are_added_to_what_is_safe():
    assert mount.parse_options(()) == mount.NO_SUID | mount.NO_DEVICES
    assert mount.parse_options(("ro", "noexec")) == mount.SAFE | mount.READ_ONLY | mount.NO_EXEC
    assert mount.parse_options(("suid", "dev")) == 0
    with pytest.raises(UsageError, match="sync"):
        mount.parse_options(("sync",))


def test_mounts_are_read_with_their_escapes(monkeypatch):
    text = (
        b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        b"30 22 7:3 / /a\\040b\\134c rw,nosuid - xfs /dev/loop3 rw\n"
        b"30 22 7:5 / /a\x0cb\xc2\x85c rw,nosuid - vfat /dev/loop5 rw\n"
        b"broken\n31 22 x:y / /z rw - tmpfs none rw\n32 22 7:4 / /short rw -\n"
    )
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.BytesIO(text))
    assert mount.mounts() == [
        mount.Mount((8, 1), "/", "ext4", "/dev/sda1"),
        mount.Mount((7, 3), "/a b\\c", "xfs", "/dev/loop3"),
        mount.Mount((7, 5), "/a\x0cb\x85c", "vfat", "/dev/loop5"),
    ]


def test_the_root_is_mounted():
    assert "/" in {each.point for each in mount.mounts()}
    assert mount.points_of("/dev/null") == []
    assert mount.points_of("/nowhere") == []


def test_refusals_are_told(tmp_path):
    with pytest.raises(UsageError, match="directory"):
        mount.mount("/dev/null", str(tmp_path / "none"), "ext4")
    with pytest.raises(KernelError):
        mount.unmount(str(tmp_path))
    if os.geteuid() == 0:
        with pytest.raises(KernelError, match="mount"):
            mount.mount("/dev/null", str(tmp_path), "ext4")
