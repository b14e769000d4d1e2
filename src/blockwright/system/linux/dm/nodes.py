"""/dev/mapper/NAME: there when a device runs, gone when it is removed, with udevd and without.

The kernel makes /dev/dm-N at most. Where udevd runs it makes the link, and is waited for a bounded time; then, and
where there is no udevd, it is made here. An entry that leads to something else than a device-mapper device is
nobody's to replace.

Knows: names under /dev. Refuses to know: what a device does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import time
from typing import Final

from blockwright.errors import KernelError, NotFound, Unavailable, UsageError
from blockwright.system.linux import blkdev
from blockwright.system.linux.ioctl import make_node, split_device

FOLDER: Final = "/dev/mapper"
UDEV_TIMEOUT_S: Final = 2.0
_UDEV_CONTROL: Final = "/run/udev/control"
_NUMBER: Final = re.compile(r"[0-9]{1,7}:[0-9]{1,7}")
_NAME: Final = re.compile(r"[A-Za-z0-9#+\-.:=@_]{1,127}")
_RESERVED: Final = {".", "..", "control"}


def checked_name(name: str) -> str:
    """Return the name, where it is the same to the kernel, to udev and as a file. Raises UsageError otherwise."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise UsageError(f"device-mapper name {name[:128]!r}: expected 1 to 127 letters, digits and any of #+-.:=@_")
    return name


def path_of(name: str) -> str:
    """Return where the device's node is."""
    return f"{FOLDER}/{name}"


def number_of(device: str) -> str:
    """Return ``major:minor`` of a block device's node, or of what is written so already.

    Raises NotFound, UsageError.
    """
    if _NUMBER.fullmatch(device):
        return device
    try:
        found = os.stat(device)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{device}: no such device") from None
    if sys.platform == "win32" or not stat.S_ISBLK(found.st_mode):
        raise UsageError(f"{device}: expected a block device, found something else")
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def ensure(name: str, dev: int) -> str:
    """Return the path of the device's node, which leads to it now.

    Raises KernelError where the name is taken by something that is no device-mapper device, Unavailable where no node
    can be made.
    """
    path = path_of(name)
    if _number(path) == dev:
        return path
    if os.path.exists(_UDEV_CONTROL) and _appears(path, dev):
        return path
    with contextlib.suppress(OSError):
        os.makedirs(FOLDER, exist_ok=True)
    _make_room(path, dev)
    _make(path, dev)
    return path


def _appears(path: str, dev: int) -> bool:
    end, wait = time.monotonic() + UDEV_TIMEOUT_S, 0.001
    while time.monotonic() < end:
        if _number(path) == dev:
            return True
        time.sleep(wait)
        wait = min(2 * wait, 0.05)
    return False


def _make_room(path: str, dev: int) -> None:
    """Remove an entry that a device-mapper device of the past left there."""
    if not os.path.lexists(path):
        return
    found = _number(path)
    if found is None and os.path.islink(path) and re.fullmatch(r"(\.\./|/dev/)dm-[0-9]+", os.readlink(path)):
        pass  # the device it led to is gone
    elif found is None or sys.platform == "win32" or os.major(found) != os.major(dev):
        raise KernelError("create node", path, errno.EEXIST, "expected no entry, or a device-mapper device's")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _make(path: str, dev: int) -> None:
    if sys.platform == "win32":
        return
    kernel = f"dm-{os.minor(dev)}"
    if _number(f"/dev/{kernel}") == dev:
        try:
            os.symlink(f"../{kernel}", path)
        except FileExistsError:  # udevd was slow, and is there now
            return
        except OSError as error:
            raise Unavailable("create node", path, error.errno or errno.EIO, str(error.strerror).lower()) from None
        return
    make_node(path, stat.S_IFBLK, os.major(dev), os.minor(dev))


def remove(name: str, dev: int) -> None:
    """Have no node of that name, where it led to the device; anybody else's stays."""
    path = path_of(name)
    found = _number(path)
    dangling = found is None and sys.platform != "win32" and _link(path) == f"../dm-{os.minor(dev)}"
    if found == dev or dangling:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def sweep(name: str) -> None:
    """Have no node of that name which leads to no device, or to one of another name: what a killed process left."""
    path = path_of(name)
    match = re.fullmatch(r"(?:\.\./|/dev/)dm-([0-9]+)", _link(path))
    if match:
        folder = f"/sys/block/dm-{match[1]}"
    else:
        number = _number(path)
        if number is None:
            return
        folder = "/sys/dev/block/{}:{}".format(*split_device(number))
        if os.path.exists(folder) and not os.path.exists(f"{folder}/dm"):
            return  # a device of another kind, which somebody gave that name
    if blkdev.text(f"{folder}/dm/name") != name:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _number(path: str) -> int | None:
    """Return the number of the block device that the path leads to, None where it leads to none."""
    if sys.platform == "win32":
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_rdev if stat.S_ISBLK(found.st_mode) else None
