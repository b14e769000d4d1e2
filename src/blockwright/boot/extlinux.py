"""SYSLINUX put into an ext file system that exists already, with nothing else of the disk touched, as extlinux does.

In this order: the files, as one change of the file system; ``ldlinux.sys`` once more where it came to lie, filled in;
the boot sector, without which none of the rest does anything.

Knows: that order. Refuses to know: the parts (``syslinux``), tables, and configurations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from blockwright.boot import bios, syslinux
from blockwright.device.base import BlockDevice
from blockwright.device.window import Window
from blockwright.errors import Corrupt, NotFound, Unsupported
from blockwright.fs.editor import Attributes
from blockwright.fs.reader import Placed
from blockwright.resolve import open_editor, open_file_system
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import File

_PERMISSIONS: Final = 0o444


def install(
    part: BlockDevice, parts: syslinux.Syslinux, *, directory: str, start: int, time_ns: int, source: str
) -> None:
    """Have the ext file system on ``part`` start by SYSLINUX, whose files go into the existing ``directory``.

    ``start`` is the byte of the disk that is byte 0 of ``part``. An earlier installation there is replaced. The files
    are immutable, since the boot sector finds them by where they lie. Raises Unsupported for another file system, or
    features that SYSLINUX cannot read; NotFound without the directory; NoSpace, UsageError.
    """
    with open_file_system(_window(part), source=source) as files:
        if not files.kind.startswith("ext"):
            raise Unsupported(f"expected ext2, ext3 or ext4, found {files.kind}", source=source)
        bios.check_features(bios.SyslinuxStarter(parts, b""), files.features)
    folder = directory.rstrip("/")
    path = f"{folder}/ldlinux.sys".encode()
    blank = parts.blank()
    _put(
        part,
        {path: BytesContent(blank), f"{folder}/ldlinux.c32".encode(): BytesContent(parts.module)},
        time_ns,
        source,
    )
    runs = _placed(part, path, blank, source)
    installed = parts.install(runs, directory)
    for run in runs:
        part.write(run.position, installed.image[run.offset : run.offset + run.length])
    part.flush()
    part.write(0, syslinux.on_ext(installed.boot_sector, start=start, size=part.size))
    part.flush()


def _put(part: BlockDevice, files: dict[bytes, Content], time_ns: int, source: str) -> None:
    """Have immutable files of these contents, in place of those an earlier installation has left."""
    with open_editor(_window(part), source=source) as editor:
        for path, content in files.items():
            with contextlib.suppress(NotFound):
                editor.set_attributes(path, Attributes(immutable=False), follow=False)
            editor.put(path, File(_PERMISSIONS, mtime_ns=time_ns, content=content))
            editor.set_attributes(path, Attributes(immutable=True), follow=False)


def _placed(part: BlockDevice, path: bytes, blank: bytes, source: str) -> Sequence[Placed]:
    """Return where the file's bytes lie, all of them. Raises Corrupt where it is not what was put there."""
    with open_file_system(_window(part), source=source) as files:
        inode = files.resolve(path)
        with files.open_inode(inode) as file:
            if file.read(0, file.size) != blank:
                raise Corrupt("ldlinux.sys: expected what was put there, found other bytes", source=source)
        placed = files.placement(inode)
    return [
        run._replace(length=min(run.length, len(blank) - run.offset)) for run in placed if run.offset < len(blank)
    ]


def _window(part: BlockDevice) -> Window:
    return Window(part, 0, owns=False)
