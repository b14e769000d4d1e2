"""Disks that can be held in a hand: which one a device is, and whether the caller knows which one he writes to.

A disk is written over as a whole, and only by those who say its serial number or its model (``confirmed``): names
like /dev/sdb go to whatever was plugged in last. Devices that the kernel makes up (loop devices, mapped ones) are no
disks here, and a partition of a disk is none.

Knows: what Linux tells in /sys and udev beside it, and macOS by its names. Refuses to know: what is written.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from blockwright.device import darwin
from blockwright.device.descriptor import is_disk
from blockwright.errors import UsageError
from blockwright.units import SECTOR, format_size

MAX_TEXT: Final = 4096
"""Bytes of one file of /sys that are read."""
SHOWN: Final = 80
"""Characters of a model or serial number, which are the disk's to choose."""

STAND_INS: Final[set[str]] = set()
"""Names of devices, such as ``loop3``, that count as disks: for tests on a host whose disks are its own."""

_confirmed: ContextVar[str | None] = ContextVar("confirmed", default=None)
_BUSES: Final = (("/usb", "usb"), ("/nvme", "nvme"), ("/virtio", "virtio"), ("/mmc", "mmc"), ("/ata", "ata"))


@dataclass(frozen=True, slots=True)
class Disk:
    """What is told of a disk. ``kernel_name`` is such as ``sda``, ``of`` the disk that a partition is of, else None.

    ``size`` in bytes. Texts are empty where nobody tells; ``made_up`` says that no hardware is behind the device.
    """

    path: str
    kernel_name: str
    size: int
    model: str = ""
    serial: str = ""
    transport: str = ""
    removable: bool = False
    of: str | None = None
    made_up: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What says that this disk is meant: its serial number, its model, else what the kernel calls it."""
        return tuple(each for each in (self.serial, self.model) if each) or (self.kernel_name,)

    def __str__(self) -> str:
        told = [self.model or "no model", f"serial {self.serial}" if self.serial else "no serial number"]
        told += [self.transport] if self.transport else []
        told += ["removable"] if self.removable else []
        return f"{self.path}: {format_size(self.size)}, {', '.join(told)}"


def disk_at(path: str, *, sys_root: str = "/sys", udev: str = "/run/udev/data") -> Disk | None:
    """Return what is told of the block device at a path; None where it is none, or the system tells nothing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if sys.platform == "darwin":
        return _of_darwin(path) if is_disk(path, status.st_mode) else None
    if sys.platform != "linux" or not stat.S_ISBLK(status.st_mode):
        return None
    return told_by_linux(path, f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}", sys_root, udev)


def told_by_linux(path: str, number: str, sys_root: str = "/sys", udev: str = "/run/udev/data") -> Disk | None:
    """Return what /sys and udev tell of the device of that number (``8:0``); None where it has none there."""
    base = os.path.realpath(f"{sys_root}/dev/block/{number}")
    name = os.path.basename(base)
    if not os.path.isdir(base):
        return None
    whole = os.path.dirname(base) if os.path.exists(f"{base}/partition") else base
    number_of_whole = _text(f"{whole}/dev")
    known = dict(re.findall(r"^E:(ID_\w+)=(.*)$", _text(f"{udev}/b{number_of_whole}"), re.MULTILINE))
    made_up = f"{os.path.realpath(sys_root)}/devices/virtual/" in whole + "/" and name not in STAND_INS
    model = " ".join((_text(f"{whole}/device/model") or known.get("ID_MODEL", "").replace("_", " ")).split())
    sectors = _text(f"{base}/size")
    return Disk(
        path=path,
        kernel_name=name,
        size=int(sectors) * SECTOR if sectors.isdecimal() else 0,
        model=_shown(model),
        serial=_shown(known.get("ID_SERIAL_SHORT", "") or _serial(whole)),
        transport=known.get("ID_BUS", "") or next((bus for part, bus in _BUSES if part in whole), ""),
        removable=_text(f"{whole}/removable") == "1",
        of=None if whole == base else os.path.basename(whole),
        made_up=made_up,
    )


def _serial(whole: str) -> str:
    for place in ("serial", "device/serial"):
        if found := _text(f"{whole}/{place}"):
            return found
    page = _bytes(f"{whole}/device/vpd_pg80")  # SCSI Primary Commands: unit serial number, behind 4 bytes of header
    return page[4:].decode("ascii", "replace").strip("\0 ")


def _of_darwin(path: str) -> Disk | None:
    found = darwin.disk_name(path)
    if found is None:
        return None
    name, whole = found
    return Disk(path, name, darwin.disk_size(path), of=None if whole == name else whole)


def _shown(text: str) -> str:
    return "".join(each for each in text if each.isprintable()).strip()[:SHOWN]


def _text(path: str) -> str:
    return _bytes(path).decode("utf-8", "replace").strip()


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(MAX_TEXT)
    except OSError:
        return b""


@contextmanager
def confirmed(name: str | None) -> Iterator[None]:
    """Within the context the disk with this serial number or model may be written over."""
    token = _confirmed.set(name)
    try:
        yield
    finally:
        _confirmed.reset(token)


def check_whole(path: str) -> None:
    """Raise UsageError for a partition of a disk: what is a disk itself does not go there."""
    disk = disk_at(path)
    if disk is not None and not disk.made_up and disk.of is not None:
        raise UsageError(f"{path}: expected a whole disk, found a partition of {disk.of}")


def check_meant(path: str) -> bool:
    """Return whether the device at a path is a disk that the caller has named; False for what is no whole disk.

    Raises UsageError for a disk that was not named or is another one. What is mounted is not opened for writing.
    """
    disk = disk_at(path)
    if disk is None or disk.made_up or disk.of is not None:
        return False
    name = _confirmed.get()
    if name is None:
        raise UsageError(f"{disk}: is a disk: --yes-really {disk.names[0]!r} writes over all of it")
    if name not in disk.names:
        expected = " or ".join(repr(each) for each in disk.names)
        raise UsageError(f"{disk}: is another disk than was named: expected {expected}, found {name[:SHOWN]!r}")
    return True
