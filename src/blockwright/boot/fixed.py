"""A file that a boot sector finds by where its bytes lie: kept from moving, and filled in at its place.

Knows: how each file system is told that a file stays. Refuses to know: what is in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from blockwright.device.base import BlockDevice
from blockwright.errors import Corrupt, NotFound
from blockwright.fs.editor import Attributes, Editor
from blockwright.fs.reader import FileSystem, Placed, show_path

PERMISSIONS: Final = 0o444
_DOS: Final = 0x07
"""FAT's bits for a file that stays where it is: read-only, hidden, system."""
_DOS_USUAL: Final = 0x20


def release(editor: Editor, path: bytes, *, fat: bool) -> None:
    """Let a file that an earlier installation has fixed be replaced; no such file is fine."""
    try:
        editor.files.resolve(path)
    except NotFound:
        return
    editor.set_attributes(path, Attributes(dos=_DOS_USUAL) if fat else Attributes(immutable=False))


def fix(editor: Editor, path: bytes, *, fat: bool) -> None:
    """Have the file stay where it is."""
    editor.set_attributes(path, Attributes(dos=_DOS) if fat else Attributes(immutable=True))


def placed(files: FileSystem, path: bytes, expected: bytes) -> list[Placed]:
    """Return where the file's bytes lie, up to its end. Raises Corrupt where they are not the ``expected`` ones."""
    inode = files.resolve(path)
    with files.open_inode(inode) as file:
        if file.size != len(expected) or file.read(0, file.size) != expected:
            raise Corrupt(f"{show_path(path)}: expected what was put there, found other bytes")
    runs = files.placement(inode)
    ends = [min(run.length, len(expected) - run.offset) for run in runs]
    return [run._replace(length=length) for run, length in zip(runs, ends, strict=True) if length > 0]


def fill(part: BlockDevice, runs: Sequence[Placed], image: bytes) -> None:
    """Have the bytes of ``image`` where the file's are, durable; ``part`` is what the file system is on."""
    for run in runs:
        part.write(run.position, image[run.offset : run.offset + run.length])
    part.flush()
