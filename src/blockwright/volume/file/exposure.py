"""A volume's own file as something that others can open: a loop device where there is root, or the file's path.

Knows: which way it is seen, loop devices over files, and who holds a file. Refuses to know: layers.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from blockwright.device.file import FileDevice
from blockwright.errors import BlockwrightError, UsageError
from blockwright.journal import Journal, Lease
from blockwright.system.linux import loop
from blockwright.system.linux.ioctl import split_device
from blockwright.system.linux.loop import LoopState
from blockwright.system.linux.nbd.state import has_driver
from blockwright.volume.file import export
from blockwright.volume.found import Found
from blockwright.volume.info import State, VolumeInfo
from blockwright.volume.mounting import mount_points
from blockwright.volume.spec import PoolSpec
from blockwright.volume.steps import Plan, Step

EXPOSE = ("auto", "any", "path", "loop", "nbd")


def way_of(path: str, wish: str) -> str:
    """Return how a volume whose own file is at ``path`` is to be seen: ``path``, ``loop``, ``export`` or ``device``.

    The last is an export that is a block device too; as root nothing else is meant by ``auto``, and by ``any``
    where the kernel can. Raises UsageError.
    """
    raw, root = path.endswith(".raw"), sys.platform == "linux" and os.geteuid() == 0
    if wish == "loop" and not raw:
        raise UsageError(
            f"{path}: consists of layers, of which no loop device can be made: expose it as nbd, or "
            "'blockwright serve' the volume, and 'blockwright nbd attach' that"
        )
    if wish in ("path", "loop"):
        return wish
    if wish == "nbd":
        return "device" if root and has_driver() else "export"
    if raw:
        return "loop" if root and _has_loops() else "path"
    if sys.platform == "win32":
        return "path"
    return "device" if root and (wish == "auto" or has_driver()) else "export"


def _has_loops() -> bool:
    return os.path.exists("/dev/loop-control")


class Seen:
    """The loop devices there are, by the file under each, and what is mounted; asked for once."""

    def __init__(self) -> None:
        self._devices: dict[tuple[int, int], LoopState] = {}
        for each in reversed(list(loop.states()) if sys.platform == "linux" else []):
            if not each.deleted and (key := _key(each.backing)) is not None:
                self._devices[key] = each
        self._points = mount_points()

    def over(self, path: str) -> LoopState | None:
        """Return the first loop device over the file."""
        key = _key(path)
        return None if key is None else self._devices.get(key)

    def found(self, volume: VolumeInfo, path: str, lease: Lease | None) -> Found:
        """Return what there is of the volume whose own file is at ``path``, and whose export has the lease."""
        device = self.over(path)
        if device is not None:
            point = self._points.get(_number(device.path))
            return Found(volume.id, path=device.path, read_only=device.read_only, mount_point=point)
        exported = export.path_of(lease)
        if exported is not None and lease is not None:
            point = self._points.get(_number(exported)) if exported.startswith("/dev/") else None
            return Found(volume.id, path=exported, read_only=bool(lease.fields.get("read_only")), mount_point=point)
        as_path = volume.state is State.ACTIVE and volume.path is not None and not _is_device(volume.path)
        return Found(volume.id, path=path if as_path else None, read_only=as_path and volume.read_only)


def _is_device(path: str) -> bool:
    return path.startswith("/dev/") or export.is_export(path)


def _key(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _number(path: str) -> tuple[int, int]:
    """Return the number of a device's node, of none where that is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1
    if sys.platform == "win32":
        return -1, -1
    return split_device(found.st_rdev)


def activate_plan(spec: PoolSpec, journal: Journal, volume: VolumeInfo, path: str, way: str) -> Plan:
    """Return how the volume whose own file is at ``path`` comes to be seen, in a way that ``way_of`` returned."""
    hide = Step("hide", lambda: _hide(journal, volume, path))
    if way in ("device", "export"):
        serve = Step("serve", lambda: export.start(spec, journal, volume, device=way == "device"))
        return Plan((serve,), (hide,), result=lambda after: replace(after, path=_exported(journal, volume)))
    expose = Step("expose", lambda: _expose(path, way, read_only=volume.read_only))
    return Plan((expose,), (hide,), result=lambda after: replace(after, path=_path_of(path)))


def deactivate_plan(journal: Journal, volume: VolumeInfo, path: str) -> Plan:
    """Return how nobody comes to see the volume. Who dies at it has it finished."""
    return Plan((Step("hide", lambda: _hide(journal, volume, path)),), forward=True)


def _expose(path: str, way: str, *, read_only: bool) -> None:
    """Raises InUse where somebody else uses the file, Unavailable without privilege."""
    if way == "loop" and Seen().over(path) is None:
        loop.attach(path, read_only=read_only)


def _path_of(path: str) -> str:
    device = Seen().over(path)
    return path if device is None else device.path


def _exported(journal: Journal, volume: VolumeInfo) -> str:
    path = export.path_of(export.lease_of(journal, volume.id))
    if path is None:
        raise BlockwrightError(f"{volume.name}: the process that exports it has ended")
    return path


def _hide(journal: Journal, volume: VolumeInfo, path: str) -> None:
    """Have the volume seen by nobody. Raises InUse, naming the holder, where somebody uses it."""
    export.stop(journal, volume)
    while (device := Seen().over(path)) is not None:
        loop.detach(device.number, sequence=device.sequence)
    if os.path.exists(path):
        FileDevice(path, alone=True).close()


def refresh(path: str) -> None:
    """Have what is seen as large as the file."""
    device = Seen().over(path)
    if device is not None:
        loop.refresh(device.path)
