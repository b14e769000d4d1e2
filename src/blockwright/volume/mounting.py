"""The file systems of volumes mounted, unmounted and brought to their disk, the same for every driver.

Knows: which file system is tried, and that a step can be done twice. Refuses to know: drivers.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from blockwright.device.file import open_path
from blockwright.errors import KernelError, Unavailable, UsageError
from blockwright.system.linux import mount as system
from blockwright.volume.info import VolumeInfo
from blockwright.volume.steps import Plan, Step

MAX_KINDS = 64
"""File systems of the kernel that are tried."""


def require_mount(volume: VolumeInfo) -> None:
    """Return where this process may mount. Raises Unavailable elsewhere, with what works instead."""
    remedy = f"'blockwright serve {volume.address}' needs none"
    if sys.platform != "linux":
        raise Unavailable(
            "mount", volume.address, errno.ENOSYS, f"needs Linux, this is {sys.platform}", remedy=remedy
        )
    if os.geteuid() != 0:
        raise Unavailable("mount", volume.address, errno.EPERM, "needs root (CAP_SYS_ADMIN)", remedy=remedy)


def mount_plan(volume: VolumeInfo) -> Plan:
    """Return how an active volume comes to be mounted where it says."""
    return Plan((Step("mount", lambda: _mount(volume)),), (Step("unmount", lambda: _unmount(volume)),))


def unmount_plan(volume: VolumeInfo) -> Plan:
    """Return how a mounted volume comes to be unmounted. Who dies at it has it finished."""
    return Plan((Step("unmount", lambda: _unmount(volume)),), forward=True)


def mount_points() -> dict[tuple[int, int], str]:
    """Return where each block device that is mounted is mounted last, by its number."""
    return {each.device: each.point for each in system.mounts()}


def _mount(volume: VolumeInfo) -> None:
    path, point = volume.path, volume.mount_point
    assert path is not None, "only what is active is mounted"
    assert point is not None, "the change says where"
    if not stat.S_ISBLK(os.stat(path).st_mode):
        raise UsageError(
            f"{volume.name}: is active as the file {path}: expected a block device: 'blockwright serve "
            f"{volume.address}', and 'blockwright nbd attach' make one of it"
        )
    if point in system.points_of(path):
        return
    wanted = volume.extra.get("wanted_flags")
    flags = wanted if isinstance(wanted, int) else system.SAFE
    if volume.read_only:
        flags |= system.READ_ONLY
    kinds = _kinds(path)
    for kind in kinds:
        try:
            system.mount(path, point, kind, flags=flags)
            return
        except KernelError as error:
            if kind == kinds[-1] or error.errno not in (errno.EINVAL, errno.ENODEV):
                raise


def _unmount(volume: VolumeInfo) -> None:
    """Unmount it where it is mounted; what else was mounted at the same place is left."""
    path, point = volume.path, volume.mount_point
    if path is None or point is None:
        return
    while point in system.points_of(path):
        system.unmount(point)


def _kinds(path: str) -> list[str]:
    """Return the file systems to try: the one that is there by its own marks, or all that the kernel knows."""
    from blockwright.fs.ext4 import read as ext4
    from blockwright.fs.fat import read as fat

    with open_path(path) as device:
        if ext4.probe(device):
            return ["ext4", "ext3", "ext2"]
        if fat.probe(device):
            return ["vfat"]
    with open("/proc/filesystems", encoding="ascii", errors="replace") as file:
        found = [line.split()[-1] for line in file if line.strip() and not line.startswith("nodev")]
    return found[:MAX_KINDS] or ["ext4"]


def settle(volume: VolumeInfo) -> None:
    """Bring to what an active volume stands on what its device, and the file system on that, have been given."""
    if volume.path is None or sys.platform == "win32" or not os.path.isabs(volume.path):
        return
    for path in (volume.mount_point, volume.path):
        if path is None:
            continue
        fd = os.open(path, os.O_RDONLY)
        try:
            _sync_file_system(fd) if path == volume.mount_point else os.fsync(fd)
        finally:
            os.close(fd)


def _sync_file_system(fd: int) -> None:
    """Call syncfs(2), which ``os`` lacks; where the C library has none, bring every file system to its disk."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None or sys.platform == "win32":
        os.fsync(fd)
    elif call(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
