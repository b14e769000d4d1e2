"""SYSLINUX put into an ext file system that exists already, with nothing else of the disk touched, as extlinux does.

Knows: what extlinux refuses. Refuses to know: how a loader gets into a volume (``deploy``), tables, configurations.
"""

from __future__ import annotations

from blockwright.boot import bios, syslinux
from blockwright.boot.deploy import Target
from blockwright.boot.survey import Volume
from blockwright.device.base import BlockDevice
from blockwright.errors import Unsupported
from blockwright.resolve import open_file_system


def install(
    part: BlockDevice, parts: syslinux.Syslinux, *, directory: str, start: int, time_ns: int, source: str
) -> None:
    """Have the ext file system on ``part`` start by SYSLINUX, whose files go into the existing ``directory``.

    ``start`` is the byte of the disk that is byte 0 of ``part``. An earlier installation there is replaced. The files
    are immutable, since the boot sector finds them by where they lie. Raises Unsupported for another file system, or
    features that SYSLINUX cannot read; NotFound without the directory; NoSpace, UsageError.
    """
    volume = Volume(0, 0, part.size, fat=False, partition=None)
    with open_file_system(volume.open(part), source=source) as files:
        if not files.kind.startswith("ext"):
            raise Unsupported(f"expected ext2, ext3 or ext4, found {files.kind}", source=source)
        files.resolve(directory.encode())
    home, starter = bios.Home(fat=False, directory=directory.strip("/")), bios.SyslinuxStarter(parts, b"")
    target = Target(part, volume, source, time_ns, before=start)
    target.check(starter)
    target.install(starter, home, starter.files(home, None))
