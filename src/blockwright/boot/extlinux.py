"""SYSLINUX put into an ext file system that exists already, with nothing else of the disk touched, as extlinux does.

In this order: the files, as one change of the file system; ``ldlinux.sys`` once more where it came to lie, filled in;
the boot sector, without which none of the rest does anything.

Knows: that order. Refuses to know: the parts (``syslinux``), tables, and configurations.
"""

from __future__ import annotations

from blockwright.boot import bios, fixed, syslinux
from blockwright.device.base import BlockDevice
from blockwright.device.window import Window
from blockwright.errors import Unsupported
from blockwright.resolve import open_editor, open_file_system
from blockwright.tree.content import BytesContent, Content
from blockwright.tree.node import File


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
    with open_file_system(_window(part), source=source) as files:
        runs = fixed.placed(files, path, blank)
    installed = parts.install(runs, directory)
    fixed.fill(part, runs, installed.image)
    part.write(0, syslinux.on_ext(installed.boot_sector, start=start, size=part.size))
    part.flush()


def _put(part: BlockDevice, files: dict[bytes, Content], time_ns: int, source: str) -> None:
    """Have immutable files of these contents, in place of those an earlier installation has left."""
    with open_editor(_window(part), source=source) as editor:
        for path, content in files.items():
            fixed.release(editor, path, fat=False)
            editor.put(path, File(fixed.PERMISSIONS, mtime_ns=time_ns, content=content))
            fixed.fix(editor, path, fat=False)


def _window(part: BlockDevice) -> Window:
    return Window(part, 0, owns=False)
