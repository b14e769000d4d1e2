"""What network block devices there are, and what each is now, as sysfs tells.

Knows: where Linux tells it. Refuses to know: how anything is changed, and servers.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blockwright.errors import Unavailable
from blockwright.system.linux import blkdev
from blockwright.system.linux.ioctl import is_node, make_node, require_linux
from blockwright.system.linux.log import Logger, told
from blockwright.system.linux.nbd import layout
from blockwright.units import SECTOR

_BLOCK: Final = "/sys/block"
_NAME: Final = re.compile(r"nbd([0-9]{1,7})")


@dataclass(frozen=True, slots=True)
class NbdState:
    """An attached network block device. Sizes in bytes.

    ``task`` is the thread that attached it, whether it still runs or not. ``identifier`` is what it was attached
    with; empty where it has none, and before Linux 5.14. ``in_flight`` is how many requests are under way.
    """

    number: int
    path: str
    size: int
    block_size: int
    read_only: bool
    task: int
    identifier: str
    in_flight: int


def state(number: int) -> NbdState | None:
    """Return what the device is, None where it is free or does not exist."""
    folder = f"{_BLOCK}/nbd{number}"
    task = blkdev.text(f"{folder}/pid").strip()
    if not task.isdigit():
        return None
    return NbdState(
        number=number,
        path=f"/dev/nbd{number}",
        size=_number(f"{folder}/size") * SECTOR,
        block_size=_number(f"{folder}/queue/logical_block_size") or SECTOR,
        read_only=_number(f"{folder}/ro") == 1,
        task=int(task),
        identifier=blkdev.text(f"{folder}/backend"),
        in_flight=sum(int(each) for each in blkdev.text(f"{folder}/inflight").split() if each.isdigit()),
    )


def states(*, logger: Logger | None = None) -> Iterator[NbdState]:
    """Yield every attached device, ascending. Raises Unavailable without the driver, or sysfs."""
    require_driver("list", "network block devices")
    for number in numbers():
        found = state(number)
        if found is not None:
            told(logger).debug("%s: attached as %s", found.path, found.identifier or "nothing by name")
            yield found


def require_driver(operation: str, device: str) -> None:
    """Return where the kernel has the driver. Raises Unavailable."""
    require_linux(operation, device)
    if not has_driver():
        text = "the kernel lacks the driver"
        raise Unavailable(operation, device, errno.ENODEV, text, remedy="modprobe nbd")


def has_driver() -> bool:
    """Whether the kernel has network block devices, attached or free."""
    return any("nbd" in line.split() for line in blkdev.text("/proc/devices").splitlines())


def numbers() -> list[int]:
    """Return the numbers of all devices, attached or free, ascending. Raises Unavailable without sysfs."""
    try:
        names = os.listdir(_BLOCK)
    except OSError as error:
        raise Unavailable("list", _BLOCK, error.errno or errno.EIO, "sysfs is not mounted") from None
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)


def _number(path: str) -> int:
    text = blkdev.text(path)
    return int(text) if text.isdigit() else 0


def exists(number: int) -> bool:
    """Whether there is a device of that number, attached or free."""
    return os.path.exists(f"{_BLOCK}/nbd{number}")


def number_of(device: str | int) -> int:
    """Return the number of the device that is named ``/dev/nbd3``, ``nbd3`` or ``3``, or by another node.

    Raises NotFound where there is no such node, UsageError where it is no network block device.
    """
    return blkdev.number_of(device, prefix="nbd", major=layout.MAJOR, what="network block device")


def node(number: int) -> str:
    """Return the path of the device's node, which is made where it is missing, as it is in containers.

    Raises Unavailable where it cannot be made, KernelError where its name is another device's.
    """
    path = f"/dev/nbd{number}"
    major, _, minor = blkdev.text(f"{_BLOCK}/nbd{number}/dev").partition(":")
    if major.isdigit() and minor.isdigit() and sys.platform != "win32":
        if not is_node(path, stat.S_IFBLK, os.makedev(int(major), int(minor))):
            make_node(path, stat.S_IFBLK, int(major), int(minor))
    return path


_COMPLETED: Final = (0, 4, 11, 15)
"""Where requests that were done are counted, by kind: reads, writes, discards, flushes (block/stat.rst)."""


def completed(number: int) -> list[str]:
    """Return how many requests of each kind the device has done."""
    fields = blkdev.text(f"{_BLOCK}/nbd{number}/stat").split()
    return [fields[each] for each in _COMPLETED if each < len(fields)]


def limit_requests(number: int, largest: int) -> None:
    """Have the kernel ask for at most ``largest`` bytes at once. Raises KernelError where it takes no such limit."""
    path = f"{_BLOCK}/nbd{number}/queue/max_sectors_kb"
    if _number(path) * 1024 > largest:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(largest // 1024))
